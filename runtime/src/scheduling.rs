//! What a process is given of processors and disks beside the limits of its cgroup (config.md, "Linux
//! Process"): `scheduler`, `ioPriority`, and for later processes `execCPUAffinity`.
//!
//! The parent sets them on the child: in a user namespace nobody may (capabilities(7), `CAP_SYS_NICE`).

use std::path::Path;

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler,
};

use crate::failure::system;
use crate::ranges;
use crate::spec::{SpecError, invalid};
use crate::sys::sched::{SchedulerAttributes, set_io_priority, set_scheduler};

/// What is set on a process.
#[derive(Debug, Default)]
pub struct Scheduling {
    scheduler: Option<(SchedulerAttributes, LinuxSchedulerPolicy)>,
    /// Class and level in one.
    io_priority: Option<u32>,
}

impl Scheduling {
    /// That of a configuration's process.
    pub fn of(process: &Process) -> Result<Self, SpecError> {
        let scheduler = process.scheduler().as_ref();
        let scheduler = scheduler.map(|scheduler| {
            attributes(scheduler).map(|attributes| (attributes, *scheduler.policy()))
        });
        Ok(Self {
            scheduler: scheduler.transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        })
    }

    /// Sets it. The process has one thread, which has not run its program.
    pub fn set(&self, pid: Pid) -> Result<(), Failure> {
        if let Some((attributes, policy)) = &self.scheduler {
            set_scheduler(pid, attributes).map_err(|errno| {
                let real_time = attributes.priority > 0 && errno == Errno::EPERM;
                let why = match real_time {
                    // sched(7), "Real-time group scheduling".
                    true => " (on cgroup v1 it needs linux.resources.cpu.realtimeRuntime)",
                    false => "",
                };
                system(&format!("set process.scheduler to {policy}{why}"), errno)
            })?;
        }
        if let Some(value) = self.io_priority {
            let class = value >> CLASS_SHIFT;
            let step = format!("set process.ioPriority to class {class}, {}", value & 7);
            set_io_priority(pid, value).map_err(|errno| system(&step, errno))?;
        }
        Ok(())
    }
}

/// sched(7); linux/sched.h.
fn attributes(scheduler: &Scheduler) -> Result<SchedulerAttributes, SpecError> {
    use LinuxSchedulerPolicy as Policy;
    let policy = *scheduler.policy();
    let field = |name: &str| format!("process.scheduler.{name}");
    let number = match policy {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
        Policy::SchedIso => {
            return Err(invalid(
                field("policy"),
                "SCHED_ISO is reserved, Linux has no such policy",
            ));
        }
    };
    let nice = scheduler.nice().unwrap_or_default();
    if !(-20..=19).contains(&nice) {
        return Err(invalid(field("nice"), format!("{nice} is not from -20 to 19")));
    }
    let priority = scheduler.priority().unwrap_or_default();
    let real_time = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    if real_time && !(1..=99).contains(&priority) {
        return Err(invalid(field("priority"), format!("{priority} is not from 1 to 99")));
    }
    if !real_time && priority != 0 {
        let why = format!("{priority} is for SCHED_FIFO and SCHED_RR, not for {policy}");
        return Err(invalid(field("priority"), why));
    }
    let times = [
        ("runtime", scheduler.runtime().unwrap_or_default()),
        ("deadline", scheduler.deadline().unwrap_or_default()),
        ("period", scheduler.period().unwrap_or_default()),
    ];
    check_times(policy, times)?;
    let flags = scheduler.flags().iter().flatten().fold(0, |bits, flag| bits | flag_bit(*flag));
    Ok(SchedulerAttributes {
        size: u32::try_from(size_of::<SchedulerAttributes>()).unwrap_or_default(),
        policy: number,
        flags,
        nice,
        priority: priority.unsigned_abs(),
        runtime: times[0].1,
        deadline: times[1].1,
        period: times[2].1,
        ..SchedulerAttributes::default()
    })
}

/// sched(7), "SCHED_DEADLINE": at least 1024 ns, and runtime <= deadline <= period.
fn check_times(policy: LinuxSchedulerPolicy, times: [(&str, u64); 3]) -> Result<(), SpecError> {
    let field = |name: &str| format!("process.scheduler.{name}");
    if policy != LinuxSchedulerPolicy::SchedDeadline {
        return match times.iter().find(|(_, time)| *time != 0) {
            Some((name, time)) => {
                let why = format!("{time} is for SCHED_DEADLINE, not for {policy}");
                Err(invalid(field(name), why))
            }
            None => Ok(()),
        };
    }
    let [(_, runtime), (_, deadline), (_, period)] = times;
    if runtime < 1024 {
        return Err(invalid(field("runtime"), format!("{runtime} ns is below 1024 ns")));
    }
    if deadline < runtime {
        let why = format!("{deadline} ns is below the runtime of {runtime} ns");
        return Err(invalid(field("deadline"), why));
    }
    if period != 0 && period < deadline {
        let why = format!("{period} ns is below the deadline of {deadline} ns");
        return Err(invalid(field("period"), why));
    }
    Ok(())
}

fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    use LinuxSchedulerFlag as Flag;
    match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    }
}

/// linux/ioprio.h.
const CLASS_SHIFT: u32 = 13;

fn io_priority(wanted: &LinuxIOPriority) -> Result<u32, SpecError> {
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = wanted.priority();
    match u32::try_from(level) {
        Ok(level @ 0..=7) => Ok(class << CLASS_SHIFT | level),
        _ => Err(invalid("process.ioPriority.priority", format!("{level} is not from 0 to 7"))),
    }
}

/// On which processors a later process begins, and where it is in the container's cgroup.
#[derive(Debug, Default)]
pub struct Affinity {
    initial: Option<(CpuSet, String)>,
    last: Option<(CpuSet, String)>,
}

impl Affinity {
    /// That of a configuration's process.
    pub fn of(process: &Process) -> Result<Self, SpecError> {
        let Some(wanted) = process.exec_cpu_affinity() else { return Ok(Self::default()) };
        let set = |name: &str, text: &Option<String>| {
            text.as_deref().filter(|text| !text.is_empty()).map(|text| cpus(name, text)).transpose()
        };
        Ok(Self {
            initial: set("initial", wanted.initial())?,
            last: set("final", wanted.cpu_affinity_final())?,
        })
    }

    /// Moves the calling process, whose child begins where it is.
    pub fn begin(&self) -> Result<(), Failure> {
        move_to(Pid::from_raw(0), "initial", self.initial.as_ref())
    }

    /// Moves a child that is in its cgroup.
    pub fn finish(&self, child: Pid) -> Result<(), Failure> {
        move_to(child, "final", self.last.as_ref())
    }
}

fn move_to(pid: Pid, name: &str, to: Option<&(CpuSet, String)>) -> Result<(), Failure> {
    let Some((set, text)) = to else { return Ok(()) };
    let step = format!("set process.execCPUAffinity.{name} to {text}");
    sched_setaffinity(pid, set).map_err(|errno| system(&step, errno))
}

fn cpus(name: &str, text: &str) -> Result<(CpuSet, String), SpecError> {
    let field = format!("process.execCPUAffinity.{name}");
    let numbers = ranges::among(text, Path::new("/sys/devices/system/cpu/present"), "processor")
        .map_err(|why| invalid(&field, why))?;
    let mut set = CpuSet::new();
    for number in numbers {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        set.set(place).map_err(|_| {
            let why = format!("{text:?}: processors from {} on are out of reach", CpuSet::count());
            invalid(&field, why)
        })?;
    }
    Ok((set, text.to_owned()))
}
