//! The volumes of a container that is being built: opened and, each as a mount of its own, given to the child. One
//! of another owner's is mounted with that owner's ids shown as the container's, so that each owns inside what they
//! own in their containers, and all that is written is the volume's owner's on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::Pid;

use berth_runtime::config::RANGE_IDS;
use berth_runtime::id::{PrincipalId, VolumeId};
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::VolumeMount;

use super::{Job, broken};
use crate::failure::system;
use crate::files::FileError;
use crate::namespace::{IdMap, id_map_namespace};
use crate::people::Person;
use crate::places::Places;
use crate::profile::user_target;
use crate::rootfs::copy_up::TakenOver;
use crate::rootfs::mounts::Volume;
use crate::rootfs::target::Kind;
use crate::sys::fd::{Links, open_in_root};
use crate::sys::mount_api::{Change, attributes, clone_tree, set_attributes};
use crate::volume::Open;

/// One of them.
struct Held {
    open: Open,
    owner: Person,
    /// Shows the ids of another owner as the container's.
    id_map: Option<OwnedFd>,
}

/// Them all, each once.
pub(super) struct Volumes {
    person: Person,
    held: BTreeMap<(VolumeId, PrincipalId), Held>,
}

impl Volumes {
    /// Opens them in the order of their ids, so that nobody waits for somebody who waits for them.
    pub(super) fn open(job: &Job, places: &Places) -> Result<Self, Failure> {
        let mut volumes = Self { person: job.person, held: BTreeMap::new() };
        let mut wanted: BTreeMap<(VolumeId, PrincipalId), bool> = BTreeMap::new();
        for one in &job.start.volumes {
            let key = (one.volume.clone(), one.owner_in(job.person.person));
            *wanted.entry(key).or_default() |= !one.read_only;
        }
        for (key, writes) in wanted {
            let (id, owner) = &key;
            let unknown = || crate::volume::unknown(id);
            let owner = *job.volume_owners.get(owner).ok_or_else(unknown)?;
            let is_own = owner.person == job.person.person;
            let open = match is_own || writes {
                true => Open::new(places, &owner, id)?,
                false => Open::used(places, &owner, id)?,
            };
            let id_map = if is_own { None } else { Some(shown(&owner, &job.person)?) };
            volumes.held.insert(key, Held { open, owner, id_map });
        }
        Ok(volumes)
    }

    /// A mount for each place.
    pub(super) fn mounts(&self, wanted: &[VolumeMount]) -> Result<Vec<Volume>, Failure> {
        let mut filled = BTreeSet::new();
        let mut mounts = Vec::new();
        for one in wanted {
            let key = (one.volume.clone(), one.owner_in(self.person.person));
            let Some(held) = self.held.get(&key) else { continue };
            let fills = held.open.is_fresh && one.copy_up && one.sub_path.is_none();
            // Whoever may only read has a mount that is read-only before anybody sees it.
            let fills = fills && (held.id_map.is_none() || !one.read_only);
            let first = fills && filled.insert(key);
            mounts.push(mount(held, one, first.then_some(TakenOver::ALL))?);
        }
        Ok(mounts)
    }

    /// Ends what are first uses, when the child has built everything.
    pub(super) fn settle(&self, process: Pid) -> Result<(), Failure> {
        let person = &self.person;
        self.held.values().try_for_each(|held| held.open.settle(&held.owner, (person, process)))
    }
}

/// Ids of `owner`'s, shown as those of `person`'s containers.
fn shown(owner: &Person, person: &Person) -> Result<OwnedFd, Failure> {
    let map = IdMap { inside: owner.first_id, outside: person.first_id, count: RANGE_IDS };
    id_map_namespace(map)
        .map_err(FileError::io("make the id map of", "a volume"))
        .map_err(|error| broken(&error))
}

fn mount(
    held: &Held,
    wanted: &VolumeMount,
    taken_over: Option<TakenOver>,
) -> Result<Volume, Failure> {
    let content = &held.open.content;
    let inner = match &wanted.sub_path {
        Some(path) => Some(open_inside(content.as_fd(), path)?),
        None => None,
    };
    let place = inner.as_ref().unwrap_or(content);
    let failed = |errno| system("clone the mount of a volume", errno);
    let kind = SFlag::from_bits_truncate(fstat(place).map_err(failed)?.st_mode) & SFlag::S_IFMT;
    let kind = match kind {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFREG => Kind::File,
        _ => return Err(wrong(wanted, "it is neither a directory nor an ordinary file")),
    };
    let tree = clone_tree(place.as_fd(), c"", false).map_err(failed)?;
    let read_only = if wanted.read_only { attributes::RDONLY } else { 0 };
    let at_once = if held.id_map.is_some() { read_only } else { 0 };
    let change = Change {
        set: attributes::NOSUID | attributes::NODEV | at_once,
        propagation: libc::MS_PRIVATE,
        id_map: held.id_map.as_ref().map(AsFd::as_fd),
        ..Change::default()
    };
    set_attributes(&tree, change).map_err(failed)?;
    let target = user_target(&wanted.target, kind, "volumes")?;
    Ok(Volume { tree, target, taken_over, attributes: read_only })
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
