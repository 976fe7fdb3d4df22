//! What tests of hostile images share: layers made entry by entry, one attempt to run something on them
//! (which the supervisor refuses, or which runs to its end), and what no attempt may change on the host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::programs::attacker;
use system_tests::supervisor::{LIMIT, Supervisor, id};
use tar::{Builder, EntryType, Header};

/// What the canary holds; nothing in a container may ever read it.
pub(crate) const TOKEN: &str = "canary-4d1f";

/// A layer, entry by entry.
pub(crate) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, EntryType::Directory, mode, b"")
    }

    pub(crate) fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, mode, content)
    }

    pub(crate) fn fifo(self, path: &str) -> Self {
        self.entry(path, EntryType::Fifo, 0o666, b"")
    }

    pub(crate) fn device(mut self, path: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        let mut header = header(kind, 0o666, 0);
        header.set_device_major(major).expect("a number of seven octal digits");
        header.set_device_minor(minor).expect("a number of seven octal digits");
        self.0.append_data(&mut header, path, std::io::empty()).expect("write to memory");
        self
    }

    /// A symbolic link.
    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).expect("write to memory");
        self
    }

    /// A file with an extended attribute.
    pub(crate) fn file_with(
        mut self,
        path: &str,
        mode: u32,
        content: &[u8],
        xattr: (&str, &[u8]),
    ) -> Self {
        let name = format!("SCHILY.xattr.{}", xattr.0);
        let extensions = [(name.as_str(), xattr.1)];
        self.0.append_pax_extensions(extensions).expect("write to memory");
        self.file(path, mode, content)
    }

    fn entry(mut self, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> Self {
        let mut header = header(kind, mode, content.len());
        self.0.append_data(&mut header, path, content).expect("write to memory");
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("write to memory")
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was not started: code and words.
    Refused { code: String, message: String },
    /// It ran to its end: exit record and output.
    Ran { exit: Value, output: String },
}

impl Outcome {
    /// The output, when it ran; what was said, when it did not.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            Self::Ran { output, .. } => output,
        }
    }

    /// One word for a table.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Ran { .. } => "ran",
        }
    }

    /// The output of one that ran.
    #[track_caller]
    pub(crate) fn output(self) -> String {
        match self {
            Self::Ran { output, .. } => output,
            Self::Refused { .. } => panic!("it was to run: {self:?}"),
        }
    }
}

/// The output without the log's own columns.
pub(crate) fn plain(log: &str) -> String {
    log.lines()
        .map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// A start request for a new container of these layers above busybox.
pub(crate) fn request(berth: &Supervisor, layers: &[&str], args: &[&str]) -> Value {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("hostile {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut request = berth.start_request(&id(&name), 1, args);
    let lowest = berth.layer().to_owned();
    request["layers"] = std::iter::once(lowest.as_str()).chain(layers.iter().copied()).collect();
    request
}

/// Starts it, waits for its end, and removes the container; nothing of it is left.
pub(crate) fn attempt(berth: &Supervisor, request: &Value) -> Outcome {
    let outcome = once(berth, request);
    let container = request["container"].as_str().expect("a request names it");
    remove(berth, container);
    outcome
}

/// The same, and the container stays for another run.
pub(crate) fn once(berth: &Supervisor, request: &Value) -> Outcome {
    let answer = berth.call(request);
    if answer["answer"] == "failed" {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let (code, message) = (text("code"), text("message"));
        assert!(!code.is_empty() && !message.is_empty(), "no clear failure: {answer}");
        return Outcome::Refused { code, message };
    }
    let container = request["container"].as_str().expect("a request names it");
    let ended = |state: &Value| state["exit"].is_object() && state["status"] == "stopped";
    let exit = berth.wait_state(container, "the end", ended)["exit"].clone();
    Outcome::Ran { exit, output: plain(&berth.container_log(container)) }
}

/// Removes a container that has ended, and looks for what is left of it.
pub(crate) fn remove(berth: &Supervisor, container: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = berth.call(&json!({"op": "container_remove", "container": container}));
        // One that was never begun is not known; its monitor may still be ending.
        if answer["answer"] == "done" || answer["code"] == "container.unknown" {
            break;
        }
        assert!(Instant::now() < deadline, "it is not removed: {answer}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let left = left_of(berth, &container[..12]);
    assert!(left.is_empty(), "left of {container}: {left:?}");
}

/// Files, cgroups and mounts whose names hold this.
fn left_of(berth: &Supervisor, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in [berth.data_dir(), berth.run_dir()] {
        collect(&top, 3, &mut found);
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        collect(&hierarchy.path().join(&berth.instance), 4, &mut found);
    }
    collect(&Path::new("/sys/fs/cgroup").join(&berth.instance), 4, &mut found);
    found.retain(|path| path.to_string_lossy().contains(name));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(PathBuf::from));
    found
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, depth - 1, found);
        }
        found.push(path);
    }
}

/// What no attempt may change: a canary outside of every container, what the host runs by, mounts.
pub(crate) struct Host {
    /// A directory with files that no container may reach.
    pub canary: PathBuf,
    before: Vec<String>,
}

/// Files of the host that attacks aim at.
const TARGETS: [&str; 8] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld.so.preload",
];

impl Host {
    /// What [`Host::new`] has seen.
    pub(crate) const CONTROL: &str = "a file that is added to the canary shows";

    /// As it is now, with a new canary beside the instance.
    pub(crate) fn new(berth: &Supervisor) -> Self {
        let canary = berth.dir.join("canary");
        fs::create_dir_all(canary.join("inner")).expect("make the canary");
        for name in ["token", "null", "console", "inner/token"] {
            fs::write(canary.join(name), TOKEN).expect("write the canary");
        }
        let before = facts(&canary);
        let this = Self { canary, before };
        let probe = this.canary.join("probe");
        fs::write(&probe, "x").expect("write to the canary");
        assert!(!this.changes().is_empty(), "a change shows");
        fs::remove_file(probe).expect("remove it again");
        this
    }

    /// What differs from before, line by line.
    pub(crate) fn changes(&self) -> Vec<String> {
        let now = facts(&self.canary);
        let gone = self.before.iter().filter(|line| !now.contains(line)).map(|l| format!("- {l}"));
        let new = now.iter().filter(|line| !self.before.contains(line)).map(|l| format!("+ {l}"));
        gone.chain(new).collect()
    }
}

fn facts(canary: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> = TARGETS.map(PathBuf::from).into();
    files.push(canary.to_owned());
    collect(canary, 5, &mut files);
    let mut lines: Vec<String> = files.iter().map(|path| describe(path)).collect();
    // What else the host mounts meanwhile is not ours to judge.
    let tops = ["/proc", "/dev", "/etc", "/root", canary.to_str().expect("it is UTF-8")];
    let mounts = fs::read_to_string("/proc/1/mountinfo").expect("read the host's mounts");
    let place = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_owned();
    let ours = |line: &&str| tops.iter().any(|top| place(line).starts_with(top));
    lines.extend(mounts.lines().filter(ours).map(str::to_owned));
    lines
}

fn describe(path: &Path) -> String {
    let Ok(facts) = fs::symlink_metadata(path) else { return format!("{} absent", path.display()) };
    let content = if facts.is_file() { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let content = String::from_utf8_lossy(&content).into_owned();
    let shown = (facts.mode(), facts.uid(), facts.gid(), facts.ino(), facts.nlink(), content);
    format!("{} {shown:?}", path.display())
}

/// A layer with the attacker in it.
pub(crate) fn attacker_layer(berth: &Supervisor) -> String {
    berth.unpack(&Layer::new().file("attacker", 0o755, attacker()).bytes())
}

/// A `docker save` archive of these layers with this `config`.
pub(crate) fn archive(reference: &str, config: &Value, layers: &[&[u8]]) -> Vec<u8> {
    let digests = layers.iter().map(|layer| format!("sha256:{}", hex(&Sha256::digest(layer))));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests.collect::<Vec<_>>()},
    });
    let config = config.to_string();
    let name = format!("{}.json", hex(&Sha256::digest(config.as_bytes())));
    let names: Vec<String> = (0..layers.len()).map(|index| format!("layer{index}.tar")).collect();
    let manifest = json!([{"Config": name, "RepoTags": [reference], "Layers": names}]);
    let mut archive = Layer::new();
    for (name, layer) in names.iter().zip(layers) {
        archive = archive.file(name, 0o644, layer);
    }
    let manifest = manifest.to_string();
    archive
        .file(&name, 0o644, config.as_bytes())
        .file("manifest.json", 0o644, manifest.as_bytes())
        .bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
