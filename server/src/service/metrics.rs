//! What is used of what may be, as Prometheus reads it: of the machine and everybody for those who see all,
//! of oneself for others. Nothing is counted for it: it is what the lists and pages show, newest look first.
//!
//! There are at most [`CONTAINERS_MAX`] containers and as many people as [`usage`] names, so that the number
//! of series has an end; how many containers were left out is a series of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use berth_runtime::record::{ContainerRecord, Status};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::usage::{self, PersonUsage, SystemUsage};
use crate::app::App;
use crate::auth::{Caller, Visibility};
use crate::error::{Error, Result};
use crate::inventory::usage::{self as rows, Limited};

/// The media type of what [`text`] answers.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;
/// Running containers with series of their own.
const CONTAINERS_MAX: usize = 1_000;

/// The labels of one series.
type Labels = Arc<[(&'static str, String)]>;

/// Metrics by name, in the order in which they were first met.
#[derive(Debug, Default)]
struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    series: Vec<(Labels, f64)>,
}

/// All that the caller sees, in the Prometheus text format 0.0.4.
pub async fn text(app: &App, caller: &Caller) -> Result<String> {
    let mut all = Families::default();
    let version: Labels = Arc::new([("version", env!("CARGO_PKG_VERSION").to_owned())]);
    all.gauge("build", "The server, always 1", None, &version, 1.0);
    match caller.sees() {
        Visibility::Everyone => {
            let seen = usage::system(app).await?;
            machine(&mut all, &seen);
            for one in &seen.people {
                person(&mut all, one);
            }
        }
        Visibility::Only(id) => person(&mut all, &usage::of_person(app, caller, id).await?),
    }
    let db = app.inventory.read();
    let names: HashMap<_, _> = rows::names(db).await?;
    let rows = rows::containers(db, caller.sees()).await?;
    let rows: HashMap<&str, &Limited> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let live = app.containers.live();
    let seen =
        live.iter().filter_map(|record| Some((record, rows.get(record.container.as_str())?)));
    let mut left_out = 0_u32;
    for (place, (record, row)) in seen.enumerate() {
        if place >= CONTAINERS_MAX {
            left_out += 1;
            continue;
        }
        let owner = names.get(&row.owner).cloned().unwrap_or_else(|| "system".to_owned());
        container(app, &mut all, record, row, owner);
    }
    let help = "Running containers without series of their own, since there are too many";
    all.gauge("containers_left_out", help, None, &none(), f64::from(left_out));
    let mut registry = Registry::with_prefix("berth");
    registry.register_collector(Box::new(all));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)
        .map_err(|source| Error::broken("write the metrics", source))?;
    Ok(text)
}

fn none() -> Labels {
    Arc::new([])
}

fn machine(all: &mut Families, seen: &SystemUsage) {
    let machine = &seen.machine;
    let label = |name, value: &str| -> Labels { Arc::new([(name, value.to_owned())]) };
    let bytes = |count: u64| (Some(Unit::Bytes), count as f64);
    let cpus = f64::from(machine.cpus);
    all.gauge("machine_cpus", "Logical processors", None, &none(), cpus);
    let help = "Cores that everything on the machine uses";
    all.gauge("machine_cpu_cores_used", help, None, &none(), millis(machine.cpu_used_millis));
    for (minutes, load) in [
        ("1", machine.load.minutes_1),
        ("5", machine.load.minutes_5),
        ("15", machine.load.minutes_15),
    ] {
        let help = "Tasks that run or wait, on average over so many minutes";
        all.gauge("machine_load", help, None, &label("minutes", minutes), load);
    }
    let memory = &machine.memory;
    let mut sizes = vec![
        ("machine_memory", "Memory of the machine", memory.total_bytes),
        ("machine_memory_used", "Memory that no new program could have", memory.used_bytes),
        ("machine_swap", "Swap of the machine", memory.swap_total_bytes),
        ("machine_swap_used", "Swap in use", memory.swap_used_bytes),
        ("images", "Layers of all images on disk, each once", seen.images.bytes),
    ];
    if let Some(disk) = &machine.disk {
        sizes.push(("disk", "The file system of images and containers", disk.total_bytes));
        sizes.push(("disk_available", "What is left of it", disk.available_bytes));
    }
    for (name, help, size) in sizes {
        let (unit, value) = bytes(size);
        all.gauge(name, help, unit, &none(), value);
    }
    let Some(pressure) = &machine.pressure else { return };
    for (of, stalls) in [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)] {
        for (who, percent) in [("some", stalls.some_percent_60s), ("full", stalls.full_percent_60s)]
        {
            let labels: Labels = Arc::new([("of", of.to_owned()), ("tasks", who.to_owned())]);
            let help = "Share of the last minute in which tasks stood still for want of it";
            all.gauge("machine_pressure", help, Some(Unit::Ratios), &labels, percent / 100.0);
        }
    }
}

fn person(all: &mut Families, one: &PersonUsage) {
    let usage = &one.usage;
    let labels: Labels = Arc::new([("person", one.person.name.clone())]);
    let state = |word: &str| -> Labels {
        Arc::new([("person", one.person.name.clone()), ("state", word.to_owned())])
    };
    let help = "A person's containers";
    all.gauge("person_containers", help, None, &state("running"), count(usage.containers.running));
    all.gauge("person_containers", help, None, &state("all"), count(usage.containers.total));
    let help = "Cores that a person's containers use";
    all.gauge("person_cpu_cores_used", help, None, &labels, millis(usage.cpu.used_millis));
    let help = "Processes and threads of a person's containers";
    all.gauge("person_pids", help, None, &labels, count(usage.pids.used));
    all.gauge("person_images", "A person's images", None, &labels, count(usage.images.count));
    for (name, help, size) in [
        ("person_memory", "Memory of a person's containers", usage.memory.used_bytes),
        ("person_swap", "Swap of a person's containers", usage.memory.swap_used_bytes),
        ("person_image", "Layers of a person's images, each once", usage.images.bytes),
    ] {
        all.gauge(name, help, Some(Unit::Bytes), &labels, count(size));
    }
    // Where there is no bound there is no series: no number would be true.
    let may = &usage.allowance;
    if let Some(most) = may.cpu_millis {
        let help = "Cores that a person's containers may use together";
        all.gauge("person_cpu_cores_allowed", help, None, &labels, millis(most.into()));
    }
    if let Some(most) = may.memory_bytes {
        let help = "Memory that a person's containers may use together";
        all.gauge("person_memory_allowed", help, Some(Unit::Bytes), &labels, count(most));
    }
    if let Some(most) = may.pids {
        let help = "Processes and threads that a person's containers may have together";
        all.gauge("person_pids_allowed", help, None, &labels, f64::from(most));
    }
}

fn container(
    app: &App,
    all: &mut Families,
    record: &ContainerRecord,
    row: &Limited,
    owner: String,
) {
    let Some(live) = &record.live else { return };
    let labels: Labels = Arc::new([("container", row.name.clone()), ("person", owner)]);
    let started = live.started_ms as f64 / 1000.0;
    let seconds = || Some(Unit::Seconds);
    let help = "When a container was started, since 1970";
    all.gauge("container_start_time", help, seconds(), &labels, started);
    let paused = f64::from(u8::from(record.status == Status::Paused));
    all.gauge("container_paused", "Whether a container is paused", None, &labels, paused);
    let help = "Processes of a container that the kernel has killed for memory";
    all.counter("container_oom_kills", help, None, &labels, count(live.oom_kills));
    let limits = &row.limits;
    let cores = millis(limits.cpu_millis.into());
    all.gauge("container_cpu_cores_limit", "Cores that it may use", None, &labels, cores);
    let help = "Processes and threads that it may have";
    all.gauge("container_pids_limit", help, None, &labels, f64::from(limits.pids));
    for (name, help, size) in [
        ("container_memory_limit", "Memory that it may use", limits.memory_bytes),
        ("container_swap_limit", "Swap that it may use", limits.swap_bytes),
    ] {
        all.gauge(name, help, Some(Unit::Bytes), &labels, count(size));
    }
    let Some(used) = app.history.latest(&record.container).filter(|used| used.run == record.run)
    else {
        return;
    };
    let sample = &used.sample;
    all.gauge("container_pids", "Processes and threads", None, &labels, count(sample.pids));
    let time = |usec: u64| count(usec) / 1e6;
    for (name, help, usec) in [
        ("container_cpu", "Processor time used", sample.cpu.usage_usec),
        ("container_cpu_throttled", "Time for which its limit held it", sample.cpu.throttled_usec),
    ] {
        all.counter(name, help, seconds(), &labels, time(usec));
    }
    let memory = &sample.memory;
    for (name, help, size) in [
        ("container_memory", "Memory, page cache included", Some(memory.used_bytes)),
        (
            "container_memory_working_set",
            "Memory less the page cache that is not in use",
            Some(memory.working_set_bytes),
        ),
        ("container_swap", "Memory that is swapped out", memory.swap_bytes),
    ] {
        if let Some(size) = size {
            all.gauge(name, help, Some(Unit::Bytes), &labels, count(size));
        }
    }
    for (name, help, size) in [
        ("container_io_read", "Read from block devices", sample.io.read_bytes),
        ("container_io_written", "Written to block devices", sample.io.write_bytes),
    ] {
        all.counter(name, help, Some(Unit::Bytes), &labels, count(size));
    }
}

/// As a metric's value is: exact up to 2^53.
fn count(value: u64) -> f64 {
    value as f64
}

fn millis(value: u64) -> f64 {
    count(value) / 1000.0
}

impl Families {
    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        labels: &Labels,
        value: f64,
    ) {
        self.add((name, help, unit, MetricType::Gauge), labels, value);
    }

    /// One that only grows, but for a container's new start.
    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        labels: &Labels,
        value: f64,
    ) {
        self.add((name, help, unit, MetricType::Counter), labels, value);
    }

    fn add(
        &mut self,
        (name, help, unit, kind): (&'static str, &'static str, Option<Unit>, MetricType),
        labels: &Labels,
        value: f64,
    ) {
        let series = (Arc::clone(labels), value);
        match self.0.iter_mut().find(|family| family.name == name) {
            Some(family) => family.series.push(series),
            None => self.0.push(Family { name, help, unit, kind, series: vec![series] }),
        }
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, unit, kind, series } in &self.0 {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, value) in series {
                let labels: &[_] = labels;
                let mut one = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => one.encode_counter::<NoLabelSet, _, u64>(value, None)?,
                    _ => one.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}
