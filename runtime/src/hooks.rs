//! Hooks (runtime-spec, config.md, "POSIX-platform Hooks"): programs of the configuration's that run at
//! points of a container's life (runtime.md, "Lifecycle"); here those of the runtime's own namespaces, in
//! [`inside`] those of the container's.

pub mod inside;

use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Hooks, Spec};
use serde_json::{Value, json};

use crate::failure::{broken, system};
use crate::launch::errno_of;
use crate::spec::{SpecError, invalid};
use crate::sys::{fd, process};

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The namespaces are made, the root is not entered yet.
    Prestart,
    /// The same, after those.
    CreateRuntime,
    /// In the container's namespaces, its root not entered yet.
    CreateContainer,
    /// In the container's root and namespaces, its program not run yet.
    StartContainer,
    /// The program runs.
    Poststart,
    /// The container is deleted.
    Poststop,
}

impl Point {
    /// The points that hooks are run at, in the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Its property of `hooks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    fn of(self, hooks: &Hooks) -> &[Hook] {
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }

    /// What failures call a hook.
    fn label(self, index: usize, hook: &Hook) -> String {
        format!("hooks.{}[{index}] ({})", self.name(), hook.path().display())
    }
}

/// Refuses hooks that cannot be run.
pub fn check(hooks: &Hooks) -> Result<(), SpecError> {
    for point in Point::ALL {
        for (index, hook) in point.of(hooks).iter().enumerate() {
            let field = |name: &str| format!("hooks.{}[{index}].{name}", point.name());
            if !hook.path().is_absolute() {
                let why = format!("{} is not an absolute path", hook.path().display());
                return Err(invalid(field("path"), why));
            }
            let mut variables = hook.env().iter().flatten();
            if let Some(text) = variables.find(|text| !text.contains('=')) {
                return Err(invalid(field("env"), format!("{text:?} is not NAME=VALUE")));
            }
            if let Some(seconds) = hook.timeout().filter(|seconds| *seconds <= 0) {
                return Err(invalid(field("timeout"), format!("{seconds} is not above zero")));
            }
        }
    }
    Ok(())
}

/// The state that hooks of a container are told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The specification's word for what it is doing.
    pub status: &'a str,
    /// Its first process, unless it has ended.
    pub pid: Option<i32>,
    /// The bundle's directory.
    pub bundle: &'a Path,
}

impl Told<'_> {
    /// As the specification has it (runtime.md, "State").
    pub fn json(self, spec: &Spec) -> Value {
        let mut state = json!({
            "ociVersion": spec.version(),
            "id": self.id,
            "status": self.status,
            "bundle": self.bundle,
            "annotations": spec.annotations().clone().unwrap_or_default(),
        });
        if let Some(pid) = self.pid {
            state["pid"] = pid.into();
        }
        state
    }

    /// The text before and after the number of a process id that is not known yet.
    fn around_pid(self, spec: &Spec) -> [Vec<u8>; 2] {
        let mut text = Told { pid: None, ..self }.json(spec).to_string();
        let end = text.split_off(text.len() - 1);
        [format!("{text},\"pid\":").into_bytes(), end.into_bytes()]
    }
}

/// Runs the hooks of a point of the runtime's namespaces in order. The first that fails is the last before the container runs;
/// afterwards the others run all the same, and every failure is given.
pub fn run(spec: &Spec, point: Point, told: Told<'_>) -> Vec<Failure> {
    let Some(hooks) = spec.hooks() else { return Vec::new() };
    let goes_on = matches!(point, Point::Poststart | Point::Poststop);
    let mut failures = Vec::new();
    for (index, hook) in point.of(hooks).iter().enumerate() {
        if let Err(failure) = run_one(hook, &point.label(index, hook), &told.json(spec)) {
            failures.push(failure);
            if !goes_on {
                break;
            }
        }
    }
    failures
}

fn run_one(hook: &Hook, name: &str, state: &Value) -> Result<(), Failure> {
    let failed = |errno| system(&format!("run {name}"), errno);
    let mut arguments = hook.args().iter().flatten();
    let mut command = Command::new(hook.path());
    if let Some(first) = arguments.next() {
        command.arg0(first);
    }
    let variables = hook.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    command.args(arguments).env_clear().envs(variables);
    command.stdin(input(state).map_err(failed)?).stdout(Stdio::null()).process_group(0);
    fd::standard_only(&mut command);
    let mut child = command.spawn().map_err(|error| failed(errno_of(&error)))?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(|_| failed(Errno::ERANGE))?);
    let pidfd = process::pidfd_open(group).map_err(failed)?;
    let in_time = ended_in_time(&pidfd, hook.timeout()).map_err(failed)?;
    if !in_time {
        // With it goes what it has started: its group. ESRCH: it has ended in this moment.
        match killpg(group, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    let status = child.wait().map_err(|error| failed(errno_of(&error)))?;
    match (in_time, status.success()) {
        (true, true) => Ok(()),
        (true, false) => Err(broken(&format!("run {name}: {status}"))),
        (false, _) => {
            let seconds = hook.timeout().unwrap_or_default();
            Err(broken(&format!("run {name}: not at its end after {seconds} s, killed")))
        }
    }
}

/// A file in memory, so that a hook which reads nothing hinders nobody.
fn input(state: &Value) -> nix::Result<Stdio> {
    let file = memfd_create(c"state", MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    let written = file.write_all(state.to_string().as_bytes());
    written.and_then(|()| file.seek(SeekFrom::Start(0))).map_err(|error| errno_of(&error))?;
    Ok(file.into())
}

/// Without a limit, waits as long as it takes: so the specification has it.
fn ended_in_time(pidfd: &OwnedFd, seconds: Option<i64>) -> nix::Result<bool> {
    let Some(seconds) = seconds.and_then(|seconds| u64::try_from(seconds).ok()) else {
        return Ok(true);
    };
    let (begin, limit) = (Instant::now(), Duration::from_secs(seconds));
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}
