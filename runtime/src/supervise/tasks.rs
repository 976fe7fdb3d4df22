//! What may block runs in a child of the supervisor's own executable: `berth-runtime task`, one task
//! per process. The supervisor waits for its end as for everything else, and a task that is killed
//! has changed nothing that could not be done again.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::read;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, PrincipalId, UploadId, VolumeId};
use berth_runtime::record::{ExitRecord, Failure, FailureClass, LimitState};
use berth_runtime::wire::{Answer, DataUse, Limits, Total};
use berth_runtime::{receive_message, send_message};

use super::connection::{Reply, Token, encode};
use super::containers::{Entry, broken, failure, not_running};
use super::disks::Step;
use super::{Leaver, Supervisor};
use crate::disk::{self, Image};
use crate::files::FileError;
use crate::launch::CgroupEntry;
use crate::ledger::{LiveRecord, NetworkPlace};
use crate::people::Person;
use crate::places::Places;
use crate::process::ProcessKey;
use crate::sys::{socket, spawn};
use crate::undo::{self, Held, Sum};
use crate::{data_set, doctor, inspect, layer, posture, process, stored, volume};

/// A task's size at most.
const TASK_BYTES_MAX: u64 = 1 << 20;

/// Runs that are undone at once.
const UNDOS_MAX: usize = 8;

/// What a task does. All names and ids in it are the supervisor's own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub(super) enum Task {
    /// Ends and clears away what a run has left; `lost` is written when there is no exit record.
    Undo { person: Person, container: ContainerId, place: Option<NetworkPlace>, lost: ExitRecord },
    /// Kills every process.
    Kill { person: Person, container: ContainerId },
    /// Freezes or thaws.
    Freeze { person: Person, container: ContainerId, frozen: bool },
    /// Changes the limits.
    Update { person: Person, container: ContainerId, limits: Limits },
    /// Holds all that runs for a person or a group to their total.
    Total { held: Held },
    /// Removes everything on disk.
    Remove { person: Person, container: ContainerId },
    /// Lists the processes.
    Processes { person: Person, container: ContainerId },
    /// Looks at what confines the first process.
    Posture { person: Person, container: ContainerId, process: ProcessKey, limits: Vec<LimitState> },
    /// Ends what is left of a program's session (setsid(2)).
    EndSession { person: Person, container: ContainerId, leader: ProcessKey },
    /// Makes interfaces and table agree with the containers that run.
    SweepNetwork { stale: Vec<u32>, live: Vec<NetworkPlace> },
    /// Makes tables again that somebody has taken away.
    RestoreNetwork { live: Vec<NetworkPlace> },
    /// Makes disk and mounts agree with where a person's data is.
    DataSettle { person: Person },
    /// Grows their file system.
    DataGrow { person: Person, bytes: u64 },
    /// Copies all of it to where it is to be.
    DataCopy { person: Person, to: Option<Image> },
    /// Looks how much there is.
    DataUse { person: Person },
    /// Removes what is left of a person's removed volumes.
    VolumesSweep { person: Person },
    /// Gives a volume to somebody else.
    VolumeHandOver { person: Person, volume: VolumeId, heir: Person },
    /// Looks how much is in a volume.
    VolumeMeasure { person: Person, volume: VolumeId },
    /// Acts on files in a volume or container.
    Files { boot_id: String, order: Box<stored::Order> },
    /// Gives an upload up.
    UploadDrop { person: Person, upload: UploadId },
    /// Looks whether the data sets can be had.
    DataSets {},
    /// Looks at the host.
    Doctor {},
}

/// What a task's child is given.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    config: RuntimeConfig,
    scope: String,
    task: Task,
}

/// What a task's end is good for.
pub(super) enum Purpose {
    /// A request's answer; the task occupied `container`.
    Answer { token: Token, container: Option<ContainerId> },
    /// A request's answer; files of the person's are being changed, and `container` is occupied.
    Files { token: Token, person: PrincipalId, container: Option<ContainerId> },
    /// A request's answer; what it has set is to be written down.
    Total { token: Token, sum: Sum, total: Total },
    /// The next step with a person's data; somebody may wait for it.
    Data { token: Option<Token>, person: PrincipalId, step: Step },
    /// A request's answer; nobody else works on the data of these people.
    HandOver { token: Token, people: [PrincipalId; 2] },
    /// The next step with a person's removed volumes.
    Volumes(PrincipalId),
    /// The next step of a container.
    Undo(ContainerId),
    /// Nobody waits.
    Own,
}

/// A task, or a worker of the layer store, under way.
pub(super) struct Running {
    purpose: Purpose,
    source: Answers,
}

enum Answers {
    Task { pidfd: OwnedFd, channel: OwnedFd },
    Layer { worker: layer::Worker, sweeps: bool, text: Vec<u8> },
}

impl Running {
    /// What polls readable when there is something to do.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Answers::Task { pidfd, .. } => pidfd.as_fd(),
            Answers::Layer { worker, .. } => worker.result.as_fd(),
        }
    }

    /// Whether files of a person's are being changed.
    pub(super) fn changes_files_of(&self, person: PrincipalId) -> bool {
        matches!(&self.purpose, Purpose::Files { person: whose, .. } if *whose == person)
    }

    fn is_layer(&self) -> bool {
        matches!(self.source, Answers::Layer { .. })
    }

    fn is_for(&self, token: Token) -> bool {
        matches!(&self.purpose, Purpose::Answer { token: waiting, .. } if *waiting == token)
    }
}

impl Supervisor {
    /// Whether there is room for another undoing; after a reboot there may be many at once.
    pub(super) fn may_undo(&self) -> bool {
        let undoing = |running: &&Running| matches!(running.purpose, Purpose::Undo(_));
        self.tasks.values().filter(undoing).count() < UNDOS_MAX
    }

    /// Starts a task; its number.
    pub(super) fn begin_task(&mut self, task: Task, purpose: Purpose) -> Result<u64, Failure> {
        let file = |error: FileError| broken(&error);
        let job = Job { config: self.config.clone(), scope: self.scope_path.clone(), task };
        let (ours, theirs) =
            socket::pair().map_err(FileError::os("make a channel for", "a task")).map_err(file)?;
        let arguments = [c"berth-runtime", c"task"];
        let spawned = spawn::spawn(
            self.executable.as_fd(),
            &arguments,
            theirs.as_fd(),
            &CgroupEntry::default(),
        )
        .map_err(FileError::os("start", "a task"))
        .map_err(file)?;
        hand_over(&ours, &job, &[]).map_err(file)?;
        let source = Answers::Task { pidfd: spawned.pidfd, channel: ours };
        let number = self.number();
        self.tasks.insert(number, Running { purpose, source });
        Ok(number)
    }

    /// A task has ended, or a worker has written.
    pub(super) fn task_ended(&mut self, number: u64) {
        let Some(running) = self.tasks.get_mut(&number) else { return };
        if let Answers::Layer { worker, text, .. } = &mut running.source {
            let mut buffer = [0; 4096];
            match read(&worker.result, &mut buffer) {
                Ok(count) if count > 0 && text.len() < layer::ANSWER_BYTES_MAX => {
                    text.extend_from_slice(&buffer[..count]);
                    return;
                }
                Err(Errno::EINTR | Errno::EAGAIN) => return,
                Ok(_) | Err(_) => {}
            }
        }
        let Some(Running { purpose, source }) = self.tasks.remove(&number) else { return };
        let (answer, fds) = match source {
            Answers::Task { pidfd, channel } => {
                process::reap(&pidfd);
                read_answer(&channel)
            }
            Answers::Layer { worker, sweeps, text } => {
                let answer = layer::answer(&text);
                let succeeded = !matches!(answer, Answer::Failed(_));
                // It may go on removing files; it is reaped when it ends.
                self.leavers.push(Leaver { pidfd: worker.pidfd, succeeded, sweeps });
                (answer, Vec::new())
            }
        };
        self.complete(purpose, answer, fds);
        self.next_unpack();
    }

    /// A worker has ended. One that failed or was killed may have left files.
    pub(super) fn worker_left(&mut self, index: usize) {
        let Leaver { pidfd, succeeded, sweeps } = self.leavers.swap_remove(index);
        let ended_well = matches!(process::reap(pidfd), process::Ended::Code(0));
        if sweeps || (succeeded && ended_well) {
            return;
        }
        if let Err(failure) = self.begin_layer(&layer::Task::Sweep, None, 0) {
            super::say(&format!("sweep after a worker: {failure}"));
        }
    }

    fn complete(&mut self, purpose: Purpose, answer: Answer, fds: Vec<OwnedFd>) {
        match purpose {
            Purpose::Own => {
                if let Answer::Failed(failure) = answer {
                    super::say(&format!("a task of the supervisor's own failed: {failure}"));
                }
            }
            Purpose::HandOver { token, people } => {
                self.answer(token, Reply::from(answer));
                self.free_data(people);
            }
            Purpose::Volumes(person) => self.volumes_swept(person, answer),
            Purpose::Undo(container) => self.undone(&container, answer),
            Purpose::Data { token, person, step } => self.data_done(token, person, step, answer),
            Purpose::Total { token, sum, total } => {
                let reply = self.total_held(sum, total, answer);
                self.answer(token, reply);
            }
            Purpose::Answer { token, container } => {
                if let Some(container) = &container {
                    self.note_result(container, &answer);
                }
                let answer = match answer {
                    Answer::Container(_) => Answer::Done {},
                    other => other,
                };
                self.answer(token, Reply { answer, fds });
                if let Some(container) = container {
                    self.task_done(&container);
                }
            }
            Purpose::Files { token, container, .. } => {
                self.answer(token, Reply { answer, fds });
                if let Some(container) = container {
                    if let Some(entry) = self.containers.get_mut(&container) {
                        entry.task = None;
                    }
                    self.task_done(&container);
                }
            }
        }
    }

    /// Keeps in mind what a container's task has changed.
    fn note_result(&mut self, container: &ContainerId, answer: &Answer) {
        let Some(entry) = self.containers.get_mut(container) else { return };
        entry.task = None;
        let asked = entry.asked.take();
        match answer {
            Answer::Limits { limits } => {
                if let (Some(asked), Some(start)) = (asked, &mut entry.start) {
                    start.limits = asked;
                }
                if let Some((live, _)) = entry.monitor.as_mut().and_then(|m| m.running.as_mut()) {
                    live.limits.clone_from(limits);
                }
                self.keep_limits(container);
            }
            Answer::Done {} => self.refresh_paused(container),
            _ => {}
        }
    }

    /// Writes changed limits down for the next supervisor: as they were asked for, and as they are held.
    fn keep_limits(&mut self, container: &ContainerId) {
        let Some(entry) = self.containers.get(container) else { return };
        let asked = entry.start.as_ref().map_or(Ok(()), |start| {
            self.places.record(container).and_then(|record| start.write(&record))
        });
        if let Err(error) = asked {
            super::say(&format!("container {container}: keep what was asked for: {error}"));
        }
        let written = self.places.live(container).and_then(|run| {
            let Some(mut record) = LiveRecord::read(&run)? else { return Ok(()) };
            record.live = entry.running().map(|(live, _)| live.clone());
            record.write(&run)
        });
        if let Err(error) = written {
            super::say(&format!("container {container}: keep its limits: {error}"));
        }
    }

    /// Asks the kernel whether a running container is frozen.
    pub(super) fn refresh_paused(&mut self, container: &ContainerId) {
        let Some(entry) = self.containers.get(container) else { return };
        let paused =
            self.cgroup_of(container, entry).is_ok_and(|cgroup| cgroup.frozen().unwrap_or(false));
        if let Some(monitor) = self.containers.get_mut(container).and_then(|e| e.monitor.as_mut()) {
            monitor.paused = paused;
        }
    }

    /// The container's task is done: undo a run that has ended meanwhile, else go on with the queue. A
    /// container of which nothing is left on disk is forgotten.
    fn task_done(&mut self, container: &ContainerId) {
        let gone = !crate::files::is_directory(&self.places.records, container.as_str())
            && !self.has_tree(container);
        let idle = self.containers.get(container).is_some_and(|entry| entry.monitor.is_none());
        if gone && idle {
            let waiting = self.containers.remove(container).map(Entry::into_queue);
            for (token, request) in waiting.into_iter().flatten() {
                if let Some(reply) = self.dispatch(token, request, Vec::new()) {
                    self.answer(token, reply);
                }
            }
            return;
        }
        self.undo(container);
        self.next_in_queue(container);
    }

    /// Whoever asked has hung up: an unpack is cancelled, everything else goes on (a removal's worker does
    /// not mind).
    pub(super) fn cancel(&mut self, token: Token) {
        self.unpacks.retain(|waiting| waiting.token != token);
        let running = |(_, running): &(&u64, &Running)| running.is_layer() && running.is_for(token);
        let number = self.tasks.iter().find(running).map(|(number, _)| *number);
        if let Some(Running { source: Answers::Layer { worker, .. }, .. }) =
            number.and_then(|number| self.tasks.remove(&number))
        {
            // Its result's end is the worker's sign to stop.
            self.leavers.push(Leaver { pidfd: worker.pidfd, succeeded: true, sweeps: false });
            self.next_unpack();
        }
    }

    /// Unpacks a layer as soon as there is room for another worker.
    pub(super) fn layer_unpack(
        &mut self,
        token: Token,
        mut fds: Vec<OwnedFd>,
        task: layer::Task,
    ) -> Option<Reply> {
        let (Some(input), true) = (fds.pop(), fds.is_empty()) else {
            let message = "exactly one descriptor, the layer's bytes, goes with this request";
            return Some(failure(FailureClass::Invalid, "wire.descriptors", message).into());
        };
        self.unpacks.push_back(super::Unpack { token, task, input });
        self.next_unpack();
        None
    }

    fn next_unpack(&mut self) {
        let most = usize::try_from(self.config.unpackers_max.max(1)).unwrap_or(usize::MAX);
        while self.tasks.values().filter(|running| running.is_layer()).count() < most {
            // A pull goes before what only looks.
            let looks = |unpack: &super::Unpack| matches!(unpack.task, layer::Task::Verify { .. });
            let first = self.unpacks.iter().position(|unpack| !looks(unpack)).unwrap_or(0);
            let Some(next) = self.unpacks.remove(first) else { return };
            let begun = self.begin_layer(&next.task, Some(next.input), next.token);
            if let Err(failure) = begun {
                self.answer(next.token, failure);
            }
        }
    }

    /// Starts a worker of the layer store.
    pub(super) fn begin_layer(
        &mut self,
        task: &layer::Task,
        input: Option<OwnedFd>,
        token: Token,
    ) -> Result<(), Failure> {
        let place = layer::Place::new(&self.config, self.people.layer_first());
        let worker = layer::spawn(&place, task, input)
            .map_err(FileError::io("start", "a worker of the layer store"))
            .map_err(|error| broken(&error))?;
        let sweeps = matches!(task, layer::Task::Sweep);
        let source = Answers::Layer { worker, sweeps, text: Vec::new() };
        let number = self.number();
        let purpose = Purpose::Answer { token, container: None };
        self.tasks.insert(number, Running { purpose, source });
        Ok(())
    }

    /// Removes a layer that no running container stands on.
    pub(super) fn layer_remove(&mut self, token: Token, blob: Digest) -> Option<Reply> {
        let stands = |entry: &&Entry| {
            let busy = entry.monitor.is_some() || entry.undo.is_some();
            busy && entry.start.as_ref().is_some_and(|start| start.layers.contains(&blob))
        };
        if self.containers.values().any(|entry| stands(&entry)) {
            let message = format!("layer {blob} is in use by a running container");
            return Some(failure(FailureClass::Conflict, "layer.in-use", message).into());
        }
        self.begin_layer(&layer::Task::Remove { blob }, None, token).err().map(Reply::from)
    }
}

/// Gives a child its job, as a descriptor: it may be larger than a message.
pub(super) fn hand_over(
    channel: &OwnedFd,
    job: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), FileError> {
    let object = "a child's job";
    let bytes = encode(job);
    let memory = memfd_create(c"job", MFdFlags::MFD_CLOEXEC)
        .map_err(FileError::os("make memory for", object))?;
    let mut memory = File::from(memory);
    memory.write_all(&bytes).map_err(FileError::io("write", object))?;
    memory.rewind().map_err(FileError::io("rewind", object))?;
    let mut all = vec![memory.as_fd()];
    all.extend_from_slice(fds);
    send_message(channel, b"{}", &all).map_err(FileError::os("send", object))
}

/// Receives a job, and the descriptors beside it.
pub(crate) fn receive_job<T: DeserializeOwned>(
    channel: &OwnedFd,
) -> Result<(T, Vec<OwnedFd>), FileError> {
    let object = "the job";
    let bad = |reason: String| FileError::Content { object: object.into(), reason };
    let (_, mut fds) = receive_message(channel).map_err(FileError::os("receive", object))?;
    if fds.is_empty() {
        return Err(bad("it did not come".into()));
    }
    let mut bytes = Vec::new();
    File::from(fds.remove(0))
        .take(TASK_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(FileError::io("read", object))?;
    let job = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    Ok((job, fds))
}

fn read_answer(channel: &OwnedFd) -> (Answer, Vec<OwnedFd>) {
    let (message, fds) = receive_message(channel).unwrap_or_default();
    match serde_json::from_slice(&message) {
        Ok(answer) => (answer, fds),
        Err(_) => {
            let message = "a task of the supervisor's ended without an answer";
            let failure = failure(FailureClass::Broken, "supervisor.task", message);
            (Answer::Failed(failure), Vec::new())
        }
    }
}

/// `berth-runtime task`: does one task and answers.
pub(crate) fn main() -> ExitCode {
    let Ok(channel) = spawn::inherited_channel() else { return ExitCode::from(2) };
    let Ok((job, _)) = receive_job::<Job>(&channel) else { return ExitCode::from(2) };
    let Reply { answer, fds } = run(job).unwrap_or_else(Reply::from);
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    match send_message(&channel, &encode(&answer), &fds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(3),
    }
}

fn places(config: &RuntimeConfig) -> Result<Places, Failure> {
    Places::open(config).map_err(|error| broken(&error))
}

fn run(job: Job) -> Result<Reply, Failure> {
    let at = undo::At { config: &job.config, scope: &job.scope };
    match job.task {
        Task::Undo { person, container, place, lost } => {
            at.undo(&person, &container, place.as_ref(), &lost)?;
        }
        Task::Kill { person, container } => at.cgroup(&person, &container)?.kill()?,
        Task::Freeze { person, container, frozen: true } => {
            at.cgroup(&person, &container)?.freeze()?
        }
        Task::Freeze { person, container, frozen: false } => {
            at.cgroup(&person, &container)?.thaw()?
        }
        Task::Update { person, container, limits } => {
            let limits = at.cgroup(&person, &container)?.apply(&(&limits).into())?;
            return Ok(Answer::Limits { limits }.into());
        }
        Task::Total { held } => {
            let limits = at.hold_total(&held)?;
            return Ok(Answer::Limits { limits }.into());
        }
        Task::Remove { person, container } => at.remove(&person, &container)?,
        Task::Processes { person, container } => {
            let pids = at.cgroup(&person, &container)?.pids()?;
            let (processes, truncated) = inspect::processes(&pids, person.first_id);
            return Ok(Answer::Processes { processes, truncated }.into());
        }
        Task::Posture { person, container, process, limits } => {
            let known = posture::Known {
                config: &job.config,
                person: &person,
                process: &process,
                limits: &limits,
            };
            let lines = posture::look(&known)?.ok_or_else(|| not_running(&container))?;
            return Ok(Answer::Posture { lines }.into());
        }
        Task::EndSession { person, container, leader } => {
            at.end_session(&person, &container, &leader)?;
        }
        Task::SweepNetwork { stale, live } => at.sweep_network(&stale, &live)?,
        Task::RestoreNetwork { live } => at.restore_network(&live)?,
        Task::DataSettle { person } => return data(disk::settle(&places(&job.config)?, &person)),
        Task::DataGrow { person, bytes } => {
            return data(disk::grow(&places(&job.config)?, &person, bytes));
        }
        Task::DataCopy { person, to } => disk::copy_to(&places(&job.config)?, &person, to)?,
        Task::DataUse { person } => return data(disk::used(&places(&job.config)?, &person)),
        Task::VolumeHandOver { person, volume, heir } => {
            volume::hand_over(&places(&job.config)?, &person, &volume, &heir)?;
        }
        Task::VolumesSweep { person } => volume::sweep(&places(&job.config)?, &person)?,
        Task::VolumeMeasure { person, volume } => return measure(&job.config, &person, &volume),
        Task::Files { boot_id, order } => {
            let (answer, fds) = stored::run(&job.config, &boot_id, &order)?;
            return Ok(Reply { answer, fds });
        }
        Task::UploadDrop { person, upload } => {
            stored::drop_upload(&places(&job.config)?, &person, &upload)?;
        }
        Task::DataSets {} => data_set::look(&job.config)?,
        Task::Doctor {} => return Ok(Answer::Doctor(doctor::report(&job.config)).into()),
    }
    Ok(Answer::Done {}.into())
}

fn data(found: Result<DataUse, Failure>) -> Result<Reply, Failure> {
    Ok(Answer::PersonData(found?).into())
}

fn measure(config: &RuntimeConfig, person: &Person, volume: &VolumeId) -> Result<Reply, Failure> {
    let found = volume::measure(&places(config)?, person, volume)?;
    Ok(Answer::VolumeUse(found).into())
}
