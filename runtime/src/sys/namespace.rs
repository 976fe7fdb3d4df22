//! What kind of namespace a descriptor is of (ioctl_nsfs(2)).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// The `CLONE_NEW*` flag of the namespace that `fd` is of. The caller has seen that it is one (its file
/// system is nsfs): to another file the number may mean something else.
pub fn kind(fd: impl AsFd) -> nix::Result<i32> {
    // SAFETY: the request takes no argument and touches no memory.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    Errno::result(result)
}

/// linux/nsfs.h: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
