//! Takes everything from the process that walks somebody's paths, except the ground and what it needs to be
//! the container's root there.
//!
//! Order, each step with its reason:
//! 1. New namespaces of every kind (by the clone), ids mapped by the task: root in here is the container's.
//! 2. The ground becomes the root directory, by descriptor: every name, whatever it says, ends in there. It
//!    may belong to another mount namespace, so it is entered by chroot(2), and what it takes to leave that
//!    again goes with step 4; nothing outside is open.
//! 3. rlimits, so that a defect cannot take the machine.
//! 4. Capabilities: those by which the container's root reads, writes and gives files away.
//! 5. `no_new_privs`, Landlock (no execution, no devices), seccomp last.

use std::os::fd::{AsFd, BorrowedFd};

use berth_runtime::record::{Failure, FailureClass};
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible};
use landlock::{PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr};
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, chroot, fchdir, setgroups, setresgid, setresuid};

use super::refused;
use super::walk::DEPTH_MAX;
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

const ADDRESS_BYTES_MAX: u64 = 256 << 20;
/// Processor seconds of one act.
const CPU_SECS_MAX: u64 = 3_600;
/// One for each folder on the way, and some more.
const FILES_MAX: u64 = DEPTH_MAX as u64 + 64;

/// `capabilities(7)`: CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
const CAPABILITIES: [u32; 4] = [0, 1, 3, 4];

/// Becomes the root of the mapped ids.
pub(super) fn become_root() -> Result<(), Failure> {
    setgroups(&[]).map_err(refused("drop the groups"))?;
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(group, group, group).map_err(refused("become the container's group 0"))?;
    setresuid(user, user, user).map_err(refused("become the container's root"))?;
    umask(Mode::empty());
    Ok(())
}

/// Confines this process to `ground` and, for an upload, to the directory that it comes from.
pub(super) fn confine(
    ground: BorrowedFd<'_>,
    uploads: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    fchdir(ground).map_err(refused("enter the ground"))?;
    chroot(".").map_err(refused("make the ground the root"))?;
    chdir("/").map_err(refused("enter the ground"))?;
    limit_resources().map_err(refused("limit the resources"))?;
    sys::layer::keep_capabilities(&CAPABILITIES).map_err(refused("drop the capabilities"))?;
    nix::sys::prctl::set_no_new_privs().map_err(refused("set no_new_privs"))?;
    restrict_paths(ground, uploads)?;
    sys::layer::allow_syscalls_only(ALLOWED).map_err(refused("load the seccomp filter"))
}

fn limit_resources() -> nix::Result<()> {
    for (resource, value) in [
        (Resource::RLIMIT_AS, ADDRESS_BYTES_MAX),
        (Resource::RLIMIT_CPU, CPU_SECS_MAX),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
        (Resource::RLIMIT_CORE, 0),
    ] {
        let (_, hard) = getrlimit(resource)?;
        let value = value.min(hard);
        setrlimit(resource, value, value)?;
    }
    Ok(())
}

/// Landlock over the same ground: holds even if a path found its way out. Kernels without it have the rest
/// alone, which `berth doctor` says.
fn restrict_paths(ground: BorrowedFd<'_>, uploads: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let failed = |error: landlock::RulesetError| {
        let message = format!("restrict the paths: {error}");
        Failure::new(FailureClass::Broken, "files.ground", message)
    };
    let abi = ABI::V5;
    let allowed = AccessFs::from_all(abi)
        & !(AccessFs::Execute
            | AccessFs::MakeBlock
            | AccessFs::MakeChar
            | AccessFs::MakeFifo
            | AccessFs::MakeSock
            | AccessFs::IoctlDev);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .map_err(failed)?
        .create()
        .map_err(failed)?
        .add_rule(PathBeneath::new(ground.as_fd(), allowed))
        .map_err(failed)?;
    if let Some(uploads) = uploads {
        rules = rules.add_rule(PathBeneath::new(uploads, allowed)).map_err(failed)?;
    }
    rules.restrict_self().map_err(failed)?;
    Ok(())
}

/// What walking, reading and writing files need; everything else is EPERM.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_copy_file_range,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_readlinkat,
    libc::SYS_fchown,
    libc::SYS_fchmod,
    libc::SYS_fsync,
    libc::SYS_pipe2,
    libc::SYS_sendmsg,
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
