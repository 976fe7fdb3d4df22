//! The others: docker with a daemon of its own, bare crun, podman, and a registry for all to pull from.
//! Each is a child of this program with a directory of its own, and is ended by its pid.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use system_tests::Client;

/// What every container runs: it is there, does nothing, and ends when it is killed.
pub(crate) const PROGRAM: [&str; 3] = ["/bin/busybox", "sleep", "100000"];
/// What the image with it is called.
pub(crate) const IMAGE: &str = "berth/bench:1";
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Where the registry listens, in the bench's own network namespace.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";

/// The image as `docker save` writes it: the host's static busybox and nothing else.
pub(crate) fn busybox_archive() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    system_tests::image::archive(IMAGE, &[("bin/busybox", 0o755, &busybox)])
}

/// A directory of this program's own, removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("berth-bench-{process}-{number}-{name}"));
        fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            crate::say(&format!("{} stays: {error}", self.0.display()));
        }
    }
}

/// A child that is ended with this value.
struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    fn start(command: &mut Command, log: &Path) -> Option<Self> {
        let out = fs::File::create(log).expect("a log");
        let err = out.try_clone().expect("share the log");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().ok()?;
        Some(Self { child, log: log.to_owned() })
    }

    /// Waits until it is `ready`.
    async fn until(&mut self, ready: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !ready().await {
            let ended = self.child.try_wait().expect("look at a child");
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", log());
            assert!(Instant::now() < deadline, "it is not ready\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Service {
    fn signal(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        // That it has ended already is as good: it is not reaped yet, so the pid is still its own.
        kill(pid, Signal::SIGTERM).ok();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.signal();
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                self.child.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A docker of our own.
pub(crate) struct Docker {
    /// Its API.
    pub(crate) client: Client,
    service: Service,
    scratch: Scratch,
}

impl Docker {
    /// `None` where there is no dockerd.
    pub(crate) async fn start() -> Option<Self> {
        let scratch = Scratch::new("docker");
        let socket = scratch.0.join("docker.sock");
        let config = scratch.0.join("daemon.json");
        fs::write(&config, "{}").expect("write docker's configuration");
        let mut command = Command::new("dockerd");
        command
            .arg("--config-file")
            .arg(&config)
            .arg(format!("--host=unix://{}", socket.display()))
            .arg(format!("--data-root={}", scratch.0.join("data").display()))
            .arg(format!("--exec-root={}", scratch.0.join("exec").display()))
            .arg(format!("--pidfile={}", scratch.0.join("pid").display()))
            .args(["--bip=10.199.0.1/22", "--insecure-registry", REGISTRY]);
        let mut service = Service::start(&mut command, &scratch.0.join("log"))?;
        let client = Client::root(&socket);
        service
            .until(async || {
                let ping = client.request("GET", "/_ping").send().await;
                socket.exists() && ping.is_ok_and(|answer| answer.status() == 200)
            })
            .await;
        Some(Self { client, service, scratch })
    }

    /// Brings the image of [`PROGRAM`].
    pub(crate) async fn load_image(&self) {
        let request = self.client.request("POST", "/images/load").body(busybox_archive());
        system_tests::client::send(request).await.expect_status(200);
    }

    /// Makes and starts a container.
    pub(crate) async fn run(&self, name: &str, network: &str) {
        let body = json!({"Image": IMAGE, "Cmd": PROGRAM, "StopSignal": "SIGKILL",
            "HostConfig": {"NetworkMode": network}});
        self.run_as(name, &body).await;
    }

    /// Makes and starts a container of another image.
    pub(crate) async fn run_of(&self, image: &str, name: &str, command: &[&str]) {
        let body = json!({"Image": image, "Cmd": command, "StopSignal": "SIGKILL"});
        self.run_as(name, &body).await;
    }

    async fn run_as(&self, name: &str, body: &Value) {
        let path = format!("/containers/create?name={name}");
        self.client.post(&path, body).await.expect_status(201);
        let path = format!("/containers/{name}/start");
        self.client.post(&path, &Value::Null).await.expect_status(204);
    }

    /// Stops it.
    pub(crate) async fn stop(&self, name: &str) {
        let path = format!("/containers/{name}/stop");
        self.client.post(&path, &Value::Null).await.expect_status(204);
    }

    /// Removes it.
    pub(crate) async fn remove(&self, name: &str) {
        self.client.delete(&format!("/containers/{name}?force=1")).await.expect_status(204);
    }

    /// Pulls; answers when every byte is there.
    pub(crate) async fn pull(&self, reference: &str) {
        let (name, tag) = reference.rsplit_once(':').expect("a tag");
        let path = format!("/images/create?fromImage={name}&tag={tag}");
        let answer = self.client.post(&path, &Value::Null).await.expect_status(200);
        assert!(!answer.text.contains("errorDetail"), "{}", answer.text);
    }

    /// Ends the daemon; its data stays until this is dropped.
    pub(crate) async fn rest(&self) {
        self.service.signal();
        let deadline = Instant::now() + LIMIT;
        while self.client.request("GET", "/_ping").send().await.is_ok() {
            assert!(Instant::now() < deadline, "dockerd does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its scratch directory, by which its processes are told from others.
    pub(crate) fn directory(&self) -> String {
        self.scratch.0.display().to_string()
    }

    /// The daemon, and its containerd.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.service.child.id()];
        let pid = fs::read_to_string(self.scratch.0.join("exec/containerd/containerd.pid"));
        all.extend(pid.ok().and_then(|text| text.trim().parse::<u32>().ok()));
        all
    }
}

/// A registry of our own, which forgets everything at the end.
pub(crate) struct Registry {
    _service: Service,
    _scratch: Scratch,
}

impl Registry {
    pub(crate) async fn start() -> Option<Self> {
        let scratch = Scratch::new("registry");
        let config = scratch.0.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: {REGISTRY}}}\n",
            scratch.0.join("data").display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        let mut service = Service::start(&mut command, &scratch.0.join("log"))?;
        service.until(async || TcpStream::connect(REGISTRY).is_ok()).await;
        Some(Self { _service: service, _scratch: scratch })
    }
}

/// `podman`, with storage of its own.
pub(crate) struct Podman(Scratch);

impl Podman {
    pub(crate) fn new() -> Option<Self> {
        let found = Command::new("podman").arg("--version").output().is_ok();
        found.then(|| Self(Scratch::new("podman")))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.0.0.join("root"));
        command.arg("--runroot").arg(self.0.0.join("run"));
        command.args(["--storage-driver=overlay", "--events-backend=file"]);
        command
    }

    pub(crate) fn pull(&self, reference: &str) {
        done(self.command().args(["pull", "--quiet", "--tls-verify=false", reference]));
    }
}

/// Runs a command that must succeed.
pub(crate) fn done(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program is there");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Bare crun, by a shell that stands where crun runs.
///
/// crun refuses a hybrid of both cgroup layouts. The shell lives in a mount namespace of its own in
/// which the unified hierarchy is covered: there crun sees version 1 and sets cgroups up in all its
/// controllers. On a host with one layout nothing is covered. The shell is started once, so that what
/// is timed is crun: one fork, one execve, and a line each way.
pub(crate) struct Crun {
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    scratch: Scratch,
}

const SHELL: &str = "if [ -e /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi
while read -r line; do eval \"$line\" </dev/null >/dev/null 2>log; echo $?; done";

impl Crun {
    /// `None` where there is no crun. `program` is what its bundle runs.
    pub(crate) fn new(program: &[&str]) -> Option<Self> {
        let scratch = Scratch::new("crun");
        let root = scratch.0.join("rootfs");
        for directory in ["bin", "dev", "proc", "sys", "etc", "tmp"] {
            fs::create_dir_all(root.join(directory)).expect("a root");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        let spec = Command::new("crun").arg("spec").current_dir(&scratch.0).status();
        if !spec.ok()?.success() {
            return None;
        }
        let mut shell = Command::new("unshare")
            .args(["--mount", "sh", "-c", SHELL])
            .current_dir(&scratch.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a shell");
        let input = shell.stdin.take().expect("it is a pipe");
        let output = BufReader::new(shell.stdout.take().expect("it is a pipe"));
        let this = Self { shell, input, output, scratch };
        this.change(|spec| {
            spec["process"]["terminal"] = false.into();
            spec["process"]["args"] = json!(program);
        });
        Some(this)
    }

    /// Its bundle's directory, which is the shell's.
    pub(crate) fn directory(&self) -> &Path {
        &self.scratch.0
    }

    /// Changes its configuration.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.scratch.0.join("config.json");
        let text = fs::read(&path).expect("read the configuration");
        let mut spec: Value = serde_json::from_slice(&text).expect("it is JSON");
        change(&mut spec);
        fs::write(path, spec.to_string()).expect("write it");
    }

    /// Runs a command of crun's, or another's; how long it took.
    pub(crate) fn timed(&mut self, command: &str) -> Duration {
        let begun = Instant::now();
        writeln!(self.input, "{command}").expect("the shell reads");
        let mut status = String::new();
        self.output.read_line(&mut status).expect("the shell answers");
        let took = begun.elapsed();
        let log = || fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default();
        assert_eq!(status.trim(), "0", "{command}: {}", log());
        took
    }
}

impl Drop for Crun {
    fn drop(&mut self) {
        self.shell.kill().ok();
        self.shell.wait().ok();
    }
}
