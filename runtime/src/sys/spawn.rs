//! Starting another process of the runtime's own: clone3(2) and execveat(2) of this very executable.
//!
//! The child is known by a pidfd from its first moment, may be born in a cgroup (v2), and has
//! nothing but the three standard descriptors and its channel as descriptor 3.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::clone3::{CloneFlags, Forked, clone3};
use crate::launch::CgroupEntry;

/// Where a spawned process finds its channel.
pub(crate) const CHANNEL: RawFd = 3;

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Its id.
    pub(crate) pid: Pid,
    /// The same, as a descriptor that polls readable at its end.
    pub(crate) pidfd: OwnedFd,
}

/// Starts `executable` with `arguments`, no environment, and `channel` as [`CHANNEL`], in a cgroup if one
/// is given.
///
/// # Errors
/// What clone3(2) answers. A child that cannot enter its v1 cgroups exits with status 126, one whose
/// execveat(2) fails with 127.
pub(crate) fn spawn(
    executable: BorrowedFd<'_>,
    arguments: &[&CStr],
    channel: BorrowedFd<'_>,
    cgroup: &CgroupEntry,
) -> nix::Result<Spawned> {
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|text| text.as_ptr()).collect();
    argv.push(ptr::null());
    let envp = [ptr::null::<libc::c_char>()];
    // The caller has one thread (clone3's condition), and the child only makes kernel calls.
    let unified = cgroup.unified.as_ref().map(AsFd::as_fd);
    match clone3(&CloneFlags { cgroup: unified, ..CloneFlags::default() })? {
        Forked::Child => match CgroupEntry::enter(&cgroup.tasks) {
            Ok(()) => run(executable, &argv, &envp, channel),
            // SAFETY: _exit(2) runs nothing of the parent's copied state.
            Err(_) => unsafe { libc::_exit(126) },
        },
        Forked::Parent { child, pidfd } => Ok(Spawned { pid: child, pidfd }),
    }
}

/// The child's side: no allocation, no lock, and no way back.
fn run(
    executable: BorrowedFd<'_>,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    channel: BorrowedFd<'_>,
) -> ! {
    // SAFETY: dup(2) family on descriptors that are open; numbers above CHANNEL are asked for.
    let executable =
        unsafe { libc::fcntl(executable.as_raw_fd(), libc::F_DUPFD_CLOEXEC, CHANNEL + 1) };
    let placed = if channel.as_raw_fd() == CHANNEL {
        // SAFETY: the descriptor is open; its close-on-exec flag goes.
        unsafe { libc::fcntl(CHANNEL, libc::F_SETFD, 0) }
    } else {
        // SAFETY: the descriptor is open; whatever CHANNEL was in this child is not needed.
        unsafe { libc::dup2(channel.as_raw_fd(), CHANNEL) }
    };
    // SAFETY: close_range(2) with flags marks descriptors only; it reads no memory.
    let marked = unsafe {
        libc::syscall(libc::SYS_close_range, CHANNEL + 1, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if executable >= 0 && placed >= 0 && marked == 0 {
        // SAFETY: path, argv and envp are NUL-terminated and live in this process until it is replaced.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                executable,
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
    }
    // SAFETY: _exit(2) runs nothing of the parent's copied state.
    unsafe { libc::_exit(127) }
}

/// The channel that this process was started with. To be called once, first of all.
///
/// # Errors
/// `EBADF` when there is none.
pub(crate) fn inherited_channel() -> nix::Result<OwnedFd> {
    // SAFETY: F_SETFD on a number reads no memory; it fails when nothing is open there.
    if unsafe { libc::fcntl(CHANNEL, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(Errno::last());
    }
    // SAFETY: whoever started this process put the channel there for it to own, and nothing in this
    // process has taken the number before.
    Ok(unsafe { OwnedFd::from_raw_fd(CHANNEL) })
}
