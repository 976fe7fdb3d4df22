//! Processes known beyond doubt: by pid, start time and boot, and signalled through a descriptor.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::files::FileError;
use crate::sys::pidfd;

/// A process that no other can be taken for (proc_pid_stat(5), field 22, and the boot's id).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessKey {
    /// Its id on the host.
    pub(crate) pid: i32,
    /// Clock ticks since boot at its start.
    pub(crate) start_ticks: u64,
    /// Which boot.
    pub(crate) boot_id: String,
}

impl ProcessKey {
    /// This process.
    pub(crate) fn own(boot_id: &str) -> Result<Self, FileError> {
        let pid = nix::unistd::getpid().as_raw();
        let start_ticks = start_ticks(pid)?;
        Ok(Self { pid, start_ticks, boot_id: boot_id.to_owned() })
    }

    /// A descriptor of the process, if it is still the same one and has not ended.
    pub(crate) fn open(&self, boot_id: &str) -> Option<OwnedFd> {
        if self.boot_id != boot_id || self.pid <= 0 {
            return None;
        }
        let descriptor = pidfd::open(nix::unistd::Pid::from_raw(self.pid)).ok()?;
        // Looked at after the descriptor is held: from here on the pid cannot become another's.
        let stat = read_stat(self.pid).ok()?;
        let alive = !matches!(stat.state, 'Z' | 'X');
        (alive && stat.start_ticks == self.start_ticks).then_some(descriptor)
    }
}

/// What `/proc/<pid>/stat` says, in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One letter.
    pub(crate) state: char,
    /// The id of its session's leader.
    pub(crate) session: u64,
    /// Clock ticks of processor time in user and kernel mode.
    pub(crate) cpu_ticks: u64,
    /// Clock ticks since boot at its start.
    pub(crate) start_ticks: u64,
    /// Resident pages.
    pub(crate) resident_pages: u64,
}

/// Reads `/proc/<pid>/stat`.
pub(crate) fn read_stat(pid: i32) -> Result<Stat, FileError> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read(&path).map_err(FileError::io("read", path.as_str()))?;
    parse_stat(&String::from_utf8_lossy(&text)).ok_or_else(|| FileError::Content {
        object: path,
        reason: "not of the form in proc_pid_stat(5)".into(),
    })
}

/// The start time of a process.
pub(crate) fn start_ticks(pid: i32) -> Result<u64, FileError> {
    Ok(read_stat(pid)?.start_ticks)
}

/// The name in parentheses may hold anything, parentheses and spaces included: fields are counted
/// from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        session: number(6)?,
        cpu_ticks: number(14)? + number(15)?,
        start_ticks: number(22)?,
        resident_pages: number(24)?,
    })
}

/// This boot's id.
pub(crate) fn boot_id() -> Result<String, FileError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(FileError::io("read", path))?;
    Ok(text.trim().to_owned())
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By exit(2) with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is not our child, or somebody else has waited for it.
    Unknown,
}

/// Reaps the child behind `pidfd`, which has ended.
pub(crate) fn reap(pidfd: impl AsFd) -> Ended {
    loop {
        return match pidfd::wait(&pidfd) {
            Ok(ended) => ended,
            Err(Errno::EINTR) => continue,
            Err(_) => Ended::Unknown,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_does_not_shift_them() {
        let text =
            "42 (a) S 1 (x) R 7 42 42 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 1 0 9876 1000 55 0";
        let expected =
            Stat { state: 'R', session: 42, cpu_ticks: 33, start_ticks: 9876, resident_pages: 55 };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("42 (cut"), None);
        assert_eq!(parse_stat("42 (cut) S 1 2"), None);
    }

    #[test]
    fn a_process_of_another_start_or_boot_is_never_opened() {
        let boot = boot_id().expect("procfs is there");
        let own = ProcessKey::own(&boot).expect("procfs is there");
        assert!(own.open(&boot).is_some());
        assert!(own.open("another").is_none());
        let reused = ProcessKey { start_ticks: own.start_ticks + 1, ..own };
        assert!(reused.open(&boot).is_none());
    }
}
