//! R12: the posture of a container with everything left at its default, read from the host's `/proc` and
//! compared line by line with `posture.golden`: a protection that is lost, or added, shows here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use system_tests::supervisor::{PERSON, Supervisor};
use system_tests::{Check, requires_root};

const GOLDEN: &str = include_str!("posture.golden");

/// Lines of `/proc/<pid>/status` that say what the process may do.
const STATUS: [&str; 13] = [
    "Uid",
    "Gid",
    "Groups",
    "NStgid",
    "NSsid",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Threads",
];

struct Seen<'a> {
    pid: i32,
    container: &'a str,
    instance: &'a str,
    first: u32,
}

impl Seen<'_> {
    fn read(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Without what differs from run to run.
    fn general(&self, text: &str) -> String {
        let words = text.split_whitespace().map(|word| match word.parse::<u32>() {
            Ok(id) if id >= self.first && id - self.first < 65_536 => {
                format!("FIRST+{}", id - self.first)
            }
            Ok(pid) if i64::from(pid) == i64::from(self.pid) => "PID".to_owned(),
            _ => word.replace(self.container, "CONTAINER").replace(self.instance, "INSTANCE"),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn status(&self) -> Vec<String> {
        let text = self.read("status");
        let wanted =
            |line: &&str| line.split_once(':').is_some_and(|(name, _)| STATUS.contains(&name));
        text.lines().filter(wanted).map(|line| self.general(line)).collect()
    }

    /// Place, the mount's own options, and the type; of masks, which depend on what the host has, only
    /// that each is one.
    fn mounts(&self) -> Vec<String> {
        let row = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let dash = words.iter().position(|word| *word == "-").expect("a separator");
            let (place, options, kind) = (words[4], words[5], words[dash + 1]);
            let shared = words[6..dash].iter().any(|word| word.starts_with("shared"));
            let propagation = if shared { "SHARED" } else { "private" };
            let below =
                |top: &str| place.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
            let protected = below("/proc") || below("/sys");
            let mask = protected && (kind == "tmpfs" || words[3] == "/null");
            if mask {
                assert!(words[3] == "/null" || options.starts_with("ro"), "no mask: {line}");
                return None;
            }
            // The unified hierarchy's view is there where the host has no other.
            if place == "/sys/fs/cgroup" && kind == "cgroup2" {
                assert!(options.starts_with("ro"), "its cgroups are writable: {line}");
                return None;
            }
            // Proc's own directories that are made read-only: which there are depends on the host.
            if protected && kind == "proc" && options.starts_with("ro") && place != "/proc/sys" {
                return None;
            }
            Some(format!("mount {place} {kind} {options} {propagation}"))
        };
        let mut mounts: Vec<String> = self.read("mountinfo").lines().filter_map(row).collect();
        mounts.sort();
        mounts
    }

    fn namespaces(&self) -> Vec<String> {
        let own = |kind: &str| {
            let link = |pid: &str| {
                fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("read a namespace")
            };
            let is =
                if link(&self.pid.to_string()) == link("self") { "the host's" } else { "its own" };
            format!("namespace {kind} {is}")
        };
        ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"].map(own).into()
    }

    fn limits(&self) -> Vec<String> {
        let text = self.read("limits");
        let wanted = ["Max core file size", "Max locked memory"];
        text.lines()
            .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("limit {}", self.general(line)))
            .collect()
    }

    fn all(&self) -> String {
        let mut lines = self.status();
        for name in ["uid_map", "gid_map", "setgroups", "oom_score_adj"] {
            lines.push(format!("{name} {}", self.general(&self.read(name))));
        }
        let cgroups: BTreeSet<String> = self
            .read("cgroup")
            .lines()
            .filter_map(|line| line.rsplit(':').next())
            .filter(|path| path.contains(self.container))
            .map(|path| self.general(Path::new(path).to_str().expect("it is UTF-8")))
            .collect();
        lines.extend(cgroups.into_iter().map(|path| format!("cgroup {path}")));
        lines.extend(self.namespaces());
        lines.extend(self.limits());
        lines.extend(self.mounts());
        let mut descriptors: Vec<String> = fs::read_dir(format!("/proc/{}/fd", self.pid))
            .expect("list descriptors")
            .flatten()
            .map(|entry| {
                let target = fs::read_link(entry.path()).expect("read a descriptor");
                let target = target.to_string_lossy().into_owned();
                let kind = target.split(':').next().unwrap_or_default();
                format!("descriptor {} {kind}", entry.file_name().to_string_lossy())
            })
            .collect();
        descriptors.sort();
        lines.extend(descriptors);
        lines.join("\n") + "\n"
    }
}

#[test]
fn a_default_container_is_as_the_golden_file_says() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("posture", &["sleep", "1000"]);
    let map = fs::read_to_string(format!("/proc/{}/uid_map", run.pid())).expect("read its id map");
    let first = map.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("the first id");
    let seen = Seen { pid: run.pid(), container: &run.container, instance: &berth.instance, first };
    let observed = seen.all();
    assert!(observed.contains(&format!("/p{PERSON}/")), "its cgroup is its owner's: {observed}");
    for (golden, line) in GOLDEN.lines().zip(observed.lines()) {
        assert_eq!(line, golden, "all of it:\n{observed}");
    }
    // The control: this very process, by the same reading, is not so.
    let own = Seen {
        pid: i32::try_from(std::process::id()).expect("a pid fits"),
        container: "-",
        instance: "-",
        first: u32::MAX,
    };
    let status = own.status();
    let differing = status.iter().filter(|line| !GOLDEN.contains(line.as_str())).count();
    assert!(differing >= 5, "the control differs: {status:?}");
    let control = format!(
        "a process of the host differs in {differing} of {} lines of its status",
        status.len()
    );
    Check { id: "R12", variant: "posture", control: &control }.sees(GOLDEN, observed);
}
