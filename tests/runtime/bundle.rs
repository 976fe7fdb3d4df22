//! Bundles: a busybox root that belongs to an id range, and the command line on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::fchownat;
use serde_json::Value;
use system_tests::programs;

/// First host id of the range of these tests; no person's of any instance.
pub const FIRST_ID: u32 = 1_900_019_712;
/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A bundle in a directory of its own, and everything made from it.
pub struct Bundle {
    directory: PathBuf,
    name: String,
}

/// Says why a test is skipped; these need root, and nothing else that can be absent.
pub fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED runtime: needs root");
    }
    root
}

/// The runtime under test.
pub fn runtime() -> PathBuf {
    match std::env::var_os("BERTH_RUNTIME_BIN") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/berth-runtime"),
    }
}

fn busybox() -> PathBuf {
    let places = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from);
    let found = programs::companion("busybox").into_iter().chain(places).find(|path| path.exists());
    found.expect("busybox-static is installed")
}

impl Bundle {
    /// A busybox root in the test range, with the default profile's configuration.
    pub fn new(name: &str) -> Self {
        let name = format!("berth-test-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let bundle = Self { directory, name };
        let bin = bundle.root("bin");
        fs::create_dir_all(&bin).expect("make the root");
        programs::copy(&busybox(), &bin.join("busybox"));
        let applets = "sh cat chmod cp cut dd echo env grep head id kill ln ls mkdir mkfifo mknod mount \
            mv ps pwd readlink rm sed sleep stat test touch tr true umount unshare wc";
        for applet in applets.split_whitespace() {
            symlink("busybox", bin.join(applet)).expect("link an applet");
        }
        fs::create_dir(bundle.root("etc")).expect("make /etc");
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:33:44::/srv/app:/bin/sh\n";
        fs::write(bundle.root("etc/passwd"), passwd).expect("write /etc/passwd");
        let group = "root:x:0:\napp:x:44:\nextra:x:55:root,app\nmore:x:66:app\n";
        fs::write(bundle.root("etc/group"), group).expect("write /etc/group");
        bundle.own();
        let first = FIRST_ID.to_string();
        let made = bundle.command(&["spec", "--bundle", bundle.path(), "--first-id", &first]);
        assert!(made.status.success(), "{}", said(&made));
        let path = format!("/berth-test/{}", bundle.name);
        bundle.change(|config| config["linux"]["cgroupsPath"] = path.into());
        bundle
    }

    /// Gives everything in the root to the range.
    pub fn own(&self) {
        give(&self.root(""));
    }

    fn path(&self) -> &str {
        self.directory.to_str().expect("temporary paths are UTF-8")
    }

    /// A file of the bundle's directory, outside of the root.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A path in the root, from the host.
    pub fn root(&self, path: &str) -> PathBuf {
        self.directory.join("rootfs").join(path)
    }

    /// The bundle's directory, as the command line takes it.
    pub fn directory(&self) -> &str {
        self.path()
    }

    /// The configuration.
    pub fn config(&self) -> Value {
        let text = fs::read(self.directory.join("config.json")).expect("read the configuration");
        serde_json::from_slice(&text).expect("the configuration is JSON")
    }

    /// Changes the configuration.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.directory.join("config.json");
        let text = fs::read(&path).expect("read the configuration");
        let mut config = serde_json::from_slice(&text).expect("the configuration is JSON");
        change(&mut config);
        fs::write(&path, config.to_string()).expect("write the configuration");
    }

    /// Sets the program.
    pub fn program(&self, arguments: &[&str]) {
        self.change(|config| config["process"]["args"] = arguments.into());
    }

    /// The command line with this bundle's state directory; standard input is empty.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.start_command(arguments).wait_with_output().expect("wait for the runtime")
    }

    /// The same, without waiting.
    pub fn start_command(&self, arguments: &[&str]) -> std::process::Child {
        Command::new(runtime())
            .arg("--root")
            .arg(self.directory.join("state"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run the runtime")
    }

    /// Runs a script in a new container to its end.
    pub fn run(&self, script: &str) -> Output {
        self.program(&["sh", "-c", script]);
        self.command(&["run", "--bundle", self.path(), &self.name])
    }

    /// Creates a container whose output goes to a file, since a waiting one keeps a pipe open.
    pub fn create(&self) -> Output {
        self.create_by(Command::new(runtime()))
    }

    /// The same by another command line before the arguments.
    pub fn create_by(&self, mut command: Command) -> Output {
        let log = self.outside("output");
        let error = fs::File::create(self.outside("error")).expect("make a file");
        let status = command
            .arg("--root")
            .arg(self.directory.join("state"))
            .args(["create", "--bundle", self.path(), &self.name])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log).expect("make a file"))
            .stderr(error)
            .status()
            .expect("run the runtime");
        let stderr = fs::read(self.outside("error")).expect("read the error");
        Output { status, stdout: Vec::new(), stderr }
    }

    /// Creates and starts a container that sleeps.
    pub fn sleep(&self) {
        self.program(&["sleep", "1000"]);
        self.succeed(self.create());
        self.succeed(self.command(&["start", &self.name]));
    }

    /// Runs a script in the container that runs.
    pub fn exec(&self, options: &[&str], script: &str) -> Output {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        arguments.extend([self.name.as_str(), "sh", "-c", script]);
        self.command(&arguments)
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `state`, as JSON.
    pub fn state(&self) -> Value {
        let output = self.command(&["state", &self.name]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).expect("the state is JSON")
    }

    /// The first process, as the host numbers it.
    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().expect("a pid")
    }

    /// Waits until the container is in a state.
    pub fn wait_for(&self, status: &str) {
        let begin = Instant::now();
        while self.state()["status"] != status {
            assert!(begin.elapsed() < LIMIT, "not {status}: {}", self.state());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the program of [`Self::create`] has written this.
    pub fn wait_for_output(&self, text: &str) {
        let begin = Instant::now();
        let path = self.outside("output");
        while std::fs::read_to_string(&path).expect("read the output") != text {
            assert!(begin.elapsed() < LIMIT, "it has not said {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails the test unless the command succeeded; its output.
    pub fn succeed(&self, output: Output) -> String {
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("output is UTF-8")
    }

    /// Fails the test unless the command failed and said this.
    pub fn refuse(&self, output: Output, words: &str) {
        assert!(!output.status.success(), "was to be refused for {words:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{words:?} is not in: {}", said(&output));
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let output = self.command(&["delete", "--force", &self.name]);
        let removed = fs::remove_dir_all(&self.directory);
        // The directory above this test's cgroups; another test may still be in it.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let shared = hierarchy.path().join("berth-test");
            let gone = fs::remove_dir(&shared);
            drop(gone);
        }
        drop(fs::remove_dir("/sys/fs/cgroup/berth-test"));
        if !std::thread::panicking() {
            assert!(output.status.success(), "delete: {}", said(&output));
            removed.expect("remove the bundle");
        }
    }
}

/// Both outputs, for messages.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Gives a tree to the range, without following links.
pub fn give(path: &Path) {
    let (id, flags) = (FIRST_ID, AtFlags::AT_SYMLINK_NOFOLLOW);
    fchownat(AT_FDCWD, path, Some(id.into()), Some(id.into()), flags).expect("give to the range");
    if fs::symlink_metadata(path).expect("inspect").is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            give(&entry.expect("list").path());
        }
    }
}
