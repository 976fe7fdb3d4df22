//! What is written down of each container, and read again by whoever comes after a crash.
//!
//! Four small files, each with one writer. `start.json` (supervisor): the newest start. `end.json`
//! (supervisor): who was about to end it, written before the act. `exit.json` (monitor; the undoer when
//! there is no monitor left): how the run ended, on disk before anybody is told. `live.json` (monitor,
//! after the start the supervisor; on tmpfs): who runs now. Beside them, on tmpfs, one for each exec
//! that goes on (supervisor; then its own monitor). Readers pass over fields that they do not
//! know, so that a newer or older build can go on with them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use berth_runtime::digest::Digest;
use berth_runtime::id::{ExecId, PrincipalId, VolumeId};
use berth_runtime::record::{ExitCause, ExitRecord, Live};
use berth_runtime::wire::{Limits, PortLease, StopOptions, Ulimit, VolumeMount};

use crate::files::{self, Durability, FileError};
use crate::network::{Attachment, Subnet};
use crate::process::ProcessKey;

const START: &str = "start.json";
const END: &str = "end.json";
const EXIT: &str = "exit.json";
const LIVE: &str = "live.json";
/// No record is larger.
const RECORD_BYTES_MAX: u64 = 256 * 1024;
/// What an end takes with the longest failure that is usual.
const RESERVED_BYTES: u32 = 4096;

/// `start.json`. The request itself is not kept: the inventory has it, and it may hold secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartRecord {
    /// The form of this file.
    pub(crate) version: u32,
    /// In which boot.
    pub(crate) boot_id: String,
    /// Whose.
    pub(crate) person: PrincipalId,
    /// Whose resources it counts to since this start.
    pub(crate) group: PrincipalId,
    /// The start's number.
    pub(crate) run: u64,
    /// What it stands on.
    pub(crate) layers: Vec<Digest>,
    /// Whose content it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<VolumeId>,
    /// The same of other people's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) foreign_volumes: Vec<ForeignVolume>,
    /// The limits as asked for last.
    pub(crate) limits: Limits,
    /// How it stops at host shutdown.
    pub(crate) stop: StopOptions,
    /// Its place on its owner's bridge, unless it has no network.
    #[serde(default)]
    pub(crate) place: Option<NetworkPlace>,
    /// What confines later programs as it does the first; absent from an older build's record.
    #[serde(default)]
    pub(crate) confinement: Option<Confinement>,
}

/// A volume of somebody else's than the container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForeignVolume {
    /// Whose.
    pub(crate) owner: PrincipalId,
    /// Which.
    pub(crate) volume: VolumeId,
}

/// What a start asked for that later programs of the run have to be held to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// The uts namespace's name, for their environment.
    pub(crate) hostname: String,
    /// See [`berth_runtime::wire::ProcessSpec`].
    pub(crate) capabilities_dropped: Vec<String>,
    /// The same.
    pub(crate) ulimits: BTreeMap<String, Ulimit>,
}

/// An exec that goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecRecord {
    /// Its monitor, the parent of its program.
    pub(crate) monitor: ProcessKey,
    /// The program's process, once it is there.
    pub(crate) process: Option<ProcessKey>,
}

/// A container's place on its owner's bridge, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkPlace {
    /// The owner's number; names the bridge.
    pub(crate) slot: u32,
    /// The owner's subnet.
    pub(crate) network: Ipv4Addr,
    /// Its prefix length.
    pub(crate) prefix: u8,
    /// The container's address.
    pub(crate) address: Ipv4Addr,
    /// The host's ports that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<PortLease>,
}

impl NetworkPlace {
    /// As the network module takes it.
    pub(crate) fn attachment(&self) -> Attachment {
        let subnet = Subnet::containing(self.network, self.prefix);
        Attachment { slot: self.slot, subnet, address: self.address, ports: self.ports.clone() }
    }
}

/// `end.json`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct EndRecord {
    /// Which run was to be ended.
    pub(crate) run: u64,
    /// Why.
    pub(crate) cause: ExitCause,
    /// When, milliseconds since 1970.
    pub(crate) at_ms: i64,
}

/// `live.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LiveRecord {
    /// The form of this file.
    pub(crate) version: u32,
    /// The start's number.
    pub(crate) run: u64,
    /// The monitor.
    pub(crate) monitor: ProcessKey,
    /// Set once the program runs.
    pub(crate) live: Option<Live>,
}

/// The form of the files that this build writes.
pub(crate) const VERSION: u32 = 1;

impl StartRecord {
    /// Keeps in mind whose volumes the run has.
    pub(crate) fn note_volumes(&mut self, mounts: &[VolumeMount]) {
        for one in mounts {
            let (owner, volume) = (one.owner_in(self.person), one.volume.clone());
            match owner == self.person {
                true => self.volumes.push(volume),
                false => self.foreign_volumes.push(ForeignVolume { owner, volume }),
            }
        }
    }

    /// Whether the run has this volume of `owner`'s.
    pub(crate) fn has_volume(&self, owner: PrincipalId, volume: &VolumeId) -> bool {
        let foreign = |one: &ForeignVolume| one.owner == owner && one.volume == *volume;
        (self.person == owner && self.volumes.contains(volume))
            || self.foreign_volumes.iter().any(foreign)
    }

    /// Whether the run is on `owner`'s disk: its own tree is there, or a volume that it has.
    pub(crate) fn is_on_disk_of(&self, owner: PrincipalId) -> bool {
        self.person == owner || self.foreign_volumes.iter().any(|one| one.owner == owner)
    }

    /// Reads it; `None` when it is absent, or was cut off by a power loss.
    pub(crate) fn read(record: impl AsFd) -> Result<Option<Self>, FileError> {
        read(record, START)
    }

    /// Writes it; it can be made again from the inventory, so the disk may take its time.
    pub(crate) fn write(&self, record: impl AsFd) -> Result<(), FileError> {
        write(record, START, self, Durability::Later)
    }
}

impl EndRecord {
    /// Reads it.
    pub(crate) fn read(record: impl AsFd) -> Result<Option<Self>, FileError> {
        read(record, END)
    }

    /// Writes it, unless the same is written already: only the first has room of its own.
    pub(crate) fn write(&self, record: impl AsFd) -> Result<(), FileError> {
        let known = Self::read(&record)?;
        if known.is_some_and(|known| known.run == self.run && known.cause == self.cause) {
            return Ok(());
        }
        write(record, END, self, Durability::Synced)
    }

    /// Whether `exit` is the end that this record announced: of the same run, later, and by a
    /// signal, which a process that ended by itself does not show.
    fn explains(&self, exit: &ExitRecord) -> bool {
        let by_itself = exit.cause != ExitCause::Exited && exit.cause != ExitCause::OutOfMemory;
        self.run == exit.run && exit.ended_ms >= self.at_ms && !by_itself
    }
}

impl ExecRecord {
    /// Reads it.
    pub(crate) fn read(execs: impl AsFd, exec: ExecId) -> Result<Option<Self>, FileError> {
        read(execs, &exec.to_string())
    }

    /// Writes it.
    pub(crate) fn write(&self, execs: impl AsFd, exec: ExecId) -> Result<(), FileError> {
        write(execs, &exec.to_string(), self, Durability::Later)
    }
}

impl LiveRecord {
    /// Reads it.
    pub(crate) fn read(run: impl AsFd) -> Result<Option<Self>, FileError> {
        read(run, LIVE)
    }

    /// Writes it.
    pub(crate) fn write(&self, run: impl AsFd) -> Result<(), FileError> {
        write(run, LIVE, self, Durability::Later)
    }
}

/// Has room for the end of a run, whatever fills the disk until then: who ends it, and how it ended.
/// `monitor` writes the second, in a directory of its own.
pub(crate) fn reserve_end(record: impl AsFd, monitor: u32) -> Result<(), FileError> {
    files::reserve(files::open_in(&record, crate::places::INIT)?, EXIT, RESERVED_BYTES, monitor)?;
    files::reserve(record, END, RESERVED_BYTES, 0)
}

/// Reads how the newest ended run has ended, with the cause that the supervisor knows.
pub(crate) fn read_exit(record: impl AsFd) -> Result<Option<ExitRecord>, FileError> {
    let init = files::open_in(&record, crate::places::INIT)?;
    let Some(mut exit) = read::<ExitRecord>(init, EXIT)? else { return Ok(None) };
    if let Some(end) = EndRecord::read(record)?.filter(|end| end.explains(&exit)) {
        let asked_to = end.cause == ExitCause::HostShutdown;
        if asked_to || exit.signal == Some(libc::SIGKILL) {
            exit.cause = end.cause;
        }
    }
    Ok(Some(exit))
}

/// Writes how a run has ended, through its directory; on disk when this returns.
pub(crate) fn write_exit(init: impl AsFd, exit: &ExitRecord) -> Result<(), FileError> {
    write(init, EXIT, exit, Durability::Synced)
}

fn read<T: DeserializeOwned>(directory: impl AsFd, name: &str) -> Result<Option<T>, FileError> {
    let Some(bytes) = files::read(directory, name, RECORD_BYTES_MAX)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Ok(Some(record)),
        // Written without fsync and cut off by a power loss: as if it had not been written.
        Err(_) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
        Err(error) => Err(FileError::Content { object: name.into(), reason: error.to_string() }),
    }
}

fn write<T: Serialize>(
    directory: impl AsFd,
    name: &str,
    record: &T,
    durability: Durability,
) -> Result<(), FileError> {
    let bytes = serde_json::to_vec(record)
        .map_err(|error| FileError::Content { object: name.into(), reason: error.to_string() })?;
    files::replace(directory, name, &bytes, durability)
}
