//! `events`: what a container uses, and when it lacks memory, as lines of JSON in the shape that engines
//! read of runc. What a hierarchy does not count is left out.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_runtime::record::{CgroupPaths, CgroupVersion, Failure, Status};
use lexopt::Arg::{Long, Value};
use lexopt::ValueExt;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value as Json, json};

use crate::commands::create::absolute;
use crate::commands::lifecycle::expect;
use crate::commands::{Global, bad_usage, missing_id, print, usage};
use crate::failure::system;
use crate::state::Place;

/// Seconds between two looks, unless `--interval` says otherwise; runc's own.
const INTERVAL_SECS: u64 = 5;
/// Nanoseconds of one tick of `cpuacct.stat` (`USER_HZ` is 100 on every Linux).
const TICK_NS: u64 = 10_000_000;

/// `events`: with `--stats` once, else until the container ends.
pub fn events(mut parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let (mut id, mut once, mut interval) = (None, false, Duration::from_secs(INTERVAL_SECS));
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("stats") => once = true,
            Long("interval") => {
                let text = parser.value().and_then(|value| value.string()).map_err(usage)?;
                let seconds = text.strip_suffix('s').unwrap_or(&text).parse().unwrap_or(0);
                if seconds == 0 {
                    return Err(bad_usage(format!(
                        "--interval: {text:?} is no whole seconds above 0"
                    )));
                }
                interval = Duration::from_secs(seconds);
            }
            Value(value) if id.is_none() => id = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let place = Place::new(&absolute(&global.root)?, &id.ok_or_else(missing_id)?)?;
    let record = place.read()?;
    expect(&record, &place, &[Status::Running, Status::Created, Status::Paused])?;
    let cgroup = record.cgroup()?;
    let paths = cgroup.paths();
    if once {
        line(&record.id, "stats", Some(stats(&paths)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let init = record.open()?;
    let oom = cgroup.oom_notifier()?;
    let mut kills = cgroup.oom_kills()?;
    let mut next = Instant::now();
    loop {
        if next <= Instant::now() {
            line(&record.id, "stats", Some(stats(&paths)))?;
            next += interval;
        }
        let left = next.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        ready.extend(oom.as_ref().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
        match poll(&mut ready, timeout) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(|errno| system("wait for the container", errno))?,
        };
        let ended = ready[0].any() == Some(true);
        if let Some(oom) = oom.as_ref().filter(|_| ready.get(1).and_then(PollFd::any) == Some(true))
        {
            let mut buffer = [0; 4096];
            // Only that it is empty afterwards matters; what it says is looked up.
            while nix::unistd::read(oom, &mut buffer).is_ok_and(|length| length > 0) {}
        }
        let now = cgroup.oom_kills().unwrap_or(kills);
        if now > kills {
            kills = now;
            line(&record.id, "oom", None)?;
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn line(id: &str, kind: &str, data: Option<Json>) -> Result<(), Failure> {
    let event = match data {
        Some(data) => json!({ "type": kind, "id": id, "data": data }),
        None => json!({ "type": kind, "id": id }),
    };
    print(&format!("{event}\n"))
}

fn stats(paths: &CgroupPaths) -> Json {
    let (cpu, memory, block) = match paths.version {
        CgroupVersion::V1 => (cpu_v1(paths), memory_v1(paths), block_v1(paths)),
        CgroupVersion::V2 => (cpu_v2(paths), memory_v2(paths), block_v2(paths)),
    };
    let pids = Path::new(&paths.pids);
    let mut counted = json!({ "current": number(&pids.join("pids.current")).unwrap_or_default() });
    // runc leaves "no limit" out.
    if let Some(limit) = number(&pids.join("pids.max")) {
        counted["limit"] = limit.into();
    }
    json!({
        "cpu": cpu, "memory": memory, "pids": counted, "blkio": block, "cpuset": {}, "hugetlb": {},
        "intel_rdt": {}, "network_interfaces": null,
    })
}

fn cpu_v1(paths: &CgroupPaths) -> Json {
    let account = Path::new(&paths.cpuacct);
    let text = fs::read_to_string(account.join("cpuacct.usage_percpu")).unwrap_or_default();
    let each: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let ticks = keyed(&account.join("cpuacct.stat"));
    let throttling = keyed(&Path::new(&paths.cpu).join("cpu.stat"));
    let ticks = |name: &str| ticks.get(name).copied().unwrap_or_default() * TICK_NS;
    json!({
        "usage": {
            "total": number(&account.join("cpuacct.usage")).unwrap_or_default(),
            "percpu": each, "kernel": ticks("system"), "user": ticks("user"),
        },
        "throttling": throttled(&throttling, throttling.get("throttled_time").copied()),
    })
}

fn cpu_v2(paths: &CgroupPaths) -> Json {
    let stat = keyed(&Path::new(&paths.cpu).join("cpu.stat"));
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

fn memory_v1(paths: &CgroupPaths) -> Json {
    let directory = Path::new(&paths.memory);
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

fn memory_v2(paths: &CgroupPaths) -> Json {
    let directory = Path::new(&paths.memory);
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

/// One entry for each device and kind of operation.
fn block_v1(paths: &CgroupPaths) -> Json {
    let rows = |name: &str| -> Vec<Json> {
        let text = fs::read_to_string(Path::new(&paths.io).join(name)).unwrap_or_default();
        text.lines().filter_map(block_row).collect()
    };
    json!({
        "ioServiceBytesRecursive": rows("blkio.throttle.io_service_bytes_recursive"),
        "ioServicedRecursive": rows("blkio.throttle.io_serviced_recursive"),
    })
}

/// `8:0 Read 4096` (blkio-controller.rst).
fn block_row(line: &str) -> Option<Json> {
    let mut words = line.split_whitespace();
    let (device, kind, value) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    Some(json!({ "major": major, "minor": minor, "op": kind, "value": value.parse::<u64>().ok()? }))
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …` (cgroup-v2.rst, "io.stat").
fn block_v2(paths: &CgroupPaths) -> Json {
    let path: PathBuf = Path::new(&paths.io).join("io.stat");
    let text = fs::read_to_string(path).unwrap_or_default();
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
