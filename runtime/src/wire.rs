//! The wire form between the server and the supervisor: a closed set of typed requests.
//!
//! One connection carries one request and its one answer over a `SOCK_SEQPACKET` Unix socket. Hanging
//! up before the answer cancels what can be cancelled (an unpack). Descriptors travel beside the
//! message; each request and answer says which it carries, in order.
//!
//! Invariants: no request holds a host path, a host uid, a cgroup name or an OCI configuration;
//! objects are named by digest, container id or principal id, and the supervisor resolves them from
//! its own record. Paths are of files inside a container or a volume. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contents::{FileFacts, FilesAct, FilesPlace};
use crate::digest::Digest;
use crate::id::{ContainerId, ExecId, PrincipalId, UploadId, VolumeId};
use crate::record::{ContainerRecord, Failure, FailureClass, LimitState};

/// The version this build speaks; the supervisor accepts this one and the one before.
pub const PROTOCOL_VERSION: u32 = 1;
/// A message's size, in bytes, at most.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Descriptors that one message carries at most.
pub const FDS_MAX: usize = 16;
/// Layers of one container at most (overlayfs stacks up to 500; images are refused above this).
pub const LAYERS_MAX: usize = 127;
/// Rows in one page of [`Answer::Layers`], [`Answer::Containers`] and [`Answer::People`] at most.
pub const PAGE_ROWS_MAX: usize = 256;

/// What the server sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The sender's [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The request.
    pub request: Request,
}

impl Envelope {
    /// Reads a message. The version is looked at first: another version's requests need not be ours.
    ///
    /// # Errors
    /// When it is none, or of a version that is not spoken here.
    pub fn read(bytes: &[u8]) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let invalid = |code, message| Failure::new(FailureClass::Invalid, code, message);
        let said = |error: serde_json::Error| {
            invalid("wire.request", format!("read the request: {error}"))
        };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(said)?;
        if version != PROTOCOL_VERSION && version.checked_add(1) != Some(PROTOCOL_VERSION) {
            let message = format!("protocol {version} is not spoken here, but {PROTOCOL_VERSION}");
            return Err(invalid("wire.version", message));
        }
        serde_json::from_slice(bytes).map_err(said)
    }
}

/// Everything that the supervisor can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Versions and facts of the host. Answer: [`Answer::Hello`].
    Hello {},
    /// The doctor's report. Answer: [`Answer::Doctor`].
    Doctor {},
    /// Gives a person an id range and a place, or confirms the ones they have.
    /// Answer: [`Answer::Person`].
    PersonAdd { person: PrincipalId, group: PrincipalId },
    /// Holds all that runs for a person together to a total, from now on. Refused with `conflict` when more
    /// memory is in use than it allows; then what was before stays. Answer: [`Answer::Limits`], empty while
    /// nothing of theirs runs.
    PersonTotal { person: PrincipalId, total: Total },
    /// The same for all that runs for the members of a group, each of whom may have a total of their own.
    /// A group is known by its total alone. Answer: [`Answer::Limits`], empty while nothing of it runs.
    GroupTotal { group: PrincipalId, total: Total },
    /// Bounds what a person may keep on disk, from 32 MiB; `None` is not bounded. More is given while their
    /// containers run; less, or the first bound, only while none does (`conflict`), and takes as long as
    /// copying all that they have. Refused with `exhausted` when the disk cannot set as much aside.
    /// Answer: [`Answer::PersonData`].
    PersonData { person: PrincipalId, bytes: Option<u64> },
    /// What a person keeps on disk. Answer: [`Answer::PersonData`].
    PersonDataUse { person: PrincipalId },
    /// Makes a volume of a person's, which begins empty; success when it is there already.
    /// Answer: [`Answer::Done`].
    VolumeMake { person: PrincipalId, volume: VolumeId },
    /// Removes a volume with all that is in it; refused with `conflict` while a container that runs has it;
    /// success when it is gone already. Answer: [`Answer::Done`].
    VolumeRemove { person: PrincipalId, volume: VolumeId },
    /// Gives a volume to another person, under the same id: with all that is in it, whose owners are the same inside. It
    /// takes as long as copying it, and requests that concern the data of either wait. Refused with `conflict` while a
    /// container that runs has it; success when it is theirs already. Answer: [`Answer::Done`].
    VolumeHandOver { person: PrincipalId, volume: VolumeId, heir: PrincipalId },
    /// What a volume holds. Answer: [`Answer::VolumeUse`].
    VolumeMeasure { person: PrincipalId, volume: VolumeId },
    /// Does something with what is at a path in a volume or a container. Answer: [`Answer::File`] to a look, an
    /// opening (with descriptor 0, read-only) and a put, [`Answer::Files`] to a list, [`Answer::Done`] to an archive
    /// (with descriptor 0, the reading end of a pipe; hanging up ends it) and to a new folder,
    /// [`Answer::FilesRemoved`] to a removal.
    Files { person: PrincipalId, place: FilesPlace, path: String, act: FilesAct },
    /// Begins an upload, or goes on with it. Answer: [`Answer::Upload`] with descriptor 0, to which can only be
    /// appended.
    UploadOpen { person: PrincipalId, upload: UploadId },
    /// Gives an upload up; success when it is gone already. Answer: [`Answer::Done`].
    UploadDrop { person: PrincipalId, upload: UploadId },
    /// A page of people with their ranges, by ascending id after `after`. Answer: [`Answer::People`].
    PersonList { after: Option<PrincipalId> },
    /// Unpacks a layer read from descriptor 0 (a pipe's read end or a file). The answer comes when it
    /// is on disk under its name, or has failed and left nothing. `blob` is the digest of the bytes
    /// as they come; when a layer of that name is there already, the answer comes at once. Files of more
    /// than `bytes_max` bytes together (or than is configured) end it: `layer.above-given`.
    /// Answer: [`Answer::LayerUnpacked`].
    LayerUnpack { blob: Digest, diff_id: Digest, compression: Compression, bytes_max: u64 },
    /// Unpacks a layer that is there once more, from descriptor 0 as [`Request::LayerUnpack`] does, and compares
    /// the two; nothing is changed. At the lowest priority, and only when no other layer waits for a worker.
    /// `not_found` when there is no layer of that name. Answer: [`Answer::LayerVerified`].
    LayerVerify { blob: Digest, diff_id: Digest, compression: Compression },
    /// A page of unpacked layers by ascending digest. Answer: [`Answer::Layers`].
    LayerList { after: Option<Digest> },
    /// Removes an unpacked layer; refused with `conflict` while a running container uses it; success
    /// when it is gone already. Answer: [`Answer::Done`].
    LayerRemove { blob: Digest },
    /// Starts a container (its writable layer is made at its first start).
    /// Answer: [`Answer::Started`], with descriptor 0 as of [`Request::ContainerWatch`] unless the
    /// program has ended already.
    ContainerStart(Box<StartRequest>),
    /// Sends a signal (signal(7), 1 to 64) to the container's first process. Answer: [`Answer::Done`].
    ContainerSignal { container: ContainerId, signal: i32 },
    /// Ends every process of the container at once. Answer: [`Answer::Done`].
    ContainerKill { container: ContainerId },
    /// Freezes every process of the container. Answer: [`Answer::Done`].
    ContainerPause { container: ContainerId },
    /// Thaws what was frozen. Answer: [`Answer::Done`].
    ContainerResume { container: ContainerId },
    /// Changes the limits of a running container, all or none. Answer: [`Answer::Limits`].
    ContainerUpdate { container: ContainerId, limits: Limits },
    /// Removes all that the disk and the kernel hold of a container that does not run: writable
    /// layer, logs, records. Success when it is gone already. Answer: [`Answer::Done`].
    ContainerRemove { container: ContainerId },
    /// What the record and the kernel show of one container. Answer: [`Answer::Container`].
    ContainerState { container: ContainerId },
    /// A page of all containers that the supervisor holds anything of. Answer: [`Answer::Containers`].
    ContainerList { after: Option<ContainerId> },
    /// A connection to the monitor. Its every message ([`MonitorEvent`] as JSON) and its end mean
    /// only "ask for the state now". Answer: [`Answer::Done`] with descriptor 0, a connected
    /// `SOCK_SEQPACKET` socket.
    ContainerWatch { container: ContainerId },
    /// A connection to a first program that has a [`Console`]. Answer: [`Answer::Done`] with
    /// descriptor 0, a connected `SOCK_SEQPACKET` socket that carries [`crate::console::ConsoleOrder`] one way
    /// and [`crate::console::ConsoleEvent`] the other. Hanging up leaves the program as it is.
    ContainerAttach { container: ContainerId },
    /// The container's log. Answer: [`Answer::Logs`] with one read-only descriptor per segment.
    ContainerLogs { container: ContainerId },
    /// Runs another program in a running container, confined as its first process is.
    /// Answer: [`Answer::ExecStarted`].
    ContainerExec(Box<ExecRequest>),
    /// Sends a signal (signal(7), 1 to 64) to such a program. Answer: [`Answer::Done`].
    ExecSignal { container: ContainerId, exec: ExecId, signal: i32 },
    /// The container's processes as the host sees them. Answer: [`Answer::Processes`].
    ContainerProcesses { container: ContainerId },
    /// What confines the container's first process, read from the kernel now. Answer:
    /// [`Answer::Posture`].
    ContainerPosture { container: ContainerId },
}

/// How a layer's bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// A plain tar archive.
    None,
    /// RFC 1952, several members allowed.
    Gzip,
    /// RFC 8878, window at most 128 MiB.
    Zstd,
}

/// All that a container is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The container.
    pub container: ContainerId,
    /// Whose it is; must be known to the supervisor.
    pub person: PrincipalId,
    /// The start's number, from 1, growing; exit records carry it.
    pub run: u64,
    /// Unpacked layers by blob digest, lowest first, 1 to [`LAYERS_MAX`].
    pub layers: Vec<Digest>,
    /// The program.
    pub process: ProcessSpec,
    /// The uts namespace's host name (RFC 1123 label, 1 to 63 characters).
    pub hostname: String,
    /// Mount the root read-only.
    pub read_only_root: bool,
    /// File systems in memory, counted to the container's memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Volumes, [`VOLUMES_MAX`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// The operator's data sets, [`DATA_SET_MOUNTS_MAX`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_sets: Vec<DataSetMount>,
    /// Size of `/dev/shm`, in bytes.
    pub shm_bytes: u64,
    /// The network.
    pub network: NetworkMode,
    /// Ports of the host that lead to it, [`PORTS_MAX`] at most; with a network only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortLease>,
    /// The limits; none can be left out.
    pub limits: Limits,
    /// How its output is kept.
    pub log: LogOptions,
    /// How people can be with the program while it runs.
    #[serde(default, skip_serializing_if = "Console::is_none")]
    pub console: Console,
    /// How long the container may take to stop at host shutdown: signal, then grace in seconds.
    pub stop: StopOptions,
}

/// The program of a container (OCI runtime-spec, config.md, "process").
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Program and arguments, at least one; looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Absolute; made if absent.
    pub cwd: String,
    /// `user[:group]`, names or numbers, as in an image's `User`; names are resolved inside the
    /// container's own root by the child. Empty: 0:0 (or what the root's passwd says of 0).
    pub user: String,
    /// Capabilities to leave out of the default profile's set, such as `CAP_CHOWN`; `ALL` for all.
    pub capabilities_dropped: Vec<String>,
    /// rlimits by name without prefix in lower case (`nofile`): soft and hard, never above the profile's.
    pub ulimits: BTreeMap<String, Ulimit>,
}

/// A later program of a running container. What confines it is what confines the first one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The container.
    pub container: ContainerId,
    /// Its number, from 1; none that goes on has it.
    pub exec: ExecId,
    /// Whose the container is.
    pub person: PrincipalId,
    /// Program and arguments, at least one; looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value` each, the whole of it.
    pub env: Vec<String>,
    /// Absolute; made if absent.
    pub cwd: String,
    /// As in [`ProcessSpec::user`].
    pub user: String,
    /// A terminal of this size; without one it gets three pipes.
    pub terminal: Option<TerminalSize>,
}

/// How people can be with a container's first program. Its output is in the log in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// A terminal of this size, in the place of all three streams.
    pub terminal: Option<TerminalSize>,
    /// A standard input that stays open until somebody ends it; without it, or a terminal, it is
    /// empty.
    pub stdin: bool,
}

impl Console {
    /// Whether nobody can be with it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.terminal.is_none() && !self.stdin
    }
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Columns, 1 to [`TERMINAL_CELLS_MAX`].
    pub columns: u16,
    /// Rows, 1 to [`TERMINAL_CELLS_MAX`].
    pub rows: u16,
}

/// Columns, and rows, of a terminal at most.
pub const TERMINAL_CELLS_MAX: u16 = 1000;
/// Programs beside the first one that go on at once in one container, at most.
pub const EXECS_PER_CONTAINER_MAX: usize = 16;
/// The same, in all containers of one person.
pub const EXECS_PER_PERSON_MAX: usize = 64;

/// What the server says on the connection that an exec lives by; hanging up ends the exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecOrder {
    /// Another size of its terminal.
    Resize(TerminalSize),
}

/// What it hears there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecEvent {
    /// The program has ended, by an exit code or by a signal.
    Exited { code: Option<i32>, signal: Option<i32> },
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// The soft limit, at most `hard`.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// A file system in memory inside the container, always `nosuid,nodev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Absolute path inside; not `/`, nor at or below `/proc`, `/sys`, `/dev`.
    pub target: String,
    /// Size in bytes at most.
    pub size_bytes: u64,
}

/// Volumes of one container at most.
pub const VOLUMES_MAX: usize = 32;

/// A volume at a place inside a container, always `nosuid,nodev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeMount {
    /// The volume.
    pub volume: VolumeId,
    /// Whose it is, where that is not whose container it is: then the owner's ids are shown as the container's, and
    /// what is written is the owner's. That it was shared is the server's to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PrincipalId>,
    /// Absolute path inside; as [`Tmpfs::target`], and no other mount's.
    pub target: String,
    /// Nothing can be written to it there.
    pub read_only: bool,
    /// A directory or file in the volume that is mounted instead of the whole; has to be there. Links on the
    /// way are followed inside the volume only.
    pub sub_path: Option<String>,
    /// A volume that was never used begins with what the image has at the place. One of somebody else's that is
    /// mounted read-only alone has to have been used before.
    pub copy_up: bool,
}

/// Data sets of one container at most.
pub const DATA_SET_MOUNTS_MAX: usize = 16;

/// A data set at a place inside a container: read-only with all that is mounted in it, `nosuid,nodev`. That the
/// container's owner may have it is the server's to know; where it is, the supervisor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSetMount {
    /// One of those in the supervisor's configuration.
    pub name: String,
    /// Absolute path inside; as [`Tmpfs::target`], and no other mount's.
    pub target: String,
}

impl VolumeMount {
    /// Whose the volume is, in a container of `person`'s.
    pub fn owner_in(&self, person: PrincipalId) -> PrincipalId {
        self.owner.unwrap_or(person)
    }
}

/// A container's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// An address on its owner's bridge, with egress by NAT.
    Private,
}

/// Ports of the host that one container can have.
pub const PORTS_MAX: usize = 64;

/// A port of the host that leads to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortLease {
    /// Of both.
    pub protocol: PortProtocol,
    /// On the host, within the supervisor's configured range.
    pub host: u16,
    /// In the container, from 1.
    pub container: u16,
}

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortProtocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl PortProtocol {
    /// As nft(8) and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The kernel's limits of one container. Every one is set; the supervisor refuses those above its
/// configured ceilings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Processor time in thousandths of a core, from 10.
    pub cpu_millis: u32,
    /// Share under contention, 1 to 10000, 100 as the neutral value (cgroup v2's `cpu.weight`).
    pub cpu_weight: u32,
    /// Memory in bytes, page cache included, from 6 MiB.
    pub memory_bytes: u64,
    /// Swap in bytes beside the memory; 0 for none.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What all that runs for somebody may use together. Their monitors count as well: one process and about a
/// mebibyte for each container and for each program beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Total {
    /// Processor time in thousandths of a core, from 10; `None` is as much as there is.
    pub cpu_millis: Option<u32>,
    /// Share under contention with other people's, 1 to 10000, 100 as the neutral value.
    pub cpu_weight: u32,
    /// Memory in bytes, page cache included, from 16 MiB.
    pub memory_bytes: Option<u64>,
    /// Swap in bytes beside the memory. On cgroup v1 it is held together with a bound of memory only.
    pub swap_bytes: Option<u64>,
    /// Processes and threads, from 8.
    pub pids: Option<u32>,
    /// Share of the disk under contention with other people's, 1 to 10000, 100 as the neutral value. It takes a disk
    /// whose scheduler looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u32>,
    /// Bytes per second that are read from the disk, [`RATE_BYTES_MIN`] to [`RATE_BYTES_MAX`]. cgroup v1 cannot hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_bytes_per_sec: Option<u64>,
    /// Bytes per second that are written to the disk, bounded alike. cgroup v1 cannot hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_bytes_per_sec: Option<u64>,
    /// Bytes per second that their containers send to others than one another, and as many that they receive:
    /// [`NET_BYTES_MIN`] to [`RATE_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_bytes_per_sec: Option<u64>,
}

/// The least rate of a disk, in bytes per second: a container's end waits for what is being written.
pub const RATE_BYTES_MIN: u64 = 1 << 20;
/// The least rate of the network, in bytes per second.
pub const NET_BYTES_MIN: u64 = 16 << 10;
/// The largest rate of either, in bytes per second.
pub const RATE_BYTES_MAX: u64 = 10_000_000_000;

impl Total {
    /// No bound.
    pub const FREE: Self = Self {
        cpu_millis: None,
        cpu_weight: 100,
        memory_bytes: None,
        swap_bytes: None,
        pids: None,
        io_weight: None,
        io_read_bytes_per_sec: None,
        io_write_bytes_per_sec: None,
        net_bytes_per_sec: None,
    };
}

impl Default for Total {
    fn default() -> Self {
        Self::FREE
    }
}

/// How output is kept: `files_max` segments of at most `file_bytes_max` bytes, oldest dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// A segment's size in bytes, 64 KiB to 1 GiB.
    pub file_bytes_max: u64,
    /// Segments kept, 1 to 10.
    pub files_max: u32,
}

/// How a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopOptions {
    /// The signal that asks for the end, 1 to 64.
    pub signal: i32,
    /// Seconds until every process is killed, at most 600.
    pub grace_secs: u32,
}

/// What the supervisor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The request was refused or has failed; nothing of it is left unless the code says so.
    Failed(Failure),
    /// Done; nothing else to say.
    Done {},
    /// To [`Request::Hello`].
    Hello(Hello),
    /// To [`Request::Doctor`].
    Doctor(DoctorReport),
    /// To [`Request::PersonAdd`].
    Person(PersonRange),
    /// To [`Request::PersonData`] and [`Request::PersonDataUse`].
    PersonData(DataUse),
    /// To [`Request::VolumeMeasure`].
    VolumeUse(VolumeUse),
    /// To [`Request::Files`]: one.
    File(FileFacts),
    /// The same: what a folder holds. `is_whole` is false for one with more names than are looked at.
    Files { files: Vec<FileFacts>, more: bool, is_whole: bool },
    /// The same: how many files and folders went; asked again, it goes on with the rest when not all did.
    FilesRemoved { entries: u64, is_whole: bool },
    /// To [`Request::UploadOpen`]: how much of it there is.
    Upload { bytes: u64 },
    /// To [`Request::PersonList`].
    People { people: Vec<PersonRange>, more: bool },
    /// To [`Request::LayerUnpack`].
    LayerUnpacked(LayerFacts),
    /// To [`Request::LayerVerify`].
    LayerVerified(LayerVerified),
    /// To [`Request::LayerList`].
    Layers { layers: Vec<Digest>, more: bool },
    /// To [`Request::ContainerStart`].
    Started(Box<ContainerRecord>),
    /// To [`Request::ContainerUpdate`].
    Limits { limits: Vec<LimitState> },
    /// To [`Request::ContainerState`].
    Container(Box<ContainerRecord>),
    /// To [`Request::ContainerList`].
    Containers { containers: Vec<ContainerRecord>, more: bool },
    /// To [`Request::ContainerLogs`]: segment numbers, oldest first, one descriptor each, in order.
    /// Numbers grow by one per rotation and are never reused; the last one is being written.
    Logs { segments: Vec<u64> },
    /// To [`Request::ContainerExec`]. Descriptor 0 is the connection that it lives by ([`ExecOrder`],
    /// [`ExecEvent`]); then comes the terminal's master, or its standard input, output and error.
    /// All but the first are non-blocking.
    ExecStarted {},
    /// To [`Request::ContainerProcesses`].
    Processes { processes: Vec<ProcessInfo>, truncated: bool },
    /// To [`Request::ContainerPosture`]: at most [`POSTURE_LINES_MAX`].
    Posture { lines: Vec<PostureLine> },
}

/// Versions and facts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The supervisor's [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The supervisor's package version.
    pub build: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The host's logical processors.
    pub cpus: u32,
    /// The host's memory, in bytes.
    pub memory_bytes: u64,
    /// What the kernel holds all containers together to, so that the rest is the host's. An older supervisor
    /// says nothing of it.
    #[serde(default)]
    pub together: Vec<LimitState>,
}

/// The doctor's report, most basic check first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoctorReport {
    /// One per thing looked at.
    pub checks: Vec<DoctorCheck>,
}

/// One thing this host has or lacks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoctorCheck {
    /// A stable identifier, such as `cgroup.layout`.
    pub id: String,
    /// How it stands.
    pub status: DoctorStatus,
    /// What was found, in one line.
    pub found: String,
    /// What a lack costs; empty when nothing is lacking.
    pub costs: String,
    /// How to mend it; empty when nothing is lacking.
    pub mend: String,
}

/// How one check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoctorStatus {
    /// As it should be.
    Ok,
    /// Berth runs, with something missing.
    Lack,
    /// Berth cannot run.
    Blocker,
}

/// A person's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonRange {
    /// Who.
    pub person: PrincipalId,
    /// Whose resources they count to.
    pub group: PrincipalId,
    /// The first of [`PersonRange::ids`] host ids.
    pub first_id: u32,
    /// How many (65,536).
    pub ids: u32,
    /// What all that runs for them may use together; unbounded from a supervisor that knows of none.
    #[serde(default)]
    pub total: Total,
    /// What all that runs for their group may use together; the same.
    #[serde(default)]
    pub group_total: Total,
    /// What they may keep on disk, in bytes; unbounded from a supervisor that knows of no bound.
    #[serde(default)]
    pub data_bytes: Option<u64>,
}

/// What a person keeps on disk, and may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataUse {
    /// How that is held.
    pub way: DataWay,
    /// Bytes at most, with what the file system itself takes.
    pub limit_bytes: Option<u64>,
    /// Bytes in use; not counted where nothing bounds them.
    pub used_bytes: Option<u64>,
}

/// What a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUse {
    /// Bytes on disk, of files with several names once.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: u64,
    /// Whether all of it was counted; else it is more than that.
    pub is_whole: bool,
}

/// How the kernel holds what a person keeps on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataWay {
    /// Not at all: it lies beside everybody else's.
    Shared,
    /// By a file system of their own.
    Image,
}

/// What unpacking found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The layer's name.
    pub blob: Digest,
    /// Entries written.
    pub entries: u64,
    /// Bytes of file content written.
    pub bytes: u64,
    /// Device nodes left out (containers get theirs from the profile).
    pub devices_skipped: u64,
}

/// What comparing a layer with the bytes that it was unpacked from has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerVerified {
    /// The layer's name.
    pub blob: Digest,
    /// Files, directories, links and others that were compared.
    pub entries: u64,
    /// All differences.
    pub differences: u64,
    /// The first 32 of them.
    pub shown: Vec<LayerDifference>,
}

/// One thing that is not as it was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDifference {
    /// Its path in the layer, escaped and cut to be shown.
    pub path: String,
    /// What is different.
    pub harm: LayerHarm,
}

/// In what an entry of a layer differs from how it was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerHarm {
    /// It is gone.
    Missing,
    /// It is there, and should not be.
    Added,
    /// It is something else: a link where a file should be.
    Kind,
    /// Its permissions.
    Mode,
    /// Its owner or group.
    Owner,
    /// Its extended attributes.
    Attributes,
    /// Its length.
    Size,
    /// What is in it.
    Content,
    /// The disk gives it out no more.
    Unreadable,
    /// Where the link leads.
    Target,
    /// The device's numbers.
    Device,
}

/// Lines of a posture at most; those for mounts, which come last, are left out beyond it.
pub const POSTURE_LINES_MAX: usize = 120;

/// One thing that confines a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureLine {
    /// What it is: `seccomp`, `namespace.pid`, `limit.memory`, `mount./proc`.
    pub id: String,
    /// How it stands.
    pub word: PostureWord,
    /// What the kernel shows.
    pub value: String,
    /// What that means, or why it is so.
    pub reason: String,
}

/// How one thing that confines a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostureWord {
    /// As the default profile has it, or stricter.
    Holds,
    /// Wider than that.
    Loosened,
    /// This host does not have it.
    Absent,
}

/// A process as the host sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its id in the container's own pid namespace.
    pub pid: i32,
    /// Its parent's id there; 0 for the first process.
    pub parent: i32,
    /// Its effective user id inside the container.
    pub uid: u32,
    /// One letter, as in `/proc/<pid>/stat`.
    pub state: char,
    /// Seconds of processor time used.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Seconds since its start.
    pub age_seconds: u64,
    /// The command line, spaces between arguments, at most 512 bytes, lossily decoded.
    pub command: String,
}

/// What a monitor says of its own accord; a reader needs only to know that something changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum MonitorEvent {
    /// The container has ended and its exit record is on disk.
    Exited {},
    /// The kernel killed a process of the container for memory; the container may run on.
    OutOfMemory {},
}
