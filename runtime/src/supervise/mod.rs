//! The supervisor: root, one thread, no network. It owns all privileged work and does as little of it
//! as it can: what may block runs in children of its own executable.
//!
//! ```text
//!  server ──1 request per connection──► poll loop ──► monitors  (one per container, outlive us)
//!                                          │    ├───► execs' monitors (one per later program, outlive us)
//!                                          │    └───► tasks     (pause, kill, undo, remove, …)
//!                                          └────────► unpackers (confined, per layer)
//! ```
//!
//! Invariants: no request carries a path, an id or a configuration, and each is checked against the
//! supervisor's own record before anything is done; acts on one container follow one another; nothing
//! that this process knows is lost when it is killed: the next one reads it from records and kernel
//! (`recover`). Deliberately absent: policy on who may do what (the server's), restarts, timers of
//! containers' own.

mod connection;
mod containers;
mod disks;
mod dispatch;
mod execs;
mod rates;
mod recover;
mod setup;
mod stop_all;
mod stored;
mod tasks;
mod totals;
mod validate;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::id::{ContainerId, ExecId, PrincipalId};
use berth_runtime::record::LimitState;

use self::connection::{CONNECTIONS_MAX, Connection, Received, Reply, Token};
use self::containers::Entry;
use self::disks::Disks;
pub(crate) use self::setup::{SetupError, open_lock};
pub(crate) use self::stop_all::main as stop_all_main;
use self::tasks::Running;
pub(crate) use self::tasks::{main as task_main, receive_job};
use crate::cgroup::{Hierarchy, Scope};
use crate::layer;
use crate::network::Changes;
use crate::network::rates::Rates;
use crate::people::People;
use crate::places::{self, Places};
use crate::process;
use crate::scope;
use crate::undo::Sum;

/// The supervisor's state; all of it can be had again from disk and kernel.
pub(crate) struct Supervisor {
    config: RuntimeConfig,
    places: Places,
    people: People,
    boot_id: String,
    server_uid: u32,
    scope_path: String,
    scope: Scope,
    executable: OwnedFd,
    listener: OwnedFd,
    connections: BTreeMap<Token, Connection>,
    containers: BTreeMap<ContainerId, Entry>,
    tasks: BTreeMap<u64, Running>,
    /// Totals that are being changed.
    totals: BTreeSet<Sum>,
    /// Whose cgroups are there, and hold their total.
    bounded: BTreeSet<Sum>,
    /// What people keep on disk.
    disks: Disks,
    /// Whose removed volumes are being swept, and whether more came to them meanwhile.
    sweeps: BTreeMap<PrincipalId, bool>,
    /// Layers that wait for a worker.
    unpacks: VecDeque<Unpack>,
    /// Workers that have answered and end of their own accord.
    leavers: Vec<Leaver>,
    /// The address given last, by person.
    last_addresses: BTreeMap<PrincipalId, Ipv4Addr>,
    next_number: u64,
    /// Tells of changed firewall rules; none where the kernel has no nftables.
    rules: Option<Changes>,
    /// Rates of the network as the kernel has them.
    rates: Rates,
    /// What the kernel holds all containers together to.
    together: Vec<LimitState>,
    /// Held as long as this process lives.
    _lock: OwnedFd,
}

/// A worker of the layer store on its way out.
struct Leaver {
    pidfd: OwnedFd,
    /// Whether it had said that all went well.
    succeeded: bool,
    /// A sweep: it is not swept after.
    sweeps: bool,
}

/// A layer that waits for a worker.
struct Unpack {
    token: Token,
    task: layer::Task,
    input: OwnedFd,
}

/// Who has something to say.
#[derive(Debug, Clone)]
enum Source {
    Listener,
    Connection(Token),
    Report(ContainerId),
    Monitor(ContainerId),
    ExecReport(ContainerId, ExecId),
    ExecMonitor(ContainerId, ExecId),
    Task(u64),
    Leaver(usize),
    Rules,
}

/// `berth-runtime supervise [--config FILE]`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    match parse_arguments(arguments).and_then(Supervisor::open) {
        Ok(supervisor) => supervisor.run(),
        Err(error) => {
            say(&format!("the supervisor cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for the journal. That nobody listens is no reason to stop.
pub(crate) fn say(line: &str) {
    // At once: lines of several processes come to one journal.
    match std::io::stderr().write_all(format!("{line}\n").as_bytes()) {
        Ok(()) | Err(_) => {}
    }
}

fn parse_arguments(arguments: &[OsString]) -> Result<RuntimeConfig, SetupError> {
    use lexopt::Arg;
    let usage = |error: lexopt::Error| SetupError::Usage(error.to_string());
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut path: Option<PathBuf> = None;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("config") => path = Some(parser.value().map_err(usage)?.into()),
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(RuntimeConfig::load(path.as_deref())?)
}

impl Supervisor {
    /// Everything before the first request: lock, record, adoption, socket.
    fn open(config: RuntimeConfig) -> Result<Self, SetupError> {
        crate::sys::memfd::ensure_sealed()
            .map_err(crate::files::FileError::io("seal", "the executable"))?;
        let executable = crate::sys::memfd::sealed_self()
            .map_err(crate::files::FileError::io("open", "the executable"))?;
        let server = places::server_place(&config)?;
        let places = Places::prepare(&config, server)?;
        let lock = setup::lock(&places, &config.instance)?;
        setup::raise_descriptor_limit()?;
        let fresh = crate::files::names(&places.people)?.is_empty();
        let people = People::load(&places.state, &config, fresh)?;
        let said = |error: crate::cgroup::Error| SetupError::Scope(scope::chain(&error));
        let hierarchy = Hierarchy::detect().map_err(said)?;
        let scope_path = scope::ensure(&config, &hierarchy, executable.as_fd())?;
        let scope = Scope::open(&hierarchy, &scope_path).map_err(said)?;
        let listener = setup::listen(&places, server)?;
        let mut supervisor = Self {
            boot_id: process::boot_id()?,
            server_uid: server.uid,
            config,
            places,
            people,
            scope_path,
            scope,
            executable,
            listener,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            totals: BTreeSet::new(),
            bounded: BTreeSet::new(),
            disks: Disks::default(),
            sweeps: BTreeMap::new(),
            unpacks: VecDeque::new(),
            leavers: Vec::new(),
            last_addresses: BTreeMap::new(),
            next_number: 1,
            rules: Changes::listen().ok(),
            rates: Rates::default(),
            together: Vec::new(),
            _lock: lock,
        };
        // Before the totals within it: v1 has no quota above that of the cgroup above.
        supervisor.hold_reserve();
        supervisor.recover()?;
        setup::notify_ready()?;
        Ok(supervisor)
    }

    fn run(mut self) -> ! {
        loop {
            let asked_at = Instant::now();
            for source in self.wait() {
                match source {
                    Source::Listener => self.admit(),
                    Source::Connection(token) => self.receive(token),
                    Source::Report(container) => self.report(&container),
                    Source::Monitor(container) => self.monitor_ended(&container),
                    Source::ExecReport(container, exec) => self.exec_report(&container, exec),
                    Source::ExecMonitor(container, exec) => {
                        self.exec_monitor_ended(&container, exec);
                    }
                    Source::Task(number) => self.task_ended(number),
                    Source::Rules => self.rules_changed(),
                    Source::Leaver(index) => self.worker_left(index),
                }
            }
            self.expire(asked_at);
        }
    }

    fn wait(&self) -> Vec<Source> {
        let sources = self.sources();
        let mut polled: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, self.poll_timeout()) {
            Ok(_) => {}
            // Interrupted, or the kernel lacks memory for a moment: look again.
            Err(_) => return Vec::new(),
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let ready = sources.iter().zip(&polled).filter(|(_, fd)| ready(fd));
        // From the last: a leaver that goes moves those behind it.
        ready.rev().map(|((source, _), _)| source.clone()).collect()
    }

    fn sources(&self) -> Vec<(Source, BorrowedFd<'_>)> {
        let mut sources = Vec::new();
        if self.connections.len() < CONNECTIONS_MAX {
            sources.push((Source::Listener, self.listener.as_fd()));
        }
        for (token, connection) in &self.connections {
            sources.push((Source::Connection(*token), connection.socket()));
        }
        for (container, entry) in &self.containers {
            for (number, exec) in &entry.execs {
                let named =
                    |source: fn(ContainerId, ExecId) -> Source| source(container.clone(), *number);
                if let Some(channel) = &exec.channel {
                    sources.push((named(Source::ExecReport), channel.as_fd()));
                }
                sources.push((named(Source::ExecMonitor), exec.monitor.as_fd()));
            }
            let Some(monitor) = &entry.monitor else { continue };
            if let Some(report) = &monitor.report {
                sources.push((Source::Report(container.clone()), report.as_fd()));
            }
            sources.push((Source::Monitor(container.clone()), monitor.pidfd.as_fd()));
        }
        for (number, task) in &self.tasks {
            sources.push((Source::Task(*number), task.pidfd()));
        }
        sources.extend(self.rules.as_ref().map(|rules| (Source::Rules, rules.as_fd())));
        for (index, leaver) in self.leavers.iter().enumerate() {
            sources.push((Source::Leaver(index), leaver.pidfd.as_fd()));
        }
        sources
    }

    fn poll_timeout(&self) -> PollTimeout {
        let requests = self.connections.values().filter_map(|connection| connection.deadline);
        let containers = self.containers.values().filter_map(Entry::deadline);
        let execs = self.containers.values().filter_map(Entry::exec_deadline);
        let undos = self.containers.values().filter_map(Entry::undo_time);
        let undos = undos.filter(|_| self.may_undo());
        let Some(next) = requests.chain(containers).chain(execs).chain(undos).min() else {
            return PollTimeout::NONE;
        };
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn admit(&mut self) {
        if let Some(connection) = Connection::accept(self.listener.as_fd(), self.server_uid) {
            let token = self.number();
            self.connections.insert(token, connection);
        }
    }

    fn receive(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match connection.receive() {
            Received::Nothing => {}
            Received::HungUp => {
                self.connections.remove(&token);
                self.cancel(token);
            }
            Received::Refused(failure) => self.answer(token, failure),
            Received::Request(request, fds) => {
                if let Some(reply) = self.dispatch(token, *request, fds) {
                    self.answer(token, reply);
                }
            }
        }
    }

    /// Answers a connection and closes it; one that has hung up is passed over.
    fn answer(&mut self, token: Token, reply: impl Into<Reply>) {
        if let Some(connection) = self.connections.remove(&token) {
            connection.send(reply.into());
        }
    }

    /// Hangs up on whoever had not sent a request in time when the kernel was last asked: one that came
    /// while something else took long has been read by then.
    fn expire(&mut self, asked_at: Instant) {
        self.connections
            .retain(|_, connection| connection.deadline.is_none_or(|deadline| deadline > asked_at));
        let now = Instant::now();
        self.expire_containers(now);
        self.expire_execs(now);
    }

    /// The next number; connections and tasks share the count.
    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}
