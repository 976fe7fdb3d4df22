//! The volumes of a container that is being built: opened and, each as a mount of its own, given to the child.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::Pid;

use berth_runtime::id::VolumeId;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::VolumeMount;

use super::Job;
use crate::failure::system;
use crate::people::Person;
use crate::places::Places;
use crate::profile::user_target;
use crate::rootfs::copy_up::TakenOver;
use crate::rootfs::mounts::Volume;
use crate::rootfs::target::Kind;
use crate::sys::fd::{Links, open_in_root};
use crate::sys::mount_api::{Change, attributes, clone_tree, set_attributes};
use crate::volume::Open;

/// Them all, each once.
pub(super) struct Volumes(BTreeMap<VolumeId, Open>);

impl Volumes {
    /// Opens them in the order of their ids, so that nobody waits for somebody who waits for them.
    pub(super) fn open(job: &Job, places: &Places) -> Result<Self, Failure> {
        let mut ids: Vec<&VolumeId> = job.start.volumes.iter().map(|one| &one.volume).collect();
        ids.sort_unstable();
        ids.dedup();
        let open =
            |id: &VolumeId| Open::new(places, &job.person, id).map(|volume| (id.clone(), volume));
        ids.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// A mount for each place.
    pub(super) fn mounts(&self, wanted: &[VolumeMount]) -> Result<Vec<Volume>, Failure> {
        let mut filled: Vec<&VolumeId> = Vec::new();
        let mut mounts = Vec::new();
        for one in wanted {
            let Some(volume) = self.0.get(&one.volume) else { continue };
            let fills = volume.is_fresh && one.copy_up && one.sub_path.is_none();
            let first = fills && !filled.contains(&&one.volume);
            if first {
                filled.push(&one.volume);
            }
            mounts.push(mount(volume, one, first.then_some(TakenOver::ALL))?);
        }
        Ok(mounts)
    }

    /// Ends what are first uses, when the child has built everything.
    pub(super) fn settle(&self, person: &Person, process: Pid) -> Result<(), Failure> {
        self.0.values().try_for_each(|volume| volume.settle(person, process))
    }
}

fn mount(
    volume: &Open,
    wanted: &VolumeMount,
    taken_over: Option<TakenOver>,
) -> Result<Volume, Failure> {
    let inner = match &wanted.sub_path {
        Some(path) => Some(open_inside(volume.content.as_fd(), path)?),
        None => None,
    };
    let place = inner.as_ref().unwrap_or(&volume.content);
    let failed = |errno| system("clone the mount of a volume", errno);
    let kind = SFlag::from_bits_truncate(fstat(place).map_err(failed)?.st_mode) & SFlag::S_IFMT;
    let kind = match kind {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFREG => Kind::File,
        _ => return Err(wrong(wanted, "it is neither a directory nor an ordinary file")),
    };
    let tree = clone_tree(place.as_fd(), c"", false).map_err(failed)?;
    let change = Change {
        set: attributes::NOSUID | attributes::NODEV,
        propagation: libc::MS_PRIVATE,
        ..Change::default()
    };
    set_attributes(&tree, change).map_err(failed)?;
    let attributes = if wanted.read_only { attributes::RDONLY } else { 0 };
    let target = user_target(&wanted.target, kind, "volumes")?;
    Ok(Volume { tree, target, taken_over, attributes })
}

/// A directory or file in a volume, by a path that leads nowhere else whatever links programs make on it.
fn open_inside(content: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Failure> {
    let text = CString::new(path).map_err(|_| inside(path, "it holds a NUL"))?;
    open_in_root(content, &text, OFlag::O_PATH, Links::InRoot).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => inside(path, "it is not there"),
        Errno::ELOOP => inside(path, "it leads through a magic or endless link"),
        other => inside(path, other.desc()),
    })
}

fn inside(path: &str, why: &str) -> Failure {
    let message = format!("mount {path:?} of a volume: {why}");
    Failure::new(FailureClass::Invalid, "volume.sub-path", message)
}

fn wrong(wanted: &VolumeMount, why: &str) -> Failure {
    inside(wanted.sub_path.as_deref().unwrap_or_default(), why)
}
