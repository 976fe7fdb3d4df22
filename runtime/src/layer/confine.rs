//! Takes everything from the process that parses an archive, except the one directory it fills.
//!
//! Order, each step with its reason:
//! 1. New user namespace, mapped to the layer range by the worker: root in here is nobody outside.
//! 2. New mount, pid, network, ipc, uts and cgroup namespaces: no host to see, no network at all.
//! 3. `pivot_root` into the staging directory: every path, whatever it says, ends in there.
//! 4. rlimits, so that a defect cannot take the machine.
//! 5. Capabilities: only those by which files get owners, modes and file capabilities.
//! 6. `no_new_privs`, Landlock (no execution, no device access), seccomp last, since it forbids the
//!    calls that the steps before need.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::record::Failure;
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible};
use landlock::{PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, fchdir, pivot_root, setgroups, setresgid, setresuid};

use super::fault::{broken, os};
use crate::sys;

/// The child's namespaces.
pub(super) fn namespaces() -> CloneFlags {
    CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
}

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
    let failed = |step: &'static str| move |errno| os(step, errno);
    setgroups(&[]).map_err(failed("drop the groups"))?;
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))
        .map_err(failed("become group 0 of the layer range"))?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))
        .map_err(failed("become user 0 of the layer range"))?;
    umask(Mode::empty());
    enter_root().map_err(failed("enter the staging directory"))?;
    let root = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(failed("open the staging directory"))?;
    limit_resources(bytes_max).map_err(failed("limit the resources"))?;
    sys::layer::keep_capabilities(&CAPABILITIES).map_err(failed("drop the capabilities"))?;
    nix::sys::prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    restrict_paths(root.as_fd())?;
    sys::layer::allow_syscalls_only(ALLOWED).map_err(failed("load the seccomp filter"))?;
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

fn limit_resources(bytes_max: u64) -> nix::Result<()> {
    for (resource, value) in [
        (Resource::RLIMIT_AS, ADDRESS_BYTES_MAX),
        (Resource::RLIMIT_CPU, CPU_SECS_MAX),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
        (Resource::RLIMIT_FSIZE, bytes_max),
        (Resource::RLIMIT_CORE, 0),
    ] {
        let (_, hard) = getrlimit(resource)?;
        let value = value.min(hard);
        setrlimit(resource, value, value)?;
    }
    Ok(())
}

/// Landlock over the same root: holds even if a path found its way out. Kernels without it have the
/// namespaces alone, which `berth doctor` says.
fn restrict_paths(root: BorrowedFd<'_>) -> Result<(), Failure> {
    let failed = |error: landlock::RulesetError| broken(format!("restrict the paths: {error}"));
    let abi = ABI::V5;
    let allowed = AccessFs::from_all(abi)
        & !(AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev);
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .map_err(failed)?
        .create()
        .map_err(failed)?
        .add_rule(PathBeneath::new(root, allowed))
        .map_err(failed)?
        .restrict_self()
        .map_err(failed)?;
    Ok(())
}

/// What inflating and writing files need; everything else is EPERM.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_readlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fsetxattr,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_sync_file_range,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Whether an errno of [`confine`]'s namespaces means that the host forbids them.
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
