//! The disk that people's things are on, and what a cgroup says of its use.
//!
//! Rates are set on the whole disk, which all that is read and written there passes last, also by way of a person's own
//! file system in a file: the kernel charges what its loop device does to whoever asked for it. v1 holds
//! rates, too, but of each cgroup alone and not of those within it, so a sum has none there. A weight means something
//! only to a scheduler that looks at it: BFQ, or on v2 the kernel's model of a disk's cost (`io.cost.qos`).

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor, stat};
use serde::{Deserialize, Serialize};

use super::limits::{Entry, Form, Io};
use super::{Cgroup, Controller, Error, Hierarchy, files};

/// The weight that everybody has who was given none.
const NEUTRAL_WEIGHT: u64 = 100;
/// BFQ's largest weight; its least and its neutral one are those of v2.
const BFQ_WEIGHT_MAX: u64 = 1000;

/// A whole disk, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// Its number as the kernel writes it, `major:minor`.
    At(String),
    /// Why nothing can be set of it.
    Unknown(String),
}

impl Disk {
    /// The one that a directory is on.
    pub fn below(directory: &Path) -> Self {
        Self::find(directory).unwrap_or_else(Self::Unknown)
    }

    fn find(directory: &Path) -> Result<Self, String> {
        let facts =
            stat(directory).map_err(|errno| format!("look at {}: {errno}", directory.display()))?;
        // proc_devices(5): file systems that are on no disk, or on several, have numbers of major 0.
        let number = format!("{}:{}", major(facts.st_dev), minor(facts.st_dev));
        let on_none = || format!("{} is on no disk that the kernel names", directory.display());
        let device = fs::canonicalize(format!("/sys/dev/block/{number}")).map_err(|_| on_none())?;
        if !device.join("partition").exists() {
            return Ok(Self::At(number));
        }
        // A part of a disk lies in the disk's own directory.
        let whole = device.parent().ok_or_else(on_none)?.join("dev");
        let number = fs::read_to_string(&whole)
            .map_err(|error| format!("read {}: {error}", whole.display()))?;
        Ok(Self::At(number.trim().to_owned()))
    }

    /// Whether its scheduler is BFQ.
    fn has_bfq(&self) -> bool {
        let Self::At(number) = self else { return false };
        let scheduler = fs::read_to_string(format!("/sys/dev/block/{number}/queue/scheduler"));
        scheduler.is_ok_and(|text| text.contains("[bfq]"))
    }

    /// Whether the kernel weighs by its model of the disk's cost (cgroup-v2.rst, `io.cost.qos`).
    fn has_costs(&self, root: &Path) -> bool {
        let Self::At(number) = self else { return false };
        let qos = fs::read_to_string(root.join("io.cost.qos")).unwrap_or_default();
        qos.lines().any(|line| {
            let mut words = line.split(' ');
            words.next() == Some(number) && words.any(|word| word == "enable=1")
        })
    }
}

impl Cgroup {
    /// The files to write for block I/O. What nobody asks for is written where it was set once.
    pub(super) fn entries_io(&self, io: &Io) -> Result<Vec<Entry>, Error> {
        let mut entries = vec![self.weight(io)];
        let rates = [("io_read", "rbps", io.read), ("io_write", "wbps", io.write)];
        entries.extend(rates.into_iter().map(|(name, key, rate)| self.rate(io, name, key, rate)));
        let asked = [io.weight, io.read, io.write];
        let mut wanted = Vec::new();
        for (entry, asked) in entries.into_iter().zip(asked) {
            let differs = || -> Result<bool, Error> {
                Ok(entry.file.exists() && entry.of_text(&files::read(&entry.file)?) != entry.value)
            };
            if asked.is_some() || differs()? {
                wanted.push(entry);
            }
        }
        Ok(wanted)
    }

    fn weight(&self, io: &Io) -> Entry {
        let weight = io.weight.unwrap_or(NEUTRAL_WEIGHT);
        let directory = self.directory(Controller::Io).unwrap_or_default();
        let by_bfq = match &self.hierarchy {
            Hierarchy::V1 { .. } => directory.join("blkio.bfq.weight"),
            Hierarchy::V2 { .. } => directory.join("io.bfq.weight"),
        };
        let by_cost = directory.join("io.weight");
        let has_bfq = io.disk.has_bfq();
        let (file, works, value) = match &self.hierarchy {
            Hierarchy::V2 { root } if !has_bfq && by_cost.exists() => {
                (by_cost, io.disk.has_costs(root), weight)
            }
            _ => (by_bfq, has_bfq, weight.min(BFQ_WEIGHT_MAX)),
        };
        let idle = match &io.disk {
            Disk::Unknown(reason) => reason.clone(),
            Disk::At(number) if !works => {
                format!("the scheduler of disk {number} knows no weights (BFQ does)")
            }
            Disk::At(_) if value < weight => format!("BFQ's largest weight is {BFQ_WEIGHT_MAX}"),
            Disk::At(_) => String::new(),
        };
        Entry {
            name: "io_weight",
            file,
            value: value.to_string(),
            absent: "the kernel has no weights of block I/O here (blkio.bfq.weight, io.weight)"
                .to_owned(),
            form: Form::Weight { idle },
        }
    }

    fn rate(&self, io: &Io, name: &'static str, key: &'static str, rate: Option<u64>) -> Entry {
        let rate = rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string());
        let (file, device, absent) = match (&self.hierarchy, &io.disk) {
            (Hierarchy::V1 { .. }, _) => (
                PathBuf::new(),
                String::new(),
                "cgroup v1 holds a rate of each container alone, and of no sum".to_owned(),
            ),
            (_, Disk::Unknown(reason)) => (PathBuf::new(), String::new(), reason.clone()),
            (Hierarchy::V2 { .. }, Disk::At(number)) => (
                self.directory(Controller::Io).unwrap_or_default().join("io.max"),
                number.clone(),
                "the io controller is not available to this cgroup".to_owned(),
            ),
        };
        let value = format!("{device} {key}={rate}");
        Entry { name, file, value, absent, form: Form::Rate { device, key } }
    }
}
