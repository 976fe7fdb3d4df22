//! The private place in which the parts of an overlay root lie while the child mounts it.
//!
//! A small tmpfs, in a mount namespace that only the caller is in, holds the
//! layers (`0`, `1`, …; read-only, with the layer range's ids shown as the container's), the writable
//! directory (`u`), injected files (`f0`, …) and the place of the overlay (`m`). The names are short,
//! and relative to the working directory, because mount(2) takes one page of options. The child is
//! cloned from here and so has a copy; the caller goes back to where it was, and nothing is ever seen
//! in the host's mount table.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::record::Failure;
use berth_runtime::wire::LAYERS_MAX;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchdir, fchown, write};

use crate::failure::{broken, system};
use crate::launch::{InjectedFile, OverlayRoot};
use crate::sys::mount_api::{
    Change, attach, attributes, clone_tree, fs_config, fs_mount, fs_open, set_attributes,
};

/// Where the staging directory hides what is there, in the private namespace. Not the root itself: who
/// stands under a mount on the root counts as chrooted, and gets no user namespace (clone(2), EPERM).
const PLACE: &CStr = c"/tmp";

/// Detached mounts of an overlay's parts, made where their descriptors are valid.
#[derive(Debug)]
pub struct OverlayPlan {
    layers: Vec<OwnedFd>,
    upper: OwnedFd,
}

impl OverlayPlan {
    /// Clones the mounts of layers and upper, and shows the layers with the container's ids.
    pub fn new(overlay: &OverlayRoot) -> Result<Self, Failure> {
        if overlay.layers.is_empty() || overlay.layers.len() > LAYERS_MAX {
            return Err(broken(&format!("a root has 1 to {LAYERS_MAX} layers")));
        }
        let layer = |layer: &OwnedFd| {
            let tree = clone_tree(layer.as_fd(), c"", false)?;
            let change = Change {
                set: attributes::RDONLY | attributes::NODEV | attributes::NOSUID,
                propagation: libc::MS_PRIVATE,
                id_map: Some(overlay.id_map.as_fd()),
                ..Change::default()
            };
            set_attributes(&tree, change)?;
            Ok(tree)
        };
        let layers = overlay.layers.iter().map(layer).collect::<nix::Result<_>>();
        let layers =
            layers.map_err(|errno| system("map the layers to the container's ids", errno))?;
        let upper = clone_tree(overlay.upper.as_fd(), c"", false).and_then(|tree| {
            let change = Change {
                set: attributes::NODEV | attributes::NOSUID,
                propagation: libc::MS_PRIVATE,
                ..Change::default()
            };
            set_attributes(&tree, change).map(|()| tree)
        });
        let upper = upper.map_err(|errno| system("clone the writable layer's mount", errno))?;
        Ok(Self { layers, upper })
    }
}

/// The caller inside the private place. [`Staging::leave`] brings it back.
#[derive(Debug)]
pub struct Staging {
    /// Options for the child's overlay mount.
    pub options: CString,
    back: Back,
}

/// Where the caller was.
#[derive(Debug)]
struct Back {
    namespace: OwnedFd,
    directory: OwnedFd,
    gone: bool,
}

impl Staging {
    /// Goes into a new mount namespace with everything in place and as the working directory.
    pub fn enter(
        overlay: OverlayPlan,
        files: &[InjectedFile],
        owner: (u32, u32),
    ) -> Result<Self, Failure> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let namespace =
            open(c"/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|errno| system("open the mount namespace", errno))?;
        let here = open(c".", directory, Mode::empty())
            .map_err(|errno| system("open the working directory", errno))?;
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| system("make a private mount namespace", errno))?;
        let back = Back { namespace, directory: here, gone: true };
        let place = make_place().map_err(|errno| system("make the staging directory", errno))?;
        let count = overlay.layers.len();
        fill(&overlay, place.as_fd())
            .map_err(|errno| system("attach the layers in the staging directory", errno))?;
        for (index, file) in files.iter().enumerate() {
            write_file(place.as_fd(), index, file, owner)
                .map_err(|errno| system(&format!("write {}", file.path), errno))?;
        }
        fchdir(&place).map_err(|errno| system("enter the staging directory", errno))?;
        Ok(Self { options: options(count), back })
    }

    /// Goes back to the mount namespace and the working directory from which the caller came.
    pub fn leave(mut self) -> Result<(), Failure> {
        self.back.go().map_err(|errno| system("go back to the host's mount namespace", errno))
    }
}

impl Back {
    fn go(&mut self) -> nix::Result<()> {
        self.gone = false;
        setns(&self.namespace, CloneFlags::CLONE_NEWNS)?;
        fchdir(&self.directory)
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        // A caller that cannot go back would do its further work in the wrong place.
        if self.gone && self.go().is_err() {
            std::process::abort();
        }
    }
}

/// `lowerdir` names the uppermost layer first.
fn options(layers: usize) -> CString {
    let names: Vec<String> = (0..layers).rev().map(|index| index.to_string()).collect();
    let lower = names.join(":");
    CString::new(format!("lowerdir={lower},upperdir=u/upper,workdir=u/work,userxattr"))
        .expect("digits and fixed text have no NUL byte")
}

/// Options for a mount of the same with the writable directory as one more layer: nothing can be written, and
/// the writable directory stays another mount's to claim.
pub fn options_to_read(layers: usize) -> CString {
    let names: Vec<String> = (0..layers).rev().map(|index| index.to_string()).collect();
    CString::new(format!("lowerdir=u/upper:{},userxattr", names.join(":")))
        .expect("digits and fixed text have no NUL byte")
}

fn make_place() -> nix::Result<OwnedFd> {
    let none = None::<&std::ffi::CStr>;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let context = fs_open(c"tmpfs")?;
    fs_config(&context, c"mode", Some(c"755"))?;
    fs_config(&context, c"size", Some(c"256k"))?;
    fs_config(&context, c"nr_inodes", Some(c"512"))?;
    let place = fs_mount(&context, attributes::NODEV | attributes::NOSUID | attributes::NOEXEC)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    attach(&place, open(PLACE, flags, Mode::empty())?)?;
    Ok(place)
}

fn fill(overlay: &OverlayPlan, place: BorrowedFd<'_>) -> nix::Result<()> {
    mkdirat(place, c"m", Mode::from_bits_truncate(0o755))?;
    attach_at(&overlay.upper, place, c"u")?;
    for (index, layer) in overlay.layers.iter().enumerate() {
        let name = CString::new(index.to_string()).map_err(|_| Errno::EINVAL)?;
        attach_at(layer, place, &name)?;
    }
    Ok(())
}

fn attach_at(tree: &OwnedFd, place: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<()> {
    mkdirat(place, name, Mode::from_bits_truncate(0o755))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    attach(tree, openat(place, name, flags, Mode::empty())?)
}

fn write_file(
    place: BorrowedFd<'_>,
    index: usize,
    file: &InjectedFile,
    (user, group): (u32, u32),
) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let name = format!("f{index}");
    let target = openat(place, name.as_str(), flags, Mode::from_bits_truncate(0o644))?;
    // Whatever the caller's umask is.
    fchmod(&target, Mode::from_bits_truncate(0o644))?;
    fchown(&target, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    if write(&target, &file.content)? != file.content.len() {
        return Err(Errno::ENOSPC);
    }
    Ok(())
}
