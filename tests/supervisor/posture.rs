//! R12: the posture of a container with everything left at its default, read from the host's `/proc` and
//! compared line by line with `posture.golden`: a protection that is lost, or added, shows here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;
use system_tests::supervisor::{PERSON, Supervisor};
use system_tests::{Check, requires_root};

use crate::execs::{Exec, exec_request};

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

/// What differs between two processes of one container by nature: their own numbers and streams.
fn comparable(seen: &Seen<'_>) -> Vec<String> {
    let own = ["NStgid", "NSsid", "descriptor"];
    let lines: Vec<String> = seen.all().lines().map(str::to_owned).collect();
    lines.into_iter().filter(|line| !own.iter().any(|name| line.starts_with(name))).collect()
}

/// The one process of a container whose command is `command`, by the host's number.
fn host_pid(container: &str, command: &str) -> i32 {
    let deadline = std::time::Instant::now() + system_tests::supervisor::LIMIT;
    loop {
        for entry in fs::read_dir("/proc").expect("list processes").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<i32>() else { continue };
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            if read("cmdline").replace('\0', " ").trim() == command
                && read("cgroup").contains(container)
            {
                return pid;
            }
        }
        assert!(std::time::Instant::now() < deadline, "{command} does not run");
    }
}

/// R01 to R05, R12, R15 for later programs: whatever holds the first one holds them, line by line.
#[test]
fn a_later_program_is_held_by_all_that_holds_the_first() {
    requires_root!();
    let berth = Supervisor::start();
    for (name, dropped) in [("usual", json!([])), ("bare", json!(["ALL"]))] {
        let mut request = berth.start_request(&system_tests::supervisor::id(name), 1, &[]);
        request["process"]["args"] = json!(["sleep", "1000"]);
        request["process"]["capabilities_dropped"] = dropped;
        request["process"]["ulimits"] = json!({"nofile": {"soft": 99, "hard": 99}});
        let run = berth.started(&request);
        let map = fs::read_to_string(format!("/proc/{}/uid_map", run.pid())).expect("its id map");
        let first = map.split_whitespace().nth(1).and_then(|id| id.parse().ok());
        let first = first.expect("the first id");
        let seen = |pid| Seen { pid, container: &run.container, instance: &berth.instance, first };
        let init = comparable(&seen(run.pid()));
        // The control: what only enters the namespaces has every capability and no filter.
        let mut entered = std::process::Command::new("nsenter")
            .args(["-t", &run.pid().to_string(), "-a", "/bin/busybox", "sleep", "1234"])
            .spawn()
            .expect("run nsenter");
        let pid = i32::try_from(entered.id()).expect("a pid fits");
        let inside = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let inside = inside.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(pid);
        let status = seen(inside).status();
        let control = "a process that has only entered the namespaces has no filter";
        let loose = status.iter().any(|line| line == "Seccomp: 0");
        entered.kill().expect("it runs");
        entered.wait().expect("it is our child");
        assert!(loose, "{control}: {status:?}");
        for (number, terminal) in [(1, json!(null)), (2, json!({"columns": 80, "rows": 24}))] {
            let command = format!("sleep 200{number}");
            let args: Vec<&str> = command.split(' ').collect();
            let mut request = exec_request(&run.container, number, &args);
            request["terminal"] = terminal;
            let exec = Exec::start(&berth, &request);
            let later = seen(host_pid(&run.container, &command));
            let variant = format!("a later program, {name}, {number}");
            Check { id: "R12", variant: &variant, control }
                .sees(init.join("\n"), comparable(&later).join("\n"));
            let text = later.read("limits");
            let files = text.lines().find(|line| line.starts_with("Max open files"));
            let files = files.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            Check { id: "R12", variant: &format!("{variant}, its own limits"), control }
                .sees("Max open files 99 99 files", files.unwrap_or_default());
            let open: Vec<String> = later
                .all()
                .lines()
                .filter(|line| line.starts_with("descriptor"))
                .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
                .collect();
            Check { id: "R02", variant: &format!("{variant}, descriptors"), control }
                .sees("descriptor 0,descriptor 1,descriptor 2", open.join(","));
            drop(exec);
        }
    }
}

/// R03 for later programs: a working directory that leads out is refused (CVE-2024-21626).
#[test]
fn a_later_program_has_no_directory_of_the_hosts() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("directories", &["sleep", "1000"]);
    let mut number = 0;
    let mut start = |cwd: &str| {
        number += 1;
        let mut request = exec_request(&run.container, number, &["true"]);
        request["cwd"] = json!(cwd);
        berth.call_with(&request, &[]).0
    };
    assert_eq!(start("/tmp")["answer"], "exec_started", "the control: an honest one runs");
    let descriptors = (0..64).map(|fd| format!("/proc/self/fd/{fd}"));
    let others = ["/proc/self/cwd", "/proc/1/root", "/proc/self/root", "/proc/self/fd/7/../../.."];
    for cwd in descriptors.chain(others.map(str::to_owned)) {
        let answer = start(&cwd);
        let control = "an honest directory is entered";
        let code = answer["code"].as_str().unwrap_or("entered");
        Check { id: "R03", variant: &format!("a later program in {cwd}"), control }
            .sees("container.working-directory", code);
    }
}
