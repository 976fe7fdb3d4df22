//! A supervisor of a test's own, without a server: private instance, directories, id block and pool;
//! a client that speaks the wire protocol as plain JSON, so that it can say what no honest one would;
//! an image layer of busybox, unpacked through the supervisor itself.
//!
//! ```ignore
//! let berth = Supervisor::start();
//! let run = berth.run("a", &["sh", "-c", "echo hi; exit 3"]);
//! assert_eq!(run.wait_exit()["code"], 3);
//! ```

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::disk::unmount_disks;
use crate::instance::{STARTED, instance_name, remove_cgroups, remove_links, remove_tables, run};
use crate::programs;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The unprivileged user that stands for the server.
pub const SERVER_UID: u32 = 65_534;
/// Whose containers these are unless another is named.
pub const PERSON: u32 = 1000;

/// A running supervisor.
pub struct Supervisor {
    /// Where everything of it lies.
    pub dir: PathBuf,
    /// Its name in shared name spaces.
    pub instance: String,
    child: Option<Child>,
    layer: OnceLock<String>,
}

/// An answer with its descriptors.
pub type Answered = (Value, Vec<OwnedFd>);

impl Supervisor {
    /// A supervisor that listens, knows [`PERSON`], and has the busybox layer.
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same with more lines for `[runtime]`.
    pub fn with(lines: &str) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let instance = instance_name(number);
        let dir = std::env::temp_dir().join(format!("berth-{instance}"));
        fs::create_dir_all(&dir).expect("make the instance's directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("open the directory");
        let seed = std::process::id().wrapping_mul(5).wrapping_add(number);
        // Below the product's block and above what distributions give to users.
        let id_first = 1_500_053_504 + (seed % 400) * 16 * 65_536;
        let text = format!(
            "[runtime]\ninstance = \"{instance}\"\ndata_dir = \"{dir}/data\"\n\
             run_dir = \"{dir}/run\"\nserver_user = \"nobody\"\nid_first = {id_first}\n\
             id_last = {id_last}\nnetwork_pool = \"10.{net}.{sub}.0/24\"\n\
             network_prefix = 28\n{lines}\n",
            dir = dir.display(),
            id_last = id_first + 16 * 65_536 - 1,
            net = 130 + seed / 256 % 60,
            sub = seed % 256,
        );
        fs::write(dir.join("berth.toml"), text).expect("write the configuration");
        let mut this = Self { dir, instance, child: None, layer: OnceLock::new() };
        this.launch();
        let added = this.call(&json!({"op": "person_add", "person": PERSON, "group": 2}));
        assert_eq!(added["answer"], "person", "{added}");
        this
    }

    /// Starts the process and waits until it answers.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut log = fs::OpenOptions::new();
        let log = log.create(true).append(true).open(self.dir.join("log")).expect("open the log");
        let mut command = Command::new(programs::berth_runtime());
        command.args(["supervise", "--config"]).arg(self.config());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("share the log")).stdout(log);
        self.child = Some(command.spawn().expect("start the supervisor"));
        let deadline = Instant::now() + LIMIT;
        while self.try_call(&json!({"op": "hello"}), &[]).is_err() {
            let child = self.child.as_mut().expect("just started");
            let ended = child.try_wait().expect("look at the supervisor");
            assert!(ended.is_none(), "the supervisor has ended: {}", self.log());
            assert!(Instant::now() < deadline, "the supervisor does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("berth.toml")
    }

    /// The run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("the supervisor runs");
        child.id().try_into().expect("a pid fits")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the supervisor");
            child.wait().expect("reap the supervisor");
        }
    }

    /// Asks, and expects an answer.
    pub fn call(&self, request: &Value) -> Value {
        self.call_with(request, &[]).0
    }

    /// Asks with descriptors.
    pub fn call_with(&self, request: &Value, fds: &[BorrowedFd<'_>]) -> Answered {
        self.try_call(request, fds).unwrap_or_else(|why| {
            let state = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
            let state = state.unwrap_or_else(|error| error.to_string());
            panic!("no answer ({why}) to {request}; it is {state}; log:\n{}", self.log())
        })
    }

    fn try_call(&self, request: &Value, fds: &[BorrowedFd<'_>]) -> Result<Answered, String> {
        let frame = json!({"version": 1, "request": request}).to_string();
        let socket = try_connect(&self.run_dir().join("supervisor.sock"))
            .map_err(|errno| format!("connect: {errno}"))?;
        send(&socket, frame.as_bytes(), fds).map_err(|errno| format!("send: {errno}"))?;
        try_receive(&socket)
    }

    /// A connection as root.
    pub fn connect(&self) -> Option<OwnedFd> {
        connect_to(&self.run_dir().join("supervisor.sock"))
    }

    /// A connection as another user: the thread that makes it takes that uid (setresuid(2) by system
    /// call is the thread's alone), and the kernel notes it on the socket.
    pub fn connect_as(&self, uid: u32) -> Option<OwnedFd> {
        let path = self.run_dir().join("supervisor.sock");
        let connected = std::thread::spawn(move || {
            // SAFETY: the call takes three integers; the thread ends right after.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(changed, 0, "become uid {uid}");
            connect_to(&path)
        });
        connected.join().expect("the thread does not panic")
    }

    /// Asks with the server's own credentials.
    pub fn call_as_server(&self, request: &Value) -> Value {
        let frame = json!({"version": 1, "request": request}).to_string();
        self.exchange_as_server(frame.as_bytes())
    }

    /// Sends any bytes with the server's own credentials; the answer, or null at a hang-up.
    pub fn exchange_as_server(&self, frame: &[u8]) -> Value {
        let socket = self.connect_as(SERVER_UID).expect("the server's user may connect");
        send(&socket, frame, &[]).expect("the socket takes the frame");
        receive(&socket).map_or(Value::Null, |(answer, _)| answer)
    }

    /// The digest of the busybox layer, unpacked at the first call.
    pub fn layer(&self) -> &str {
        self.layer.get_or_init(|| self.unpack(&busybox_layer()))
    }

    /// Unpacks a plain tar; its digest.
    pub fn unpack(&self, archive: &[u8]) -> String {
        let digest = format!("sha256:{}", hex(&Sha256::digest(archive)));
        let path = self.dir.join("layer.tar");
        fs::write(&path, archive).expect("write the layer");
        let file = fs::File::open(&path).expect("open the layer");
        let request = json!({"op": "layer_unpack", "blob": digest, "diff_id": digest,
            "compression": "none", "bytes_max": 1_u64 << 30});
        let answer = self.call_with(&request, &[file.as_fd()]).0;
        assert_eq!(answer["answer"], "layer_unpacked", "{answer}");
        digest
    }

    /// A start request with everything usual in it.
    pub fn start_request(&self, container: &str, run: u64, args: &[&str]) -> Value {
        json!({
            "op": "container_start", "container": container, "person": PERSON, "run": run,
            "layers": [self.layer()],
            "process": {"args": args, "env": ["PATH=/bin"], "cwd": "/", "user": "",
                "capabilities_dropped": [], "ulimits": {}},
            "hostname": "box", "read_only_root": false, "tmpfs": [], "shm_bytes": 1 << 20,
            "network": "none",
            "limits": {"cpu_millis": 1000, "cpu_weight": 100, "memory_bytes": 64 << 20,
                "swap_bytes": 0, "pids": 64},
            "log": {"file_bytes_max": 64 << 10, "files_max": 3},
            "stop": {"signal": 15, "grace_secs": 2},
            "console": {"terminal": null, "stdin": false},
        })
    }

    /// Starts run 1 of a new container.
    pub fn run(&self, name: &str, args: &[&str]) -> Run<'_> {
        let container = id(name);
        let request = self.start_request(&container, 1, args);
        self.started(&request)
    }

    /// Sends a start request that is to succeed.
    pub fn started(&self, request: &Value) -> Run<'_> {
        let (answer, mut fds) = self.call_with(request, &[]);
        assert_eq!(answer["answer"], "started", "{answer}\n{}", self.log());
        let container = request["container"].as_str().expect("a request names it").to_owned();
        Run { berth: self, container, watch: fds.pop(), started: answer }
    }

    /// What the supervisor says of a container.
    pub fn state(&self, container: &str) -> Value {
        self.call(&json!({"op": "container_state", "container": container}))
    }

    /// Waits until `done` says so of a container's state.
    pub fn wait_state(&self, container: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let state = self.state(container);
            if done(&state) {
                return state;
            }
            let log = self.log();
            assert!(Instant::now() < deadline, "{what}: not in time: {state}\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until nothing is left on tmpfs of any run.
    pub fn wait_idle(&self) {
        let deadline = Instant::now() + LIMIT;
        let runs = self.run_dir().join("containers");
        while fs::read_dir(&runs).expect("list the runs").next().is_some() {
            assert!(Instant::now() < deadline, "runs are left: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The contents of a container's log, segments joined.
    pub fn container_log(&self, container: &str) -> String {
        let request = json!({"op": "container_logs", "container": container});
        let (answer, fds) = self.call_with(&request, &[]);
        assert_eq!(answer["answer"], "logs", "{answer}");
        let read = |fd: OwnedFd| std::io::read_to_string(fs::File::from(fd)).expect("read a log");
        fds.into_iter().map(read).collect()
    }

    /// Sends every container its end and waits for it.
    fn end_all(&self) {
        for entry in fs::read_dir(self.run_dir().join("containers")).into_iter().flatten().flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            drop(self.try_call(&json!({"op": "container_kill", "container": name}), &[]));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.end_all();
            if !std::thread::panicking() {
                self.wait_idle();
            }
        }
        self.kill();
        run("systemctl", &["stop", &format!("{}-containers.scope", self.instance)]);
        remove_cgroups(&self.instance);
        remove_links(&self.instance);
        remove_tables(&self.instance);
        unmount_disks(&self.run_dir());
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// A container's run that was started.
pub struct Run<'a> {
    berth: &'a Supervisor,
    /// The container.
    pub container: String,
    /// The connection to its monitor.
    pub watch: Option<OwnedFd>,
    /// The answer to the start.
    pub started: Value,
}

impl Run<'_> {
    /// The first process on the host.
    pub fn pid(&self) -> i32 {
        let pid = self.started["live"]["pid"].as_i64().expect("it lives");
        pid.try_into().expect("a pid fits")
    }

    /// The next event of its monitor; null at its hang-up.
    pub fn event(&self) -> Value {
        let watch = self.watch.as_ref().expect("a start comes with a connection");
        wait_readable(watch);
        receive(watch).map_or(Value::Null, |(event, _)| event)
    }

    /// Waits for the end; the exit record.
    pub fn wait_exit(&self) -> Value {
        let ended = |state: &Value| state["exit"].is_object();
        self.berth.wait_state(&self.container, "the end", ended)["exit"].clone()
    }

    /// Waits until its log has `text`.
    pub fn wait_log(&self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let log = self.berth.container_log(&self.container);
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < deadline, "no {text:?} in the log: {log:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks something of the container that is to be done.
    pub fn act(&self, op: &str) {
        let answer = self.berth.call(&json!({"op": op, "container": self.container}));
        assert_eq!(answer["answer"], "done", "{op}: {answer}");
    }
}

/// A container id that a test's short name stands for.
pub fn id(name: &str) -> String {
    hex(&Sha256::digest(name.as_bytes()))[..32].to_owned()
}

/// A layer with busybox and links to it for every program that tests use.
pub fn busybox_layer() -> Vec<u8> {
    let program = fs::read("/bin/busybox").expect("the host has a static busybox");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Directory);
    for name in ["bin/", "dev/", "etc/", "proc/", "root/", "sys/", "tmp/"] {
        header.set_size(0);
        archive.append_data(&mut header, name, std::io::empty()).expect("write to memory");
    }
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(program.len() as u64);
    archive.append_data(&mut header, "bin/busybox", program.as_slice()).expect("write to memory");
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n";
    header.set_size(passwd.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "etc/passwd", passwd.as_slice()).expect("write to memory");
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    for name in [
        "sh", "cat", "chmod", "dd", "echo", "false", "id", "ip", "kill", "ln", "ls", "mkdir",
        "mknod", "mount", "nc", "printf", "ps", "rm", "seq", "sleep", "stat", "tail", "touch",
        "true", "wget", "yes",
    ] {
        archive
            .append_link(&mut header, format!("bin/{name}"), "busybox")
            .expect("write to memory");
    }
    archive.into_inner().expect("write to memory")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn connect_to(path: &Path) -> Option<OwnedFd> {
    try_connect(path).ok()
}

fn try_connect(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // A start under a tenth of one processor, on a machine that is itself a program, takes a minute.
    let limit = TimeVal::new(240, 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit).expect("a socket takes a time limit");
    connect(socket.as_raw_fd(), &UnixAddr::new(path).expect("the path is short"))?;
    Ok(socket)
}

/// Sends one frame.
pub fn send(socket: &OwnedFd, frame: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &control[..0] } else { &control[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(frame)], control, flags, None).map(drop)
}

/// Receives one frame of JSON; `None` at the end.
pub fn receive(socket: &OwnedFd) -> Option<Answered> {
    try_receive(socket).ok()
}

/// The same, and why there was none.
fn try_receive(socket: &OwnedFd) -> Result<Answered, String> {
    let mut bytes = vec![0; 128 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 16]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            // With a time limit it is not begun anew by itself, whatever has interrupted it (signal(7)).
            Err(Errno::EINTR) => {}
            other => break other.map_err(|errno| format!("recvmsg: {errno}"))?,
        }
    };
    let mut fds = Vec::new();
    for control in message.cmsgs().map_err(|errno| format!("descriptors: {errno}"))? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    let answer = serde_json::from_slice(&bytes[..length]);
    Ok((answer.map_err(|error| format!("{length} bytes: {error}"))?, fds))
}

fn wait_readable(socket: &OwnedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(LIMIT).expect("half a minute fits");
    let polled = loop {
        match poll(&mut polled, limit) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    assert_eq!(polled, Ok(1), "nothing came within {LIMIT:?}");
}
