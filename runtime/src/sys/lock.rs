//! flock(2) on an open file, without a guard: the lock is the open file's, is handed to another process
//! with its descriptor, and goes with the last one.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Takes the exclusive lock; false when somebody else has it.
pub(crate) fn try_lock(file: impl AsFd) -> nix::Result<bool> {
    loop {
        // SAFETY: flock takes two integers; the descriptor is open as long as it is borrowed.
        let result =
            unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        return match Errno::result(result) {
            Ok(_) => Ok(true),
            Err(Errno::EWOULDBLOCK) => Ok(false),
            Err(Errno::EINTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

/// Lets go of it, also for whoever has a copy of the descriptor.
pub(crate) fn unlock(file: impl AsFd) -> nix::Result<()> {
    // SAFETY: flock takes two integers; the descriptor is open as long as it is borrowed.
    let result = unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_UN) };
    Errno::result(result).map(drop)
}
