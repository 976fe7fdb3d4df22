//! The cgroup that monitors and containers live in, outside every unit, so that no restart of server
//! or supervisor touches them.
//!
//! On a host with systemd it is `<instance>-containers.scope` in `<instance>.slice`, delegated. A scope
//! lives as long as a process is in it: the holder sleeps in a leaf of its own. It is made by spawning
//! `systemd-run` once, at the supervisor's first start, which makes the scope around itself and then becomes
//! the holder. Elsewhere it is a plain directory, which needs no holder.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use berth_runtime::config::RuntimeConfig;

use crate::cgroup::{Cgroup, Controller, Hierarchy};
use crate::supervise::{SetupError, say};

/// systemd runs when this directory is there (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// How long systemd may take to make the scope.
const SCOPE_LIMIT: Duration = Duration::from_secs(20);

/// Makes the scope unless it is there; its path from the cgroup hierarchies' roots.
pub(crate) fn ensure(
    config: &RuntimeConfig,
    hierarchy: &Hierarchy,
    executable: BorrowedFd<'_>,
) -> Result<String, SetupError> {
    if !Path::new(SYSTEMD).is_dir() {
        return Ok(format!("/{}", config.instance));
    }
    let slice = format!("{}.slice", config.instance);
    let unit = format!("{}-containers.scope", config.instance);
    let path = format!("/{slice}/{unit}");
    let said = |error: crate::cgroup::Error| SetupError::Scope(chain(&error));
    let holder = holder_directory(hierarchy, &path)
        .ok_or_else(|| SetupError::Scope("systemd's own cgroup tree is not mounted".into()))?;
    if is_held(&holder) {
        return Ok(path);
    }
    let scope = Cgroup::at(hierarchy, &path).map_err(said)?;
    if is_populated(&scope) {
        // Somebody has killed the holder; the containers keep the scope, and a new holder joins them.
        spawn_holder(executable, &path, None)?;
    } else {
        spawn_holder(executable, &path, Some((&slice, &unit)))?;
    }
    let deadline = Instant::now() + SCOPE_LIMIT;
    while !is_held(&holder) {
        if Instant::now() > deadline {
            return Err(SetupError::Scope(format!("{unit} was not there within {SCOPE_LIMIT:?}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(path)
}

/// The holder's leaf, in the tree in which systemd tracks its units.
fn holder_directory(hierarchy: &Hierarchy, path: &str) -> Option<PathBuf> {
    let root = hierarchy.root_of(Controller::Systemd)?;
    Some(root.join(path.trim_start_matches('/')).join("holder"))
}

fn is_held(holder: &Path) -> bool {
    std::fs::read_to_string(holder.join("cgroup.procs")).is_ok_and(|pids| !pids.trim().is_empty())
}

fn is_populated(scope: &Cgroup) -> bool {
    scope.exists() && scope.wait_empty(Duration::ZERO).is_err()
}

/// Starts the holder; under `systemd-run` when the unit is to be made first.
fn spawn_holder(
    executable: BorrowedFd<'_>,
    path: &str,
    unit: Option<(&str, &str)>,
) -> Result<(), SetupError> {
    // systemd-run replaces itself by the program: a name that both can open.
    let own = format!("/proc/{}/fd/{}", std::process::id(), executable.as_raw_fd());
    let mut command = match unit {
        None => Command::new(&own),
        Some((slice, unit)) => {
            let mut command = Command::new("systemd-run");
            command.args(["--scope", "--quiet", "--collect", "--property=Delegate=yes"]);
            command.arg(format!("--slice={slice}")).arg(format!("--unit={unit}"));
            command.arg("--description=Berth's containers").arg("--").arg(&own);
            command
        }
    };
    command.args(["holder", path]).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match command.spawn() {
        // It is reaped by the host's first process when the supervisor ends; until then it sleeps.
        Ok(_) => Ok(()),
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            Err(SetupError::Scope(format!("start {program}: {error}")))
        }
    }
}

/// `berth-runtime holder PATH`: goes to a leaf of the scope and sleeps for good.
pub(crate) fn holder_main(arguments: &[OsString]) -> ExitCode {
    let Some(path) = arguments.first().and_then(|path| path.to_str()) else {
        return ExitCode::from(2);
    };
    if let Err(reason) = settle(path) {
        say(&format!("the holder cannot settle in {path}: {reason}"));
        return ExitCode::FAILURE;
    }
    loop {
        nix::unistd::pause();
    }
}

/// Moves this process to the leaf. The scope's controllers are enabled later, by whoever makes the
/// first leaf beside it: the kernel refuses that as long as a process is in the scope itself.
fn settle(path: &str) -> Result<(), String> {
    let hierarchy = Hierarchy::detect().map_err(|error| chain(&error))?;
    let leaf = holder_directory(&hierarchy, path).ok_or("systemd's own tree is not mounted")?;
    std::fs::create_dir_all(&leaf)
        .and_then(|()| std::fs::write(leaf.join("cgroup.procs"), std::process::id().to_string()))
        .map_err(|error| format!("{}: {error}", leaf.display()))
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
