//! `exec`: another program in a running container.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_runtime::record::{Failure, FailureClass, Status};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use oci_spec::runtime::{Capability, Process, Spec};

use crate::commands::console::{Console, Kept};
use crate::commands::create::{absolute, own_stdio};
use crate::commands::foreground::{block_forwarded_signals, wait};
use crate::commands::lifecycle::{expect, word};
use crate::commands::{Global, bad_usage, missing_id, usage};
use crate::exec::Exec;
use crate::failure::{broken, from_spec, system};
use crate::hooks::Told;
use crate::kept;
use crate::launch::{User, errno_of};
use crate::resctrl;
use crate::seccomp::listener::Listener;
use crate::state::Place;
use crate::sys::process;

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
    tty: bool,
    console_socket: Option<PathBuf>,
    kept: Kept,
    id: Option<String>,
    arguments: Vec<String>,
}

impl Options {
    fn parse(mut parser: lexopt::Parser) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut preserved = 0;
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
                Long("preserve-fds") => {
                    preserved = parser.value().and_then(|value| value.parse()).map_err(usage)?;
                }
                Long("console-socket") => {
                    options.console_socket = Some(parser.value().map_err(usage)?.into());
                }
                Long("pid-file") => options.pid_file = Some(parser.value().map_err(usage)?.into()),
                Long("detach") | Short('d') => options.detach = true,
                Long("tty") | Short('t') => options.tty = true,
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
        options.kept = Kept::check(0, preserved)?;
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
    super::privilege::need_power("exec")?;
    let options = Options::parse(parser)?;
    kept::ensure_sealed().map_err(|error| system("seal our binary", errno_of(&error)))?;
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
        Some(text) if options.groups.is_empty() => User::Named(text.clone()),
        _ => User::FromSpec,
    };
    let pid_file = options.pid_file.as_deref().map(absolute).transpose()?;
    let socket = options.console_socket.as_deref().map(absolute).transpose()?;
    let console = Console::choose(&process, socket.as_deref(), options.detach)?;
    let signals = block_forwarded_signals()?;
    let (pid, bundle) = (Some(record.pid), &*record.bundle);
    let status = word(record.status(&place)?);
    let told = Told { id: &record.id, status, pid, bundle };
    let mut cgroup = record.cgroup()?.entry()?;
    if let Some(class) = resctrl::of(&spec, &record.id).map_err(from_spec)? {
        cgroup.tasks.extend(class.entries()?);
    }
    let mut joined = crate::exec::exec(Exec {
        spec: &spec,
        process: &process,
        user,
        stdio: own_stdio()?,
        terminal: process.terminal() == Some(true),
        preserved: options.kept.count,
        listener: Listener::of(&spec, told),
        init: record.open()?,
        cgroup,
    })?;
    let session = console.take(joined.terminal.take())?;
    if let Some(path) = pid_file {
        fs::write(&path, joined.pid.to_string())
            .map_err(|error| system(&format!("write {}", path.display()), errno_of(&error)))?;
    }
    if let Err(failure) = joined.start() {
        // Where the word was not sent, it would wait for it.
        match process::pidfd_send_signal(&joined.pidfd, libc::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(system("end the process", errno)),
        }
        wait(&joined.pidfd, &signals, session)?;
        return Err(failure);
    }
    if options.detach {
        return Ok(ExitCode::SUCCESS);
    }
    wait(&joined.pidfd, &signals, session)
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
    process.set_terminal(Some(options.tty));
    process.set_console_size(None);
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
        if let Some(text) = &options.user {
            set_numbers(process.user_mut(), text)?;
        }
    }
    add_capabilities(&mut process, &options.capabilities)?;
    Ok(process)
}

/// `--user` beside `--additional-gids`: by numbers, since a name's groups would be looked up.
fn set_numbers(user: &mut oci_spec::runtime::User, text: &str) -> Result<(), Failure> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| {
            let why = "beside --additional-gids the user is given by numbers, UID or UID:GID";
            bad_usage(format!("--user: {text:?}: {why}"))
        })
    };
    user.set_uid(number(uid)?);
    if let Some(gid) = gid {
        user.set_gid(number(gid)?);
    }
    Ok(())
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
    crate::spelling::parse(&bytes).map_err(|error| failed(error.to_string()))
}
