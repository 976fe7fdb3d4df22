//! What the whole machine has and uses, from the kernel's own files, which anybody may read.
//!
//! Kernel: proc_stat(5), proc_meminfo(5), proc_loadavg(5), accounting/psi.rst. What a kernel does not
//! have is absent, never made up.

use std::io;
use std::path::Path;

use serde::Serialize;
use utoipa::ToSchema;

/// One look at the machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Processor time used by everything on it since its start.
    pub cpu_usec: u64,
    /// Logical processors.
    pub cpus: u32,
    /// Its load.
    pub load: Load,
    /// Memory and swap.
    pub memory: MachineMemory,
    /// Time since its start.
    pub uptime_secs: u64,
    /// How long work waited; absent when the kernel does not count it.
    pub pressure: Option<Pressure>,
}

/// Tasks that run or wait to run, or wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Load {
    /// On average over the last minute.
    pub minutes_1: f64,
    /// Over five minutes.
    pub minutes_5: f64,
    /// Over fifteen minutes.
    pub minutes_15: f64,
}

/// The machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct MachineMemory {
    /// All of it.
    pub total_bytes: u64,
    /// What could not be given to a new program without swapping: total less available.
    pub used_bytes: u64,
    /// Swap, all of it.
    pub swap_total_bytes: u64,
    /// Swap in use.
    pub swap_used_bytes: u64,
}

/// For what share of time work stood still for want of something (the kernel's PSI).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Pressure {
    /// For want of a processor.
    pub cpu: PressureOf,
    /// For want of memory.
    pub memory: PressureOf,
    /// For want of a disk.
    pub io: PressureOf,
}

/// Per cent of the time; `some`: at least one task stood still, `full`: all did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct PressureOf {
    /// Some, in the last ten seconds.
    pub some_percent_10s: f64,
    /// Some, in the last minute.
    pub some_percent_60s: f64,
    /// Some, in the last five minutes.
    pub some_percent_300s: f64,
    /// All, in the last ten seconds.
    pub full_percent_10s: f64,
    /// All, in the last minute.
    pub full_percent_60s: f64,
    /// All, in the last five minutes.
    pub full_percent_300s: f64,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Disk {
    /// All of it.
    pub total_bytes: u64,
    /// What is left for programs without privilege.
    pub available_bytes: u64,
    /// Files that can still be made.
    pub files_available: u64,
}

/// Looks at the machine.
pub fn look() -> io::Result<Machine> {
    look_below(Path::new("/proc"))
}

/// The file system that `path` is on.
pub fn disk(path: &Path) -> io::Result<Disk> {
    let found = nix::sys::statfs::statfs(path)?;
    let block = u64::try_from(found.block_size()).unwrap_or(0);
    Ok(Disk {
        total_bytes: found.blocks().saturating_mul(block),
        available_bytes: found.blocks_available().saturating_mul(block),
        files_available: found.files_free(),
    })
}

fn look_below(proc: &Path) -> io::Result<Machine> {
    let read = |name: &str| std::fs::read_to_string(proc.join(name));
    let stat = read("stat")?;
    let meminfo = read("meminfo")?;
    let pressure = |name: &str| read(&format!("pressure/{name}")).ok().map(|text| stalls(&text));
    let (cpu, memory, io) = (pressure("cpu"), pressure("memory"), pressure("io"));
    let uptime = read("uptime")?;
    Ok(Machine {
        cpu_usec: busy_usec(&stat),
        cpus: u32::try_from(stat.lines().filter(|line| is_processor(line)).count()).unwrap_or(0),
        load: load(&read("loadavg")?),
        memory: memory_of(&meminfo),
        uptime_secs: uptime.split(['.', ' ']).next().and_then(|n| n.parse().ok()).unwrap_or(0),
        pressure: match (cpu, memory, io) {
            (Some(cpu), Some(memory), Some(io)) => Some(Pressure { cpu, memory, io }),
            _ => None,
        },
    })
}

/// A line of one processor, not of all together.
fn is_processor(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// All time that was neither idle nor waiting for a disk. A tick is a hundredth of a second on every
/// architecture (USER_HZ); guests' time is part of `user` already.
fn busy_usec(stat: &str) -> u64 {
    const TICK_USEC: u64 = 10_000;
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or("");
    let ticks: Vec<u64> = all.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|index| ticks.get(index));
    busy.sum::<u64>() * TICK_USEC
}

fn memory_of(meminfo: &str) -> MachineMemory {
    let bytes = |name: &str| {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    let (total, swap) = (bytes("MemTotal"), bytes("SwapTotal"));
    MachineMemory {
        total_bytes: total,
        used_bytes: total.saturating_sub(bytes("MemAvailable")),
        swap_total_bytes: swap,
        swap_used_bytes: swap.saturating_sub(bytes("SwapFree")),
    }
}

fn load(text: &str) -> Load {
    let mut figures = text.split(' ').map(|word| word.parse().unwrap_or(0.0));
    let mut next = || figures.next().unwrap_or(0.0);
    Load { minutes_1: next(), minutes_5: next(), minutes_15: next() }
}

/// The lines `some avg10=1.50 avg60=…` and `full …` of one pressure file.
fn stalls(text: &str) -> PressureOf {
    let figure = |kind: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or("");
        let words = line.split_whitespace().filter_map(|word| word.split_once('='));
        let mut found = words.filter(|(key, _)| *key == name);
        found.next().and_then(|(_, value)| value.parse().ok()).unwrap_or(0.0)
    };
    PressureOf {
        some_percent_10s: figure("some ", "avg10"),
        some_percent_60s: figure("some ", "avg60"),
        some_percent_300s: figure("some ", "avg300"),
        full_percent_10s: figure("full ", "avg10"),
        full_percent_60s: figure("full ", "avg60"),
        full_percent_300s: figure("full ", "avg300"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "cpu  100 10 50 900 40 5 5 2 7 0\ncpu0 50 5 25 450 20 2 3 1 3 0\n\
                    cpu1 50 5 25 450 20 3 2 1 4 0\nintr 12\n";
        assert_eq!(busy_usec(stat), 172 * 10_000);
        assert_eq!(stat.lines().filter(|line| is_processor(line)).count(), 2);
        let memory = memory_of(
            "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\nSwapTotal: 64 kB\n\
             SwapFree: 60 kB\n",
        );
        assert_eq!((memory.total_bytes, memory.used_bytes), (2048 << 10, 1536 << 10));
        assert_eq!((memory.swap_total_bytes, memory.swap_used_bytes), (64 << 10, 4 << 10));
        assert_eq!(load("0.50 1.25 2.00 1/99 7\n").minutes_5, 1.25);
        let pressure = stalls(
            "some avg10=38.07 avg60=17.27 avg300=13.97 total=84052702\n\
             full avg10=0.50 avg60=0.00 avg300=0.00 total=0\n",
        );
        assert_eq!((pressure.some_percent_10s, pressure.full_percent_10s), (38.07, 0.5));
        assert_eq!(pressure.some_percent_300s, 13.97);
        assert_eq!(stalls(""), PressureOf::default());
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let seen = look().expect("proc is mounted");
        assert!(seen.cpus > 0 && seen.memory.total_bytes > seen.memory.used_bytes, "{seen:?}");
        let disk = disk(Path::new("/")).expect("there is a root");
        assert!(disk.total_bytes >= disk.available_bytes, "{disk:?}");
    }
}
