//! The most memory that processes of an instance have had, children of its supervisor included.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use system_tests::TestServer;

/// What none of them may pass, in MiB.
pub(crate) const MEMORY_MIB_MAX: u64 = 256;

/// Looks at an instance's processes until it is asked.
pub(crate) struct Memory {
    stop: Arc<AtomicBool>,
    unpackers: Arc<AtomicU64>,
    seen: Arc<Mutex<HashSet<u32>>>,
    roots: [u32; 2],
    watcher: JoinHandle<()>,
}

impl Memory {
    pub(crate) fn watch(server: &TestServer) -> Self {
        let roots = [server.server_pid(), server.supervisor_pid()].map(|pid| pid.expect("it runs"));
        let (stop, unpackers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let seen = Arc::<Mutex<HashSet<u32>>>::default();
        let (ended, most, known) = (Arc::clone(&stop), Arc::clone(&unpackers), Arc::clone(&seen));
        let watcher = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let mut todo = children(roots[1]);
                while let Some(pid) = todo.pop() {
                    todo.extend(children(pid));
                    // One that has just been cloned is still what its parent is.
                    most.fetch_max(peak(pid), Ordering::Relaxed);
                    known.lock().expect("the pids").insert(pid);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, unpackers, seen, roots, watcher }
    }

    /// The peaks in MiB: server, supervisor, the largest of its children; and how many those were.
    pub(crate) fn peaks(self) -> ([u64; 3], usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher");
        let count = self.seen.lock().expect("the pids").len();
        let [server, supervisor] = self.roots.map(peak);
        let all = [server, supervisor, self.unpackers.load(Ordering::Relaxed)];
        (all.map(|kib| kib / 1024), count)
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// `VmHWM`, in KiB; 0 when it has gone.
fn peak(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
