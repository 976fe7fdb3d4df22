//! Ranges of descriptors, and opening below a root.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// close_range(2): closes every descriptor from `first` to `last`.
pub fn close_range(first: u32, last: u32) -> nix::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: takes no pointers. Descriptors owned by values in this process may be closed with it:
    // only a child that leaves by execve or `_exit`, and so drops nothing, calls this.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}

/// Marks every descriptor from `first` up close-on-exec.
pub fn close_on_exec_from(first: u32) -> nix::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: takes no pointers and closes nothing now.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// How symbolic links are treated on the way to a path inside a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed, with `/` and `..` confined to the root.
    InRoot,
    /// Refused (`ELOOP`).
    Refused,
    /// Refused, and so is every mount point (`EXDEV`).
    RefusedWithMounts,
}

/// openat2(2) of `path` with `root` as the root of everything; magic links (`/proc/self/fd/3`) are
/// never followed. Tries again when a rename raced with the walk.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlag,
    links: Links,
) -> nix::Result<OwnedFd> {
    let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match links {
        Links::InRoot => {}
        Links::Refused => resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS,
        Links::RefusedWithMounts => {
            resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        }
    }
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(Mode::empty()).resolve(resolve);
    for _ in 0..RACES_MAX {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Tries of one path walk that somebody's renames disturb.
const RACES_MAX: u32 = 64;

/// Closes every descriptor from `first` up except those in `kept`, which must be ascending.
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let mut next = first;
    for fd in kept {
        let number = fd.as_raw_fd().unsigned_abs();
        close_range(next, number.saturating_sub(1))?;
        next = number + 1;
    }
    close_range(next, u32::MAX)
}

/// Leaves a program no descriptor but the three standard ones, whatever this process was given.
pub fn standard_only(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let mark = || close_on_exec_from(3).map_err(std::io::Error::from);
    // SAFETY: between fork and exec one system call is made, and nothing allocates or locks.
    unsafe { command.pre_exec(mark) };
}
