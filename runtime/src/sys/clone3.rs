//! clone3(2): a child in new namespaces, born in its cgroup, with a pidfd.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// Which side of [`clone3`] a process is on.
pub enum Forked {
    /// The caller; the child's id in the caller's pid namespace, and its descriptor.
    Parent { child: Pid, pidfd: OwnedFd },
    /// The child. Until it calls execve or `_exit` it must not allocate, lock, or panic.
    Child,
}

/// What to clone with.
#[derive(Default, Clone, Copy)]
pub struct CloneFlags<'a> {
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// A cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child's parent is the caller's, which is told of its end as of the caller's own.
    pub sibling: bool,
}

/// Clones the caller without sharing memory, as fork(2) does, into new namespaces. The child's
/// signal handlers are the default ones; ignored signals stay ignored.
///
/// The caller must have one thread only: another thread's locks would stay locked in the child.
pub fn clone3(flags: &CloneFlags<'_>) -> nix::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: flags.namespaces | libc::CLONE_PIDFD.cast_unsigned() as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD.cast_unsigned() as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if flags.sibling {
        args.flags |= libc::CLONE_PARENT.cast_unsigned() as u64;
        // The signal is the caller's (clone(2), CLONE_PARENT); another is refused.
        args.exit_signal = 0;
    }
    if let Some(cgroup) = flags.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().cast_unsigned() as u64;
    }
    // SAFETY: `args` and `pidfd` outlive the call and the right size is given. Without CLONE_VM the
    // child works on a copy of this stack, so returning in it is sound.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of_val(&args))
    };
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

/// linux/sched.h; beyond the 32 bits of clone(2)'s flags.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// linux/sched.h; Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
