//! Whole containers under a supervisor of the test's own ([`Supervisor`]), spoken to in the protocol's
//! own types, in whichever network namespace the calling thread is in.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{ContainerRecord, Failure, FailureClass, Live, Status};
use berth_runtime::wire::{
    Answer, Console, Envelope, Limits, LogOptions, NetworkMode, PROTOCOL_VERSION, PortLease,
    ProcessSpec, Request, StartRequest, StopOptions,
};
use berth_runtime::{receive_message, send_message};
use nix::unistd::Pid;

use crate::supervisor::Supervisor;

/// How long anything may take; a machine in software is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done` gives something.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A running supervisor with one layer (busybox) in its store; all that it made goes with it.
pub struct Supervised {
    supervisor: Supervisor,
    layer: Digest,
}

/// A container to be started, with what most tests want.
pub struct Start {
    pub person: PrincipalId,
    pub group: PrincipalId,
    pub script: String,
    pub network: NetworkMode,
    pub ports: Vec<PortLease>,
    pub limits: Limits,
}

impl Start {
    /// A shell script that runs without network and with wide limits.
    pub fn script(person: u32, script: &str) -> Self {
        let limits = Limits {
            cpu_millis: 2000,
            cpu_weight: 100,
            memory_bytes: 256 << 20,
            swap_bytes: 0,
            pids: 128,
        };
        let (person, script) = (PrincipalId(person), script.to_owned());
        let (group, network) = (PrincipalId::DEFAULT_GROUP, NetworkMode::None);
        Self { person, group, script, network, ports: Vec::new(), limits }
    }
}

impl Supervised {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same with more lines for `[runtime]`.
    pub fn with(lines: &str) -> Self {
        let supervisor = Supervisor::with(lines);
        let layer = supervisor.layer().parse().expect("a digest");
        Self { supervisor, layer }
    }

    /// Kills the supervisor and starts it again; containers run on.
    pub fn restart(&mut self) {
        self.supervisor.kill();
        self.supervisor.launch();
    }

    /// The supervisor's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.supervisor.pid())
    }

    /// What its names in the kernel begin with.
    pub fn instance(&self) -> &str {
        &self.supervisor.instance
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The supervisor's refusal.
    pub fn ask(&self, request: Request) -> Result<Answer, Failure> {
        self.ask_for_descriptors(request).map(|(answer, _)| answer)
    }

    fn ask_for_descriptors(&self, request: Request) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let connection = self.supervisor.connect().expect("the supervisor listens");
        let envelope = Envelope { version: PROTOCOL_VERSION, request };
        let message = serde_json::to_vec(&envelope).expect("a request is JSON");
        send_message(&connection, &message, &[]).expect("the request is sent");
        let (answer, fds) = receive_message(&connection).expect("an answer comes");
        assert!(!answer.is_empty(), "the supervisor hung up: {}", self.supervisor.log());
        match serde_json::from_slice(&answer).expect("an answer of the protocol") {
            Answer::Failed(failure) => Err(failure),
            other => Ok((other, fds)),
        }
    }

    /// Starts a container whose program lives on; its id and what is known of it.
    pub fn run(&self, start: Start) -> (ContainerId, Live) {
        let (container, record) = self.start_container(start);
        (container, record.live.expect("a started container lives"))
    }

    /// Starts a container; its id and its record, without `live` when its program has ended by then.
    pub fn start_container(&self, start: Start) -> (ContainerId, ContainerRecord) {
        let started = self.try_start(start);
        started.unwrap_or_else(|failure| panic!("{failure:?}\n{}", self.supervisor.log()))
    }

    /// The same, or why it was refused.
    ///
    /// # Errors
    /// The supervisor's refusal.
    pub fn try_start(&self, start: Start) -> Result<(ContainerId, ContainerRecord), Failure> {
        self.ask(Request::PersonAdd { person: start.person, group: start.group })?;
        let container = new_id();
        let request = StartRequest {
            container: container.clone(),
            person: start.person,
            run: 1,
            layers: vec![self.layer.clone()],
            process: ProcessSpec {
                args: ["/bin/sh", "-c", &start.script].map(str::to_owned).to_vec(),
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/".to_owned(),
                user: String::new(),
                capabilities_dropped: Vec::new(),
                ulimits: std::collections::BTreeMap::new(),
            },
            hostname: "test".to_owned(),
            read_only_root: false,
            tmpfs: Vec::new(),
            volumes: Vec::new(),
            data_sets: Vec::new(),
            shm_bytes: 64 << 20,
            network: start.network,
            ports: start.ports,
            limits: start.limits,
            console: Console::default(),
            log: LogOptions { file_bytes_max: 1 << 20, files_max: 1 },
            stop: StopOptions { signal: 15, grace_secs: 1 },
        };
        match self.ask(Request::ContainerStart(Box::new(request)))? {
            Answer::Started(record) => Ok((container, *record)),
            other => panic!("to a start came {other:?}"),
        }
    }

    /// What is known of a container.
    pub fn state(&self, container: &ContainerId) -> ContainerRecord {
        match self.ask(Request::ContainerState { container: container.clone() }) {
            Ok(Answer::Container(record)) => *record,
            other => panic!("to a question for the state came {other:?}"),
        }
    }

    /// Waits for a container's end.
    pub fn wait(&self, container: &ContainerId) -> ContainerRecord {
        wait_for("a container's end", || {
            Some(self.state(container)).filter(|record| record.status == Status::Stopped)
        })
    }

    /// All output of a container so far, without the log's own columns.
    pub fn output(&self, container: &ContainerId) -> String {
        let request = Request::ContainerLogs { container: container.clone() };
        let (_, fds) = self.ask_for_descriptors(request).expect("a log");
        let mut output = String::new();
        for fd in fds {
            let text = std::io::read_to_string(fs::File::from(fd)).expect("a readable log");
            for line in text.lines() {
                output.push_str(line.splitn(4, ' ').nth(3).unwrap_or_default());
                output.push('\n');
            }
        }
        output
    }

    /// Ends a container and removes all of it.
    pub fn remove(&self, container: &ContainerId) {
        // One that has ended by itself is refused.
        drop(self.ask(Request::ContainerKill { container: container.clone() }));
        self.wait(container);
        // Its monitor may still be ending.
        wait_for("a container's removal", || {
            let request = Request::ContainerRemove { container: container.clone() };
            match self.ask(request) {
                Ok(_) => Some(()),
                Err(failure) if failure.class == FailureClass::Conflict => None,
                Err(failure) => panic!("{failure:?}\n{}", self.supervisor.log()),
            }
        });
    }
}

fn new_id() -> ContainerId {
    let mut bytes = [0; 16];
    let mut random = fs::File::open("/dev/urandom").expect("randomness");
    std::io::Read::read_exact(&mut random, &mut bytes).expect("16 random bytes");
    ContainerId::from_bytes(bytes)
}
