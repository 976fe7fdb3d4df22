//! Building a container, as root: cgroup, layers, network, first process. What a failure leaves is
//! undone by the supervisor, which has to be able to do that for a killed monitor in any case.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use berth_runtime::config::RANGE_IDS;
use berth_runtime::digest::Digest;
use berth_runtime::record::{CgroupVersion, Failure, LimitState, Live};
use berth_runtime::wire::Console;

use super::volumes::Volumes;
use super::{Job, broken, console};
use crate::apparmor;
use crate::cgroup::{CONTAINER_DEVICES, Cgroup, Hierarchy, Scope, Settings};
use crate::data_set;
use crate::failure::system;
use crate::files::FileError;
use crate::hooks::inside::Inside;
use crate::launch::{self, Created, InjectedFile, Launch, OverlayRoot, RootSource, User};
use crate::ledger::{self, LiveRecord};
use crate::namespace::{IdMap, id_map_namespace};
use crate::network::{self, Network};
use crate::places::Places;
use crate::process::{self, ProcessKey};
use crate::profile::{self, ProfileHost};
use crate::sys::{self, socket};
use crate::timing;

/// The name of a monitor's socket in the run directory.
pub(crate) const SOCKET: &str = "monitor.sock";
/// The name of its socket for people who are with the program.
pub(crate) const ATTACH_SOCKET: &str = "attach.sock";
/// Watchers that may wait to be admitted.
const BACKLOG: i32 = 16;
/// People who attach at once, until the monitor has its turn.
const ATTACH_BACKLOG: i32 = 64;

/// What is left in the monitor's hands when the program runs.
pub(super) struct Parts {
    pub(super) live: Live,
    pub(super) init: OwnedFd,
    pub(super) cgroup: Cgroup,
    pub(super) out_of_memory: Option<OwnedFd>,
    pub(super) outputs: [Option<OwnedFd>; 2],
    pub(super) console: Option<console::Console>,
    pub(super) listener: OwnedFd,
    pub(super) logs: OwnedFd,
    pub(super) exit: OwnedFd,
}

/// Builds the container and runs its program.
pub(super) fn build(job: &Job, places: &Places) -> Result<Parts, Failure> {
    let file = |error: FileError| broken(&error);
    let in_run = |error: FileError| broken(&error.below("run"));
    let start = &job.start;
    let run = places.live(&start.container).map_err(file)?;
    let monitor = ProcessKey::own(&job.boot_id).map_err(file)?;
    let mut record = LiveRecord { version: ledger::VERSION, run: start.run, monitor, live: None };
    record.write(&run).map_err(in_run)?;
    let (tree, logs) = places.make_tree(&job.person, &start.container).map_err(file)?;
    timing::done("records and directories");
    let (cgroup, limits) = make_cgroup(job)?;
    timing::done("cgroup, limits, devices");
    let listener = socket::listen_in(run.as_fd(), SOCKET, BACKLOG)
        .map_err(FileError::os("listen on", SOCKET))
        .map_err(in_run)?;
    let volumes = Volumes::open(job, places)?;
    let (mut created, ours) = create(job, places, (tree, &volumes), &cgroup)?;
    volumes.settle(created.pid)?;
    drop(volumes);
    match &job.place {
        Some(place) => Network::new(&job.config)?
            .attach(created.network_namespace.as_fd(), &place.attachment())?,
        None => network::loopback_only(created.network_namespace.as_fd())?,
    }
    timing::done("network");
    let (outputs, console) = console(job, &run, &mut created, ours)?;
    let out_of_memory = cgroup.oom_notifier()?;
    created.start()?;
    timing::done("release: capabilities, seccomp, execve");
    let live = Live {
        pid: created.pid.as_raw(),
        start_ticks: process::start_ticks(created.pid.as_raw()).map_err(file)?,
        started_ms: process::now_ms(),
        address: job.place.as_ref().map(|place| place.address),
        address6: address6(job)?,
        cgroup: cgroup.paths(),
        limits,
        oom_kills: 0,
    };
    record.live = Some(live.clone());
    record.write(&run).map_err(in_run)?;
    timing::done("record of what runs");
    close_standard_streams().map_err(file)?;
    Ok(Parts {
        live,
        init: created.pidfd,
        cgroup,
        out_of_memory,
        outputs,
        console,
        listener,
        logs,
        exit: places.exit(&start.container).map_err(file)?,
    })
}

fn make_cgroup(job: &Job) -> Result<(Cgroup, Vec<LimitState>), Failure> {
    let hierarchy = Hierarchy::detect()?;
    let scope = Scope::open(&hierarchy, &job.scope)?;
    let cgroup = scope.container(job.person.group, job.person.person, &job.start.container)?;
    cgroup.create()?;
    let limits = cgroup.apply(&Settings::from(&job.start.limits))?;
    cgroup.restrict_devices(&CONTAINER_DEVICES)?;
    Ok((cgroup, limits))
}

fn create(
    job: &Job,
    places: &Places,
    (tree, volumes): (OwnedFd, &Volumes),
    cgroup: &Cgroup,
) -> Result<(Created, Streams), Failure> {
    let file = |error: FileError| broken(&error);
    let cgroup_v2 = cgroup.paths().version == CgroupVersion::V2;
    let apparmor = apparmor::applies(&job.config);
    let host = ProfileHost { first_id: job.person.first_id, cgroup_v2, apparmor };
    let spec = profile::spec(&job.start, &host)?;
    let layers: Result<Vec<OwnedFd>, FileError> =
        distinct(&job.start.layers).into_iter().map(|blob| places.layer(blob)).collect();
    let map = IdMap { inside: job.layer_first, outside: job.person.first_id, count: RANGE_IDS };
    let id_map = id_map_namespace(map)
        .map_err(FileError::io("make the id map of", "the layers"))
        .map_err(file)?;
    let mut mounts = volumes.mounts(&job.start.volumes)?;
    mounts.extend(data_set::mounts(&job.config, &job.start.data_sets)?);
    let (stdio, ours) = streams(job.start.console).map_err(file)?;
    let created = launch::create(Launch {
        spec: &spec,
        joined: Vec::new(),
        root: RootSource::Overlay(OverlayRoot {
            layers: layers.map_err(file)?,
            id_map,
            upper: tree,
        }),
        stdio,
        user: User::Named(job.start.process.user.clone()),
        cgroup: cgroup.entry()?,
        own_cgroups: Vec::new(),
        files: injected(job),
        volumes: mounts,
        gate: None,
        before_root: None,
        hooks: Inside::default(),
        listener: None,
        preserved: 0,
    })?;
    Ok((created, ours))
}

/// Each layer once, where it lies highest: what a layer holds covers all that the same layer holds
/// further down, and overlayfs refuses one directory twice.
pub(crate) fn distinct(layers: &[Digest]) -> Vec<&Digest> {
    let later = |index: usize, blob: &Digest| layers[index + 1..].contains(blob);
    layers
        .iter()
        .enumerate()
        .filter(|(index, blob)| !later(*index, blob))
        .map(|(_, blob)| blob)
        .collect()
}

/// Our ends of a program's streams; a terminal takes the place of all.
#[derive(Default)]
struct Streams {
    input: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

/// The program's streams, and our ends, which do not block.
fn streams(console: Console) -> Result<([OwnedFd; 3], Streams), FileError> {
    if console.terminal.is_some() {
        return Ok(([null()?, null()?, null()?], Streams::default()));
    }
    let pipe = |name: &'static str| {
        pipe2(OFlag::O_CLOEXEC).map_err(FileError::os("make a pipe for", name))
    };
    let (input, input_writer) = match console.stdin {
        true => pipe("stdin").map(|(reader, writer)| (reader, Some(writer)))?,
        false => (null()?, None),
    };
    let (output, output_writer) = pipe("stdout")?;
    let (error, error_writer) = pipe("stderr")?;
    let ours = Streams { input: input_writer, outputs: [Some(output), Some(error)] };
    ours.input.iter().chain(ours.outputs.iter().flatten()).try_for_each(not_blocking)?;
    Ok(([input, output_writer, error_writer], ours))
}

/// The flag is the open file's: the program's end of a pipe or terminal is another one.
pub(super) fn not_blocking(fd: &OwnedFd) -> Result<(), FileError> {
    let set = fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    set.map(drop).map_err(FileError::os("change the flags of", "a stream"))
}

/// Where output comes from, and how people reach the program, if they can.
fn console(
    job: &Job,
    run: &OwnedFd,
    created: &mut Created,
    ours: Streams,
) -> Result<([Option<OwnedFd>; 2], Option<console::Console>), Failure> {
    let file = |error: FileError| broken(&error.below("run"));
    let Streams { input, mut outputs } = ours;
    let copy = |fd: &OwnedFd| {
        fd.try_clone().map_err(|error| system("copy the terminal", launch::errno_of(&error)))
    };
    let mut terminal = None;
    let input = match (created.terminal.take(), job.start.console.terminal) {
        (Some(master), Some(size)) => {
            not_blocking(&master).map_err(file)?;
            sys::terminal::set_size(&master, size.columns, size.rows)
                .map_err(|errno| system("set the terminal's size", errno))?;
            let slave = sys::terminal::slave_of(master.as_fd())
                .map_err(|errno| system("open the terminal", errno))?;
            outputs[0] = Some(copy(&master)?);
            let input = copy(&master)?;
            terminal = Some(console::Terminal { master, slave });
            Some(input)
        }
        _ => input,
    };
    let Some(input) = input else { return Ok((outputs, None)) };
    let listener = socket::listen_in(run.as_fd(), ATTACH_SOCKET, ATTACH_BACKLOG)
        .map_err(FileError::os("listen on", ATTACH_SOCKET))
        .map_err(file)?;
    Ok((outputs, Some(console::Console::new(listener, input, terminal))))
}

pub(super) fn null() -> Result<OwnedFd, FileError> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(FileError::os("open", "/dev/null"))
}

/// What the supervisor's standard streams lead to is not kept open by its containers' monitors.
pub(super) fn close_standard_streams() -> Result<(), FileError> {
    let null = null()?;
    let closed = |name: &'static str| FileError::os("close", name);
    nix::unistd::dup2_stdin(&null).map_err(closed("standard input"))?;
    nix::unistd::dup2_stdout(&null).map_err(closed("standard output"))?;
    nix::unistd::dup2_stderr(&null).map_err(closed("standard error"))
}

/// The container's IPv6 address, where containers have any.
fn address6(job: &Job) -> Result<Option<Ipv6Addr>, Failure> {
    let Some(place) = &job.place else { return Ok(None) };
    Ok(Network::new(&job.config)?.address6(place.address))
}

fn injected(job: &Job) -> Vec<InjectedFile> {
    let hostname = &job.start.hostname;
    let own = job.place.as_ref();
    let own = own.map_or("127.0.1.1".to_owned(), |place| place.address.to_string());
    let mut hosts = format!("127.0.0.1\tlocalhost\n{own}\t{hostname}\n");
    // A pool that is none has been refused by now.
    if let Ok(Some(own)) = address6(job) {
        hosts += &format!("::1\tlocalhost\n{own}\t{hostname}\n");
    }
    let file = |path: &str, content: String| InjectedFile {
        path: path.to_owned(),
        content: content.into_bytes(),
    };
    let mut files = vec![file("/etc/hostname", format!("{hostname}\n")), file("/etc/hosts", hosts)];
    if job.place.is_some() {
        files.push(file("/etc/resolv.conf", network::resolv_conf(&job.config.nameservers)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_comes_again_counts_where_it_lies_highest() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Digest::of(bytes));
        let layers = [a.clone(), b.clone(), a.clone(), c.clone(), c.clone()];
        assert_eq!(distinct(&layers), [&b, &a, &c]);
        assert_eq!(distinct(std::slice::from_ref(&a)), [&a]);
    }
}
