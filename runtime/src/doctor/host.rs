//! What can be read of the host: kernel, namespaces, fences, bounds, disk.

use std::fs;
use std::path::{Path, PathBuf};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::wire::DoctorCheck;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::{blocker, fine, lack};
use crate::apparmor::{self, State};
use crate::disk;
use crate::sys::landlock;

/// The oldest kernel that overlays idmapped layers (overlayfs on idmapped mounts came with 5.19).
const KERNEL_MIN: (u32, u32) = (5, 19);
/// Open files that a container may be given at most by the profile.
const NOFILE_WANTED: u64 = 65_536;
/// Processes of one supervisor's user that a busy host needs.
const NPROC_WANTED: u64 = 8_192;
const GIB: u64 = 1 << 30;

pub(super) fn kernel() -> DoctorCheck {
    let id = "kernel.version";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let found = format!("Linux {release}");
    match version(release) {
        Some(version) if version >= KERNEL_MIN => fine(id, found),
        _ => blocker(
            id,
            found,
            "layers cannot be shared between people: overlayfs takes no idmapped mounts",
            "run Linux 5.19 or newer (Debian 12, Ubuntu 22.04 with its HWE kernel, or later)",
        ),
    }
}

/// Major and minor of a release such as `6.1.0-56-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn privilege() -> DoctorCheck {
    if nix::unistd::geteuid().is_root() {
        return fine("privilege", "running as root");
    }
    blocker(
        "privilege",
        "not running as root",
        "much of this report could not be tried, and the supervisor must be root",
        "run it again as root (sudo berth doctor)",
    )
}

/// The calls that everything is built on, tried.
pub(super) fn calls() -> DoctorCheck {
    let id = "kernel.calls";
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let root = fs::File::open("/");
    let openat2 = root.is_ok_and(|root| openat2(root, "etc", how).is_ok());
    // clone3 with a pidfd makes the namespace; what holds it is ended by its pidfd.
    let map = crate::namespace::IdMap { inside: 0, outside: 0, count: 1 };
    let clone3 = crate::namespace::id_map_namespace(map).err();
    match (openat2, clone3) {
        (true, None) => fine(id, "clone3, pidfd and openat2 work"),
        (openat2, clone3) => {
            let mut missing = Vec::new();
            if !openat2 {
                missing.push("openat2 is refused".to_owned());
            }
            missing
                .extend(clone3.map(|error| format!("clone3 with a new user namespace: {error}")));
            blocker(
                id,
                missing.join("; "),
                "containers cannot be made",
                "run as root on the host itself: inside another container these calls are filtered",
            )
        }
    }
}

pub(super) fn namespaces() -> Vec<DoctorCheck> {
    let mut checks = Vec::new();
    let missing: Vec<&str> = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"]
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    checks.push(if missing.is_empty() {
        fine("namespaces", "mount, pid, net, ipc, uts, user, cgroup and time")
    } else {
        let found = format!("the kernel has no {} namespace", missing.join(", "));
        let mend = "run a distribution's kernel (CONFIG_USER_NS, CONFIG_TIME_NS and so on)";
        blocker("namespaces", found, "containers cannot be made", mend)
    });
    let path = "/proc/sys/user/max_user_namespaces";
    let most = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    checks.push(match most {
        Some(0) => blocker(
            "namespaces.user",
            format!("{path} is 0"),
            "containers cannot be made",
            "sysctl user.max_user_namespaces=65536, and the same in a file of /etc/sysctl.d",
        ),
        Some(most) if most < 2_000 => lack(
            "namespaces.user",
            format!("{most} user namespaces at most"),
            "every container needs one: no more than that many run at once",
            "sysctl user.max_user_namespaces=65536, and the same in a file of /etc/sysctl.d",
        ),
        Some(most) => fine("namespaces.user", format!("{most} at most")),
        None => blocker(
            "namespaces.user",
            format!("{path} cannot be read"),
            "containers cannot be made",
            "run a kernel with CONFIG_USER_NS",
        ),
    });
    checks
}

pub(super) fn seccomp() -> DoctorCheck {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = fs::read_to_string(path).unwrap_or_default();
    let has = |name| actions.split_whitespace().any(|action| action == name);
    if ["kill_process", "errno", "allow"].into_iter().all(has) {
        return fine("seccomp", format!("filters with {}", actions.trim().replace(' ', ", ")));
    }
    blocker(
        "seccomp",
        format!("{path} does not name kill_process, errno and allow"),
        "containers would run without a filter of system calls, so none is started",
        "run a kernel with CONFIG_SECCOMP_FILTER",
    )
}

pub(super) fn landlock() -> DoctorCheck {
    match landlock::abi() {
        Ok(abi) => fine("landlock", format!("ABI {abi}")),
        Err(errno) => lack(
            "landlock",
            match errno {
                Errno::EOPNOTSUPP => "switched off at boot".to_owned(),
                Errno::ENOSYS => "not in this kernel".to_owned(),
                other => other.to_string(),
            },
            "the unpacker of layers is confined by one fence fewer",
            "boot with landlock among the names of the lsm= parameter",
        ),
    }
}

pub(super) fn apparmor(config: &RuntimeConfig) -> DoctorCheck {
    let costs = "one fence fewer around containers; namespaces, capabilities and seccomp hold \
                 without it";
    let short = |found: &str, mend| lack("apparmor", found, costs, mend);
    match apparmor::state() {
        State::Off => {
            short("not enabled", "boot with apparmor=1 security=apparmor where the kernel has it")
        }
        State::NotLoaded => short(
            "enabled, but the profile berth-container is not loaded",
            "run the installer again, or apparmor_parser -r /etc/apparmor.d/berth-container",
        ),
        State::Complaining => short(
            "the profile berth-container only logs",
            "apparmor_parser -r /etc/apparmor.d/berth-container",
        ),
        State::Enforced if !config.apparmor => {
            short("loaded, but runtime.apparmor is false", "set runtime.apparmor to true")
        }
        State::Enforced => fine("apparmor", "containers are in the profile berth-container"),
    }
}

pub(super) fn rlimits() -> Vec<DoctorCheck> {
    let wanted = [
        ("rlimits.nofile", Resource::RLIMIT_NOFILE, "open files", NOFILE_WANTED),
        ("rlimits.nproc", Resource::RLIMIT_NPROC, "processes per user", NPROC_WANTED),
    ];
    let check = |(id, resource, what, wanted)| match getrlimit(resource) {
        Ok((_, hard)) if hard >= wanted => {
            let hard = if hard == nix::libc::RLIM_INFINITY {
                "any number".into()
            } else {
                hard.to_string()
            };
            fine(id, format!("{hard} of {what}"))
        }
        Ok((_, hard)) => lack(
            id,
            format!("{hard} of {what} (hard limit)"),
            "containers together, and each by its ulimits, get less than the default profile would give",
            "raise it in the supervisor's unit (LimitNOFILE=, LimitNPROC=) or in limits.conf(5)",
        ),
        Err(errno) => lack(id, format!("not known: {errno}"), "", ""),
    };
    wanted.into_iter().map(check).collect()
}

/// What containers leave to the host.
pub(super) fn reserve(config: &RuntimeConfig) -> DoctorCheck {
    let id = "host.reserve";
    let total = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
    let (all, reserve) = (tenths(total), &config.reserve);
    let Some(left) = reserve.memory_left(total) else {
        let found = "all containers together may use all memory";
        let costs = "when they do, the host and Berth itself answer late or not at all";
        let mend = "leave [runtime.reserve] memory_bytes out, or give a number";
        return lack(id, found, costs, mend);
    };
    let found = format!("all containers together may use {:.1} of {all:.1} GiB", tenths(left));
    if reserve.memory_bytes.is_some_and(|kept| total.saturating_sub(kept) < left) {
        let costs =
            "more is reserved than there is, so that containers keep a quarter all the same";
        let mend = "give a smaller number as [runtime.reserve] memory_bytes";
        return lack(id, found, costs, mend);
    }
    fine(id, found)
}

/// Room and file systems of the directories, or of where they will be made.
pub(super) fn disk(config: &RuntimeConfig) -> Vec<DoctorCheck> {
    let place = nearest(&config.data_dir);
    let mut checks = Vec::new();
    match statvfs(&place) {
        Ok(figures) => {
            let free = figures.blocks_available() * figures.fragment_size();
            let found = format!("{:.1} GiB free at {}", tenths(free), place.display());
            let mend = "make room, or set [runtime] data_dir to a larger file system";
            checks.push(match free {
                free if free < GIB => blocker("disk.space", found, "images cannot be pulled", mend),
                free if free < 10 * GIB => {
                    lack("disk.space", found, "room for a few small images only", mend)
                }
                _ => fine("disk.space", found),
            });
            let inodes = figures.files_available();
            let found = format!("{inodes} inodes free at {}", place.display());
            // File systems that make inodes as they go (btrfs) show 0 of 0.
            checks.push(if figures.files() > 0 && inodes < 200_000 {
                let costs = "an image has tens of thousands of files, each of them an inode";
                lack("disk.inodes", found, costs, "use a file system made with more inodes, or xfs")
            } else {
                fine("disk.inodes", found)
            });
        }
        Err(errno) => {
            let found = format!("{}: {errno}", place.display());
            checks.push(blocker("disk.space", found, "nothing can be stored", "mend that path"));
        }
    }
    let place = nearest(&config.run_dir);
    checks.push(match statfs(&place).map(|figures| figures.filesystem_type()) {
        Ok(TMPFS_MAGIC) => fine("run.tmpfs", format!("{} is in memory", place.display())),
        _ => lack(
            "run.tmpfs",
            format!("{} is not on a tmpfs", place.display()),
            "state of a former boot has to be told from the present one's, and starts are slower",
            "mount a tmpfs there, as systemd does at /run, or set [runtime] run_dir to a place on one",
        ),
    });
    checks
}

/// How what people may keep on disk is held, and whether it can be.
pub(super) fn data(config: &RuntimeConfig) -> DoctorCheck {
    let id = "data.limit";
    let costs = "nobody can be given a limit of what they keep on disk";
    let tools: Vec<&str> = [disk::MAKE, disk::CHECK]
        .into_iter()
        .filter(|name| disk::program(name).is_none())
        .collect();
    if !tools.is_empty() {
        let found = format!("{} not found", tools.join(" and "));
        return lack(id, found, costs, "install e2fsprogs");
    }
    if !Path::new("/dev/loop-control").exists() {
        let mend = "modprobe loop, and `loop` in a file of /etc/modules-load.d";
        return lack(id, "/dev/loop-control is not there", costs, mend);
    }
    let place = nearest(&config.data_dir);
    // Elsewhere a block that was set aside may not be the one that is written.
    let holds = |kind| matches!(kind, EXT4_SUPER_MAGIC | XFS_SUPER_MAGIC);
    match statfs(&place).map(|figures| figures.filesystem_type()) {
        Ok(kind) if holds(kind) && !disk::grows_mounted() => lack(
            id,
            "root has no CAP_SYS_RESOURCE: a person's file system cannot grow while it is in use",
            "whoever gets more room has to stop their containers for it",
            "run Berth on the host itself, or give its container that capability",
        ),
        Ok(kind) if holds(kind) => {
            fine(id, "a file system of their own in a file (ext4 on loop), for whoever has a limit")
        }
        _ => lack(
            id,
            format!("{} is on neither ext4 nor xfs", place.display()),
            "a limit holds, and the blocks that are set aside for it may not be there when the disk is full",
            "set [runtime] data_dir to a place on ext4 or xfs",
        ),
    }
}

/// The path itself, or the closest directory above it that is there.
pub(super) fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Bytes as GiB for one decimal place.
fn tenths(bytes: u64) -> f64 {
    let tenths = u32::try_from(bytes / (GIB / 10)).unwrap_or(u32::MAX);
    f64::from(tenths) / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.19-rc1"), Some((5, 19)));
        assert!(version("5.4.0") < Some(KERNEL_MIN) && version("10.0") > Some(KERNEL_MIN));
        assert_eq!(version("unknown"), None);
    }
}
