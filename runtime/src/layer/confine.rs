//! Takes everything from the process that parses an archive, except the one directory it fills.
//!
//! Order, each step with its reason:
//! 1. New user namespace, mapped to the layer range by the worker: root in here is nobody outside.
//! 2. New mount, pid, network, ipc, uts and cgroup namespaces: no host to see, no network at all.
//! 3. `pivot_root` into the staging directory: every path, whatever it says, ends in there.
//! 4. What every confined process gives up ([`crate::confined`]). It keeps only those capabilities by which
//!    files get owners, modes and file capabilities; devices stay makeable, since a whiteout is one.

use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::record::Failure;
use landlock::BitFlags;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::Resource;
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir, pivot_root};

use super::fault::{broken, os};
use crate::confined::{Kept, become_root, give_up_all_but};
use crate::sys;

/// Address space: zstd's window, the buffers and the remembered directories fit several times.
const ADDRESS_BYTES_MAX: u64 = 768 << 20;
/// Processor seconds for one layer.
const CPU_SECS_MAX: u64 = 3_600;
const FILES_MAX: u64 = 64;

/// `capabilities(7)`: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP.
const CAPABILITIES: [u32; 5] = [0, 1, 3, 4, 31];

/// Confines this process, whose working directory is the staging directory and whose ids are mapped;
/// answers the root's descriptor.
pub(super) fn confine(bytes_max: u64) -> Result<OwnedFd, Failure> {
    become_root().map_err(broken)?;
    enter_root().map_err(|errno| os("enter the staging directory", errno))?;
    let root = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| os("open the staging directory", errno))?;
    give_up_all_but(&Kept {
        limits: &[
            (Resource::RLIMIT_AS, ADDRESS_BYTES_MAX),
            (Resource::RLIMIT_CPU, CPU_SECS_MAX),
            (Resource::RLIMIT_NOFILE, FILES_MAX),
            (Resource::RLIMIT_FSIZE, bytes_max),
        ],
        capabilities: &CAPABILITIES,
        grounds: &[root.as_fd()],
        denied: BitFlags::empty(),
        calls: CALLS,
    })
    .map_err(broken)?;
    Ok(root)
}

/// The working directory is the one thing that a new mount namespace takes over translated: a
/// descriptor opened before would belong to the old one.
fn enter_root() -> nix::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let tree = sys::layer::clone_mount_of_cwd()?;
    sys::layer::attach_mount(tree.as_fd(), c".")?;
    fchdir(&tree)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// What inflating and writing files need.
const CALLS: &[libc::c_long] = &[
    libc::SYS_pwrite64,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_fchownat,
    libc::SYS_fchmodat,
    libc::SYS_fsetxattr,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_sync_file_range,
];

/// Whether an errno of [`crate::confined`]'s namespaces means that the host forbids them.
pub(super) fn explain_clone(errno: Errno) -> Failure {
    match errno {
        Errno::EPERM | Errno::ENOSPC | Errno::EUSERS => broken(format!(
            "make the unpacker's namespaces: {} (user namespaces may be switched off: \
             user.max_user_namespaces)",
            errno.desc()
        )),
        errno => os("make the unpacker's namespaces", errno),
    }
}
