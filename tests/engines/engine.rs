//! A private Docker, a private Podman, and the image that both run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use system_tests::{image, programs};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What the image of these tests is called.
pub(crate) const IMAGE: &str = "berth/engines:1";
/// The programs in it.
const APPLETS: &str = "cat echo false grep hostname id ip kill ls mount nc nproc readlink sleep stty test \
    touch true wget";

/// One engine's command line.
pub(crate) struct Engine {
    directory: PathBuf,
    words: Vec<String>,
    daemon: Option<Child>,
}

impl Engine {
    /// A daemon of Docker's, with our runtime for everything. `None`, with the reason said, where there is none.
    pub(crate) fn docker() -> Option<Self> {
        let directory = directory("docker")?;
        if !is_installed("dockerd") {
            programs::skip("needs dockerd (docker.io)");
            return None;
        }
        let place = |name: &str| directory.join(name).display().to_string();
        let socket = format!("unix://{}", place("docker.sock"));
        let runtime = programs::berth_runtime();
        fs::write(place("daemon.json"), "{}").expect("write a configuration");
        // The network namespace is the daemon's: its bridge and rules go with it.
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--", "sh", "-c", "ip link set lo up && exec dockerd \"$@\"", "sh"])
            .args(["--config-file", &place("daemon.json"), "--host", &socket])
            .args(["--data-root", &place("data"), "--exec-root", &place("exec")])
            .args(["--pidfile", &place("pid"), "--default-runtime", "berth", "--add-runtime"])
            .arg(format!("berth={}", runtime.display()));
        let log = File::create(place("log")).expect("make a log");
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("share it")).stdout(log);
        let daemon = command.spawn().expect("start dockerd");
        let words = ["docker", "--host", &socket].map(str::to_owned).to_vec();
        let mut engine = Self { directory, words, daemon: Some(daemon) };
        engine.wait_for_the_daemon();
        engine.load();
        Some(engine)
    }

    /// Podman, with our runtime.
    pub(crate) fn podman() -> Option<Self> {
        let directory = directory("podman")?;
        if !is_installed("podman") {
            programs::skip("needs podman");
            return None;
        }
        let place = |name: &str| directory.join(name).display().to_string();
        let words = [
            "podman",
            "--root",
            &place("data"),
            "--runroot",
            &place("run"),
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            &programs::berth_runtime().display().to_string(),
        ];
        // Podman raises limits as far as it itself may go, which not every machine allows.
        fs::write(
            place("containers.conf"),
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n",
        )
        .expect("write a configuration");
        let words = words.map(str::to_owned).to_vec();
        let engine = Self { directory, words, daemon: None };
        engine.load();
        Some(engine)
    }

    fn wait_for_the_daemon(&mut self) {
        let begun = Instant::now();
        while !self.call("version").status.success() {
            let ended = self.daemon.as_mut().expect("there is one").try_wait().expect("look at it");
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(ended.is_none() && begun.elapsed() < LIMIT, "dockerd: {ended:?}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn load(&self) {
        let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
        let shell = ("bin/sh".to_owned(), 0o755, busybox.clone());
        let mut files = vec![("bin/busybox".to_owned(), 0o755, busybox), shell];
        let pause = b"#!/bin/busybox sh\nexec /bin/busybox sleep 100000\n".to_vec();
        files.push(("bin/pause".to_owned(), 0o755, pause));
        for applet in APPLETS.split_ascii_whitespace() {
            let script = format!("#!/bin/busybox sh\nexec /bin/busybox {applet} \"$@\"\n");
            files.push((format!("bin/{applet}"), 0o755, script.into_bytes()));
        }
        let files: Vec<(&str, u32, &[u8])> =
            files.iter().map(|(name, mode, bytes)| (&**name, *mode, &**bytes)).collect();
        let path = self.directory.join("image.tar");
        fs::write(&path, image::archive(IMAGE, &files)).expect("write an image");
        self.done(&format!("load -i {}", path.display()));
    }

    /// A command; its words have no blanks.
    pub(crate) fn call(&self, words: &str) -> Output {
        self.call_with(words, &[])
    }

    /// The same with more words, whatever is in them.
    pub(crate) fn call_with(&self, words: &str, more: &[&str]) -> Output {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(words.split_ascii_whitespace()).args(more);
        command.env("CONTAINERS_CONF", self.directory.join("containers.conf"));
        command.stdin(Stdio::null()).output().expect("run an engine's command line")
    }

    /// A command that has to succeed; what it said.
    pub(crate) fn done(&self, words: &str) -> String {
        self.done_with(words, &[])
    }

    /// The same with more words.
    pub(crate) fn done_with(&self, words: &str, more: &[&str]) -> String {
        let output = self.call_with(words, more);
        assert!(output.status.success(), "{words} {more:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a script in a new container, removed then; what it said.
    pub(crate) fn script(&self, options: &str, script: &str) -> String {
        self.done_with(&format!("run --rm {options} {IMAGE}"), &["sh", "-c", script])
    }

    /// Waits until a command says something.
    pub(crate) fn until(&self, words: &str, expected: &str) {
        let begun = Instant::now();
        loop {
            let said = said(&self.call(words));
            if said.contains(expected) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{words}: {said:?} instead of {expected:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file for a command.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::create_dir_all(path.parent().expect("it is in the directory"))
            .expect("make its directory");
        fs::write(&path, content).expect("write a file");
        path
    }
}

impl Engine {
    /// Takes away what an engine leaves mounted: Docker its host network, Podman its storage.
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let ours: Vec<&str> =
            places.filter(|place| Path::new(place).starts_with(&self.directory)).collect();
        for place in ours.into_iter().rev() {
            umount2(place, MntFlags::MNT_DETACH).expect("unmount what an engine has left");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = String::from_utf8_lossy(&self.call("ps -aq").stdout).into_owned();
        for id in ids.split_ascii_whitespace() {
            self.call(&format!("rm -f {id}"));
        }
        if let Some(daemon) = &mut self.daemon {
            let pid = Pid::from_raw(i32::try_from(daemon.id()).expect("a pid fits"));
            // Not reaped yet: the pid is still its own.
            kill(pid, Signal::SIGTERM).ok();
            let begun = Instant::now();
            while let Ok(None) = daemon.try_wait() {
                if begun.elapsed() > LIMIT {
                    daemon.kill().ok();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        } else {
            self.call("rmi -af");
        }
        self.unmount();
        let removed = fs::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            removed.expect("remove the engine's directory");
        }
    }
}

/// A command's status and what it said.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn directory(name: &str) -> Option<PathBuf> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    if !programs::is_root() {
        programs::skip("needs root: engines are root's");
        return None;
    }
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("berth-engines-{}-{number}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::create_dir_all(&path).expect("make a directory");
    Some(path)
}

fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join(program).exists())
}
