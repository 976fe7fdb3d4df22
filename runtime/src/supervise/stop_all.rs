//! `berth-runtime stop-all`: stops every container of the instance, each with its own signal and
//! grace, all at once, because the host is going down.
//!
//! It works from the records alone and needs no supervisor. As the unit's `ExecStop` it runs at every
//! stop of the supervisor, so it does nothing unless the system is stopping; `--now` is for hosts
//! without systemd.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::id::ContainerId;
use berth_runtime::record::ExitCause;

use super::say;
use super::setup::SetupError;
use crate::cgroup::Cgroup;
use crate::files;
use crate::ledger::{EndRecord, LiveRecord, StartRecord};
use crate::places::Places;
use crate::process::{self, ProcessKey};
use crate::scope::chain;
use crate::sys::process::pidfd_send_signal;

/// How long monitors may take to write down the ends.
const RECORD_LIMIT: Duration = Duration::from_secs(15);

/// One container that is to stop.
struct Stopping {
    container: ContainerId,
    init: OwnedFd,
    monitor: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    deadline: Instant,
}

/// The command.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("stop the containers: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<(), SetupError> {
    let (config, now) = parse(arguments)?;
    if !now && !system_is_stopping() {
        return Ok(());
    }
    let places = Places::open(&config)?;
    let boot_id = process::boot_id()?;
    let mut stopping = Vec::new();
    for name in files::names(&places.runs)? {
        let Ok(container) = name.parse::<ContainerId>() else { continue };
        match begin(&places, &boot_id, &container) {
            Ok(Some(one)) => stopping.push(one),
            Ok(None) => {}
            // One that cannot be stopped must not keep the others from it.
            Err(reason) => say(&format!("container {container}: {reason}")),
        }
    }
    wait_and_kill(&mut stopping);
    wait_for_records(&stopping);
    Ok(())
}

fn parse(arguments: &[OsString]) -> Result<(RuntimeConfig, bool), SetupError> {
    use lexopt::Arg;
    let usage = |error: lexopt::Error| SetupError::Usage(error.to_string());
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut path, mut now): (Option<PathBuf>, bool) = (None, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("config") => path = Some(parser.value().map_err(usage)?.into()),
            Arg::Long("now") => now = true,
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok((RuntimeConfig::load(path.as_deref())?, now))
}

/// Whether systemd says so; it answers `stopping` with a status of its own, so the text counts.
fn system_is_stopping() -> bool {
    let output = Command::new("systemctl").arg("is-system-running").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"stopping")
}

/// Writes down why, and sends the container's own signal.
fn begin(
    places: &Places,
    boot_id: &str,
    container: &ContainerId,
) -> Result<Option<Stopping>, String> {
    let text = |error: crate::files::FileError| error.to_string();
    let record = places.record(container).map_err(text)?;
    let Some(start) = StartRecord::read(&record).map_err(text)? else { return Ok(None) };
    let run = places.live(container).map_err(text)?;
    let Some(LiveRecord { monitor, live: Some(live), .. }) = LiveRecord::read(run).map_err(text)?
    else {
        return Ok(None);
    };
    let key =
        ProcessKey { pid: live.pid, start_ticks: live.start_ticks, boot_id: boot_id.to_owned() };
    let Some(init) = key.open(boot_id) else { return Ok(None) };
    let cause = ExitCause::HostShutdown;
    EndRecord { run: start.run, cause, at_ms: process::now_ms() }.write(record).map_err(text)?;
    let cgroup = cgroup_of(&live.cgroup);
    // A frozen process takes no signal but is to have its grace like any other.
    if let Some(cgroup) = &cgroup {
        cgroup.thaw().map_err(|error| chain(&error))?;
    }
    match pidfd_send_signal(&init, start.stop.signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(format!("signal its first process: {errno}")),
    }
    let deadline = Instant::now() + Duration::from_secs(start.stop.grace_secs.into());
    let monitor = monitor.open(boot_id);
    Ok(Some(Stopping { container: container.clone(), init, monitor, cgroup, deadline }))
}

/// The cgroup at the paths that the record shows.
fn cgroup_of(paths: &berth_runtime::record::CgroupPaths) -> Option<Cgroup> {
    let hierarchy = crate::cgroup::Hierarchy::detect().ok()?;
    let root = hierarchy.root_of(crate::cgroup::Controller::Pids)?;
    let path = std::path::Path::new(&paths.pids).strip_prefix(root).ok()?;
    Cgroup::at(&hierarchy, &format!("/{}", path.display())).ok()
}

/// Waits until each has ended, and kills those whose grace is over.
fn wait_and_kill(stopping: &mut [Stopping]) {
    let mut killed = vec![false; stopping.len()];
    let limit = Instant::now() + RECORD_LIMIT;
    loop {
        let now = Instant::now();
        let waiting: Vec<usize> =
            (0..stopping.len()).filter(|index| !is_ready(&stopping[*index].init)).collect();
        for index in &waiting {
            let one = &stopping[*index];
            if one.deadline <= now && !killed[*index] {
                killed[*index] = true;
                kill(one);
            }
        }
        let last = stopping.iter().map(|one| one.deadline).max().unwrap_or(now);
        if waiting.is_empty() || now > last.max(limit) + RECORD_LIMIT {
            return;
        }
        let next = waiting.iter().filter(|index| !killed[**index]).map(|i| stopping[*i].deadline);
        let wait =
            next.min().unwrap_or(now + Duration::from_secs(1)).saturating_duration_since(now);
        let fds = waiting.iter().map(|index| stopping[*index].init.as_fd());
        let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let wait =
            PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        // An interruption, or an error, shows in the next round.
        match poll(&mut polled, wait) {
            Ok(_) | Err(_) => {}
        }
    }
}

fn kill(one: &Stopping) {
    let killed = match &one.cgroup {
        Some(cgroup) => cgroup.kill().map_err(|error| chain(&error)),
        None => pidfd_send_signal(&one.init, libc::SIGKILL).map_err(|errno| errno.to_string()),
    };
    if let Err(reason) = killed {
        say(&format!("container {}: kill: {reason}", one.container));
    }
}

/// Waits for the monitors, which end when the record is on disk.
fn wait_for_records(stopping: &[Stopping]) {
    let deadline = Instant::now() + RECORD_LIMIT;
    let monitors = stopping.iter().filter_map(|one| one.monitor.as_ref());
    for monitor in monitors {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(_) => {}
        }
    }
}

fn is_ready(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(count) if count > 0)
}
