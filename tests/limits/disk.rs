//! What somebody's containers together read and write of the disk: as the kernel's files show it, and as its counters
//! do. cgroup v1 holds no sum, which is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use berth_runtime::id::PrincipalId;
use berth_runtime::record::{CgroupVersion, LimitState, Live};
use berth_runtime::wire::{Answer, Request, Total};
use system_tests::requires_root;
use system_tests::supervised::{Start, Supervised, wait_for};

use super::MIB;

const PERSON: u32 = 1000;
const GROUP: PrincipalId = PrincipalId(2);
const RATE: u64 = MIB;

fn ask(supervised: &Supervised, request: Request) -> Vec<LimitState> {
    match supervised.ask(request) {
        Ok(Answer::Limits { limits }) => limits,
        other => panic!("to a total came {other:?}"),
    }
}

fn persons(supervised: &Supervised, total: Total) -> Vec<LimitState> {
    ask(supervised, Request::PersonTotal { person: PrincipalId(PERSON), total })
}

fn named<'a>(states: &'a [LimitState], name: &str) -> &'a LimitState {
    let found = states.iter().find(|state| state.name == name);
    found.unwrap_or_else(|| panic!("{name} is not told of: {states:?}"))
}

fn above(live: &Live) -> PathBuf {
    Path::new(&live.cgroup.io).parent().expect("the person's cgroup").to_owned()
}

/// What one of the controller's files says; nothing when there is no such file.
fn text(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

fn on_v2(live: &Live) -> bool {
    live.cgroup.version == CgroupVersion::V2
}

#[test]
fn use_of_the_disk_is_in_the_kernels_files_or_told_not_to_be_held() {
    requires_root!();
    let mut supervised = Supervised::start();
    let (_, live) = supervised.run(Start::script(PERSON, "sleep 1000"));
    let total = Total {
        io_weight: Some(300),
        io_read_bytes_per_sec: Some(2 * RATE),
        io_write_bytes_per_sec: Some(3 * RATE),
        ..Total::FREE
    };
    let group = Request::GroupTotal { group: GROUP, total };
    let both = [
        (above(&live), persons(&supervised, total)),
        (above(&live).parent().expect("the group's").to_owned(), ask(&supervised, group)),
    ];
    for (place, states) in &both {
        for (name, key, rate) in [("io_read", "rbps", 2 * RATE), ("io_write", "wbps", 3 * RATE)] {
            let state = named(states, name);
            if !on_v2(&live) {
                assert!(!state.held && state.reason.contains("v1"), "{state:?}");
                continue;
            }
            assert!(state.held, "{state:?}");
            assert_eq!(Path::new(&state.file), place.join("io.max"));
            let (device, value) = state.value.split_once(' ').expect("a disk and a rate");
            assert_eq!(value, format!("{key}={rate}"));
            let told = text(place, "io.max");
            let own = told.lines().find(|line| line.starts_with(&format!("{device} ")));
            assert!(own.is_some_and(|line| line.contains(value)), "{told}");
        }
        // The host's scheduler decides whether it is held; the file says what it says in any case.
        let state = named(states, "io_weight");
        assert_ne!(state.held, !state.reason.is_empty(), "{state:?}");
        if !state.file.is_empty() && Path::new(&state.file).exists() {
            assert_eq!(state.value, "300", "{state:?}");
            let told = fs::read_to_string(&state.file).expect("the file told of is there");
            assert!(told.trim().trim_start_matches("default ").starts_with("300"), "{told}");
        }
    }
    // It outlives the supervisor, and ends when nothing is asked for any more.
    let before = text(&above(&live), "io.max");
    supervised.restart();
    assert_eq!(text(&above(&live), "io.max"), before);
    let states = persons(&supervised, Total::FREE);
    assert!(states.iter().all(|state| state.held || state.name == "io_weight"), "{states:?}");
    let now = text(&above(&live), "io.max");
    assert!(
        !now.contains(&(2 * RATE).to_string()) && !now.contains(&(3 * RATE).to_string()),
        "{now}"
    );
}

/// Bytes that all of a person's containers have read or written of a disk.
fn moved(live: &Live, device: &str, key: &str) -> u64 {
    let told = text(&above(live), "io.stat");
    let own = told.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
    let mut words = own.unwrap_or_default().split(' ');
    let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map_or(0, |value| value.parse().expect("a number"))
}

/// Two containers of one person's read and write as fast as they can, past the page cache: together they are held to
/// the rate, and the control is the same without one.
fn the_sum_is_held(supervised: &Supervised) {
    let script = "dd if=/dev/zero of=/f bs=256k count=8 oflag=direct && while :; do \
        dd if=/dev/zero of=/f bs=256k count=8 oflag=direct conv=notrunc; \
        dd if=/f of=/dev/null bs=256k iflag=direct; done";
    let lives = [(); 2].map(|()| supervised.run(Start::script(PERSON, script)));
    let live = &lives[0].1;
    let total = Total {
        io_read_bytes_per_sec: Some(RATE),
        io_write_bytes_per_sec: Some(RATE),
        ..Total::FREE
    };
    let states = persons(supervised, total);
    if !on_v2(live) {
        assert!(!named(&states, "io_write").held, "{states:?}");
        return;
    }
    let (device, _) = named(&states, "io_write").value.split_once(' ').expect("a disk and a rate");
    let pace = |key| {
        let (begun, before) = (Instant::now(), moved(live, device, key));
        wait_for("use of the disk", || {
            (moved(live, device, key) - before > 4 * RATE).then_some(())
        });
        let bytes = moved(live, device, key) - before;
        bytes as f64 / begun.elapsed().as_secs_f64() / RATE as f64
    };
    for key in ["rbytes", "wbytes"] {
        // What had been asked for before the change passes first.
        wait_for("the pace that is allowed", || (pace(key) < 1.2).then_some(()));
    }
    persons(supervised, Total::FREE);
    for key in ["rbytes", "wbytes"] {
        wait_for("the control: a pace above it", || (pace(key) > 1.5).then_some(()));
    }
    for (container, _) in &lives {
        supervised.remove(container);
    }
}

#[test]
fn the_sum_of_what_a_person_reads_and_writes_is_held() {
    requires_root!();
    the_sum_is_held(&Supervised::start());
}

/// The same where they have a file system of their own, in a file.
#[test]
fn the_sum_is_held_below_a_persons_own_file_system() {
    requires_root!();
    let supervised = Supervised::start();
    let (first, _) = supervised.start_container(Start::script(PERSON, "true"));
    supervised.wait(&first);
    let request = Request::PersonData { person: PrincipalId(PERSON), bytes: Some(64 * MIB) };
    // The first's remains are cleared away meanwhile.
    wait_for("a file system of their own", || supervised.ask(request.clone()).ok());
    the_sum_is_held(&supervised);
}
