//! Signals by pidfd, and the ends of a cloned child.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::{Pid, Uid};

/// pidfd_send_signal(2): signals the very process, even if its number has been given away.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: no pointer is passed but a null siginfo, which the call takes as "as by kill(2)".
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0)
    };
    Errno::result(result).map(drop)
}

/// setresuid(2) of the effective user of the calling thread alone. The C library's own changes that of all
/// threads.
pub fn set_effective_user(user: Uid) -> nix::Result<()> {
    let same = libc::uid_t::MAX;
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, same, user.as_raw(), same) };
    Errno::result(result).map(drop)
}

/// setresuid(2) of all three of the calling thread alone: the C library's own waits for the threads of whoever
/// cloned this process, which it takes for its own.
pub fn set_user(user: libc::uid_t) -> nix::Result<()> {
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
    Errno::result(result).map(drop)
}

/// setresgid(2) in the same way.
pub fn set_group(group: libc::gid_t) -> nix::Result<()> {
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) };
    Errno::result(result).map(drop)
}

/// Sleeps until a signal ends the process: the whole life of a child of `parent` that only holds a
/// namespace. A parent that dies takes it along, also one that died before the kernel was told so.
pub fn wait_for_kill(parent: Pid) -> ! {
    // SAFETY: prctl with these arguments touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if Pid::parent() != parent {
        exit_now(1);
    }
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

/// Gives every signal that can have one its default disposition, ignored ones too: execve resets
/// handlers but keeps what is ignored (Rust ignores SIGPIPE).
pub fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no function; the call fails harmlessly for SIGKILL, SIGSTOP and the
        // numbers that libc keeps for itself.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// setgroups(2) without nix's copy of the list.
pub fn set_groups(groups: &[libc::gid_t]) -> nix::Result<()> {
    // SAFETY: the pointer and the length are those of one slice.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Sets a limit of another process (prlimit(2)).
pub fn set_limit(pid: nix::unistd::Pid, resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = std::ptr::null_mut();
    // SAFETY: `limit` outlives the call; the old limit is not asked for.
    let result =
        unsafe { libc::prlimit64(pid.as_raw(), resource, std::ptr::from_ref(&limit), none) };
    Errno::result(result).map(drop)
}

/// Brings the loopback interface of the calling process's network namespace up.
pub fn loopback_up(socket: impl AsFd) -> nix::Result<()> {
    // SAFETY: an all-zero ifreq is a valid one (integers and byte arrays only).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_UP_RUNNING;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    let result =
        unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as libc::Ioctl, std::ptr::from_ref(&request)) };
    Errno::result(result).map(drop)
}

/// setns(2) into several namespaces of the process behind `pidfd` at once.
pub fn join_namespaces(pidfd: impl AsFd, flags: i32) -> nix::Result<()> {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::setns(pidfd.as_fd().as_raw_fd(), flags) };
    Errno::result(result).map(drop)
}

/// setdomainname(2) of the calling process's uts namespace.
pub fn set_domainname(name: &std::ffi::OsStr) -> nix::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = name.as_bytes();
    // SAFETY: the pointer and the length are those of one slice; no terminator is needed.
    let result = unsafe { libc::setdomainname(bytes.as_ptr().cast(), bytes.len()) };
    Errno::result(result).map(drop)
}

/// pidfd_open(2).
pub fn pidfd_open(pid: nix::unistd::Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::ERANGE)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `IFF_UP | IFF_RUNNING` (linux/if.h), in the width of struct ifreq.
const IFF_UP_RUNNING: i16 = 0x41;
