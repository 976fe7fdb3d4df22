//! One arm per request. Each checks what it is given against the supervisor's own record, answers at
//! once what can be read, and puts everything else to a monitor or a task.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use berth_runtime::contents::FilesPlace;
use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{ContainerRecord, ExitCause, Failure, FailureClass};
use berth_runtime::wire::{
    Answer, FDS_MAX, Hello, Limits, PAGE_ROWS_MAX, PROTOCOL_VERSION, Request,
};

use super::connection::{Reply, Token, encode};
use super::containers::{Entry, broken, failure, not_running, unknown};
use super::tasks::{Purpose, Task};
use super::{Supervisor, validate};
use crate::files::FileError;
use crate::ledger::EndRecord;
use crate::monitor::ATTACH_SOCKET;
use crate::people::Person;
use crate::process::{self, ProcessKey};
use crate::sys::process::pidfd_send_signal;
use crate::sys::socket;
use crate::{layer, log};

/// Bytes of rows in one page at most, so that the message stays within its own bound.
const PAGE_BYTES_MAX: usize = 96 * 1024;

pub(super) type Answered = Result<Reply, Failure>;

impl Supervisor {
    /// Answers a request; `None` when the answer comes later.
    pub(super) fn dispatch(
        &mut self,
        token: Token,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Option<Reply> {
        let takes = matches!(request, Request::LayerUnpack { .. } | Request::LayerVerify { .. });
        if !takes && !fds.is_empty() {
            let message = "no descriptor goes with this request";
            return Some(failure(FailureClass::Invalid, "wire.descriptors", message).into());
        }
        if let Some(container) = changes(&request)
            && self.containers.get(container).is_some_and(Entry::is_busy)
        {
            let container = container.clone();
            return self.queue(token, &container, request);
        }
        if let Some(person) = self.waits_for_data(&request) {
            return self.queue_for_data(token, person, request);
        }
        self.act(token, request, fds)
    }

    fn act(&mut self, token: Token, request: Request, fds: Vec<OwnedFd>) -> Option<Reply> {
        let answered = match request {
            Request::Hello {} => self.hello(),
            Request::PersonAdd { person, group } => self.person_add(person, group),
            Request::PersonTotal { person, total } => {
                return self.person_total(token, person, total);
            }
            Request::GroupTotal { group, total } => return self.group_total(token, group, total),
            Request::PersonData { person, bytes } => {
                return self.person_data(token, person, bytes);
            }
            Request::PersonDataUse { person } => return self.person_data_use(token, person),
            Request::VolumeMake { person, volume } => self.volume_make(person, &volume),
            Request::VolumeRemove { person, volume } => self.volume_remove(person, &volume),
            Request::VolumeHandOver { person, volume, heir } => {
                return self.volume_hand_over(token, (person, volume), heir);
            }
            Request::VolumeMeasure { person, volume } => {
                return self.volume_measure(token, person, volume);
            }
            Request::Files { person, place, path, act } => {
                return self.files(token, (person, place), path, act);
            }
            Request::UploadOpen { person, upload } => self.upload_open(person, &upload),
            Request::UploadDrop { person, upload } => {
                return self.upload_drop(token, person, upload);
            }
            Request::PersonList { after } => self.person_list(after),
            Request::LayerUnpack { blob, diff_id, compression, bytes_max } => {
                let task = crate::layer::Task::Unpack { blob, diff_id, compression, bytes_max };
                return self.layer_unpack(token, fds, task);
            }
            Request::LayerVerify { blob, diff_id, compression } => {
                let task = crate::layer::Task::Verify { blob, diff_id, compression };
                return self.layer_unpack(token, fds, task);
            }
            Request::LayerList { after } => self.layer_list(after.as_ref()),
            Request::LayerRemove { blob } => return self.layer_remove(token, blob),
            Request::ContainerStart(start) => return self.start(token, *start),
            Request::ContainerSignal { container, signal } => self.signal(&container, signal),
            Request::ContainerState { container } => self.state(&container),
            Request::ContainerList { after } => self.list(after.as_ref()),
            Request::ContainerWatch { container } => self.watch(&container),
            Request::ContainerAttach { container } => self.attach(&container),
            Request::ContainerLogs { container } => self.logs(&container),
            Request::ContainerKill { container } => return self.kill(token, &container),
            Request::ContainerPause { container } => return self.freeze(token, &container, true),
            Request::ContainerResume { container } => return self.freeze(token, &container, false),
            Request::ContainerUpdate { container, limits } => {
                return self.update(token, &container, limits);
            }
            Request::ContainerRemove { container } => return self.remove(token, &container),
            Request::ContainerProcesses { container } => return self.processes(token, &container),
            Request::ContainerPosture { container } => return self.posture(token, &container),
            Request::ContainerExec(request) => return self.exec(token, *request),
            Request::ExecSignal { container, exec, signal } => {
                self.exec_signal(&container, exec, signal)
            }
            Request::Doctor {} => return self.answer_by_task(token, Task::Doctor {}, None),
        };
        Some(answered.unwrap_or_else(Reply::from))
    }

    fn hello(&self) -> Answered {
        let memory_bytes = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Answer::Hello(Hello {
            version: PROTOCOL_VERSION,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.clone(),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_bytes,
            together: self.together.clone(),
        })
        .into())
    }

    fn person_add(&mut self, person: PrincipalId, group: PrincipalId) -> Answered {
        let theirs = |entry: &&Entry| entry.person == person;
        let busy =
            self.containers.values().filter(theirs).any(|entry| {
                entry.monitor.is_some() || entry.undo.is_some() || entry.task.is_some()
            });
        let known = self.people.add(person, group, busy)?;
        Ok(Answer::Person(self.people.range(&known)).into())
    }

    fn person_list(&self, after: Option<PrincipalId>) -> Answered {
        let people = self.people.after(after).take(PAGE_ROWS_MAX + 1);
        let mut rows: Vec<_> = people.map(|person| self.people.range(&person)).collect();
        let more = rows.len() > PAGE_ROWS_MAX;
        rows.truncate(PAGE_ROWS_MAX);
        Ok(Answer::People { people: rows, more }.into())
    }

    fn layer_list(&self, after: Option<&Digest>) -> Answered {
        let store = layer::Store::open(&self.config.data_dir)?;
        let (layers, more) = store.list(after, PAGE_ROWS_MAX)?;
        Ok(Answer::Layers { layers, more }.into())
    }

    fn signal(&self, container: &ContainerId, signal: i32) -> Answered {
        validate::signal(signal)?;
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        let (_, init) = entry.running().ok_or_else(|| not_running(container))?;
        match pidfd_send_signal(init, signal) {
            Ok(()) => Ok(Answer::Done {}.into()),
            Err(nix::errno::Errno::ESRCH) => Err(not_running(container)),
            Err(errno) => Err(broken(&FileError::os("signal", "the first process")(errno))),
        }
    }

    fn state(&mut self, container: &ContainerId) -> Answered {
        self.refresh(container);
        Ok(Answer::Container(Box::new(self.record(container)?)).into())
    }

    fn list(&self, after: Option<&ContainerId>) -> Answered {
        let mut bytes = 0;
        let mut containers: Vec<ContainerRecord> = Vec::new();
        let mut more = false;
        for container in self.containers.keys() {
            if after.is_some_and(|after| container <= after) {
                continue;
            }
            let record = self.record(container)?;
            bytes += encode(&record).len() + 1;
            if containers.len() >= PAGE_ROWS_MAX || bytes > PAGE_BYTES_MAX {
                more = true;
                break;
            }
            containers.push(record);
        }
        Ok(Answer::Containers { containers, more }.into())
    }

    fn watch(&self, container: &ContainerId) -> Answered {
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        if entry.running().is_none() {
            return Err(not_running(container));
        }
        let connected = self.connect_monitor(container).ok_or_else(|| not_running(container))?;
        Ok(Reply { answer: Answer::Done {}, fds: vec![connected] })
    }

    fn attach(&self, container: &ContainerId) -> Answered {
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        // Its monitor stays for a moment after the end, and takes nobody in any more.
        if entry.running().is_none() || self.read_exit(container, entry.run()).is_some() {
            return Err(not_running(container));
        }
        let run = self.places.live(container).map_err(|error| broken(&error))?;
        match socket::connect_in(run.as_fd(), ATTACH_SOCKET) {
            Ok(connected) => Ok(Reply { answer: Answer::Done {}, fds: vec![connected] }),
            Err(Errno::ENOENT) => {
                let message = "it was made without a terminal and without standard input";
                Err(failure(FailureClass::Conflict, "container.no-console", message))
            }
            // Its monitor has just gone.
            Err(Errno::ECONNREFUSED) => Err(not_running(container)),
            Err(Errno::EAGAIN) => {
                let message = "too many wait to attach to it; try again in a moment";
                Err(failure(FailureClass::Unavailable, "container.busy", message))
            }
            Err(errno) => Err(broken(&FileError::os("connect to", "the program's monitor")(errno))),
        }
    }

    fn logs(&self, container: &ContainerId) -> Answered {
        let person = self.owner(container)?;
        let (mut segments, mut fds) = (Vec::new(), Vec::new());
        // No log directory: it was never started so far as to have one.
        if let Ok(directory) = self.places.logs(&person, container) {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let numbers = log::segment_numbers(&directory);
            for number in &numbers[numbers.len().saturating_sub(FDS_MAX)..] {
                let name = log::segment_name(*number);
                // One that has just been rotated away is missing, as it would be a moment later.
                if let Ok(file) = openat(&directory, name.as_str(), flags, Mode::empty()) {
                    segments.push(*number);
                    fds.push(file);
                }
            }
        }
        Ok(Reply { answer: Answer::Logs { segments }, fds })
    }

    /// Who owns a container.
    fn owner(&self, container: &ContainerId) -> Result<Person, Failure> {
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        self.person_of(entry).ok_or_else(|| unknown(container))
    }

    /// A container's owner, with the group that the newest start counts to.
    pub(super) fn person_of(&self, entry: &Entry) -> Option<Person> {
        let person = self.people.get(entry.person)?;
        let group = entry.start.as_ref().map_or(person.group, |start| start.group);
        Some(Person { group, ..person })
    }

    fn kill(&mut self, token: Token, container: &ContainerId) -> Option<Reply> {
        let noted = self.running_entry(container).and_then(|entry| {
            let end =
                EndRecord { run: entry.run(), cause: ExitCause::Killed, at_ms: process::now_ms() };
            let record = self.places.record(container).map_err(|error| broken(&error))?;
            end.write(record).map_err(|error| broken(&error))
        });
        match noted {
            Ok(()) => {
                self.task(token, container, |person, container| Task::Kill { person, container })
            }
            Err(failure) => Some(failure.into()),
        }
    }

    fn freeze(&mut self, token: Token, container: &ContainerId, frozen: bool) -> Option<Reply> {
        self.task(token, container, |person, container| Task::Freeze { person, container, frozen })
    }

    fn update(&mut self, token: Token, container: &ContainerId, limits: Limits) -> Option<Reply> {
        if let Err(failure) = validate::limits(&limits, &self.config.ceilings) {
            return Some(failure.into());
        }
        let task = |person, container| Task::Update { person, container, limits };
        let reply = self.task(token, container, task);
        if let (None, Some(entry)) = (&reply, self.containers.get_mut(container)) {
            entry.asked = Some(limits);
        }
        reply
    }

    fn processes(&mut self, token: Token, container: &ContainerId) -> Option<Reply> {
        match self.running_entry(container).and_then(|_| self.owner(container)) {
            Ok(person) => {
                let task = Task::Processes { person, container: container.clone() };
                self.answer_by_task(token, task, None)
            }
            Err(failure) => Some(failure.into()),
        }
    }

    fn posture(&mut self, token: Token, container: &ContainerId) -> Option<Reply> {
        let task = self.running_entry(container).and_then(|entry| {
            let (live, _) = entry.running().ok_or_else(|| not_running(container))?;
            let process = ProcessKey {
                pid: live.pid,
                start_ticks: live.start_ticks,
                boot_id: self.boot_id.clone(),
            };
            let limits = live.limits.clone();
            let person = self.owner(container)?;
            Ok(Task::Posture { person, container: container.clone(), process, limits })
        });
        match task {
            Ok(task) => self.answer_by_task(token, task, None),
            Err(failure) => Some(failure.into()),
        }
    }

    fn remove(&mut self, token: Token, container: &ContainerId) -> Option<Reply> {
        let Some(entry) = self.containers.get(container) else {
            return Some(Answer::Done {}.into());
        };
        if entry.monitor.is_some() {
            let message = format!("container {} is running", container.short());
            return Some(failure(FailureClass::Conflict, "container.running", message).into());
        }
        match self.owner(container) {
            Ok(person) => {
                let task = Task::Remove { person, container: container.clone() };
                self.answer_by_task(token, task, Some(container))
            }
            Err(failure) => Some(failure.into()),
        }
    }

    fn running_entry(&self, container: &ContainerId) -> Result<&Entry, Failure> {
        let entry = self.containers.get(container).ok_or_else(|| unknown(container))?;
        entry.running().map(|_| entry).ok_or_else(|| not_running(container))
    }

    /// Puts an act on a running container to a task.
    fn task(
        &mut self,
        token: Token,
        container: &ContainerId,
        task: impl FnOnce(Person, ContainerId) -> Task,
    ) -> Option<Reply> {
        let person = self.running_entry(container).and_then(|_| self.owner(container));
        match person {
            Ok(person) => {
                let task = task(person, container.clone());
                self.answer_by_task(token, task, Some(container))
            }
            Err(failure) => Some(failure.into()),
        }
    }

    /// Begins a task whose answer is the request's; it occupies `container`, if one is named.
    pub(super) fn answer_by_task(
        &mut self,
        token: Token,
        task: Task,
        container: Option<&ContainerId>,
    ) -> Option<Reply> {
        let purpose = Purpose::Answer { token, container: container.cloned() };
        match self.begin_task(task, purpose) {
            Ok(number) => {
                if let Some(entry) = container.and_then(|id| self.containers.get_mut(id)) {
                    entry.task = Some(number);
                }
                None
            }
            Err(failure) => Some(failure.into()),
        }
    }
}

/// The container that a request changes, or adds a program to, and for which it has to wait its turn.
/// A signal does not wait for a task: it is for the program, not for what is done about it.
fn changes(request: &Request) -> Option<&ContainerId> {
    match request {
        Request::ContainerStart(start) => Some(&start.container),
        Request::ContainerExec(exec) => Some(&exec.container),
        Request::ContainerKill { container }
        | Request::ContainerPause { container }
        | Request::ContainerResume { container }
        | Request::ContainerUpdate { container, .. }
        | Request::ContainerRemove { container } => Some(container),
        // Reading waits, too: what is being built or taken down is neither here nor there.
        Request::Files { place, .. } => match place {
            FilesPlace::Container { container, .. } => Some(container),
            FilesPlace::Volume(_) => None,
        },
        _ => None,
    }
}
