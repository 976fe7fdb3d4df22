//! Acts on files in volumes and containers, each in a task of its own: look, list, read, write, remove.
//!
//! ```text
//! task (root)            finds the ground: a volume's directory, a running container's root by the pidfd of its
//!   │ clones              first process, or the layers of one that does not run; takes no path
//!   └──> child (confined) the root of the container's own ids in namespaces of its own, with the ground as its
//!                         root directory; walks the path, answers with descriptors
//! ```
//!
//! Invariants: a path is only ever walked by the child, by openat2 with the ground as the root, and what it
//! finds is a descriptor from then on; so what a program moves meanwhile leads nowhere else, and the kernel's
//! rules for the container's root are the only ones that decide. What is read is an ordinary file or a folder.
//! Nothing of a container is executed or loaded. An upload has its final name when all of it is there.

mod act;
mod child;
mod confine;
mod tar;
mod uploads;
mod walk;

use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use berth_runtime::config::{RANGE_IDS, RuntimeConfig};
use berth_runtime::contents::FilesAct as Act;
use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, VolumeId};
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::Answer;

pub(crate) use self::uploads::{drop_one as drop_upload, open as open_upload};
use crate::files::FileError;
use crate::launch::OverlayRoot;
use crate::monitor::distinct;
use crate::namespace::{IdMap, id_map_namespace};
use crate::people::Person;
use crate::places::Places;
use crate::process::ProcessKey;
use crate::rootfs::staging::{self, OverlayPlan, Staging};
use crate::sys::mount_api::{attributes, fs_config, fs_mount, fs_open};
use crate::volume;

/// What is acted on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ground {
    /// A volume's content.
    Volume(VolumeId),
    /// The root of the container whose first process this is.
    Running(ProcessKey),
    /// The root of a container that does not run.
    Still {
        /// The container.
        container: ContainerId,
        /// What it stands on, lowest first.
        layers: Vec<Digest>,
        /// The first id of those.
        layer_first: u32,
    },
}

/// One act.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Whose it is.
    pub(crate) person: Person,
    /// Where.
    pub(crate) ground: Ground,
    /// At which path below, as somebody has sent it.
    pub(crate) path: String,
    /// What.
    pub(crate) act: Act,
}

fn failed(error: FileError) -> Failure {
    match error.is_full() {
        true => crate::failure::disk_full(&error),
        false => Failure::new(FailureClass::Broken, "files.ground", error.to_string()),
    }
}

fn refused(what: &str) -> impl FnOnce(nix::errno::Errno) -> Failure {
    move |errno| {
        Failure::new(FailureClass::Broken, "files.ground", format!("{what}: {}", errno.desc()))
    }
}

/// The ground as the child finds it.
enum Base {
    /// An open directory.
    Directory(OwnedFd),
    /// An overlay that the child mounts with these options in its working directory.
    Overlay { options: CString, staging: Staging },
}

/// Does it; the answer, and the descriptors beside it.
pub(crate) fn run(
    config: &RuntimeConfig,
    boot_id: &str,
    order: &Order,
) -> Result<(Answer, Vec<OwnedFd>), Failure> {
    let places = Places::open(config).map_err(failed)?;
    let upload = match &order.act {
        Act::Put { upload, .. } => Some(uploads::take(&places, &order.person, upload)?),
        _ => None,
    };
    let (directory, options, staging) = match find(&places, boot_id, order)? {
        Base::Directory(directory) => (Some(directory), None, None),
        Base::Overlay { options, staging } => (None, Some(options), Some(staging)),
    };
    // The child may not have what this process has open, but it needs nothing of it.
    drop(places);
    let place = child::Place { directory, options, upload };
    let done = child::run(order, place);
    if let Some(staging) = staging {
        staging.leave()?;
    }
    done
}

fn find(places: &Places, boot_id: &str, order: &Order) -> Result<Base, Failure> {
    match &order.ground {
        Ground::Volume(id) => {
            let person = &order.person;
            let content = match order.act.changes() {
                true => Some(volume::begin_use(places, person, id)?),
                false => volume::content(places, person, id)?,
            };
            content.map_or_else(nothing, Ok).map(Base::Directory)
        }
        Ground::Running(process) => root_of(process, boot_id).map(Base::Directory),
        Ground::Still { container, layers, layer_first } => {
            let layers = distinct(layers);
            let (tree, _) = places.make_tree(&order.person, container).map_err(failed)?;
            let count = layers.len();
            let opened: Result<Vec<OwnedFd>, FileError> =
                layers.into_iter().map(|blob| places.layer(blob)).collect();
            let first = order.person.first_id;
            let map = IdMap { inside: *layer_first, outside: first, count: RANGE_IDS };
            let id_map = id_map_namespace(map)
                .map_err(FileError::io("make the id map of", "the layers"))
                .map_err(failed)?;
            let root = OverlayRoot { layers: opened.map_err(failed)?, id_map, upper: tree };
            let staging = Staging::enter(OverlayPlan::new(&root)?, &[], (first, first))?;
            // What only reads does not claim the writable layer, which a start may want meanwhile.
            let options = match order.act.changes() {
                true => staging.options.clone(),
                false => staging::options_to_read(count),
            };
            Ok(Base::Overlay { options, staging })
        }
    }
}

/// What a volume that was never used holds.
fn nothing() -> Result<OwnedFd, Failure> {
    let made = fs_open(c"tmpfs").and_then(|context| {
        fs_config(&context, c"mode", Some(c"755"))?;
        fs_config(&context, c"size", Some(c"4k"))?;
        fs_config(&context, c"nr_inodes", Some(c"1"))?;
        let bits = attributes::RDONLY | attributes::NODEV | attributes::NOSUID;
        fs_mount(&context, bits | attributes::NOEXEC)
    });
    made.map_err(refused("make an empty folder"))
}

/// The root of a running container's mount namespace, by the process itself and not by its number: what the
/// process has made its own root, or moved, does not matter.
fn root_of(process: &ProcessKey, boot_id: &str) -> Result<OwnedFd, Failure> {
    let ended = || {
        let message = "the container has just ended; try again";
        Failure::new(FailureClass::Unavailable, "files.ended", message)
    };
    let process = process.open(boot_id).ok_or_else(ended)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let own = open(c"/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(refused("open the mount namespace"))?;
    setns(&process, CloneFlags::CLONE_NEWNS).map_err(|errno| match errno {
        nix::errno::Errno::ESRCH => ended(),
        errno => refused("see what a container sees")(errno),
    })?;
    let root = open(c"/", flags, Mode::empty()).map_err(refused("open a container's root"));
    setns(&own, CloneFlags::CLONE_NEWNS).map_err(refused("come back from a container"))?;
    root
}
