//! Hooks in the container's own namespaces, `createContainer` and `startContainer`: planned by the parent,
//! run by the first process, which waits for each.
//!
//! [`run`] is of the child's life between clone3 and execve: it does not allocate, lock, log or panic.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{self, Pid, Whence};
use oci_spec::runtime::{Hook, Spec};

use super::{Point, Told, ended_in_time};
use crate::init::{At, Report, Stage};
use crate::process::Ended;
use crate::seccomp::Filter;
use crate::spec::{SpecError, invalid};
use crate::sys::clone3::Forked;
use crate::sys::exec::{self, StringArray};
use crate::sys::{clone, fd, pidfd, process, seccomp};

/// The hooks of one point, and what they are told.
#[derive(Debug, Default)]
pub struct List {
    hooks: Vec<Planned>,
    /// The state as JSON, before and after the process id: that is the one which the container sees
    /// (runtime.md, "State"), and the first process alone knows it.
    state: [Vec<u8>; 2],
}

/// One hook.
#[derive(Debug)]
struct Planned {
    path: CString,
    arguments: StringArray,
    environment: StringArray,
    /// Seconds.
    timeout: Option<i64>,
    /// Its place among the names of both lists.
    number: usize,
}

/// Both lists of a container; none for what has no hooks.
#[derive(Debug, Default)]
pub struct Inside {
    /// Run in the runtime's root, before the container's is entered.
    pub create: List,
    /// Run in the container's root, before its program.
    pub start: List,
    /// What failures call them, of both lists.
    pub names: Vec<String>,
}

impl Inside {
    /// Those of a configuration; `told` is all of the state but the process id.
    pub fn plan(spec: &Spec, told: Told<'_>) -> Result<Self, SpecError> {
        let mut names: Vec<String> = Vec::new();
        let mut list = |point: Point, status: &'static str| {
            let hooks = spec.hooks().as_ref().map(|hooks| point.of(hooks)).unwrap_or_default();
            let first = names.len();
            names.extend(hooks.iter().enumerate().map(|(index, hook)| point.label(index, hook)));
            let planned = |(index, hook): (usize, &Hook)| {
                Planned::of(hook, &names[first + index], first + index)
            };
            let hooks = hooks.iter().enumerate().map(planned).collect::<Result<_, _>>()?;
            Ok(List { hooks, state: Told { status, pid: None, ..told }.around_pid(spec) })
        };
        let create = list(Point::CreateContainer, "creating")?;
        let start = list(Point::StartContainer, "created")?;
        Ok(Self { create, start, names })
    }
}

impl Planned {
    fn of(hook: &Hook, name: &str, number: usize) -> Result<Self, SpecError> {
        let text = |text: &str| {
            CString::new(text).map_err(|_| invalid(name, format!("{text:?} has a NUL byte")))
        };
        let path = text(&hook.path().to_string_lossy())?;
        let mut arguments: Vec<CString> = hook
            .args()
            .iter()
            .flatten()
            .map(|argument| text(argument))
            .collect::<Result<_, _>>()?;
        if arguments.is_empty() {
            arguments.push(path.clone());
        }
        let environment =
            hook.env().iter().flatten().map(|variable| text(variable)).collect::<Result<_, _>>()?;
        Ok(Self {
            path,
            arguments: StringArray::new(arguments, 0),
            environment: StringArray::new(environment, 0),
            timeout: hook.timeout(),
            number,
        })
    }
}

/// What a hook begins with besides its arguments and the state. Its working directory, user and
/// capabilities are those of the process that calls [`run`].
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// File mode bits that are not given.
    pub umask: u32,
    /// A filter that the calling process is not under yet.
    pub filter: Option<&'a Filter>,
}

/// Runs the hooks of a list in order, up to the first that fails. What they write goes to standard error.
pub fn run(list: &List, held: Held<'_>) -> Result<(), Report> {
    for hook in &list.hooks {
        let index = hook.number;
        let input = list.input().at_index(Stage::Hook, index)?;
        let (said, saying) = unistd::pipe2(OFlag::O_CLOEXEC).at_index(Stage::Hook, index)?;
        let (pid, pidfd) = match clone::fork().at_index(Stage::Hook, index)? {
            Forked::Child => become_hook(hook, &input, &saying, held),
            Forked::Parent { child, pidfd } => (child, pidfd),
        };
        drop((input, saying));
        if !ended_in_time(&pidfd, hook.timeout).at_index(Stage::Hook, index)? {
            // With it goes what it has started. The container ends with this, so that what has left the
            // group, or may not be signalled, does too.
            killpg(pid, Signal::SIGKILL).ok();
            return Err(Errno::ETIME).at_index(Stage::HookSlow, index);
        }
        check_end(&said, &pidfd, index)?;
    }
    Ok(())
}

impl List {
    /// The state in a file in memory, at its begin.
    fn input(&self) -> nix::Result<OwnedFd> {
        let file = memfd_create(c"state", MFdFlags::MFD_CLOEXEC)?;
        let mut digits = [0; 10];
        let pid = decimal(Pid::this().as_raw().unsigned_abs(), &mut digits);
        for part in [&self.state[0], pid, &self.state[1]] {
            let mut left = part;
            while !left.is_empty() {
                match unistd::write(&file, left)? {
                    0 => return Err(Errno::EIO),
                    written => left = &left[written..],
                }
            }
        }
        unistd::lseek(&file, 0, Whence::SeekSet)?;
        Ok(file)
    }
}

/// The digits of a number, which fill the end of `room`.
fn decimal(mut number: u32, room: &mut [u8; 10]) -> &[u8] {
    let mut first = room.len();
    loop {
        first -= 1;
        room[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &room[first..];
        }
    }
}

/// Says on its pipe why it could not be run; the pipe closes when it is.
fn become_hook(hook: &Planned, input: &OwnedFd, saying: &OwnedFd, held: Held<'_>) -> ! {
    let errno = match ready(input, held) {
        Err(errno) => errno,
        Ok(()) => exec::execute(&hook.path, &hook.arguments, &hook.environment),
    };
    unistd::write(saying, &(errno as i32).to_ne_bytes()).ok();
    process::exit_now(1)
}

fn ready(input: &OwnedFd, held: Held<'_>) -> nix::Result<()> {
    unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    unistd::dup2_stdin(input)?;
    unistd::dup2_stdout(std::io::stderr())?;
    nix::sys::stat::umask(Mode::from_bits_truncate(held.umask));
    fd::close_on_exec_from(3)?;
    held.filter.map_or(Ok(()), |filter| seccomp::load(&filter.program, filter.flags))
}

fn check_end(said: &OwnedFd, pidfd: &OwnedFd, index: usize) -> Result<(), Report> {
    let end = loop {
        match pidfd::wait(pidfd) {
            Err(Errno::EINTR) => {}
            other => break other.at_index(Stage::Hook, index)?,
        }
    };
    let mut errno = [0; 4];
    if unistd::read(said, &mut errno).at_index(Stage::Hook, index)? == errno.len() {
        return Err(Errno::from_raw(i32::from_ne_bytes(errno))).at_index(Stage::Hook, index);
    }
    let number = match end {
        Ended::Code(0) => return Ok(()),
        Ended::Code(code) => code,
        Ended::Signal(signal) => -signal,
        Ended::Unknown => return Err(Errno::ECHILD).at_index(Stage::Hook, index),
    };
    let index = u16::try_from(index).unwrap_or(u16::MAX);
    Err(Report { stage: Stage::HookFailed, index, errno: number })
}
