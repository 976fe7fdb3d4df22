//! Resources in the files of v2 (cgroup-v2.rst).

use std::fmt::Display;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::v1::{RDMA_NONE, rdma, throttles};
use super::write::Form;
use super::{Plan, convert, lacking, refused};
use crate::cgroup::{Error, files};

/// The period of a quota that nobody has given one: the kernel's default, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// What `io.max` shows of a device without limits.
const IO_NONE: &str = "rbps=max wbps=max riops=max wiops=max";

pub(super) fn plan(plan: &mut Plan<'_>, resources: &LinuxResources) -> Result<(), Error> {
    if let Some(cpu) = resources.cpu() {
        plan.cpu_v2(cpu)?;
    }
    if let Some(memory) = resources.memory() {
        plan.memory_v2(memory)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit())
        && limit != 0
    {
        plan.add_v2("pids.limit", limit, "pids.max", number(limit), Form::Exact)?;
    }
    if let Some(block) = resources.block_io() {
        plan.block_v2(block)?;
    }
    for (index, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        for (kind, needed) in [("", true), ("rsvd.", false)] {
            let name = format!("hugetlb.{}.{kind}max", page.page_size());
            let file = plan.v2_file(&name, (&field, &page.limit()));
            if needed || file.is_ok() {
                let form = Form::Bytes(convert::page_bytes(page.page_size()));
                plan.push(&field, page.limit(), file?, page.limit().to_string(), form);
            }
        }
    }
    if let Some(network) = resources.network() {
        let classless = "cgroup v2 has neither classes nor priorities of packets";
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            return Err(lacking("network.classID", class, classless));
        }
        if let Some(one) = network.priorities().iter().flatten().next() {
            let asked = format!("{} {}", one.name(), one.priority());
            return Err(lacking("network.priorities[0]", asked, classless));
        }
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let value = rdma(device, limits);
        let form = Form::Line { key: device.clone(), none: RDMA_NONE };
        plan.add_v2("rdma", value.clone(), "rdma.max", value, form)?;
    }
    // In the order of their names: a configuration is set up the same way every time.
    let unified: std::collections::BTreeMap<_, _> = resources.unified().iter().flatten().collect();
    for (key, value) in unified {
        let field = format!("unified[{key:?}]");
        // A file of a line for each device takes one line with each write.
        for line in value.lines() {
            let form = form_of(key, line);
            plan.add_v2(&field, format!("{value:?}"), key, line.to_owned(), form)?;
        }
    }
    Ok(())
}

/// How a file that is named by `unified` shows a line that is written to it.
pub(super) fn form_of(file: &str, line: &str) -> Form {
    let first = line.split_whitespace().next().unwrap_or_default();
    let none = match file {
        "io.max" => IO_NONE,
        "io.weight" | "io.bfq.weight" if first.contains(':') => "default",
        "rdma.max" => RDMA_NONE,
        _ => return Form::Lines,
    };
    Form::Line { key: first.to_owned(), none }
}

/// A limit as v2 writes it.
fn number(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

impl Plan<'_> {
    fn add_v2(
        &mut self,
        field: &str,
        asked: impl Display,
        name: &str,
        value: String,
        form: Form,
    ) -> Result<(), Error> {
        let file = self.v2_file(name, (field, &asked))?;
        self.push(field, asked, file, value, form);
        Ok(())
    }

    fn cpu_v2(&mut self, cpu: &LinuxCpu) -> Result<(), Error> {
        let absent = "cgroup v2 has no realtime limits";
        if let Some(runtime) = cpu.realtime_runtime().filter(|time| *time != 0) {
            return Err(lacking("cpu.realtimeRuntime", runtime, absent));
        }
        if let Some(period) = cpu.realtime_period().filter(|time| *time != 0) {
            return Err(lacking("cpu.realtimePeriod", period, absent));
        }
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            // Whoever is idle has a weight of its own for as long as that lasts.
            let form = if cpu.idle() == Some(1) { Form::Text } else { Form::Exact };
            let weight = convert::cpu_weight(shares).to_string();
            self.add_v2("cpu.shares", shares, "cpu.weight", weight, form)?;
        }
        if let Some(burst) = cpu.burst() {
            let value = burst.to_string();
            self.add_v2("cpu.burst", burst, "cpu.max.burst", value, Form::Exact)?;
        }
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let period = cpu.period().filter(|period| *period != 0);
        let (field, asked) = match (quota, period) {
            (Some(quota), _) => ("cpu.quota", quota.to_string()),
            (None, Some(period)) => ("cpu.period", period.to_string()),
            (None, None) => ("", String::new()),
        };
        if !field.is_empty() {
            let file = self.v2_file("cpu.max", (field, &asked))?;
            let value =
                cpu_max(&file, quota, period).map_err(|error| refused(field, &asked, error))?;
            self.push(field, asked, file, value, Form::Exact);
        }
        if let Some(idle) = cpu.idle() {
            self.add_v2("cpu.idle", idle, "cpu.idle", idle.to_string(), Form::Exact)?;
        }
        for (field, name, list) in
            [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
        {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.add_v2(field, list, name, list.clone(), Form::Text)?;
            }
        }
        Ok(())
    }

    fn memory_v2(&mut self, memory: &LinuxMemory) -> Result<(), Error> {
        let set = |value: Option<i64>| value.filter(|value| *value != 0);
        if memory.disable_oom_killer() == Some(true) {
            let reason = "cgroup v2 cannot keep the kernel from killing for want of memory";
            return Err(lacking("memory.disableOOMKiller", true, reason));
        }
        if let Some(swappiness) = super::swappiness(memory) {
            let reason = "cgroup v2 has no swappiness of a cgroup's own";
            return Err(lacking("memory.swappiness", swappiness, reason));
        }
        if memory.use_hierarchy() == Some(false) {
            let reason = "the kernel always counts what is below a cgroup in it";
            return Err(lacking("memory.useHierarchy", false, reason));
        }
        let (limit, total) = (set(memory.limit()), set(memory.swap()));
        if memory.check_before_update() == Some(true) {
            self.check_use(limit, total)?;
        }
        if limit == Some(-1) && total.is_none() {
            // No limit on memory is none on memory and swap together.
            self.swap_v2(-1, -1)?;
        }
        if let Some(total) = total {
            let memory = match limit {
                Some(limit) => limit,
                None => self.present_limit(total)?,
            };
            self.swap_v2(total, memory)?;
        }
        if let Some(limit) = limit {
            self.add_v2("memory.limit", limit, "memory.max", number(limit), Form::PAGES)?;
        }
        if let Some(bytes) = set(memory.reservation()) {
            self.add_v2("memory.reservation", bytes, "memory.low", number(bytes), Form::PAGES)?;
        }
        Ok(())
    }

    /// The memory limit in force, which a sum of memory and swap is measured by; -1 when there is none.
    fn present_limit(&self, total: i64) -> Result<i64, Error> {
        let file = self.v2_file("memory.max", ("memory.swap", &total))?;
        let bytes = files::read_number(&file).map_err(|error| refused("memory.swap", total, error));
        Ok(i64::try_from(bytes?).unwrap_or(-1))
    }

    fn swap_v2(&mut self, total: i64, memory: i64) -> Result<(), Error> {
        let Some(swap) = convert::swap_alone(total, memory) else {
            let text = format!(
                "linux.resources.memory.swap: {total} is memory and swap together, and needs a memory \
                 limit that is not above it"
            );
            return Err(Error::Invalid(text));
        };
        match self.v2_file("memory.swap.max", ("memory.swap", &total)) {
            Ok(file) => self.push("memory.swap", total, file, number(swap), Form::PAGES),
            // A kernel without swap holds both.
            Err(_) if swap == -1 || swap == 0 && !Path::new("/proc/swaps").exists() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// `checkBeforeUpdate`: v2 would kill to get below a limit; v1 refuses it by itself.
    fn check_use(&self, limit: Option<i64>, total: Option<i64>) -> Result<(), Error> {
        let asked = limit.or(total).unwrap_or_default();
        if asked == 0 {
            return Ok(());
        }
        let path = self.v2_file("memory.max", ("memory.limit", &asked))?;
        let used = files::read_number(&path.with_file_name("memory.current"));
        let used = used.map_err(|error| refused("memory.checkBeforeUpdate", true, error))?;
        for (field, bytes) in [("memory.swap", total), ("memory.limit", limit)] {
            let wanted = bytes.and_then(|bytes| u64::try_from(bytes).ok());
            if let Some(wanted) = wanted.filter(|wanted| *wanted <= used) {
                let error = Error::MemoryInUse { path: path.clone(), wanted, used };
                return Err(refused(field, wanted, error));
            }
        }
        Ok(())
    }

    fn block_v2(&mut self, block: &LinuxBlockIo) -> Result<(), Error> {
        let set = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
        let leafless = "cgroup v2 has no leaf weights";
        if let Some(weight) = set(block.leaf_weight()) {
            return Err(lacking("blockIO.leafWeight", weight, leafless));
        }
        if let Some(weight) = set(block.weight()) {
            let (file, value) = self.io_weight("blockIO.weight", weight)?;
            self.push("blockIO.weight", weight, file, value.to_string(), Form::Text);
        }
        for (index, one) in block.weight_device().iter().flatten().enumerate() {
            let field = format!("blockIO.weightDevice[{index}]");
            if let Some(weight) = set(one.leaf_weight()) {
                return Err(lacking(&format!("{field}.leafWeight"), weight, leafless));
            }
            let Some(weight) = set(one.weight()) else { continue };
            let (file, value) = self.io_weight(&format!("{field}.weight"), weight)?;
            let key = format!("{}:{}", one.major(), one.minor());
            let (asked, value) = (format!("{key} {weight}"), format!("{key} {value}"));
            let form = Form::Line { key, none: "default" };
            self.push(&format!("{field}.weight"), asked, file, value, form);
        }
        for (name, list) in throttles(block) {
            for (index, one) in list.iter().flatten().enumerate() {
                let field = format!("blockIO.{}[{index}]", name.field);
                let key = format!("{}:{}", one.major(), one.minor());
                // v1's 0 takes a limit away, which is "max" here.
                let rate = if one.rate() == 0 { "max".to_owned() } else { one.rate().to_string() };
                let value = format!("{key} {}={rate}", name.key);
                let form = Form::Line { key, none: IO_NONE };
                self.add_v2(&field, value.clone(), "io.max", value, form)?;
            }
        }
        Ok(())
    }

    /// BFQ's file takes v1's weight as it is; without BFQ it is the scale of every v2 weight.
    fn io_weight(&self, field: &str, weight: u16) -> Result<(std::path::PathBuf, u32), Error> {
        if let Ok(file) = self.v2_file("io.bfq.weight", (field, &weight)) {
            return Ok((file, weight.into()));
        }
        Ok((self.v2_file("io.weight", (field, &weight))?, convert::io_weight(weight)))
    }
}

/// The line of `cpu.max`; what is not given is as it was.
fn cpu_max(file: &Path, quota: Option<i64>, period: Option<u64>) -> Result<String, Error> {
    let present = files::read(file)?;
    let (old_quota, old_period) = present.split_once(' ').unwrap_or(("max", ""));
    let quota = quota.map_or_else(|| old_quota.to_owned(), number);
    let period = period.or_else(|| old_period.parse().ok()).unwrap_or(CPU_PERIOD_US);
    Ok(format!("{quota} {period}"))
}
