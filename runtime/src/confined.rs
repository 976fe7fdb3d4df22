//! What the processes that read foreign bytes or walk foreign paths have in common: the unpacker of a layer
//! ([`crate::layer`]) and whoever walks somebody's files ([`crate::stored`]). Each makes itself a root of its
//! own and says what it needs beyond this; the steps and their order stand there.

use std::os::fd::BorrowedFd;

use landlock::{ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible};
use landlock::{PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::sys;

/// The child's namespaces, as `clone3(2)` wants them: every kind, so that there is no host to see and no
/// network at all.
pub fn namespaces() -> u64 {
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    u64::from(all.bits().cast_unsigned())
}

/// Becomes the root of the ids that the child was mapped to; what it makes has the modes that it says. Answers
/// the step that the kernel refused.
pub fn become_root() -> Result<(), String> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).map_err(refused("drop the groups"))?;
    setresgid(group, group, group).map_err(refused("become group 0 of the mapped ids"))?;
    setresuid(user, user, user).map_err(refused("become user 0 of the mapped ids"))?;
    umask(Mode::empty());
    Ok(())
}

/// What a child keeps of everything.
pub struct Kept<'a> {
    /// Resources, soft and hard; the host's own limit where that is lower. There is never a core file.
    pub limits: &'a [(Resource, u64)],
    /// `capabilities(7)`, by number.
    pub capabilities: &'a [u32],
    /// The directories that it may touch.
    pub grounds: &'a [BorrowedFd<'a>],
    /// What Landlock denies beneath them, besides running something, block devices, sockets and ioctls.
    pub denied: BitFlags<AccessFs>,
    /// System calls besides [`ALLOWED`]; every other one is EPERM.
    pub calls: &'a [libc::c_long],
}

/// Gives up everything but `kept`. Order, each step with its reason: rlimits, so that a defect cannot take the
/// machine; capabilities; `no_new_privs`; Landlock; seccomp last, since it forbids the calls that the steps
/// before need. Answers the step that the kernel refused.
pub fn give_up_all_but(kept: &Kept<'_>) -> Result<(), String> {
    limit_resources(kept.limits).map_err(refused("limit the resources"))?;
    sys::layer::keep_capabilities(kept.capabilities).map_err(refused("drop the capabilities"))?;
    nix::sys::prctl::set_no_new_privs().map_err(refused("set no_new_privs"))?;
    restrict_paths(kept.grounds, kept.denied)
        .map_err(|error| format!("restrict the paths: {error}"))?;
    let calls = [ALLOWED, kept.calls].concat();
    sys::layer::allow_syscalls_only(&calls).map_err(refused("load the seccomp filter"))
}

fn refused(step: &'static str) -> impl FnOnce(Errno) -> String {
    move |errno| format!("{step}: {}", errno.desc())
}

fn limit_resources(limits: &[(Resource, u64)]) -> nix::Result<()> {
    for (resource, value) in limits.iter().chain(&[(Resource::RLIMIT_CORE, 0)]) {
        let (_, hard) = getrlimit(*resource)?;
        let value = hard.min(*value);
        setrlimit(*resource, value, value)?;
    }
    Ok(())
}

/// Landlock over the grounds: holds even if a path found its way out. Kernels without it have the rest alone,
/// which `berth doctor` says.
fn restrict_paths(
    grounds: &[BorrowedFd<'_>],
    denied: BitFlags<AccessFs>,
) -> Result<(), RulesetError> {
    let abi = ABI::V5;
    let never = AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev;
    let allowed = AccessFs::from_all(abi) & !(never | denied);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .create()?;
    for ground in grounds {
        rules = rules.add_rule(PathBeneath::new(ground, allowed))?;
    }
    rules.restrict_self()?;
    Ok(())
}

/// The system calls of a program that reads, writes and ends; what else a child needs comes to these.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
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
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_readlinkat,
    libc::SYS_fchown,
    libc::SYS_fchmod,
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
