//! What a container uses, in the shape that engines read of runc's `events`. What a hierarchy does not
//! count is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_runtime::record::CgroupVersion;
use serde_json::{Map, Value as Json, json};

use crate::cgroup::{Cgroup, Controller, numbers};

/// Nanoseconds of one tick of `cpuacct.stat` (`USER_HZ` is 100 on every Linux).
const TICK_NS: u64 = 10_000_000;

/// The figures of now.
pub fn stats(cgroup: &Cgroup) -> Json {
    let at = |controller| cgroup.directory(controller);
    let file = |controller, name: &str| at(controller).map(|path| path.join(name));
    let of = |controller, read: fn(&Path) -> Json| at(controller).map_or(json!({}), |at| read(&at));
    let (mut cpu, mut memory, mut block) = match cgroup.version() {
        CgroupVersion::V1 => {
            let cpu = cpu_v1(&at(Controller::Cpuacct), &at(Controller::Cpu));
            (cpu, of(Controller::Memory, memory_v1), of(Controller::Io, block_v1))
        }
        CgroupVersion::V2 => (
            of(Controller::Cpu, cpu_v2),
            of(Controller::Memory, memory_v2),
            of(Controller::Io, block_v2),
        ),
    };
    if cgroup.version() == CgroupVersion::V2 {
        let pressures = [(&mut cpu, "cpu"), (&mut memory, "memory"), (&mut block, "io")];
        for (data, name) in pressures {
            let path = file(Controller::Cpu, &format!("{name}.pressure"));
            if let Some(psi) = path.and_then(|path| pressure(&path)) {
                data["psi"] = psi;
            }
        }
    }
    let current = file(Controller::Pids, "pids.current").and_then(|path| number(&path));
    let mut pids = json!({ "current": current.unwrap_or_default() });
    // runc leaves "no limit" out.
    if let Some(limit) = file(Controller::Pids, "pids.max").and_then(|path| number(&path)) {
        pids["limit"] = limit.into();
    }
    let mut all = json!({
        "cpu": cpu, "memory": memory, "pids": pids, "blkio": block,
        "cpuset": of(Controller::Cpuset, cpuset), "hugetlb": of(Controller::Hugetlb, hugetlb),
        "intel_rdt": {}, "network_interfaces": null,
    });
    if let Some(rdma) = at(Controller::Rdma).and_then(|path| rdma(&path)) {
        all["rdma"] = rdma;
    }
    all
}

fn cpu_v1(account: &Option<PathBuf>, cpu: &Option<PathBuf>) -> Json {
    let account = account.clone().unwrap_or_default();
    let text = fs::read_to_string(account.join("cpuacct.usage_percpu")).unwrap_or_default();
    let each: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let ticks = keyed(&account.join("cpuacct.stat"));
    let throttling = keyed(&cpu.clone().unwrap_or_default().join("cpu.stat"));
    let ticks = |name: &str| ticks.get(name).copied().unwrap_or_default() * TICK_NS;
    json!({
        "usage": {
            "total": number(&account.join("cpuacct.usage")).unwrap_or_default(),
            "percpu": each, "kernel": ticks("system"), "user": ticks("user"),
        },
        "throttling": throttled(&throttling, throttling.get("throttled_time").copied()),
    })
}

fn cpu_v2(directory: &Path) -> Json {
    let stat = keyed(&directory.join("cpu.stat"));
    let time = |name: &str| stat.get(name).copied().unwrap_or_default() * 1000;
    let throttled_ns = stat.get("throttled_usec").map(|time| time * 1000);
    json!({
        "usage": { "total": time("usage_usec"), "kernel": time("system_usec"),
            "user": time("user_usec") },
        "throttling": throttled(&stat, throttled_ns),
    })
}

fn throttled(stat: &BTreeMap<String, u64>, time: Option<u64>) -> Json {
    let count = |name: &str| stat.get(name).copied().unwrap_or_default();
    json!({ "periods": count("nr_periods"), "throttledPeriods": count("nr_throttled"),
        "throttledTime": time.unwrap_or_default() })
}

fn memory_v1(directory: &Path) -> Json {
    let counter = |prefix: &str| {
        let file = |name: &str| number(&directory.join(format!("{prefix}.{name}")));
        json!({
            "limit": file("limit_in_bytes").unwrap_or_default(),
            "usage": file("usage_in_bytes").unwrap_or_default(),
            "max": file("max_usage_in_bytes").unwrap_or_default(),
            "failcnt": file("failcnt").unwrap_or_default(),
        })
    };
    let raw = keyed(&directory.join("memory.stat"));
    json!({
        "cache": raw.get("cache").copied().unwrap_or_default(),
        "usage": counter("memory"), "swap": counter("memory.memsw"),
        "kernel": counter("memory.kmem"), "kernelTCP": counter("memory.kmem.tcp"), "raw": raw,
    })
}

fn memory_v2(directory: &Path) -> Json {
    let counter = |prefix: &str| {
        let file = |name: &str| number(&directory.join(format!("{prefix}.{name}")));
        json!({
            // "No limit" is the largest number, as runc has it.
            "limit": file("max").unwrap_or(u64::MAX),
            "usage": file("current").unwrap_or_default(),
            "max": file("peak").unwrap_or_default(),
            "failcnt": 0,
        })
    };
    let raw = keyed(&directory.join("memory.stat"));
    json!({ "cache": raw.get("file").copied().unwrap_or_default(), "usage": counter("memory"),
        "swap": counter("memory.swap"), "raw": raw })
}

/// One entry for each device and kind of operation: what BFQ counts where it is at work, else what the
/// throttles count.
fn block_v1(directory: &Path) -> Json {
    let rows = |name: &str| -> Vec<Json> {
        let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
        text.lines().filter_map(block_row).collect()
    };
    let counted = |name: &str| {
        let bfq = rows(&format!("blkio.bfq.{name}"));
        if bfq.is_empty() { rows(&format!("blkio.throttle.{name}")) } else { bfq }
    };
    let mut all = json!({
        "ioServiceBytesRecursive": counted("io_service_bytes_recursive"),
        "ioServicedRecursive": counted("io_serviced_recursive"),
    });
    for (field, name) in [
        ("ioQueueRecursive", "io_queued_recursive"),
        ("ioServiceTimeRecursive", "io_service_time_recursive"),
        ("ioWaitTimeRecursive", "io_wait_time_recursive"),
        ("ioMergedRecursive", "io_merged_recursive"),
        ("ioTimeRecursive", "time_recursive"),
        ("sectorsRecursive", "sectors_recursive"),
    ] {
        let counted = rows(&format!("blkio.bfq.{name}"));
        if !counted.is_empty() {
            all[field] = counted.into();
        }
    }
    all
}

/// `8:0 Read 4096`, or `8:0 4096` of what is not counted by kind (blkio-controller.rst).
fn block_row(line: &str) -> Option<Json> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (device, kind, value) = match words[..] {
        [device, kind, value] => (device, kind, value),
        [device, value] => (device, "", value),
        _ => return None,
    };
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    Some(json!({ "major": major, "minor": minor, "op": kind, "value": value.parse::<u64>().ok()? }))
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …` (cgroup-v2.rst, "io.stat").
fn block_v2(directory: &Path) -> Json {
    let text = fs::read_to_string(directory.join("io.stat")).unwrap_or_default();
    let (mut bytes, mut counts) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((device, fields)) = line.split_once(' ') else { continue };
        for field in fields.split_whitespace() {
            let Some((name, value)) = field.split_once('=') else { continue };
            let (list, word) = match name {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut counts, "Read"),
                "wios" => (&mut counts, "Write"),
                _ => continue,
            };
            list.extend(block_row(&format!("{device} {word} {value}")));
        }
    }
    json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": counts })
}

/// Processors and memory nodes, and v1's switches. v2 shows those in force where none are set.
fn cpuset(directory: &Path) -> Json {
    let mut all = Map::new();
    for name in ["cpus", "mems"] {
        let read = |name: &str| fs::read_to_string(directory.join(format!("cpuset.{name}"))).ok();
        let set = read(name).filter(|text| !text.trim().is_empty());
        if let Some(text) = set.or_else(|| read(&format!("{name}.effective"))) {
            all.insert(name.to_owned(), numbers(text.trim()).into());
        }
    }
    for name in [
        "cpu_exclusive",
        "mem_exclusive",
        "mem_hardwall",
        "memory_migrate",
        "memory_pressure",
        "memory_spread_page",
        "memory_spread_slab",
        "sched_load_balance",
    ] {
        if let Some(value) = number(&directory.join(format!("cpuset.{name}"))) {
            all.insert(name.to_owned(), value.into());
        }
    }
    let level = fs::read_to_string(directory.join("cpuset.sched_relax_domain_level"));
    if let Some(level) = level.ok().and_then(|text| text.trim().parse::<i64>().ok()) {
        all.insert("sched_relax_domain_level".to_owned(), level.into());
    }
    all.into()
}

/// For each size of huge pages that the kernel counts, on v1 (`limit_in_bytes`) and v2 (`max`).
fn hugetlb(directory: &Path) -> Json {
    let mut all = Map::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(size) = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")) else {
            continue;
        };
        let Some((size, "limit_in_bytes" | "max")) = size.split_once('.') else { continue };
        let of = |name: &str| number(&directory.join(format!("hugetlb.{size}.{name}")));
        let events = keyed(&directory.join(format!("hugetlb.{size}.events")));
        let failed = of("failcnt").or(events.get("max").copied());
        let counter = json!({
            "usage": of("usage_in_bytes").or(of("current")).unwrap_or_default(),
            "max": of("max_usage_in_bytes").unwrap_or_default(),
            "failcnt": failed.unwrap_or_default(),
        });
        all.insert(size.to_owned(), counter);
    }
    all.into()
}

/// `mlx5_0 hca_handle=2 hca_object=max` for each device, in use and at most (rdma.rst).
fn rdma(directory: &Path) -> Option<Json> {
    let rows = |name: &str| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        let row = |line: &str| {
            let (device, fields) = line.split_once(' ')?;
            let of = |name: &str| {
                let value = fields.split(' ').find_map(|field| field.strip_prefix(name))?;
                // "max" is the largest number, as runc has it.
                Some(value.parse::<u32>().unwrap_or(u32::MAX))
            };
            Some(json!({ "device": device, "hcaHandles": of("hca_handle=")?,
                "hcaObjects": of("hca_object=")? }))
        };
        Some(text.lines().filter_map(row).collect::<Vec<_>>())
    };
    Some(json!({ "current": rows("rdma.current")?, "limit": rows("rdma.max")? }))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same of `full` (psi.rst).
fn pressure(path: &Path) -> Option<Json> {
    let text = fs::read_to_string(path).ok()?;
    let mut all = Map::new();
    for line in text.lines() {
        let (kind, fields) = line.split_once(' ')?;
        let mut values = Map::new();
        for field in fields.split(' ') {
            let (name, value) = field.split_once('=')?;
            let value = match value.parse::<u64>() {
                Ok(number) => Json::from(number),
                Err(_) => Json::from(value.parse::<f64>().ok()?),
            };
            values.insert(name.to_owned(), value);
        }
        all.insert(kind.to_owned(), values.into());
    }
    Some(all.into())
}

/// The number that is all of a file; nothing where the file is not or says `max`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The numbers of a file of `name value` lines.
fn keyed(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let row = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with files of given texts, removed at the end of the test.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let path =
                std::env::temp_dir().join(format!("berth-stats-{}-{name}", std::process::id()));
            fs::create_dir(&path).expect("make a directory");
            for (name, text) in files {
                fs::write(path.join(name), text).expect("write a file");
            }
            Self(path)
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("remove the directory");
        }
    }

    #[test]
    fn pressure_is_read_line_by_line() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let files = Files::new("psi", &[("cpu.pressure", text)]);
        let psi = pressure(&files.0.join("cpu.pressure")).expect("it is understood");
        assert_eq!((&psi["some"]["avg10"], &psi["some"]["total"]), (&json!(1.5), &json!(77)));
        assert_eq!(psi["full"]["total"], 0);
        assert_eq!(pressure(&files.0.join("io.pressure")), None);
    }

    #[test]
    fn huge_pages_are_counted_on_both_layouts() {
        let files = Files::new(
            "hugetlb",
            &[
                ("hugetlb.2MB.limit_in_bytes", "4194304\n"),
                ("hugetlb.2MB.usage_in_bytes", "2097152\n"),
                ("hugetlb.2MB.max_usage_in_bytes", "4194304\n"),
                ("hugetlb.2MB.failcnt", "3\n"),
                ("hugetlb.2MB.rsvd.limit_in_bytes", "0\n"),
                ("hugetlb.1GB.max", "max\n"),
                ("hugetlb.1GB.current", "1073741824\n"),
                ("hugetlb.1GB.events", "max 2\n"),
            ],
        );
        let expected = json!({
            "2MB": { "usage": 2_097_152, "max": 4_194_304, "failcnt": 3 },
            "1GB": { "usage": 1 << 30, "max": 0, "failcnt": 2 },
        });
        assert_eq!(hugetlb(&files.0), expected);
    }

    #[test]
    fn rdma_devices_have_what_they_use_and_may() {
        let files = Files::new(
            "rdma",
            &[
                ("rdma.current", "mlx5_0 hca_handle=1 hca_object=20\n"),
                ("rdma.max", "mlx5_0 hca_handle=2 hca_object=max\n"),
            ],
        );
        let stats = rdma(&files.0).expect("the controller is there");
        assert_eq!(stats["current"][0]["hcaObjects"], 20);
        let limit = json!({ "device": "mlx5_0", "hcaHandles": 2, "hcaObjects": u32::MAX });
        assert_eq!(stats["limit"][0], limit);
    }
}
