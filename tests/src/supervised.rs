//! A supervisor of the test's own, driven over its socket: other instance name, directories, ids and
//! cgroups than any other test's, in whichever network namespace the calling thread is in. All that it
//! made is gone when it is dropped.

use std::fs;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{ContainerRecord, Failure, FailureClass, Live, Status};
use berth_runtime::wire::{
    Answer, Compression, Envelope, Limits, LogOptions, NetworkMode, PROTOCOL_VERSION, ProcessSpec,
    Request, StartRequest, StopOptions,
};
use berth_runtime::{receive_message, send_message};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;

use crate::programs;

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

/// A running supervisor with one layer (busybox) in its store.
pub struct Supervised {
    pub config: RuntimeConfig,
    directory: PathBuf,
    process: Child,
    layer: Digest,
}

/// A container to be started, with what most tests want.
pub struct Start {
    pub person: PrincipalId,
    pub script: String,
    pub network: NetworkMode,
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
        Self { person, script, network: NetworkMode::None, limits }
    }
}

impl Supervised {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let directory = std::env::temp_dir().join(format!("berth-supervised-{process}-{number}"));
        fs::create_dir(&directory).expect("a new directory");
        let config = RuntimeConfig {
            instance: format!("t{:x}{number:x}", process % 0xf_ffff),
            data_dir: directory.join("data"),
            run_dir: directory.join("run"),
            server_user: "root".to_owned(),
            nameservers: vec!["192.0.2.53".parse().expect("an address")],
            ..RuntimeConfig::default()
        };
        let file = directory.join("berth.toml");
        let table = toml::Table::from_iter([(
            "runtime".to_owned(),
            toml::Value::try_from(&config).expect("a table"),
        )]);
        fs::write(&file, table.to_string()).expect("the configuration is written");
        let log = fs::File::create(directory.join("log")).expect("a log");
        let process = Command::new(programs::berth_runtime())
            .args(["supervise", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the supervisor starts");
        let layer = Digest::of(b"");
        let mut supervised = Self { config, directory, process, layer };
        wait_for("the supervisor's answer", || supervised.connect());
        supervised.layer = supervised.unpack_busybox();
        supervised
    }

    /// The supervisor's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"))
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The supervisor's refusal.
    pub fn ask(&self, request: Request) -> Result<Answer, Failure> {
        self.ask_with(request, &[]).map(|(answer, _)| answer)
    }

    fn ask_with(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let connection = self.connect().expect("the supervisor listens");
        let envelope = Envelope { version: PROTOCOL_VERSION, request };
        let message = serde_json::to_vec(&envelope).expect("a request is JSON");
        send_message(&connection, &message, fds).expect("the request is sent");
        let (answer, fds) = receive_message(&connection).expect("an answer comes");
        assert!(!answer.is_empty(), "the supervisor hung up: {}", self.log());
        match serde_json::from_slice(&answer).expect("an answer of the protocol") {
            Answer::Failed(failure) => Err(failure),
            other => Ok((other, fds)),
        }
    }

    /// Starts a container and gives its id and what is known of it.
    pub fn run(&self, start: Start) -> (ContainerId, Live) {
        let group = PrincipalId::DEFAULT_GROUP;
        self.ask(Request::PersonAdd { person: start.person, group }).expect("the person is added");
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
            shm_bytes: 64 << 20,
            network: start.network,
            limits: start.limits,
            log: LogOptions { file_bytes_max: 1 << 20, files_max: 1 },
            stop: StopOptions { signal: 15, grace_secs: 1 },
        };
        match self.ask(Request::ContainerStart(Box::new(request))) {
            Ok(Answer::Started(record)) => {
                let live = record.live.expect("a started container lives");
                (container, live)
            }
            Ok(other) => panic!("to a start came {other:?}"),
            Err(failure) => panic!("{failure:?}\n{}", self.log()),
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
        let (_, fds) = self.ask_with(request, &[]).expect("a log");
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
                Err(failure) => panic!("{failure:?}\n{}", self.log()),
            }
        });
    }

    /// What the supervisor has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn connect(&self) -> Option<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let connection = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).ok()?;
        let address = UnixAddr::new(&self.config.run_dir.join("supervisor.sock")).ok()?;
        connect(connection.as_raw_fd(), &address).ok()?;
        Some(connection)
    }

    fn unpack_busybox(&self) -> Digest {
        let bytes = busybox_layer();
        let blob = Digest::of(&bytes);
        let mut file = tempfile(&self.directory);
        file.write_all(&bytes).and_then(|()| file.rewind()).expect("the layer is written");
        let request = Request::LayerUnpack {
            blob: blob.clone(),
            diff_id: blob.clone(),
            compression: Compression::None,
        };
        let (answer, _) = self.ask_with(request, &[file.as_fd()]).expect("the layer is unpacked");
        assert!(matches!(answer, Answer::LayerUnpacked(_)), "{answer:?}");
        blob
    }

    /// Ends every container, if the supervisor still answers; without panics, for the end of a test
    /// that may be panicking itself.
    fn end_containers(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while let Answer::Containers { containers, .. } =
            self.ask(Request::ContainerList { after: None })?
        {
            if containers.is_empty() || Instant::now() > deadline {
                break;
            }
            for record in containers {
                let container = record.container;
                // One that has ended, or is still ending, is refused; then it is tried again.
                drop(self.ask(Request::ContainerKill { container: container.clone() }));
                drop(self.ask(Request::ContainerRemove { container }));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // A test may have stopped it; one that has ended cannot be told.
        kill(self.pid(), Signal::SIGCONT).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("the supervisor said: {}", self.log());
        }
        let lives = matches!(self.process.try_wait(), Ok(None));
        if lives && self.connect().is_some() {
            if let Err(failure) = self.end_containers() {
                eprintln!("end the containers: {failure}");
            }
        }
        drop(self.process.kill().and_then(|()| self.process.wait()));
        remove_cgroups(&self.config.instance);
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn new_id() -> ContainerId {
    let mut bytes = [0; 16];
    let mut random = fs::File::open("/dev/urandom").expect("randomness");
    std::io::Read::read_exact(&mut random, &mut bytes).expect("16 random bytes");
    ContainerId::from_bytes(bytes)
}

fn tempfile(directory: &Path) -> fs::File {
    let path = directory.join("layer.tar");
    fs::File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)
        .expect("a file")
}

/// A layer with busybox under every name that scripts here use.
fn busybox_layer() -> Vec<u8> {
    let binary = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, link: Option<&str>, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(if path == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(bytes.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if let Some(link) = link {
            header.set_link_name(link).expect("a short link");
        }
        header.set_cksum();
        tar.append_data(&mut header, path, bytes).expect("an entry");
    };
    for directory in ["bin", "tmp", "etc"] {
        add(directory, tar::EntryType::Directory, None, b"");
    }
    add("bin/busybox", tar::EntryType::Regular, None, &binary);
    for name in ["sh", "sleep", "cat", "dd", "head", "tail", "yes", "true", "wget", "nc"] {
        add(&format!("bin/{name}"), tar::EntryType::Symlink, Some("busybox"), b"");
    }
    tar.into_inner().expect("a finished archive")
}

/// Removes what is left of an instance's cgroups, deepest first: the supervisor and its holder live in
/// some of them until they are reaped.
fn remove_cgroups(instance: &str) {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()),
    );
    for root in roots {
        for path in [root.join(instance), root.join(format!("{instance}.slice"))] {
            if path.is_dir() {
                wait_for("the removal of cgroups", || remove_tree(&path).then_some(()));
            }
        }
    }
}

fn remove_tree(path: &Path) -> bool {
    let killer = path.join("cgroup.kill");
    if killer.exists() {
        drop(fs::write(killer, "1"));
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() && !remove_tree(&entry.path()) {
            return false;
        }
    }
    fs::remove_dir(path).is_ok() || !path.exists()
}
