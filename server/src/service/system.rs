//! Facts of this server and of its host; for operators and auditors also how it is configured, what
//! the host has and lacks, and which registries answer.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use berth_runtime::wire::{DoctorStatus, Hello, Limits};
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};
use utoipa::ToSchema;

use super::containers::view::{self, HeldLimit, LimitsView};
use super::machine::{self, Disk};
use super::stats;
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::registry::probe;
use crate::warnings::{self, Warning};

/// A doctor's report is good for this long: making one takes the supervisor a second or more.
const REPORT_LIFE: Duration = Duration::from_secs(60);
/// Registries asked at once, by everybody together.
const CHECKS_MAX: usize = 2;

static CHECKS: Semaphore = Semaphore::const_new(CHECKS_MAX);
static STARTED: LazyLock<Time> = LazyLock::new(Time::now);
static REPORT: Mutex<Option<Report>> = Mutex::const_new(None);

/// Facts for operators and auditors.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Facts {
    /// The server's version.
    pub version: &'static str,
    /// When the server was started.
    pub started_at: Time,
    /// The supervisor; absent while it does not answer.
    pub supervisor: Option<SupervisorFacts>,
    /// The host.
    pub host: HostFacts,
    /// Where things lie.
    pub storage: StorageFacts,
    /// The control group that holds all containers; absent while none runs.
    pub containers_cgroup: Option<String>,
    /// What the kernel holds all containers together to; the rest is the host's. Absent as the supervisor is.
    pub containers_held: Option<Vec<HeldLimit>>,
    /// Limits.
    pub limits: LimitFacts,
    /// The containers' networks.
    pub network: NetworkFacts,
}

/// The supervisor.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SupervisorFacts {
    /// Its version.
    pub version: String,
    /// The protocol that it speaks.
    pub protocol: u32,
}

/// The host.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HostFacts {
    /// Its name.
    pub name: String,
    /// Its system, as it calls itself.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's architecture.
    pub architecture: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Seconds since it was started.
    pub uptime_secs: u64,
    /// How control groups are laid out: `v2`, `hybrid` or `v1`.
    pub cgroup_layout: &'static str,
}

/// Where things lie.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StorageFacts {
    /// Images, containers' files, the inventory.
    #[schema(value_type = String)]
    pub data_dir: PathBuf,
    /// Live state.
    #[schema(value_type = String)]
    pub run_dir: PathBuf,
    /// The file system of the former; absent when it cannot be asked.
    pub disk: Option<Disk>,
}

/// What people may have.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LimitFacts {
    /// What a container gets when nothing is said.
    pub defaults: LimitsView,
    /// The most that one container may be given.
    pub ceilings: LimitsView,
    /// Containers of one person.
    pub containers_per_person: u32,
    /// Bytes of a container's log that are kept.
    pub log_bytes: u64,
    /// Unpacked bytes of one layer.
    pub layer_bytes: u64,
}

/// The containers' networks; how the server itself is reached is told elsewhere.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NetworkFacts {
    /// Addresses of containers are taken from here.
    pub pool: String,
    /// The length of one person's network's prefix.
    pub prefix: u8,
    /// Their IPv6 addresses are in here; none: they have none.
    pub pool6: Option<String>,
}

/// The doctor's report.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DoctorReport)]
pub struct Report {
    /// When the host was looked at.
    pub at: Time,
    /// What keeps Berth from running.
    pub blockers: usize,
    /// What it runs without.
    pub lacks: usize,
    /// Each thing looked at, most basic first.
    pub checks: Vec<Check>,
}

/// One thing that the host has or lacks.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DoctorCheck)]
pub struct Check {
    /// A stable identifier, such as `cgroup.layout`.
    pub id: String,
    /// `ok`, `lack` or `blocker`.
    pub status: &'static str,
    /// What was found.
    pub found: String,
    /// What a lack costs; empty when nothing is lacking.
    pub costs: String,
    /// How to mend it; empty when nothing is lacking.
    pub mend: String,
}

/// Where images may come from, as configured.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RegistryPolicy {
    /// The only registries that images may come from; empty for all.
    pub allowed: Vec<String>,
    /// Those spoken to in plain HTTP, which may have loopback and private addresses.
    pub insecure: Vec<String>,
    /// Those with TLS that may have such addresses.
    pub internal: Vec<String>,
    /// Networks that nothing is fetched from, beside those that are never public.
    pub forbidden_networks: Vec<String>,
    /// The proxy through which public registries are reached, without its credentials.
    pub proxy: Option<String>,
    /// The file of authorities that are trusted beside the system's.
    pub ca_file: Option<String>,
}

/// What one registry said when asked.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RegistryCheck {
    /// Which.
    pub registry: String,
    /// When it was asked.
    pub at: Time,
    /// Whether it speaks as a registry does.
    pub answers: bool,
    /// Whether it wants a sign-in for everything.
    pub wants_sign_in: bool,
    /// The HTTP status; absent when there was no answer.
    pub status: Option<u16>,
    /// How long it took.
    pub millis: Option<u64>,
    /// What went wrong; empty when it answers.
    pub problem: String,
}

/// Notes when the server was started; to be called then.
pub fn note_start() {
    LazyLock::force(&STARTED);
}

/// Whether requests can be served: the inventory can be written, the supervisor answers.
///
/// # Errors
/// Why not.
pub async fn ready(app: &App) -> Result<()> {
    Inventory::probe(&app.inventory).await?;
    app.runtime.hello().await?;
    Ok(())
}

/// What the supervisor says of itself and of the host.
pub async fn hello(app: &App) -> Result<Hello> {
    Ok(app.runtime.hello().await?)
}

/// Facts for operators and auditors. The supervisor may be away: then its part is absent.
///
/// # Errors
/// When the kernel's files cannot be read.
pub async fn facts(app: &App) -> Result<Facts> {
    let hello = app.runtime.hello().await.ok();
    let looked = tokio::task::spawn_blocking(machine::look).await;
    let machine = looked
        .map_err(|error| Error::broken("look at the machine", error))?
        .map_err(|error| Error::broken("look at the machine", error))?;
    let host = host(&machine)?;
    let live = app.containers.live();
    let place = live.first().and_then(|record| record.live.as_ref()).map(|live| {
        // <scope>/g<group>/p<person>/c<container>
        let up = |paths| stats::parent(&paths);
        up(up(stats::parent(&live.cgroup))).memory
    });
    let config = &app.config;
    Ok(Facts {
        version: env!("CARGO_PKG_VERSION"),
        started_at: *STARTED,
        containers_held: hello.as_ref().map(|hello| view::held(&hello.together)),
        supervisor: hello
            .map(|hello| SupervisorFacts { version: hello.build, protocol: hello.version }),
        host,
        storage: StorageFacts {
            data_dir: config.runtime.data_dir.clone(),
            run_dir: config.runtime.run_dir.clone(),
            disk: machine::disk(&config.store_dir()).ok(),
        },
        containers_cgroup: place,
        limits: limits(config),
        network: NetworkFacts {
            pool: config.runtime.network_pool.clone(),
            prefix: config.runtime.network_prefix,
            pool6: config.runtime.network_pool6.clone(),
        },
    })
}

/// What the host has and lacks, as the supervisor sees it. A report is kept for a minute; `fresh`
/// makes a new one. One is made at a time, whoever asks.
///
/// # Errors
/// When the supervisor does not answer.
pub async fn doctor(app: &App, fresh: Fresh) -> Result<Report> {
    let mut kept = REPORT.lock().await;
    let oldest = Time::now().before(REPORT_LIFE);
    if let Some(report) = kept.as_ref().filter(|report| fresh == Fresh::No && report.at > oldest) {
        return Ok(report.clone());
    }
    let found = app.runtime.doctor().await?;
    let checks: Vec<Check> = found
        .checks
        .into_iter()
        .map(|check| Check {
            id: check.id,
            status: match check.status {
                DoctorStatus::Ok => "ok",
                DoctorStatus::Lack => "lack",
                DoctorStatus::Blocker => "blocker",
            },
            found: check.found,
            costs: check.costs,
            mend: check.mend,
        })
        .collect();
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let report =
        Report { at: Time::now(), blockers: count("blocker"), lacks: count("lack"), checks };
    *kept = Some(report.clone());
    Ok(report)
}

/// Whether a report that was made a moment ago will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// It will.
    No,
    /// A new one is wanted.
    Yes,
}

/// The server's newest warnings, newest first.
pub fn warnings() -> Vec<Warning> {
    warnings::newest()
}

/// Where images may come from.
pub fn registries(app: &App) -> RegistryPolicy {
    let config = &app.config.registries;
    RegistryPolicy {
        allowed: config.allowed.clone(),
        insecure: config.insecure.clone(),
        internal: config.internal.clone(),
        forbidden_networks: config.forbidden_networks.iter().map(ToString::to_string).collect(),
        proxy: config.proxy.clone(),
        ca_file: config.ca_file.as_ref().map(|path| path.display().to_string()),
    }
}

/// The registries that can be asked: those that the configuration names; with none allowed by name
/// also the one that short names mean.
pub fn configured(policy: &RegistryPolicy) -> Vec<String> {
    let mut names: Vec<String> =
        policy.allowed.iter().chain(&policy.insecure).chain(&policy.internal).cloned().collect();
    if policy.allowed.is_empty() {
        names.push("docker.io".to_owned());
    }
    names.sort();
    names.dedup();
    names
}

/// Asks a configured registry whether it answers.
///
/// # Errors
/// When it is not configured, or others are being asked.
pub async fn check_registry(app: &App, caller: &Caller, registry: &str) -> Result<RegistryCheck> {
    if !configured(&registries(app)).iter().any(|name| name == registry) {
        let text = format!("{registry:?} is not in the configuration, so it is not asked");
        return Err(Error::field("/registry", text));
    }
    let Ok(_place) = CHECKS.try_acquire() else {
        let text = format!("{CHECKS_MAX} registries are being asked; try again in a moment");
        return Err(Error::unavailable("registry.check-busy", text));
    };
    let mut write = app.inventory.change(&caller.actor, "registry.check").await?;
    write.subject("registry", registry, caller.principal);
    write.commit().await?;
    let at = Time::now();
    Ok(match probe::ask(&app.config.registries, registry).await {
        Ok(said) => {
            let answers = matches!(said.status, 200 | 401);
            RegistryCheck {
                registry: registry.to_owned(),
                at,
                answers,
                wants_sign_in: said.status == 401,
                status: Some(said.status),
                millis: u64::try_from(said.elapsed.as_millis()).ok(),
                problem: match answers {
                    true => String::new(),
                    false => format!("it answers {}, not as a registry does", said.status),
                },
            }
        }
        Err(error @ Error::Broken { .. }) => return Err(error),
        Err(error) => RegistryCheck {
            registry: registry.to_owned(),
            at,
            answers: false,
            wants_sign_in: false,
            status: None,
            millis: None,
            problem: error.to_string(),
        },
    })
}

fn host(machine: &machine::Machine) -> Result<HostFacts> {
    let uname = nix::sys::utsname::uname()
        .map_err(|source| Error::broken("ask for the kernel's name", source))?;
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let layout = match ["cgroup.controllers", "unified/cgroup.procs"]
        .map(|file| std::path::Path::new("/sys/fs/cgroup").join(file).exists())
    {
        [true, _] => "v2",
        [false, true] => "hybrid",
        [false, false] => "v1",
    };
    Ok(HostFacts {
        name: text(uname.nodename()),
        os: name.unwrap_or("not said").trim_matches('"').to_owned(),
        kernel: text(uname.release()),
        architecture: text(uname.machine()),
        cpus: machine.cpus,
        memory_bytes: machine.memory.total_bytes,
        uptime_secs: machine.uptime_secs,
        cgroup_layout: layout,
    })
}

fn limits(config: &Config) -> LimitFacts {
    let containers = &config.containers;
    let view = |limits: Limits| LimitsView::from(limits);
    LimitFacts {
        defaults: view(containers.default_limits),
        ceilings: view(config.runtime.ceilings),
        containers_per_person: containers.per_person_max,
        log_bytes: containers.log_file_bytes * u64::from(containers.log_files),
        layer_bytes: config.runtime.layer_bytes_max,
    }
}
