//! A container's processes, from procfs: host pids become those of the container's own namespace, host
//! uids those inside its range. All text is the container's and is bounded.

use std::fs::File;
use std::io::Read as _;

use berth_runtime::config::RANGE_IDS;
use berth_runtime::wire::ProcessInfo;

use crate::process;

/// Processes shown at most.
const PROCESSES_MAX: usize = 128;
/// Bytes of a command line at most.
const COMMAND_BYTES_MAX: usize = 512;
/// Bytes of `/proc/<pid>/status` at most.
const STATUS_BYTES_MAX: u64 = 16 * 1024;

/// The processes behind `pids`, and whether some were left out. One that ends while it is looked at is
/// passed over.
pub(crate) fn processes(pids: &[i32], first_id: u32) -> (Vec<ProcessInfo>, bool) {
    let truncated = pids.len() > PROCESSES_MAX;
    let shown = &pids[..pids.len().min(PROCESSES_MAX)];
    let statuses: Vec<(i32, Status)> =
        shown.iter().filter_map(|pid| Some((*pid, Status::read(*pid)?))).collect();
    let inside = |host: i32| statuses.iter().find(|(pid, _)| *pid == host).map(|(_, s)| s.pid);
    let list = statuses
        .iter()
        .filter_map(|(host, status)| {
            let parent = inside(status.parent).unwrap_or(0);
            info(*host, status, parent, first_id)
        })
        .collect();
    (list, truncated)
}

fn info(host: i32, status: &Status, parent: i32, first_id: u32) -> Option<ProcessInfo> {
    let stat = process::read_stat(host).ok()?;
    let ticks = ticks_per_second();
    let age = boot_seconds() - stat.start_ticks as f64 / ticks;
    Some(ProcessInfo {
        pid: status.pid,
        parent,
        // An id outside the range can only be the overflow id of an unmapped one.
        uid: status.uid.checked_sub(first_id).filter(|uid| *uid < RANGE_IDS).unwrap_or(65_534),
        state: stat.state,
        cpu_seconds: stat.cpu_ticks as f64 / ticks,
        memory_bytes: stat.resident_pages.saturating_mul(page_bytes()),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds since boot, not below zero"
        )]
        age_seconds: age.max(0.0) as u64,
        command: command(host, &status.name),
    })
}

/// What `/proc/<pid>/status` says, in part.
struct Status {
    name: String,
    /// The id in the innermost namespace.
    pid: i32,
    parent: i32,
    uid: u32,
}

impl Status {
    fn read(host: i32) -> Option<Self> {
        let text = read(&format!("/proc/{host}/status"), STATUS_BYTES_MAX)?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        Some(Self {
            name: field("Name")?.to_owned(),
            pid: field("NSpid")?.split_whitespace().next_back()?.parse().ok()?,
            parent: field("PPid")?.parse().ok()?,
            uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        })
    }
}

fn command(host: i32, name: &str) -> String {
    let bytes =
        read(&format!("/proc/{host}/cmdline"), COMMAND_BYTES_MAX as u64).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.trim_end_matches('\0').replace('\0', " ");
    // Kernel convention for a process without one: a zombie, mostly.
    if line.is_empty() { format!("[{name}]") } else { line }
}

fn read(path: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn setting(name: nix::unistd::SysconfVar, usual: u32) -> u32 {
    let value = nix::unistd::sysconf(name).ok().flatten();
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(usual)
}

fn ticks_per_second() -> f64 {
    setting(nix::unistd::SysconfVar::CLK_TCK, 100).into()
}

fn page_bytes() -> u64 {
    setting(nix::unistd::SysconfVar::PAGE_SIZE, 4096).into()
}

/// Seconds since boot, sleep included, as start times are counted.
fn boot_seconds() -> f64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0.0, |now| now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_pid_and_the_effective_uid_are_taken() {
        let text = "Name:\tsh (x)\nPid:\t900\nPPid:\t800\nUid:\t5\t7\t8\t9\nNSpid:\t900\t30\t1\n";
        let status = Status::parse(text).expect("all fields are there");
        assert_eq!((status.pid, status.parent, status.uid), (1, 800, 7));
        assert_eq!(status.name, "sh (x)");
    }

    #[test]
    fn this_process_is_shown() {
        let own = nix::unistd::getpid().as_raw();
        let (list, truncated) = processes(&[own, -1], nix::unistd::geteuid().as_raw());
        assert!(!truncated);
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].uid, 0);
        assert!(list[0].memory_bytes > 0);
    }
}
