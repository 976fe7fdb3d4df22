//! Every limit of a container: as the kernel's own file shows it, and as a program in the container
//! feels it. The same tests run on cgroup v2 and on v1; the file names are all that differs.

mod disk;
mod groups;
mod reserve;
mod totals;

use std::fs;
use std::path::Path;
use std::time::Instant;

use berth_runtime::record::{CgroupVersion, ExitCause, FailureClass, Live, Status};
use berth_runtime::wire::{Answer, Limits, Request};
use system_tests::requires_root;
use system_tests::supervised::{Start, Supervised, wait_for};

const MIB: u64 = 1 << 20;

/// What the kernel's files say, read apart from what the supervisor tells.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    cpu_millis: u64,
    cpu_weight: u64,
    memory_bytes: u64,
    swap_bytes: u64,
    pids: u64,
}

fn number(directory: &str, file: &str) -> u64 {
    let path = Path::new(directory).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.split_whitespace().next().expect("a word").parse().expect("a number")
}

fn held(live: &Live) -> Held {
    let paths = &live.cgroup;
    match paths.version {
        CgroupVersion::V2 => Held {
            cpu_millis: number(&paths.cpu, "cpu.max") / 100,
            cpu_weight: number(&paths.cpu, "cpu.weight"),
            memory_bytes: number(&paths.memory, "memory.max"),
            swap_bytes: number(&paths.memory, "memory.swap.max"),
            pids: number(&paths.pids, "pids.max"),
        },
        CgroupVersion::V1 => {
            let memory_bytes = number(&paths.memory, "memory.limit_in_bytes");
            let both = number(&paths.memory, "memory.memsw.limit_in_bytes");
            Held {
                cpu_millis: number(&paths.cpu, "cpu.cfs_quota_us") / 100,
                cpu_weight: number(&paths.cpu, "cpu.shares") * 100 / 1024,
                memory_bytes,
                swap_bytes: both - memory_bytes,
                pids: number(&paths.pids, "pids.max"),
            }
        }
    }
}

fn wanted(limits: &Limits) -> Held {
    Held {
        cpu_millis: limits.cpu_millis.into(),
        cpu_weight: limits.cpu_weight.into(),
        memory_bytes: limits.memory_bytes,
        swap_bytes: limits.swap_bytes,
        pids: limits.pids.into(),
    }
}

/// Processor time used so far, in microseconds.
fn cpu_used_us(live: &Live) -> u64 {
    match live.cgroup.version {
        CgroupVersion::V1 => number(&live.cgroup.cpuacct, "cpuacct.usage") / 1000,
        CgroupVersion::V2 => {
            let text = fs::read_to_string(Path::new(&live.cgroup.cpu).join("cpu.stat"));
            let text = text.expect("cpu.stat");
            let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
            usage.expect("usage_usec").parse().expect("a number")
        }
    }
}

#[test]
fn limits_are_in_the_kernels_files_and_change_while_running() {
    requires_root!();
    let supervised = Supervised::start();
    let mut start = Start::script(1000, "sleep 1000");
    start.limits = Limits {
        cpu_millis: 250,
        cpu_weight: 300,
        memory_bytes: 96 * MIB,
        swap_bytes: 32 * MIB,
        pids: 77,
    };
    let first = start.limits;
    let (container, live) = supervised.run(start);
    assert_eq!(held(&live), wanted(&first));
    assert!(live.limits.iter().all(|limit| limit.held), "{:?}", live.limits);
    let mut names: Vec<&str> = live.limits.iter().map(|limit| limit.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["cpu", "cpu_weight", "memory", "pids", "swap"]);
    for limit in &live.limits {
        let said = fs::read_to_string(&limit.file).expect("the file told of is there");
        assert_eq!(said.trim(), limit.value, "{}", limit.file);
    }
    // Up, down, and crosswise: where memory grows as memory and swap together shrink.
    for (cpu_millis, memory, swap, pids) in
        [(1500, 256, 256, 500), (100, 64, 0, 20), (100, 64, 512, 20), (100, 300, 0, 20)]
    {
        let limits = Limits {
            cpu_millis,
            cpu_weight: 50,
            memory_bytes: memory * MIB,
            swap_bytes: swap * MIB,
            pids,
        };
        let request = Request::ContainerUpdate { container: container.clone(), limits };
        match supervised.ask(request) {
            Ok(Answer::Limits { limits: states }) => {
                assert!(states.iter().all(|limit| limit.held), "{states:?}");
            }
            other => panic!("to a change of limits came {other:?}"),
        }
        assert_eq!(held(&live), wanted(&limits));
    }
}

#[test]
fn processor_time_is_bounded() {
    requires_root!();
    let supervised = Supervised::start();
    let spin = |cpu_millis| {
        let mut start = Start::script(1000, "while :; do :; done");
        start.limits.cpu_millis = cpu_millis;
        let (container, live) = supervised.run(start);
        let (begun, before) = (Instant::now(), cpu_used_us(&live));
        // Twenty periods of what is allowed to the bounded one.
        wait_for("processor time used", || (cpu_used_us(&live) - before > 400_000).then_some(()));
        let share = (cpu_used_us(&live) - before) as f64 / begun.elapsed().as_micros() as f64;
        let throttled = throttled_periods(&live);
        supervised.remove(&container);
        (share, throttled)
    };
    let (share, throttled) = spin(200);
    assert!(share < 0.3, "a fifth of a core was allowed and {share:.2} used");
    assert!(throttled > 0, "the kernel has held it back");
    // The control: the same program is not held back where a bound is no hindrance. How much it then
    // gets depends on what else the machine does.
    let (_, throttled) = spin(2000);
    assert_eq!(throttled, 0, "one thread cannot use two cores");
}

/// How often the kernel has stopped a container's processes for the rest of a period.
fn throttled_periods(live: &Live) -> u64 {
    let text = fs::read_to_string(Path::new(&live.cgroup.cpu).join("cpu.stat")).expect("cpu.stat");
    let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    count.expect("nr_throttled").parse().expect("a number")
}

#[test]
fn memory_is_bounded_and_the_end_says_so() {
    requires_root!();
    let supervised = Supervised::start();
    // dd holds one block of 64 MiB, once filled.
    let hog = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    let mut start = Start::script(1000, hog);
    start.limits.memory_bytes = 32 * MIB;
    let (container, _) = supervised.start_container(start);
    let record = supervised.wait(&container);
    let exit = record.exit.expect("an exit record");
    assert_eq!((exit.signal, exit.cause), (Some(9), ExitCause::OutOfMemory), "{exit:?}");
    assert_eq!((exit.oom_kills, exit.memory_bytes_max), (1, 32 * MIB));
    // The control: with enough it ends well.
    let (container, _) = supervised.start_container(Start::script(1000, hog));
    let exit = supervised.wait(&container).exit.expect("an exit record");
    assert_eq!((exit.code, exit.cause), (Some(0), ExitCause::Exited), "{exit:?}");
}

#[test]
fn memory_in_use_is_not_taken_away() {
    requires_root!();
    let supervised = Supervised::start();
    // A file in memory cannot be reclaimed where there is no swap.
    let hog = "dd if=/dev/zero of=/dev/shm/file bs=1M count=48; sleep 1000";
    let (container, live) = supervised.run(Start::script(1000, hog));
    let file = match live.cgroup.version {
        CgroupVersion::V2 => "memory.current",
        CgroupVersion::V1 => "memory.usage_in_bytes",
    };
    wait_for("48 MiB in use", || (number(&live.cgroup.memory, file) > 48 * MIB).then_some(()));
    let before = held(&live);
    let limits =
        Limits { memory_bytes: 16 * MIB, swap_bytes: 0, cpu_millis: 100, cpu_weight: 10, pids: 20 };
    let request = Request::ContainerUpdate { container: container.clone(), limits };
    let failure = supervised.ask(request).expect_err("refused");
    assert_eq!(failure.class, FailureClass::Conflict, "{failure:?}");
    assert_eq!(failure.code, "limits.memory-in-use");
    assert_eq!(held(&live), before, "none of the limits has changed");
    assert_eq!(supervised.state(&container).status, Status::Running);
}

#[test]
fn processes_are_bounded() {
    requires_root!();
    let supervised = Supervised::start();
    let script = "i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let mut start = Start::script(1000, script);
    start.limits.pids = 10;
    // It may have ended before it is looked at.
    let (bounded, _) = supervised.start_container(start);
    let record = supervised.wait(&bounded);
    assert_ne!(record.exit.expect("an exit record").code, Some(0), "the shell could not fork");
    let output = supervised.output(&bounded);
    assert!(output.contains("fork") && !output.contains("all"), "{output}");
    // The control: with a wider bound all of them start.
    let (free, _) = supervised.run(Start::script(1000, &format!("{script}; sleep 1000")));
    wait_for("all processes", || supervised.output(&free).contains("all").then_some(()));
}

#[test]
fn people_share_one_parent_and_nothing_is_left() {
    requires_root!();
    let supervised = Supervised::start();
    let (one, live_one) = supervised.run(Start::script(1000, "sleep 1000"));
    let (two, live_two) = supervised.run(Start::script(1000, "sleep 1000"));
    let (three, live_three) = supervised.run(Start::script(1001, "sleep 1000"));
    let parent = |live: &Live| Path::new(&live.cgroup.memory).parent().map(Path::to_owned);
    assert_eq!(parent(&live_one), parent(&live_two));
    assert_ne!(parent(&live_one), parent(&live_three));
    assert!(live_one.cgroup.memory.contains("/g2/p1000/c"), "{}", live_one.cgroup.memory);
    for container in [one, two, three] {
        supervised.remove(&container);
    }
    for live in [live_one, live_two, live_three] {
        let parent = parent(&live).expect("a parent");
        wait_for("the cgroups' removal", || (!parent.exists()).then_some(()));
    }
}
