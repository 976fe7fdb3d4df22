//! Data sets: directories of the host's that the operator offers to containers, to be read. Where one is, is in the
//! supervisor's own configuration; requests name it.
//!
//! Each is opened anew at each start, by a walk that takes no symbolic link, so that whoever may write somewhere on the
//! way cannot lead it elsewhere. The mount is read-only, with all that is mounted below, before anything of the
//! container sees it. Ids are not mapped: a container reads what every user of the host may read, and sees all of it
//! as nobody's. So a key that somebody left in the directory with mode 0600 stays closed to a container's root, and file
//! systems that know no idmapped mounts (NFS) serve.
//!
//! Deliberately absent: who may have one, which is the server's to know.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use berth_runtime::config::{DataSet, RuntimeConfig};
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::DataSetMount;

use crate::failure::system;
use crate::profile::user_target;
use crate::rootfs::mounts::Volume;
use crate::rootfs::target::Kind;
use crate::sys::fd::{Links, open_in_root};
use crate::sys::mount_api::{Change, attributes, clone_tree, set_attributes};

/// Every user may list it and go through it.
const OPEN_TO_ALL: u32 = 0o005;

/// Why one cannot be had, in words that do not say where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Nothing is there.
    #[error("nothing is there")]
    Missing,
    /// Some part of the path is a symbolic link.
    #[error("its path leads through a symbolic link")]
    Link,
    /// It is something else.
    #[error("it is no directory")]
    NoDirectory,
    /// Users of the host other than its owner and group cannot read it.
    #[error("not every user of the host may list it and go through it")]
    Closed,
    /// The kernel says something else.
    #[error("{}", .0.desc())]
    Other(Errno),
}

/// Opens the directory of a data set.
fn open_one(set: &DataSet) -> Result<OwnedFd, Fault> {
    let root =
        open(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let root = root.map_err(Fault::Other)?;
    let path = CString::new(set.path.as_os_str().as_bytes()).map_err(|_| Fault::Missing)?;
    let directory = open_in_root(root.as_fd(), &path, OFlag::O_PATH, Links::Refused);
    let directory = directory.map_err(|errno| match errno {
        Errno::ENOENT => Fault::Missing,
        Errno::ENOTDIR => Fault::NoDirectory,
        Errno::ELOOP => Fault::Link,
        other => Fault::Other(other),
    })?;
    let mode = fstat(&directory).map_err(Fault::Other)?.st_mode;
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR if mode & OPEN_TO_ALL == OPEN_TO_ALL => Ok(directory),
        SFlag::S_IFDIR => Err(Fault::Closed),
        _ => Err(Fault::NoDirectory),
    }
}

/// Why each data set that cannot be had cannot.
pub(crate) fn faults(config: &RuntimeConfig) -> Vec<(&str, &DataSet, Fault)> {
    let tried = config.data_sets.iter();
    tried.filter_map(|(name, set)| Some((name.as_str(), set, open_one(set).err()?))).collect()
}

/// Refuses, in the journal's words, when one cannot be had.
pub(crate) fn look(config: &RuntimeConfig) -> Result<(), Failure> {
    let words = |(name, set, fault): &(&str, &DataSet, Fault)| {
        format!("data set {name} at {}: {fault}", set.path.display())
    };
    let faults: Vec<String> = faults(config).iter().map(words).collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(FailureClass::Conflict, "data-set.unavailable", faults.join("; ")))
}

/// The mounts that a start asks for.
pub(crate) fn mounts(
    config: &RuntimeConfig,
    wanted: &[DataSetMount],
) -> Result<Vec<Volume>, Failure> {
    wanted.iter().map(|one| mount(config, one)).collect()
}

fn mount(config: &RuntimeConfig, wanted: &DataSetMount) -> Result<Volume, Failure> {
    let set = config.data_sets.get(&wanted.name).ok_or_else(|| unknown(&wanted.name))?;
    let directory = open_one(set).map_err(|fault| {
        let message = format!("the data set {} cannot be mounted: {fault}", wanted.name);
        Failure::new(FailureClass::Conflict, "data-set.unavailable", message)
    })?;
    let failed = |errno| system("clone the mount of a data set", errno);
    let tree = clone_tree(directory.as_fd(), c"", true).map_err(failed)?;
    let change = Change {
        set: attributes::RDONLY | attributes::NOSUID | attributes::NODEV,
        propagation: libc::MS_PRIVATE,
        recursive: true,
        ..Change::default()
    };
    set_attributes(&tree, change).map_err(failed)?;
    let target = user_target(&wanted.target, Kind::Directory, "data_sets")?;
    Ok(Volume { tree, target, taken_over: None, attributes: 0 })
}

/// The configuration has none of this name.
pub(crate) fn unknown(name: &str) -> Failure {
    let name: String = name.chars().take(63).collect();
    let message = format!("there is no data set {name:?} in the supervisor's configuration");
    Failure::new(FailureClass::NotFound, "data-set.unknown", message)
}
