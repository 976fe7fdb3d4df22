//! The only way to the supervisor: typed requests out, typed answers and descriptors in.
//!
//! Every request has a connection of its own, so that hanging up (dropping the future) cancels what
//! can be cancelled, and a slow request delays no other. Each call has a time limit, and each class
//! of call a bound on how many are under way. It holds no state of containers and retries nothing.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_runtime::console;
use berth_runtime::contents::{FilesAct, FilesPlace};
use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, ExecId, PrincipalId, UploadId, VolumeId};
use berth_runtime::record::{ContainerRecord, Failure, FailureClass, LimitState};
use berth_runtime::wire::{
    Answer, Compression, DataUse, DoctorReport, Envelope, ExecEvent, ExecOrder, ExecRequest, Hello,
    LayerFacts, LayerVerified, Limits, MESSAGE_BYTES_MAX, PROTOCOL_VERSION, PersonRange,
    PostureLine, ProcessInfo, Request, StartRequest, Total, VolumeUse,
};
use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, socket,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Quick requests under way at once.
const QUICK_CALLS_MAX: usize = 32;
/// Starts under way at once; more would only contend for the same two or four processors.
const START_CALLS_MAX: usize = 16;
/// Unpacks asked for at once; the supervisor has a bound of its own.
const UNPACK_CALLS_MAX: usize = 16;
/// Acts on files under way at once, each a process of the supervisor's.
const FILES_CALLS_MAX: usize = 16;
/// A quick request's time, waiting for a slot included.
const QUICK_LIMIT: Duration = Duration::from_secs(15);
/// A start's, a removal's and the doctor's time.
const SLOW_LIMIT: Duration = Duration::from_secs(120);
/// A layer's time; a person cancels sooner by hanging up.
const UNPACK_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// Between two tries when the supervisor's backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// Nobody listens; containers run on meanwhile.
    #[error("reach the supervisor at {}", socket.display())]
    Away {
        socket: PathBuf,
        #[source]
        source: Errno,
    },
    /// It has not answered in time; what was asked may still happen.
    #[error("the supervisor has not answered {request} within {} s", limit.as_secs())]
    TimedOut { request: &'static str, limit: Duration },
    /// It hung up, or the connection broke, before the answer.
    #[error("the supervisor hung up on {request}")]
    HungUp {
        request: &'static str,
        #[source]
        source: Errno,
    },
    /// It has refused, or failed; the text is for people.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The request exceeds what a message may hold.
    #[error("{request} takes {bytes} bytes, more than a message's {MESSAGE_BYTES_MAX}")]
    TooLong { request: &'static str, bytes: usize },
    /// The answer is not one that this request can have: a defect on one of the two sides.
    #[error("the supervisor answered {request} with {answer}")]
    Unexpected { request: &'static str, answer: String },
}

/// The supervisor's code for a container of which nothing lives.
pub(crate) const NOT_RUNNING: &str = "container.not-running";
/// Its code for a message that is no request to it.
const NO_REQUEST: &str = "wire.request";

impl RuntimeError {
    /// Whether the supervisor knows no such object.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(failure) if failure.class == FailureClass::NotFound)
    }

    /// Whether the container does not run, so that what was asked is done or pointless.
    pub(crate) fn is_not_running(&self) -> bool {
        matches!(self, Self::Refused(failure) if failure.code == NOT_RUNNING)
    }

    /// Whether the supervisor does not know the request, as an older one does not know newer ones.
    pub(crate) fn is_not_understood(&self) -> bool {
        matches!(self, Self::Refused(failure) if failure.code == NO_REQUEST)
    }
}

/// The supervisor, as the server sees it.
#[derive(Debug)]
pub(crate) struct RuntimeClient {
    socket: PathBuf,
    quick: Semaphore,
    starts: Semaphore,
    unpacks: Semaphore,
    files: Semaphore,
}

/// Something to be done with files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Where the path begins.
    pub(crate) place: FilesPlace,
    /// The path.
    pub(crate) path: String,
    /// What.
    pub(crate) act: FilesAct,
}

/// A layer to be unpacked.
pub(crate) struct Unpacking {
    /// The digest of its bytes as stored, which is its name.
    pub(crate) blob: Digest,
    /// What it is to inflate to.
    pub(crate) diff_id: Digest,
    /// How it is compressed.
    pub(crate) compression: Compression,
    /// Bytes of its files at most.
    pub(crate) bytes_max: u64,
}

/// A log as the supervisor hands it out: segment numbers, oldest first, each with its file.
pub(crate) type LogSegments = Vec<(u64, OwnedFd)>;

/// A connection to a container's monitor. What it says means only "ask for the state now".
#[derive(Debug)]
pub(crate) struct Watch {
    socket: UnixStream,
}

/// A program that was put into a container.
#[derive(Debug)]
pub(crate) struct ExecEnds {
    /// What it lives by.
    pub(crate) line: ExecLine,
    /// The master of its terminal; or its standard input, output and error. Non-blocking.
    pub(crate) streams: Vec<OwnedFd>,
}

/// The connection that such a program lives by: dropping it ends the program.
#[derive(Debug)]
pub(crate) struct ExecLine {
    socket: UnixStream,
}

/// A connection to a container's first program; dropping it leaves the program as it is. Messages are
/// those of [`berth_runtime::console`].
#[derive(Debug)]
pub(crate) struct ConsoleLine {
    socket: UnixStream,
}

/// What a request may take, and which bound it counts to.
struct Terms<'a> {
    name: &'static str,
    limit: Duration,
    slots: &'a Semaphore,
}

impl RuntimeClient {
    /// A client for the socket at `socket`; nothing is connected yet.
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            quick: Semaphore::new(QUICK_CALLS_MAX),
            starts: Semaphore::new(START_CALLS_MAX),
            unpacks: Semaphore::new(UNPACK_CALLS_MAX),
            files: Semaphore::new(FILES_CALLS_MAX),
        }
    }

    /// Versions and facts of the host.
    pub(crate) async fn hello(&self) -> Result<Hello, RuntimeError> {
        let terms = self.quick("hello");
        match self.call(&terms, Request::Hello {}, None).await?.0 {
            Answer::Hello(hello) => Ok(hello),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// What the host has and lacks.
    pub(crate) async fn doctor(&self) -> Result<DoctorReport, RuntimeError> {
        let terms = Terms { name: "doctor", limit: SLOW_LIMIT, slots: &self.quick };
        match self.call(&terms, Request::Doctor {}, None).await?.0 {
            Answer::Doctor(report) => Ok(report),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Gives a person an id range and a place, or confirms the ones they have.
    pub(crate) async fn person_add(
        &self,
        person: PrincipalId,
        group: PrincipalId,
    ) -> Result<PersonRange, RuntimeError> {
        let terms = self.quick("person add");
        match self.call(&terms, Request::PersonAdd { person, group }, None).await?.0 {
            Answer::Person(range) => Ok(range),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Holds all that runs for a person to a total; what the kernel then shows.
    pub(crate) async fn person_total(
        &self,
        person: PrincipalId,
        total: Total,
    ) -> Result<Vec<LimitState>, RuntimeError> {
        let terms = self.quick("person total");
        match self.call(&terms, Request::PersonTotal { person, total }, None).await?.0 {
            Answer::Limits { limits } => Ok(limits),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Holds all that runs for a group's people to a total; what the kernel then shows.
    pub(crate) async fn group_total(
        &self,
        group: PrincipalId,
        total: Total,
    ) -> Result<Vec<LimitState>, RuntimeError> {
        let terms = self.quick("group total");
        match self.call(&terms, Request::GroupTotal { group, total }, None).await?.0 {
            Answer::Limits { limits } => Ok(limits),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Makes a volume, unless it is there.
    pub(crate) async fn volume_make(
        &self,
        person: PrincipalId,
        volume: &VolumeId,
    ) -> Result<(), RuntimeError> {
        let request = Request::VolumeMake { person, volume: volume.clone() };
        self.done(&self.quick("volume make"), request).await
    }

    /// Bounds what a person may keep on disk. Takes as long as copying all of it where they get a first bound,
    /// less, or none.
    pub(crate) async fn person_data(
        &self,
        person: PrincipalId,
        bytes: Option<u64>,
    ) -> Result<DataUse, RuntimeError> {
        let terms = Terms { name: "person data", limit: UNPACK_LIMIT, slots: &self.unpacks };
        self.data(&terms, Request::PersonData { person, bytes }).await
    }

    /// What a person keeps on disk, and may.
    pub(crate) async fn person_data_use(
        &self,
        person: PrincipalId,
    ) -> Result<DataUse, RuntimeError> {
        self.data(&self.quick("person data use"), Request::PersonDataUse { person }).await
    }

    async fn data(&self, terms: &Terms<'_>, request: Request) -> Result<DataUse, RuntimeError> {
        match self.call(terms, request, None).await?.0 {
            Answer::PersonData(found) => Ok(found),
            other => Err(unexpected(terms, &other)),
        }
    }

    /// Removes a volume with all that is in it; success when it is gone already.
    pub(crate) async fn volume_remove(
        &self,
        person: PrincipalId,
        volume: &VolumeId,
    ) -> Result<(), RuntimeError> {
        let request = Request::VolumeRemove { person, volume: volume.clone() };
        self.done(&self.quick("volume remove"), request).await
    }

    /// Gives a volume to another person; success when it is theirs already. Takes as long as copying it.
    pub(crate) async fn volume_hand_over(
        &self,
        (person, volume): (PrincipalId, &VolumeId),
        heir: PrincipalId,
    ) -> Result<(), RuntimeError> {
        let terms = Terms { name: "volume hand over", limit: UNPACK_LIMIT, slots: &self.unpacks };
        let request = Request::VolumeHandOver { person, volume: volume.clone(), heir };
        self.done(&terms, request).await
    }

    /// Looks how much is in a volume.
    pub(crate) async fn volume_measure(
        &self,
        person: PrincipalId,
        volume: &VolumeId,
    ) -> Result<VolumeUse, RuntimeError> {
        let terms = Terms { name: "volume measure", limit: SLOW_LIMIT, slots: &self.quick };
        let request = Request::VolumeMeasure { person, volume: volume.clone() };
        match self.call(&terms, request, None).await?.0 {
            Answer::VolumeUse(found) => Ok(found),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Does something with the files of a volume or a container that is answered with words alone.
    pub(crate) async fn files(
        &self,
        person: PrincipalId,
        wanted: Files,
    ) -> Result<Answer, RuntimeError> {
        self.files_call(person, wanted).await.map(|(answer, _)| answer)
    }

    /// The same, answered with a descriptor beside the words.
    pub(crate) async fn files_open(
        &self,
        person: PrincipalId,
        wanted: Files,
    ) -> Result<(Answer, OwnedFd), RuntimeError> {
        let (answer, mut fds) = self.files_call(person, wanted).await?;
        match (fds.pop(), fds.is_empty()) {
            (Some(fd), true) => Ok((answer, fd)),
            _ => Err(unexpected(&self.quick("files"), &answer)),
        }
    }

    async fn files_call(
        &self,
        person: PrincipalId,
        Files { place, path, act }: Files,
    ) -> Result<(Answer, Vec<OwnedFd>), RuntimeError> {
        let limit = match act {
            // As long as copying takes.
            FilesAct::Put { .. } => UNPACK_LIMIT,
            _ => SLOW_LIMIT,
        };
        let terms = Terms { name: "files", limit, slots: &self.files };
        self.call(&terms, Request::Files { person, place, path, act }, None).await
    }

    /// Begins an upload or goes on with it: how much of it there is, and where more is to be added.
    pub(crate) async fn upload_open(
        &self,
        person: PrincipalId,
        upload: &UploadId,
    ) -> Result<(u64, OwnedFd), RuntimeError> {
        let terms = self.quick("upload open");
        let request = Request::UploadOpen { person, upload: upload.clone() };
        match self.call(&terms, request, None).await? {
            (Answer::Upload { bytes }, mut fds) if fds.len() == 1 => Ok((bytes, fds.remove(0))),
            (other, _) => Err(unexpected(&terms, &other)),
        }
    }

    /// Gives an upload up; success when it is gone already.
    pub(crate) async fn upload_drop(
        &self,
        person: PrincipalId,
        upload: &UploadId,
    ) -> Result<(), RuntimeError> {
        let terms = Terms { name: "upload drop", limit: SLOW_LIMIT, slots: &self.quick };
        self.done(&terms, Request::UploadDrop { person, upload: upload.clone() }).await
    }

    /// Everybody the supervisor knows.
    pub(crate) async fn people(&self) -> Result<Vec<PersonRange>, RuntimeError> {
        let terms = self.quick("person list");
        let mut all: Vec<PersonRange> = Vec::new();
        loop {
            let after = all.last().map(|range| range.person);
            match self.call(&terms, Request::PersonList { after }, None).await?.0 {
                Answer::People { people, more } if !more || !people.is_empty() => {
                    all.extend(people);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&terms, &other)),
            }
        }
    }

    /// Unpacks a layer from `source` (a pipe's read end or a file). Dropping the future cancels it.
    pub(crate) async fn layer_unpack(
        &self,
        Unpacking { blob, diff_id, compression, bytes_max }: Unpacking,
        source: OwnedFd,
    ) -> Result<LayerFacts, RuntimeError> {
        let terms = Terms { name: "layer unpack", limit: UNPACK_LIMIT, slots: &self.unpacks };
        let request = Request::LayerUnpack { blob, diff_id, compression, bytes_max };
        match self.call(&terms, request, Some(source)).await?.0 {
            Answer::LayerUnpacked(facts) => Ok(facts),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Compares a layer with what `source`, the bytes that it came from, unpacks to. Dropping the future cancels it.
    pub(crate) async fn layer_verify(
        &self,
        blob: &Digest,
        diff_id: &Digest,
        compression: Compression,
        source: OwnedFd,
    ) -> Result<LayerVerified, RuntimeError> {
        let terms = Terms { name: "layer verify", limit: UNPACK_LIMIT, slots: &self.unpacks };
        let (blob, diff_id) = (blob.clone(), diff_id.clone());
        let request = Request::LayerVerify { blob, diff_id, compression };
        match self.call(&terms, request, Some(source)).await?.0 {
            Answer::LayerVerified(verified) => Ok(verified),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Every unpacked layer.
    pub(crate) async fn layers(&self) -> Result<Vec<Digest>, RuntimeError> {
        let terms = self.quick("layer list");
        let mut all: Vec<Digest> = Vec::new();
        loop {
            let after = all.last().cloned();
            match self.call(&terms, Request::LayerList { after }, None).await?.0 {
                Answer::Layers { layers, more } if !more || !layers.is_empty() => {
                    all.extend(layers);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&terms, &other)),
            }
        }
    }

    /// Removes an unpacked layer.
    pub(crate) async fn layer_remove(&self, blob: Digest) -> Result<(), RuntimeError> {
        let terms = Terms { name: "layer remove", limit: SLOW_LIMIT, slots: &self.quick };
        self.done(&terms, Request::LayerRemove { blob }).await
    }

    /// Starts a container; the watch is connected before the answer, so no event is missed. There is
    /// none when the program has ended by then.
    pub(crate) async fn container_start(
        &self,
        start: StartRequest,
    ) -> Result<(ContainerRecord, Option<Watch>), RuntimeError> {
        let terms = Terms { name: "container start", limit: SLOW_LIMIT, slots: &self.starts };
        match self.call(&terms, Request::ContainerStart(Box::new(start)), None).await? {
            (Answer::Started(record), mut fds) if fds.len() <= 1 => {
                let watch = fds.pop().map(|socket| Watch::new(&terms, socket)).transpose()?;
                Ok((*record, watch))
            }
            (other, _) => Err(unexpected(&terms, &other)),
        }
    }

    /// Sends a signal to the container's first process.
    pub(crate) async fn container_signal(
        &self,
        container: &ContainerId,
        signal: i32,
    ) -> Result<(), RuntimeError> {
        let container = container.clone();
        let request = Request::ContainerSignal { container, signal };
        self.done(&self.quick("container signal"), request).await
    }

    /// Ends every process of the container at once.
    pub(crate) async fn container_kill(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = Request::ContainerKill { container: id.clone() };
        self.done(&self.quick("container kill"), request).await
    }

    /// Freezes every process of the container.
    pub(crate) async fn container_pause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = Request::ContainerPause { container: id.clone() };
        self.done(&self.quick("container pause"), request).await
    }

    /// Thaws what was frozen.
    pub(crate) async fn container_resume(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = Request::ContainerResume { container: id.clone() };
        self.done(&self.quick("container resume"), request).await
    }

    /// Changes the limits of a running container, all or none.
    pub(crate) async fn container_update(
        &self,
        id: &ContainerId,
        limits: Limits,
    ) -> Result<Vec<LimitState>, RuntimeError> {
        let terms = self.quick("container update");
        let request = Request::ContainerUpdate { container: id.clone(), limits };
        match self.call(&terms, request, None).await?.0 {
            Answer::Limits { limits } => Ok(limits),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Removes all that disk and kernel hold of a container that does not run.
    pub(crate) async fn container_remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let terms = Terms { name: "container remove", limit: SLOW_LIMIT, slots: &self.quick };
        self.done(&terms, Request::ContainerRemove { container: id.clone() }).await
    }

    /// What the record and the kernel show of one container.
    pub(crate) async fn container_state(
        &self,
        id: &ContainerId,
    ) -> Result<ContainerRecord, RuntimeError> {
        let terms = self.quick("container state");
        let request = Request::ContainerState { container: id.clone() };
        match self.call(&terms, request, None).await?.0 {
            Answer::Container(record) => Ok(*record),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// Every container that the supervisor holds anything of.
    pub(crate) async fn containers(&self) -> Result<Vec<ContainerRecord>, RuntimeError> {
        let terms = self.quick("container list");
        let mut all: Vec<ContainerRecord> = Vec::new();
        loop {
            let after = all.last().map(|record| record.container.clone());
            match self.call(&terms, Request::ContainerList { after }, None).await?.0 {
                Answer::Containers { containers, more } if !more || !containers.is_empty() => {
                    all.extend(containers);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&terms, &other)),
            }
        }
    }

    /// A connection to the container's monitor.
    pub(crate) async fn container_watch(&self, id: &ContainerId) -> Result<Watch, RuntimeError> {
        let terms = self.quick("container watch");
        let request = Request::ContainerWatch { container: id.clone() };
        match self.call(&terms, request, None).await? {
            (Answer::Done {}, mut fds) if fds.len() == 1 => Watch::new(&terms, fds.remove(0)),
            (other, _) => Err(unexpected(&terms, &other)),
        }
    }

    /// The container's log segments, oldest first.
    pub(crate) async fn container_logs(
        &self,
        id: &ContainerId,
    ) -> Result<LogSegments, RuntimeError> {
        let terms = self.quick("container logs");
        let request = Request::ContainerLogs { container: id.clone() };
        match self.call(&terms, request, None).await? {
            (Answer::Logs { segments }, fds) if segments.len() == fds.len() => {
                Ok(segments.into_iter().zip(fds).collect())
            }
            (other, _) => Err(unexpected(&terms, &other)),
        }
    }

    /// Runs another program in a running container.
    pub(crate) async fn container_exec(
        &self,
        request: ExecRequest,
    ) -> Result<ExecEnds, RuntimeError> {
        let terms = Terms { name: "container exec", limit: QUICK_LIMIT, slots: &self.starts };
        let streams = if request.terminal.is_some() { 1 } else { 3 };
        match self.call(&terms, Request::ContainerExec(Box::new(request)), None).await? {
            (Answer::ExecStarted {}, mut fds) if fds.len() == 1 + streams => {
                let line = ExecLine { socket: listener(&terms, fds.remove(0))? };
                Ok(ExecEnds { line, streams: fds })
            }
            (other, _) => Err(unexpected(&terms, &other)),
        }
    }

    /// A connection to the first program of a container that was made for that.
    pub(crate) async fn container_attach(
        &self,
        id: &ContainerId,
    ) -> Result<ConsoleLine, RuntimeError> {
        let terms = self.quick("container attach");
        let request = Request::ContainerAttach { container: id.clone() };
        match self.call(&terms, request, None).await? {
            (Answer::Done {}, mut fds) if fds.len() == 1 => {
                Ok(ConsoleLine { socket: listener(&terms, fds.remove(0))? })
            }
            (other, _) => Err(unexpected(&terms, &other)),
        }
    }

    /// Sends a signal to such a program.
    pub(crate) async fn exec_signal(
        &self,
        id: &ContainerId,
        exec: ExecId,
        signal: i32,
    ) -> Result<(), RuntimeError> {
        let request = Request::ExecSignal { container: id.clone(), exec, signal };
        self.done(&self.quick("exec signal"), request).await
    }

    /// The container's processes, and whether the list was cut.
    pub(crate) async fn container_processes(
        &self,
        id: &ContainerId,
    ) -> Result<(Vec<ProcessInfo>, bool), RuntimeError> {
        let terms = self.quick("container processes");
        let request = Request::ContainerProcesses { container: id.clone() };
        match self.call(&terms, request, None).await?.0 {
            Answer::Processes { processes, truncated } => Ok((processes, truncated)),
            other => Err(unexpected(&terms, &other)),
        }
    }

    /// What confines the container's first process now.
    pub(crate) async fn container_posture(
        &self,
        id: &ContainerId,
    ) -> Result<Vec<PostureLine>, RuntimeError> {
        let terms = self.quick("container posture");
        let request = Request::ContainerPosture { container: id.clone() };
        match self.call(&terms, request, None).await?.0 {
            Answer::Posture { lines } => Ok(lines),
            other => Err(unexpected(&terms, &other)),
        }
    }

    fn quick(&self, name: &'static str) -> Terms<'_> {
        Terms { name, limit: QUICK_LIMIT, slots: &self.quick }
    }

    async fn done(&self, terms: &Terms<'_>, request: Request) -> Result<(), RuntimeError> {
        match self.call(terms, request, None).await?.0 {
            Answer::Done {} => Ok(()),
            other => Err(unexpected(terms, &other)),
        }
    }

    /// One request and its answer, within the time limit; a refusal is an error.
    async fn call(
        &self,
        terms: &Terms<'_>,
        request: Request,
        fd: Option<OwnedFd>,
    ) -> Result<(Answer, Vec<OwnedFd>), RuntimeError> {
        let envelope = Envelope { version: PROTOCOL_VERSION, request };
        let bytes = serde_json::to_vec(&envelope)
            .expect("a request has string keys only and no value that JSON lacks");
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(RuntimeError::TooLong { request: terms.name, bytes: bytes.len() });
        }
        let work = async {
            let _slot = acquire(terms.slots).await;
            self.exchange(terms, &bytes, fd).await
        };
        let timed_out = || RuntimeError::TimedOut { request: terms.name, limit: terms.limit };
        let (bytes, fds) =
            tokio::time::timeout(terms.limit, work).await.map_err(|_| timed_out())??;
        let answer = serde_json::from_slice(&bytes).map_err(|error| RuntimeError::Unexpected {
            request: terms.name,
            answer: error.to_string(),
        })?;
        match answer {
            Answer::Failed(failure) => Err(RuntimeError::Refused(failure)),
            answer => Ok((answer, fds)),
        }
    }

    async fn exchange(
        &self,
        terms: &Terms<'_>,
        bytes: &[u8],
        fd: Option<OwnedFd>,
    ) -> Result<(Vec<u8>, Vec<OwnedFd>), RuntimeError> {
        let connection = self.connect().await?;
        let hung_up = |source| RuntimeError::HungUp { request: terms.name, source };
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        connection
            .async_io(Interest::WRITABLE, || {
                Ok(berth_runtime::send_message(&connection, bytes, &fds)?)
            })
            .await
            .map_err(|error| hung_up(errno_of(&error)))?;
        drop(fds);
        // The supervisor holds its own copy now; ours would keep a pipe open for ever.
        drop(fd);
        let (bytes, fds) = connection
            .async_io(Interest::READABLE, || Ok(berth_runtime::receive_message(&connection)?))
            .await
            .map_err(|error| hung_up(errno_of(&error)))?;
        if bytes.is_empty() {
            return Err(hung_up(Errno::EPIPE));
        }
        Ok((bytes, fds))
    }

    async fn connect(&self) -> Result<UnixStream, RuntimeError> {
        let away = |source| RuntimeError::Away { socket: self.socket.clone(), source };
        let address = UnixAddr::new(&self.socket).map_err(away)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        loop {
            let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(away)?;
            match connect(fd.as_raw_fd(), &address) {
                Ok(()) => return asynchronous(fd).map_err(|error| away(errno_of(&error))),
                // connect(2): a full backlog of a Unix socket is EAGAIN, and poll tells nothing.
                Err(Errno::EAGAIN) => tokio::time::sleep(BACKLOG_PAUSE).await,
                Err(errno) => return Err(away(errno)),
            }
        }
    }
}

impl Watch {
    fn new(terms: &Terms<'_>, fd: OwnedFd) -> Result<Self, RuntimeError> {
        listener(terms, fd).map(|socket| Self { socket })
    }

    /// Waits until the monitor says anything (what, does not matter); `None` when it has hung up.
    pub(crate) async fn changed(&mut self) -> Option<()> {
        let received = self
            .socket
            .async_io(Interest::READABLE, || Ok(berth_runtime::receive_message(&self.socket)?))
            .await;
        match received {
            Ok((bytes, _)) if !bytes.is_empty() => Some(()),
            _ => None,
        }
    }
}

impl ExecLine {
    /// Tells the program's monitor something.
    pub(crate) async fn order(&self, order: ExecOrder) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(&order).expect("an order is plain data");
        let sent = self.socket.async_io(Interest::WRITABLE, || {
            Ok(berth_runtime::send_message(&self.socket, &bytes, &[])?)
        });
        sent.await.map_err(|error| errno_of(&error))
    }

    /// Waits for what its monitor says; `None` when that has hung up.
    pub(crate) async fn event(&self) -> Option<ExecEvent> {
        let received = self
            .socket
            .async_io(Interest::READABLE, || Ok(berth_runtime::receive_message(&self.socket)?));
        serde_json::from_slice(&received.await.ok()?.0).ok()
    }
}

impl ConsoleLine {
    /// Sends a message; waits while the program takes no input.
    pub(crate) async fn send(&self, message: &[u8]) -> Result<(), Errno> {
        let sent = self.socket.async_io(Interest::WRITABLE, || {
            Ok(berth_runtime::send_message(&self.socket, message, &[])?)
        });
        sent.await.map_err(|error| errno_of(&error))
    }

    /// Waits for a message; `None` when the monitor has hung up.
    pub(crate) async fn receive(&self) -> Option<Bytes> {
        let mut buffer = [0; console::MESSAGE_BYTES_MAX];
        let received = self.socket.async_io(Interest::READABLE, || {
            Ok(recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?)
        });
        let length = received.await.ok().filter(|length| *length > 0)?;
        buffer.get(..length).map(Bytes::copy_from_slice)
    }
}

/// A connection that a supervisor's answer has brought.
fn listener(terms: &Terms<'_>, fd: OwnedFd) -> Result<UnixStream, RuntimeError> {
    let broken = |source| RuntimeError::HungUp { request: terms.name, source };
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&fd, flags).map_err(broken)?;
    asynchronous(fd).map_err(|error| broken(errno_of(&error)))
}

/// The socket under tokio's reactor. Its type is the standard library's stream socket, whose own
/// reads and writes are never used: messages go by sendmsg(2) and recvmsg(2), readiness is the same.
fn asynchronous(fd: OwnedFd) -> std::io::Result<UnixStream> {
    UnixStream::from_std(std::os::unix::net::UnixStream::from(fd))
}

async fn acquire(slots: &Semaphore) -> SemaphorePermit<'_> {
    slots.acquire().await.expect("these semaphores are never closed")
}

fn unexpected(terms: &Terms<'_>, answer: &Answer) -> RuntimeError {
    let mut answer = format!("{answer:?}");
    answer.truncate(answer.floor_char_boundary(200));
    RuntimeError::Unexpected { request: terms.name, answer }
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    /// A supervisor of one connection, on a thread: it reads the request and lets `answer` reply.
    struct Peer {
        socket: PathBuf,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Peer {
        fn new(
            name: &str,
            answer: impl FnOnce(Request, Vec<OwnedFd>, OwnedFd) + Send + 'static,
        ) -> Self {
            let name = format!("berth-client-{name}-{}.sock", std::process::id());
            let path = std::env::temp_dir().join(name);
            let flags = SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("socket");
            bind(fd.as_raw_fd(), &UnixAddr::new(&path).expect("address")).expect("bind");
            listen(&fd, Backlog::new(8).expect("backlog")).expect("listen");
            let thread = std::thread::spawn(move || {
                let (connection, _) = UnixListener::from(fd).accept().expect("accept");
                let connection = OwnedFd::from(connection);
                let (bytes, fds) = berth_runtime::receive_message(&connection).expect("request");
                let envelope: Envelope = serde_json::from_slice(&bytes).expect("envelope");
                assert_eq!(envelope.version, PROTOCOL_VERSION);
                answer(envelope.request, fds, connection);
            });
            Self { socket: path, thread: Some(thread) }
        }

        fn client(&self) -> RuntimeClient {
            RuntimeClient::new(&self.socket)
        }
    }

    impl Drop for Peer {
        fn drop(&mut self) {
            let thread = self.thread.take().expect("a peer is dropped once");
            thread.join().expect("the peer's own assertions");
            std::fs::remove_file(&self.socket).expect("the peer's socket");
        }
    }

    fn reply(connection: &OwnedFd, answer: &Answer, fds: &[std::os::fd::BorrowedFd<'_>]) {
        let bytes = serde_json::to_vec(answer).expect("answer");
        berth_runtime::send_message(connection, &bytes, fds).expect("send");
    }

    fn id() -> ContainerId {
        ContainerId::from_bytes([7; 16])
    }

    #[tokio::test]
    async fn an_absent_supervisor_is_an_error_of_its_own() {
        let client = RuntimeClient::new(Path::new("/nonexistent/supervisor.sock"));
        assert!(matches!(client.hello().await, Err(RuntimeError::Away { .. })));
    }

    #[tokio::test]
    async fn a_refusal_keeps_class_code_and_message() {
        let failure = Failure::new(FailureClass::Conflict, "container.not-running", "no");
        let sent = failure.clone();
        let peer = Peer::new("refusal", move |request, _, connection| {
            assert!(matches!(request, Request::ContainerPause { .. }));
            reply(&connection, &Answer::Failed(sent), &[]);
        });
        match peer.client().container_pause(&id()).await {
            Err(RuntimeError::Refused(refused)) => assert_eq!(refused, failure),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn log_descriptors_come_with_their_numbers() {
        let (reader, mut writer) = std::io::pipe().expect("pipe");
        let peer = Peer::new("logs", move |_, _, connection| {
            reply(&connection, &Answer::Logs { segments: vec![4] }, &[reader.as_fd()]);
        });
        let mut segments = peer.client().container_logs(&id()).await.expect("logs");
        let (number, fd) = segments.remove(0);
        assert_eq!((number, segments.len()), (4, 0));
        writer.write_all(b"line").expect("write");
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).expect("read");
        assert_eq!(text, "line");
    }

    #[tokio::test]
    async fn a_descriptor_count_that_does_not_fit_is_refused() {
        let peer = Peer::new("count", |_, _, connection| {
            reply(&connection, &Answer::Logs { segments: vec![1, 2] }, &[]);
        });
        let answer = peer.client().container_logs(&id()).await;
        assert!(matches!(answer, Err(RuntimeError::Unexpected { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn dropping_the_call_hangs_up() {
        let (seen, wait) = tokio::sync::oneshot::channel();
        let peer = Peer::new("hangup", move |_, fds, connection| {
            assert_eq!(fds.len(), 1);
            seen.send(()).expect("the test waits");
            // Blocks until the client is gone.
            let (bytes, _) = berth_runtime::receive_message(&connection).expect("end");
            assert!(bytes.is_empty());
        });
        let client = peer.client();
        let (reader, _writer) = std::io::pipe().expect("pipe");
        let digest = Digest::of(b"");
        let unpacking = Unpacking {
            blob: digest.clone(),
            diff_id: digest,
            compression: Compression::None,
            bytes_max: 1 << 20,
        };
        tokio::select! {
            answer = client.layer_unpack(unpacking, reader.into()) => {
                panic!("{answer:?}");
            }
            reached = wait => reached.expect("the peer lives"),
        }
    }

    #[tokio::test]
    async fn a_supervisor_that_dies_before_the_answer_is_told_apart() {
        let peer = Peer::new("dies", |_, _, connection| drop(connection));
        let answer = peer.client().hello().await;
        assert!(matches!(answer, Err(RuntimeError::HungUp { .. })), "{answer:?}");
    }
}
