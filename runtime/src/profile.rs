//! The default profile: the OCI configuration of every container that the supervisor starts. Users
//! can tighten it and never loosen it: every value of theirs that reaches a limit or a protection is
//! compared with the profile's own here, and refused when it is wider.
//!
//! Deliberately absent: cgroup limits (set by number, not by configuration), the root (layers, by
//! descriptor) and the network's addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::{fs, io};

use berth_runtime::config::RANGE_IDS;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{ProcessSpec, StartRequest, Tmpfs, Ulimit};
use nix::sys::resource::{Resource, getrlimit};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping,
    LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder,
};

use crate::apparmor;
use crate::capability;
use crate::rootfs::target::{Kind, Target};
use crate::seccomp::profile::default_filter;

/// What the profile needs to know beyond the request; all of it the supervisor's own.
#[derive(Debug, Clone, Copy)]
pub struct ProfileHost {
    /// First host id of the person's range of [`berth_runtime::config::RANGE_IDS`].
    pub first_id: u32,
    /// Whether the host has the unified hierarchy alone (a private `cgroup2` is mounted read-only);
    /// else the container sees no cgroup file system.
    pub cgroup_v2: bool,
    /// Whether the AppArmor profile is loaded and to be entered.
    pub apparmor: bool,
}

/// What a container's processes can ever have, inside their user namespace.
const CAPABILITIES: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Unreadable: files become the null device, directories an empty one. What tells of one neighbour or
/// one moment of the host: who is here, what somebody's disk does, how often a processor was
/// interrupted. Sums over the whole machine that programs ask for stay (`tests/runtime/readable.golden`).
const MASKED: [&str; 35] = [
    "/proc/acpi",
    "/proc/asound",
    // Free memory by size and zone: of use to who wants to place theirs beside somebody else's.
    "/proc/buddyinfo",
    // Loop devices are people's disks: how large each is, and what it does now.
    "/proc/diskstats",
    "/proc/partitions",
    "/proc/driver",
    // By file system and server name what is mounted on the host.
    "/proc/fs",
    // What each interrupt is for, how often it came and where: the same in four places.
    "/proc/interrupts",
    "/proc/irq",
    "/proc/softirqs",
    "/sys/kernel/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/schedstat",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/zoneinfo",
    // Names of block devices, and of the files behind loop devices.
    "/sys/block",
    "/sys/class/bdi",
    "/sys/class/block",
    "/sys/dev/block",
    "/sys/devices/virtual/bdi",
    "/sys/devices/virtual/block",
    "/sys/devices/virtual/powercap",
    "/sys/devices/virtual/thermal",
    "/sys/firmware",
    // By file system what was written to it.
    "/sys/fs/bcachefs",
    "/sys/fs/btrfs",
    "/sys/fs/ext4",
    "/sys/fs/f2fs",
    "/sys/fs/xfs",
    // Before Linux 5.9 it has the cgroups of others by name.
    "/sys/kernel/slab",
];

/// Readable and no more.
pub(crate) const READ_ONLY: [&str; 3] = ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger"];

/// Classes of devices that measure temperature and power, wherever in the tree each one is.
const SENSORS: [&str; 4] = ["hwmon", "power_supply", "powercap", "thermal"];

/// Every namespace there is.
const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments and environment of a program at most, in bytes; the kernel's own bound on them is wider.
const TEXT_BYTES_MAX: usize = 96 * 1024;
const HOSTNAME_BYTES_MAX: usize = 63;
const TMPFS_MAX: usize = 32;

/// Builds the OCI configuration for a request, with everything the request asks for, or refuses it.
/// `process.user` is left at 0:0: names are resolved by the child ([`crate::launch::User::Named`]).
///
/// # Errors
/// `invalid` with the field's name, when a value is impossible or would loosen the profile.
pub fn spec(request: &StartRequest, host: &ProfileHost) -> Result<Spec, Failure> {
    check_hostname(&request.hostname)?;
    let root = RootBuilder::default().path("rootfs").readonly(request.read_only_root);
    let mut process = process(&request.process, &request.hostname, host)?;
    process.set_terminal(request.console.terminal.map(|_| true));
    SpecBuilder::default()
        .version("1.2.0")
        .root(root.build().map_err(defect)?)
        .hostname(request.hostname.clone())
        .mounts(mounts(request, host)?)
        .process(process)
        .linux(linux(host)?)
        .build()
        .map_err(defect)
}

/// The configuration by which a later process joins a container: the same namespaces, filter and
/// protections as the first one's, with a program of its own.
///
/// # Errors
/// As [`spec`].
pub fn exec_spec(
    wanted: &ProcessSpec,
    hostname: &str,
    host: &ProfileHost,
) -> Result<Spec, Failure> {
    SpecBuilder::default()
        .version("1.2.0")
        .process(process(wanted, hostname, host)?)
        .linux(linux(host)?)
        .build()
        .map_err(defect)
}

fn linux(host: &ProfileHost) -> Result<Linux, Failure> {
    let map = id_map(host.first_id).map_err(defect)?;
    let sysctls =
        [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 65535")];
    let sysctls = sysctls.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let namespaces: Result<Vec<_>, _> = NAMESPACES
        .into_iter()
        .filter(|kind| *kind != LinuxNamespaceType::Time || has_time_namespaces())
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect();
    LinuxBuilder::default()
        .namespaces(namespaces.map_err(defect)?)
        .uid_mappings(vec![map])
        .gid_mappings(vec![map])
        .sysctl(HashMap::from(sysctls))
        .masked_paths(masked_paths())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .seccomp(default_filter())
        .build()
        .map_err(defect)
}

/// What no process in a container reads.
pub(crate) fn masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = MASKED.map(str::to_owned).into();
    paths.extend(thermal_paths());
    paths.extend(sensor_paths());
    paths
}

/// What a container's processes can ever have, bit n for capability n.
pub(crate) fn capability_bits() -> u64 {
    capability::bits(&CAPABILITIES.into())
}

/// The layers' ids are the profile's own: 0 to 65,535 inside, the person's range outside.
fn id_map(first_id: u32) -> Result<LinuxIdMapping, OciSpecError> {
    LinuxIdMappingBuilder::default().container_id(0u32).host_id(first_id).size(RANGE_IDS).build()
}

fn has_time_namespaces() -> bool {
    fs::exists("/proc/self/ns/time").unwrap_or(false)
}

/// Temperature by processor, a side channel; only where there is one.
fn thermal_paths() -> Vec<String> {
    let processors = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten();
    let paths = processors.filter_map(io::Result::ok).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let digits = name.strip_prefix("cpu")?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
        let path = format!("/sys/devices/system/cpu/{name}/thermal_throttle");
        fs::exists(&path).unwrap_or(false).then_some(path)
    });
    paths.collect()
}

/// Temperature, power and their like by sensor: a side channel as the above, by what their classes link to.
fn sensor_paths() -> BTreeSet<String> {
    let links = SENSORS.iter().filter_map(|class| fs::read_dir(format!("/sys/class/{class}")).ok());
    let links = links.flatten().filter_map(io::Result::ok);
    let places = links
        .filter_map(|link| fs::canonicalize(link.path()).ok()?.into_os_string().into_string().ok());
    let masked = |place: &String| {
        let below = |top: &&str| place.strip_prefix(*top).is_some_and(|rest| rest.starts_with('/'));
        MASKED.iter().any(below)
    };
    places.filter(|place| place.starts_with("/sys/devices/") && !masked(place)).collect()
}

fn mounts(request: &StartRequest, host: &ProfileHost) -> Result<Vec<Mount>, Failure> {
    let shm_size = format!("size={}", request.shm_bytes);
    let mut rows: Vec<(&str, &str, Vec<&str>)> = vec![
        ("/proc", "proc", vec!["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", vec!["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/shm", "tmpfs", vec!["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
        ("/dev/mqueue", "mqueue", vec!["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", vec!["nosuid", "noexec", "nodev", "ro"]),
    ];
    if host.cgroup_v2 {
        rows.push((
            "/sys/fs/cgroup",
            "cgroup",
            vec!["nosuid", "noexec", "nodev", "relatime", "ro"],
        ));
    }
    let mut mounts = Vec::new();
    for (place, kind, options) in rows {
        mounts.push(mount(place, kind, &options)?);
    }
    if request.tmpfs.len() > TMPFS_MAX {
        return Err(invalid("tmpfs", format!("at most {TMPFS_MAX} file systems in memory")));
    }
    let mut memory: Vec<&Tmpfs> = request.tmpfs.iter().collect();
    // One in another is mounted after it.
    memory.sort_by_key(|tmpfs| tmpfs.target.split('/').count());
    for tmpfs in memory {
        check_tmpfs(tmpfs)?;
        let size = format!("size={}", tmpfs.size_bytes);
        mounts.push(mount(&tmpfs.target, "tmpfs", &["nosuid", "nodev", "mode=1777", &size])?);
    }
    Ok(mounts)
}

fn mount(place: &str, kind: &str, options: &[&str]) -> Result<Mount, Failure> {
    MountBuilder::default()
        .destination(place)
        .typ(kind)
        .source(kind)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(defect)
}

/// The place of a mount that a user asks for.
///
/// # Errors
/// When it is none, or is the profile's.
pub fn user_target(path: &str, kind: Kind, field: &str) -> Result<Target, Failure> {
    let target = Target::new(path, kind, field);
    let target = target.map_err(|error| invalid(field, error.to_string()))?;
    if matches!(target.first(), b"proc" | b"sys" | b"dev") {
        let text = format!("{path:?}: nothing of a user's goes on /proc, /sys or /dev");
        return Err(invalid(field, text));
    }
    Ok(target)
}

fn check_tmpfs(tmpfs: &Tmpfs) -> Result<(), Failure> {
    user_target(&tmpfs.target, Kind::Directory, "tmpfs")?;
    if tmpfs.size_bytes == 0 {
        return Err(invalid("tmpfs", format!("{:?}: a size of 0 would mean none", tmpfs.target)));
    }
    Ok(())
}

fn process(wanted: &ProcessSpec, hostname: &str, host: &ProfileHost) -> Result<Process, Failure> {
    if wanted.args.first().is_none_or(String::is_empty) {
        return Err(invalid("process.args", "a program is needed".to_owned()));
    }
    let bytes: usize = wanted.args.iter().chain(&wanted.env).map(|text| text.len() + 1).sum();
    if bytes > TEXT_BYTES_MAX {
        return Err(invalid("process", format!("more than {TEXT_BYTES_MAX} bytes of text")));
    }
    if wanted.args.iter().chain(&wanted.env).any(|text| text.contains('\0')) {
        return Err(invalid("process", "a NUL byte".to_owned()));
    }
    let mut environment = wanted.env.clone();
    for variable in &environment {
        if variable.find('=').is_none_or(|place| place == 0) {
            return Err(invalid("process.env", format!("{variable:?} is not NAME=value")));
        }
    }
    let has = |name: &str| wanted.env.iter().any(|variable| variable.starts_with(name));
    if !has("PATH=") {
        environment.push(PATH_DEFAULT.to_owned());
    }
    if !has("HOSTNAME=") {
        environment.push(format!("HOSTNAME={hostname}"));
    }
    let cwd = if wanted.cwd.is_empty() { "/" } else { &wanted.cwd };
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err(invalid("process.cwd", format!("{cwd:?} is not an absolute path")));
    }
    let builder = match host.apparmor {
        true => ProcessBuilder::default().apparmor_profile(apparmor::PROFILE),
        false => ProcessBuilder::default(),
    };
    builder
        .args(wanted.args.clone())
        .env(environment)
        .cwd(PathBuf::from(cwd))
        .no_new_privileges(true)
        .capabilities(capabilities(&wanted.capabilities_dropped)?)
        .rlimits(limits(&wanted.ulimits)?)
        .oom_score_adj(oom_score_adj())
        .build()
        .map_err(defect)
}

/// Never below 0, and never below our own: that needs a right over the host.
fn oom_score_adj() -> i32 {
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    own.trim().parse().unwrap_or(0).max(0)
}

fn capabilities(dropped: &[String]) -> Result<oci_spec::runtime::LinuxCapabilities, Failure> {
    let mut kept: HashSet<Capability> = CAPABILITIES.into();
    for name in dropped {
        if name == "ALL" {
            kept.clear();
            continue;
        }
        let plain = name.strip_prefix("CAP_").unwrap_or(name);
        let capability = plain.parse::<Capability>().map_err(|_| {
            invalid("process.capabilities_dropped", format!("{name:?} is no capability"))
        })?;
        kept.remove(&capability);
    }
    LinuxCapabilitiesBuilder::default()
        .bounding(kept.clone())
        .permitted(kept.clone())
        .effective(kept)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
        .map_err(defect)
}

/// A limit's name, kind, and the profile's own soft and hard limit where it has one.
type LimitRow = (&'static str, PosixRlimitType, Resource, Option<(u64, u64)>);

/// Every limit that a user may tighten.
const LIMITS: [LimitRow; 14] = [
    ("as", PosixRlimitType::RlimitAs, Resource::RLIMIT_AS, None),
    ("core", PosixRlimitType::RlimitCore, Resource::RLIMIT_CORE, Some((0, 0))),
    ("cpu", PosixRlimitType::RlimitCpu, Resource::RLIMIT_CPU, None),
    ("data", PosixRlimitType::RlimitData, Resource::RLIMIT_DATA, None),
    ("fsize", PosixRlimitType::RlimitFsize, Resource::RLIMIT_FSIZE, None),
    ("locks", PosixRlimitType::RlimitLocks, Resource::RLIMIT_LOCKS, None),
    (
        "memlock",
        PosixRlimitType::RlimitMemlock,
        Resource::RLIMIT_MEMLOCK,
        Some((64 * 1024, 64 * 1024)),
    ),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue, Resource::RLIMIT_MSGQUEUE, None),
    ("nice", PosixRlimitType::RlimitNice, Resource::RLIMIT_NICE, None),
    ("nofile", PosixRlimitType::RlimitNofile, Resource::RLIMIT_NOFILE, Some((1024, 65_536))),
    ("nproc", PosixRlimitType::RlimitNproc, Resource::RLIMIT_NPROC, None),
    ("rtprio", PosixRlimitType::RlimitRtprio, Resource::RLIMIT_RTPRIO, None),
    ("sigpending", PosixRlimitType::RlimitSigpending, Resource::RLIMIT_SIGPENDING, None),
    ("stack", PosixRlimitType::RlimitStack, Resource::RLIMIT_STACK, None),
];

/// The profile's limits, tightened by the user's. Without a profile's own the bound is ours: a hard
/// limit is not raised for anybody.
fn limits(wanted: &BTreeMap<String, Ulimit>) -> Result<Vec<PosixRlimit>, Failure> {
    let mut limits = Vec::new();
    for (name, kind, resource, own) in LIMITS {
        let (_, host_hard) = getrlimit(resource)
            .map_err(|errno| crate::failure::system("read our own limits", errno))?;
        let ceiling = own.map_or(host_hard, |(_, hard)| hard.min(host_hard));
        let limit = match wanted.get(name) {
            None => own.map(|(soft, hard)| (soft.min(host_hard), hard.min(host_hard))),
            Some(Ulimit { soft, hard }) if soft > hard => {
                let text = format!("{name}: the soft limit {soft} is above the hard one {hard}");
                return Err(invalid("process.ulimits", text));
            }
            Some(Ulimit { hard, .. }) if *hard > ceiling => {
                let text = format!("{name}: {hard} is above what is allowed, {ceiling}");
                return Err(invalid("process.ulimits", text));
            }
            Some(Ulimit { soft, hard }) => Some((*soft, *hard)),
        };
        if let Some((soft, hard)) = limit {
            let limit = PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard);
            limits.push(limit.build().map_err(defect)?);
        }
    }
    match wanted.keys().find(|name| !LIMITS.iter().any(|row| row.0 == name.as_str())) {
        Some(name) => Err(invalid("process.ulimits", format!("{name:?} is no limit"))),
        None => Ok(limits),
    }
}

/// RFC 1123, section 2.1: letters, digits and inner hyphens.
fn check_hostname(name: &str) -> Result<(), Failure> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = (1..=HOSTNAME_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(());
    }
    Err(invalid("hostname", format!("{name:?} is not a host name label")))
}

fn invalid(field: &str, text: String) -> Failure {
    Failure::new(FailureClass::Invalid, "container.config", format!("{field}: {text}"))
}

fn defect(error: OciSpecError) -> Failure {
    Failure::new(
        FailureClass::Broken,
        "container.config",
        format!("build the configuration: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_runtime::id::{ContainerId, PrincipalId};
    use berth_runtime::wire::{Console, Limits, LogOptions, NetworkMode, ProcessSpec, StopOptions};

    const HOST: ProfileHost =
        ProfileHost { first_id: 2_000_000_000, cgroup_v2: true, apparmor: false };

    fn request() -> StartRequest {
        StartRequest {
            container: ContainerId::from_bytes([7; 16]),
            person: PrincipalId(1000),
            run: 1,
            layers: Vec::new(),
            process: ProcessSpec {
                args: vec!["/bin/true".to_owned()],
                env: Vec::new(),
                cwd: "/".to_owned(),
                user: String::new(),
                capabilities_dropped: Vec::new(),
                ulimits: BTreeMap::new(),
            },
            hostname: "box".to_owned(),
            read_only_root: false,
            tmpfs: Vec::new(),
            volumes: Vec::new(),
            data_sets: Vec::new(),
            shm_bytes: 64 << 20,
            network: NetworkMode::None,
            ports: Vec::new(),
            limits: Limits {
                cpu_millis: 1000,
                cpu_weight: 100,
                memory_bytes: 64 << 20,
                swap_bytes: 0,
                pids: 64,
            },
            console: Console::default(),
            log: LogOptions { file_bytes_max: 1 << 20, files_max: 2 },
            stop: StopOptions { signal: 15, grace_secs: 10 },
        }
    }

    fn refused(change: impl FnOnce(&mut StartRequest)) {
        let mut request = request();
        change(&mut request);
        let failure = spec(&request, &HOST).expect_err("a wider profile");
        assert_eq!(failure.class, FailureClass::Invalid, "{failure}");
    }

    #[test]
    fn the_profile_is_what_the_runtime_can_hold_to() {
        let spec = spec(&request(), &HOST).expect("a plain request");
        crate::spec::check(&spec).expect("a supported configuration");
        let process = spec.process().as_ref().expect("a process");
        assert_eq!(process.no_new_privileges(), Some(true));
        let capabilities = process.capabilities().as_ref().expect("capabilities");
        assert_eq!(capabilities.bounding().as_ref().map(HashSet::len), Some(11));
        assert_eq!(capabilities.effective(), capabilities.bounding());
        assert_eq!(capabilities.ambient().as_ref().map(HashSet::len), Some(0));
    }

    #[test]
    fn nothing_of_a_users_widens_it() {
        let ulimit = |soft, hard| Ulimit { soft, hard };
        refused(|request| {
            request.process.ulimits.insert("nofile".to_owned(), ulimit(10, 65_537));
        });
        refused(|request| {
            request.process.ulimits.insert("core".to_owned(), ulimit(0, 1));
        });
        refused(|request| {
            request.process.ulimits.insert("bogus".to_owned(), ulimit(0, 0));
        });
        refused(|request| {
            request.process.ulimits.insert("nofile".to_owned(), ulimit(2, 1));
        });
        for target in ["/", "/proc", "/proc/sys", "//sys/./fs", "/dev/shm", "/a/../proc", "rel"] {
            refused(|request| {
                request.tmpfs = vec![Tmpfs { target: target.to_owned(), size_bytes: 1 << 20 }];
            });
        }
        refused(|request| request.tmpfs = vec![Tmpfs { target: "/t".to_owned(), size_bytes: 0 }]);
        for name in ["", "-a", "a-", "a.b", "a b", "a\n", &"a".repeat(64)] {
            refused(|request| request.hostname = name.to_owned());
        }
        refused(|request| request.process.cwd = "a".to_owned());
        refused(|request| request.process.args = vec![String::new()]);
        refused(|request| request.process.env = vec!["=x".to_owned()]);
        refused(|request| request.process.capabilities_dropped = vec!["CAP_BOGUS".to_owned()]);
    }

    #[test]
    fn users_can_drop_capabilities() {
        let mut request = request();
        request.process.capabilities_dropped = vec!["CAP_CHOWN".to_owned(), "KILL".to_owned()];
        let kept = |request: &StartRequest| {
            let spec = spec(request, &HOST).expect("a tighter profile");
            let process = spec.process().clone().expect("a process");
            process.capabilities().as_ref().and_then(|sets| sets.bounding().clone())
        };
        assert_eq!(kept(&request).map(|set| set.len()), Some(9));
        request.process.capabilities_dropped = vec!["ALL".to_owned()];
        assert_eq!(kept(&request).map(|set| set.len()), Some(0));
    }
}
