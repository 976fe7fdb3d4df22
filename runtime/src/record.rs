//! Records that outlive processes: what a container is doing, how it ended, and how a step failed.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, PrincipalId};

/// What the supervisor's record and the kernel show of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The container.
    pub container: ContainerId,
    /// Whose it is.
    pub person: PrincipalId,
    /// The newest start's number; 0 when it was never started.
    pub run: u64,
    /// What it is doing.
    pub status: Status,
    /// Set while a process of it lives.
    pub live: Option<Live>,
    /// The end of run `run`, once that has ended.
    pub exit: Option<ExitRecord>,
}

/// The states of OCI runtime-spec, runtime.md, "State", and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Being built.
    Creating,
    /// Built; the program has not been run.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended, or never started.
    Stopped,
}

/// What is known of a living container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Live {
    /// The first process's id on the host.
    pub pid: i32,
    /// Its start time, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
    /// When the program was run, milliseconds since 1970.
    pub started_ms: i64,
    /// Its address on its owner's bridge.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address there, where containers have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// Where the kernel shows its use.
    pub cgroup: CgroupPaths,
    /// Each limit as the kernel holds it.
    pub limits: Vec<LimitState>,
    /// The processes that the kernel has killed for memory so far in this run.
    pub oom_kills: u64,
}

/// Directories below `/sys/fs/cgroup`, one per controller on v1, the same one for all on v2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPaths {
    /// The layout.
    pub version: CgroupVersion,
    /// cpu controller (`cpu.stat`).
    pub cpu: String,
    /// cpuacct on v1 (`cpuacct.usage`), the same as `cpu` on v2.
    pub cpuacct: String,
    /// memory controller.
    pub memory: String,
    /// pids controller.
    pub pids: String,
    /// blkio on v1, io on v2; the same directory as the others there.
    pub io: String,
}

/// Which cgroup layout the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupVersion {
    /// The unified hierarchy.
    V2,
    /// Controllers on v1, alone or beside an empty unified tree (hybrid).
    V1,
}

/// One limit, and whether the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// `cpu`, `cpu_weight`, `memory`, `swap` or `pids`; of a total also `io_weight`, `io_read`,
    /// `io_write` and `net`.
    pub name: String,
    /// Whether the kernel holds it.
    pub held: bool,
    /// The kernel's file.
    pub file: String,
    /// What the file says, read back after writing.
    pub value: String,
    /// Why it is not held; empty when it is.
    pub reason: String,
}

/// How one run of a container ended. Written, fsynced and renamed before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The run that ended.
    pub run: u64,
    /// Exit code of the first process; `None` when a signal ended it, or it is not known.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What is known beyond code and signal.
    pub cause: ExitCause,
    /// Processes that the kernel killed for memory in this run.
    pub oom_kills: u64,
    /// The memory limit at the end, in bytes.
    pub memory_bytes_max: u64,
    /// When the program was run, milliseconds since 1970; 0 when it never was.
    pub started_ms: i64,
    /// When it ended, milliseconds since 1970.
    pub ended_ms: i64,
    /// Output that could not be written to the log, in bytes.
    pub log_bytes_lost: u64,
    /// The step that failed, for [`ExitCause::StartFailed`].
    pub failure: Option<Failure>,
}

/// What is known of an end beyond code and signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The first process ended.
    Exited,
    /// The first process was killed by the kernel for want of memory under its own limit.
    OutOfMemory,
    /// The program could not be started.
    StartFailed,
    /// Every process was killed by [`crate::wire::Request::ContainerKill`].
    Killed,
    /// The host was shutting down.
    HostShutdown,
    /// The host stopped without a shutdown; nothing is known of the end.
    HostLost,
    /// The monitor was killed, so the container was ended.
    MonitorLost,
}

/// A refused or failed step, as the caller is to see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the caller may do about it.
    pub class: FailureClass,
    /// A stable identifier, such as `container.not-running`.
    pub code: String,
    /// One sentence for people: verb, object, cause.
    pub message: String,
}

/// What a caller may do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The object is not there.
    NotFound,
    /// The object's state forbids it now.
    Conflict,
    /// The request is wrong and will stay wrong.
    Invalid,
    /// The policy forbids it.
    Denied,
    /// A limit is reached (disk, addresses, ids, processes).
    Exhausted,
    /// Passing; the same request may succeed later.
    Unavailable,
    /// A defect or a broken host; the log has the detail.
    Broken,
}

impl Failure {
    /// A failure of `class`.
    pub fn new(class: FailureClass, code: &str, message: impl Into<String>) -> Self {
        Self { class, code: code.to_owned(), message: message.into() }
    }
}
