//! Values that cannot be on any layout.

use std::fmt::Display;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use crate::cgroup::Error;

/// Bytes of an interface's name (IFNAMSIZ without its NUL).
const INTERFACE_BYTES_MAX: usize = 15;
/// Files of the unified hierarchy that act on processes or on what is below, not on a resource.
const CONTROL_FILES: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.type",
    "cgroup.subtree_control",
    "cgroup.kill",
    "cgroup.freeze",
];

pub(super) fn check(resources: &LinuxResources) -> Result<(), Error> {
    resources.cpu().as_ref().map_or(Ok(()), cpu)?;
    resources.memory().as_ref().map_or(Ok(()), memory)?;
    if let Some(pids) = resources.pids() {
        limit("pids.limit", Some(pids.limit()))?;
    }
    resources.block_io().as_ref().map_or(Ok(()), block_io)?;
    for (index, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = page.page_size();
        let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !number.is_some_and(plain) {
            let field = format!("hugepageLimits[{index}].pageSize");
            return invalid(&field, format!("{size:?}"), "is no size such as 2MB or 1GB");
        }
        if page.limit() < 0 {
            let field = format!("hugepageLimits[{index}].limit");
            return invalid(&field, page.limit(), "is below 0");
        }
    }
    resources.network().as_ref().map_or(Ok(()), network)?;
    for device in resources.rdma().iter().flat_map(|devices| devices.keys()) {
        word("rdma", device)?;
    }
    resources.unified().iter().flatten().try_for_each(|(key, value)| unified(key, value))
}

fn cpu(cpu: &LinuxCpu) -> Result<(), Error> {
    limit("cpu.quota", cpu.quota())?;
    limit("cpu.realtimeRuntime", cpu.realtime_runtime())?;
    if let Some(quota @ 1..1000) = cpu.quota() {
        return invalid("cpu.quota", quota, "is below 1000 microseconds");
    }
    if let (Some(quota @ 1..), Some(burst)) = (cpu.quota(), cpu.burst())
        && burst > quota.unsigned_abs()
    {
        return invalid("cpu.burst", burst, format_args!("is above cpu.quota, {quota}"));
    }
    if let Some(period) = cpu.period()
        && !(1000..=1_000_000).contains(&period)
        && period != 0
    {
        return invalid("cpu.period", period, "is not from 1000 to 1000000 microseconds");
    }
    if let Some(idle) = cpu.idle()
        && !matches!(idle, 0 | 1)
    {
        return invalid("cpu.idle", idle, "is neither 0 nor 1");
    }
    for (field, list) in [("cpu.cpus", cpu.cpus()), ("cpu.mems", cpu.mems())] {
        let list = list.as_deref().unwrap_or_default();
        let is_number = |text: &str| text.parse::<u32>().is_ok();
        let is_range = |part: &str| part.split('-').count() <= 2 && part.split('-').all(is_number);
        if !list.is_empty() && !list.split(',').all(|part| is_range(part.trim())) {
            return invalid(field, format!("{list:?}"), "is no list such as 0-3,7");
        }
    }
    Ok(())
}

fn memory(memory: &LinuxMemory) -> Result<(), Error> {
    limit("memory.limit", memory.limit())?;
    limit("memory.reservation", memory.reservation())?;
    limit("memory.swap", memory.swap())?;
    if let (Some(bytes), Some(total)) = (memory.limit(), memory.swap())
        && total > 0
        && (bytes > total || bytes == -1)
    {
        let why = format!("is memory and swap together, and memory.limit is {bytes}");
        return invalid("memory.swap", total, why);
    }
    if let Some(swappiness) = super::swappiness(memory)
        && swappiness > 100
    {
        return invalid("memory.swappiness", swappiness, "is not from 0 to 100");
    }
    Ok(())
}

fn block_io(block: &LinuxBlockIo) -> Result<(), Error> {
    let weight = |field: &str, weight: Option<u16>| match weight {
        None | Some(0 | 10..=1000) => Ok(()),
        Some(weight) => invalid(field, weight, "is not from 10 to 1000"),
    };
    let device = |field: &str, major: i64, minor: i64| {
        // 12 and 20 bits (makedev(3) takes more, the kernel does not).
        let fits = (0..1 << 12).contains(&major) && (0..1 << 20).contains(&minor);
        if fits { Ok(()) } else { invalid(field, format!("{major}:{minor}"), "is no device") }
    };
    weight("blockIO.weight", block.weight())?;
    weight("blockIO.leafWeight", block.leaf_weight())?;
    for (index, one) in block.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        device(&field, one.major(), one.minor())?;
        weight(&format!("{field}.weight"), one.weight())?;
        weight(&format!("{field}.leafWeight"), one.leaf_weight())?;
    }
    for (name, list) in super::v1::throttles(block) {
        for (index, one) in list.iter().flatten().enumerate() {
            device(&format!("blockIO.{}[{index}]", name.field), one.major(), one.minor())?;
        }
    }
    Ok(())
}

fn network(network: &LinuxNetwork) -> Result<(), Error> {
    for (index, one) in network.priorities().iter().flatten().enumerate() {
        let (field, name) = (format!("network.priorities[{index}].name"), one.name());
        word(&field, name)?;
        if name.len() > INTERFACE_BYTES_MAX || name.contains('/') {
            return invalid(&field, format!("{name:?}"), "is no interface's name");
        }
    }
    Ok(())
}

/// A key of `unified` names one file of the cgroup's own that sets a resource.
fn unified(key: &str, value: &str) -> Result<(), Error> {
    let field = format!("unified[{key:?}]");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let named = key.split_once('.').is_some_and(|(controller, file)| {
        !controller.is_empty() && !file.is_empty() && key.bytes().all(plain)
    });
    if !named {
        return invalid(&field, format!("{value:?}"), "is for no file named CONTROLLER.PARAMETER");
    }
    if CONTROL_FILES.contains(&key) {
        return invalid(&field, format!("{value:?}"), "is for a file that sets no resource");
    }
    Ok(())
}

/// Numbers that may be -1, for no limit.
fn limit(field: &str, value: Option<i64>) -> Result<(), Error> {
    match value {
        Some(value) if value < -1 => invalid(field, value, "is below -1, which is no limit"),
        _ => Ok(()),
    }
}

/// Names that the kernel takes as the first word of a line.
fn word(field: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains(|letter: char| letter.is_whitespace() || letter == '\0') {
        return invalid(field, format!("{name:?}"), "is no name");
    }
    Ok(())
}

fn invalid(field: &str, value: impl Display, why: impl Display) -> Result<(), Error> {
    Err(Error::Invalid(format!("linux.resources.{field}: {value} {why}")))
}
