//! The mount calls that work on descriptors (open_tree(2), move_mount(2), mount_setattr(2), fsopen(2)
//! and its kin). Paths are `&CStr`, and nothing allocates, so that a cloned child can use them.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// `MOUNT_ATTR_*` of linux/mount.h.
pub mod attributes {
    /// Read-only.
    pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    /// No set-user-id.
    pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    /// No device nodes.
    pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    /// No execution.
    pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
    /// No access times.
    pub const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    /// Access times always.
    pub const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    /// No access times on directories.
    pub const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
    /// The bits that hold the choice among relatime (zero), noatime and strictatime.
    pub const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
}

/// A detached copy of the mount that `path` (from `directory`) is on, with that path as its root.
/// With `recursive`, what is mounted below comes along.
pub fn clone_tree(directory: BorrowedFd<'_>, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    flags |= AT_EMPTY_PATH;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: `path` is NUL-terminated and outlives the call, which keeps no pointer.
    let result =
        unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) };
    owned(result)
}

/// Attaches the detached mount `mount` at the place that `target` refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> nix::Result<()> {
    let empty = c"";
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    // SAFETY: both paths are the same static empty string; the call keeps no pointer.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, from, empty.as_ptr(), to, empty.as_ptr(), flags)
    };
    Errno::result(result).map(drop)
}

/// What [`set_attributes`] changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Bits of [`attributes`] to set.
    pub set: u64,
    /// Bits of [`attributes`] to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// A user namespace to map ids by; the mount must be detached.
    pub id_map: Option<BorrowedFd<'a>>,
    /// Every mount below as well.
    pub recursive: bool,
}

/// mount_setattr(2) on the mount that `mount` refers to.
pub fn set_attributes(mount: impl AsFd, change: Change<'_>) -> nix::Result<()> {
    let mut attr = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    if let Some(namespace) = change.id_map {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::from(namespace.as_raw_fd().unsigned_abs());
    }
    let flags = AT_EMPTY_PATH | if change.recursive { AT_RECURSIVE } else { 0 };
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: `attr` and the static empty path outlive the call; the right size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            std::ptr::from_mut(&mut attr),
            size_of_val(&attr),
        )
    };
    Errno::result(result).map(drop)
}

/// Opens a context in which a file system of type `kind` is configured.
pub fn fs_open(kind: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: `kind` is NUL-terminated and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    owned(result)
}

/// Sets a parameter: `key=value`, or the flag `key` without a value.
pub fn fs_config(context: &OwnedFd, key: &CStr, value: Option<&CStr>) -> nix::Result<()> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    let fd = context.as_raw_fd();
    // SAFETY: both strings are NUL-terminated and outlive the call; null is what a flag wants.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value, 0) };
    Errno::result(result).map(drop)
}

/// Opens the file system of the mount that `mount` refers to, to be configured anew.
pub fn fs_pick(mount: impl AsFd) -> nix::Result<OwnedFd> {
    let fd = mount.as_fd().as_raw_fd();
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the path is a static empty string, and the call keeps no pointer.
    let result = unsafe { libc::syscall(libc::SYS_fspick, fd, c"".as_ptr(), flags) };
    owned(result)
}

/// Puts what was set in force, in a file system that is there.
pub fn fs_reconfigure(context: &OwnedFd) -> nix::Result<()> {
    let fd = context.as_raw_fd();
    let null = std::ptr::null::<u8>();
    // SAFETY: the command takes no key and no value, so null is what the call wants.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_RECONFIGURE, null, null, 0) };
    Errno::result(result).map(drop)
}

/// Makes the configured file system and a detached mount of it with `attributes`.
pub fn fs_mount(context: &OwnedFd, attributes: u64) -> nix::Result<OwnedFd> {
    let fd = context.as_raw_fd();
    let null = std::ptr::null::<u8>();
    // SAFETY: creating takes no key and no value, so null is what the call wants.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) };
    Errno::result(result)?;
    // SAFETY: fsmount takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) };
    owned(result)
}

fn owned(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::ERANGE)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.cast_unsigned();
const AT_RECURSIVE: u32 = libc::AT_RECURSIVE.cast_unsigned();
// linux/mount.h
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
