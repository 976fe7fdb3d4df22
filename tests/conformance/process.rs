//! config.md, "Linux Process", and config-linux.md: what a process gets of processors, disks and memory,
//! and its personality. runc has these from 1.2 on, crun some; older ones pass them over.

use std::fs;

use serde_json::{Value, json};

use crate::case::{Case, is_passed_over};

/// A case, unless the runtime is one that is known to pass these properties over.
fn case(name: &str) -> Option<Case> {
    if is_passed_over() { None } else { Case::new(name) }
}

/// Fields of `/proc/<pid>/stat` as proc_pid_stat(5) numbers them: nice, real-time priority, policy.
fn scheduled(stat: &str) -> [i64; 3] {
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    [19, 40, 41].map(|field| fields[field - 3].parse().expect("a number"))
}

/// The highest processor.
fn last_processor() -> u32 {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").expect("the kernel has a list");
    let last = text.trim().rsplit(['-', ',']).next().expect("a list is not empty");
    last.parse().expect("a number")
}

/// "scheduler": `policy`, `nice`, `priority`, `flags`.
#[test]
fn the_scheduler_is_as_configured() {
    let rows = [
        (json!({ "policy": "SCHED_OTHER", "nice": -7 }), [-7, 0, 0]),
        (json!({ "policy": "SCHED_BATCH", "nice": 19 }), [19, 0, 3]),
        (json!({ "policy": "SCHED_IDLE" }), [0, 0, 5]),
        (json!({ "policy": "SCHED_BATCH", "flags": ["SCHED_RESET_ON_FORK"] }), [0, 0, 3]),
    ];
    for (number, (scheduler, expected)) in rows.into_iter().enumerate() {
        let Some(case) = case(&format!("scheduler-{number}")) else { return };
        let case = case.with("/process/args", json!(["/bin/cat", "/proc/self/stat"]));
        let case = case.with("/process/scheduler", scheduler.clone());
        assert_eq!(scheduled(&case.run()), expected, "{scheduler}");
    }
}

/// Real-time policies, with a budget for them in the cgroup where the kernel wants one (cgroup v1).
#[test]
fn real_time_policies_are_as_configured() {
    let budget = fs::read_to_string("/sys/fs/cgroup/cpu/cpu.rt_runtime_us");
    for (policy, number) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        let Some(mut case) = case(&format!("real-time-{number}")) else { return };
        if budget.as_ref().is_ok_and(|text| text.trim() != "0") {
            let cpu = json!({ "realtimeRuntime": 10_000, "realtimePeriod": 1_000_000 });
            case = case.with("/linux/resources", json!({ "cpu": cpu }));
        }
        let case = case.with("/process/args", json!(["/bin/cat", "/proc/self/stat"]));
        let case = case.with("/process/scheduler", json!({ "policy": policy, "priority": 12 }));
        assert_eq!(scheduled(&case.run()), [0, 12, number], "{policy}");
    }
}

/// `SCHED_DEADLINE` with its times and the flags that are about it.
#[test]
fn the_deadline_policy_is_as_configured() {
    let Some(case) = case("deadline") else { return };
    let case = case.with("/process/args", json!(["/bin/cat", "/proc/self/stat"]));
    let flags = ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_RESET_ON_FORK"];
    let scheduler = json!({ "policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 50_000_000,
        "period": 100_000_000, "flags": flags });
    assert_eq!(scheduled(&case.with("/process/scheduler", scheduler).run()), [0, 0, 6]);
}

/// "ioPriority": `class` and `priority`.
#[test]
fn the_io_priority_is_as_configured() {
    let rows = [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6\n"),
        ("IOPRIO_CLASS_RT", 1, "realtime: prio 1\n"),
        ("IOPRIO_CLASS_IDLE", 0, "idle\n"),
    ];
    for (number, (class, priority, expected)) in rows.into_iter().enumerate() {
        let Some(case) = case(&format!("io-{number}")) else { return };
        let case = case.with("/process/args", json!(["/bin/busybox", "ionice"]));
        let case =
            case.with("/process/ioPriority", json!({ "class": class, "priority": priority }));
        assert_eq!(case.run(), expected, "{class}");
    }
}

/// config-linux.md, "Personality", of the container's programs, later ones too.
#[test]
fn the_personality_is_as_configured() {
    for (domain, expected) in [("LINUX", "00000000\n"), ("LINUX32", "00000008\n")] {
        let Some(case) = case(&format!("personality-{domain}")) else { return };
        let script = "cat /proc/self/personality; sleep 1000";
        let case = case.script(script).with("/linux/personality", json!({ "domain": domain }));
        let case = case.started();
        case.wait("the program", || case.file("output") == expected);
        assert_eq!(case.done("exec ID /bin/cat /proc/self/personality"), expected);
    }
}

/// config-linux.md, "Memory policy" (1.3).
#[test]
fn the_memory_policy_is_as_configured() {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        eprintln!("SKIPPED conformance: the kernel has no memory nodes");
        return;
    }
    let rows = [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), " bind:0 "),
        (
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
            " interleave=static:0 ",
        ),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "" }), " local "),
        (json!({ "mode": "MPOL_DEFAULT" }), " default "),
    ];
    for (number, (policy, expected)) in rows.into_iter().enumerate() {
        let Some(case) = case(&format!("memory-{number}")) else { return };
        let case =
            case.with("/process/args", json!(["/bin/grep", "stack", "/proc/self/numa_maps"]));
        let text = case.with("/linux/memoryPolicy", policy.clone()).run();
        assert!(text.contains(expected), "{policy}: {text}");
    }
}

/// "execCPUAffinity": of `exec` alone; `initial` moves the runtime, `final` the program in its cgroup.
#[test]
fn later_processes_run_on_the_processors_that_are_configured() {
    let last = last_processor();
    let Some(case) = case("affinity") else { return };
    let allowed = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.expect("a status has it").to_owned()
    };
    let own = allowed(&fs::read_to_string("/proc/self/status").expect("read the own status"));
    let affinity = json!({ "initial": format!("{last}"), "final": "0" });
    let case = case.script("cat /proc/self/status; sleep 1000");
    let case = case.with("/process/execCPUAffinity", affinity).started();
    case.wait("the program", || case.file("output").contains("Cpus_allowed_list"));
    assert_eq!(allowed(&case.file("output")), own, "the first is not moved");
    assert_eq!(allowed(&case.done("exec ID /bin/cat /proc/self/status")), "0");

    let process = json!({ "args": ["/bin/sh", "-c", "cat /proc/self/status; read line; true"], "cwd": "/",
        "user": { "uid": 0, "gid": 0 }, "execCPUAffinity": { "initial": format!("{last}"), "final": "" } });
    let file = case.directory.join("process.json");
    fs::write(&file, process.to_string()).expect("write the process");
    let mut command = case.command(&["exec", "--process", file.to_str().expect("UTF-8"), &case.id]);
    let child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().expect("run the runtime");
    let status = format!("/proc/{}/status", child.id());
    case.wait("the runtime's move", || {
        allowed(&fs::read_to_string(&status).unwrap_or_default()) == last.to_string()
    });
    drop(child.stdin.take());
    assert!(child.wait_with_output().expect("wait for the runtime").status.success());
}

/// Values that cannot be are errors that name the property and the value, before anything is made.
#[test]
fn what_cannot_be_is_refused_by_name() {
    let scheduler = |value: Value| ("/process/scheduler", value);
    let io = |value: Value| ("/process/ioPriority", value);
    let affinity = |value: Value| ("/process/execCPUAffinity", value);
    let memory = |value: Value| ("/linux/memoryPolicy", value);
    let deadline = |runtime: u64, deadline: u64, period: u64| {
        json!({ "policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": deadline,
            "period": period })
    };
    let static_and_relative = json!(["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]);
    let rows = [
        (scheduler(json!({ "policy": "SCHED_MAGIC" })), "SCHED_MAGIC"),
        (scheduler(json!({ "policy": "SCHED_ISO" })), "scheduler.policy: SCHED_ISO"),
        (scheduler(json!({ "policy": "SCHED_OTHER", "nice": 20 })), "scheduler.nice: 20"),
        (scheduler(json!({ "policy": "SCHED_BATCH", "nice": -21 })), "scheduler.nice: -21"),
        (scheduler(json!({ "policy": "SCHED_FIFO" })), "scheduler.priority: 0"),
        (scheduler(json!({ "policy": "SCHED_RR", "priority": 100 })), "scheduler.priority: 100"),
        (scheduler(json!({ "policy": "SCHED_OTHER", "priority": 1 })), "scheduler.priority: 1"),
        (scheduler(json!({ "policy": "SCHED_OTHER", "period": 9 })), "scheduler.period: 9"),
        (scheduler(json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_X"] })), "SCHED_X"),
        (scheduler(deadline(1000, 9000, 9000)), "scheduler.runtime: 1000"),
        (scheduler(deadline(5000, 4000, 9000)), "scheduler.deadline: 4000"),
        (scheduler(deadline(5000, 8000, 7000)), "scheduler.period: 7000"),
        (io(json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 })), "ioPriority.priority: 8"),
        (io(json!({ "class": "IOPRIO_CLASS_BE", "priority": -1 })), "ioPriority.priority: -1"),
        (io(json!({ "class": "IOPRIO_CLASS_X", "priority": 0 })), "IOPRIO_CLASS_X"),
        (affinity(json!({ "initial": "70000" })), "execCPUAffinity.initial: \"70000\""),
        (affinity(json!({ "final": "0,65000" })), "no processor 65000"),
        (affinity(json!({ "final": "1-0" })), "execCPUAffinity.final: \"1-0\""),
        (affinity(json!({ "final": "a" })), "execCPUAffinity"),
        (("/linux/personality", json!({ "domain": "LINUX64" })), "LINUX64"),
        (("/linux/personality", json!({ "domain": "LINUX", "flags": ["A"] })), "flags: \"A\""),
        (memory(json!({ "mode": "MPOL_BIND" })), "memoryPolicy.nodes: MPOL_BIND needs"),
        (memory(json!({ "mode": "MPOL_LOCAL", "nodes": "0" })), "memoryPolicy.nodes: \"0\""),
        (
            memory(json!({ "mode": "MPOL_BIND", "nodes": "0-1000" })),
            "memoryPolicy.nodes: \"0-1000\"",
        ),
        (
            memory(json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": static_and_relative })),
            "memoryPolicy.flags",
        ),
        (memory(json!({ "mode": "MPOL_X", "nodes": "0" })), "MPOL_X"),
    ];
    let Some(mut case) = case("impossible") else { return };
    let fair = case.config.clone();
    for ((place, value), named) in rows {
        case = case.with(place, value);
        let said = case.create_refused();
        assert!(said.contains(named), "{named}: {said}");
        case.config = fair.clone();
    }
}

/// `exec --process` takes the same properties, and refuses the same values.
#[test]
fn later_processes_have_a_scheduler_and_an_io_priority_of_their_own() {
    let Some(case) = case("exec-scheduler") else { return };
    let case = case.with("/process/scheduler", json!({ "policy": "SCHED_BATCH" })).started();
    let file = case.directory.join("process.json");
    let exec = |args: Value, scheduler: Value| {
        let process = json!({ "args": args, "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "scheduler": scheduler, "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 } });
        fs::write(&file, process.to_string()).expect("write the process");
        case.call("exec --process process.json ID")
    };
    let idle = || json!({ "policy": "SCHED_IDLE" });
    let output = exec(json!(["/bin/cat", "/proc/self/stat"]), idle());
    assert_eq!(scheduled(&String::from_utf8_lossy(&output.stdout)), [0, 0, 5]);
    let output = exec(json!(["/bin/busybox", "ionice"]), idle());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "idle\n");
    let text = case.done("exec ID /bin/cat /proc/self/stat");
    assert_eq!(scheduled(&text), [0, 0, 3], "the container's own where there is no other");
    let output = exec(json!(["/bin/true"]), json!({ "policy": "SCHED_OTHER", "nice": 33 }));
    assert!(crate::case::said(&output).contains("scheduler.nice: 33"));
    assert_eq!(output.status.code(), Some(255));
}
