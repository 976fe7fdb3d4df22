//! Execs: later programs of running containers. Each has a monitor of its own, which is the parent of
//! the program and outlives this process; a record on tmpfs says who both are.
//!
//! An exec ends when its program does, when its container does, when whoever asked for it hangs up,
//! and when its monitor is killed. In the last two cases what the program's session holds is ended by
//! a task; what a program has put into a session of its own is the container's from then on.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use berth_runtime::id::{ContainerId, ExecId};
use berth_runtime::receive_message;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{
    Answer, EXECS_PER_CONTAINER_MAX, EXECS_PER_PERSON_MAX, ExecRequest, ProcessSpec,
};

use super::connection::{Reply, Token};
use super::containers::{Entry, broken, failure, not_running, unknown};
use super::tasks::{Purpose, Task, hand_over};
use super::{Supervisor, say, validate};
use crate::files::{self, FileError};
use crate::ledger::{Confinement, ExecRecord};
use crate::monitor::{ExecJob, ExecReport};
use crate::people::Person;
use crate::process::{self, ProcessKey};
use crate::profile::{self, ProfileHost};
use crate::sys::process::pidfd_send_signal;
use crate::sys::{socket, spawn};

/// How long a program may take to be there.
const EXEC_LIMIT: Duration = Duration::from_secs(10);

/// An exec that goes on.
pub(super) struct Exec {
    /// Its monitor; polls readable at its end.
    pub(super) monitor: OwnedFd,
    /// What its monitor says; none from a predecessor's.
    pub(super) channel: Option<OwnedFd>,
    waiter: Option<Token>,
    /// Until when its program has to be there.
    pub(super) deadline: Option<Instant>,
    program: Option<ProcessKey>,
    /// Why there is none.
    failure: Option<Failure>,
}

impl Supervisor {
    /// Starts an exec's monitor; the answer comes with its report.
    pub(super) fn exec(&mut self, token: Token, request: ExecRequest) -> Option<Reply> {
        let (container, number) = (request.container.clone(), request.exec);
        match self.begin_exec(token, request) {
            Ok(exec) => {
                if let Some(entry) = self.containers.get_mut(&container) {
                    entry.execs.insert(number, exec);
                }
                None
            }
            Err(failure) => Some(failure.into()),
        }
    }

    fn begin_exec(&self, token: Token, request: ExecRequest) -> Result<Exec, Failure> {
        validate::exec(&request)?;
        let (person, init, confinement) = self.exec_place(&request)?;
        let ExecRequest { container, exec, args, env, cwd, user, terminal, .. } = request;
        let Confinement { hostname, capabilities_dropped, ulimits } = confinement;
        let process = ProcessSpec { args, env, cwd, user, capabilities_dropped, ulimits };
        // Only to refuse what is wrong before a process is made for it.
        let host = ProfileHost { first_id: person.first_id, cgroup_v2: false, apparmor: false };
        profile::exec_spec(&process, &hostname, &host)?;
        let file = |error: FileError| broken(&error);
        let records = self.places.make_execs(&container).map_err(file)?;
        let monitors = self.scope.monitors(person.group, person.person)?;
        let cgroup = monitors.entry()?;
        let (ours, theirs) = socket::pair()
            .map_err(FileError::os("make a channel for", "an exec's monitor"))
            .map_err(file)?;
        let arguments = [c"berth-runtime", c"monitor-exec"];
        let spawned = spawn::spawn(self.executable.as_fd(), &arguments, theirs.as_fd(), &cgroup)
            .map_err(FileError::os("start", "an exec's monitor"))
            .map_err(file)?;
        let pid = spawned.pid.as_raw();
        let job = ExecJob {
            config: self.config.clone(),
            boot_id: self.boot_id.clone(),
            person,
            scope: self.scope_path.clone(),
            container,
            exec,
            process,
            hostname,
            terminal,
        };
        let recorded = process::start_ticks(pid).map_err(file).and_then(|start_ticks| {
            let monitor = ProcessKey { pid, start_ticks, boot_id: self.boot_id.clone() };
            ExecRecord { monitor, process: None }.write(&records, exec).map_err(file)
        });
        let fds = [init.as_fd(), records.as_fd()];
        let handed = recorded.and_then(|()| hand_over(&ours, &job, &fds).map_err(file));
        // Without a job it ends as soon as our end of the channel is closed, and is reaped then.
        let (channel, failure) = match handed {
            Ok(()) => (Some(ours), None),
            Err(failure) => (None, Some(failure)),
        };
        Ok(Exec {
            monitor: spawned.pidfd,
            channel,
            waiter: Some(token),
            deadline: Some(Instant::now() + EXEC_LIMIT),
            program: None,
            failure,
        })
    }

    /// Whether there is room for another program, and what it is held to.
    fn exec_place(
        &self,
        request: &ExecRequest,
    ) -> Result<(Person, &OwnedFd, Confinement), Failure> {
        let container = &request.container;
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        if entry.person != request.person {
            let message = format!("container {} is another person's", container.short());
            return Err(failure(FailureClass::Denied, "container.foreign", message));
        }
        let (_, init) = entry.running().ok_or_else(|| not_running(container))?;
        if entry.monitor.as_ref().is_some_and(|monitor| monitor.paused) {
            let message = format!("container {} is paused; resume it first", container.short());
            return Err(failure(FailureClass::Conflict, "container.paused", message));
        }
        let confinement = entry.start.as_ref().and_then(|start| start.confinement.clone());
        let confinement = confinement.ok_or_else(|| {
            let message = "it was started by an older version; restart the container first";
            failure(FailureClass::Conflict, "exec.older-start", message)
        })?;
        if entry.execs.contains_key(&request.exec) {
            let message = format!("exec {} goes on", request.exec);
            return Err(failure(FailureClass::Conflict, "exec.number", message));
        }
        let theirs = self.containers.values().filter(|other| other.person == entry.person);
        let of_person: usize = theirs.map(|other| other.execs.len()).sum();
        let full = |most: usize, place: &str| {
            let message = format!("{most} programs run beside the first one {place}, the most");
            Err(failure(FailureClass::Exhausted, "exec.too-many", message))
        };
        if entry.execs.len() >= EXECS_PER_CONTAINER_MAX {
            return full(EXECS_PER_CONTAINER_MAX, "in this container");
        }
        if of_person >= EXECS_PER_PERSON_MAX {
            return full(EXECS_PER_PERSON_MAX, "in this person's containers");
        }
        let person = self.person_of(entry).ok_or_else(|| unknown(container))?;
        Ok((person, init, confinement))
    }

    /// Signals an exec's program.
    pub(super) fn exec_signal(
        &self,
        container: &ContainerId,
        exec: ExecId,
        signal: i32,
    ) -> Result<Reply, Failure> {
        validate::signal(signal)?;
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        let ended = || {
            let message = format!("exec {exec} has ended");
            failure(FailureClass::Conflict, "exec.ended", message)
        };
        let program = entry.execs.get(&exec).and_then(|exec| exec.program.as_ref());
        let program = program.and_then(|key| key.open(&self.boot_id)).ok_or_else(ended)?;
        match pidfd_send_signal(&program, signal) {
            Ok(()) => Ok(Answer::Done {}.into()),
            Err(Errno::ESRCH) => Err(ended()),
            Err(errno) => Err(broken(&FileError::os("signal", "a program")(errno))),
        }
    }

    /// An exec's monitor has said something, or will say nothing more.
    pub(super) fn exec_report(&mut self, container: &ContainerId, number: ExecId) {
        let Some(entry) = self.containers.get_mut(container) else { return };
        let Some(exec) = entry.execs.get_mut(&number) else { return };
        let Some(channel) = &exec.channel else { return };
        let (message, fds) = match receive_message(channel) {
            // Not even a process that has ended has its end closed for certain: its child may hold it.
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            other => other.unwrap_or_default(),
        };
        match serde_json::from_slice(&message) {
            Ok(ExecReport::Started { process }) => {
                exec.program = Some(process);
                exec.deadline = None;
                if let Some(token) = exec.waiter.take() {
                    self.answer(token, Reply { answer: Answer::ExecStarted {}, fds });
                }
            }
            Ok(ExecReport::Failed { failure }) => {
                if let Some(token) = exec.waiter.take() {
                    self.answer(token, failure);
                }
            }
            Ok(ExecReport::Abandoned {}) => self.end_session(container, number),
            // Its end follows.
            Err(_) => exec.channel = None,
        }
    }

    /// An exec's monitor is gone: what is left of its program's session goes, too.
    pub(super) fn exec_monitor_ended(&mut self, container: &ContainerId, number: ExecId) {
        // What it has said last.
        self.exec_report(container, number);
        let Some(entry) = self.containers.get_mut(container) else { return };
        let Some(mut exec) = entry.execs.remove(&number) else { return };
        // Not ours when it was adopted; then the host's first process has waited for it.
        process::reap(&exec.monitor);
        if let Some(token) = exec.waiter.take() {
            let ended = || {
                let message = "the program's monitor ended before the program ran";
                failure(FailureClass::Broken, "exec.monitor", message)
            };
            let failure = exec.failure.take().unwrap_or_else(ended);
            self.answer(token, failure);
        }
        let record = self.places.execs(container).and_then(|records| {
            let record = ExecRecord::read(&records, number)?;
            files::remove_file(&records, &number.to_string())?;
            Ok(record)
        });
        // The record knows of a program that was not reported.
        let program = exec.program.or_else(|| record.ok().flatten()?.process);
        if let Some(program) = program.filter(|key| key.open(&self.boot_id).is_some()) {
            self.end_program(container, program);
        }
        // Its owner's cgroups may have waited for it, and so may whoever wants the container to be gone.
        self.prune(container);
        self.next_in_queue(container);
    }

    fn end_session(&mut self, container: &ContainerId, number: ExecId) {
        let Some(entry) = self.containers.get(container) else { return };
        let program = entry.execs.get(&number).and_then(|exec| exec.program.clone());
        if let Some(program) = program {
            self.end_program(container, program);
        }
    }

    fn end_program(&mut self, container: &ContainerId, program: ProcessKey) {
        // At once, so that it is ended even if no task can be made; the task ends the rest.
        if let Some(pidfd) = program.open(&self.boot_id)
            && let Err(errno) = pidfd_send_signal(&pidfd, libc::SIGKILL)
        {
            say(&format!("container {container}: end a program: {errno}"));
        }
        let person = self.containers.get(container).and_then(|entry| self.person_of(entry));
        let Some(person) = person else { return };
        let task = Task::EndSession { person, container: container.clone(), leader: program };
        if let Err(failure) = self.begin_task(task, Purpose::Own) {
            say(&format!("container {container}: {failure}"));
        }
    }

    /// Kills the monitors whose programs are not there in time.
    pub(super) fn expire_execs(&mut self, now: Instant) {
        for (container, entry) in &mut self.containers {
            for exec in entry.execs.values_mut() {
                if exec.deadline.is_none_or(|deadline| deadline > now) {
                    continue;
                }
                exec.deadline = None;
                let message = format!("the program was not there within {EXEC_LIMIT:?}");
                let late = failure(FailureClass::Unavailable, "exec.timeout", message);
                exec.failure.get_or_insert(late);
                if let Err(errno) = pidfd_send_signal(&exec.monitor, libc::SIGKILL) {
                    say(&format!("container {container}: kill a late monitor: {errno}"));
                }
            }
        }
    }

    /// The execs that a predecessor has left: those whose monitors live go on, the others end.
    pub(super) fn recover_execs(&mut self, container: &ContainerId) {
        let found = self.places.execs(container).and_then(|records| {
            let names = files::names(&records)?;
            Ok((records, names))
        });
        let Ok((records, names)) = found else { return };
        let mut adopted = BTreeMap::new();
        for name in names {
            let Some(number) = name.parse().ok().map(ExecId) else { continue };
            let record = ExecRecord::read(&records, number).ok().flatten();
            let Some(ExecRecord { monitor, process }) = record else { continue };
            if let Some(monitor) = monitor.open(&self.boot_id) {
                let exec = Exec {
                    monitor,
                    channel: None,
                    waiter: None,
                    deadline: process.is_none().then(|| Instant::now() + EXEC_LIMIT),
                    program: process,
                    failure: None,
                };
                adopted.insert(number, exec);
                continue;
            }
            if let Err(error) = files::remove_file(&records, &name) {
                say(&format!("container {container}: {error}"));
            }
            if let Some(program) = process.filter(|key| key.open(&self.boot_id).is_some()) {
                self.end_program(container, program);
            }
        }
        if let Some(entry) = self.containers.get_mut(container) {
            entry.execs = adopted;
        }
    }
}

impl Entry {
    /// When the first of its execs is late.
    pub(super) fn exec_deadline(&self) -> Option<Instant> {
        self.execs.values().filter_map(|exec| exec.deadline).min()
    }
}
