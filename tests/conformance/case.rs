//! One case: a bundle around busybox, in the host's user namespace, with state and cgroup of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::programs;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A bundle, and the container made from it.
pub struct Case {
    /// The bundle's directory; what is beside its root is the test's.
    pub directory: PathBuf,
    /// The container's id.
    pub id: String,
    /// The configuration; written before each command.
    pub config: Value,
}

/// The runtime under test.
pub fn runtime() -> PathBuf {
    std::env::var_os("RUNTIME").map_or_else(programs::berth_runtime, PathBuf::from)
}

/// Whether it is Berth's own: for clauses that other runtimes are known not to keep.
pub fn is_berths() -> bool {
    runtime().file_name().is_some_and(|name| name == "berth-runtime")
}

/// Whether a test is not for this runtime, which is said: others than Berth's are known not to do what it is about.
pub fn is_passed_over() -> bool {
    if !is_berths() {
        eprintln!("SKIPPED conformance: other runtimes are known not to do this");
    }
    !is_berths()
}

impl Case {
    /// `None`, and the reason on standard error, where cases cannot run.
    pub fn new(name: &str) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED conformance: needs root");
            return None;
        }
        let id = format!("case-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(format!("berth-conformance-{id}"));
        let bin = directory.join("rootfs/bin");
        fs::create_dir_all(&bin).expect("make the root");
        let places = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from);
        let busybox = programs::companion("busybox").into_iter().chain(places);
        let busybox = busybox.into_iter().find(|path| path.exists()).expect("busybox is installed");
        programs::copy(&busybox, &bin.join("busybox"));
        let applets = "sh cat echo env grep hostname id kill ls mkdir mount readlink rm sleep stat \
            stty test touch true tty wc";
        for applet in applets.split(' ').filter(|applet| !applet.is_empty()) {
            symlink("busybox", bin.join(applet)).expect("link an applet");
        }
        let config = config(&id);
        Some(Self { directory, id, config })
    }

    /// Sets the program to a script.
    pub fn script(mut self, script: &str) -> Self {
        self.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        self
    }

    /// Sets a part of the configuration, by JSON pointer.
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let parent = self.config.pointer_mut(parent).expect("the parent is in the configuration");
        match parent.as_array_mut() {
            Some(list) if name == "-" => list.push(value),
            _ => parent[name] = value,
        }
        self
    }

    /// A command line of the runtime, with this case's state directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let path = self.directory.join("config.json");
        fs::write(path, self.config.to_string()).expect("write the configuration");
        let mut command = Command::new(runtime());
        command.arg("--root").arg(self.directory.join("state")).args(arguments);
        command.stdin(Stdio::null()).current_dir(&self.directory);
        command
    }

    /// Runs a command to its end; `ID` stands for the container's.
    pub fn call(&self, arguments: &str) -> Output {
        let words: Vec<&str> =
            arguments.split(' ').map(|word| if word == "ID" { &self.id } else { word }).collect();
        self.command(&words).output().expect("run the runtime")
    }

    /// The same, which has to succeed; its standard output.
    pub fn done(&self, arguments: &str) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments}: {}", said(&output));
        String::from_utf8(output.stdout).expect("output is UTF-8")
    }

    /// The same, which has to fail; what it said.
    pub fn refused(&self, arguments: &str) -> String {
        let output = self.call(arguments);
        assert!(!output.status.success(), "{arguments} was to fail: {}", said(&output));
        said(&output)
    }

    /// `create`. What the container writes goes to the file `output`: it holds its ends open.
    pub fn create(&self) -> Output {
        let open = |name| fs::File::create(self.directory.join(name)).expect("make a file");
        let mut command = self.command(&["create", &self.id]);
        let status = command.stdout(open("output")).stderr(open("error")).status();
        let stderr = fs::read(self.directory.join("error")).expect("read what was said");
        Output { status: status.expect("run the runtime"), stdout: Vec::new(), stderr }
    }

    /// `create`, which has to succeed.
    pub fn created(self) -> Self {
        let output = self.create();
        assert!(output.status.success(), "create: {}", said(&output));
        self
    }

    /// `create` and `start`.
    pub fn started(self) -> Self {
        let case = self.created();
        case.done("start ID");
        case
    }

    /// Runs the program to its end; its standard output.
    pub fn run(&self) -> String {
        self.done("run ID")
    }

    /// `create`, which has to fail and to leave nothing; what it said.
    pub fn create_refused(&self) -> String {
        let output = self.create();
        assert!(!output.status.success(), "create was to fail");
        self.refused("state ID");
        said(&output)
    }

    /// `state`.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.done("state ID")).expect("the state is JSON")
    }

    /// Waits until the container is in a state.
    pub fn wait_for(&self, status: &str) {
        self.wait(status, || self.state()["status"] == status);
    }

    /// Waits for a condition.
    pub fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < LIMIT, "waited for {what} in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A file of the bundle's; empty where it is not.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let output = self.call("delete --force ID");
        let removed = fs::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            assert!(output.status.success(), "delete: {}", said(&output));
            removed.expect("remove the bundle");
        }
    }
}

/// Status and both outputs, for messages.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn config(id: &str) -> Value {
    let capabilities = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sleep", "1000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities,
                "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "case",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "network" }],
            "cgroupsPath": format!("/berth-conformance-{id}"),
        },
    })
}
