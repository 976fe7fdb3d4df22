//! What all that runs for a person may use together: as the files of the cgroup above their containers
//! show it, and as programs feel it that each may have more.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use berth_runtime::id::PrincipalId;
use berth_runtime::record::{CgroupVersion, FailureClass, LimitState, Live, Status};
use berth_runtime::wire::{Answer, Request, Total};
use system_tests::requires_root;
use system_tests::supervised::{Start, Supervised, wait_for};

use super::{MIB, held};

const PERSON: u32 = 1000;

fn ask(supervised: &Supervised, total: Total) -> Vec<LimitState> {
    match supervised.ask(Request::PersonTotal { person: PrincipalId(PERSON), total }) {
        Ok(Answer::Limits { limits }) => limits,
        other => panic!("to a total came {other:?}"),
    }
}

/// The person's cgroup, by one of its controllers.
fn above(directory: &str) -> PathBuf {
    Path::new(directory).parent().expect("a parent").to_owned()
}

fn text(directory: &str, file: &str) -> String {
    fs::read_to_string(above(directory).join(file))
        .expect("read a file of the person's")
        .trim()
        .to_owned()
}

fn is_v2(live: &Live) -> bool {
    live.cgroup.version == CgroupVersion::V2
}

/// In use by all of them together; nothing once the last has ended, and their cgroup with it.
fn memory_used(live: &Live) -> u64 {
    let file = if is_v2(live) { "memory.current" } else { "memory.usage_in_bytes" };
    let text = fs::read_to_string(above(&live.cgroup.memory).join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[test]
fn a_total_is_in_the_kernels_files_and_changes_while_running() {
    requires_root!();
    let supervised = Supervised::start();
    let (one, live) = supervised.run(Start::script(PERSON, "sleep 1000"));
    let (_, other) = supervised.run(Start::script(PERSON, "sleep 1000"));
    let before = (held(&live), held(&other));
    let total = Total {
        cpu_millis: Some(100),
        cpu_weight: 300,
        memory_bytes: Some(64 * MIB),
        swap_bytes: Some(8 * MIB),
        pids: Some(20),
        ..Total::FREE
    };
    let states = ask(&supervised, total);
    assert!(states.len() == 5 && states.iter().all(|state| state.held), "{states:?}");
    for state in &states {
        let said = fs::read_to_string(&state.file).expect("the file told of is there");
        assert_eq!(said.trim(), state.value);
        let place = above(&live.cgroup.pids);
        let name = place.file_name().expect("a name");
        assert!(
            Path::new(&state.file).parent().is_some_and(|own| own.ends_with(name)),
            "{state:?}"
        );
    }
    assert_eq!(text(&live.cgroup.pids, "pids.max"), "20");
    if is_v2(&live) {
        assert_eq!(text(&live.cgroup.cpu, "cpu.max"), "10000 100000");
        assert_eq!(text(&live.cgroup.memory, "memory.max"), (64 * MIB).to_string());
        assert_eq!(text(&live.cgroup.memory, "memory.swap.max"), (8 * MIB).to_string());
        assert_eq!((held(&live), held(&other)), before, "their own limits are as they were");
    } else {
        assert_eq!(text(&live.cgroup.cpu, "cpu.cfs_quota_us"), "10000");
        assert_eq!(text(&live.cgroup.memory, "memory.limit_in_bytes"), (64 * MIB).to_string());
        assert_eq!(
            text(&live.cgroup.memory, "memory.memsw.limit_in_bytes"),
            (72 * MIB).to_string()
        );
        // v1 takes no quota below that of a child.
        assert_eq!(held(&live).cpu_millis, 100);
    }
    // A container that is started under it, a change of its limits, and a total that is widened again.
    let (third, late) = supervised.run(Start::script(PERSON, "sleep 1000"));
    let mut limits = Start::script(PERSON, "").limits;
    limits.cpu_millis = 1500;
    match supervised.ask(Request::ContainerUpdate { container: third, limits }) {
        Ok(Answer::Limits { limits }) => {
            assert!(limits.iter().all(|state| state.held), "{limits:?}")
        }
        other => panic!("to a change of limits came {other:?}"),
    }
    let states = ask(&supervised, Total::FREE);
    assert!(states.iter().all(|state| state.held), "{states:?}");
    assert_eq!((held(&live), held(&other)), before);
    assert_eq!(held(&late).cpu_millis, 1500);
    assert_eq!(text(&live.cgroup.pids, "pids.max"), "max");
    supervised.remove(&one);
}

/// The sum of two containers is held, of which each has less than its own limit; the control is the same
/// without a total.
#[test]
fn the_sum_of_a_persons_memory_is_held() {
    requires_root!();
    let supervised = Supervised::start();
    let hog = "dd if=/dev/zero of=/dev/shm/file bs=1M count=40 && echo done; sleep 1000";
    let both = |supervised: &Supervised| {
        let (one, live) = supervised.run(Start::script(PERSON, hog));
        wait_for("the first's memory", || supervised.output(&one).contains("done").then_some(()));
        let (two, _) = supervised.start_container(Start::script(PERSON, hog));
        (one, two, live)
    };
    let total = Total { memory_bytes: Some(64 * MIB), swap_bytes: Some(0), ..Total::FREE };
    // Nothing of theirs runs: it is held from the first container on.
    assert!(ask(&supervised, total).is_empty());
    let (one, two, live) = both(&supervised);
    let struck = |id| {
        let record = supervised.state(id);
        record.status == Status::Stopped || record.live.is_some_and(|live| live.oom_kills > 0)
    };
    wait_for("one of them to be struck", || {
        assert!(memory_used(&live) <= 64 * MIB, "the sum is above the total");
        (struck(&one) || struck(&two)).then_some(())
    });
    supervised.remove(&one);
    supervised.remove(&two);
    ask(&supervised, Total::FREE);
    let (one, two, live) = both(&supervised);
    wait_for("the second's memory", || supervised.output(&two).contains("done").then_some(()));
    assert!(memory_used(&live) > 64 * MIB, "the control");
    // With that much in use it is refused, and nothing changes.
    let request = Request::PersonTotal { person: PrincipalId(PERSON), total };
    let failure = supervised.ask(request).expect_err("refused");
    assert_eq!((failure.class, &*failure.code), (FailureClass::Conflict, "limits.memory-in-use"));
    supervised.remove(&one);
    supervised.remove(&two);
    let (_, live) = supervised.run(Start::script(PERSON, "sleep 1000"));
    let file = if is_v2(&live) { "memory.max" } else { "memory.limit_in_bytes" };
    assert_ne!(
        text(&live.cgroup.memory, file),
        (64 * MIB).to_string(),
        "what was refused is not kept"
    );
}

#[test]
fn the_sum_of_a_persons_processor_time_is_held() {
    requires_root!();
    let supervised = Supervised::start();
    ask(&supervised, Total { cpu_millis: Some(200), ..Total::FREE });
    let spin = || {
        let mut start = Start::script(PERSON, "while :; do :; done");
        start.limits.cpu_millis = 1000;
        supervised.run(start).1
    };
    let lives = [spin(), spin()];
    let used = || lives.iter().map(super::cpu_used_us).sum::<u64>();
    let share = || {
        let (begun, before) = (Instant::now(), used());
        wait_for("processor time used", || (used() - before > 400_000).then_some(()));
        (used() - before) as f64 / begun.elapsed().as_micros() as f64
    };
    // A machine that is itself held up for a moment charges the moment to whoever ran, and has them pay later.
    wait_for("a fifth of a core, as allowed", || (share() < 0.3).then_some(()));
    // The control: how much they then get depends on what else the machine does.
    ask(&supervised, Total::FREE);
    let stopped = |live: &Live| super::throttled_periods(live);
    let person = |live: &Live| {
        let path = above(&live.cgroup.cpu).join("cpu.stat");
        let text = fs::read_to_string(path).expect("cpu.stat");
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.expect("nr_throttled").parse::<u64>().expect("a number")
    };
    let now = (person(&lives[0]), stopped(&lives[0]));
    assert!(now.0 > 0, "the kernel has held them back together");
    share();
    assert_eq!(person(&lives[0]), now.0, "nobody is held back by a total that is none");
}

#[test]
fn the_sum_of_a_persons_processes_is_held() {
    requires_root!();
    let supervised = Supervised::start();
    ask(&supervised, Total { pids: Some(30), ..Total::FREE });
    let script = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done; echo all; sleep 1000";
    let (one, live) = supervised.run(Start::script(PERSON, script));
    wait_for("its processes", || supervised.output(&one).contains("all").then_some(()));
    let (two, _) = supervised.start_container(Start::script(PERSON, script));
    wait_for("a refusal", || supervised.output(&two).contains("fork").then_some(()));
    assert!(text(&live.cgroup.pids, "pids.current").parse::<u64>().expect("a number") <= 30);
    // Another person is not affected, and neither is this one without a total.
    let (other, _) = supervised.run(Start::script(PERSON + 1, script));
    wait_for("another's", || supervised.output(&other).contains("all").then_some(()));
    supervised.remove(&two);
    ask(&supervised, Total::FREE);
    let (two, _) = supervised.run(Start::script(PERSON, script));
    wait_for("its processes", || supervised.output(&two).contains("all").then_some(()));
}

/// The total outlives its containers and the supervisor.
#[test]
fn a_total_is_kept() {
    requires_root!();
    let supervised = Supervised::start();
    ask(&supervised, Total { pids: Some(40), ..Total::FREE });
    let (one, live) = supervised.run(Start::script(PERSON, "sleep 1000"));
    let place = above(&live.cgroup.pids);
    assert_eq!(text(&live.cgroup.pids, "pids.max"), "40");
    supervised.remove(&one);
    wait_for("the end of their cgroup", || (!place.exists()).then_some(()));
    let (_, live) = supervised.run(Start::script(PERSON, "sleep 1000"));
    assert_eq!(text(&live.cgroup.pids, "pids.max"), "40");
    let Ok(Answer::People { people, .. }) = supervised.ask(Request::PersonList { after: None })
    else {
        panic!("no list of people");
    };
    let told = people.iter().find(|range| range.person == PrincipalId(PERSON)).expect("the person");
    assert_eq!(told.total.pids, Some(40));
}
