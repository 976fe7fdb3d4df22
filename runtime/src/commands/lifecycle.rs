//! `start`, `kill`, `delete`, `pause`, `resume`.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::Duration;

use berth_runtime::record::{Failure, FailureClass, Status};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxNamespaceType;

use crate::cgroup::{Cgroup, Hierarchy};
use crate::commands::create::absolute;
use crate::commands::{Global, bad_usage, missing_id, only_id, usage, warn};
use crate::failure::system;
use crate::hooks::{self, Point, Told};
use crate::joined::is_new;
use crate::launch::{self, errno_of};
use crate::resctrl;
use crate::seccomp::listener::Listener;
use crate::state::{Attempt, Place, Record};
use crate::sys::process;

/// How long the processes of a container may take to be gone after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// `start`.
pub fn start(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let place = Place::new(&absolute(&global.root)?, &only_id(parser)?)?;
    let record = place.read()?;
    expect(&record, &place, &[Status::Created])?;
    let (pid, bundle) = (Some(record.pid), &*record.bundle);
    let told = Told { id: &record.id, status: "created", pid, bundle };
    let listener = Listener::of(&place.read_spec()?, told);
    let pidfd = record.open()?;
    let failed = |errno| system("reach the waiting process", errno);
    let directory = fs::File::open(place.directory())
        .map_err(|error| system("open the container's directory", errno_of(&error)))?;
    let path = format!("/proc/self/fd/{}/start.sock", directory.as_raw_fd());
    let kind = SockType::SeqPacket;
    let gate = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    connect(gate.as_raw_fd(), &UnixAddr::new(path.as_str()).map_err(failed)?).map_err(failed)?;
    // Its absence is what makes the container "running": gone before the program can be seen.
    fs::remove_file(place.gate())
        .map_err(|error| system("remove the start's socket", errno_of(&error)))?;
    let process = (Pid::from_raw(record.pid), pidfd.as_fd());
    launch::release(&gate, &record.words, listener.as_ref(), process)?;
    after_start(&place, &record, global)?;
    Ok(ExitCode::SUCCESS)
}

/// `kill`: signals the first process; with `--all`, or SIGKILL to a container without a pid namespace,
/// everything in the cgroup.
pub fn kill(mut parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let (mut id, mut signal, mut all) = (None, None, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("all") | Short('a') => all = true,
            Value(value) if id.is_none() => id = Some(value.string().map_err(usage)?),
            Value(value) if signal.is_none() => signal = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let place = Place::new(&absolute(&global.root)?, &id.ok_or_else(missing_id)?)?;
    let signal = parse_signal(signal.as_deref().unwrap_or("TERM"))?;
    let record = place.read()?;
    // Where others share the pid namespace the kernel ends nobody along with the first process.
    let alone = signal == libc::SIGKILL && !is_new(&place.read_spec()?, LinuxNamespaceType::Pid);
    if alone && record.cgroup()?.pids()?.is_empty() {
        // For its answer: the container has ended.
        record.open()?;
    }
    if all || alone {
        if signal == libc::SIGKILL {
            record.cgroup()?.kill()?;
            return Ok(ExitCode::SUCCESS);
        }
        for pid in record.cgroup()?.pids()? {
            match process::pidfd_open(Pid::from_raw(pid)) {
                // One that has ended since the list was read needs no signal.
                Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(system("open a process", errno)),
                Ok(pidfd) => signal_it(&pidfd, signal)?,
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    signal_it(&record.open()?, signal)?;
    Ok(ExitCode::SUCCESS)
}

fn signal_it(pidfd: &std::os::fd::OwnedFd, signal: i32) -> Result<(), Failure> {
    match process::pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(system("signal a process", errno)),
    }
}

/// A number from 1 to 64, or a name with or without `SIG`.
fn parse_signal(text: &str) -> Result<i32, Failure> {
    if let Ok(number) = text.parse::<i32>() {
        if (1..=64).contains(&number) {
            return Ok(number);
        }
        return Err(bad_usage(format!("{number} is no signal (1 to 64)")));
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let signal = name.parse::<Signal>();
    signal.map(|signal| signal as i32).map_err(|_| bad_usage(format!("{text:?} is no signal")))
}

/// `delete`: a stopped container; with `--force` any, and success when it is gone already.
pub fn delete(mut parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let (mut id, mut force) = (None, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("force") | Short('f') => force = true,
            Value(value) if id.is_none() => id = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let place = Place::new(&absolute(&global.root)?, &id.ok_or_else(missing_id)?)?;
    let record = match place.read() {
        Err(failure) if force && failure.class == FailureClass::NotFound => {
            remove_attempt(&place)?;
            return Ok(ExitCode::SUCCESS);
        }
        other => other?,
    };
    if !force {
        expect(&record, &place, &[Status::Stopped])?;
    }
    remove(&place, global)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes what an interrupted creation has left: a directory without a record, and the cgroup that it made.
/// Its process has ended with its creator.
fn remove_attempt(place: &Place) -> Result<(), Failure> {
    if let Some(Attempt { cgroup, resctrl }) = place.attempt()? {
        if let Some(cgroup) = cgroup {
            let cgroup = Cgroup::made_at(Hierarchy::detect_all()?, &cgroup)?;
            cgroup.kill()?;
            cgroup.wait_empty(KILL_TIMEOUT)?;
            cgroup.remove()?;
        }
        resctrl::remove(&resctrl)?;
    }
    place.remove()
}

/// Ends whatever runs of a container, removes its cgroup and record, and runs the hooks for that.
pub fn remove(place: &Place, global: &Global) -> Result<(), Failure> {
    let record = place.read()?;
    let spec = place.read_spec()?;
    let cgroup = record.cgroup()?;
    cgroup.kill()?;
    cgroup.wait_empty(KILL_TIMEOUT)?;
    if let Some(unit) = &record.unit {
        crate::systemd::stop(unit)?;
    }
    cgroup.remove()?;
    resctrl::remove(&record.resctrl)?;
    place.remove()?;
    let told = Told { id: &record.id, status: "stopped", pid: None, bundle: &record.bundle };
    warn(global, &hooks::run(&spec, Point::Poststop, told));
    Ok(())
}

/// The hooks of a container whose program runs; what fails of them is a warning (runtime.md, "Lifecycle").
pub fn after_start(place: &Place, record: &Record, global: &Global) -> Result<(), Failure> {
    let (pid, bundle) = (Some(record.pid), &*record.bundle);
    let told = Told { id: &record.id, status: "running", pid, bundle };
    warn(global, &hooks::run(&place.read_spec()?, Point::Poststart, told));
    Ok(())
}

/// `pause`.
pub fn pause(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let place = Place::new(&absolute(&global.root)?, &only_id(parser)?)?;
    let record = place.read()?;
    expect(&record, &place, &[Status::Running, Status::Created])?;
    record.cgroup()?.freeze()?;
    Ok(ExitCode::SUCCESS)
}

/// `resume`.
pub fn resume(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let place = Place::new(&absolute(&global.root)?, &only_id(parser)?)?;
    let record = place.read()?;
    expect(&record, &place, &[Status::Paused])?;
    record.cgroup()?.thaw()?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses a command in a state that it is not for; the error names both.
pub fn expect(record: &Record, place: &Place, wanted: &[Status]) -> Result<(), Failure> {
    let status = record.status(place)?;
    if wanted.contains(&status) {
        return Ok(());
    }
    let text = format!("container {:?} is {}, not {}", record.id, word(status), word(wanted[0]));
    Err(Failure::new(FailureClass::Conflict, "container.state", text))
}

/// The specification's word for a state.
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Stopped => "stopped",
    }
}
