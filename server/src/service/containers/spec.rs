//! What a container is made from: the request, checked field by field; the same merged with its
//! image's configuration, checked again, because an image is somebody else's text.
//!
//! Pure. The supervisor checks all of it a third time against its own ceilings and profile.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use berth_runtime::config::{RuntimeConfig, is_data_set_name};
use berth_runtime::id::VolumeId;
use berth_runtime::wire::{self, Limits};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::ContainersConfig;
use crate::error::{Error, FieldError, Refusal, Result};
use crate::inventory::data_sets;
use crate::inventory::volumes::Mount;
use crate::service::lifetimes::{SECS_MAX, SECS_MIN};
use crate::service::ports;
use crate::service::restart::{ATTEMPTS_MAX, RestartPolicy};

const ARGS_MAX: usize = 1024;
const ENV_MAX: usize = 1024;
/// Arguments and environment together; execve(2) and a message to the supervisor have limits too.
const PROGRAM_BYTES_MAX: usize = 64 * 1024;
const PATH_BYTES_MAX: usize = 1024;
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 1024;
const TMPFS_MAX: usize = 16;
/// An object's name.
const NAME_BYTES_MAX: usize = 63;
/// A person's name, a slash and a volume's.
const VOLUME_BYTES_MAX: usize = 32 + 1 + NAME_BYTES_MAX;
const GRACE_SECS_MAX: u32 = 600;
const MEMORY_BYTES_MIN: u64 = 6 << 20;
const CPU_MILLIS_MIN: u32 = 10;
const CPU_WEIGHT_MAX: u32 = 10_000;
/// The kernel's smallest sensible file system in memory: one page.
const TMPFS_BYTES_MIN: u64 = 4096;
/// Ids inside a container.
const IDS: u32 = 65_536;
/// What an image that says nothing of it gets, as every engine does.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// setrlimit(2)'s names in lower case, without prefix.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// capabilities(7), without prefix.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A terminal's size until somebody attaches who has another.
const TERMINAL_FIRST: wire::TerminalSize = wire::TerminalSize { columns: 80, rows: 24 };

/// A container to be made. What is left out comes from the image, or is the operator's default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = ContainerCreate, example = json!({
    "name": "hello", "image": "berth/starter", "start": true,
    "command": ["sh", "-c", "while date; do sleep 1; done"],
    "limits": {"memory_bytes": 67_108_864, "cpu_millis": 500},
}))]
pub struct CreateRequest {
    /// 1 to 63 lower-case letters, digits, '.', '_' or '-', a letter or digit first; made up from
    /// the image's name when left out.
    pub name: Option<String>,
    /// A reference, as one would pull it, or an image's id.
    #[schema(required = true)]
    pub image: String,
    /// In place of the image's entrypoint; the image's command is then left out too.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's command: arguments to the entrypoint, or program and arguments.
    pub command: Option<Vec<String>>,
    /// Environment, over the image's.
    pub env: BTreeMap<String, String>,
    /// Absolute path inside; made if absent.
    pub working_dir: Option<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// One label of a host name; the container's name when left out.
    pub hostname: Option<String>,
    /// For people and programs to find it by.
    pub labels: BTreeMap<String, String>,
    /// Asks the program to end: `TERM`, `SIGINT`, `10`.
    pub stop_signal: Option<String>,
    /// Seconds until it is killed after that, 0 to 600.
    pub stop_grace_secs: Option<u32>,
    /// When it is started again after its end.
    pub restart: RestartPolicy,
    /// Seconds until it is stopped, from each start that somebody asks for, 10 to 31536000; what is usual for its
    /// owner when left out.
    pub lifetime_secs: Option<u32>,
    /// Mount its root read-only.
    pub read_only_root: bool,
    /// File systems in memory, counted to its memory.
    pub tmpfs: Vec<TmpfsMount>,
    /// Volumes of one's own or shared with one, at most 32.
    pub mounts: Vec<MountRequest>,
    /// Data sets of the operator's to read, at most 16.
    pub data_sets: Vec<DataSetRequest>,
    /// Size of `/dev/shm`.
    pub shm_bytes: Option<u64>,
    /// Resource limits by name, such as `nofile`; never above the profile's.
    pub ulimits: BTreeMap<String, UlimitPair>,
    /// Capabilities to leave out of the default profile's; `ALL` for all.
    pub capabilities_dropped: Vec<String>,
    /// Its network.
    pub network: Network,
    /// Ports of the host that lead to it, at most 64; until it is removed they are its own.
    pub ports: Vec<PortRequest>,
    /// Give its program a terminal that people can attach to.
    pub terminal: bool,
    /// Keep its standard input open for people who attach; a terminal's is in any case.
    pub stdin: bool,
    /// Its limits.
    pub limits: LimitsRequest,
    /// Start it at once.
    pub start: bool,
}

/// A file system in memory.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TmpfsMount {
    /// Absolute path inside.
    pub target: String,
    /// Size at most.
    pub size_bytes: u64,
}

/// A volume at a place in a container. A volume that was never used begins with what the image has there.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// Its name, or its id; of one that is shared with one, its owner's name, a slash and its name, or its id.
    pub volume: String,
    /// Absolute path inside.
    pub target: String,
    /// Whether nothing can be written to it there.
    #[serde(default)]
    pub read_only: bool,
    /// A directory or file in it that is mounted instead of the whole; it has to be there at each start.
    #[serde(default)]
    pub sub_path: Option<String>,
}

/// A data set at a place in a container, to be read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSetRequest {
    /// What the operator calls it.
    pub name: String,
    /// Absolute path inside.
    pub target: String,
}

/// A port of the host that is to lead to one of a container.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortRequest {
    /// In the container, from 1.
    #[schema(minimum = 1, maximum = 65535)]
    pub container_port: u16,
    /// On the host, within the operator's range; a free one when left out.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// Of both.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What a port is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A soft and a hard limit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UlimitPair {
    /// What holds now.
    pub soft: u64,
    /// What the program may raise it to.
    pub hard: u64,
}

/// A container's network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// An address on its owner's bridge, and the way out by NAT.
    #[default]
    Private,
    /// Loopback only.
    None,
}

/// Limits as asked for; what is left out is the operator's default, or stays as it is in a change.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = LimitsChange)]
pub struct LimitsRequest {
    /// Processor time in thousandths of a core, from 10.
    pub cpu_millis: Option<u32>,
    /// Share under contention, 1 to 10000; 100 is neutral.
    pub cpu_weight: Option<u32>,
    /// Memory, page cache included, from 6 MiB.
    pub memory_bytes: Option<u64>,
    /// Swap beside the memory; 0 for none.
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// What an image says of containers made from it (OCI image-spec, config.md).
#[derive(Debug, Clone, Default)]
pub struct ImageDefaults {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: String,
}

/// Request and image merged: what the container is started from, and kept in the inventory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) process: wire::ProcessSpec,
    pub(crate) hostname: String,
    pub(crate) read_only_root: bool,
    pub(crate) tmpfs: Vec<wire::Tmpfs>,
    pub(crate) shm_bytes: u64,
    pub(crate) network: wire::NetworkMode,
    pub(crate) stop: wire::StopOptions,
    /// Older ones have none.
    #[serde(default)]
    pub(crate) console: wire::Console,
}

/// Collects what is wrong, so that a caller learns all of it at once.
#[derive(Default)]
pub(crate) struct Faults(Vec<FieldError>);

/// Names are one file name, one word on a command line and one host name at most; never an id.
pub(crate) fn check_name(pointer: &str, name: &str) -> Result<()> {
    let mut faults = Faults::default();
    faults.name(pointer, name);
    faults.into_result()
}

/// Checks everything of a request that can be judged without its image.
pub(crate) fn check(
    request: &CreateRequest,
    config: &ContainersConfig,
    runtime: &RuntimeConfig,
) -> Result<()> {
    let mut faults = Faults::default();
    if let Some(name) = &request.name {
        faults.name("/name", name);
    }
    if request.image.is_empty() || request.image.len() > PATH_BYTES_MAX {
        faults.add("/image", "name an image, such as debian:12");
    }
    for (pointer, words) in [("/entrypoint", &request.entrypoint), ("/command", &request.command)] {
        faults.words(pointer, words.as_deref().unwrap_or_default());
    }
    faults.env(&request.env);
    if let Some(path) = &request.working_dir {
        faults.path("/working_dir", path);
    }
    if let Some(user) = &request.user {
        faults.user("/user", user);
    }
    if let Some(name) = request.hostname.as_deref().filter(|name| !is_host_label(name)) {
        faults.add("/hostname", format!("{name:?} is no label of a host name (RFC 1123)"));
    }
    faults.labels(&request.labels);
    if let Some(name) = request.stop_signal.as_deref().filter(|name| parse_signal(name).is_none()) {
        faults.add("/stop_signal", format!("{name:?} is no signal, such as TERM or 15"));
    }
    if request.stop_grace_secs.is_some_and(|secs| secs > GRACE_SECS_MAX) {
        faults.add("/stop_grace_secs", format!("is more than {GRACE_SECS_MAX}"));
    }
    faults.restart(request.restart);
    if let Some(secs) = request.lifetime_secs
        && !(SECS_MIN..=SECS_MAX).contains(&secs)
    {
        faults.add("/lifetime_secs", format!("{secs} is not from {SECS_MIN} to {SECS_MAX}"));
    }
    faults.tmpfs(&request.tmpfs);
    faults.mounts(&request.mounts, &request.tmpfs);
    faults.data_sets(request);
    faults.ulimits(&request.ulimits);
    for (index, name) in request.capabilities_dropped.iter().enumerate() {
        if parse_capability(name).is_none() {
            faults.add(
                &format!("/capabilities_dropped/{index}"),
                format!("{name:?} is no capability"),
            );
        }
    }
    let limits = merge_limits(&request.limits, &config.default_limits);
    faults.limits("/limits", &limits, &runtime.ceilings);
    faults.ports(&request.ports, request.network, runtime);
    if request.shm_bytes.is_some_and(|bytes| bytes < TMPFS_BYTES_MIN || bytes > limits.memory_bytes)
    {
        faults.add("/shm_bytes", "is not between 4096 and the memory limit");
    }
    faults.into_result()
}

/// Checks limits that are to replace others.
pub(crate) fn check_limits(limits: &Limits, ceilings: &Limits) -> Result<()> {
    let mut faults = Faults::default();
    faults.limits("", limits, ceilings);
    faults.into_result()
}

/// Checks a policy that is to replace another.
pub(crate) fn check_restart(policy: RestartPolicy) -> Result<()> {
    let mut faults = Faults::default();
    faults.restart(policy);
    faults.into_result()
}

/// The limits asked for, with `defaults` for what was left out.
pub(crate) fn merge_limits(request: &LimitsRequest, defaults: &Limits) -> Limits {
    Limits {
        cpu_millis: request.cpu_millis.unwrap_or(defaults.cpu_millis),
        cpu_weight: request.cpu_weight.unwrap_or(defaults.cpu_weight),
        memory_bytes: request.memory_bytes.unwrap_or(defaults.memory_bytes),
        swap_bytes: request.swap_bytes.unwrap_or(defaults.swap_bytes),
        pids: request.pids.unwrap_or(defaults.pids),
    }
}

/// Request and image together; the request has been checked before.
pub(crate) fn merge(
    request: &CreateRequest,
    name: &str,
    image: &ImageDefaults,
    config: &ContainersConfig,
) -> Result<Spec> {
    let mut args = request.entrypoint.clone().unwrap_or_else(|| image.entrypoint.clone());
    match &request.command {
        Some(command) => args.extend(command.iter().cloned()),
        // An entrypoint of one's own makes the image's arguments meaningless.
        None if request.entrypoint.is_none() => args.extend(image.command.iter().cloned()),
        None => {}
    }
    let signal = match &request.stop_signal {
        Some(name) => parse_signal(name),
        // An image's odd signal must not keep it from being used.
        None => parse_signal(&image.stop_signal).or(Some(Signal::SIGTERM as i32)),
    };
    let user = request.user.as_ref().unwrap_or(&image.user);
    let cwd = request.working_dir.as_ref().unwrap_or(&image.working_dir);
    let limits = merge_limits(&request.limits, &config.default_limits);
    let mut env = merge_env(&image.env, &request.env);
    if request.terminal {
        add_terminal_kind(&mut env);
    }
    let spec = Spec {
        process: wire::ProcessSpec {
            args,
            env,
            cwd: if cwd.starts_with('/') { cwd.clone() } else { format!("/{cwd}") },
            user: user.clone(),
            capabilities_dropped: capabilities(&request.capabilities_dropped),
            ulimits: request
                .ulimits
                .iter()
                .map(|(name, pair)| (name.clone(), pair.into()))
                .collect(),
        },
        hostname: request.hostname.clone().unwrap_or_else(|| host_label(name)),
        read_only_root: request.read_only_root,
        tmpfs: request.tmpfs.iter().map(wire::Tmpfs::from).collect(),
        shm_bytes: request.shm_bytes.unwrap_or(config.shm_bytes).min(limits.memory_bytes),
        network: match request.network {
            Network::Private => wire::NetworkMode::Private,
            Network::None => wire::NetworkMode::None,
        },
        stop: wire::StopOptions {
            signal: signal.unwrap_or(Signal::SIGTERM as i32),
            grace_secs: request.stop_grace_secs.unwrap_or(config.stop_grace_secs),
        },
        console: wire::Console {
            terminal: request.terminal.then_some(TERMINAL_FIRST),
            stdin: request.stdin || request.terminal,
        },
    };
    check_merged(&spec)?;
    Ok(spec)
}

/// A signal's number, by name with or without `SIG`, or by number.
pub(crate) fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        return Some(number).filter(|number| plain && (1..=64).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&name).ok().map(|signal| signal as i32)
}

/// A signal's name without `SIG`, for people.
pub(crate) fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().trim_start_matches("SIG").to_owned(),
        // signal(7): the real-time ones have no names of their own.
        Err(_) => number.to_string(),
    }
}

/// Checks what a program is called with, whatever it was put together from. In the request it lies at
/// `base`.
pub(crate) fn check_program(base: &str, args: &[String], env: &[String]) -> Result<()> {
    let mut faults = Faults::default();
    faults.program(args, env);
    faults.below(base).into_result()
}

/// What came of request and image together must be right by itself.
fn check_merged(spec: &Spec) -> Result<()> {
    let process = &spec.process;
    let mut faults = Faults::default();
    if process.args.is_empty() {
        faults.add("/command", "the image names no program to run; give a command");
    }
    faults.program(&process.args, &process.env);
    faults.path("/working_dir", &process.cwd);
    if parse_user(&process.user).is_none() {
        faults
            .add("/user", format!("the image's user {:?} cannot be used; give one", process.user));
    }
    faults.into_result()
}

/// Says what a terminal in a browser or of today understands, unless something else is said.
pub(crate) fn add_terminal_kind(env: &mut Vec<String>) {
    if !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm-256color".to_owned());
    }
}

fn merge_env(image: &[String], request: &BTreeMap<String, String>) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let mut seen = BTreeSet::new();
    let mut env: Vec<String> = Vec::new();
    for entry in image {
        let Some(name) = name(entry).filter(|name| is_env_name(name)) else { continue };
        if entry.contains('\0') || request.contains_key(&name) || !seen.insert(name) {
            continue;
        }
        env.push(entry.clone());
    }
    env.extend(request.iter().map(|(name, value)| format!("{name}={value}")));
    if !seen.contains("PATH") && !request.contains_key("PATH") {
        env.push(format!("PATH={PATH_DEFAULT}"));
    }
    env
}

fn capabilities(names: &[String]) -> Vec<String> {
    let names: BTreeSet<String> = names.iter().filter_map(|name| parse_capability(name)).collect();
    names.into_iter().collect()
}

/// `CHOWN`, `cap_chown` and `CAP_CHOWN` as `CAP_CHOWN`; `ALL`.
fn parse_capability(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" {
        return Some("ALL".to_owned());
    }
    CAPABILITIES.contains(&name).then(|| format!("CAP_{name}"))
}

/// `user[:group]`: names as shadow-utils has them, numbers without sign, zeros in front or overflow.
fn parse_user(text: &str) -> Option<()> {
    if text.is_empty() {
        return Some(());
    }
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let good = |part: &str| {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            let canonical = part == "0" || !part.starts_with('0');
            return canonical && part.parse::<u32>().is_ok_and(|id| id < IDS);
        }
        let first = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let rest = |c: char| c.is_ascii_alphanumeric() || "_.-$".contains(c);
        first && part.len() <= 32 && part.chars().all(rest)
    };
    (good(user) && group.is_none_or(good)).then_some(())
}

fn is_env_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && name.len() <= 256
}

fn is_host_label(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(good)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A host name's label from a container's name.
fn host_label(name: &str) -> String {
    let label: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "container".to_owned() } else { label.to_owned() }
}

impl From<Protocol> for wire::PortProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<wire::PortProtocol> for Protocol {
    fn from(protocol: wire::PortProtocol) -> Self {
        match protocol {
            wire::PortProtocol::Tcp => Self::Tcp,
            wire::PortProtocol::Udp => Self::Udp,
        }
    }
}

impl From<&UlimitPair> for wire::Ulimit {
    fn from(pair: &UlimitPair) -> Self {
        Self { soft: pair.soft, hard: pair.hard }
    }
}

/// One spelling only: the supervisor takes no path that could be read in two ways.
fn one_spelling(target: &str) -> String {
    parts(target).map(|part| format!("/{part}")).collect()
}

impl From<&TmpfsMount> for wire::Tmpfs {
    fn from(mount: &TmpfsMount) -> Self {
        Self { target: one_spelling(&mount.target), size_bytes: mount.size_bytes }
    }
}

impl MountRequest {
    /// As it is kept, of the volume that it means.
    pub(crate) fn of(&self, volume: VolumeId) -> Mount {
        let sub_path = self.sub_path.as_deref().map(one_spelling);
        Mount {
            volume,
            name: String::new(),
            owner: None,
            target: one_spelling(&self.target),
            read_only: self.read_only,
            sub_path: sub_path.map(|path| path.trim_start_matches('/').to_owned()),
        }
    }
}

impl DataSetRequest {
    /// As it is kept.
    pub(crate) fn of(&self) -> data_sets::Mount {
        data_sets::Mount { name: self.name.clone(), target: one_spelling(&self.target) }
    }
}

impl Faults {
    pub(crate) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.to_owned(), detail: detail.into() });
    }

    pub(crate) fn into_result(self) -> Result<()> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let detail = format!("{}: {}", first.pointer.trim_start_matches('/'), first.detail);
        Err(Error::Invalid { refusal: Refusal::new("request.invalid", detail), fields: self.0 })
    }

    fn name(&mut self, pointer: &str, name: &str) {
        let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if !first || name.len() > 63 || !name.chars().all(good) {
            let rule =
                "use 1 to 63 lower-case letters, digits, '.', '_' or '-', a letter or digit first";
            self.add(pointer, rule);
        } else if name.len() >= 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            self.add(pointer, "reads like a container's id");
        }
    }

    /// The same, of what lies at `base` in a request.
    pub(crate) fn below(mut self, base: &str) -> Self {
        for fault in &mut self.0 {
            fault.pointer.insert_str(0, base);
        }
        self
    }

    pub(crate) fn words(&mut self, pointer: &str, words: &[String]) {
        if words.len() > ARGS_MAX {
            self.add(pointer, format!("holds more than {ARGS_MAX} words"));
        }
        if words.first().is_some_and(String::is_empty) {
            self.add(&format!("{pointer}/0"), "is empty, so it names no program");
        }
        if let Some(index) = words.iter().position(|word| word.contains('\0')) {
            self.add(&format!("{pointer}/{index}"), "holds a NUL character");
        }
    }

    fn program(&mut self, args: &[String], env: &[String]) {
        self.words("/command", args);
        let bytes = |texts: &[String]| texts.iter().map(|text| text.len() + 1).sum::<usize>();
        if bytes(args) + bytes(env) > PROGRAM_BYTES_MAX {
            self.add(
                "/env",
                format!(
                    "entrypoint, command and environment, the image's included, exceed \
                     {PROGRAM_BYTES_MAX} bytes"
                ),
            );
        }
        if env.len() > ENV_MAX {
            self.add("/env", format!("holds more than {ENV_MAX}, the image's included"));
        }
    }

    pub(crate) fn env(&mut self, env: &BTreeMap<String, String>) {
        if env.len() > ENV_MAX {
            self.add("/env", format!("holds more than {ENV_MAX}"));
        }
        for (name, value) in env {
            if !is_env_name(name) || value.contains('\0') {
                let pointer = format!("/env/{}", escape(name));
                self.add(&pointer, "names are not empty and hold no '='; neither part holds a NUL");
            }
        }
    }

    pub(crate) fn user(&mut self, pointer: &str, user: &str) {
        if parse_user(user).is_none() {
            let rule = format!("{user:?} is no user[:group], by name or by number below {IDS}");
            self.add(pointer, rule);
        }
    }

    pub(crate) fn path(&mut self, pointer: &str, path: &str) {
        let climbs = path.split('/').any(|part| part == "..");
        if !path.starts_with('/') || path.contains('\0') || climbs || path.len() > PATH_BYTES_MAX {
            self.add(pointer, format!("{path:?} is no absolute path without '..'"));
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if labels.len() > LABELS_MAX {
            self.add("/labels", format!("holds more than {LABELS_MAX}"));
        }
        for (name, value) in labels {
            let pointer = format!("/labels/{}", escape(name));
            let good = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            if name.is_empty() || name.len() > 128 || !name.chars().all(good) {
                self.add(&pointer, "names are 1 to 128 letters, digits, '.', '_', '-' or '/'");
            }
            if value.len() > LABEL_BYTES_MAX || value.chars().any(char::is_control) {
                self.add(
                    &pointer,
                    format!("is longer than {LABEL_BYTES_MAX} or holds control characters"),
                );
            }
        }
    }

    fn restart(&mut self, policy: RestartPolicy) {
        if let RestartPolicy::OnFailure { max_attempts: Some(attempts) } = policy
            && !(1..=ATTEMPTS_MAX).contains(&attempts)
        {
            self.add("/restart/max_attempts", format!("is not between 1 and {ATTEMPTS_MAX}"));
        }
    }

    fn tmpfs(&mut self, mounts: &[TmpfsMount]) {
        if mounts.len() > TMPFS_MAX {
            self.add("/tmpfs", format!("holds more than {TMPFS_MAX}"));
        }
        let mut seen = BTreeSet::new();
        for (index, mount) in mounts.iter().enumerate() {
            let pointer = format!("/tmpfs/{index}/target");
            self.path(&pointer, &mount.target);
            let parts: Vec<&str> = parts(&mount.target).collect();
            if parts.first().is_none_or(|first| ["proc", "sys", "dev"].contains(first)) {
                self.add(&pointer, "is the root, or lies in /proc, /sys or /dev");
            }
            if !seen.insert(parts) {
                self.add(&pointer, "is named twice");
            }
            if mount.size_bytes < TMPFS_BYTES_MIN || i64::try_from(mount.size_bytes).is_err() {
                self.add(&format!("/tmpfs/{index}/size_bytes"), "is less than 4096 or too large");
            }
        }
    }

    fn mounts(&mut self, mounts: &[MountRequest], tmpfs: &[TmpfsMount]) {
        if mounts.len() > wire::VOLUMES_MAX {
            self.add("/mounts", format!("holds more than {}", wire::VOLUMES_MAX));
        }
        let memory = tmpfs.iter().map(|mount| one_spelling(&mount.target));
        let mut seen: BTreeSet<String> = memory.collect();
        for (index, mount) in mounts.iter().enumerate() {
            if mount.volume.is_empty() || mount.volume.len() > VOLUME_BYTES_MAX {
                let text = "name one of your volumes, or one that is shared with you as owner/name";
                self.add(&format!("/mounts/{index}/volume"), text);
            }
            self.place(&format!("/mounts/{index}/target"), &mount.target, &mut seen);
            let Some(path) = &mount.sub_path else { continue };
            let climbs = path.split('/').any(|part| part == "..");
            let long = path.len() > PATH_BYTES_MAX;
            let none = path.starts_with('/') || parts(path).next().is_none();
            if climbs || long || none || path.contains('\0') {
                let text = format!("{path:?} is no path from the volume's own top, without '..'");
                self.add(&format!("/mounts/{index}/sub_path"), text);
            }
        }
    }

    /// The place of a mount, beside those that were `seen` before.
    fn place(&mut self, pointer: &str, target: &str, seen: &mut BTreeSet<String>) {
        self.path(pointer, target);
        let first = parts(target).next();
        if first.is_none_or(|first| ["proc", "sys", "dev"].contains(&first)) {
            self.add(pointer, "is the root, or lies in /proc, /sys or /dev");
        }
        if !seen.insert(one_spelling(target)) {
            self.add(pointer, "is another mount's place too");
        }
    }

    fn data_sets(&mut self, request: &CreateRequest) {
        if request.data_sets.len() > wire::DATA_SET_MOUNTS_MAX {
            self.add("/data_sets", format!("holds more than {}", wire::DATA_SET_MOUNTS_MAX));
        }
        let memory = request.tmpfs.iter().map(|mount| &mount.target);
        let volumes = request.mounts.iter().map(|mount| &mount.target);
        let mut seen: BTreeSet<String> =
            memory.chain(volumes).map(|path| one_spelling(path)).collect();
        for (index, one) in request.data_sets.iter().enumerate() {
            if !is_data_set_name(&one.name) {
                let text =
                    format!("{:?} is no data set's name; see GET /api/v1/data-sets", one.name);
                self.add(&format!("/data_sets/{index}/name"), text);
            }
            self.place(&format!("/data_sets/{index}/target"), &one.target, &mut seen);
        }
    }

    fn ports(&mut self, ports: &[PortRequest], network: Network, runtime: &RuntimeConfig) {
        if ports.len() > wire::PORTS_MAX {
            self.add("/ports", format!("holds more than {}", wire::PORTS_MAX));
        }
        if !ports.is_empty() && network == Network::None {
            self.add("/ports", "a container without a network has no ports");
        }
        let range = ports::range(runtime);
        if !ports.is_empty() && range.is_none() {
            self.add("/ports", "the operator has given no ports of the host to be leased");
        }
        for (index, port) in ports.iter().enumerate() {
            if port.container_port == 0 {
                self.add(&format!("/ports/{index}/container_port"), "0 is no port");
            }
            let Some(host) = port.host_port else { continue };
            let pointer = format!("/ports/{index}/host_port");
            if let Some(range) = range.as_ref().filter(|range| !range.contains(&host)) {
                let (first, last) = (range.start(), range.end());
                self.add(&pointer, format!("{host} is not one of {first} to {last}"));
            }
            let same = |other: &PortRequest| {
                (other.host_port, other.protocol) == (Some(host), port.protocol)
            };
            if ports[..index].iter().any(same) {
                self.add(&pointer, "is named twice");
            }
        }
    }

    fn ulimits(&mut self, ulimits: &BTreeMap<String, UlimitPair>) {
        for (name, pair) in ulimits {
            let pointer = format!("/ulimits/{}", escape(name));
            if !ULIMITS.contains(&name.as_str()) {
                self.add(&pointer, format!("is none of {}", ULIMITS.join(", ")));
            }
            if pair.soft > pair.hard {
                self.add(&pointer, "the soft limit is above the hard one");
            }
        }
    }

    fn limits(&mut self, base: &str, limits: &Limits, ceilings: &Limits) {
        let checks: [(&str, u64, u64, u64); 5] = [
            (
                "cpu_millis",
                limits.cpu_millis.into(),
                CPU_MILLIS_MIN.into(),
                ceilings.cpu_millis.into(),
            ),
            (
                "cpu_weight",
                limits.cpu_weight.into(),
                1,
                ceilings.cpu_weight.min(CPU_WEIGHT_MAX).into(),
            ),
            ("memory_bytes", limits.memory_bytes, MEMORY_BYTES_MIN, ceilings.memory_bytes),
            ("swap_bytes", limits.swap_bytes, 0, ceilings.swap_bytes),
            ("pids", limits.pids.into(), 1, ceilings.pids.into()),
        ];
        for (name, value, low, high) in checks {
            if value < low || value > high {
                let detail =
                    format!("{value} is not between {low} and the operator's ceiling {high}");
                self.add(&format!("{base}/{name}"), detail);
            }
        }
    }
}

/// A path's names.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// A member's name inside a JSON pointer (RFC 6901, section 3), cut to what a message needs.
fn escape(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    short.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use berth_runtime::config::RuntimeConfig;

    use super::*;

    fn config() -> ContainersConfig {
        ContainersConfig::default()
    }

    fn pointers(json: &str) -> Vec<String> {
        let request: CreateRequest = serde_json::from_str(json).expect("the form is right");
        match check(&request, &config(), &RuntimeConfig::default()) {
            Ok(()) => Vec::new(),
            Err(Error::Invalid { fields, .. }) => fields.into_iter().map(|f| f.pointer).collect(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_wrong_field_is_pointed_at() {
        let many = r#"{"image": "", "name": "A", "working_dir": "x", "user": "-1", "hostname": "-",
            "stop_signal": "SIGNOPE", "stop_grace_secs": 601, "env": {"A=B": "", "C": "\u0000"},
            "labels": {"a b": "x"}, "tmpfs": [{"target": "/dev/x", "size_bytes": 1}],
            "ulimits": {"nofile": {"soft": 2, "hard": 1}, "x/y": {"soft": 1, "hard": 1}},
            "capabilities_dropped": ["CHOWN", "NOPE"], "limits": {"memory_bytes": 1, "pids": 0},
            "restart": {"name": "on-failure", "max_attempts": 0}, "command": [""]}"#;
        let expected = [
            "/name",
            "/image",
            "/command/0",
            "/env/A=B",
            "/env/C",
            "/working_dir",
            "/user",
            "/hostname",
            "/labels/a b",
            "/stop_signal",
            "/stop_grace_secs",
            "/restart/max_attempts",
            "/tmpfs/0/target",
            "/tmpfs/0/size_bytes",
            "/ulimits/nofile",
            "/ulimits/x~1y",
            "/capabilities_dropped/1",
            "/limits/memory_bytes",
            "/limits/pids",
        ];
        assert_eq!(pointers(many), expected);
        assert_eq!(pointers(r#"{"image": "debian:12"}"#), Vec::<String>::new());
    }

    #[test]
    fn names_have_one_strict_grammar() {
        let long = "a".repeat(64);
        let id = "0123456789abcdef0123456789abcdef";
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "%2e%2e%2f",
            "a\0",
            "ａ",
            "а",
            "A",
            "a b",
            "a\n",
            &long,
            id,
            &id[..12],
        ] {
            assert!(check_name("/name", bad).is_err(), "{bad:?}");
        }
        for good in ["a", "0", "web-1", "a.b_c", "deadbeef", &"z".repeat(63)] {
            assert!(check_name("/name", good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn users_are_names_or_plain_numbers_below_the_range() {
        for good in ["", "0", "root", "65535", "www-data:www-data", "1000:0", "_apt"] {
            assert!(parse_user(good).is_some(), "{good:?}");
        }
        for bad in [
            "-1",
            "00",
            "65536",
            "2147483648",
            "4294967296",
            "99999999999999999999",
            ":",
            "root:",
            ":0",
            "a b",
            "root:99999999999",
            "+1",
            "a:b:c",
            "1e3",
            "root\0",
        ] {
            assert!(parse_user(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn signals_are_read_by_name_and_number() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("sigint", 2), ("9", 9), ("64", 64)] {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        for bad in ["", "0", "65", "-9", "+9", "SIG", "NOPE"] {
            assert_eq!(parse_signal(bad), None, "{bad}");
        }
        assert_eq!((signal_name(9), signal_name(40)), ("KILL".to_owned(), "40".to_owned()));
    }

    fn image() -> ImageDefaults {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ImageDefaults {
            entrypoint: words(&["/entry"]),
            command: words(&["arg"]),
            env: words(&["A=1", "B=2", "nonsense", "A=3"]),
            working_dir: "srv".to_owned(),
            user: "app".to_owned(),
            stop_signal: "SIGQUIT".to_owned(),
        }
    }

    #[test]
    fn a_request_stands_over_its_image() {
        let merged = |request: CreateRequest| merge(&request, "a.b", &image(), &config());
        let plain = merged(CreateRequest::default()).expect("merged");
        assert_eq!(plain.process.args, ["/entry", "arg"]);
        assert_eq!(plain.process.env[..2], ["A=1", "B=2"]);
        assert!(plain.process.env[2].starts_with("PATH=/usr"), "{:?}", plain.process.env);
        assert_eq!((plain.process.cwd.as_str(), plain.process.user.as_str()), ("/srv", "app"));
        assert_eq!((plain.stop.signal, plain.hostname.as_str()), (3, "a-b"));
        let request = CreateRequest {
            entrypoint: Some(vec!["/other".to_owned()]),
            env: [("A", "9"), ("PATH", "/x")].map(|(k, v)| (k.into(), v.into())).into(),
            capabilities_dropped: vec!["chown".to_owned(), "CAP_CHOWN".to_owned()],
            ..CreateRequest::default()
        };
        let other = merged(request).expect("merged");
        assert_eq!(other.process.args, ["/other"]);
        assert_eq!(other.process.env, ["B=2", "A=9", "PATH=/x"]);
        assert_eq!(other.process.capabilities_dropped, ["CAP_CHOWN"]);
    }

    #[test]
    fn what_an_image_says_is_checked_too() {
        let with = |image: ImageDefaults| {
            merge(&CreateRequest::default(), "a", &image, &config()).map(|_| ())
        };
        assert!(with(image()).is_ok());
        assert!(with(ImageDefaults::default()).is_err(), "no program");
        assert!(with(ImageDefaults { user: "4294967296".to_owned(), ..image() }).is_err());
        assert!(with(ImageDefaults { working_dir: "/a/../..".to_owned(), ..image() }).is_err());
        let env = vec![format!("A={}", "x".repeat(PROGRAM_BYTES_MAX))];
        assert!(with(ImageDefaults { env, ..image() }).is_err());
        assert!(with(ImageDefaults { stop_signal: "NOPE".to_owned(), ..image() }).is_ok());
    }
}
