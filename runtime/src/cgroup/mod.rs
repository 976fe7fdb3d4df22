//! Control groups (cgroups(7)): one directory of limits for each container, on both layouts.
//!
//! [`Hierarchy`] is found once from the mount table and every difference between the layouts is a
//! `match` on it. cgroup v2 is the product; v1, alone or beside an empty unified tree ("hybrid"), is
//! an adapter: what v1 cannot hold is reported as not held and never emulated.
//!
//! Invariants: a path is relative to the root of each hierarchy and never holds `..`; processes are
//! only in leaves; nothing here writes `release_agent` or `notify_on_release`; every error names the
//! file and, for writes, the value. Deliberately absent: who owns what (that is `scope`'s caller) and
//! policy on how large a limit may be.

mod devices;
mod disk;
mod files;
mod hierarchy;
mod limits;
mod resources;
mod scope;
mod state;

use std::io;
use std::path::{Path, PathBuf};

use berth_runtime::record::{CgroupPaths, CgroupVersion, Failure, FailureClass};

use crate::launch::CgroupEntry;

pub use devices::{CONTAINER_DEVICES, DeviceAccess, DeviceKind, DeviceRule, Fence};
pub use disk::Disk;
pub use hierarchy::{Controller, Hierarchy};
pub use limits::{Bound, Settings};
#[cfg(any(test, fuzzing))]
pub use resources::fence_agrees;
pub use resources::{Before, cpu_weight, fence, numbers, swap_alone};
pub use scope::{Found, Scope};

/// Tries to make a cgroup whose parents others remove.
const CREATE_TRIES: u32 = 100;

/// Tries to remove a directory at most, a millisecond and more apart: the kernel answers EBUSY until
/// the last process of a killed cgroup has been reaped (cgroups(7)).
const REMOVE_TRIES_MAX: u32 = 200;

/// Why a cgroup could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mount table shows no usable hierarchy.
    #[error("find the cgroup hierarchies: {0}")]
    Layout(String),
    /// The path is not one that this program would make.
    #[error("use cgroup path {0:?}: it must be absolute, without empty parts, \".\" or \"..\"")]
    BadPath(String),
    /// A directory could not be made.
    #[error("create cgroup {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file says something that cannot be understood.
    #[error("understand {value:?} in {path}")]
    Malformed { path: PathBuf, value: String },
    /// The kernel refused a value.
    #[error("write {value:?} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    /// A directory could not be removed.
    #[error("remove cgroup {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Memory cannot be lowered below what is in use.
    #[error("lower {path} to {wanted} bytes: {used} bytes are in use and cannot be reclaimed")]
    MemoryInUse { path: PathBuf, wanted: u64, used: u64 },
    /// A change of limits failed, and so did undoing the part already made.
    #[error("undo a change of limits after a failure ({first})")]
    Undo {
        first: String,
        #[source]
        source: Box<Error>,
    },
    /// A resource of a configuration that the kernel refused.
    #[error("linux.resources.{field}: {asked} is refused")]
    Resource {
        field: String,
        asked: String,
        #[source]
        source: Box<Error>,
    },
    /// A resource of a configuration that nothing here can hold.
    #[error("linux.resources.{field}: {asked} cannot be held: {reason}")]
    Lacking { field: String, asked: String, reason: String },
    /// A change of several resources of which one was refused.
    #[error("nothing is changed (values put back: {count})")]
    PutBack {
        count: usize,
        #[source]
        source: Box<Error>,
    },
    /// Something did not happen in time.
    #[error("wait for {what} of {path}: not within {millis} ms")]
    Timeout { path: PathBuf, what: &'static str, millis: u64 },
    /// The device program could not be loaded or attached.
    #[error("{step} the device program of {path}")]
    DeviceProgram {
        path: PathBuf,
        step: &'static str,
        #[source]
        source: io::Error,
    },
    /// Settings from a configuration that cannot be held by any cgroup.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// What the caller may do, and the failure's identifier.
    fn class(&self) -> (FailureClass, &'static str) {
        match self {
            Error::MemoryInUse { .. } => (FailureClass::Conflict, "limits.memory-in-use"),
            Error::Invalid(_) | Error::BadPath(_) => (FailureClass::Invalid, "limits.invalid"),
            Error::Lacking { .. } => (FailureClass::Unavailable, "limits.not-held"),
            Error::Resource { source, .. } | Error::PutBack { source, .. } => match &**source {
                Error::Write { source, .. } if source.raw_os_error() != Some(libc::ENOENT) => {
                    (FailureClass::Invalid, "limits.invalid")
                }
                other => other.class(),
            },
            Error::Layout(_) => (FailureClass::Unavailable, "cgroup.layout"),
            Error::Timeout { .. } => (FailureClass::Unavailable, "cgroup.timeout"),
            Error::Write { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => {
                (FailureClass::Conflict, "cgroup.gone")
            }
            Error::Create { source, .. } if source.raw_os_error() == Some(libc::EAGAIN) => {
                (FailureClass::Exhausted, "cgroup.exhausted")
            }
            _ => (FailureClass::Broken, "cgroup.broken"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (class, code) = error.class();
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self::new(class, code, message)
    }
}

/// One cgroup: on v2 a directory, on v1 a directory of the same path in each hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    path: String,
}

impl Cgroup {
    /// Names a cgroup without touching the kernel. `path` is absolute from the hierarchies' roots,
    /// such as `/berth/g2/p1000/monitors`.
    pub fn at(hierarchy: &Hierarchy, path: &str) -> Result<Self, Error> {
        let parts = path.strip_prefix('/').ok_or_else(|| Error::BadPath(path.to_owned()))?;
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) || parts.contains('\0') {
            return Err(Error::BadPath(path.to_owned()));
        }
        Ok(Self { hierarchy: hierarchy.clone(), path: path.to_owned() })
    }

    /// A cgroup that was made earlier: in each v1 tree that was mounted then.
    pub fn made_at(hierarchy: Hierarchy, path: &str) -> Result<Self, Error> {
        let cgroup = Self::at(&hierarchy, path)?;
        Ok(Self { hierarchy: hierarchy.only_made(path), ..cgroup })
    }

    /// A cgroup below this one.
    pub fn child(&self, name: &str) -> Result<Self, Error> {
        Self::at(&self.hierarchy, &format!("{}/{name}", self.path))
    }

    /// Its path from the hierarchies' roots.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes the cgroup and what is missing above it; on v2 enables, from the root down, every
    /// controller that Berth uses and the kernel offers. Success when it is there already. What others
    /// remove above it meanwhile, since nothing was in it any more, is made again.
    pub fn create(&self) -> Result<(), Error> {
        for _ in 1..CREATE_TRIES {
            match self.create_once() {
                Err(error) if files::is_gone(&error) => {}
                other => return other,
            }
        }
        self.create_once()
    }

    fn create_once(&self) -> Result<(), Error> {
        match &self.hierarchy {
            Hierarchy::V2 { root } => hierarchy::create_v2(root, &self.path),
            Hierarchy::V1 { .. } => {
                let cpusets = self.hierarchy.root_of(Controller::Cpuset);
                for (root, _) in self.hierarchy.roots() {
                    if cpusets == Some(root) {
                        hierarchy::create_cpuset(root, &self.path)?;
                    } else {
                        hierarchy::create_v1(root, &self.path)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether the kernel has it (in any hierarchy: a half-made one is there).
    pub fn exists(&self) -> bool {
        self.directories().iter().any(|directory| directory.is_dir())
    }

    /// Whether every hierarchy has it.
    pub fn is_whole(&self) -> bool {
        self.directories().iter().all(|directory| directory.is_dir())
    }

    /// Whether some of its directories are missing, since whoever made or removed them was killed in the
    /// middle, and no process is in the others; also when it is gone.
    pub(super) fn is_half_and_empty(&self) -> Result<bool, Error> {
        let directories = self.directories();
        let there: Vec<_> = directories.iter().filter(|directory| directory.is_dir()).collect();
        if there.len() == directories.len() {
            return Ok(false);
        }
        for directory in there {
            match files::read(&directory.join("cgroup.procs")) {
                Ok(pids) if pids.is_empty() => {}
                Ok(_) => return Ok(false),
                Err(error) if files::is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Where the kernel shows its use, as absolute paths.
    pub fn paths(&self) -> CgroupPaths {
        let of = |controller| {
            let directory = self.directory(controller).or_else(|| self.unified());
            directory.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        };
        CgroupPaths {
            version: self.hierarchy.version(),
            cpu: of(Controller::Cpu),
            cpuacct: of(Controller::Cpuacct),
            memory: of(Controller::Memory),
            pids: of(Controller::Pids),
            io: of(Controller::Io),
        }
    }

    /// Puts a process (by its id in this program's pid namespace) into the cgroup, in every hierarchy.
    #[cfg(test)]
    fn join(&self, pid: i32) -> Result<(), Error> {
        for directory in self.directories() {
            files::write(&directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// What a process enters it by while it is born: on v2 the directory for clone3(2)'s
    /// `CLONE_INTO_CGROUP`; on v1 that of the unified tree, if any, and every other `tasks`.
    pub fn entry(&self) -> Result<CgroupEntry, Error> {
        let unified = self.unified().map(|path| files::open_directory(&path)).transpose()?;
        let mut tasks = Vec::new();
        for directory in self.directories() {
            if Some(&directory) != self.unified().as_ref() {
                tasks.push(files::open_for_writing(&directory.join("tasks"))?);
            }
        }
        Ok(CgroupEntry { unified, tasks })
    }

    /// Removes the cgroup and every cgroup that was made inside it, waiting for ended processes to be
    /// reaped. Success when it is gone already.
    pub fn remove(&self) -> Result<(), Error> {
        self.directories().iter().try_for_each(|path| files::remove_tree(path, REMOVE_TRIES_MAX))
    }

    /// Removes the cgroup where it is empty; says whether it is gone.
    pub fn remove_if_empty(&self) -> Result<bool, Error> {
        let mut gone = true;
        for directory in self.directories() {
            gone &= files::remove_if_empty(&directory)?;
        }
        Ok(gone)
    }

    /// Every directory of it; the unified one is the last on v1.
    fn directories(&self) -> Vec<PathBuf> {
        self.hierarchy.roots().into_iter().map(|(root, _)| self.below(root)).collect()
    }

    /// Its layout.
    pub fn version(&self) -> CgroupVersion {
        self.hierarchy.version()
    }

    /// The directory that holds a controller's files.
    pub fn directory(&self, controller: Controller) -> Option<PathBuf> {
        self.hierarchy.root_of(controller).map(|root| self.below(root))
    }

    /// The directory in the unified tree, if there is one.
    fn unified(&self) -> Option<PathBuf> {
        self.hierarchy.unified().map(|root| self.below(root))
    }

    fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.path[1..])
    }
}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
