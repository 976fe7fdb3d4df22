//! R16: two people whose containers have the same ids inside have none in common outside, and what one
//! takes of what the kernel counts by user is not missing to the other.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use system_tests::programs::{attacker, install};
use system_tests::supervisor::{PERSON, Supervisor};
use system_tests::{Check, requires_root, sample};

use crate::hostile::{attacker_layer, attempt, remove, request};

/// What the kernel counts by user.
const COUNTED: [&str; 5] = ["inotify", "queues", "signals", "locked", "processes"];

/// Host ids of a person's containers, by `/proc/<pid>/uid_map` of one that runs.
fn ids(started: &Value) -> (u32, u32) {
    let pid = started["live"]["pid"].as_i64().expect("it lives");
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("read the id map");
    let words: Vec<u32> = map.split_whitespace().map(|word| word.parse().expect("an id")).collect();
    let [0, first, count] = words[..] else { panic!("one row from 0: {map}") };
    (first, count)
}

fn of(mut request: Value, person: u32) -> Value {
    request["person"] = json!(person);
    request
}

fn answers(output: &str) -> BTreeMap<&str, &str> {
    output.lines().filter_map(|line| line.split_once(' ')).collect()
}

#[test]
fn what_one_person_takes_is_not_missing_to_another() {
    requires_root!();
    let berth = Supervisor::start();
    let added = berth.call(&json!({"op": "person_add", "person": PERSON + 1, "group": 2}));
    assert_eq!(added["answer"], "person");
    let layer = attacker_layer(&berth);
    let have = || of(request(&berth, &[&layer], &["/attacker", "have"]), PERSON + 1);
    let program = berth.dir.join("attacker");
    install(attacker(), &program);
    let before = attempt(&berth, &have()).output();
    for what in sample(&COUNTED, 2) {
        let greedy = request(&berth, &[&layer], &["/attacker", "exhaust", what]);
        let run = berth.started(&greedy);
        let taken = run.wait_log("took ");
        let (theirs, count) = ids(&run.started);
        let control =
            format!("the one who took them all: {}", crate::hostile::plain(&taken).trim());
        assert!(!taken.contains("took 0,"), "nothing could be taken: {taken}");
        assert!(!taken.contains("took 100000,"), "there is no end of it: {taken}");
        let after = attempt(&berth, &have()).output();
        let variant = format!("{what}: another's, after");
        let check = Check { id: "R16", variant: &variant, control: &control };
        check.sees(answers(&before)[what], answers(&after)[what]);
        let host = std::process::Command::new(&program).arg("have").output().expect("run it");
        let host = String::from_utf8_lossy(&host.stdout).into_owned();
        let variant = format!("{what}: the host's root, after");
        let check = Check { id: "R16", variant: &variant, control: &control };
        check.sees("0", answers(&host)[what]);
        let run_of_other = berth.started(&of(request(&berth, &[], &["sleep", "1000"]), PERSON + 1));
        let (ours, _) = ids(&run_of_other.started);
        let variant = format!("{what}: ranges apart");
        let check = Check { id: "R16", variant: &variant, control: "equal ids inside" };
        check.sees(true, ours.abs_diff(theirs) >= count);
        for run in [run, run_of_other] {
            run.act("container_kill");
            run.wait_exit();
            remove(&berth, &run.container);
        }
    }
}
