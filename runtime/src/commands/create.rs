//! `create` and `run`.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use berth_runtime::record::Failure;
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};

use crate::capability;
use crate::cgroup::{Before, Cgroup, Hierarchy, fence};
use crate::commands::console::{Console, Kept, activation_sockets};
use crate::commands::foreground::{Session, block_forwarded_signals, wait};
use crate::commands::{Global, bad_usage, missing_id, say, usage, warn};
use crate::failure::{broken, from_spec, system};
use crate::hooks::inside::Inside;
use crate::hooks::{self, Point, Told};
use crate::joined::{self, Joined};
use crate::kept;
use crate::launch::{self, CgroupEntry, Created, Launch, RootSource, User, errno_of};
use crate::network::moving;
use crate::plan;
use crate::resctrl::{self, Class};
use crate::rootfs::cgroups::OwnCgroup;
use crate::seccomp::listener::Listener;
use crate::spec::{SpecError, invalid};
use crate::state::{Attempt, Place, Record, read_spec, stat, unknown_properties};
use crate::systemd::{Scope, Unit};

/// What `create` and `run` take.
#[derive(Debug, Default)]
struct Options {
    bundle: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    detach: bool,
    console_socket: Option<PathBuf>,
    kept: Kept,
    id: Option<String>,
}

impl Options {
    fn parse(mut parser: lexopt::Parser) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut preserved = 0;
        while let Some(argument) = parser.next().map_err(usage)? {
            match argument {
                Long("bundle") | Short('b') => {
                    options.bundle = Some(parser.value().map_err(usage)?.into());
                }
                Long("pid-file") => options.pid_file = Some(parser.value().map_err(usage)?.into()),
                Long("detach") | Short('d') => options.detach = true,
                Long("preserve-fds") => {
                    preserved = parser.value().and_then(|value| value.parse()).map_err(usage)?;
                }
                Long("console-socket") => {
                    options.console_socket = Some(parser.value().map_err(usage)?.into());
                }
                // A container that shared its creator's keys could read what they open.
                Long("no-new-keyring") => {
                    return Err(bad_usage(
                        "--no-new-keyring: a container always has a session keyring of its own"
                            .to_owned(),
                    ));
                }
                // chroot(2), which this asks for, can be left by a process that may call it.
                Long("no-pivot") => {
                    return Err(bad_usage("--no-pivot: the root is always pivoted".to_owned()));
                }
                Value(value) if options.id.is_none() => {
                    options.id = Some(value.string().map_err(usage)?);
                }
                other => return Err(usage(other.unexpected())),
            }
        }
        options.kept = Kept::check(activation_sockets(), preserved)?;
        Ok(options)
    }
}

/// `create`: the container waits at its gate.
pub fn create(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let options = Options::parse(parser)?;
    let (created, _) = build(&options, global, Gate::Socket)?;
    created.leave_to_gate();
    Ok(ExitCode::SUCCESS)
}

/// `run`: creates, starts, and unless detached waits and deletes.
pub fn run(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let options = Options::parse(parser)?;
    let signals = block_forwarded_signals()?;
    let (mut created, session) = build(&options, global, Gate::Inherited)?;
    let place = Place::new(&absolute(&global.root)?, options.id.as_deref().unwrap_or_default())?;
    if let Err(failure) = created.start() {
        super::lifecycle::remove(&place, global)?;
        return Err(failure);
    }
    super::lifecycle::after_start(&place, &place.read()?, global)?;
    if options.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let code = wait(&created.pidfd, &signals, session)?;
    super::lifecycle::remove(&place, global)?;
    Ok(code)
}

/// How the start reaches the first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// By the socket in its directory, from any process.
    Socket,
    /// From this process.
    Inherited,
}

fn build(
    options: &Options,
    global: &Global,
    gate: Gate,
) -> Result<(Created, Option<Session>), Failure> {
    kept::ensure_sealed().map_err(|error| system("seal our binary", errno_of(&error)))?;
    let id = options.id.as_deref().ok_or_else(missing_id)?;
    let place = Place::new(&absolute(&global.root)?, id)?;
    let pid_file = options.pid_file.as_deref().map(absolute).transpose()?;
    let socket = options.console_socket.as_deref().map(absolute).transpose()?;
    let bundle = absolute(options.bundle.as_deref().unwrap_or(Path::new(".")))?;
    std::env::set_current_dir(&bundle)
        .map_err(|error| system(&format!("enter {}", bundle.display()), errno_of(&error)))?;
    let mut spec = read_spec(&bundle.join("config.json"))?;
    crate::spec::check(&spec).map_err(from_spec)?;
    for property in unknown_properties(&bundle.join("config.json"), &spec)? {
        say(global, "warning", &format!("config: {property} is not known and has no effect"));
    }
    let joined = joined::open_all(&mut spec).map_err(from_spec)?;
    let process = spec.process().as_ref();
    let capabilities = process.and_then(|process| process.capabilities().as_ref());
    for name in capabilities.map(capability::left_out).unwrap_or_default() {
        let why = "not both permitted and inheritable, so it is left out";
        say(global, "warning", &format!("config: process.capabilities.ambient: {name} is {why}"));
    }
    if let Some(sets) = capabilities.filter(|_| !joined::has(&spec, LinuxNamespaceType::User)) {
        for name in capability::beyond(sets, plan::own_capabilities().map_err(from_spec)?) {
            let text = format!("process.capabilities: {name} is not ours to give, and is left out");
            say(global, "warning", &format!("config: {text}"));
        }
    }
    let home = Home::of(&spec, id, global).map_err(from_spec)?;
    let process = process.ok_or(SpecError::Missing("process"));
    let detached = options.detach || gate == Gate::Socket;
    let console = Console::choose(process.map_err(from_spec)?, socket.as_deref(), detached)?;
    let class = resctrl::of(&spec, id).map_err(from_spec)?;
    let resctrl = class.as_ref().map(Class::own_directories).unwrap_or_default();
    place.create()?;
    let built = home.make(&spec, id).and_then(|(cgroup, mut scope)| {
        let new = scope.is_some() || !cgroup.exists();
        if new || class.is_some() {
            let cgroup = new.then(|| cgroup.path().to_owned());
            place.begin(&Attempt { cgroup, resctrl: resctrl.clone() })?;
        }
        let at = (&cgroup, scope.as_mut());
        let kept = options.kept;
        let seed = Seed { spec: &spec, joined, bundle: &bundle, id, gate, kept, class };
        let built = build_in(&place, seed, at);
        let built = built.and_then(|created| hand_over(created, console, pid_file.as_deref()));
        if built.is_err() {
            resctrl::remove(&resctrl)?;
        }
        if built.is_err() && new {
            cgroup.kill()?;
            scope.as_mut().map_or(Ok(()), Scope::undo)?;
            cgroup.remove()?;
        }
        built
    });
    if built.is_err() {
        place.remove()?;
        let told = Told { id, status: "stopped", pid: None, bundle: &bundle };
        warn(global, &hooks::run(&spec, Point::Poststop, told));
    }
    built
}

/// Tells who the process is and gives its terminal away.
fn hand_over(
    mut created: Created,
    console: Console,
    pid_file: Option<&Path>,
) -> Result<(Created, Option<Session>), Failure> {
    if let Some(path) = pid_file {
        fs::write(path, created.pid.to_string())
            .map_err(|error| system(&format!("write {}", path.display()), errno_of(&error)))?;
    }
    let session = console.take(created.terminal.take())?;
    Ok((created, session))
}

/// What a container is made from.
struct Seed<'a> {
    spec: &'a Spec,
    joined: Vec<Joined>,
    bundle: &'a Path,
    id: &'a str,
    gate: Gate,
    kept: Kept,
    class: Option<Class>,
}

fn build_in(
    place: &Place,
    seed: Seed<'_>,
    (cgroup, scope): (&Cgroup, Option<&mut Scope>),
) -> Result<Created, Failure> {
    let Seed { spec, joined, bundle, id, gate, kept, class } = seed;
    let before = if cgroup.exists() { Before::InForce } else { Before::New };
    cgroup.create()?;
    let resources = resources_of(spec);
    cgroup.fence_devices(&fence(resources)?)?;
    if let Some(resources) = resources {
        let mut now = resources.clone();
        if scope.is_some() {
            // The scope's placeholder would count.
            now.set_pids(None);
        }
        cgroup.set_resources(&now, before)?;
    }
    let root = spec.root().as_ref().map(|root| bundle.join(root.path())).unwrap_or_default();
    let listener = match gate {
        Gate::Socket => Some(listen_at(place)?),
        Gate::Inherited => None,
    };
    let mut told = spec.clone();
    if let Some(process) = told.process_mut() {
        kept.add_to(process);
    }
    let devices = moving::devices(spec).map_err(from_spec)?;
    let held = spec.hooks().is_some() || !devices.is_empty();
    let before_root = |pid: Pid| {
        moving::move_in(&devices, pid)?;
        let told = Told { id, status: "creating", pid: Some(pid.as_raw()), bundle };
        let points = [Point::Prestart, Point::CreateRuntime];
        let mut failures = points.into_iter().flat_map(|point| hooks::run(spec, point, told));
        failures.next().map_or(Ok(()), Err)
    };
    let created = launch::create(Launch {
        spec: &told,
        joined,
        root: RootSource::Directory(root),
        stdio: own_stdio()?,
        user: User::FromSpec,
        cgroup: entry_of(cgroup, class.as_ref())?,
        own_cgroups: own_cgroups(&Hierarchy::detect_all()?, cgroup.path()),
        files: Vec::new(),
        volumes: Vec::new(),
        gate: listener,
        before_root: held.then_some(&before_root),
        listener: Listener::of(spec, Told { id, status: "creating", pid: None, bundle }),
        hooks: Inside::plan(spec, Told { id, status: "", pid: None, bundle }).map_err(from_spec)?,
        preserved: kept.count,
    })?;
    let unit = scope.as_ref().map(|scope| scope.unit().to_owned());
    if let Some(scope) = scope {
        scope.hand_over(resources)?;
        if let Some(resources) = resources {
            cgroup.set_resources(resources, Before::InForce)?;
        }
    }
    let (_, start_ticks) =
        stat(created.pid.as_raw()).ok_or_else(|| broken("the first process is gone"))?;
    let record = Record {
        id: id.to_owned(),
        pid: created.pid.as_raw(),
        start_ticks,
        bundle: bundle.to_owned(),
        created_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
        cgroup: cgroup.path().to_owned(),
        unit,
        resctrl: class.as_ref().map(Class::own_directories).unwrap_or_default(),
        words: created.words().clone(),
    };
    place.write(&record, spec)?;
    Ok(created)
}

/// Where its first process enters cgroup and class, which is made for that.
fn entry_of(cgroup: &Cgroup, class: Option<&Class>) -> Result<CgroupEntry, Failure> {
    let mut entry = cgroup.entry()?;
    if let Some(class) = class {
        class.make()?;
        entry.tasks.extend(class.entries()?);
    }
    Ok(entry)
}

/// The container's cgroup in each tree, under the name at which the host has the tree.
fn own_cgroups(hierarchy: &Hierarchy, path: &str) -> Vec<OwnCgroup> {
    let alone = matches!(hierarchy, Hierarchy::V2 { .. });
    let own = |(tree, _): (&Path, _)| OwnCgroup {
        name: tree.file_name().filter(|_| !alone).map(|name| name.to_string_lossy().into_owned()),
        directory: tree.join(path.trim_start_matches('/')),
    };
    hierarchy.roots().into_iter().map(own).collect()
}

/// The absolute path of something named relative to the working directory, before that is changed.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| system(&format!("resolve {}", path.display()), errno_of(&error)))
}

/// This process's own standard input, output and error.
pub fn own_stdio() -> Result<[OwnedFd; 3], Failure> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|error| system("copy a stdio descriptor", errno_of(&error)))
    };
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    Ok([copy(input.as_fd())?, copy(output.as_fd())?, copy(error.as_fd())?])
}

/// A listening socket in the container's directory, reached by descriptor: a socket's path is at most
/// 107 bytes, and `--root` may be longer.
fn listen_at(place: &Place) -> Result<OwnedFd, Failure> {
    let failed = |errno| system("listen for the start", errno);
    let directory = fs::File::open(place.directory())
        .map_err(|error| system("open the container's directory", errno_of(&error)))?;
    let path = format!("/proc/self/fd/{}/start.sock", directory.as_raw_fd());
    let kind = SockType::SeqPacket;
    let listener =
        socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path.as_str()).map_err(failed)?).map_err(failed)?;
    listen(&listener, Backlog::new(1).map_err(failed)?).map_err(failed)?;
    Ok(listener)
}

fn resources_of(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
}

/// Where a container's cgroup is to be.
enum Home {
    /// At a path from the hierarchies' roots.
    Path(String),
    /// Wherever systemd puts this unit.
    Unit(Unit),
}

impl Home {
    /// By `linux.cgroupsPath`: absolute or below our own; with `--systemd-cgroup` in systemd's form.
    fn of(spec: &Spec, id: &str, global: &Global) -> Result<Self, SpecError> {
        let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
        let field = "linux.cgroupsPath";
        let path = linux.cgroups_path().as_deref().unwrap_or(Path::new(""));
        let path = path.to_str().ok_or_else(|| invalid(field, "not UTF-8"))?;
        if global.systemd_cgroup {
            return Unit::of(path, id).map(Self::Unit);
        }
        if path.contains(':') && !path.starts_with('/') {
            let why =
                format!("{path:?} is systemd's form, slice:prefix:name, for --systemd-cgroup");
            return Err(invalid(field, why));
        }
        let path = path.trim_end_matches('/');
        Ok(Self::Path(match path.strip_prefix('/') {
            Some(_) => path.to_owned(),
            None if path.is_empty() => format!("/berth-oci/{id}"),
            None => format!("/berth-oci/{path}"),
        }))
    }

    /// The cgroup; of a path it is only named, a scope is there already.
    fn make(self, spec: &Spec, id: &str) -> Result<(Cgroup, Option<Scope>), Failure> {
        let hierarchy = Hierarchy::detect_all()?;
        match self {
            Self::Path(path) => Ok((Cgroup::at(&hierarchy, &path)?, None)),
            Self::Unit(unit) => {
                let mut scope = Scope::start(&unit, id, resources_of(spec))?;
                match Cgroup::at(&hierarchy, scope.cgroup()) {
                    Ok(cgroup) => Ok((cgroup, Some(scope))),
                    Err(error) => {
                        scope.undo()?;
                        Err(error.into())
                    }
                }
            }
        }
    }
}
