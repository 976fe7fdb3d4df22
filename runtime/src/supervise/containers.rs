//! The containers in the supervisor's memory, and the steps of their lives. Everything here returns at
//! once: monitors build and tasks undo.
//!
//! A container has at most one monitor and at most one task. A request that has to wait for either
//! is queued at the container and dispatched again when that is done.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use berth_runtime::id::{ContainerId, ExecId, PrincipalId};
use berth_runtime::receive_message;
use berth_runtime::record::{
    ContainerRecord, ExitCause, ExitRecord, Failure, FailureClass, Live, Status,
};
use berth_runtime::wire::{Answer, Limits, NetworkMode, PortLease, Request, StartRequest};

use super::connection::{Reply, Token};
use super::execs::Exec;
use super::tasks::{Purpose, Task};
use super::{Supervisor, say, setup, validate};
use crate::files::FileError;
use crate::ledger::{self, Confinement, LiveRecord, NetworkPlace, StartRecord};
use crate::monitor::{Job, Report, SOCKET};
use crate::network::{self, Network};
use crate::people::Person;
use crate::process::{self, ProcessKey};
use crate::profile::{self, ProfileHost};
use crate::sys::lock::try_lock;
use crate::sys::{socket, spawn};
use crate::timing;
use crate::undo::remove_tree;

/// How long a monitor may build.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two tries to undo.
const UNDO_PAUSE: Duration = Duration::from_secs(5);
/// Requests that wait at one container at most.
const QUEUE_MAX: usize = 16;
/// The lock that a monitor holds as long as it lives.
pub(super) const LOCK: &str = "lock";

/// One container that the supervisor holds anything of.
pub(super) struct Entry {
    /// Whose.
    pub(super) person: PrincipalId,
    /// The newest start.
    pub(super) start: Option<StartRecord>,
    /// The monitor of the run that goes on.
    pub(super) monitor: Option<Monitor>,
    /// The task under way.
    pub(super) task: Option<u64>,
    /// What is to be undone when no task is under way.
    pub(super) undo: Option<Undo>,
    /// Limits that the task under way sets.
    pub(super) asked: Option<Limits>,
    /// The programs beside the first one.
    pub(super) execs: BTreeMap<ExecId, Exec>,
    queue: VecDeque<(Token, Request)>,
}

/// A living monitor.
pub(super) struct Monitor {
    /// Polls readable at its end.
    pub(super) pidfd: OwnedFd,
    /// Where its report comes from, until it has come.
    pub(super) report: Option<OwnedFd>,
    /// Who waits for the report, and until when.
    waiter: Option<Token>,
    deadline: Option<Instant>,
    /// Why the start failed.
    failure: Option<Failure>,
    /// The running program: its record and its first process.
    pub(super) running: Option<(Live, OwnedFd)>,
    /// Whether it is frozen.
    pub(super) paused: bool,
}

/// The end of a run that has not been cleared away.
pub(super) struct Undo {
    /// What to write down when the monitor has not.
    cause: ExitCause,
    failure: Option<Failure>,
    waiter: Option<Token>,
    not_before: Instant,
}

impl Entry {
    pub(super) fn new(person: PrincipalId, start: Option<StartRecord>) -> Self {
        let (execs, queue) = (BTreeMap::new(), VecDeque::new());
        let (monitor, task, undo, asked) = (None, None, None, None);
        Self { person, start, monitor, task, undo, asked, execs, queue }
    }

    /// When the start under way is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.monitor.as_ref().and_then(|monitor| monitor.deadline)
    }

    /// When what is to be undone may be.
    pub(super) fn undo_time(&self) -> Option<Instant> {
        self.undo.as_ref().filter(|_| self.task.is_none()).map(|undo| undo.not_before)
    }

    /// What waits here.
    pub(super) fn into_queue(self) -> VecDeque<(Token, Request)> {
        self.queue
    }

    /// Whether a request that changes something has to wait: for a task, for a monitor that builds, or
    /// for one whose container has ended and that is about to go, as are those of its execs.
    pub(super) fn is_busy(&self) -> bool {
        let passing =
            |monitor: &Monitor| monitor.running.as_ref().is_none_or(|(_, init)| has_ended(init));
        let leaving = self.monitor.is_none() && !self.execs.is_empty();
        let passes = self.monitor.as_ref().is_some_and(passing);
        self.task.is_some() || self.undo.is_some() || leaving || passes
    }

    /// Whether a run goes on or is being undone.
    pub(super) fn is_active(&self) -> bool {
        self.monitor.is_some() || self.undo.is_some()
    }

    /// The running program, unless its run is being undone.
    pub(super) fn running(&self) -> Option<&(Live, OwnedFd)> {
        self.monitor.as_ref()?.running.as_ref()
    }

    pub(super) fn run(&self) -> u64 {
        self.start.as_ref().map_or(0, |start| start.run)
    }
}

impl Monitor {
    /// A monitor that was found alive: of this supervisor's predecessor.
    pub(super) fn adopted(pidfd: OwnedFd, running: Option<(Live, OwnedFd)>) -> Self {
        let deadline = running.is_none().then(|| Instant::now() + START_LIMIT);
        Self { pidfd, report: None, waiter: None, deadline, failure: None, running, paused: false }
    }
}

pub(super) fn failure(class: FailureClass, code: &str, message: impl Into<String>) -> Failure {
    Failure::new(class, code, message)
}

/// A step of the host's own that failed.
pub(super) fn broken(error: &FileError) -> Failure {
    if error.is_full() {
        return crate::failure::disk_full(error);
    }
    failure(FailureClass::Broken, "supervisor.file", error.to_string())
}

pub(super) fn unknown(container: &ContainerId) -> Failure {
    let message = format!("container {} is not known", container.short());
    failure(FailureClass::NotFound, "container.unknown", message)
}

pub(super) fn not_running(container: &ContainerId) -> Failure {
    let message = format!("container {} is not running", container.short());
    failure(FailureClass::Conflict, "container.not-running", message)
}

impl Supervisor {
    /// Starts a container's monitor; the answer comes with its report. `None`: later.
    pub(super) fn start(&mut self, token: Token, request: StartRequest) -> Option<Reply> {
        match self.begin(token, request) {
            Ok(()) => None,
            Err(failure) => Some(failure.into()),
        }
    }

    fn begin(&mut self, token: Token, request: StartRequest) -> Result<(), Failure> {
        timing::begin(self.config.timing, "supervisor", request.container.short());
        validate::start(&request, &self.config)?;
        let person = self.people.get(request.person).ok_or_else(|| {
            let message = format!("person {} is not known to the supervisor", request.person);
            failure(FailureClass::NotFound, "person.unknown", message)
        })?;
        self.data_fault(person.person)?;
        self.check_history(&request)?;
        for blob in &request.layers {
            if !self.places.has_layer(blob) {
                let message = format!("layer {blob} is not unpacked here");
                return Err(failure(FailureClass::NotFound, "layer.unknown", message));
            }
        }
        let volume_owners = self.check_volumes(&request)?;
        let cgroup_v2 = self.scope_is_v2();
        // Only to refuse what is wrong before a process is made for it.
        let host = ProfileHost { first_id: person.first_id, cgroup_v2, apparmor: false };
        profile::spec(&request, &host)?;
        let start = self.start_record(&person, &request)?;
        timing::done("check the request");
        let container = request.container.clone();
        let lock = self
            .begin_run(&person, &container, &start)
            .inspect_err(|failure| self.abandon(&container, failure))?;
        let job = Job {
            config: self.config.clone(),
            boot_id: self.boot_id.clone(),
            person,
            volume_owners,
            layer_first: self.people.layer_first(),
            scope: self.scope_path.clone(),
            place: start.place.clone(),
            start: request,
        };
        let spawned = self.spawn_monitor(token, &job, &lock);
        let fresh = || Entry::new(person.person, None);
        let entry = self.containers.entry(container.clone()).or_insert_with(fresh);
        entry.start = Some(start);
        match spawned {
            Ok(monitor) => entry.monitor = Some(monitor),
            // The run is written down: its end is to be, too.
            Err(failure) => {
                entry.undo = Some(Undo {
                    cause: ExitCause::StartFailed,
                    failure: Some(failure),
                    waiter: Some(token),
                    not_before: Instant::now(),
                });
                self.undo(&container);
            }
        }
        Ok(())
    }

    /// What is to be written down of a start.
    fn start_record(
        &mut self,
        person: &Person,
        request: &StartRequest,
    ) -> Result<StartRecord, Failure> {
        let mut start = StartRecord {
            version: ledger::VERSION,
            boot_id: self.boot_id.clone(),
            person: person.person,
            group: person.group,
            run: request.run,
            layers: request.layers.clone(),
            volumes: Vec::new(),
            foreign_volumes: Vec::new(),
            limits: request.limits,
            stop: request.stop,
            place: self.choose_place(person, request)?,
            confinement: Some(Confinement {
                hostname: request.hostname.clone(),
                capabilities_dropped: request.process.capabilities_dropped.clone(),
                ulimits: request.process.ulimits.clone(),
            }),
        };
        start.note_volumes(&request.volumes);
        Ok(start)
    }

    /// Makes the run's directory and takes its lock, and writes down that it begins.
    fn begin_run(
        &self,
        person: &Person,
        container: &ContainerId,
        start: &StartRecord,
    ) -> Result<OwnedFd, Failure> {
        let file = |error: FileError| broken(&error);
        let (record, run) = self.places.make_records(person, container).map_err(file)?;
        let lock = setup::open_lock(&run, LOCK).map_err(file)?;
        if !try_lock(&lock).map_err(FileError::os("lock", "the run directory")).map_err(file)? {
            let message = "a monitor of this container still runs";
            return Err(failure(FailureClass::Conflict, "container.running", message));
        }
        ledger::reserve_end(&record, person.monitor_uid)
            .and_then(|()| start.write(&record))
            .map_err(|error| broken(&error.below("state")))?;
        timing::done("records");
        Ok(lock)
    }

    /// Takes away what a run has that could not be written down, unless it is somebody else's.
    fn abandon(&self, container: &ContainerId, failure: &Failure) {
        if failure.class == FailureClass::Conflict {
            return;
        }
        if let Err(error) = remove_tree(&self.places.runs, container.as_str()) {
            say(&format!("container {container}: {}", crate::scope::chain(&error)));
        }
    }

    /// A container is one person's for ever, and its runs are numbered upwards.
    fn check_history(&self, request: &StartRequest) -> Result<(), Failure> {
        let Some(entry) = self.containers.get(&request.container) else { return Ok(()) };
        if entry.person != request.person {
            let message = format!("container {} is another person's", request.container.short());
            return Err(failure(FailureClass::Denied, "container.foreign", message));
        }
        if entry.monitor.is_some() {
            let message = format!("container {} is running", request.container.short());
            return Err(failure(FailureClass::Conflict, "container.running", message));
        }
        if request.run <= entry.run() {
            let message = format!("run {} is over; the next has a higher number", entry.run());
            return Err(failure(FailureClass::Conflict, "container.run", message));
        }
        Ok(())
    }

    /// An address on the person's bridge that no run of theirs has, or has left behind.
    fn choose_place(
        &mut self,
        person: &Person,
        request: &StartRequest,
    ) -> Result<Option<NetworkPlace>, Failure> {
        if request.network == NetworkMode::None {
            return Ok(None);
        }
        self.check_ports(request)?;
        let pool = Network::new(&self.config)?.pool();
        let subnet = self.people.subnet(person.person, pool)?;
        let held: Vec<Ipv4Addr> = self
            .containers
            .values()
            .filter(|entry| entry.person == person.person && entry.is_active())
            .filter_map(|entry| Some(entry.start.as_ref()?.place.as_ref()?.address))
            .collect();
        let last = self.last_addresses.get(&person.person).copied();
        let address = network::choose_address(subnet, &held, last)?;
        self.last_addresses.insert(person.person, address);
        let (network, prefix) = (subnet.network(), subnet.prefix());
        let ports = request.ports.clone();
        Ok(Some(NetworkPlace { slot: person.number, network, prefix, address, ports }))
    }

    /// A port of the host leads to one container; to this one's run before, perhaps, which is being undone.
    fn check_ports(&self, request: &StartRequest) -> Result<(), Failure> {
        let wanted = &request.ports;
        let others = self.containers.iter().filter(|(id, _)| **id != request.container);
        let active = others.map(|(_, entry)| entry).filter(|entry| entry.is_active());
        let places = active.filter_map(|entry| entry.start.as_ref()?.place.as_ref());
        for held in places.flat_map(|place| &place.ports) {
            let same =
                |lease: &&PortLease| (lease.protocol, lease.host) == (held.protocol, held.host);
            if let Some(lease) = wanted.iter().find(same) {
                let (port, protocol) = (lease.host, lease.protocol.as_str());
                let message =
                    format!("port {port}/{protocol} of the host leads to another container");
                return Err(failure(FailureClass::Conflict, "port.held", message));
            }
        }
        Ok(())
    }

    fn spawn_monitor(
        &mut self,
        token: Token,
        job: &Job,
        lock: &OwnedFd,
    ) -> Result<Monitor, Failure> {
        let file = |error: FileError| broken(&error);
        let person = &job.person;
        let monitors = self.scope.monitors(person.group, person.person)?;
        monitors.create()?;
        self.hold_totals(person)?;
        if job.place.is_some() {
            self.hold_rates_for(person)?;
        }
        let cgroup = monitors.entry()?;
        let (ours, theirs) = socket::pair()
            .map_err(FileError::os("make a channel for", "the monitor"))
            .map_err(file)?;
        let arguments = [c"berth-runtime", c"monitor"];
        let spawned = spawn::spawn(self.executable.as_fd(), &arguments, theirs.as_fd(), &cgroup)
            .map_err(FileError::os("start", "the monitor"))
            .map_err(file)?;
        timing::done("start the monitor");
        let handed = super::tasks::hand_over(&ours, job, &[lock.as_fd()]).map_err(file);
        timing::done("give it its job");
        // The lock is the open file's, which the monitor has open from here on. Without a job it ends
        // as soon as our end of the channel is closed.
        let (report, failure) = match handed {
            Ok(()) => (Some(ours), None),
            Err(failure) => (None, Some(failure)),
        };
        Ok(Monitor {
            pidfd: spawned.pidfd,
            report,
            waiter: Some(token),
            deadline: Some(Instant::now() + START_LIMIT),
            failure,
            running: None,
            paused: false,
        })
    }

    /// The monitor's report has come, or will never come.
    pub(super) fn report(&mut self, container: &ContainerId) {
        let monitor = self.containers.get(container).and_then(|entry| entry.monitor.as_ref());
        let lives = monitor.is_some_and(|monitor| !has_ended(&monitor.pidfd));
        if self.take_report(container) || !lives {
            return;
        }
        // It could not be sent: the record tells whether the program runs.
        self.refresh(container);
        let Some(entry) = self.containers.get_mut(container) else { return };
        let Some(monitor) = entry.monitor.as_mut().filter(|monitor| monitor.running.is_some())
        else {
            return;
        };
        let waiter = monitor.waiter.take();
        self.started(container, waiter);
    }

    /// Takes the monitor's report, if it has come; false when none will ever come.
    fn take_report(&mut self, container: &ContainerId) -> bool {
        let Some(entry) = self.containers.get_mut(container) else { return true };
        let Some(monitor) = entry.monitor.as_mut() else { return true };
        let Some(channel) = monitor.report.take() else { return true };
        // Not even a process that has ended has its end closed for certain: a child may hold it yet.
        let message = match receive_message(&channel) {
            Ok((bytes, _)) => bytes,
            Err(Errno::EAGAIN | Errno::EINTR) => {
                monitor.report = Some(channel);
                return true;
            }
            Err(_) => Vec::new(),
        };
        match serde_json::from_slice(&message) {
            Ok(Report::Started { live }) => {
                let key = ProcessKey {
                    pid: live.pid,
                    start_ticks: live.start_ticks,
                    boot_id: self.boot_id.clone(),
                };
                // A program that has ended already is the monitor's to tell of; its run has begun.
                if let Some(init) = key.open(&self.boot_id) {
                    monitor.running = Some((*live, init));
                }
                monitor.deadline = None;
                let waiter = monitor.waiter.take();
                self.started(container, waiter);
            }
            Ok(Report::Failed { failure }) => monitor.failure = Some(failure),
            Err(_) => return false,
        }
        true
    }

    fn started(&mut self, container: &ContainerId, waiter: Option<Token>) {
        if let Some(token) = waiter {
            let reply = match self.record(container) {
                Ok(record) => {
                    let fds = self.connect_monitor(container).into_iter().collect();
                    Reply { answer: Answer::Started(Box::new(record)), fds }
                }
                Err(failure) => failure.into(),
            };
            self.answer(token, reply);
        }
        self.next_in_queue(container);
    }

    /// A connection to the monitor, for a watcher.
    pub(super) fn connect_monitor(&self, container: &ContainerId) -> Option<OwnedFd> {
        let run = self.places.live(container).ok()?;
        socket::connect_in(run.as_fd(), SOCKET).ok()
    }

    /// The monitor is gone: the run is over, and what is left of it is to be undone.
    pub(super) fn monitor_ended(&mut self, container: &ContainerId) {
        self.take_report(container);
        let Some(entry) = self.containers.get_mut(container) else { return };
        let Some(monitor) = entry.monitor.take() else { return };
        // Not ours when it was adopted; then the host's first process has waited for it.
        process::reap(&monitor.pidfd);
        let begun = monitor.running.is_some() || monitor.deadline.is_none();
        entry.undo = Some(Undo {
            cause: if begun { ExitCause::MonitorLost } else { ExitCause::StartFailed },
            failure: monitor.failure,
            waiter: monitor.waiter,
            not_before: Instant::now(),
        });
        self.undo(container);
    }

    /// Notes that the newest run of `container` has to be undone.
    pub(super) fn plan_undo(&mut self, container: &ContainerId, cause: ExitCause) {
        if let Some(entry) = self.containers.get_mut(container) {
            let not_before = Instant::now();
            entry.undo = Some(Undo { cause, failure: None, waiter: None, not_before });
            self.undo(container);
        }
    }

    /// Begins the undoing, unless another task of the container is under way.
    pub(super) fn undo(&mut self, container: &ContainerId) {
        if !self.may_undo() {
            return;
        }
        let Some(entry) = self.containers.get(container) else { return };
        let Some(undo) = entry.undo.as_ref().filter(|_| entry.task.is_none()) else { return };
        let Some(person) = self.people.get(entry.person) else { return };
        let memory = entry.start.as_ref().map_or(0, |start| start.limits.memory_bytes);
        let lost = lost(entry.run(), memory, undo.cause, undo.failure.clone());
        let group = entry.start.as_ref().map_or(person.group, |start| start.group);
        let place = entry.start.as_ref().and_then(|start| start.place.clone());
        let person = Person { group, ..person };
        let task = Task::Undo { person, container: container.clone(), place, lost };
        let result = self.begin_task(task, Purpose::Undo(container.clone()));
        self.note_task(container, result);
    }

    /// Notes a container's task, or that it could not be begun.
    pub(super) fn note_task(&mut self, container: &ContainerId, begun: Result<u64, Failure>) {
        let Some(entry) = self.containers.get_mut(container) else { return };
        match begun {
            Ok(number) => entry.task = Some(number),
            Err(failure) => {
                say(&format!("container {container}: {failure}"));
                if let Some(undo) = entry.undo.as_mut() {
                    undo.not_before = Instant::now() + UNDO_PAUSE;
                }
            }
        }
    }

    /// The undoing has ended.
    pub(super) fn undone(&mut self, container: &ContainerId, answer: Answer) {
        let Some(entry) = self.containers.get_mut(container) else { return };
        entry.task = None;
        if let Answer::Failed(failure) = answer {
            say(&format!("container {container}: undo: {failure}"));
            if let Some(undo) = entry.undo.as_mut() {
                undo.not_before = Instant::now() + UNDO_PAUSE;
            }
            return;
        }
        let undo = entry.undo.take();
        self.prune(container);
        if let Some(Undo { waiter: Some(token), failure: said, .. }) = undo {
            let reply = said.unwrap_or_else(|| {
                let message = "the container's monitor ended before the program ran";
                failure(FailureClass::Broken, "container.monitor", message)
            });
            self.answer(token, reply);
        }
        self.next_in_queue(container);
    }

    /// Removes a person's cgroups with their last run. Here and not in the task: nothing else of this
    /// process makes them meanwhile.
    pub(super) fn prune(&mut self, container: &ContainerId) {
        let Some(entry) = self.containers.get(container) else { return };
        let theirs = |other: &&Entry| other.person == entry.person && other.is_active();
        if self.containers.values().any(|other| theirs(&other)) {
            return;
        }
        let Some(start) = &entry.start else { return };
        let (group, person) = (start.group, entry.person);
        self.prune_person(group, person);
    }

    /// Looks after what has waited too long.
    pub(super) fn expire_containers(&mut self, now: Instant) {
        let late = |entry: &Entry| entry.deadline().is_some_and(|deadline| deadline <= now);
        let undo = |entry: &Entry| entry.undo_time().is_some_and(|time| time <= now);
        let room = self.may_undo();
        let due: Vec<ContainerId> = self
            .containers
            .iter()
            .filter(|(_, entry)| late(entry) || (room && undo(entry)))
            .map(|(container, _)| container.clone())
            .collect();
        for container in due {
            self.look_again(&container);
        }
    }

    fn look_again(&mut self, container: &ContainerId) {
        self.refresh(container);
        let Some(entry) = self.containers.get_mut(container) else { return };
        match entry.monitor.as_mut() {
            Some(monitor) if monitor.running.is_none() && monitor.deadline.is_some() => {
                let message = format!("the container was not built within {START_LIMIT:?}");
                let late = failure(FailureClass::Unavailable, "container.timeout", message);
                monitor.failure.get_or_insert(late);
                monitor.deadline = Some(Instant::now() + START_LIMIT);
                if let Err(errno) =
                    crate::sys::process::pidfd_send_signal(&monitor.pidfd, libc::SIGKILL)
                {
                    say(&format!("container {container}: kill its late monitor: {errno}"));
                }
            }
            Some(_) => {}
            None => self.undo(container),
        }
    }

    /// An adopted monitor that was still building reports by its record only.
    pub(super) fn refresh(&mut self, container: &ContainerId) {
        let Some(entry) = self.containers.get_mut(container) else { return };
        let Some(monitor) = entry.monitor.as_mut() else { return };
        if monitor.running.is_some() || monitor.report.is_some() {
            return;
        }
        let record = self.places.live(container).and_then(LiveRecord::read);
        let Ok(Some(LiveRecord { live: Some(live), .. })) = record else { return };
        let key = ProcessKey {
            pid: live.pid,
            start_ticks: live.start_ticks,
            boot_id: self.boot_id.clone(),
        };
        if let Some(init) = key.open(&self.boot_id) {
            monitor.running = Some((live, init));
        }
        monitor.deadline = None;
        self.next_in_queue(container);
    }

    /// Puts a request off until the container is free.
    pub(super) fn queue(
        &mut self,
        token: Token,
        container: &ContainerId,
        request: Request,
    ) -> Option<Reply> {
        let entry = self.containers.get_mut(container)?;
        if entry.queue.len() >= QUEUE_MAX {
            let message = format!("too many requests wait at container {}", container.short());
            return Some(failure(FailureClass::Unavailable, "container.busy", message).into());
        }
        entry.queue.push_back((token, request));
        None
    }

    /// Dispatches what waits at a container that has become free.
    pub(super) fn next_in_queue(&mut self, container: &ContainerId) {
        loop {
            let Some(entry) = self.containers.get_mut(container) else { return };
            if entry.is_busy() {
                return;
            }
            let Some((token, request)) = entry.queue.pop_front() else { return };
            if self.connections.contains_key(&token)
                && let Some(reply) = self.dispatch(token, request, Vec::new())
            {
                self.answer(token, reply);
            }
        }
    }

    /// What record and kernel show of a container.
    pub(super) fn record(&self, container: &ContainerId) -> Result<ContainerRecord, Failure> {
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        let run = entry.run();
        let mut live =
            entry.running().filter(|_| entry.undo.is_none()).map(|(live, _)| live.clone());
        let ended = entry.running().is_none_or(|(_, init)| has_ended(init));
        // The exit record is there before the monitor goes, and is the truth as soon as it is there.
        let exit = if ended { self.read_exit(container, run) } else { None };
        if exit.is_some() {
            live = None;
        }
        if let (Some(live), Ok(cgroup)) = (live.as_mut(), self.cgroup_of(container, entry)) {
            live.oom_kills = cgroup.oom_kills().unwrap_or(live.oom_kills);
        }
        let monitor = entry.monitor.as_ref();
        let status = match (&live, monitor) {
            (Some(_), Some(monitor)) if monitor.paused => Status::Paused,
            (Some(_), _) => Status::Running,
            // Coming up, or going down without a record so far: neither runs nor has ended.
            (None, _) if exit.is_none() && entry.is_active() => Status::Creating,
            _ => Status::Stopped,
        };
        Ok(ContainerRecord {
            container: container.clone(),
            person: entry.person,
            run,
            status,
            live,
            exit,
        })
    }

    pub(super) fn read_exit(&self, container: &ContainerId, run: u64) -> Option<ExitRecord> {
        let record = self.places.record(container).ok()?;
        match ledger::read_exit(record) {
            Ok(exit) => exit.filter(|exit| exit.run == run && run > 0),
            Err(error) => {
                say(&format!("container {container}: {error}"));
                None
            }
        }
    }

    /// The container's cgroup, made or not.
    pub(super) fn cgroup_of(
        &self,
        container: &ContainerId,
        entry: &Entry,
    ) -> Result<crate::cgroup::Cgroup, Failure> {
        let start = entry.start.as_ref().ok_or_else(|| not_running(container))?;
        Ok(self.scope.container(start.group, entry.person, container)?)
    }

    fn scope_is_v2(&self) -> bool {
        self.scope
            .holder()
            .is_ok_and(|holder| holder.paths().version == berth_runtime::record::CgroupVersion::V2)
    }
}

/// The record of a run whose monitor has left none.
pub(super) fn lost(
    run: u64,
    memory_bytes_max: u64,
    cause: ExitCause,
    failure: Option<Failure>,
) -> ExitRecord {
    ExitRecord {
        run,
        code: None,
        signal: None,
        cause,
        oom_kills: 0,
        memory_bytes_max,
        started_ms: 0,
        ended_ms: process::now_ms(),
        log_bytes_lost: 0,
        failure,
    }
}

/// Whether the process behind a pidfd has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(count) if count > 0)
}
