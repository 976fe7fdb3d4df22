//! A container as people see it: the inventory's row and the supervisor's record made into one
//! state, one sentence about its end, and what the caller's role lets them see of the rest.

use std::collections::BTreeMap;

use berth_runtime::id::{ContainerId, VolumeId};
use berth_runtime::record::{self, ContainerRecord, ExitCause, ExitRecord, LimitState};
use berth_runtime::wire::{Limits, NetworkMode};
use serde::Serialize;
use utoipa::ToSchema;

use super::spec::{CreateRequest, Spec, signal_name};
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers::{Container, Intent, StopKind};
use crate::inventory::data_sets;
use crate::inventory::volumes::Mount;
use crate::service::edits::Version;
use crate::service::idle::{Idle, IdleView};
use crate::service::lifecycle::Status;
use crate::service::lifetimes;
use crate::service::ports::PortView;
use crate::service::restart::{self, RestartPolicy};

/// A container.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Container)]
pub struct ContainerView {
    /// 32 hexadecimal digits.
    #[schema(value_type = String)]
    pub id: ContainerId,
    /// Unique among its owner's.
    pub name: String,
    /// Whose it is.
    pub owner: OwnerView,
    /// What it is made from.
    pub image: ImageRef,
    /// What it is doing.
    pub status: Status,
    /// The same in words, such as `exited with code 3` or `killed: out of memory at its limit of 64 MiB`.
    pub status_text: String,
    /// The newest start's number; 0 before the first.
    pub run: u64,
    /// When it was made.
    pub created_at: Time,
    /// When its newest run began.
    pub started_at: Option<Time>,
    /// Seconds until it is stopped after each start that somebody asks for, as was asked for when it was made; null
    /// is what is usual for its owner.
    pub lifetime_secs: Option<u32>,
    /// When it is stopped, while it runs; null for never. A restart by its policy leaves it as it is.
    pub ends_at: Option<Time>,
    /// Whether that is near: within an hour, or the last tenth of its time.
    pub ends_soon: bool,
    /// How long nothing was seen of its use, while it runs.
    pub idle: Option<IdleView>,
    /// Its address on its owner's network, while it runs.
    #[schema(value_type = Option<String>)]
    pub address: Option<std::net::Ipv4Addr>,
    /// Its IPv6 address there, while it runs and where containers have any.
    #[schema(value_type = Option<String>)]
    pub address6: Option<std::net::Ipv6Addr>,
    /// Ports of the host that lead to it while it runs.
    pub ports: Vec<PortView>,
    /// Its volumes.
    pub mounts: Vec<MountView>,
    /// Data sets that it can read.
    pub data_sets: Vec<DataSetMountView>,
    /// The limits that hold now, and at its next start.
    pub limits: LimitsView,
    /// When it is started again.
    pub restart: RestartView,
    /// How its newest ended run ended.
    pub exit: Option<ExitView>,
    /// The operation that pulls its image, while it waits for that.
    pub operation: Option<String>,
    /// What the caller may do with it.
    pub rights: Vec<Right>,
    /// Environment, command and labels, for its owner and those with whom they are shared.
    pub content: Option<ContentView>,
}

/// A container with all that is known of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerDetail)]
pub struct DetailView {
    /// The container.
    #[serde(flatten)]
    pub container: ContainerView,
    /// Each limit as the kernel holds it, while it runs.
    pub limits_held: Vec<HeldLimit>,
    /// Its first process on the host, while it runs.
    pub pid: Option<i32>,
    /// Where the kernel shows its use, while it runs.
    pub cgroup: Option<CgroupView>,
    /// Processes that the kernel has killed for memory in this run.
    pub oom_kills: u64,
    /// Its network.
    pub network: Option<&'static str>,
    /// Whether its root is read-only.
    pub read_only_root: Option<bool>,
    /// Whether its program has a terminal that people can attach to.
    pub terminal: Option<bool>,
    /// Whether its program's standard input is open for people who attach.
    pub stdin: Option<bool>,
    /// Asks it to end.
    pub stop_signal: Option<String>,
    /// Seconds until it is killed after that.
    pub stop_grace_secs: Option<u32>,
}

/// A volume at a place in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ContainerMount)]
pub struct MountView {
    /// The volume's name; of somebody else's, their name and a slash first. Its id when it was removed, or is shared
    /// with the container's owner no more: then the container does not start.
    pub volume: String,
    /// Its id.
    #[schema(value_type = String)]
    pub volume_id: VolumeId,
    /// Whose it is, where it is somebody else's than the container.
    pub owner: Option<String>,
    /// Where.
    pub target: String,
    /// Whether nothing can be written to it there.
    pub read_only: bool,
    /// The part of it that is there; null for the whole.
    pub sub_path: Option<String>,
}

/// A data set at a place in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ContainerDataSet)]
pub struct DataSetMountView {
    /// What the data set is called.
    pub name: String,
    /// Where.
    pub target: String,
}

impl From<&data_sets::Mount> for DataSetMountView {
    fn from(mount: &data_sets::Mount) -> Self {
        let data_sets::Mount { name, target } = mount.clone();
        Self { name, target }
    }
}

impl From<&Mount> for MountView {
    fn from(mount: &Mount) -> Self {
        let Mount { volume, name, owner, target, read_only, sub_path } = mount.clone();
        Self { volume: name, volume_id: volume, owner, target, read_only, sub_path }
    }
}

/// Directories of the kernel's cgroup file systems; the same one for all on v2.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerCgroup)]
pub struct CgroupView {
    /// `v1` or `v2`.
    pub version: &'static str,
    /// Processor limits and time.
    pub cpu: String,
    /// Memory.
    pub memory: String,
    /// Processes.
    pub pids: String,
    /// Block devices.
    pub io: String,
}

/// Whose something is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Owner)]
pub struct OwnerView {
    /// The principal's id.
    pub id: u32,
    /// The name.
    pub name: String,
}

/// An image, as it was named and as it is known.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerImage)]
pub struct ImageRef {
    /// As asked for.
    pub reference: String,
    /// Its id; absent until it is here.
    pub id: Option<String>,
}

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Limits)]
pub struct LimitsView {
    /// Processor time in thousandths of a core.
    pub cpu_millis: u32,
    /// Share under contention; 100 is neutral.
    pub cpu_weight: u32,
    /// Memory, page cache included.
    pub memory_bytes: u64,
    /// Swap beside the memory.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// One limit in the kernel.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HeldLimit {
    /// `cpu`, `cpu_weight`, `memory`, `swap` or `pids`.
    pub name: String,
    /// Whether the kernel holds it.
    pub held: bool,
    /// The kernel's file.
    pub file: String,
    /// What it says.
    pub value: String,
    /// Why it is not held; empty when it is.
    pub reason: String,
}

/// When a container is started again.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RestartState)]
pub struct RestartView {
    /// The policy.
    pub policy: RestartPolicy,
    /// Restarts in a row.
    pub attempts: u32,
    /// When the next one is due.
    pub next_attempt_at: Option<Time>,
}

/// An end.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerExit)]
pub struct ExitView {
    /// The run that ended.
    pub run: u64,
    /// In words.
    pub text: String,
    /// The first process's exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its name.
    pub signal_name: Option<String>,
    /// `exited`, `out_of_memory`, `start_failed`, `killed`, `host_shutdown`, `host_lost` or
    /// `monitor_lost`.
    pub cause: &'static str,
    /// When.
    pub ended_at: Time,
    /// Who asked for it.
    pub stopped_by: Option<String>,
    /// Processes that the kernel killed for memory in that run.
    pub oom_kills: u64,
    /// Output that could not be kept.
    pub log_bytes_lost: u64,
}

/// What is in a container's configuration; its owner's alone.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerContent)]
pub struct ContentView {
    /// Program and arguments, the image's included; absent until the image is here.
    pub args: Option<Vec<String>>,
    /// Environment, the image's included, `NAME=value` each.
    pub env: Option<Vec<String>>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The host name.
    pub hostname: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What it was made with: good for another create.
    pub request: CreateRequest,
}

/// The state that a row and what was observed of it make together. `observed` is `None` when the
/// supervisor holds nothing of the container, or has not been asked yet.
pub(crate) fn status(row: &Container, observed: Option<&ContainerRecord>) -> Status {
    use record::Status as Seen;
    let now = observed.filter(|record| record.run >= row.run);
    let live = observed.filter(|record| record.live.is_some()).map(|record| record.status);
    let ended = || row.last_exit.as_ref().filter(|exit| exit.run >= row.run);
    let rest = || match ended().or(row.last_exit.as_ref()).map(|exit| exit.cause) {
        Some(ExitCause::StartFailed) => Status::Failed,
        Some(_) => Status::Exited,
        None if row.run == 0 => Status::Created,
        None => Status::Exited,
    };
    match row.intent {
        Intent::Removed => Status::Removing,
        Intent::Pulling if row.failure.is_some() => Status::Failed,
        Intent::Pulling => Status::Pulling,
        Intent::Created => Status::Created,
        Intent::Stopped if live.is_some() => Status::Stopping,
        Intent::Stopped => rest(),
        Intent::Running if row.next_attempt_at.is_some() => Status::Restarting,
        Intent::Running => match now.map(|record| record.status) {
            Some(Seen::Running) => Status::Running,
            Some(Seen::Paused) => Status::Paused,
            Some(Seen::Creating | Seen::Created) => Status::Starting,
            Some(Seen::Stopped) => match now.and_then(|record| record.exit.as_ref()) {
                // Its end is not written down yet: what the policy will make of it counts now.
                Some(exit) if restarts(row, exit) => Status::Restarting,
                Some(exit) if exit.cause == ExitCause::StartFailed => Status::Failed,
                _ => Status::Exited,
            },
            None if ended().is_some() => rest(),
            None => Status::Starting,
        },
    }
}

/// Whether the policy will start the container again after an end that nobody asked for.
fn restarts(row: &Container, exit: &ExitRecord) -> bool {
    let verdict = restart::after_end(policy(row), exit, row.restart_attempts, 0);
    verdict != restart::Verdict::Stay
}

/// Who asked for an end, and how.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `stopped by anna`, or the rule.
    said: String,
    kind: StopKind,
    by_rule: bool,
}

/// Who asked for the end of the newest run.
pub(crate) fn asked_by(row: &Container) -> Option<Asked> {
    let (name, kind) = row.stopped_by_name.as_deref().zip(row.stop_kind)?;
    let said = match (row.stop_why, kind) {
        (Some(why), _) => format!("stopped: {}", lifetimes::why_in_words(why)),
        (None, StopKind::Stop | StopKind::Restart) => format!("stopped by {name}"),
        (None, StopKind::Kill | StopKind::Remove) => format!("killed by {name}"),
    };
    Some(Asked { said, kind, by_rule: row.stop_why.is_some() })
}

/// How a run ended, in words. `by` is who asked for it and how.
pub(crate) fn end_in_words(exit: &ExitRecord, by: Option<&Asked>) -> String {
    let memory = format!("out of memory at its limit of {}", bytes(exit.memory_bytes_max));
    match exit.cause {
        ExitCause::StartFailed => match &exit.failure {
            Some(failure) => format!("could not be started: {}", failure.message),
            None => "could not be started".to_owned(),
        },
        ExitCause::OutOfMemory => format!("killed: {memory}"),
        ExitCause::HostShutdown => "ended by the host's shutdown".to_owned(),
        ExitCause::HostLost => "ended with the host, which stopped without a shutdown".to_owned(),
        ExitCause::MonitorLost => "ended because its monitor was lost".to_owned(),
        ExitCause::Killed | ExitCause::Exited => {
            let mut text = match by {
                Some(by) => match by.kind {
                    StopKind::Stop | StopKind::Restart => stopped_text(exit, by),
                    StopKind::Kill | StopKind::Remove => by.said.clone(),
                },
                None => unasked_text(exit),
            };
            if exit.oom_kills > 0 {
                let count = exit.oom_kills;
                let some =
                    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
                text.push_str(&format!("; {some} in it killed: {memory}"));
            }
            text
        }
    }
}

/// A number of bytes for people, exact where a binary unit fits.
pub(crate) fn bytes(count: u64) -> String {
    for (unit, name) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if count >= unit {
            let tenths = count / (unit / 10).max(1);
            let whole = count / unit;
            let shown = if count.is_multiple_of(unit) {
                whole.to_string()
            } else {
                format!("{}.{}", tenths / 10, tenths % 10)
            };
            return format!("{shown} {name}");
        }
    }
    format!("{count} bytes")
}

impl ContainerView {
    /// What `caller` may see of `row`.
    pub(crate) fn new(
        caller: &Caller,
        row: &Container,
        observed: Option<&ContainerRecord>,
    ) -> Result<Self> {
        let may = row.rights(caller).has(Right::Files);
        let content = if may { Some(ContentView::new(row)?) } else { None };
        Ok(Self { content, ..Self::summary(caller, row, observed) })
    }

    /// The same without its content: for long lists, which need none and whose rows hold none.
    pub(crate) fn summary(
        caller: &Caller,
        row: &Container,
        observed: Option<&ContainerRecord>,
    ) -> Self {
        let status = status(row, observed);
        let exit = newest_exit(row, observed).map(|exit| ExitView::new(exit, row));
        let live = observed.and_then(|record| record.live.as_ref());
        let started_at = live.map(|live| Time(live.started_ms)).or(row.started_at);
        Self {
            id: row.id.clone(),
            name: row.name.clone(),
            owner: OwnerView { id: row.owner.0, name: row.owner_name.clone() },
            image: ImageRef { reference: row.image_reference.clone(), id: row.image_id.clone() },
            status,
            status_text: status_text(row, status, exit.as_ref()),
            run: row.run,
            created_at: row.created_at,
            started_at,
            lifetime_secs: row.lifetime_secs,
            ends_at: row.ends_at,
            ends_soon: lifetimes::ends_soon(row),
            idle: None,
            address: live.and_then(|live| live.address),
            address6: live.and_then(|live| live.address6),
            ports: row.ports.iter().copied().map(Into::into).collect(),
            mounts: row.mounts.iter().map(Into::into).collect(),
            data_sets: row.data_sets.iter().map(Into::into).collect(),
            limits: row.limits.into(),
            restart: RestartView {
                policy: policy(row),
                attempts: row.restart_attempts,
                next_attempt_at: row.next_attempt_at,
            },
            exit,
            operation: row.operation.clone(),
            rights: row.rights(caller).list(),
            content: None,
        }
    }
}

impl ContainerView {
    /// The same with what is known of its use.
    pub(crate) fn with_use(self, idle: &Idle) -> Self {
        let runs = matches!(self.status, Status::Running | Status::Paused);
        let idle = idle.of(&self.id).filter(|_| runs);
        Self { idle, ..self }
    }

    /// The version of what can be edited of it.
    pub fn version(&self) -> Version {
        Version::of(&(&self.name, &self.limits, self.restart.policy))
    }
}

/// The version of what can be edited of `row`: the same as its view's.
pub(crate) fn version(row: &Container) -> Version {
    Version::of(&(&row.name, LimitsView::from(row.limits), policy(row)))
}

impl DetailView {
    /// What `caller` may see of `row`.
    pub(crate) fn new(
        caller: &Caller,
        row: &Container,
        observed: Option<&ContainerRecord>,
    ) -> Result<Self> {
        let live = observed.and_then(|record| record.live.as_ref());
        let spec = spec(row)?;
        let network = |spec: &Spec| match spec.network {
            NetworkMode::Private => "private",
            NetworkMode::None => "none",
        };
        Ok(Self {
            container: ContainerView::new(caller, row, observed)?,
            limits_held: live.map(|live| held(&live.limits)).unwrap_or_default(),
            pid: live.map(|live| live.pid),
            cgroup: live.map(|live| CgroupView::from(&live.cgroup)),
            oom_kills: live.map_or(0, |live| live.oom_kills),
            network: spec.as_ref().map(network),
            read_only_root: spec.as_ref().map(|spec| spec.read_only_root),
            terminal: spec.as_ref().map(|spec| spec.console.terminal.is_some()),
            stdin: spec.as_ref().map(|spec| spec.console.stdin),
            stop_signal: spec.as_ref().map(|spec| signal_name(spec.stop.signal)),
            stop_grace_secs: spec.as_ref().map(|spec| spec.stop.grace_secs),
        })
    }
}

impl From<&record::CgroupPaths> for CgroupView {
    fn from(paths: &record::CgroupPaths) -> Self {
        let version = match paths.version {
            record::CgroupVersion::V1 => "v1",
            record::CgroupVersion::V2 => "v2",
        };
        let [cpu, memory, pids, io] =
            [&paths.cpu, &paths.memory, &paths.pids, &paths.io].map(Clone::clone);
        Self { version, cpu, memory, pids, io }
    }
}

/// Limits as the kernel holds them, for people.
pub(crate) fn held(limits: &[LimitState]) -> Vec<HeldLimit> {
    let view = |limit: &LimitState| HeldLimit {
        name: limit.name.clone(),
        held: limit.held,
        file: limit.file.clone(),
        value: limit.value.clone(),
        reason: limit.reason.clone(),
    };
    limits.iter().map(view).collect()
}

/// The row's merged form; `None` until the image is here.
pub(crate) fn spec(row: &Container) -> Result<Option<Spec>> {
    let parse = |text: &String| {
        serde_json::from_str(text)
            .map_err(|source| Error::broken("read a container's spec", source))
    };
    row.spec.as_ref().map(parse).transpose()
}

/// The row's request.
pub(crate) fn request(row: &Container) -> Result<CreateRequest> {
    serde_json::from_str(&row.request)
        .map_err(|source| Error::broken("read a container's request", source))
}

/// The row's policy.
pub(crate) fn policy(row: &Container) -> RestartPolicy {
    match row.restart_policy.as_str() {
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure { max_attempts: row.restart_attempts_max },
        // The table's check allows only "no" beside these.
        _ => RestartPolicy::No,
    }
}

/// The end of the newest run that has ended: the record's, else the inventory's copy.
fn newest_exit<'a>(
    row: &'a Container,
    observed: Option<&'a ContainerRecord>,
) -> Option<&'a ExitRecord> {
    let recorded = observed.and_then(|record| record.exit.as_ref());
    match (recorded, row.last_exit.as_ref()) {
        (Some(recorded), Some(copy)) if copy.run > recorded.run => Some(copy),
        (recorded, copy) => recorded.or(copy),
    }
}

fn status_text(row: &Container, status: Status, exit: Option<&ExitView>) -> String {
    match status {
        Status::Failed if row.intent == Intent::Pulling => {
            let why = row.failure.as_ref().map_or("", |failure| failure.message.as_str());
            format!("its image could not be pulled: {why}")
        }
        Status::Exited | Status::Failed => {
            exit.map_or_else(|| status.to_string(), |exit| exit.text.clone())
        }
        Status::Restarting => match exit {
            Some(exit) => format!("restarting; {}", exit.text),
            None => "restarting".to_owned(),
        },
        Status::Stopping => match (row.stop_why, &row.stopped_by_name) {
            (Some(why), _) => format!("being stopped: {}", lifetimes::why_in_words(why)),
            (None, Some(name)) => format!("being stopped by {name}"),
            (None, None) => "being stopped".to_owned(),
        },
        other => other.to_string(),
    }
}

fn stopped_text(exit: &ExitRecord, Asked { said, by_rule, .. }: &Asked) -> String {
    match (exit.cause, exit.code, exit.signal) {
        (ExitCause::Killed, ..) => format!("{said}; killed when its grace was over"),
        (_, Some(code), _) => format!("{said}; exited with code {code}"),
        (_, _, Some(signal)) => {
            let how = if *by_rule { "; ended by signal" } else { " with signal" };
            format!("{said}{how} {}", signal_name(signal))
        }
        _ => said.clone(),
    }
}

fn unasked_text(exit: &ExitRecord) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("ended by signal {}", signal_name(signal)),
        (None, None) => "ended; how is not known".to_owned(),
    }
}

impl ExitView {
    fn new(exit: &ExitRecord, row: &Container) -> Self {
        // Who stopped it belongs to the newest run alone.
        let by = asked_by(row).filter(|_| exit.run == row.run);
        let name = by.as_ref().and(row.stopped_by_name.as_ref());
        Self {
            run: exit.run,
            text: end_in_words(exit, by.as_ref()),
            code: exit.code,
            signal: exit.signal,
            signal_name: exit.signal.map(signal_name),
            cause: cause_word(exit.cause),
            ended_at: Time(exit.ended_ms),
            stopped_by: name.cloned(),
            oom_kills: exit.oom_kills,
            log_bytes_lost: exit.log_bytes_lost,
        }
    }
}

pub(crate) fn cause_word(cause: ExitCause) -> &'static str {
    match cause {
        ExitCause::Exited => "exited",
        ExitCause::OutOfMemory => "out_of_memory",
        ExitCause::StartFailed => "start_failed",
        ExitCause::Killed => "killed",
        ExitCause::HostShutdown => "host_shutdown",
        ExitCause::HostLost => "host_lost",
        ExitCause::MonitorLost => "monitor_lost",
    }
}

impl ContentView {
    fn new(row: &Container) -> Result<Self> {
        let spec = spec(row)?;
        let mut request = request(row)?;
        for (asked, mount) in request.mounts.iter_mut().zip(&row.mounts) {
            // It may have another name by now.
            asked.volume.clone_from(&mount.name);
        }
        let labels = request.labels.clone();
        let (process, hostname) = match spec {
            Some(spec) => (Some(spec.process), Some(spec.hostname)),
            None => (None, request.hostname.clone()),
        };
        let of = |part: fn(&berth_runtime::wire::ProcessSpec) -> String| process.as_ref().map(part);
        Ok(Self {
            working_dir: of(|process| process.cwd.clone()),
            user: of(|process| process.user.clone()),
            args: process.as_ref().map(|process| process.args.clone()),
            env: process.as_ref().map(|process| process.env.clone()),
            hostname,
            labels,
            request,
        })
    }
}

impl From<Limits> for LimitsView {
    fn from(limits: Limits) -> Self {
        let Limits { cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids } = limits;
        Self { cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use berth_runtime::id::PrincipalId;
    use berth_runtime::record::{CgroupPaths, CgroupVersion, Failure, FailureClass, Live};

    use super::*;
    use crate::inventory::containers::Why;

    pub(crate) fn row(intent: Intent, run: u64) -> Container {
        Container {
            id: ContainerId::from_bytes([1; 16]),
            owner: PrincipalId(1000),
            owner_name: "anna".to_owned(),
            granted: None,
            group: PrincipalId(2),
            name: "web".to_owned(),
            image_reference: "busybox".to_owned(),
            image_id: None,
            request: "{}".to_owned(),
            spec: None,
            ports: Vec::new(),
            mounts: Vec::new(),
            data_sets: Vec::new(),
            limits: Limits {
                cpu_millis: 1000,
                cpu_weight: 100,
                memory_bytes: 64 << 20,
                swap_bytes: 0,
                pids: 64,
            },
            limits_applied: true,
            intent,
            run,
            operation: None,
            start_when_pulled: false,
            restart_policy: "no".to_owned(),
            restart_attempts_max: None,
            restart_attempts: 0,
            next_attempt_at: None,
            stopped_by_name: None,
            stop_kind: None,
            stop_deadline_at: None,
            last_exit: None,
            failure: None,
            created_at: Time(0),
            started_at: None,
            lifetime_secs: None,
            life_began_at: None,
            ends_at: None,
            stop_why: None,
        }
    }

    pub(crate) fn exit(run: u64, cause: ExitCause) -> ExitRecord {
        ExitRecord {
            run,
            code: Some(0),
            signal: None,
            cause,
            oom_kills: 0,
            memory_bytes_max: 64 << 20,
            started_ms: 1,
            ended_ms: 2,
            log_bytes_lost: 0,
            failure: None,
        }
    }

    pub(crate) fn seen(run: u64, status: record::Status) -> ContainerRecord {
        let directory = String::new;
        let cgroup = CgroupPaths {
            version: CgroupVersion::V2,
            cpu: directory(),
            cpuacct: directory(),
            memory: directory(),
            pids: directory(),
            io: directory(),
        };
        let live = Live {
            pid: 7,
            start_ticks: 1,
            started_ms: 1,
            address: None,
            address6: None,
            cgroup,
            limits: Vec::new(),
            oom_kills: 0,
        };
        let stopped = status == record::Status::Stopped;
        ContainerRecord {
            container: ContainerId::from_bytes([1; 16]),
            person: PrincipalId(1000),
            run,
            status,
            live: (!stopped).then_some(live),
            exit: (stopped && run > 0).then(|| exit(run, ExitCause::Exited)),
        }
    }

    #[test]
    fn states_come_from_intent_and_record_together() {
        use record::Status as Seen;
        let cases = [
            (Intent::Created, 0, None, Status::Created),
            (Intent::Pulling, 0, None, Status::Pulling),
            (Intent::Removed, 1, Some((1, Seen::Running)), Status::Removing),
            (Intent::Running, 1, None, Status::Starting),
            (Intent::Running, 1, Some((1, Seen::Created)), Status::Starting),
            (Intent::Running, 1, Some((1, Seen::Running)), Status::Running),
            (Intent::Running, 1, Some((1, Seen::Paused)), Status::Paused),
            (Intent::Running, 1, Some((1, Seen::Stopped)), Status::Exited),
            // The end of the run before says nothing of this one.
            (Intent::Running, 2, Some((1, Seen::Stopped)), Status::Starting),
            (Intent::Stopped, 1, Some((1, Seen::Running)), Status::Stopping),
            (Intent::Stopped, 1, Some((1, Seen::Stopped)), Status::Exited),
            (Intent::Stopped, 1, None, Status::Exited),
        ];
        for (intent, run, observed, expected) in cases {
            let observed = observed.map(|(run, status)| seen(run, status));
            let found = status(&row(intent, run), observed.as_ref());
            assert_eq!(found, expected, "{intent:?} {run} {observed:?}");
        }
    }

    #[test]
    fn failures_and_pauses_between_restarts_are_states_of_their_own() {
        let failed = |intent| Container {
            last_exit: Some(exit(1, ExitCause::StartFailed)),
            ..row(intent, 1)
        };
        assert_eq!(status(&failed(Intent::Stopped), None), Status::Failed);
        assert_eq!(status(&failed(Intent::Running), None), Status::Failed);
        let waits = Container { next_attempt_at: Some(Time(5)), ..failed(Intent::Running) };
        assert_eq!(status(&waits, None), Status::Restarting);
        // The end is seen, and not written down yet.
        let always = Container { restart_policy: "always".to_owned(), ..row(Intent::Running, 1) };
        let ended = seen(1, record::Status::Stopped);
        assert_eq!(status(&always, Some(&ended)), Status::Restarting);
        let failure = Some(Failure::new(FailureClass::NotFound, "x", "no such image"));
        let unpulled = Container { failure, ..row(Intent::Pulling, 0) };
        assert_eq!(status(&unpulled, None), Status::Failed);
        let text = status_text(&unpulled, Status::Failed, None);
        assert_eq!(text, "its image could not be pulled: no such image");
    }

    #[test]
    fn ends_are_said_in_words() {
        let by = |name: &str, kind, stop_why| {
            let name = Some(name.to_owned());
            let row = row(Intent::Stopped, 1);
            asked_by(&Container { stopped_by_name: name, stop_kind: Some(kind), stop_why, ..row })
        };
        let anna = || by("anna", StopKind::Stop, None);
        let rule = || by("system", StopKind::Stop, Some(Why::Lifetime(28_800)));
        let code = |code, signal, cause| ExitRecord { code, signal, ..exit(1, cause) };
        let cases = [
            (code(Some(3), None, ExitCause::Exited), None, "exited with code 3"),
            (code(None, Some(11), ExitCause::Exited), None, "ended by signal SEGV"),
            (code(Some(0), None, ExitCause::Exited), anna(), "stopped by anna; exited with code 0"),
            (code(None, Some(15), ExitCause::Exited), anna(), "stopped by anna with signal TERM"),
            (
                code(Some(0), None, ExitCause::Exited),
                rule(),
                "stopped: its lifetime of 8 h ended; exited with code 0",
            ),
            (
                code(None, Some(9), ExitCause::Killed),
                anna(),
                "stopped by anna; killed when its grace was over",
            ),
            (
                code(None, Some(9), ExitCause::Killed),
                by("bob", StopKind::Kill, None),
                "killed by bob",
            ),
            (
                code(None, Some(9), ExitCause::OutOfMemory),
                None,
                "killed: out of memory at its limit of 64 MiB",
            ),
            (code(None, None, ExitCause::HostShutdown), None, "ended by the host's shutdown"),
        ];
        for (exit, by, expected) in cases {
            assert_eq!(end_in_words(&exit, by.as_ref()), expected);
        }
        let partly = ExitRecord { oom_kills: 2, ..exit(1, ExitCause::Exited) };
        let text =
            "exited with code 0; 2 processes in it killed: out of memory at its limit of 64 MiB";
        assert_eq!(end_in_words(&partly, None), text);
    }

    #[test]
    fn sizes_are_exact_or_rounded_down() {
        let cases = [
            (64 << 20, "64 MiB"),
            (1 << 30, "1 GiB"),
            (1_610_612_736, "1.5 GiB"),
            (12, "12 bytes"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}
