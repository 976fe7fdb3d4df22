//! The program `inject` (tests/faults/inject.rs) beside the processes that it traces.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::programs;

/// How long an operation and its fault may take.
const LIMIT: Duration = Duration::from_secs(120);

/// One fault that waits for its call.
pub struct Injector {
    child: Child,
    lines: Receiver<String>,
}

/// What became of a fault.
pub enum Struck {
    /// It struck this call of this process.
    Call {
        /// The call's name, its process's role, what it is about.
        call: String,
        /// The process.
        pid: u64,
    },
    /// The calls ended before it.
    Nothing {
        /// How many there were.
        seen: usize,
    },
}

impl Injector {
    /// Traces the processes; `nth` 0 only counts.
    ///
    /// # Panics
    /// When that cannot be done, or the injector does not say that it is ready.
    pub fn start(pids: &[u32], role: &str, nth: usize, fault: &str) -> Self {
        let mut child = Command::new(programs::inject())
            .args(["--role", role, "--nth", &nth.to_string(), "--fault", fault])
            .args(pids.iter().map(u32::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the injector");
        let out = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Nobody waits any more.
                drop(sender.send(line));
            }
        });
        let this = Self { child, lines };
        assert_eq!(this.next_line(), "ready");
        this
    }

    /// Ends the tracing: what was struck, else how many calls were seen.
    ///
    /// # Panics
    /// When the injector says nothing in time.
    pub fn finish(mut self) -> Struck {
        drop(self.child.stdin.take());
        let line = self.next_line();
        let said: Value = serde_json::from_str(&line).expect("JSON of the injector");
        match said["seen"].as_u64() {
            Some(seen) => Struck::Nothing { seen: usize::try_from(seen).expect("a count") },
            None => Struck::Call {
                call: format!("{} of {}, {}", said["call"], said["role"], said["about"]),
                pid: said["pid"].as_u64().expect("a pid"),
            },
        }
    }

    fn next_line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("the injector says something")
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}
