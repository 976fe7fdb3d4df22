//! What a container uses, read from the kernel's own files at the moment of asking.
//!
//! The files are world-readable, so no privilege and no supervisor is needed. Nothing is kept here:
//! a rate is made from two samples by whoever holds both. Kernel: cgroup-v2.rst; for v1
//! cgroup-v1/{memory,cpuacct,blkio-controller,pids}.rst.

use std::io;
use std::path::{Path, PathBuf};

use berth_runtime::record::{CgroupPaths, CgroupVersion};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Time;

/// Where cgroup file systems are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// One look at the kernel's counters; sums since the container's start.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ContainerStats)]
pub struct Sample {
    /// When it was taken.
    pub time: Time,
    /// The processor.
    pub cpu: CpuUse,
    /// The memory.
    pub memory: MemoryUse,
    /// Processes and threads now.
    pub pids: u64,
    /// Block devices.
    pub io: IoUse,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct CpuUse {
    /// Time used, in microseconds.
    pub usage_usec: u64,
    /// Thousandths of a core used since the stream's sample before; absent in a single sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_millis: Option<u64>,
    /// Enforcement periods that have passed while it wanted to run.
    pub periods: u64,
    /// Those in which it was held back by its limit.
    pub throttled_periods: u64,
    /// Time for which it was held back, in microseconds.
    pub throttled_usec: u64,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct MemoryUse {
    /// All that counts to the limit, page cache included.
    pub used_bytes: u64,
    /// What cannot be taken back easily: used less the inactive page cache.
    pub working_set_bytes: u64,
    /// The page cache's part.
    pub cache_bytes: u64,
    /// Swapped out; absent when the kernel does not count it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
}

/// Block device traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct IoUse {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
}

/// What a cgroup holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Memory, page cache included.
    pub memory_bytes: u64,
    /// Swap.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Reads the counters of the container whose cgroup is at `paths`.
pub fn read(paths: &CgroupPaths) -> io::Result<Sample> {
    read_below(Path::new(CGROUP_ROOT), paths)
}

/// The processor time used so far in the cgroup at `paths`, in microseconds.
pub fn cpu_usec(paths: &CgroupPaths) -> io::Result<u64> {
    let root = Path::new(CGROUP_ROOT);
    match paths.version {
        CgroupVersion::V2 => {
            let stat = std::fs::read_to_string(directory(root, &paths.cpu)?.join("cpu.stat"))?;
            Ok(field(&stat, "usage_usec").unwrap_or(0))
        }
        CgroupVersion::V1 => {
            Ok(number(&directory(root, &paths.cpuacct)?.join("cpuacct.usage"))? / 1000)
        }
    }
}

/// Memory, swap and processes now in the cgroup at `paths`: the three figures that a sum is made of,
/// without the kernel's longer files.
pub fn held(paths: &CgroupPaths) -> io::Result<Held> {
    let root = Path::new(CGROUP_ROOT);
    let memory = directory(root, &paths.memory)?;
    let (memory_bytes, swap_bytes) = match paths.version {
        CgroupVersion::V2 => {
            let swap = number(&memory.join("memory.swap.current")).unwrap_or(0);
            (number(&memory.join("memory.current"))?, swap)
        }
        CgroupVersion::V1 => {
            let used = number(&memory.join("memory.usage_in_bytes"))?;
            // memsw counts memory and swap together.
            let both = number(&memory.join("memory.memsw.usage_in_bytes")).unwrap_or(used);
            (used, both.saturating_sub(used))
        }
    };
    let pids = number(&directory(root, &paths.pids)?.join("pids.current"))?;
    Ok(Held { memory_bytes, swap_bytes, pids })
}

/// Bytes of memory in the cgroup at `paths`, and in those below, that have no file on disk behind them: without
/// swap the kernel cannot take them back.
pub fn kept_bytes(paths: &CgroupPaths) -> io::Result<u64> {
    let memory = directory(Path::new(CGROUP_ROOT), &paths.memory)?;
    let stat = std::fs::read_to_string(memory.join("memory.stat"))?;
    let kept: &[&str] = match paths.version {
        CgroupVersion::V2 => {
            &["anon", "shmem", "slab_unreclaimable", "kernel_stack", "pagetables", "percpu", "sock"]
        }
        CgroupVersion::V1 => &["total_rss", "total_shmem"],
    };
    Ok(kept.iter().filter_map(|name| field(&stat, name)).sum())
}

/// The cgroup that `paths` lies in: all of its owner's containers, those that have ended too.
pub fn parent(paths: &CgroupPaths) -> CgroupPaths {
    let up = |path: &String| path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    CgroupPaths {
        version: paths.version,
        cpu: up(&paths.cpu),
        cpuacct: up(&paths.cpuacct),
        memory: up(&paths.memory),
        pids: up(&paths.pids),
        io: up(&paths.io),
    }
}

impl Sample {
    /// Fills in the rate since `before`.
    pub fn since(mut self, before: &Self) -> Self {
        let elapsed_ms = u64::try_from(self.time.0 - before.time.0).unwrap_or(0);
        let used_usec = self.cpu.usage_usec.saturating_sub(before.cpu.usage_usec);
        // Microseconds per millisecond are thousandths of a core.
        self.cpu.used_millis = used_usec.checked_div(elapsed_ms);
        self
    }
}

fn read_below(root: &Path, paths: &CgroupPaths) -> io::Result<Sample> {
    let (cpu, memory, io) = match paths.version {
        CgroupVersion::V2 => (cpu_v2(root, paths)?, memory_v2(root, paths)?, io_v2(root, paths)),
        CgroupVersion::V1 => (cpu_v1(root, paths)?, memory_v1(root, paths)?, io_v1(root, paths)),
    };
    let pids = number(&directory(root, &paths.pids)?.join("pids.current"))?;
    Ok(Sample { time: Time::now(), cpu, memory, pids, io })
}

fn cpu_v2(root: &Path, paths: &CgroupPaths) -> io::Result<CpuUse> {
    let stat = std::fs::read_to_string(directory(root, &paths.cpu)?.join("cpu.stat"))?;
    Ok(CpuUse {
        usage_usec: field(&stat, "usage_usec").unwrap_or(0),
        used_millis: None,
        periods: field(&stat, "nr_periods").unwrap_or(0),
        throttled_periods: field(&stat, "nr_throttled").unwrap_or(0),
        throttled_usec: field(&stat, "throttled_usec").unwrap_or(0),
    })
}

fn cpu_v1(root: &Path, paths: &CgroupPaths) -> io::Result<CpuUse> {
    let usage_ns = number(&directory(root, &paths.cpuacct)?.join("cpuacct.usage"))?;
    let stat = std::fs::read_to_string(directory(root, &paths.cpu)?.join("cpu.stat"))?;
    Ok(CpuUse {
        usage_usec: usage_ns / 1000,
        used_millis: None,
        periods: field(&stat, "nr_periods").unwrap_or(0),
        throttled_periods: field(&stat, "nr_throttled").unwrap_or(0),
        throttled_usec: field(&stat, "throttled_time").unwrap_or(0) / 1000,
    })
}

fn memory_v2(root: &Path, paths: &CgroupPaths) -> io::Result<MemoryUse> {
    let directory = directory(root, &paths.memory)?;
    let used_bytes = number(&directory.join("memory.current"))?;
    let stat = std::fs::read_to_string(directory.join("memory.stat"))?;
    let inactive = field(&stat, "inactive_file").unwrap_or(0);
    Ok(MemoryUse {
        used_bytes,
        working_set_bytes: used_bytes.saturating_sub(inactive),
        cache_bytes: field(&stat, "file").unwrap_or(0),
        swap_bytes: number(&directory.join("memory.swap.current")).ok(),
    })
}

fn memory_v1(root: &Path, paths: &CgroupPaths) -> io::Result<MemoryUse> {
    let directory = directory(root, &paths.memory)?;
    let used_bytes = number(&directory.join("memory.usage_in_bytes"))?;
    let stat = std::fs::read_to_string(directory.join("memory.stat"))?;
    let inactive = field(&stat, "total_inactive_file").unwrap_or(0);
    let swap = number(&directory.join("memory.memsw.usage_in_bytes")).ok();
    Ok(MemoryUse {
        used_bytes,
        working_set_bytes: used_bytes.saturating_sub(inactive),
        cache_bytes: field(&stat, "total_cache").unwrap_or(0),
        // memsw counts memory and swap together.
        swap_bytes: swap.map(|both| both.saturating_sub(used_bytes)),
    })
}

/// Block traffic; the controller may be missing, which is no reason to show nothing else.
fn io_v2(root: &Path, paths: &CgroupPaths) -> IoUse {
    let text = directory(root, &paths.io)
        .and_then(|directory| std::fs::read_to_string(directory.join("io.stat")))
        .unwrap_or_default();
    let sum = |name: &str| {
        let words = text.split_whitespace().filter_map(|word| word.split_once('='));
        words.filter(|(key, _)| *key == name).filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
    };
    IoUse {
        read_bytes: sum("rbytes"),
        write_bytes: sum("wbytes"),
        read_ops: sum("rios"),
        write_ops: sum("wios"),
    }
}

fn io_v1(root: &Path, paths: &CgroupPaths) -> IoUse {
    let sum = |file: &str, operation: &str| -> u64 {
        let text = directory(root, &paths.io)
            .and_then(|directory| std::fs::read_to_string(directory.join(file)))
            .unwrap_or_default();
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // `8:0 Read 4096` each; the closing `Total` line has two words.
        lines
            .filter(|words| words.len() == 3 && words[1] == operation)
            .filter_map(|words| words[2].parse::<u64>().ok())
            .sum()
    };
    IoUse {
        read_bytes: sum("blkio.throttle.io_service_bytes", "Read"),
        write_bytes: sum("blkio.throttle.io_service_bytes", "Write"),
        read_ops: sum("blkio.throttle.io_serviced", "Read"),
        write_ops: sum("blkio.throttle.io_serviced", "Write"),
    }
}

/// The directory that the record names, which must lie below `root`: the record is the
/// supervisor's, but a defect there must not make the server read other files.
fn directory(root: &Path, named: &str) -> io::Result<PathBuf> {
    let relative = named.strip_prefix(CGROUP_ROOT).unwrap_or(named).trim_start_matches('/');
    if relative.is_empty() || relative.split('/').any(|part| part == "..") {
        return Err(io::Error::other(format!("{named:?} is no cgroup directory")));
    }
    Ok(root.join(relative))
}

fn number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| {
        io::Error::other(format!("{} holds {:?}, no number", path.display(), text.trim()))
    })
}

/// The value of `name` in lines of `name value`.
fn field(text: &str, name: &str) -> Option<u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("berth-stats-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        root
    }

    fn paths(version: CgroupVersion, prefix: [&str; 5]) -> CgroupPaths {
        let [cpu, cpuacct, memory, pids, io] = prefix.map(|name| format!("{name}/c1"));
        CgroupPaths { version, cpu, cpuacct, memory, pids, io }
    }

    #[test]
    fn unified_counters_are_read() {
        let root = tree(
            "v2",
            &[
                (
                    "b/c1/cpu.stat",
                    "usage_usec 1500\nuser_usec 1000\nnr_periods 9\nnr_throttled 2\nthrottled_usec 77\n",
                ),
                ("b/c1/memory.current", "5000\n"),
                ("b/c1/memory.stat", "anon 10\nfile 3000\ninactive_file 2000\n"),
                ("b/c1/memory.swap.current", "64\n"),
                ("b/c1/pids.current", "3\n"),
                (
                    "b/c1/io.stat",
                    "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5\n",
                ),
            ],
        );
        let sample = read_below(&root, &paths(CgroupVersion::V2, ["b"; 5])).expect("sample");
        assert_eq!((sample.cpu.usage_usec, sample.cpu.throttled_usec), (1500, 77));
        assert_eq!((sample.cpu.periods, sample.cpu.throttled_periods), (9, 2));
        assert_eq!((sample.memory.used_bytes, sample.memory.working_set_bytes), (5000, 3000));
        assert_eq!((sample.memory.cache_bytes, sample.memory.swap_bytes), (3000, Some(64)));
        let io = IoUse { read_bytes: 15, write_bytes: 20, read_ops: 1, write_ops: 2 };
        assert_eq!((sample.pids, sample.io), (3, io));
        std::fs::remove_dir_all(root).expect("remove");
    }

    #[test]
    fn v1_counters_are_read_in_the_same_units() {
        let root = tree(
            "v1",
            &[
                ("cpu/c1/cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 5000\n"),
                ("acct/c1/cpuacct.usage", "2500000\n"),
                ("mem/c1/memory.usage_in_bytes", "900\n"),
                ("mem/c1/memory.memsw.usage_in_bytes", "1000\n"),
                ("mem/c1/memory.stat", "cache 1\ntotal_cache 300\ntotal_inactive_file 200\n"),
                ("pids/c1/pids.current", "2\n"),
                ("io/c1/blkio.throttle.io_service_bytes", "8:0 Read 7\n8:0 Write 9\nTotal 16\n"),
            ],
        );
        let layout = ["cpu", "acct", "mem", "pids", "io"];
        let sample = read_below(&root, &paths(CgroupVersion::V1, layout)).expect("sample");
        assert_eq!((sample.cpu.usage_usec, sample.cpu.throttled_usec), (2500, 5));
        assert_eq!((sample.memory.working_set_bytes, sample.memory.swap_bytes), (700, Some(100)));
        assert_eq!((sample.io.read_bytes, sample.io.write_bytes), (7, 9));
        std::fs::remove_dir_all(root).expect("remove");
    }

    #[test]
    fn a_rate_is_thousandths_of_a_core() {
        let at = |ms, usage_usec| Sample {
            time: Time(ms),
            cpu: CpuUse { usage_usec, ..CpuUse::default() },
            memory: MemoryUse::default(),
            pids: 1,
            io: IoUse::default(),
        };
        let rate = |before: Sample, after: Sample| after.since(&before).cpu.used_millis;
        assert_eq!(rate(at(0, 0), at(1000, 500_000)), Some(500));
        assert_eq!(rate(at(5, 0), at(5, 10)), None);
    }

    #[test]
    fn a_record_cannot_lead_out_of_the_cgroup_file_system() {
        let root = Path::new("/x");
        assert!(directory(root, "/sys/fs/cgroup/../../etc").is_err());
        assert!(directory(root, "").is_err());
        assert_eq!(directory(root, "/sys/fs/cgroup/a/b").expect("below"), Path::new("/x/a/b"));
        assert_eq!(directory(root, "a").expect("below"), Path::new("/x/a"));
    }
}
