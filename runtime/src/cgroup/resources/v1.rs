//! Resources in the files of v1 (cgroup-v1/*.rst).

use std::fmt::Display;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};

use super::write::{Form, Write};
use super::{Plan, convert, lacking};
use crate::cgroup::{Controller, Error};

/// How one list of throttles is called.
pub(super) struct Throttle {
    /// In the configuration.
    pub(super) field: &'static str,
    /// On v1.
    pub(super) file: &'static str,
    /// In v2's `io.max`.
    pub(super) key: &'static str,
}

/// The four lists of throttles.
pub(super) fn throttles(
    block: &LinuxBlockIo,
) -> [(Throttle, &Option<Vec<LinuxThrottleDevice>>); 4] {
    let name = |field, file, key| Throttle { field, file, key };
    [
        (
            name("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
            block.throttle_read_bps_device(),
        ),
        (
            name("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
            block.throttle_write_bps_device(),
        ),
        (
            name("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
            block.throttle_read_iops_device(),
        ),
        (
            name("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
            block.throttle_write_iops_device(),
        ),
    ]
}

pub(super) fn plan(plan: &mut Plan<'_>, resources: &LinuxResources) -> Result<(), Error> {
    if let Some((key, value)) = resources.unified().iter().flatten().next() {
        let reason = "it names a file of cgroup v2, and this host has v1";
        return Err(lacking(&format!("unified[{key:?}]"), format!("{value:?}"), reason));
    }
    if let Some(cpu) = resources.cpu() {
        plan.cpu_v1(cpu)?;
    }
    if let Some(memory) = resources.memory() {
        plan.memory_v1(memory)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit())
        && limit != 0
    {
        let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        plan.add_v1("pids.limit", limit, (Controller::Pids, &["pids.max"]), value, Form::Exact)?;
    }
    if let Some(block) = resources.block_io() {
        plan.block_v1(block)?;
    }
    for (index, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        for (kind, needed) in [("", true), ("rsvd.", false)] {
            let name = format!("hugetlb.{}.{kind}limit_in_bytes", page.page_size());
            let file = plan.v1_file((Controller::Hugetlb, &[&name]), (&field, &page.limit()));
            if needed || file.is_ok() {
                let form = Form::Bytes(convert::page_bytes(page.page_size()));
                plan.push(&field, page.limit(), file?, page.limit().to_string(), form);
            }
        }
    }
    if let Some(network) = resources.network() {
        plan.network_v1(network)?;
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let value = rdma(device, limits);
        let form = Form::Line { key: device.clone(), none: RDMA_NONE };
        plan.add_v1("rdma", &value, (Controller::Rdma, &["rdma.max"]), value.clone(), form)?;
    }
    Ok(())
}

/// What `rdma.max` shows of a device without limits (cgroup-v1/rdma.rst).
pub(super) const RDMA_NONE: &str = "hca_handle=max hca_object=max";

/// A device's line of `rdma.max`; what is not given stays.
pub(super) fn rdma(device: &str, limits: &oci_spec::runtime::LinuxRdma) -> String {
    let handles = limits.hca_handles().map(|count| format!(" hca_handle={count}"));
    let objects = limits.hca_objects().map(|count| format!(" hca_object={count}"));
    format!("{device}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default())
}

impl Plan<'_> {
    /// Adds a write of a file that has to be there.
    fn add_v1(
        &mut self,
        field: &str,
        asked: impl Display,
        file: (Controller, &[&str]),
        value: String,
        form: Form,
    ) -> Result<(), Error> {
        let file = self.v1_file(file, (field, &asked))?;
        self.push(field, asked, file, value, form);
        Ok(())
    }

    /// Adds a write.
    pub(super) fn push(
        &mut self,
        field: &str,
        asked: impl Display,
        file: std::path::PathBuf,
        value: String,
        form: Form,
    ) {
        let (field, asked) = (field.to_owned(), asked.to_string());
        let bound = field.starts_with("cpu.") || field.starts_with("memory.");
        self.writes.push(Write { field, asked, file, value, form, bound });
    }

    fn cpu_v1(&mut self, cpu: &LinuxCpu) -> Result<(), Error> {
        let mut add = |field: &str, name: &str, value: Option<String>, form: Form| match value {
            Some(value) => {
                self.add_v1(field, value.clone(), (Controller::Cpu, &[name]), value, form)
            }
            None => Ok(()),
        };
        let signed = |value: Option<i64>| value.filter(|value| *value != 0).map(|n| n.to_string());
        let plain = |value: Option<u64>| value.filter(|value| *value != 0).map(|n| n.to_string());
        // Whoever is idle has a weight of its own for as long as that lasts.
        let form = if cpu.idle() == Some(1) { Form::Text } else { Form::Exact };
        add("cpu.shares", "cpu.shares", plain(cpu.shares()), form)?;
        add("cpu.period", "cpu.cfs_period_us", plain(cpu.period()), Form::Exact)?;
        let burst = cpu.burst().map(|burst| burst.to_string());
        add("cpu.burst", "cpu.cfs_burst_us", burst, Form::Exact)?;
        add("cpu.quota", "cpu.cfs_quota_us", signed(cpu.quota()), Form::Exact)?;
        let idle = cpu.idle().map(|idle| idle.to_string());
        add("cpu.idle", "cpu.idle", idle, Form::Exact)?;
        let (period, runtime) = (plain(cpu.realtime_period()), signed(cpu.realtime_runtime()));
        add("cpu.realtimePeriod", "cpu.rt_period_us", period, Form::Exact)?;
        add("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime, Form::Exact)?;
        for (field, name, list) in
            [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
        {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                let file = (Controller::Cpuset, &[name][..]);
                self.add_v1(field, list, file, list.clone(), Form::Text)?;
            }
        }
        Ok(())
    }

    fn memory_v1(&mut self, memory: &LinuxMemory) -> Result<(), Error> {
        let set = |value: Option<i64>| value.filter(|value| *value != 0);
        if memory.use_hierarchy() == Some(false) {
            let reason = "the kernel always counts what is below a cgroup in it";
            return Err(lacking("memory.useHierarchy", false, reason));
        }
        let (limit, mut swap) = (set(memory.limit()), set(memory.swap()));
        let both = (Controller::Memory, &["memory.memsw.limit_in_bytes"][..]);
        let counted = self.v1_file(both, ("memory.swap", &"")).is_ok();
        if limit == Some(-1) && swap.is_none() {
            // No limit on memory is none on memory and swap together.
            swap = Some(-1);
        }
        let mut add = |field: &str, name: &str, value: Option<i64>| match value {
            Some(value) => {
                let file = (Controller::Memory, &[name][..]);
                self.add_v1(field, value, file, value.to_string(), Form::PAGES)
            }
            None => Ok(()),
        };
        add("memory.limit", "memory.limit_in_bytes", limit)?;
        // Where swap is not counted it is not limited either.
        let swap = swap.filter(|swap| counted || *swap != -1);
        add("memory.swap", "memory.memsw.limit_in_bytes", swap)?;
        let reservation = set(memory.reservation());
        add("memory.reservation", "memory.soft_limit_in_bytes", reservation)?;
        if let Some(disabled) = memory.disable_oom_killer() {
            let file = (Controller::Memory, &["memory.oom_control"][..]);
            let (value, form) = (u8::from(disabled).to_string(), Form::Named("oom_kill_disable"));
            self.add_v1("memory.disableOOMKiller", disabled, file, value, form)?;
        }
        if let Some(swappiness) = super::swappiness(memory) {
            let file = (Controller::Memory, &["memory.swappiness"][..]);
            let value = swappiness.to_string();
            self.add_v1("memory.swappiness", swappiness, file, value, Form::Exact)?;
        }
        Ok(())
    }

    fn block_v1(&mut self, block: &LinuxBlockIo) -> Result<(), Error> {
        let set = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
        // BFQ has them under its own name, since CFQ, which had them first, is gone.
        let weights = (Controller::Io, &["blkio.weight", "blkio.bfq.weight"][..]);
        let of_devices = (Controller::Io, &["blkio.weight_device", "blkio.bfq.weight_device"][..]);
        if let Some(weight) = set(block.weight()) {
            let value = weight.to_string();
            self.add_v1("blockIO.weight", weight, weights, value, Form::Exact)?;
        }
        if let Some(weight) = set(block.leaf_weight()) {
            let file = (Controller::Io, &["blkio.leaf_weight"][..]);
            self.add_v1("blockIO.leafWeight", weight, file, weight.to_string(), Form::Exact)?;
        }
        for (index, one) in block.weight_device().iter().flatten().enumerate() {
            let key = format!("{}:{}", one.major(), one.minor());
            let leaf = (Controller::Io, &["blkio.leaf_weight_device"][..]);
            for (name, weight, file) in
                [("weight", one.weight(), of_devices), ("leafWeight", one.leaf_weight(), leaf)]
            {
                let Some(weight) = set(weight) else { continue };
                let field = format!("blockIO.weightDevice[{index}].{name}");
                let value = format!("{key} {weight}");
                let form = Form::Line { key: key.clone(), none: "default" };
                self.add_v1(&field, value.clone(), file, value, form)?;
            }
        }
        for (name, list) in throttles(block) {
            for (index, one) in list.iter().flatten().enumerate() {
                let key = format!("{}:{}", one.major(), one.minor());
                let (field, value) =
                    (format!("blockIO.{}[{index}]", name.field), format!("{key} {}", one.rate()));
                let form = Form::Line { key, none: "0" };
                self.add_v1(&field, value.clone(), (Controller::Io, &[name.file]), value, form)?;
            }
        }
        Ok(())
    }

    fn network_v1(&mut self, network: &LinuxNetwork) -> Result<(), Error> {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            let file = (Controller::NetCls, &["net_cls.classid"][..]);
            self.add_v1("network.classID", class, file, class.to_string(), Form::Exact)?;
        }
        for (index, one) in network.priorities().iter().flatten().enumerate() {
            let field = format!("network.priorities[{index}]");
            let value = format!("{} {}", one.name(), one.priority());
            let form = Form::Line { key: one.name().clone(), none: "0" };
            let file = (Controller::NetPrio, &["net_prio.ifpriomap"][..]);
            self.add_v1(&field, value.clone(), file, value, form)?;
        }
        Ok(())
    }
}
