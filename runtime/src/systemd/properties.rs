//! What systemd is told of a unit's resources, by v2's names, which it also knows how to keep on v1.

use oci_spec::runtime::LinuxResources;

use crate::cgroup::{cpu_weight, numbers, swap_alone};
use crate::dbus::Body;

/// The largest number is "no limit".
const INFINITY: u64 = u64::MAX;
/// systemd counts quotas in steps of 10 ms of each second, and rounds up what lies between.
const QUOTA_STEP_US: u64 = 10_000;
/// The period of a quota without one, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// A property's name and value.
pub type Property = (&'static str, Value);

/// A value of one of the types that properties here have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `s`.
    Text(String),
    /// `b`.
    Flag(bool),
    /// `t`.
    Number(u64),
    /// `au`.
    Pids(Vec<u32>),
    /// `ay`: a bit for each number, the lowest first.
    Bits(Vec<u8>),
}

/// Adds properties as `a(sv)`.
pub fn write(body: &mut Body, properties: &[Property]) {
    body.array(8, |body| {
        for (name, value) in properties {
            body.structure().text(name);
            match value {
                Value::Text(text) => body.signature("s").text(text),
                Value::Flag(flag) => body.signature("b").flag(*flag),
                Value::Number(number) => body.signature("t").long(*number),
                Value::Pids(pids) => body.signature("au").array(4, |body| {
                    for pid in pids {
                        body.number(*pid);
                    }
                }),
                Value::Bits(bytes) => body.signature("ay").array(1, |body| {
                    for byte in bytes {
                        body.byte(*byte);
                    }
                }),
            };
        }
    });
}

/// What systemd would set itself, but for the number of processes ([`tasks`]).
pub fn of_resources(resources: &LinuxResources) -> Vec<Property> {
    let mut all = Vec::new();
    let mut add = |name, value: Option<u64>| {
        all.extend(value.map(|number| (name, Value::Number(number))));
    };
    let limit = |value: Option<i64>| {
        value.filter(|value| *value != 0).map(|value| u64::try_from(value).unwrap_or(INFINITY))
    };
    if let Some(memory) = resources.memory() {
        add("MemoryMax", limit(memory.limit()));
        add("MemoryLow", limit(memory.reservation()));
        let (bytes, total) = (memory.limit().unwrap_or(0), memory.swap().filter(|all| *all != 0));
        let swap = total.and_then(|total| swap_alone(total, bytes));
        add("MemorySwapMax", swap.map(|swap| u64::try_from(swap).unwrap_or(INFINITY)));
    }
    if let Some(cpu) = resources.cpu() {
        let shares = cpu.shares().filter(|shares| *shares != 0);
        add("CPUWeight", shares.map(|shares| cpu_weight(shares).into()));
        let period = cpu.period().filter(|period| *period != 0);
        if let Some(quota) = limit(cpu.quota()) {
            let per_second = quota.saturating_mul(1_000_000) / period.unwrap_or(PERIOD_US);
            let stepped = per_second.div_ceil(QUOTA_STEP_US).saturating_mul(QUOTA_STEP_US);
            add("CPUQuotaPerSecUSec", Some(if quota == INFINITY { INFINITY } else { stepped }));
        }
        add("CPUQuotaPeriodUSec", period);
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                all.push((name, Value::Bits(bits(&numbers(list)))));
            }
        }
    }
    all
}

/// The limit on processes, which counts a scope's placeholder as well.
pub fn tasks(resources: &LinuxResources) -> Option<Property> {
    let limit = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit != 0)?;
    Some(("TasksMax", Value::Number(u64::try_from(limit).unwrap_or(INFINITY))))
}

fn bits(numbers: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let index = *number as usize / 8;
        bytes.resize(bytes.len().max(index + 1), 0);
        bytes[index] |= 1 << (number % 8);
    }
    bytes
}
