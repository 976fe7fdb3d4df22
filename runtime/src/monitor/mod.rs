//! The monitor: one small process per container, the parent of its first process.
//!
//! It starts as root from the supervisor's executable, builds its container, lets it run, and only
//! then gives up every privilege for a uid that owns nothing but the container's log and exit record.
//! From there on it copies output to the log, and to whoever is with the program, waits, and writes
//! down how the container ended. It outlives server and supervisor.
//!
//! Invariants: one thread; buffers of fixed size; no path is opened after the privileges are gone but
//! those of cgroupfs; a watcher that does not read is dropped, never waited for; the exit record is on
//! disk before any watcher is told.

mod build;
mod console;
mod exec;
mod privilege;
mod volumes;
mod watch;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use berth_runtime::config::RuntimeConfig;
use berth_runtime::id::PrincipalId;
use berth_runtime::record::{ExitCause, ExitRecord, Failure, FailureClass, Live};
use berth_runtime::send_message;
use berth_runtime::wire::StartRequest;
use serde::{Deserialize, Serialize};

use crate::files::FileError;
use crate::ledger::{self, NetworkPlace};
use crate::people::Person;
use crate::places::Places;
use crate::process;
use crate::supervise::receive_job;
use crate::sys::spawn;
use crate::timing;

pub(crate) use build::{ATTACH_SOCKET, SOCKET, distinct};
pub(crate) use exec::{Job as ExecJob, Report as ExecReport, is_possible, main as exec_main};

/// What the supervisor gives a monitor, in descriptor 0 of its first message; descriptor 1 is the
/// run's lock, held as long as the monitor lives.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The supervisor's configuration.
    pub(crate) config: RuntimeConfig,
    /// The boot.
    pub(crate) boot_id: String,
    /// The container's owner.
    pub(crate) person: Person,
    /// Whose volumes it has, the container's owner among them.
    pub(crate) volume_owners: BTreeMap<PrincipalId, Person>,
    /// First id of the range that layers lie in.
    pub(crate) layer_first: u32,
    /// The scope's path from the cgroup hierarchies' roots.
    pub(crate) scope: String,
    /// Its place on its owner's bridge, unless it has no network.
    pub(crate) place: Option<NetworkPlace>,
    /// What is asked for; the supervisor has checked it.
    pub(crate) start: StartRequest,
}

/// The monitor's one message to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program runs.
    Started { live: Box<Live> },
    /// It does not; an exit record says so.
    Failed { failure: Failure },
}

/// The monitor's whole life.
pub(crate) fn main() -> ExitCode {
    match spawn::inherited_channel() {
        Ok(channel) => run(channel),
        Err(_) => ExitCode::from(2),
    }
}

fn run(channel: OwnedFd) -> ExitCode {
    // A signal to the supervisor's terminal or process group is none to its containers. It can only
    // fail for a group's leader, which has that already.
    let session = nix::unistd::setsid();
    debug_assert!(session.is_ok());
    let began = std::time::Instant::now();
    let Ok((job, lock)) = receive(&channel) else { return ExitCode::from(2) };
    timing::begin(job.config.timing, "monitor", job.start.container.short());
    timing::note("wait for the job", began.elapsed());
    let (live, watch) = match start(&job) {
        Ok(started) => started,
        Err(failure) => {
            let code = if record_failure(&job, &failure).is_ok() { 1 } else { 3 };
            report(&channel, &Report::Failed { failure });
            return ExitCode::from(code);
        }
    };
    report(&channel, &Report::Started { live: Box::new(live) });
    drop((channel, job));
    let written = watch.run();
    drop(lock);
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

fn receive(channel: &OwnedFd) -> Result<(Job, OwnedFd), FileError> {
    let (job, mut fds) = receive_job::<Job>(channel)?;
    let lock = fds.pop().ok_or_else(|| FileError::Content {
        object: "the job".into(),
        reason: "the lock did not come with it".into(),
    })?;
    Ok((job, lock))
}

/// Builds and starts the container, and gives up every privilege.
fn start(job: &Job) -> Result<(Live, watch::Watch), Failure> {
    let places = Places::open(&job.config).map_err(|error| broken(&error))?;
    let parts = build::build(job, &places)?;
    let live = parts.live.clone();
    privilege::drop_all(job.person.monitor_uid).map_err(|error| broken(&error))?;
    timing::begin(false, "", "");
    Ok((live, watch::Watch::new(job, parts)))
}

/// A step of the host's own that failed.
fn broken(error: &FileError) -> Failure {
    use nix::errno::Errno;
    if error.is_full() {
        return crate::failure::disk_full(error);
    }
    let class = match error.errno() {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => FailureClass::Exhausted,
        _ => FailureClass::Broken,
    };
    Failure::new(class, "container.build", error.to_string())
}

fn record_failure(job: &Job, failure: &Failure) -> Result<(), FileError> {
    let places = Places::open(&job.config)?;
    let exit = ExitRecord {
        run: job.start.run,
        code: None,
        signal: None,
        cause: ExitCause::StartFailed,
        oom_kills: 0,
        memory_bytes_max: job.start.limits.memory_bytes,
        started_ms: 0,
        ended_ms: process::now_ms(),
        log_bytes_lost: 0,
        failure: Some(failure.clone()),
    };
    ledger::write_exit(places.exit(&job.start.container)?, &exit)
}

/// Tells the supervisor. One that has died in between reads the records instead.
fn report(channel: &OwnedFd, report: &Report) {
    let bytes = serde_json::to_vec(report).expect("a report has no map with keys other than text");
    match send_message(channel, &bytes, &[]) {
        Ok(()) | Err(_) => {}
    }
}
