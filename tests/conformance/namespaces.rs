//! config-linux.md, "Namespaces": those that are joined by their path, and those that are not there.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::case::{Case, is_berths};

/// The name that the kernel has for each kind.
const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// A namespace of a process: what `/proc/PID/ns` shows.
fn of(pid: impl std::fmt::Display, name: &str) -> String {
    let path = format!("/proc/{pid}/ns/{name}");
    fs::read_link(path).expect("the process has the namespace").display().to_string()
}

/// The path of a namespace of a running container, for another to join.
fn path_of(case: &Case, name: &str) -> String {
    format!("/proc/{}/ns/{name}", case.state()["pid"])
}

/// Makes the case join the namespaces of these kinds, and have new ones of the others that it had.
fn joining(case: Case, other: &Case, kinds: &[&str]) -> Case {
    let mut list: Vec<Value> =
        case.config["linux"]["namespaces"].as_array().expect("a list").clone();
    for (kind, name) in KINDS.iter().filter(|(kind, _)| kinds.contains(kind)) {
        list.retain(|entry| entry["type"] != *kind);
        list.push(json!({ "type": kind, "path": path_of(other, name) }));
    }
    case.with("/linux/namespaces", list.into())
}

/// A case without the namespace of this kind.
fn without(case: Case, kind: &str) -> Case {
    let mut list = case.config["linux"]["namespaces"].as_array().expect("a list").clone();
    list.retain(|entry| entry["type"] != kind);
    let case = case.with("/linux/namespaces", list.into());
    match kind {
        "uts" => {
            let mut case = case;
            case.config.as_object_mut().expect("an object").remove("hostname");
            case
        }
        _ => case,
    }
}

/// The places of mounts, which the root of a user namespace cannot make in a root of the host's.
fn with_places(case: Case) -> Case {
    for name in ["proc", "dev"] {
        fs::create_dir(case.directory.join("rootfs").join(name)).expect("make a directory");
    }
    case
}

fn processes_of(case: &Case) -> Vec<u64> {
    serde_json::from_str(&case.done("ps --format json ID")).expect("JSON")
}

/// `path`: the process is in the namespace that the path leads to; the others are new.
#[test]
fn each_kind_can_be_joined_by_path() {
    let Some(first) = Case::new("ns-first") else { return };
    let all: Vec<Value> = KINDS
        .iter()
        .filter(|(kind, _)| !["mount", "user", "time"].contains(kind))
        .map(|(kind, _)| json!({ "type": kind }))
        .chain([json!({ "type": "mount" })])
        .collect();
    let first = first.with("/linux/namespaces", all.into()).started();
    let pid = first.state()["pid"].clone();
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        let Some(case) = Case::new(&format!("ns-{kind}")) else { return };
        let case = joining(case, &first, &[kind]).started();
        let own = case.state()["pid"].clone();
        for (other, name) in KINDS {
            let same = of(&own, name) == of(&pid, name);
            let hosts = of(&own, name) == of("self", name);
            match other {
                _ if other == kind => assert!(same && !hosts, "{kind}: {name}"),
                // Nobody has asked for others.
                "user" | "time" | "cgroup" => assert!(hosts, "{kind}: {name}"),
                _ => assert!(!same && !hosts, "{kind}: {name}"),
            }
        }
        let shown = case.done(&format!("exec ID readlink /proc/self/ns/{}", last(kind)));
        assert_eq!(shown.trim(), of(&pid, last(kind)), "exec goes there too");
    }
}

fn last(kind: &str) -> &str {
    KINDS.iter().find(|(one, _)| *one == kind).map_or(kind, |(_, name)| name)
}

/// All of a pod's at once, as podman's pods have them; sysctls of a namespace that is joined are its own.
#[test]
fn a_pod_shares_pid_network_ipc_and_uts() {
    let Some(first) = Case::new("pod-first") else { return };
    let first = first.started();
    let Some(case) = Case::new("pod-second") else { return };
    let kinds = ["pid", "network", "ipc", "uts"];
    let case = joining(case, &first, &kinds).with("/hostname", "second".into());
    let sysctl = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "77" });
    let case = case.with("/linux/sysctl", sysctl).started();
    let read =
        |case: &Case, file: &str| case.done(&format!("exec ID cat {file}")).trim().to_owned();
    assert_eq!(read(&first, "/proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(read(&first, "/proc/sys/kernel/shmmni"), "77");
    assert_eq!(first.done("exec ID hostname"), "second\n");
    let names = first.done("exec ID ls /proc");
    let count = names.lines().filter(|name| name.parse::<u32>().is_ok()).count();
    assert!(count >= 3, "it sees the other's process beside its own two: {names}");
    // SIGKILL ends this container's processes and no other's.
    let mut command = case.command(&["exec", "--detach", &case.id, "/bin/sleep", "1000"]);
    assert!(command.stdout(Stdio::null()).status().expect("run the runtime").success());
    assert_eq!(processes_of(&case).len(), 2);
    case.done("kill ID KILL");
    case.wait_for("stopped");
    if is_berths() {
        // runc before 1.2 signals the first process alone.
        case.wait("the end of both", || processes_of(&case).is_empty());
    }
    assert_eq!(first.state()["status"], "running");
    assert_eq!(processes_of(&first).len(), 1);
}

/// A user namespace that is joined has its mappings; what is made new belongs to it.
#[test]
fn a_user_namespace_can_be_joined() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc 1.1 wants mappings beside the path");
        return;
    }
    let Some(first) = Case::new("user-first") else { return };
    let maps = json!([{ "containerID": 0, "hostID": 700_000, "size": 1000 }]);
    let first = first.with("/linux/uidMappings", maps.clone()).with("/linux/gidMappings", maps);
    let first = first.with("/linux/namespaces/-", json!({ "type": "user" }));
    let first = with_places(first).started();
    let Some(case) = Case::new("user-second") else { return };
    let case = joining(with_places(case), &first, &["user"]);
    let user = json!({ "uid": 7, "gid": 8 });
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 });
    let outside = case.directory.join("outside");
    fs::write(&outside, "").expect("write a file");
    std::os::unix::fs::chown(&outside, Some(3), Some(4)).expect("change the owner");
    let mount = json!({ "destination": "/dev/out", "type": "bind", "source": outside,
        "options": ["rbind", "idmap"] });
    let case = case.with("/mounts/-", mount);
    let case = case.with("/process/user", user).with("/process/rlimits", json!([limit])).started();
    assert_eq!(case.done("exec ID stat -c %u:%g /dev/out"), "3:4\n", "idmap takes its maps");
    let pid = case.state()["pid"].clone();
    assert_eq!(of(&pid, "user"), of(&first.state()["pid"], "user"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("Uid:\t700007\t700007\t"), "{status}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    assert!(limits.contains("Max open files            100                  200"), "{limits}");
    let program = "exec ID cat /proc/self/uid_map";
    assert_eq!(case.done(program).split_whitespace().last(), Some("1000"));
    let Some(mapped) = Case::new("user-mapped") else { return };
    let maps = json!([{ "containerID": 0, "hostID": 700_000, "size": 1000 }]);
    let mapped = joining(mapped, &first, &["user"]).with("/linux/uidMappings", maps.clone());
    let said = mapped.with("/linux/gidMappings", maps).create_refused();
    assert!(said.contains("linux.uidMappings"), "{said}");
}

/// "The runtime MUST generate an error if path is not associated with a namespace of type `type`".
#[test]
fn a_path_that_is_no_such_namespace_is_refused() {
    for (number, (kind, path)) in [
        ("network", "/proc/1/ns/ipc"),
        ("ipc", "/proc/self/status"),
        ("pid", "/nosuch"),
        ("uts", "/tmp"),
        ("time", "/proc/self/ns/mnt"),
        ("mount", "/proc/1/ns/cgroup"),
    ]
    .into_iter()
    .enumerate()
    {
        let Some(case) = Case::new(&format!("ns-bad-{number}")) else { return };
        let case = without(case, kind).with("/mounts", json!([]));
        let count = case.config["linux"]["namespaces"].as_array().expect("a list").len();
        let entry = json!({ "type": kind, "path": path });
        let said = case.with("/linux/namespaces/-", entry).create_refused();
        if is_berths() {
            let field = format!("linux.namespaces[{count}].path");
            for part in [&*field, path, &format!("a {kind} namespace")] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }
}

/// A path to the runtime's own namespace is the same as none: nothing of it is the container's.
#[test]
fn sysctls_of_a_namespace_that_is_the_hosts_are_refused() {
    for (number, entry) in [None, Some(json!({ "type": "network", "path": "/proc/self/ns/net" }))]
        .into_iter()
        .enumerate()
    {
        let Some(case) = Case::new(&format!("ns-host-sysctl-{number}")) else { return };
        let case = without(case, "network");
        let case = match entry {
            Some(entry) => case.with("/linux/namespaces/-", entry),
            None => case,
        };
        let now = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("the host has it");
        let sysctl = json!({ "net.ipv4.ip_forward": now.trim() });
        case.with("/linux/sysctl", sysctl).create_refused();
    }
}

/// "If a namespace type is not specified in the namespaces array, the container MUST inherit the runtime
/// namespace of that type": each of those that can be left out.
#[test]
fn a_kind_that_is_not_named_is_the_runtimes() {
    for kind in ["network", "ipc", "uts", "pid"] {
        let Some(case) = Case::new(&format!("ns-none-{kind}")) else { return };
        let case = without(case, kind).started();
        let pid = case.state()["pid"].clone();
        assert_eq!(of(&pid, last(kind)), of("self", last(kind)), "{kind}");
        let shown = case.done(&format!("exec ID readlink /proc/self/ns/{}", last(kind)));
        assert_eq!(shown.trim(), of("self", last(kind)), "{kind}: exec");
    }
}

/// Without a pid namespace nobody ends with the first process: SIGKILL and `delete` end the rest.
#[test]
fn a_container_in_the_hosts_pid_namespace_is_ended_whole() {
    let script = "sleep 1000 & sleep 1000 & (trap '' TERM; sleep 1000) & exec sleep 1000";
    for how in ["kill ID KILL", "delete --force ID", "kill --all ID KILL"] {
        if !is_berths() && how == "kill ID KILL" {
            // runc before 1.2 signals the first process alone.
            continue;
        }
        let name = format!("pid-host-{}", how.replace([' ', '-'], ""));
        let Some(case) = Case::new(&name) else { return };
        let case = without(case, "pid").script(script).started();
        case.wait("all processes", || processes_of(&case).len() >= 4);
        let pids = processes_of(&case);
        case.done(how);
        let gone = |pid: &u64| !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(*pid);
        case.wait("the end of all", || pids.iter().all(gone));
    }
    // And when the first process ends by itself.
    let Some(case) = Case::new("pid-host-end") else { return };
    let case = without(case, "pid").script("sleep 1000 & exit 0").started();
    case.wait_for("stopped");
    let pids = processes_of(&case);
    assert_eq!(pids.len(), 1, "the other runs on");
    case.done("delete ID");
    let gone = !Path::new(&format!("/proc/{}", pids[0])).exists() || is_zombie(pids[0]);
    assert!(gone, "delete has ended it");
}

fn is_zombie(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// `run` in the foreground leaves nothing behind, whatever the program has started.
#[test]
fn run_in_the_hosts_pid_namespace_leaves_no_process() {
    let Some(case) = Case::new("pid-host-run") else { return };
    let case = without(case, "pid").script("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!");
    let pid: u64 = case.run().trim().parse().expect("a process id");
    assert!(!Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid));
}

/// A cgroup namespace that is joined, and a mount of cgroups with it: its root is the other's cgroup.
#[test]
fn a_cgroup_mount_in_a_namespace_that_is_joined_shows_its_root() {
    let Some(first) = Case::new("cgroup-first") else { return };
    let first = first.with("/linux/namespaces/-", json!({ "type": "cgroup" })).started();
    let Some(case) = Case::new("cgroup-second") else { return };
    let sys = json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"] });
    let cgroup = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "ro"] });
    let case = joining(case, &first, &["cgroup", "pid"]);
    let case = case.with("/mounts/-", sys).with("/mounts/-", cgroup);
    let script = "cd /sys/fs/cgroup; cat $(test -d pids && echo pids/)cgroup.procs | wc -l; \
        read -r line </proc/self/cgroup; echo $line";
    let case = case.script(script);
    let text = case.run();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1", "the first's process: {text}");
    assert!(lines[1].ends_with(&format!("/../berth-conformance-{}", case.id)), "{text}");
}

/// A mount namespace that is joined: the root is a place in it, and it stays as it is. Others mount there.
#[test]
fn a_mount_namespace_that_is_joined_stays_as_it_is() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: other runtimes mount in the namespace that they join");
        return;
    }
    let Some(first) = Case::new("mnt-first") else { return };
    let first = first.started();
    let mounts =
        |case: &Case| fs::read_to_string(format!("/proc/{}/mountinfo", case.state()["pid"]));
    let before = mounts(&first).expect("it runs");
    let Some(case) = Case::new("mnt-second") else { return };
    let case = joining(case, &first, &["mount"]);
    let said = case.create_refused();
    assert!(said.contains("mounts") && said.contains("stays as it is"), "{said}");
    let case = case.with("/mounts", json!([])).with("/root/path", "/bin".into());
    let case = case.with("/process/args", json!(["/busybox", "sleep", "1000"])).started();
    assert_eq!(mounts(&first).expect("it runs"), before);
    assert_eq!(of(&case.state()["pid"], "mnt"), of(&first.state()["pid"], "mnt"));
    let names = case.done("exec ID /busybox ls /");
    assert!(names.lines().any(|name| name == "busybox") && !names.contains("proc"), "{names}");
}

/// Without a mount namespace every mount would be one of the host's. Others go on and mount there.
#[test]
fn the_hosts_mount_namespace_is_refused() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: other runtimes mount in the host's namespace");
        return;
    }
    let Some(case) = Case::new("mnt-none") else { return };
    let case = without(case, "mount");
    assert!(case.create_refused().contains("without a mount namespace"));
    let entry = json!({ "type": "mount", "path": "/proc/self/ns/mnt" });
    let case = case.with("/linux/namespaces/-", entry).with("/mounts", json!([]));
    assert!(case.create_refused().contains("it is the host's"));
}

/// config-linux.md, "Offset for Time Namespace".
#[test]
fn the_clocks_of_a_time_namespace_are_set() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc 1.1 has no time namespaces");
        return;
    }
    let Some(case) = Case::new("time") else { return };
    let offsets = json!({ "monotonic": { "secs": 172_800 },
        "boottime": { "secs": 86400, "nanosecs": 5 } });
    let script = "cat /proc/self/timens_offsets; read -r up rest </proc/uptime; echo $up";
    let case = case.with("/linux/timeOffsets", offsets).script(script);
    assert!(case.create_refused().contains("linux.timeOffsets"), "they would be the host's");
    let uptime = fs::read_to_string("/proc/uptime").expect("the host's");
    let uptime: f64 = uptime.split(' ').next().expect("a number").parse().expect("a number");
    let case = case.with("/linux/namespaces/-", json!({ "type": "time" }));
    let text = case.run();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "172800", "0", "boottime", "86400", "5"], "{text}");
    let seen: f64 = words[6].parse().expect("a number");
    assert!((86_400.0..86_500.0).contains(&(seen - uptime)), "{seen} {uptime}");
    let case = case.with("/process/args", json!(["/bin/sleep", "1000"])).started();
    let text = case.done("exec ID cat /proc/uptime");
    let seen: f64 = text.split(' ').next().expect("a number").parse().expect("a number");
    assert!((86_400.0..86_500.0).contains(&(seen - uptime)), "exec: {seen} {uptime}");
    case.done("delete --force ID");
    let offsets = json!({ "realtime": { "secs": 1 } });
    let case = case.with("/linux/timeOffsets", offsets);
    assert!(case.create_refused().contains("realtime"));
}
