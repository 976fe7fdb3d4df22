//! The kernel calls of the layer store and its unpacker that `nix` has no safe form of.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// The highest capability that any kernel may know (capabilities(7) ends at 40; the call says EINVAL
/// above what the running kernel has).
const CAPABILITY_LAST: u32 = 63;

/// A descriptor of process `pid`, a child not yet reaped, so that the number is still its own.
pub(crate) fn pidfd_of_child(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers, writes no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    own(Errno::result(fd)?)
}

/// A detached copy of the mount at the working directory, from that directory down (open_tree(2)).
pub(crate) fn clone_mount_of_cwd() -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a NUL-terminated constant.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c".".as_ptr(), flags) };
    own(Errno::result(fd)?)
}

/// Attaches a detached mount at `target`, relative to the working directory (move_mount(2)).
pub(crate) fn attach_mount(tree: BorrowedFd<'_>, target: &CStr) -> nix::Result<()> {
    // SAFETY: both paths are NUL-terminated and outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(answer).map(drop)
}

/// Sets an extended attribute (fsetxattr(2)).
pub(crate) fn set_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let (data, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: the name is NUL-terminated, `data` has `length` readable bytes, both outlive the call.
    let answer = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), data, length, 0) };
    Errno::result(answer).map(drop)
}

/// Reads an extended attribute into `value`; answers its length (fgetxattr(2)).
pub(crate) fn get_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> nix::Result<usize> {
    let (data, length) = (value.as_mut_ptr().cast(), value.len());
    // SAFETY: the name is NUL-terminated and `data` has `length` writable bytes for the call.
    let answer = unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), data, length) };
    usize::try_from(Errno::result(answer)?).map_err(|_| Errno::EOVERFLOW)
}

/// Asks the kernel to begin writing a file out; a hint, so its answer does not matter.
pub(crate) fn start_writing(fd: BorrowedFd<'_>) {
    // SAFETY: takes integers only, writes no memory of ours.
    unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Drops every capability but `kept` from all sets (capabilities(7)).
pub(crate) fn keep_capabilities(kept: &[u32]) -> nix::Result<()> {
    for capability in 0..=CAPABILITY_LAST {
        if kept.contains(&capability) {
            continue;
        }
        // SAFETY: takes integers only.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability)) };
        match Errno::result(answer) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    let clear = libc::c_ulong::try_from(libc::PR_CAP_AMBIENT_CLEAR_ALL).unwrap_or(4);
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) })?;
    let mut low: u32 = 0;
    for capability in kept {
        low |= 1 << capability;
    }
    // capset(2), version 3: header, then effective, permitted, inheritable for the low and high half.
    let header: [u32; 2] = [0x2008_0522, 0];
    let data: [u32; 6] = [low, low, 0, 0, 0, 0];
    // SAFETY: version 3 reads 8 bytes of header and 24 of data, which these arrays are.
    let answer = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    Errno::result(answer).map(drop)
}

/// Loads a seccomp filter that answers EPERM to every call not in `allowed`, and kills a process that
/// uses another ABI's numbers. Needs `no_new_privs`.
pub(crate) fn allow_syscalls_only(allowed: &[libc::c_long]) -> nix::Result<()> {
    const ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![
        step(LOAD, 0, 0, 4), // seccomp_data.arch
        step(EQUAL, 1, 0, ARCH),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, 0, 0, 0), // seccomp_data.nr; x32 numbers have bit 30 and equal none below
    ];
    for number in allowed {
        let number = u32::try_from(*number).map_err(|_| Errno::EINVAL)?;
        program.push(step(EQUAL, 0, 1, number));
        program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    let eperm = libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32;
    program.push(step(RETURN, 0, 0, eperm));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` points at `len` instructions, and both outlive the call, which copies them.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    Errno::result(answer).map(drop)
}

fn own(fd: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
