//! config-linux.md, "Control groups": what a configuration asks of the kernel, as its files show it.

mod devices;
mod refusals;
mod systemd;
mod update;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::case::{Case, is_berths};

/// Whether the host has the unified hierarchy and nothing else.
fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The file of a case's cgroup, in a controller's tree on v1.
fn path(case: &Case, controller: &str, name: &str) -> PathBuf {
    let top = Path::new("/sys/fs/cgroup");
    let tree = if is_v2() { top.to_owned() } else { top.join(controller) };
    tree.join(format!("berth-conformance-{}", case.id)).join(name)
}

/// What it says.
fn shown(case: &Case, controller: &str, name: &str) -> String {
    let path = path(case, controller, name);
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// Whether v1 has a controller mounted, or v2 offers it.
fn has(controller: &str) -> bool {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    match controllers {
        Ok(text) => text.split_whitespace().any(|word| word == controller),
        Err(_) => Path::new("/sys/fs/cgroup").join(controller).is_dir(),
    }
}

/// Held against one file on v1 and one on v2: name, value.
type Held<'a> = (&'a str, (&'a str, &'a str), (&'a str, &'a str));

/// A created container with these resources, whose files say so.
fn holds(name: &str, resources: Value, files: &[Held<'_>]) {
    let Some(case) = Case::new(name) else { return };
    let case = case.with("/linux/resources", resources).created();
    for (controller, v1, v2) in files {
        let (file, value) = if is_v2() { v2 } else { v1 };
        if !file.is_empty() {
            assert_eq!(shown(&case, controller, file), *value, "{file}");
        }
    }
}

/// A device that throttles can name.
fn disk() -> Option<String> {
    let disks = std::fs::read_dir("/sys/block").expect("list the disks").flatten();
    let mut numbers =
        disks.filter_map(|disk| std::fs::read_to_string(disk.path().join("dev")).ok());
    numbers.next().map(|number| number.trim().to_owned())
}

/// "CPU": `shares`, `quota`, `period`. 1024 shares are v2's neutral weight of 100.
#[test]
fn cpu_shares_quota_and_period_are_held() {
    let files = [
        ("cpu", ("cpu.shares", "1024"), ("cpu.weight", if is_berths() { "100" } else { "39" })),
        ("cpu", ("cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 60000")),
        ("cpu", ("cpu.cfs_period_us", "60000"), ("", "")),
    ];
    let cpu = json!({ "shares": 1024, "quota": 30_000, "period": 60_000 });
    holds("cpu", json!({ "cpu": cpu }), &files);
}

/// "CPU": `burst` lies within the quota of the same configuration, `idle` outranks shares.
#[test]
fn cpu_burst_and_idle_are_held() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc 1.1 has neither burst nor idle");
        return;
    }
    let files = [
        ("cpu", ("cpu.cfs_burst_us", "20000"), ("cpu.max.burst", "20000")),
        ("cpu", ("cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 100000")),
        ("cpu", ("cpu.idle", "1"), ("cpu.idle", "1")),
    ];
    let cpu = json!({ "shares": 512, "burst": 20_000, "quota": 30_000, "idle": 1 });
    holds("burst", json!({ "cpu": cpu }), &files);
}

/// "CPU": `realtimeRuntime` and `realtimePeriod`, where the kernel shares realtime out; v2 does not.
#[test]
fn realtime_is_held_or_refused() {
    let Some(case) = Case::new("realtime") else { return };
    let cpu = json!({ "realtimeRuntime": 5000, "realtimePeriod": 500_000 });
    let case = case.with("/linux/resources", json!({ "cpu": cpu }));
    if !is_v2() && Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let case = case.created();
        assert_eq!(shown(&case, "cpu", "cpu.rt_runtime_us"), "5000");
        assert_eq!(shown(&case, "cpu", "cpu.rt_period_us"), "500000");
    } else if is_berths() {
        let text = case.create_refused();
        assert!(text.contains("linux.resources.cpu.realtime"), "{text}");
    }
}

/// "CPU": `cpus` and `mems`, where the first process begins.
#[test]
fn cpus_and_mems_are_held() {
    let Some(case) = Case::new("cpuset") else { return };
    let cpu = json!({ "cpus": "0", "mems": "0" });
    let case = case.with("/linux/resources", json!({ "cpu": cpu }));
    let case = case.script("grep Cpus_allowed_list /proc/self/status");
    assert_eq!(case.run().trim(), "Cpus_allowed_list:\t0");
}

/// "Memory": `limit`, `reservation` and `swap`, which is both together; in whole pages.
#[test]
fn memory_limits_are_held_in_whole_pages() {
    let files = [
        ("memory", ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
        ("memory", ("memory.memsw.limit_in_bytes", "100663296"), ("memory.swap.max", "33554432")),
        ("memory", ("memory.soft_limit_in_bytes", "33554432"), ("memory.low", "33554432")),
    ];
    let memory = json!({ "limit": (64 << 20) + 4095, "swap": (96 << 20) + 4095,
        "reservation": 32 << 20, "kernel": 1 << 20, "kernelTCP": 1 << 20 });
    // v2 counts swap alone, of which the odd bytes are gone.
    holds("memory", json!({ "memory": memory }), &files);
}

/// "Memory": -1 is no limit, also on memory and swap together.
#[test]
fn minus_one_is_no_limit() {
    let unlimited = "9223372036854771712";
    let files = [
        ("memory", ("memory.limit_in_bytes", unlimited), ("memory.max", "max")),
        ("memory", ("memory.memsw.limit_in_bytes", unlimited), ("memory.swap.max", "max")),
        ("cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000")),
        ("pids", ("pids.max", "max"), ("pids.max", "max")),
    ];
    let resources = json!({ "memory": { "limit": -1, "swap": -1 }, "cpu": { "quota": -1 },
        "pids": { "limit": -1 } });
    holds("unlimited", resources, &files);
}

/// "Memory": `swappiness` and `disableOOMKiller`, which v2 does not have.
#[test]
fn swappiness_and_the_oom_killer_are_set_or_refused() {
    for (field, value, file, said) in [
        ("swappiness", json!(7), "memory.swappiness", "7"),
        ("disableOOMKiller", json!(true), "memory.oom_control", "oom_kill_disable 1"),
    ] {
        let Some(case) = Case::new(&format!("memory-{field}")) else { return };
        let case = case.with("/linux/resources", json!({ "memory": { field: value } }));
        if !is_v2() {
            let case = case.created();
            assert_eq!(shown(&case, "memory", file).lines().next(), Some(said));
        } else if is_berths() {
            let text = case.create_refused();
            assert!(text.contains(&format!("linux.resources.memory.{field}")), "{text}");
        }
    }
}

/// "PIDs": the limit is in force from the first process on.
#[test]
fn the_pids_limit_is_in_force() {
    let files = [("pids", ("pids.max", "27"), ("pids.max", "27"))];
    holds("pids", json!({ "pids": { "limit": 27 } }), &files);
    if !is_berths() {
        // runc's own threads need more than one.
        return;
    }
    let Some(case) = Case::new("pids-full") else { return };
    let case = case.with("/linux/resources", json!({ "pids": { "limit": 1 } }));
    let output = case.script("/bin/true; echo $?").call("run ID");
    assert!(!String::from_utf8_lossy(&output.stdout).contains('0'), "it was to be alone");
}

/// "Block IO": the four throttles of a device; a rate of 0 is none.
#[test]
fn throttles_are_held() {
    let Some(disk) = disk() else { return };
    let (major, minor) = disk.split_once(':').expect("a device's number");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let rate =
        |rate: u64| json!([{ "major": number(major), "minor": number(minor), "rate": rate }]);
    let block = json!({
        "throttleReadBpsDevice": rate(1_000_000), "throttleWriteBpsDevice": rate(2_000_000),
        "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(0),
    });
    let line = |value: &str| format!("{disk} {value}");
    let v2 = line("rbps=1000000 wbps=2000000 riops=300 wiops=max");
    let (bps, wbps, iops) = (line("1000000"), line("2000000"), line("300"));
    let files = [
        ("blkio", ("blkio.throttle.read_bps_device", bps.as_str()), ("io.max", v2.as_str())),
        ("blkio", ("blkio.throttle.write_bps_device", &wbps), ("", "")),
        ("blkio", ("blkio.throttle.read_iops_device", &iops), ("", "")),
        ("blkio", ("blkio.throttle.write_iops_device", ""), ("", "")),
    ];
    if is_berths() || !is_v2() {
        holds("throttle", json!({ "blockIO": block }), &files);
    }
}

/// "Block IO": `weight`, in the file of whichever scheduler the kernel has.
#[test]
fn a_block_weight_is_held_or_refused() {
    let Some(case) = Case::new("io-weight") else { return };
    let case = case.with("/linux/resources", json!({ "blockIO": { "weight": 500 } }));
    let output = case.create();
    let names = match is_v2() {
        true => [("io.bfq.weight", "default 500"), ("io.weight", "default 4950")],
        false => [("blkio.bfq.weight", "500"), ("blkio.weight", "500")],
    };
    let there = names.iter().find(|(name, _)| path(&case, "blkio", name).exists());
    match there {
        Some((name, value)) => assert_eq!(shown(&case, "blkio", name), *value),
        None => assert!(!output.status.success(), "nothing holds a weight here"),
    }
}

/// "Huge page limits", "RDMA", "Network": held where the kernel has them, refused where not, never left
/// out in silence.
#[test]
fn what_the_kernel_lacks_is_an_error() {
    let limit = json!([{ "pageSize": "2MB", "limit": 2 << 20 }]);
    let priorities = json!([{ "name": "lo", "priority": 5 }]);
    for (name, controller, file, resources) in [
        ("hugetlb", "hugetlb", "2MB.", json!({ "hugepageLimits": limit })),
        ("rdma", "rdma", "", json!({ "rdma": { "nosuch_0": { "hcaHandles": 3 } } })),
        ("class", "net_cls", "classid", json!({ "network": { "classID": 1_048_577 } })),
        ("priority", "net_prio", "ifpriomap", json!({ "network": { "priorities": priorities } })),
    ] {
        let Some(case) = Case::new(&format!("lacking-{name}")) else { return };
        let case = case.with("/linux/resources", resources);
        // No device has that name, so that RDMA is refused in any case.
        if has(controller) && controller != "rdma" {
            let case = case.created();
            let max = if is_v2() { "max" } else { "limit_in_bytes" };
            let file = if name == "hugetlb" { format!("{file}{max}") } else { file.to_owned() };
            let text = shown(&case, controller, &format!("{controller}.{file}"));
            assert!(!text.is_empty(), "{file}");
        } else if is_berths() {
            let text = case.create_refused();
            assert!(text.contains("linux.resources."), "{text}");
        }
    }
}

/// "Unified": files of v2 by name; on v1 an error.
#[test]
fn unified_is_of_v2() {
    let Some(case) = Case::new("unified") else { return };
    let unified = json!({ "memory.high": "33554432", "pids.max": "77" });
    let case = case.with("/linux/resources", json!({ "unified": unified }));
    if !is_v2() {
        let text = case.create_refused();
        assert!(!is_berths() || text.contains("linux.resources.unified"), "{text}");
        return;
    }
    let case = case.created();
    assert_eq!(shown(&case, "", "memory.high"), "33554432");
    assert_eq!(shown(&case, "", "pids.max"), "77");
}

/// What a mount copies is the container's memory, though the mounts are made while the process is moved.
#[test]
fn what_a_tmpfs_begins_with_is_the_containers_memory() {
    let Some(case) = Case::new("copy-up-memory") else { return };
    if !has("memory") || !is_berths() {
        eprintln!("SKIPPED conformance: no memory controller here, or another's runtime");
        return;
    }
    let place = case.directory.join("rootfs/data");
    std::fs::create_dir_all(&place).expect("make a directory");
    std::fs::write(place.join("big"), vec![b'x'; 24 << 20]).expect("write a file");
    let tmpfs = |options: &[&str]| json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options });
    let name = if is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
    let used = |case: &Case| shown(case, "memory", name).parse::<u64>().expect("a number");
    let case = case.with("/mounts/-", tmpfs(&["tmpcopyup"])).created();
    let with_copy = used(&case);
    assert!(with_copy >= 24 << 20, "{with_copy} bytes");
    // The control: without a copy there is nothing of that size.
    let Some(other) = Case::new("copy-up-none") else { return };
    std::fs::create_dir_all(other.directory.join("rootfs/data")).expect("make a directory");
    let without = used(&other.with("/mounts/-", tmpfs(&[])).created());
    assert!(without < 16 << 20, "{without} bytes");
}
