//! Unpacked layers: storing, unpacking and removing them, each in a worker process of its own.
//!
//! ```text
//! supervisor ── spawns itself ──> worker (root)         hashes the bytes as given, names the layer
//!   polls `result` and `pidfd`      │ clones               parses nothing
//!                                   └──> child (confined)  inflates, hashes the diff_id, extracts
//! ```
//!
//! The supervisor calls [`spawn`], waits (poll(2)) for [`Worker::result`] to end, gives what it has
//! read to [`answer`], and reaps the worker when its pidfd is ready. Dropping `result` before that
//! cancels: the worker sees it, kills its child, removes the staging directory and ends. A worker
//! does the same when the supervisor dies.
//!
//! Invariants: a layer has its name only when all of it is on disk; the name is the digest of the
//! bytes that were given, computed outside the process that parses them; that process's own word
//! (the diff_id, the counts) is compared and shown, never trusted as a name.

mod archive;
mod compare;
mod confine;
mod extract;
mod fault;
mod header;
mod pax;
mod source;
mod store;
mod tree;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::digest::Digest;
use berth_runtime::wire::{Answer, Compression};
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};
use serde::{Deserialize, Serialize};

pub(crate) use store::{Store, remove_tree};
pub(crate) use worker::main;

use crate::sys;

/// Where layers are and what one may cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    /// The first id of the layer range, which owns every unpacked file.
    pub(crate) first_id: u32,
    pub(crate) bytes_max: u64,
    pub(crate) entries_max: u64,
    /// Whether to say how long each phase took.
    #[serde(default)]
    pub(crate) timing: bool,
    /// Whether `bytes_max` is less than is configured, as one request has asked for.
    #[serde(default)]
    pub(crate) given: bool,
}

impl Place {
    /// As configured, for the layer range that begins at `first_id`.
    pub(crate) fn new(config: &RuntimeConfig, first_id: u32) -> Self {
        Self {
            data_dir: config.data_dir.clone(),
            first_id,
            bytes_max: config.layer_bytes_max,
            entries_max: config.layer_entries_max,
            timing: config.timing,
            given: false,
        }
    }
}

/// What a worker does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Unpacks the bytes of its input, `bytes_max` of files at most. Answers [`Answer::LayerUnpacked`].
    Unpack { blob: Digest, diff_id: Digest, compression: Compression, bytes_max: u64 },
    /// Unpacks the bytes of its input beside layer `blob`, compares the two and removes what it has unpacked.
    /// Answers [`Answer::LayerVerified`].
    Verify { blob: Digest, diff_id: Digest, compression: Compression },
    /// Removes a layer; success when it is gone already. Answers [`Answer::Done`] as soon as the name
    /// is gone, and removes the files after that.
    Remove { blob: Digest },
    /// Removes what interrupted workers have left. Answers [`Answer::Done`].
    Sweep,
}

/// A running worker.
pub(crate) struct Worker {
    /// Readable when it has ended.
    pub(crate) pidfd: OwnedFd,
    /// Its answer, at the end of the stream complete. Dropping this cancels.
    pub(crate) result: OwnedFd,
}

#[derive(Serialize, Deserialize)]
struct Job {
    place: Place,
    task: Task,
}

/// The word on the command line that makes this binary a worker.
pub(crate) const COMMAND: &str = "layer";
/// Bytes of a worker's answer at most.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Starts a worker; `input` is what [`Task::Unpack`] and [`Task::Verify`] read.
pub(crate) fn spawn(place: &Place, task: &Task, input: Option<OwnedFd>) -> io::Result<Worker> {
    let job = Job { place: place.clone(), task: task.clone() };
    let (result, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    let child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(serde_json::to_string(&job)?)
        .stdin(input.map_or_else(Stdio::null, Stdio::from))
        .stdout(theirs)
        .spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let pidfd = sys::layer::pidfd_of_child(pid)?;
    Ok(Worker { pidfd, result })
}

/// What a worker has said, from all bytes of its [`Worker::result`].
pub(crate) fn answer(bytes: &[u8]) -> Answer {
    match serde_json::from_slice(bytes) {
        Ok(answer) => answer,
        Err(_) => Answer::Failed(fault::broken("a layer's worker ended without an answer")),
    }
}
