//! Builds the root file system, in the child: the parent's plan, one call per step. Does not allocate.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{symlinkat, write};

use crate::init::{At, Report, Stage};
use crate::plan::MountPlan;
use crate::rootfs::copy_up::TakenOver;
use crate::rootfs::mounts::{Action, FileSystem, Remount, Volume};
use crate::rootfs::options::Propagation;
use crate::rootfs::sysctls::Sysctl;
use crate::sys::fd::{Links, open_in_root};
use crate::sys::mount_api::{
    Change, attach, attributes, clone_tree, fs_config, fs_mount, fs_open, fs_pick, fs_reconfigure,
    set_attributes,
};

/// What mounting leaves behind for the steps after it.
#[derive(Default)]
struct Made {
    /// The container's own proc, by which sysctls are written.
    proc: Option<OwnedFd>,
    /// The empty read-only directory over masked directories, once one is attached.
    empty: Option<OwnedFd>,
}

/// Puts everything into `root`; `staging` is the directory of [`Action::Staged`] files.
pub fn build(
    plan: &MountPlan,
    root: BorrowedFd<'_>,
    staging: Option<BorrowedFd<'_>>,
) -> Result<(), Report> {
    let mut made = Made::default();
    for (index, step) in plan.steps.iter().enumerate() {
        walk(&step.action, root, staging, &mut made).at_index(Stage::Mount, index)?;
    }
    for (index, sysctl) in plan.sysctls.iter().enumerate() {
        write_sysctl(sysctl, &mut made).at_index(Stage::Sysctl, index)?;
    }
    for (index, path) in plan.read_only.iter().enumerate() {
        make_read_only(root, path).at_index(Stage::ReadOnlyPath, index)?;
    }
    let null = plan.null_step.and_then(|index| match &plan.steps[index].action {
        Action::Tree(tree, _) => Some(tree),
        _ => None,
    });
    for (index, path) in plan.masked.iter().enumerate() {
        mask(root, path, null, &mut made).at_index(Stage::Mask, index)?;
    }
    if plan.root_read_only {
        // Whether it is there, and inside, is checked when it is entered.
        if let Some(Err(errno)) = plan.cwd.as_ref().map(|cwd| cwd.open(root)) {
            ignore(errno);
        }
        let change = Change { set: attributes::RDONLY, ..Change::default() };
        set_attributes(root, change).at(Stage::ReadOnlyRoot)?;
    }
    Ok(())
}

/// For failures that a later step will find again and report better.
fn ignore(_: Errno) {}

fn walk(
    action: &Action,
    root: BorrowedFd<'_>,
    staging: Option<BorrowedFd<'_>>,
    made: &mut Made,
) -> nix::Result<()> {
    match action {
        Action::FileSystem(system, target) => {
            let there = target.open_if_there(root)?;
            let mount = match (system.taken_over, there) {
                (Some(taken_over), Some(place)) => {
                    beginning_file_system(system, taken_over, place.as_fd())?
                }
                _ => new_file_system(system, system.attributes)?,
            };
            attach(&mount, target.open(root)?)?;
            propagate(&mount, &system.propagation)?;
            if system.is_proc {
                made.proc = Some(mount);
            }
            Ok(())
        }
        Action::Tree(tree, target) => attach(tree, target.open(root)?),
        Action::Volume(volume) => attach_volume(volume, root),
        Action::Staged(name, target) => {
            let staging = staging.ok_or(Errno::ENOTDIR)?;
            attach(clone_tree(staging, name, false)?, target.open(root)?)
        }
        Action::Link { content, directory, name } => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            let directory = open_in_root(root, directory, flags, Links::Refused)?;
            match symlinkat(content.as_c_str(), &directory, name.as_c_str()) {
                Err(Errno::EEXIST) => Ok(()),
                other => other,
            }
        }
        Action::Node(node) => node.make(root),
        Action::Remount(change) => remount(change, root),
        Action::Seal(target) => {
            let change = Change { set: attributes::RDONLY, ..Change::default() };
            set_attributes(target.open(root)?, change)
        }
    }
}

/// One that begins with what is at its place, and is read-only afterwards if it is to be.
fn beginning_file_system(
    system: &FileSystem,
    taken_over: TakenOver,
    place: BorrowedFd<'_>,
) -> nix::Result<OwnedFd> {
    let mount = new_file_system(system, system.attributes & !attributes::RDONLY)?;
    taken_over.bring(place, mount.as_fd())?;
    let change = Change { set: system.attributes & attributes::RDONLY, ..Change::default() };
    set_attributes(&mount, change)?;
    Ok(mount)
}

fn attach_volume(volume: &Volume, root: BorrowedFd<'_>) -> nix::Result<()> {
    let Volume { tree, target, taken_over, attributes } = volume;
    if let Some(taken_over) = taken_over
        && let Some(place) = target.open_if_there(root)?
    {
        taken_over.bring(place.as_fd(), tree.as_fd())?;
    }
    attach(tree, target.open(root)?)?;
    // Only a mount that is in the container's own namespace is the child's to change.
    set_attributes(tree, Change { set: *attributes, ..Change::default() })
}

fn propagate(mount: &OwnedFd, changes: &[Propagation]) -> nix::Result<()> {
    changes.iter().try_for_each(|change| {
        let Propagation { kind, recursive } = *change;
        set_attributes(mount, Change { propagation: kind, recursive, ..Change::default() })
    })
}

fn remount(change: &Remount, root: BorrowedFd<'_>) -> nix::Result<()> {
    let mount = change.target.open(root)?;
    if !change.parameters.is_empty() {
        let context = fs_pick(&mount)?;
        for (key, value) in &change.parameters {
            fs_config(&context, key, value.as_deref())?;
        }
        fs_reconfigure(&context)?;
    }
    for ((set, clear), recursive) in [(change.deep, true), (change.alone, false)] {
        set_attributes(&mount, Change { set, clear, recursive, ..Change::default() })?;
    }
    propagate(&mount, &change.propagation)
}

fn new_file_system(system: &FileSystem, attributes: u64) -> nix::Result<OwnedFd> {
    let context = fs_open(&system.kind)?;
    for (key, value) in &system.parameters {
        fs_config(&context, key, value.as_deref())?;
    }
    fs_mount(&context, attributes)
}

/// Writes through a proc of our own, and to nothing that was mounted on it (CVE-2025-52881).
fn write_sysctl(sysctl: &Sysctl, made: &mut Made) -> nix::Result<()> {
    if made.proc.is_none() {
        made.proc = Some(fs_mount(&fs_open(c"proc")?, 0)?);
    }
    let proc = made.proc.as_ref().ok_or(Errno::ENOENT)?;
    let file = open_in_root(proc.as_fd(), &sysctl.path, OFlag::O_WRONLY, Links::RefusedWithMounts)?;
    if write(&file, &sysctl.value)? != sysctl.value.len() {
        return Err(Errno::EIO);
    }
    Ok(())
}

/// A path that is not there needs no protection; a link at it is an error, since following it would
/// protect something else.
fn open_protected(root: BorrowedFd<'_>, path: &CStr) -> nix::Result<Option<OwnedFd>> {
    match open_in_root(root, path, OFlag::O_PATH, Links::Refused) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn make_read_only(root: BorrowedFd<'_>, path: &CStr) -> nix::Result<()> {
    let Some(place) = open_protected(root, path)? else { return Ok(()) };
    let copy = clone_tree(place.as_fd(), c"", true)?;
    let change = Change { set: attributes::RDONLY, recursive: true, ..Change::default() };
    set_attributes(&copy, change)?;
    attach(&copy, &place)
}

fn mask(
    root: BorrowedFd<'_>,
    path: &CStr,
    null: Option<&OwnedFd>,
    made: &mut Made,
) -> nix::Result<()> {
    let Some(place) = open_protected(root, path)? else { return Ok(()) };
    let kind = SFlag::from_bits_truncate(fstat(place.as_fd())?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFDIR {
        // Copies come from the node that the parent has checked, by descriptor, so a path that the
        // image controls is never the source (CVE-2025-31133).
        let null = null.ok_or(Errno::ENODEV)?;
        return attach(clone_tree(null.as_fd(), c"", false)?, &place);
    }
    if let Some(empty) = &made.empty {
        return attach(clone_tree(empty.as_fd(), c"", false)?, &place);
    }
    let context = fs_open(c"tmpfs")?;
    fs_config(&context, c"mode", Some(c"755"))?;
    fs_config(&context, c"size", Some(c"4k"))?;
    fs_config(&context, c"nr_inodes", Some(c"1"))?;
    let bits = attributes::RDONLY | attributes::NOSUID | attributes::NODEV | attributes::NOEXEC;
    let empty = fs_mount(&context, bits)?;
    attach(&empty, &place)?;
    made.empty = Some(empty);
    Ok(())
}

/// Mounts the overlay of the staging directory (the working directory) on its `m`, and opens that.
pub fn mount_overlay(options: &CString) -> nix::Result<OwnedFd> {
    let flags = nix::mount::MsFlags::MS_NODEV;
    let kind = Some(c"overlay");
    nix::mount::mount(Some(c"overlay"), c"m", kind, flags, Some(options.as_c_str()))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, c"m", flags, Mode::empty())
}
