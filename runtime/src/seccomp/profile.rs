//! The default filter, as an OCI `linux.seccomp`: an allow-list, so that what nobody thought of is
//! refused. Refused calls answer EPERM; calls newer than this build, and clone3 (whose flags lie
//! behind a pointer, where no filter can look), ENOSYS, so that libc falls back.
//!
//! Deliberately absent: new namespaces (unshare, setns, clone's flags), the mount family, keys, bpf,
//! io_uring, userfaultfd, perf, NUMA and page placement, kernel modules, time setting, raw port access,
//! file handles; and sockets of any family but those of [`FAMILIES`], which leaves out AF_ALG and
//! AF_VSOCK.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// `CLONE_NEW*` except time, which clone(2) cannot ask for.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`, `AF_PACKET`.
const FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];
/// The personas that programs ask for: Linux, 32-bit Linux, each with UNAME26, and "tell me".
const PERSONAS: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// socketcall(2)'s numbers for socket and socketpair, whose family no filter can see there.
const SOCKETCALL_SOCKET: u64 = 1;
const SOCKETCALL_SOCKETPAIR: u64 = 8;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The default profile's filter.
pub fn default_filter() -> LinuxSeccomp {
    let mut rules = vec![rule(ALLOWED, &[])];
    rules.push(rule(&["clone"], &[masked(clone_flags_argument(), NAMESPACE_FLAGS, 0)]));
    rules.push(error(&["clone3"], ENOSYS));
    for family in FAMILIES {
        rules.push(rule(&["socket"], &[equal(0, family)]));
    }
    rules.push(rule(&["socketpair"], &[equal(0, FAMILIES[0])]));
    for persona in PERSONAS {
        rules.push(rule(&["personality"], &[equal(0, persona)]));
    }
    // Everything from 2 to 20 but socketpair.
    rules.push(rule(
        &["socketcall"],
        &[compared(0, LinuxSeccompOperator::ScmpCmpGt, SOCKETCALL_SOCKETPAIR)],
    ));
    for number in SOCKETCALL_SOCKET + 1..SOCKETCALL_SOCKETPAIR {
        rules.push(rule(&["socketcall"], &[equal(0, number)]));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchAarch64])
        .syscalls(rules)
        .build()
        .expect("every field that the builder demands is set")
}

/// clone(2)'s flags are its first argument on all architectures of [`super::Architecture`].
fn clone_flags_argument() -> usize {
    0
}

fn rule(names: &[&str], arguments: &[LinuxSeccompArg]) -> LinuxSyscall {
    build(names, LinuxSeccompAction::ScmpActAllow, None, arguments)
}

fn error(names: &[&str], errno: u32) -> LinuxSyscall {
    build(names, LinuxSeccompAction::ScmpActErrno, Some(errno), &[])
}

fn build(
    names: &[&str],
    action: LinuxSeccompAction,
    errno: Option<u32>,
    arguments: &[LinuxSeccompArg],
) -> LinuxSyscall {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut builder = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        builder = builder.errno_ret(errno);
    }
    if !arguments.is_empty() {
        builder = builder.args(arguments.to_vec());
    }
    builder.build().expect("every field that the builder demands is set")
}

fn equal(index: usize, value: u64) -> LinuxSeccompArg {
    compared(index, LinuxSeccompOperator::ScmpCmpEq, value)
}

fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
        .expect("every field that the builder demands is set")
}

fn compared(index: usize, operator: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(operator)
        .build()
        .expect("every field that the builder demands is set")
}

/// Allowed whatever the arguments.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "alarm", "arch_prctl", "bind", "brk",
    "cachestat", "capget", "capset", "chdir", "chmod", "chown", "chown32", "chroot", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup",
    "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait",
    "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat",
    "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate",
    "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl",
    "fcntl64", "fdatasync", "fgetxattr", "file_getattr", "file_setattr", "flistxattr", "flock",
    "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64",
    "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu",
    "getcwd", "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid",
    "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp",
    "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid",
    "getresuid32", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid",
    "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat", "inotify_add_watch",
    "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents",
    "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "ioprio_get",
    "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen",
    "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lsm_get_self_attr", "lsm_list_modules", "lstat", "lstat64", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat",
    "mlock", "mlock2", "mlockall", "mmap", "mmap2", "modify_ldt", "mprotect", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd",
    "msync", "munlock", "munlockall", "munmap", "nanosleep", "newfstatat", "nice", "oldfstat",
    "oldlstat", "oldolduname", "oldstat", "olduname", "open", "openat", "openat2", "pause",
    "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_madvise", "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6",
    "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readdir",
    "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid",
    "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32",
    "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr",
    "setxattrat", "sgetmask", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaction",
    "sigaltstack", "signal", "signalfd", "signalfd4", "sigpending", "sigprocmask", "sigreturn",
    "sigsuspend", "splice", "ssetmask", "stat", "stat64", "statfs", "statfs64", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
    "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
    "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64",
    "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64",
    "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::table::CALLS;

    #[test]
    fn every_allowed_name_is_known() {
        for name in ALLOWED {
            assert!(CALLS.iter().any(|row| row.0 == *name), "{name}");
        }
    }

    #[test]
    fn what_the_bar_forbids_is_absent() {
        let forbidden = [
            "unshare",
            "setns",
            "mount",
            "umount2",
            "move_mount",
            "open_tree",
            "fsopen",
            "fsmount",
            "fsconfig",
            "mount_setattr",
            "pivot_root",
            "keyctl",
            "add_key",
            "request_key",
            "bpf",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "userfaultfd",
            "perf_event_open",
            "open_by_handle_at",
            "socket",
            "socketcall",
            "clone",
            "clone3",
            "kexec_load",
            "init_module",
            "finit_module",
            "reboot",
            "swapon",
            "sethostname",
        ];
        for name in forbidden {
            assert!(!ALLOWED.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_filter_compiles_within_the_kernels_bound() {
        let filter = crate::seccomp::compile(&default_filter()).expect("the profile is valid");
        assert!(filter.program.len() < 2048, "{}", filter.program.len());
    }
}
