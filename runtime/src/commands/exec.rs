//! `exec`, and waiting for a child in the foreground.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_runtime::record::{Failure, FailureClass, Status};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use oci_spec::runtime::{Capability, Process, Spec};

use crate::commands::create::{absolute, own_stdio, refuse_preserved};
use crate::commands::lifecycle::expect;
use crate::commands::{Global, bad_usage, missing_id, usage};
use crate::exec::Exec;
use crate::failure::{broken, system};
use crate::launch::{User, errno_of};
use crate::state::Place;
use crate::sys::{memfd, process};

/// Bytes of a `--process` file at most.
const PROCESS_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Options {
    process: Option<PathBuf>,
    cwd: Option<PathBuf>,
    user: Option<String>,
    environment: Vec<String>,
    capabilities: Vec<String>,
    groups: Vec<u32>,
    no_new_privileges: bool,
    apparmor: Option<String>,
    ignore_paused: bool,
    pid_file: Option<PathBuf>,
    detach: bool,
    id: Option<String>,
    arguments: Vec<String>,
}

impl Options {
    fn parse(mut parser: lexopt::Parser) -> Result<Self, Failure> {
        let mut options = Self::default();
        let text = |parser: &mut lexopt::Parser| {
            parser.value().and_then(|value| value.string()).map_err(usage)
        };
        while let Some(argument) = parser.next().map_err(usage)? {
            match argument {
                Long("process") | Short('p') => {
                    options.process = Some(parser.value().map_err(usage)?.into());
                }
                Long("cwd") => options.cwd = Some(parser.value().map_err(usage)?.into()),
                Long("user") | Short('u') => options.user = Some(text(&mut parser)?),
                Long("env") | Short('e') => options.environment.push(text(&mut parser)?),
                Long("cap") | Short('c') => options.capabilities.push(text(&mut parser)?),
                Long("additional-gids") | Short('g') => {
                    let group = parser.value().and_then(|value| value.parse());
                    options.groups.push(group.map_err(usage)?);
                }
                Long("no-new-privs") => options.no_new_privileges = true,
                Long("apparmor") => options.apparmor = Some(text(&mut parser)?),
                Long("ignore-paused") => options.ignore_paused = true,
                Long("preserve-fds") => refuse_preserved(&mut parser)?,
                Long("pid-file") => options.pid_file = Some(parser.value().map_err(usage)?.into()),
                Long("detach") | Short('d') => options.detach = true,
                Long("tty") | Short('t') => {
                    return Err(bad_usage("--tty is not supported".to_owned()));
                }
                Value(value) => {
                    options.id = Some(value.string().map_err(usage)?);
                    // What follows the id is the program's, dashes and all.
                    for rest in parser.raw_args().map_err(usage)? {
                        options.arguments.push(rest.string().map_err(usage)?);
                    }
                    break;
                }
                other => return Err(usage(other.unexpected())),
            }
        }
        Ok(options)
    }
}

/// `exec`. Its own failure is exit status 255, since any lower one may be the program's.
pub fn exec(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    join(parser, global).or_else(|failure| {
        super::report(global, &format!("exec failed: {}", failure.message));
        Ok(ExitCode::from(255))
    })
}

fn join(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let options = Options::parse(parser)?;
    memfd::ensure_sealed().map_err(|error| system("seal our binary", errno_of(&error)))?;
    let place =
        Place::new(&absolute(&global.root)?, options.id.as_deref().ok_or_else(missing_id)?)?;
    let record = place.read()?;
    match options.ignore_paused {
        // It begins to run when the container goes on.
        true => expect(&record, &place, &[Status::Running, Status::Created, Status::Paused])?,
        false => expect(&record, &place, &[Status::Running, Status::Created])?,
    }
    let spec = place.read_spec()?;
    let process = process_of(&options, &spec)?;
    let user = match &options.user {
        Some(_) if !options.groups.is_empty() => {
            let text = "--additional-gids beside --user: the user's groups are looked up";
            return Err(bad_usage(text.to_owned()));
        }
        Some(text) => User::Named(text.clone()),
        None => User::FromSpec,
    };
    let pid_file = options.pid_file.as_deref().map(absolute).transpose()?;
    let signals = block_forwarded_signals()?;
    let joined = crate::exec::exec(Exec {
        spec: &spec,
        process: &process,
        user,
        stdio: own_stdio()?,
        terminal: false,
        init: record.open()?,
        cgroup: record.cgroup()?.entry()?,
    })?;
    if let Some(path) = pid_file {
        fs::write(&path, joined.pid.to_string())
            .map_err(|error| system(&format!("write {}", path.display()), errno_of(&error)))?;
    }
    if let Err(failure) = joined.start() {
        wait(&joined.pidfd, &signals)?;
        return Err(failure);
    }
    if options.detach {
        return Ok(ExitCode::SUCCESS);
    }
    wait(&joined.pidfd, &signals)
}

/// The file's program, or the container's own with what the options change.
fn process_of(options: &Options, spec: &Spec) -> Result<Process, Failure> {
    if let Some(path) = &options.process {
        return read_process(path);
    }
    if options.arguments.is_empty() {
        return Err(bad_usage("a program to run is needed".to_owned()));
    }
    let own = spec.process().as_ref().ok_or_else(|| broken("the record has no process"))?;
    let mut process = own.clone();
    process.set_terminal(None);
    process.set_args(Some(options.arguments.clone()));
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(options.environment.iter().cloned());
    process.set_env(Some(environment));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    if options.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if !options.groups.is_empty() {
        let groups = process.user().additional_gids().clone().unwrap_or_default();
        let groups = groups.into_iter().chain(options.groups.iter().copied()).collect();
        process.user_mut().set_additional_gids(Some(groups));
    }
    add_capabilities(&mut process, &options.capabilities)?;
    Ok(process)
}

/// `--cap`: more than the container's own process has, in every set in which it can be.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let mut added = HashSet::new();
    for name in names {
        let plain = name.strip_prefix("CAP_").unwrap_or(name);
        let capability = plain
            .parse::<Capability>()
            .map_err(|_| bad_usage(format!("--cap: {name:?} is no capability")))?;
        added.insert(capability);
    }
    let with = |set: &Option<HashSet<Capability>>| -> Option<HashSet<Capability>> {
        Some(set.iter().flatten().copied().chain(added.iter().copied()).collect())
    };
    sets.set_bounding(with(sets.bounding()));
    sets.set_permitted(with(sets.permitted()));
    sets.set_effective(with(sets.effective()));
    if process.user().uid() != 0 {
        // Only ambient ones outlive execve in a user that is not root.
        sets.set_inheritable(with(sets.inheritable()));
        sets.set_ambient(with(sets.ambient()));
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

fn read_process(path: &Path) -> Result<Process, Failure> {
    let failed = |text: String| {
        let text = format!("read the process from {}: {text}", path.display());
        Failure::new(FailureClass::Invalid, "container.config", text)
    };
    let length = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > PROCESS_BYTES_MAX {
        return Err(failed(format!("larger than {PROCESS_BYTES_MAX} bytes")));
    }
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
}

/// Signals that a foreground command passes on.
const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Blocks them before the child is there, so that none is lost; the child unblocks all.
pub fn block_forwarded_signals() -> Result<SignalFd, Failure> {
    let mut set = SigSet::empty();
    FORWARDED.into_iter().for_each(|signal| set.add(signal));
    set.thread_block().map_err(|errno| system("block signals", errno))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| system("make a signal descriptor", errno))
}

/// Passes signals on until the child ends; its exit code, or 128 and the signal that ended it.
pub fn wait(child: &OwnedFd, signals: &SignalFd) -> Result<ExitCode, Failure> {
    loop {
        let mut ready = [
            PollFd::new(child.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(|errno| system("wait for the child", errno))?,
        };
        if ready[0].any() == Some(true) {
            break;
        }
        let signal = signals.read_signal();
        if let Some(info) = signal.map_err(|errno| system("read a signal", errno))? {
            match process::pidfd_send_signal(child, info.ssi_signo.cast_signed()) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(system("pass a signal on", errno)),
            }
        }
    }
    let status = waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WEXITED)
        .map_err(|errno| system("read the child's end", errno))?;
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => return Err(broken(&format!("the child's end is none: {other:?}"))),
    };
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)))
}
