//! The monitor of an exec: the parent of one later program of a container, for as long as that runs.
//!
//! It makes the program as root, hands its streams to whoever asked for it, gives up every privilege,
//! and then does three things: it sets the terminal's size when told, it tells how the program ended,
//! and it has the program ended when the connection that this lives by hangs up. Ending is the
//! supervisor's: what has no privilege cannot signal what is in the container.
//!
//! Invariants: it copies no output and buffers nothing; who the program is is written down before it
//! runs, so that it is found when both this process and the supervisor are killed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::id::{ContainerId, ExecId};
use berth_runtime::record::{CgroupVersion, Failure};
use berth_runtime::send_message;
use berth_runtime::wire::{ExecEvent, ExecOrder, ProcessSpec, TERMINAL_CELLS_MAX, TerminalSize};

use super::build::{close_standard_streams, not_blocking, null};
use super::{broken, privilege};
use crate::apparmor;
use crate::cgroup::{Hierarchy, Scope};
use crate::exec::{self, Exec, Joined};
use crate::failure::system;
use crate::files::FileError;
use crate::launch::User;
use crate::ledger::ExecRecord;
use crate::people::Person;
use crate::process::{self, Ended, ProcessKey};
use crate::profile::{self, ProfileHost};
use crate::supervise::receive_job;
use crate::sys::process::pidfd_send_signal;
use crate::sys::{socket, spawn, terminal};

/// An order's bytes at most.
const ORDER_BYTES_MAX: usize = 256;

/// What the supervisor gives an exec's monitor, in descriptor 0 of its first message. Descriptor 1 is
/// the container's first process, descriptor 2 the directory of the execs' records.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The supervisor's configuration.
    pub(crate) config: RuntimeConfig,
    /// The boot.
    pub(crate) boot_id: String,
    /// The container's owner.
    pub(crate) person: Person,
    /// The scope's path from the cgroup hierarchies' roots.
    pub(crate) scope: String,
    /// The container.
    pub(crate) container: ContainerId,
    /// The exec.
    pub(crate) exec: ExecId,
    /// The program; the supervisor has checked it.
    pub(crate) process: ProcessSpec,
    /// For its environment.
    pub(crate) hostname: String,
    /// Its terminal.
    pub(crate) terminal: Option<TerminalSize>,
}

/// What an exec's monitor says to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program runs. The descriptors beside it are those of
    /// [`berth_runtime::wire::Answer::ExecStarted`].
    Started { process: ProcessKey },
    /// It does not.
    Failed { failure: Failure },
    /// Nobody listens to it any more: it is to be ended.
    Abandoned {},
}

/// What is left in the monitor's hands when the program runs.
struct Session {
    program: OwnedFd,
    terminal: Option<OwnedFd>,
    control: OwnedFd,
    channel: OwnedFd,
}

/// Our ends of a program's streams, and the program's.
struct Streams {
    theirs: [OwnedFd; 3],
    ours: Vec<OwnedFd>,
}

/// The whole life of an exec's monitor.
pub(crate) fn main() -> ExitCode {
    let Ok(channel) = spawn::inherited_channel() else { return ExitCode::from(2) };
    // A signal to the supervisor's terminal or process group is none to what runs in containers. It
    // can only fail for a group's leader, which has that already.
    let session = nix::unistd::setsid();
    debug_assert!(session.is_ok());
    let Ok((job, fds)) = receive_job::<Job>(&channel) else { return ExitCode::from(2) };
    let Ok([init, records]) = <[OwnedFd; 2]>::try_from(fds) else { return ExitCode::from(2) };
    match begin(&job, init, &records) {
        Err(failure) => {
            // A supervisor that has died in between has nobody to tell it to.
            let told = report(&channel, &Report::Failed { failure }, &[]);
            ExitCode::from(if told.is_ok() { 1 } else { 3 })
        }
        Ok((joined, streams, process)) => {
            drop(records);
            run(&job, channel, joined, streams, process)
        }
    }
}

/// Makes the program's process and lets it run.
fn begin(
    job: &Job,
    init: OwnedFd,
    records: &OwnedFd,
) -> Result<(Joined, Vec<OwnedFd>, ProcessKey), Failure> {
    let file = |error: FileError| broken(&error);
    let Job { person, container, .. } = job;
    let scope = Scope::open(&Hierarchy::detect()?, &job.scope)?;
    let cgroup = scope.container(person.group, person.person, container)?;
    let cgroup_v2 = cgroup.paths().version == CgroupVersion::V2;
    let host = ProfileHost {
        first_id: person.first_id,
        cgroup_v2,
        apparmor: apparmor::applies(&job.config),
    };
    let spec = profile::exec_spec(&job.process, &job.hostname, &host)?;
    let process = spec.process().as_ref();
    let process = process.ok_or_else(|| crate::failure::broken("the profile has no process"))?;
    let Streams { theirs, mut ours } = streams(job.terminal.is_some()).map_err(file)?;
    let mut joined = exec::exec(Exec {
        spec: &spec,
        process,
        user: User::Named(job.process.user.clone()),
        stdio: theirs,
        terminal: job.terminal.is_some(),
        preserved: 0,
        listener: None,
        init,
        cgroup: cgroup.entry()?,
    })?;
    let key = finish(job, records, &mut joined);
    match key.and_then(|key| joined.start().map(|()| key)) {
        Ok(key) => {
            ours.extend(
                joined.terminal.as_ref().map(|fd| fd.try_clone()).transpose().map_err(|error| {
                    system("copy the terminal", crate::launch::errno_of(&error))
                })?,
            );
            Ok((joined, ours, key))
        }
        Err(failure) => {
            end(&joined.pidfd);
            Err(failure)
        }
    }
}

/// What is done while the program's process waits.
fn finish(job: &Job, records: &OwnedFd, joined: &mut Joined) -> Result<ProcessKey, Failure> {
    let file = |error: FileError| broken(&error);
    if let (Some(master), Some(size)) = (&joined.terminal, job.terminal) {
        not_blocking(master).map_err(file)?;
        terminal::set_size(master, size.columns, size.rows)
            .map_err(|errno| system("set the terminal's size", errno))?;
    }
    let pid = joined.pid.as_raw();
    let start_ticks = process::start_ticks(pid).map_err(file)?;
    let key = ProcessKey { pid, start_ticks, boot_id: job.boot_id.clone() };
    let monitor = ProcessKey::own(&job.boot_id).map_err(file)?;
    let record = ExecRecord { monitor, process: Some(key.clone()) };
    record.write(records, job.exec).map_err(file)?;
    close_standard_streams().map_err(file)?;
    Ok(key)
}

/// Three pipes, or nothing where a terminal takes their place.
fn streams(terminal: bool) -> Result<Streams, FileError> {
    if terminal {
        return Ok(Streams { theirs: [null()?, null()?, null()?], ours: Vec::new() });
    }
    let pipe = |name: &'static str| {
        pipe2(OFlag::O_CLOEXEC).map_err(FileError::os("make a pipe for", name))
    };
    let (input, input_writer) = pipe("stdin")?;
    let (output, output_writer) = pipe("stdout")?;
    let (error, error_writer) = pipe("stderr")?;
    let ours = vec![input_writer, output, error];
    ours.iter().try_for_each(not_blocking)?;
    Ok(Streams { theirs: [input, output_writer, error_writer], ours })
}

/// Hands the streams over and looses every privilege; from then on it only waits.
fn run(
    job: &Job,
    channel: OwnedFd,
    joined: Joined,
    streams: Vec<OwnedFd>,
    process: ProcessKey,
) -> ExitCode {
    let Joined { pidfd: program, terminal, .. } = joined;
    let Ok((control, theirs)) = socket::pair() else {
        end(&program);
        return ExitCode::from(3);
    };
    let all: Vec<BorrowedFd<'_>> =
        std::iter::once(&theirs).chain(&streams).map(AsFd::as_fd).collect();
    let told = report(&channel, &Report::Started { process }, &all);
    if told.is_err() || privilege::drop_all(job.person.monitor_uid).is_err() {
        end(&program);
        return ExitCode::from(3);
    }
    drop((theirs, streams));
    Session { program, terminal, control, channel }.run()
}

impl Session {
    fn run(mut self) -> ExitCode {
        let mut abandoned = false;
        loop {
            let other = if abandoned { self.channel.as_fd() } else { self.control.as_fd() };
            let mut polled = [
                PollFd::new(self.program.as_fd(), PollFlags::POLLIN),
                PollFd::new(other, PollFlags::POLLIN),
            ];
            // Interrupted, or the kernel lacks memory for a moment: look again.
            if poll(&mut polled, PollTimeout::NONE).is_err() {
                continue;
            }
            let [ended, spoken] = polled.map(|fd| fd.any().unwrap_or(false));
            if ended {
                return self.finish();
            }
            if spoken && abandoned {
                // The supervisor is gone; the next one finds the record, and ends what it names.
                return ExitCode::from(4);
            }
            if spoken && !self.obey() {
                abandoned = true;
                self.terminal = None;
                if report(&self.channel, &Report::Abandoned {}, &[]).is_err() {
                    return ExitCode::from(4);
                }
            }
        }
    }

    /// Takes an order; false when the other end has hung up, or says what is no order.
    fn obey(&self) -> bool {
        let mut bytes = [0; ORDER_BYTES_MAX];
        match recv(self.control.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            Ok(0) | Err(_) => false,
            Ok(length) => match (serde_json::from_slice(&bytes[..length]), &self.terminal) {
                (Ok(ExecOrder::Resize(size)), Some(terminal)) if is_possible(size) => {
                    // Of a terminal that has hung up there is nothing to be set.
                    matches!(terminal::set_size(terminal, size.columns, size.rows), Ok(()) | Err(_))
                }
                (Ok(ExecOrder::Resize(_)), _) => true,
                (Err(_), _) => false,
            },
        }
    }

    fn finish(self) -> ExitCode {
        let (code, signal) = match process::reap(&self.program) {
            Ended::Code(code) => (Some(code), None),
            Ended::Signal(signal) => (None, Some(signal)),
            Ended::Unknown => (None, None),
        };
        let bytes = serde_json::to_vec(&ExecEvent::Exited { code, signal })
            .expect("an event is plain data");
        // Whoever has hung up does not want to know.
        match send_message(&self.control, &bytes, &[]) {
            Ok(()) | Err(_) => ExitCode::SUCCESS,
        }
    }
}

/// Whether a terminal may have this size.
pub(crate) fn is_possible(size: TerminalSize) -> bool {
    [size.columns, size.rows].iter().all(|cells| (1..=TERMINAL_CELLS_MAX).contains(cells))
}

/// Ends the program while there is still the privilege to do so.
fn end(program: &OwnedFd) {
    // It fails only for one that has ended.
    match pidfd_send_signal(program, libc::SIGKILL) {
        Ok(()) | Err(_) => {
            process::reap(program);
        }
    }
}

fn report(channel: &OwnedFd, report: &Report, fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let bytes = serde_json::to_vec(report).expect("a report has no map with keys other than text");
    send_message(channel, &bytes, fds)
}
