//! What the kernel's schedulers are told of a process: sched_setattr(2), ioprio_set(2), set_mempolicy(2);
//! and personality(2).

use nix::errno::Errno;
use nix::unistd::Pid;

/// `struct sched_attr` (linux/sched/types.h), version 1.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// Bytes of this struct.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// Of real-time policies, 1 to 99.
    pub priority: u32,
    /// Nanoseconds, of `SCHED_DEADLINE`.
    pub runtime: u64,
    /// The same.
    pub deadline: u64,
    /// The same.
    pub period: u64,
    /// Of the utilisation clamp.
    pub utilization_min: u32,
    /// The same.
    pub utilization_max: u32,
}

/// sched_setattr(2) of a process's first thread.
pub fn set_scheduler(pid: Pid, attributes: &SchedulerAttributes) -> nix::Result<()> {
    let attributes = std::ptr::from_ref(attributes);
    // SAFETY: the struct has the kernel's layout, says its own size, and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), attributes, 0) };
    Errno::result(result).map(drop)
}

/// ioprio_set(2) of one process; `priority` is class and level in one.
pub fn set_io_priority(pid: Pid, priority: u32) -> nix::Result<()> {
    const IOPRIO_WHO_PROCESS: u32 = 1;
    // SAFETY: takes no pointers.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw(), priority) };
    Errno::result(result).map(drop)
}

/// set_mempolicy(2) of the calling thread, with bit n of `nodes` for node n.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> nix::Result<()> {
    // The kernel takes one bit less than it is told of (set_mempolicy(2), "BUGS" of its libraries).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits from the slice, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    Errno::result(result).map(drop)
}

/// personality(2) of the calling thread.
pub fn set_personality(persona: u32) -> nix::Result<()> {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_personality, u64::from(persona)) };
    Errno::result(result).map(drop)
}
