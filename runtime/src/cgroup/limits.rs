//! Writing limits and reading them back.
//!
//! All or none: values in force before are read first, and written back when a later write fails.
//! Every limit is read back after writing, and what the file then says is what is reported. Weights
//! on v1 are shares in the kernel's own ratio (100 is 1024). Swap on v1 is bounded together with
//! memory (`memory.memsw`), so there a container may trade one for the other.
//!
//! `memory.oom.group` stays off: v1 has nothing like it, and whether the loss of one process ends a
//! container is for its first process to decide.

use std::path::{Path, PathBuf};

use berth_runtime::record::LimitState;
use berth_runtime::wire::{Limits, Total};

use super::{Cgroup, Controller, Disk, Error, Hierarchy, files};

/// The period that quotas are given in: 100 ms, the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// v1's `cpu.shares` at the neutral weight of 100.
const NEUTRAL_SHARES: u64 = 1024;
/// Memory limits are held in whole pages.
const PAGE_BYTES: u64 = 4096;

/// Tries to lower a quota below those of cgroups within, of which one may come up meanwhile.
const BOUND_TRIES: u32 = 3;

/// A ceiling, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Up to this.
    At(u64),
    /// Whatever those above allow.
    Unbounded,
}

/// What to set; `None` leaves the kernel's value alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Processor time in microseconds per [`CPU_PERIOD_US`]; may exceed it, for several cores.
    pub cpu: Option<Bound>,
    /// Share under contention, 1 to 10000, 100 as the neutral value.
    pub cpu_weight: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<Bound>,
    /// Swap in bytes beside the memory; needs `memory_bytes`.
    pub swap_bytes: Option<Bound>,
    /// Processes and threads.
    pub pids: Option<Bound>,
    /// Block I/O.
    pub io: Option<Io>,
}

/// What to set of block I/O. What has no value is given back to the kernel's, where it is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Io {
    /// The disk.
    pub disk: Disk,
    /// Share under contention, 1 to 10000, 100 as the neutral value.
    pub weight: Option<u64>,
    /// Bytes per second that are read.
    pub read: Option<u64>,
    /// Bytes per second that are written.
    pub write: Option<u64>,
}

impl From<&Limits> for Settings {
    fn from(limits: &Limits) -> Self {
        Self {
            cpu: Some(Bound::At(quota_us(limits.cpu_millis))),
            cpu_weight: Some(u64::from(limits.cpu_weight)),
            memory_bytes: Some(Bound::At(limits.memory_bytes)),
            swap_bytes: Some(Bound::At(limits.swap_bytes)),
            pids: Some(Bound::At(u64::from(limits.pids))),
            io: None,
        }
    }
}

impl From<&Total> for Settings {
    fn from(total: &Total) -> Self {
        let bound = |value: Option<u64>| value.map_or(Bound::Unbounded, Bound::At);
        Self {
            cpu: Some(bound(total.cpu_millis.map(quota_us))),
            cpu_weight: Some(u64::from(total.cpu_weight)),
            memory_bytes: Some(bound(total.memory_bytes)),
            swap_bytes: Some(bound(total.swap_bytes)),
            pids: Some(bound(total.pids.map(u64::from))),
            io: None,
        }
    }
}

impl Settings {
    /// All of a total, with what it says of the disk.
    pub fn of_total(total: &Total, disk: &Disk) -> Self {
        let io = Io {
            disk: disk.clone(),
            weight: total.io_weight.map(u64::from),
            read: total.io_read_bytes_per_sec,
            write: total.io_write_bytes_per_sec,
        };
        Self { io: Some(io), ..Self::from(total) }
    }

    /// A processor quota alone, in thousandths of a core; `None` takes it away.
    pub fn of_cpu_millis(millis: Option<u32>) -> Self {
        let cpu = millis.map_or(Bound::Unbounded, |millis| Bound::At(quota_us(millis)));
        Self { cpu: Some(cpu), ..Self::default() }
    }
}

impl Bound {
    /// As a file has it, `none` for no bound.
    fn text(self, none: &str) -> String {
        match self {
            Self::At(value) => value.to_string(),
            Self::Unbounded => none.to_owned(),
        }
    }

    /// As the kernel holds memory: rounded down to whole pages.
    fn in_pages(self) -> Self {
        match self {
            Self::At(bytes) => Self::At(whole_pages(bytes)),
            Self::Unbounded => Self::Unbounded,
        }
    }
}

fn quota_us(millis: u32) -> u64 {
    u64::from(millis) * (CPU_PERIOD_US / 1000)
}

/// One file to be written for one limit.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) file: PathBuf,
    pub(super) value: String,
    /// Why it is not held when there is no such file.
    pub(super) absent: String,
    pub(super) form: Form,
}

/// What of a file's text is one limit's.
pub(super) enum Form {
    /// All of it.
    Whole,
    /// The first line, of which the kernel says that it is the default for all disks. Where `idle` says something, it
    /// is why the value is there and nothing comes of it.
    Weight { idle: String },
    /// The part of one disk's line that begins with this and `=`.
    Rate { device: String, key: &'static str },
}

impl Entry {
    fn whole(name: &'static str, file: PathBuf, value: String, absent: &str) -> Self {
        Self { name, file, value, absent: absent.to_owned(), form: Form::Whole }
    }

    /// The limit, as it could be written, in the text of its file.
    pub(super) fn of_text(&self, text: &str) -> String {
        match &self.form {
            Form::Whole => text.to_owned(),
            Form::Weight { .. } => {
                let first = text.lines().next().unwrap_or_default();
                first.strip_prefix("default ").unwrap_or(first).to_owned()
            }
            Form::Rate { device, key } => {
                let mut lines = text.lines().map(|line| line.split(' '));
                let own = lines.find_map(|mut words| (words.next()? == device).then_some(words));
                let value = own.and_then(|mut words| {
                    words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
                });
                format!("{device} {key}={}", value.unwrap_or("max"))
            }
        }
    }

    /// Why it is not held though the file says what was asked for.
    fn idle(&self) -> String {
        match &self.form {
            Form::Weight { idle } => idle.clone(),
            _ => String::new(),
        }
    }

    /// Whether no bound was asked for, and `value` is what v1's memory files then say: the largest
    /// number of pages.
    fn is_unbounded(&self, value: &str) -> bool {
        self.value == "-1" && value.parse::<u64>().is_ok_and(|bytes| bytes >= 1 << 62)
    }
}

impl Cgroup {
    /// Sets every limit given, or none of them, and says what the kernel then shows for each.
    pub fn apply(&self, settings: &Settings) -> Result<Vec<LimitState>, Error> {
        let (there, missing): (Vec<Entry>, Vec<Entry>) =
            self.entries(settings)?.into_iter().partition(|entry| entry.file.exists());
        let mut before = Vec::new();
        for entry in &there {
            before.push(entry.of_text(&files::read(&entry.file)?));
        }
        if let Some(Bound::At(bytes)) = settings.memory_bytes {
            self.make_room(bytes)?;
        }
        for (index, entry) in there.iter().enumerate() {
            if let Err(error) = self.write_limit(entry, settings) {
                undo(&there[..index], &before[..index], &error)?;
                return Err(error);
            }
        }
        let mut states = Vec::new();
        for entry in &there {
            let value = entry.of_text(&files::read(&entry.file)?);
            let held = value == entry.value || entry.is_unbounded(&value);
            let reason = if held { entry.idle() } else { format!("{} was asked for", entry.value) };
            states.push(state(entry, value, reason));
        }
        states
            .extend(missing.iter().map(|entry| state(entry, String::new(), entry.absent.clone())));
        Ok(states)
    }

    /// The files to write, in an order that the kernel accepts.
    fn entries(&self, settings: &Settings) -> Result<Vec<Entry>, Error> {
        let mut entries = match &self.hierarchy {
            Hierarchy::V2 { root } => entries_v2(&self.below(root), settings),
            Hierarchy::V1 { .. } => self.entries_v1(settings)?,
        };
        if let Some(io) = &settings.io {
            entries.extend(self.entries_io(io)?);
        }
        Ok(entries)
    }

    fn entries_v1(&self, settings: &Settings) -> Result<Vec<Entry>, Error> {
        let file = |controller, name: &str| {
            // Without the controller the file cannot be there, and is reported as missing.
            self.directory(controller).unwrap_or_default().join(name)
        };
        let mut entries = Vec::new();
        let mut add = |name, file, value: Bound, absent| {
            entries.push(Entry::whole(name, file, value.text("-1"), absent));
        };
        if let Some(cpu) = settings.cpu {
            let absent = "the kernel has no processor quota (cpu.cfs_quota_us)";
            // Only to a new period is it written: the kernel checks old quota against new period.
            let period = file(Controller::Cpu, "cpu.cfs_period_us");
            if period.exists() && files::read_number(&period)? != CPU_PERIOD_US {
                files::write(&period, &CPU_PERIOD_US.to_string())?;
            }
            let quota = match (cpu, self.quota_above()?) {
                // v1 refuses a quota above that of a cgroup above, where v2 takes the smaller.
                (Bound::At(quota), Some(above)) => Bound::At(quota.min(above)),
                (cpu, _) => cpu,
            };
            add("cpu", file(Controller::Cpu, "cpu.cfs_quota_us"), quota, absent);
        }
        if let Some(weight) = settings.cpu_weight {
            let absent = "the cpu controller is not mounted";
            let shares = (weight * NEUTRAL_SHARES / 100).clamp(2, 262_144);
            add("cpu_weight", file(Controller::Cpu, "cpu.shares"), Bound::At(shares), absent);
        }
        if let Some(bytes) = settings.memory_bytes {
            let memory = file(Controller::Memory, "memory.limit_in_bytes");
            let both = file(Controller::Memory, "memory.memsw.limit_in_bytes");
            let absent = "the memory controller is not mounted";
            let no_swap = "the kernel does not count swap (memory.memsw.limit_in_bytes is absent)";
            // The kernel demands memory <= memory and swap at every moment: when the sum grows it
            // goes first, else last.
            let total = settings.swap_bytes.map(|swap| match (bytes, swap) {
                (Bound::At(bytes), Bound::At(swap)) => {
                    Bound::At(whole_pages(bytes) + whole_pages(swap))
                }
                // Swap alone has no bound on v1.
                _ => Bound::Unbounded,
            });
            let bytes = bytes.in_pages();
            let grows = total.is_some_and(|total| match total {
                Bound::Unbounded => true,
                Bound::At(total) => {
                    both.exists() && files::read_number(&both).is_ok_and(|before| total >= before)
                }
            });
            if let (Some(total), true) = (total, grows) {
                add("swap", both.clone(), total, no_swap);
            }
            add("memory", memory, bytes, absent);
            if let (Some(total), false) = (total, grows) {
                add("swap", both, total, no_swap);
            }
        }
        if let Some(pids) = settings.pids {
            let absent = "the pids controller is not mounted";
            let file = file(Controller::Pids, "pids.max");
            entries.push(Entry::whole("pids", file, pids.text("max"), absent));
        }
        Ok(entries)
    }

    /// v1: the smallest quota of a cgroup above, in microseconds per [`CPU_PERIOD_US`].
    fn quota_above(&self) -> Result<Option<u64>, Error> {
        let Some(own) = self.directory(Controller::Cpu) else { return Ok(None) };
        let mut smallest = None;
        // All but itself and the hierarchy's root, which has no quota.
        for directory in own.ancestors().skip(1).take(self.path.matches('/').count() - 1) {
            let quota = directory.join("cpu.cfs_quota_us");
            let Ok(text) = files::read(&quota) else { continue };
            // -1 is none.
            let Ok(quota) = text.parse::<u64>() else { continue };
            let period = files::read_number(&directory.join("cpu.cfs_period_us"))?.max(1);
            let quota = quota.saturating_mul(CPU_PERIOD_US) / period;
            smallest = Some(smallest.map_or(quota, |before: u64| before.min(quota)));
        }
        Ok(smallest)
    }

    /// Holds all that is in this cgroup's children together to `total`; `inner` are those below it that
    /// have limits of their own, and these, each after the one that it is in.
    pub fn bound(
        &self,
        total: &Settings,
        inner: &[(Cgroup, Settings)],
    ) -> Result<Vec<LimitState>, Error> {
        let Hierarchy::V1 { .. } = self.hierarchy else { return self.apply(total) };
        let mut states = Err(Error::Layout("nothing was tried".to_owned()));
        for _ in 0..BOUND_TRIES {
            self.lower_inner(total)?;
            states = self.apply(total);
            if !matches!(&states, Err(Error::Write { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL))
            {
                break;
            }
        }
        // What was lowered for a smaller total, or may be had again under a larger one.
        for (cgroup, own) in inner {
            match cgroup.apply(&Settings { cpu: own.cpu, ..Settings::default() }) {
                Err(error) if !files::is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        states
    }

    /// v1 refuses a quota below that of a cgroup within: those are lowered first.
    fn lower_inner(&self, total: &Settings) -> Result<(), Error> {
        let (Some(Bound::At(most)), Some(own)) = (total.cpu, self.directory(Controller::Cpu))
        else {
            return Ok(());
        };
        lower_below(&own, most)
    }

    /// On v2, lowering memory below what is in use would make the kernel kill; so what is above the
    /// new limit is reclaimed first, and where that fails the change is refused. v1 refuses by itself.
    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        let Hierarchy::V2 { root } = &self.hierarchy else { return Ok(()) };
        let directory = self.below(root);
        let current = directory.join("memory.current");
        if !current.exists() {
            return Ok(());
        }
        let mut used = files::read_number(&current)?;
        if used <= bytes {
            return Ok(());
        }
        // EAGAIN means that less was reclaimed than asked for; what counts is read after it. The
        // file came with 5.19; without it nothing is reclaimed and the change is refused.
        let reclaim = files::write(&directory.join("memory.reclaim"), &(used - bytes).to_string());
        used = files::read_number(&current)?;
        match reclaim {
            _ if used <= bytes => Ok(()),
            Ok(()) | Err(Error::Write { .. }) => {
                Err(Error::MemoryInUse { path: directory.join("memory.max"), wanted: bytes, used })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes one limit; v1's EBUSY for memory in use becomes the error that says so.
    fn write_limit(&self, entry: &Entry, settings: &Settings) -> Result<(), Error> {
        match files::write(&entry.file, &entry.value) {
            Err(Error::Write { path, source, .. })
                if source.raw_os_error() == Some(libc::EBUSY)
                    && matches!(entry.name, "memory" | "swap") =>
            {
                let usage = match entry.name {
                    "memory" => "memory.usage_in_bytes",
                    _ => "memory.memsw.usage_in_bytes",
                };
                let used = files::read_number(&path.with_file_name(usage))?;
                let wanted = match settings.memory_bytes {
                    Some(Bound::At(bytes)) => bytes,
                    _ => 0,
                };
                Err(Error::MemoryInUse { path, wanted, used })
            }
            other => other,
        }
    }
}

/// v1: lowers each quota below `own` that is above `most`, the innermost first. Groups' cgroups are in the scope,
/// people's in a group's, and containers' in a person's.
fn lower_below(own: &Path, most: u64) -> Result<(), Error> {
    for first in ['g', 'p', 'c'] {
        for (_, directory) in files::children(own, first)? {
            lower_below(&directory, most)?;
            let quota = directory.join("cpu.cfs_quota_us");
            let now = files::read(&quota).ok().and_then(|text| text.parse::<u64>().ok());
            if now.is_some_and(|now| now > most) {
                match files::write(&quota, &most.to_string()) {
                    Err(error) if !files::is_gone(&error) => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn entries_v2(directory: &Path, settings: &Settings) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |name, file: &str, value: String, absent| {
        entries.push(Entry::whole(name, directory.join(file), value, absent));
    };
    let no_cpu = "the cpu controller is not available to this cgroup";
    if let Some(cpu) = settings.cpu {
        add("cpu", "cpu.max", format!("{} {CPU_PERIOD_US}", cpu.text("max")), no_cpu);
    }
    if let Some(weight) = settings.cpu_weight {
        add("cpu_weight", "cpu.weight", weight.to_string(), no_cpu);
    }
    if let Some(bytes) = settings.memory_bytes {
        let absent = "the memory controller is not available to this cgroup";
        add("memory", "memory.max", bytes.in_pages().text("max"), absent);
    }
    if let Some(bytes) = settings.swap_bytes {
        let absent = "the kernel does not count swap (memory.swap.max is absent)";
        add("swap", "memory.swap.max", bytes.in_pages().text("max"), absent);
    }
    if let Some(pids) = settings.pids {
        let absent = "the pids controller is not available to this cgroup";
        add("pids", "pids.max", pids.text("max"), absent);
    }
    entries
}

/// The limit as the kernel holds it: rounded down to whole pages.
fn whole_pages(bytes: u64) -> u64 {
    bytes / PAGE_BYTES * PAGE_BYTES
}

/// Writes former values back, last written first.
fn undo(written: &[Entry], before: &[String], first: &Error) -> Result<(), Error> {
    for (entry, value) in written.iter().zip(before).rev() {
        files::write(&entry.file, value)
            .map_err(|error| Error::Undo { first: first.to_string(), source: Box::new(error) })?;
    }
    Ok(())
}

fn state(entry: &Entry, value: String, reason: String) -> LimitState {
    LimitState {
        name: entry.name.to_owned(),
        held: reason.is_empty(),
        file: entry.file.to_string_lossy().into_owned(),
        value,
        reason,
    }
}
