//! Which cgroup layout the host has, from the mount table, and making directories in it.

use std::path::{Path, PathBuf};

use berth_runtime::record::CgroupVersion;
use nix::sys::stat::{major, minor, stat};

use super::{Error, files};

/// Controllers that are enabled on v2, where the kernel offers them.
const V2_CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// What Berth uses of cgroups, by v1's division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// The count of processor time (`cpu` on v2).
    Cpuacct,
    /// Memory and swap.
    Memory,
    /// The number of processes.
    Pids,
    /// Block devices (`blkio` on v1).
    Io,
    /// Access to device nodes (an eBPF program on v2).
    Devices,
    /// Freezing (built in on v2).
    Freezer,
    /// No controller: systemd's own tree on v1, in which it tracks its units' processes.
    Systemd,
    /// Processors and memory nodes.
    Cpuset,
    /// Huge pages.
    Hugetlb,
    /// Marks on packets (v1 only).
    NetCls,
    /// Priorities of packets (v1 only).
    NetPrio,
    /// Handles and objects of RDMA devices.
    Rdma,
}

impl Controller {
    /// Those of every container, in the order in which a process joins them.
    const OWN: [Self; 8] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Memory,
        Self::Pids,
        Self::Io,
        Self::Devices,
        Self::Freezer,
        Self::Systemd,
    ];
    /// Those that only a configuration of the OCI command line can ask for.
    const ASKED: [Self; 5] = [Self::Cpuset, Self::Hugetlb, Self::NetCls, Self::NetPrio, Self::Rdma];

    /// Its name among a v1 mount's options.
    pub(super) fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "blkio",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Systemd => "name=systemd",
            Self::Cpuset => "cpuset",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::Rdma => "rdma",
        }
    }
}

/// The host's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// Every controller in one tree.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
    },
    /// A tree per controller or group of controllers.
    V1 {
        /// Where each controller is mounted (the same place for some).
        controllers: Vec<(Controller, PathBuf)>,
        /// The empty unified tree of the hybrid layout, with `cgroup.kill` and `cgroup.freeze`.
        unified: Option<PathBuf>,
    },
}

/// The lines of a mount table whose mount is what one finds at its place: not those that another mount, there
/// or on the way there, covers.
pub(super) fn in_sight(mountinfo: &str) -> String {
    let is_found = |line: &&str| {
        let mut fields = line.split(' ').skip(2);
        let (Some(device), Some(point)) = (fields.next(), fields.nth(1)) else { return false };
        let found =
            stat(point).map(|facts| format!("{}:{}", major(facts.st_dev), minor(facts.st_dev)));
        found.is_ok_and(|found| found == device)
    };
    let of_cgroups = mountinfo.lines().filter(|line| line.contains(" - cgroup"));
    of_cgroups.filter(is_found).fold(String::new(), |text, line| text + line + "\n")
}

impl Hierarchy {
    /// Reads the layout from this process's mount table, with the controllers that every container has.
    pub fn detect() -> Result<Self, Error> {
        Self::parse(&in_sight(&files::read(Path::new("/proc/self/mountinfo"))?))
    }

    /// The same with every controller that a configuration can ask for.
    pub fn detect_all() -> Result<Self, Error> {
        Self::parse_all(&in_sight(&files::read(Path::new("/proc/self/mountinfo"))?))
    }

    /// Reads the layout from the text of proc_pid_mountinfo(5).
    pub fn parse(mountinfo: &str) -> Result<Self, Error> {
        Self::parse_for(mountinfo, &Controller::OWN)
    }

    /// [`Hierarchy::detect_all`] from a given text.
    pub fn parse_all(mountinfo: &str) -> Result<Self, Error> {
        Self::parse_for(mountinfo, &[&Controller::OWN[..], &Controller::ASKED].concat())
    }

    fn parse_for(mountinfo: &str, wanted: &[Controller]) -> Result<Self, Error> {
        let mut unified = None;
        let mut controllers: Vec<(Controller, PathBuf)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((place, file_system)) = line.split_once(" - ") else { continue };
            let place: Vec<&str> = place.split(' ').collect();
            let file_system: Vec<&str> = file_system.split(' ').collect();
            // A mount of a part of a tree would make us write into somebody else's cgroup.
            let (Some(&"/"), Some(&point)) = (place.get(3), place.get(4)) else { continue };
            match (file_system.first(), file_system.get(2)) {
                (Some(&"cgroup2"), _) if unified.is_none() => unified = Some(PathBuf::from(point)),
                (Some(&"cgroup"), Some(options)) => {
                    for &controller in wanted {
                        let known = controllers.iter().any(|(found, _)| *found == controller);
                        let here = options.split(',').any(|option| option == controller.v1_name());
                        if here && !known {
                            controllers.push((controller, PathBuf::from(point)));
                        }
                    }
                }
                _ => {}
            }
        }
        // A tree for net_cls alone, as some programs mount beside v2, does not make a host one of v1.
        let makes_v1 = |found| Controller::OWN.contains(&found) && found != Controller::Systemd;
        let on_v1 = controllers.iter().any(|(found, _)| makes_v1(*found));
        match (on_v1, unified) {
            (true, unified) => Ok(Self::V1 { controllers, unified }),
            (false, Some(root)) => Ok(Self::V2 { root }),
            (false, None) => Err(Error::Layout("no cgroup file system is mounted".to_owned())),
        }
    }

    /// The layout's version, for records.
    pub fn version(&self) -> CgroupVersion {
        match self {
            Self::V2 { .. } => CgroupVersion::V2,
            Self::V1 { .. } => CgroupVersion::V1,
        }
    }

    /// The unified tree.
    pub fn unified(&self) -> Option<&Path> {
        match self {
            Self::V2 { root } => Some(root),
            Self::V1 { unified, .. } => unified.as_deref(),
        }
    }

    /// The tree that has a controller; on v2 the unified one, whether or not it is enabled there.
    pub fn root_of(&self, controller: Controller) -> Option<&Path> {
        match self {
            Self::V2 { root } => Some(root),
            Self::V1 { controllers, .. } => {
                let found = controllers.iter().find(|(known, _)| *known == controller);
                found.map(|(_, root)| root.as_path())
            }
        }
    }

    /// Every tree once, with a controller of it; the unified tree last.
    pub fn roots(&self) -> Vec<(&Path, Option<Controller>)> {
        let mut roots: Vec<(&Path, Option<Controller>)> = Vec::new();
        if let Self::V1 { controllers, .. } = self {
            for (controller, root) in controllers {
                if !roots.iter().any(|(known, _)| *known == root) {
                    roots.push((root, Some(*controller)));
                }
            }
        }
        roots.extend(self.unified().map(|root| (root, None)));
        roots
    }
}

impl Hierarchy {
    /// This layout without the v1 trees of controllers to be asked for in which `path` was not made: they
    /// were mounted later than the cgroup was made.
    pub(super) fn only_made(mut self, path: &str) -> Self {
        if let Self::V1 { controllers, .. } = &mut self {
            controllers.retain(|(controller, root)| {
                Controller::OWN.contains(controller) || root.join(&path[1..]).is_dir()
            });
        }
        self
    }
}

/// Makes `path` and what is above it in the v1 tree of cpusets, where a new cgroup has no processors and
/// no memory and therefore takes no process: it is given those of the level above (cgroup-v1/cpusets.rst).
pub fn create_cpuset(root: &Path, path: &str) -> Result<(), Error> {
    let mut directory = root.to_owned();
    for part in path[1..].split('/') {
        let above = directory.clone();
        directory.push(part);
        files::make_directory(&directory)?;
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let file = directory.join(name);
            if files::read(&file)?.is_empty() {
                files::write(&file, &files::read(&above.join(name))?)?;
            }
        }
    }
    Ok(())
}

/// Makes `path` and what is above it in one v1 tree.
pub fn create_v1(root: &Path, path: &str) -> Result<(), Error> {
    let mut directory = root.to_owned();
    for part in path[1..].split('/') {
        directory.push(part);
        files::make_directory(&directory)?;
    }
    Ok(())
}

/// Makes `path` in the unified tree, enabling controllers for the children of each level above it.
pub fn create_v2(root: &Path, path: &str) -> Result<(), Error> {
    let mut directory = root.to_owned();
    for part in path[1..].split('/') {
        enable_controllers(&directory)?;
        directory.push(part);
        files::make_directory(&directory)?;
    }
    Ok(())
}

/// Enables one more controller for a v2 cgroup, from the root down; says whether the cgroup has it then.
pub fn enable(root: &Path, path: &str, controller: &str) -> Result<bool, Error> {
    let mut directory = root.to_owned();
    for part in path[1..].split('/') {
        if !lists(&directory.join("cgroup.controllers"), controller)? {
            return Ok(false);
        }
        let control = directory.join("cgroup.subtree_control");
        if !lists(&control, controller)? {
            files::write(&control, &format!("+{controller}"))?;
        }
        directory.push(part);
    }
    lists(&directory.join("cgroup.controllers"), controller)
}

fn lists(file: &Path, controller: &str) -> Result<bool, Error> {
    Ok(files::read(file)?.split(' ').any(|word| word == controller))
}

/// Lets the children of a v2 cgroup have every controller that it has itself. A controller that the
/// level above does not give is not asked for: the limit is then reported as not held.
fn enable_controllers(directory: &Path) -> Result<(), Error> {
    let offered = files::read(&directory.join("cgroup.controllers"))?;
    let control = directory.join("cgroup.subtree_control");
    let enabled = files::read(&control)?;
    let has = |list: &str, name: &str| list.split(' ').any(|word| word == name);
    let missing: Vec<String> = V2_CONTROLLERS
        .iter()
        .filter(|name| has(&offered, name) && !has(&enabled, name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { files::write(&control, &missing.join(" ")) }
}
