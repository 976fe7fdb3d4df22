//! The monitor's loop, without privilege: output, watchers, the kernel's word on memory, the end.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::read;

use berth_runtime::record::{CgroupVersion, ExitCause, ExitRecord};
use berth_runtime::send_message;
use berth_runtime::wire::{LogOptions, MonitorEvent};

use super::Job;
use super::build::Parts;
use super::console::{self, Console};
use crate::cgroup::Cgroup;
use crate::files::FileError;
use crate::ledger;
use crate::log::{Log, Stream, Taken};
use crate::process::{self, Ended};
use crate::sys::socket;

/// Watchers at once; the newest is turned away.
const WATCHERS_MAX: usize = 16;
/// What is read of each output after the end: more than a pipe holds (pipe(7)).
const REST_BYTES_MAX: usize = 2 << 20;

/// All that the loop needs; every descriptor was opened before.
pub(super) struct Watch {
    run: u64,
    started_ms: i64,
    memory_bytes: u64,
    log_options: LogOptions,
    init: OwnedFd,
    cgroup: Cgroup,
    out_of_memory: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    console: Option<Console>,
    listener: OwnedFd,
    watchers: Vec<OwnedFd>,
    logs: Option<OwnedFd>,
    exit: OwnedFd,
    oom_kills: u64,
    /// How often to look again for a kill that was announced.
    looks_left: u32,
}

/// Looks for an announced kill, and the time between them, in milliseconds.
const LOOKS: u32 = 30;
const LOOK_PAUSE_MS: u8 = 50;

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Who has something to say.
#[derive(Debug, Clone, Copy)]
enum Source {
    Init,
    Output(usize),
    Memory,
    Listener,
    Watcher(usize),
    Console(console::Source),
}

impl Watch {
    pub(super) fn new(job: &Job, parts: Parts) -> Self {
        let Parts { live, init, cgroup, out_of_memory, outputs, console, listener, logs, exit } =
            parts;
        Self {
            run: job.start.run,
            started_ms: live.started_ms,
            memory_bytes: job.start.limits.memory_bytes,
            log_options: job.start.log,
            init,
            cgroup,
            out_of_memory,
            outputs,
            console,
            listener,
            watchers: Vec::new(),
            logs: Some(logs),
            exit,
            oom_kills: 0,
            looks_left: 0,
        }
    }

    /// Runs until the container has ended and that is written down.
    pub(super) fn run(mut self) -> Result<(), FileError> {
        let directory = self.logs.take().expect("a watch runs once");
        let mut log = Log::open(directory, self.log_options);
        if self.console.as_ref().is_some_and(Console::is_terminal) {
            log.strip_returns();
        }
        loop {
            let ready = self.wait();
            let mut ended = false;
            for source in ready {
                match source {
                    Source::Init => ended = true,
                    Source::Output(index) => self.take_output(&mut log, index),
                    Source::Memory => self.hear_of_memory(),
                    Source::Listener => self.admit(),
                    Source::Watcher(index) => self.look_at_watcher(index),
                    Source::Console(source) => {
                        if let Some(console) = &mut self.console {
                            console.serve(source);
                        }
                    }
                }
            }
            if ended {
                break;
            }
            self.look_at_memory();
        }
        self.finish(log)
    }

    fn wait(&self) -> Vec<Source> {
        let sources = self.sources();
        let mut polled: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd, wanted)| PollFd::new(*fd, *wanted)).collect();
        let limit =
            if self.looks_left > 0 { PollTimeout::from(LOOK_PAUSE_MS) } else { PollTimeout::NONE };
        match poll(&mut polled, limit) {
            Ok(_) => {}
            // Interrupted, or the kernel lacks memory for a moment: look again.
            Err(_) => return Vec::new(),
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let ready = sources.iter().zip(&polled).filter(|(_, fd)| ready(fd));
        // From the last: a watcher that goes moves those behind it.
        ready.rev().map(|((source, _, _), _)| *source).collect()
    }

    fn sources(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut sources = Vec::new();
        if let Some(console) = &self.console {
            let console = console.sources();
            sources
                .extend(console.map(|(source, fd, wanted)| (Source::Console(source), fd, wanted)));
        }
        let mut read = |source, fd| sources.push((source, fd, PollFlags::POLLIN));
        read(Source::Init, self.init.as_fd());
        read(Source::Listener, self.listener.as_fd());
        for (index, output) in self.outputs.iter().enumerate() {
            if let Some(output) = output {
                read(Source::Output(index), output.as_fd());
            }
        }
        if let Some(memory) = &self.out_of_memory {
            read(Source::Memory, memory.as_fd());
        }
        for (index, watcher) in self.watchers.iter().enumerate() {
            read(Source::Watcher(index), watcher.as_fd());
        }
        sources
    }

    fn take_output(&mut self, log: &mut Log, index: usize) {
        let Some(output) = &self.outputs[index] else { return };
        match (log.take(STREAMS[index], output.as_fd()), &mut self.console) {
            (Taken::End, _) => self.outputs[index] = None,
            (Taken::Some(count), Some(console)) => console.tell(STREAMS[index], log.newest(count)),
            (Taken::Some(_) | Taken::Nothing, _) => {}
        }
    }

    /// The kernel announces a lack of memory; on v1 that is before the kill is counted.
    fn hear_of_memory(&mut self) {
        let mut buffer = [0; 4096];
        if let Some(descriptor) = &self.out_of_memory {
            match read(descriptor, &mut buffer) {
                Ok(count) if count > 0 => {}
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Ok(_) | Err(_) => self.out_of_memory = None,
            }
        }
        self.looks_left = LOOKS;
    }

    /// Tells of a kill that has been counted since.
    fn look_at_memory(&mut self) {
        if self.looks_left == 0 {
            return;
        }
        self.looks_left -= 1;
        let before = self.oom_kills;
        self.count_kills();
        if self.oom_kills > before {
            self.looks_left = 0;
            self.tell(&MonitorEvent::OutOfMemory {});
        }
    }

    fn count_kills(&mut self) {
        if let Ok(kills) = self.cgroup.oom_kills() {
            self.oom_kills = self.oom_kills.max(kills);
        }
    }

    fn admit(&mut self) {
        let Ok(socket) = socket::accept(self.listener.as_fd()) else { return };
        if self.watchers.len() < WATCHERS_MAX {
            self.watchers.push(socket);
        }
    }

    /// Whatever a watcher says is read and forgotten; one that has hung up goes.
    fn look_at_watcher(&mut self, index: usize) {
        let mut buffer = [0; 64];
        let raw = self.watchers[index].as_raw_fd();
        match recv(raw, &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(count) if count > 0 => {}
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(_) | Err(_) => drop(self.watchers.swap_remove(index)),
        }
    }

    /// A watcher whose socket is full is dropped: the hang-up tells it as much as the message would.
    fn tell(&mut self, event: &MonitorEvent) {
        let bytes = serde_json::to_vec(event).expect("an event is plain data");
        self.watchers.retain(|watcher| send_message(watcher, &bytes, &[]).is_ok());
    }

    /// The first process is gone, and with it every process of its pid namespace (pid_namespaces(7)):
    /// what the pipes or the terminal hold now is all there will be.
    fn finish(mut self, mut log: Log) -> Result<(), FileError> {
        let ended = process::reap(&self.init);
        let ended_ms = process::now_ms();
        for (output, stream) in self.outputs.iter().zip(STREAMS) {
            let Some(output) = output else { continue };
            let mut left = REST_BYTES_MAX;
            while let Taken::Some(count) = log.take(stream, output.as_fd()) {
                if let Some(console) = &mut self.console {
                    console.tell(stream, log.newest(count));
                }
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
            log.finish(stream);
        }
        self.count_kills();
        let (code, signal) = match ended {
            Ended::Code(code) => (Some(code), None),
            Ended::Signal(signal) => (None, Some(signal)),
            Ended::Unknown => (None, None),
        };
        let killed_for_memory = signal == Some(libc::SIGKILL) && self.oom_kills > 0;
        let exit = ExitRecord {
            run: self.run,
            code,
            signal,
            cause: if killed_for_memory { ExitCause::OutOfMemory } else { ExitCause::Exited },
            oom_kills: self.oom_kills,
            memory_bytes_max: memory_limit(&self.cgroup).unwrap_or(self.memory_bytes),
            started_ms: self.started_ms,
            ended_ms,
            log_bytes_lost: log.bytes_lost(),
            failure: None,
        };
        drop(log);
        let written = ledger::write_exit(&self.exit, &exit);
        // Told or not: the hang-up that follows says the same, and without a record it says "lost".
        if written.is_ok() {
            self.tell(&MonitorEvent::Exited {});
            if let Some(console) = self.console.take() {
                console.end(code, signal);
            }
        }
        written
    }
}

/// The memory limit as the kernel holds it now.
fn memory_limit(cgroup: &Cgroup) -> Option<u64> {
    let paths = cgroup.paths();
    let file = match paths.version {
        CgroupVersion::V2 => "memory.max",
        CgroupVersion::V1 => "memory.limit_in_bytes",
    };
    std::fs::read_to_string(Path::new(&paths.memory).join(file)).ok()?.trim().parse().ok()
}
