//! What all containers together leave to the host: as the files of the cgroup above all of theirs show it.

use std::fs;
use std::path::{Path, PathBuf};

use berth_runtime::record::{CgroupVersion, Live};
use berth_runtime::wire::{Answer, Hello, Request};
use system_tests::requires_root;
use system_tests::supervised::{Start, Supervised};

use super::{MIB, held};

/// The cgroup above all containers of an instance, by one of its controllers.
fn scope_of(directory: &str) -> PathBuf {
    Path::new(directory).ancestors().nth(3).expect("a scope").to_owned()
}

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}")).trim().to_owned()
}

fn memory_file(live: &Live) -> PathBuf {
    let file = match live.cgroup.version {
        CgroupVersion::V2 => "memory.max",
        CgroupVersion::V1 => "memory.limit_in_bytes",
    };
    scope_of(&live.cgroup.memory).join(file)
}

fn hello(supervised: &Supervised) -> Hello {
    match supervised.ask(Request::Hello {}) {
        Ok(Answer::Hello(hello)) => hello,
        other => panic!("to a hello came {other:?}"),
    }
}

#[test]
fn the_host_keeps_memory_that_no_sum_of_containers_gets() {
    requires_root!();
    let mut supervised = Supervised::start();
    let (_, live) = supervised.run(Start::script(1000, "sleep 1000"));
    let told = hello(&supervised);
    assert!(told.together.iter().all(|limit| limit.held), "{:?}", told.together);
    for limit in &told.together {
        assert_eq!(text(&limit.file), limit.value, "{limit:?}");
        assert_eq!(
            Path::new(&limit.file).parent().map(|place| {
                [&live.cgroup.cpu, &live.cgroup.memory].iter().any(|own| scope_of(own) == place)
            }),
            Some(true),
            "{limit:?}"
        );
    }
    let kept = (told.memory_bytes / 16).clamp(256 * MIB, 4096 * MIB);
    let most = (told.memory_bytes - kept) / 4096 * 4096;
    assert_eq!(text(memory_file(&live)), most.to_string());
    // It outlives the supervisor, and its containers' own limits are theirs.
    let before = held(&live);
    supervised.restart();
    assert_eq!(text(memory_file(&live)), most.to_string());
    assert_eq!(held(&live), before);
}

#[test]
fn what_is_reserved_is_what_the_configuration_says() {
    requires_root!();
    let lines = "[runtime.reserve]\nmemory_bytes = 1073741824\ncpu_millis = 500\ncpu_weight = 50";
    let supervised = Supervised::with(lines);
    let mut start = Start::script(1000, "sleep 1000");
    start.limits.cpu_millis = 200;
    let (_, live) = supervised.run(start);
    let told = hello(&supervised);
    let most = (told.memory_bytes - (1 << 30)).max(told.memory_bytes / 4) / 4096 * 4096;
    assert_eq!(text(memory_file(&live)), most.to_string());
    let quota = u64::from((told.cpus * 1000 - 500).max(told.cpus * 250)) * 100;
    let cpu = scope_of(&live.cgroup.cpu);
    match live.cgroup.version {
        CgroupVersion::V2 => {
            assert_eq!(text(cpu.join("cpu.max")), format!("{quota} 100000"));
            assert_eq!(text(cpu.join("cpu.weight")), "50");
        }
        CgroupVersion::V1 => {
            assert_eq!(text(cpu.join("cpu.cfs_quota_us")), quota.to_string());
            assert_eq!(text(cpu.join("cpu.shares")), "512");
        }
    }
    assert_eq!(held(&live).cpu_millis, 200);
    // The control: without it nothing is kept.
    let free = Supervised::with("[runtime.reserve]\nmemory_bytes = 0");
    let (_, live) = free.run(Start::script(1000, "sleep 1000"));
    let file = memory_file(&live);
    let value = text(&file);
    assert!(value == "max" || value.parse::<u64>().is_ok_and(|most| most >= 1 << 62), "{value}");
}
