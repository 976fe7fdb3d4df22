//! Signals by pidfd, and the ends of a cloned child.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// pidfd_send_signal(2): signals the very process, even if its number has been given away.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: no pointer is passed but a null siginfo, which the call takes as "as by kill(2)".
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0)
    };
    Errno::result(result).map(drop)
}

/// Sleeps until a signal ends the process: the whole life of a child that only holds a namespace.
pub fn wait_for_kill() -> ! {
    // SAFETY: prctl with these arguments touches no memory; a parent that dies takes the child along.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        // SAFETY: pause takes no arguments and touches no memory.
        unsafe { libc::pause() };
    }
}

/// `_exit(2)`: ends a cloned child without running what the parent has registered for its own end.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}
