//! clone(2) as fork(2) does it, with a pidfd: for a process that may be under a filter, since filters
//! that look at flags refuse clone3(2), whose flags are in memory.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::clone3::Forked;

/// Clones the caller, which must have one thread only, without sharing memory.
pub fn fork() -> nix::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `pidfd` outlives the call. Without CLONE_VM and with no stack of its own the child works on
    // a copy of this stack, so returning in it is sound. The order of the last two, which are not used,
    // differs between architectures.
    let result =
        unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(&mut pidfd), 0, 0) };
    match Errno::result(result)? {
        0 => Ok(Forked::Child),
        pid => {
            let pid = i32::try_from(pid).map_err(|_| Errno::ERANGE)?;
            // SAFETY: the kernel has just made this descriptor for the caller (CLONE_PIDFD).
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { child: Pid::from_raw(pid), pidfd })
        }
    }
}
