//! Processes by descriptor: pidfd_open(2) and waitid(2), which nix has only for its own set of signals.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::process::Ended;

/// pidfd_open(2): a descriptor (close-on-exec) of the process that has this id now.
pub(crate) fn open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two integers and reads no memory.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// waitid(2): takes the end of the child behind `pidfd`; waits for it when it has not come. nix's own
/// form has no real-time signals and would lose such an end.
pub(crate) fn wait(pidfd: impl AsFd) -> nix::Result<Ended> {
    let id = libc::id_t::try_from(pidfd.as_fd().as_raw_fd()).map_err(|_| Errno::EBADF)?;
    // SAFETY: siginfo_t is plain data, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: info is valid for writing and outlives the call.
    let result = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) };
    Errno::result(result)?;
    // SAFETY: waitid has succeeded with WEXITED, so the fields of SIGCHLD are the ones that are set.
    let status = unsafe { info.si_status() };
    Ok(match info.si_code {
        libc::CLD_EXITED => Ended::Code(status),
        _ => Ended::Signal(status),
    })
}

/// pidfd_getfd(2): a copy (close-on-exec) of a descriptor of another process. `EBADF` when it has none of
/// that number.
pub(crate) fn copy_descriptor(pidfd: impl AsFd, number: u32) -> nix::Result<OwnedFd> {
    let raw = pidfd.as_fd().as_raw_fd();
    // SAFETY: takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, raw, number, 0) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
