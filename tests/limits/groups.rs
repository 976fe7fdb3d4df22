//! What all that runs for the people of a group may use together: as the files of the cgroup above
//! theirs show it, and as programs feel it whose people may have more.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use berth_runtime::id::PrincipalId;
use berth_runtime::record::{CgroupVersion, FailureClass, LimitState, Live, Status};
use berth_runtime::wire::{Answer, Request, Total};
use system_tests::requires_root;
use system_tests::supervised::{Start, Supervised, wait_for};

use super::{MIB, cpu_used_us, held};

const ONE: u32 = 1000;
const OTHER: u32 = 1001;
const GROUP: PrincipalId = PrincipalId::DEFAULT_GROUP;
const ELSEWHERE: PrincipalId = PrincipalId(1500);

fn bound(supervised: &Supervised, group: PrincipalId, total: Total) -> Vec<LimitState> {
    match supervised.ask(Request::GroupTotal { group, total }) {
        Ok(Answer::Limits { limits }) => limits,
        other => panic!("to a group's total came {other:?}"),
    }
}

fn person(supervised: &Supervised, person: u32, total: Total) {
    let request = Request::PersonTotal { person: PrincipalId(person), total };
    supervised.ask(request).expect("a person's total");
}

/// The person's cgroup, by one of its controllers.
fn person_of(directory: &str) -> PathBuf {
    Path::new(directory).parent().expect("a parent").to_owned()
}

/// The group's.
fn group_of(directory: &str) -> PathBuf {
    person_of(directory).parent().expect("a parent").to_owned()
}

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}")).trim().to_owned()
}

fn is_v2(live: &Live) -> bool {
    live.cgroup.version == CgroupVersion::V2
}

/// In use by the whole group; nothing once the last has ended, and its cgroup with it.
fn memory_used(live: &Live) -> u64 {
    let file = if is_v2(live) { "memory.current" } else { "memory.usage_in_bytes" };
    let text = fs::read_to_string(group_of(&live.cgroup.memory).join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn pids_max(live: &Live) -> (String, String) {
    let file = "pids.max";
    let own = text(person_of(&live.cgroup.pids).join(file));
    (text(group_of(&live.cgroup.pids).join(file)), own)
}

#[test]
fn a_groups_total_is_in_the_kernels_files_above_its_peoples() {
    requires_root!();
    let supervised = Supervised::start();
    let (_, live) = supervised.run(Start::script(ONE, "sleep 1000"));
    let (_, other) = supervised.run(Start::script(OTHER, "sleep 1000"));
    person(&supervised, ONE, Total { cpu_millis: Some(500), pids: Some(50), ..Total::FREE });
    let before = (held(&live), held(&other));
    let total = Total {
        cpu_millis: Some(100),
        cpu_weight: 300,
        memory_bytes: Some(96 * MIB),
        swap_bytes: Some(8 * MIB),
        pids: Some(30),
        ..Total::FREE
    };
    let states = bound(&supervised, GROUP, total);
    assert!(states.len() == 5 && states.iter().all(|state| state.held), "{states:?}");
    for state in &states {
        assert_eq!(text(&state.file), state.value);
        let place = Path::new(&state.file).parent().expect("a directory");
        assert!(place.ends_with("g2"), "{state:?}");
    }
    assert_eq!(pids_max(&live), ("30".to_owned(), "50".to_owned()));
    assert_eq!(pids_max(&other), ("30".to_owned(), "max".to_owned()));
    if is_v2(&live) {
        assert_eq!(text(group_of(&live.cgroup.cpu).join("cpu.max")), "10000 100000");
        assert_eq!((held(&live), held(&other)), before, "their own limits are as they were");
    } else {
        assert_eq!(text(group_of(&live.cgroup.cpu).join("cpu.cfs_quota_us")), "10000");
        // v1 takes no quota below that of one within.
        assert_eq!(text(person_of(&live.cgroup.cpu).join("cpu.cfs_quota_us")), "10000");
        assert_eq!((held(&live).cpu_millis, held(&other).cpu_millis), (100, 100));
    }
    // A person's total under it, and one that is started under it.
    person(&supervised, OTHER, Total { cpu_millis: Some(300), ..Total::FREE });
    supervised.run(Start::script(OTHER, "sleep 1000"));
    let states = bound(&supervised, GROUP, Total::FREE);
    assert!(states.iter().all(|state| state.held), "{states:?}");
    assert_eq!(pids_max(&live), ("max".to_owned(), "50".to_owned()));
    if !is_v2(&live) {
        let quota = |live: &Live| text(person_of(&live.cgroup.cpu).join("cpu.cfs_quota_us"));
        assert_eq!((quota(&live), quota(&other)), ("50000".to_owned(), "30000".to_owned()));
    }
    let (one, two) = (held(&live).cpu_millis, held(&other).cpu_millis);
    if is_v2(&live) {
        assert_eq!((held(&live), held(&other)), before);
    } else {
        assert_eq!((one, two), (500, 300), "as much as their people may have");
    }
}

/// The sum of two people is held, of whom neither has a bound; the control is the same without the
/// group's total.
#[test]
fn the_sum_of_a_groups_memory_is_held() {
    requires_root!();
    let supervised = Supervised::start();
    let hog = "dd if=/dev/zero of=/dev/shm/file bs=1M count=40 && echo done; sleep 1000";
    let both = |supervised: &Supervised| {
        let (one, live) = supervised.run(Start::script(ONE, hog));
        wait_for("the first's memory", || supervised.output(&one).contains("done").then_some(()));
        let (two, _) = supervised.start_container(Start::script(OTHER, hog));
        (one, two, live)
    };
    let total = Total { memory_bytes: Some(64 * MIB), swap_bytes: Some(0), ..Total::FREE };
    // Nothing of the group runs: it is held from the first container on.
    assert!(bound(&supervised, GROUP, total).is_empty());
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
    bound(&supervised, GROUP, Total::FREE);
    let (one, two, live) = both(&supervised);
    wait_for("the second's memory", || supervised.output(&two).contains("done").then_some(()));
    assert!(memory_used(&live) > 64 * MIB, "the control");
    let failure = supervised.ask(Request::GroupTotal { group: GROUP, total }).expect_err("refused");
    assert_eq!((failure.class, &*failure.code), (FailureClass::Conflict, "limits.memory-in-use"));
    supervised.remove(&one);
    supervised.remove(&two);
}

#[test]
fn the_sum_of_a_groups_processor_time_is_held() {
    requires_root!();
    let supervised = Supervised::start();
    bound(&supervised, GROUP, Total { cpu_millis: Some(200), ..Total::FREE });
    let spin = |person| supervised.run(Start::script(person, "while :; do :; done")).1;
    let lives = [spin(ONE), spin(OTHER)];
    let used = || lives.iter().map(cpu_used_us).sum::<u64>();
    let (begun, before) = (Instant::now(), used());
    wait_for("processor time used", || (used() - before > 400_000).then_some(()));
    let share = (used() - before) as f64 / begun.elapsed().as_micros() as f64;
    assert!(share < 0.3, "a fifth of a core was allowed and {share:.2} used");
    // The control: how much they then get depends on what else the machine does.
    bound(&supervised, GROUP, Total::FREE);
    let throttled = || {
        let text = text(group_of(&lives[0].cgroup.cpu).join("cpu.stat"));
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.expect("nr_throttled").parse::<u64>().expect("a number")
    };
    let (stopped, before) = (throttled(), used());
    wait_for("processor time used", || (used() - before > 400_000).then_some(()));
    assert_eq!(throttled(), stopped, "nobody is held back by a total that is none");
}

#[test]
fn the_sum_of_a_groups_processes_is_held() {
    requires_root!();
    let supervised = Supervised::start();
    bound(&supervised, GROUP, Total { pids: Some(30), ..Total::FREE });
    let script = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done; echo all; sleep 1000";
    let (one, live) = supervised.run(Start::script(ONE, script));
    wait_for("its processes", || supervised.output(&one).contains("all").then_some(()));
    let (two, _) = supervised.start_container(Start::script(OTHER, script));
    wait_for("a refusal", || supervised.output(&two).contains("fork").then_some(()));
    assert!(
        text(group_of(&live.cgroup.pids).join("pids.current")).parse::<u64>().expect("one") <= 30
    );
    // Somebody of another group is not affected, and neither is this one without a total.
    let start = Start { group: ELSEWHERE, ..Start::script(OTHER + 1, script) };
    let (other, live) = supervised.run(start);
    assert!(live.cgroup.pids.contains("/g1500/p1002/"), "{}", live.cgroup.pids);
    wait_for("another's", || supervised.output(&other).contains("all").then_some(()));
    supervised.remove(&two);
    bound(&supervised, GROUP, Total::FREE);
    let (two, _) = supervised.run(Start::script(OTHER, script));
    wait_for("its processes", || supervised.output(&two).contains("all").then_some(()));
}

/// Another group takes somebody in only while nothing of theirs runs; then its total is theirs.
#[test]
fn a_person_moves_while_nothing_of_theirs_runs() {
    requires_root!();
    let supervised = Supervised::start();
    bound(&supervised, ELSEWHERE, Total { pids: Some(60), ..Total::FREE });
    let (one, live) = supervised.run(Start::script(ONE, "sleep 1000"));
    assert_eq!(pids_max(&live).0, "max");
    let add = Request::PersonAdd { person: PrincipalId(ONE), group: ELSEWHERE };
    let failure = supervised.ask(add).expect_err("refused while something runs");
    assert_eq!((failure.class, &*failure.code), (FailureClass::Conflict, "person.busy"));
    supervised.remove(&one);
    let start = Start { group: ELSEWHERE, ..Start::script(ONE, "sleep 1000") };
    let (_, live) = supervised.run(start);
    assert_eq!(pids_max(&live).0, "60");
    let Ok(Answer::People { people, .. }) = supervised.ask(Request::PersonList { after: None })
    else {
        panic!("no list of people");
    };
    let told = people.iter().find(|range| range.person == PrincipalId(ONE)).expect("the person");
    assert_eq!((told.group, told.group_total.pids), (ELSEWHERE, Some(60)));
}

/// Totals outlive the supervisor; what it had made and not bounded yet when it was killed is bounded by
/// the next.
#[test]
fn what_was_made_and_never_bounded_is_bounded_by_the_next_supervisor() {
    requires_root!();
    let mut supervised = Supervised::start();
    bound(&supervised, GROUP, Total { cpu_millis: Some(900), pids: Some(70), ..Total::FREE });
    let (one, live) = supervised.run(Start::script(ONE, "sleep 1000"));
    person(&supervised, ONE, Total { cpu_millis: Some(500), pids: Some(40), ..Total::FREE });
    assert_eq!(pids_max(&live), ("70".to_owned(), "40".to_owned()));
    supervised.restart();
    assert_eq!(pids_max(&live), ("70".to_owned(), "40".to_owned()), "nothing has changed");
    // As it is between mkdir(2) and the first limit; and one of somebody of whom nothing runs.
    let (above, own) = (group_of(&live.cgroup.pids), person_of(&live.cgroup.pids));
    let cpu = (group_of(&live.cgroup.cpu), person_of(&live.cgroup.cpu));
    let (file, none) = match is_v2(&live) {
        true => ("cpu.max", "max"),
        false => ("cpu.cfs_quota_us", "-1"),
    };
    let empty = above.join("p4242");
    for place in [&above, &own] {
        fs::write(place.join("pids.max"), "max").expect("write it");
    }
    for place in [&cpu.0, &cpu.1] {
        fs::write(place.join(file), none).expect("write it");
    }
    fs::create_dir(&empty).expect("make it");
    assert_eq!(pids_max(&live), ("max".to_owned(), "max".to_owned()), "the control");
    supervised.restart();
    assert_eq!(pids_max(&live), ("70".to_owned(), "40".to_owned()));
    assert!(text(cpu.0.join(file)).starts_with("90000"));
    assert!(text(cpu.1.join(file)).starts_with("50000"));
    assert!(!empty.exists(), "nothing was in it");
    supervised.remove(&one);
    wait_for("the end of the group's cgroup", || (!above.exists()).then_some(()));
    let (_, live) = supervised.run(Start::script(OTHER, "sleep 1000"));
    assert_eq!(pids_max(&live), ("70".to_owned(), "max".to_owned()));
}
