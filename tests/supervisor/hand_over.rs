//! A volume that is given to somebody else: all that is in it has the same owners inside and other ids outside, a kill at
//! any moment leaves it whole, and what runs with it keeps it where it is (R05, F01).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use system_tests::programs::unguarded;
use system_tests::supervisor::{PERSON, Supervisor, id};
use system_tests::{Check, requires_root};

use crate::hostile::{Outcome, attempt, remove};
use crate::volumes::{MIB, end, make, mount, names, script, scripted, wait_until};

/// Whoever gets it.
const HEIR: u32 = PERSON + 1;

fn with_heir() -> Supervisor {
    let berth = Supervisor::start();
    let added = berth.call(&json!({"op": "person_add", "person": HEIR, "group": 2}));
    assert_eq!(added["answer"], "person", "{added}");
    berth
}

fn hand_over(berth: &Supervisor, volume: &str) -> Value {
    let request =
        json!({"op": "volume_hand_over", "person": PERSON, "volume": id(volume), "heir": HEIR});
    berth.call(&request)
}

fn record(berth: &Supervisor, person: u32) -> Value {
    let text = fs::read_to_string(berth.data_dir().join("state/people.json")).expect("the record");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    record["people"][person.to_string()].clone()
}

fn first_id(berth: &Supervisor, person: u32) -> u32 {
    let first = record(berth, person)["first_id"].as_u64();
    first.and_then(|id| id.try_into().ok()).expect("an id")
}

/// Where somebody's volumes are on the host.
fn volumes(berth: &Supervisor, person: u32) -> PathBuf {
    let row = record(berth, person);
    let first = row["first_id"].to_string();
    match row["data"]["number"].as_u64() {
        Some(number) => berth.run_dir().join(format!("disks/{first}.{number}/volumes")),
        None => berth.data_dir().join("people").join(first).join("volumes"),
    }
}

/// What the heir's container with the volume prints.
fn theirs(berth: &Supervisor, text: &str, volume: &str) -> Outcome {
    let mut request = scripted(berth, &[], text, &[mount(volume, "/v")]);
    request["person"] = json!(HEIR);
    attempt(berth, &request)
}

const FILL: &str = "cd /v; mkdir -p d/e; echo text > d/file; ln d/file d/e/same; ln -s /etc/passwd link; \
    mkfifo pipe; echo tool > tool; chown 1000:1001 d/file; chown 7:9 tool; chmod 6755 tool; chmod 2750 d; \
    dd if=/dev/zero of=hole bs=1 count=1 seek=10000000 2>/dev/null; touch -d '2001-02-03 04:05:06' tool";
const LIST: &str = "cd /v; find . | sort | while read f; do stat -c '%n %a %u %g %F %s %h %Y' $f; done; \
    cat d/e/same tool; readlink link";

/// Directories have sizes and times of their file system.
fn alike(text: &str) -> Vec<String> {
    let plain = |line: &str| match line.contains(" directory ") {
        true => line.split(" directory ").next().unwrap_or_default().to_owned(),
        false => line.to_owned(),
    };
    text.lines().map(plain).collect()
}

#[test]
fn what_is_handed_over_is_the_same_inside_and_the_others_on_disk() {
    requires_root!();
    let berth = with_heir();
    make(&berth, "one");
    script(&berth, FILL, &[mount("one", "/v")]);
    let before = script(&berth, LIST, &[mount("one", "/v")]);
    let (own, other) = (first_id(&berth, PERSON), first_id(&berth, HEIR));
    let content = volumes(&berth, PERSON).join(id("one")).join("data");
    // Capabilities hold in whose containers the attribute says; access control lists are in `disk/copy.rs`.
    let d = content.display();
    let marked =
        unguarded(&format!("cd {d} && setcap -n {own} cap_net_raw+ep tool && getcap -n tool"));
    assert!(marked.contains(&format!("rootid={own}")), "the control: {marked}");
    assert_eq!(hand_over(&berth, "one")["answer"], "done", "{}", berth.log());
    let after = theirs(&berth, LIST, "one").output();
    assert_eq!(alike(&after), alike(&before));
    let content = volumes(&berth, HEIR).join(id("one")).join("data");
    for (name, uid, gid) in [("d/file", 1000, 1001), ("tool", 7, 9), ("link", 0, 0), ("d", 0, 0)] {
        let facts = fs::symlink_metadata(content.join(name)).expect("it is there");
        assert_eq!((facts.uid(), facts.gid()), (other + uid, other + gid), "{name}");
    }
    let seen = unguarded(&format!("getcap -n {}/tool", content.display()));
    assert!(seen.contains(&format!("rootid={other}")), "{seen}");
    let hole = fs::metadata(content.join("hole")).expect("it is there");
    assert!(hole.len() > 10_000_000 && hole.blocks() < 1000, "holes stay holes");
    // Nothing of it is the first one's, by any way.
    let gone = attempt(&berth, &scripted(&berth, &[], "ls /v", &[mount("one", "/v")]));
    let Outcome::Refused { code, .. } = gone else { panic!("{gone:?}") };
    let check = Check {
        id: "R05",
        variant: "a container of whoever had a volume names it",
        control: "the heir's container reads it",
    };
    check.sees("volume.unknown", code);
    wait_until(&berth, "the first copy is away", || names(&volumes(&berth, PERSON)).is_empty());
    let stray = unguarded(&format!(
        "find {} -uid +{} -uid -{} | head",
        content.display(),
        own - 1,
        own + 65_536
    ));
    assert_eq!(stray, "", "no id of the first one's is left");
    assert_eq!(hand_over(&berth, "one")["answer"], "done", "done again it is done");
    assert_eq!(alike(&theirs(&berth, LIST, "one").output()), alike(&before));
}

#[test]
fn what_runs_keeps_it_and_a_kill_leaves_it_whole() {
    requires_root!();
    let mut berth = with_heir();
    make(&berth, "one");
    let fill = format!(
        "{FILL}; for i in $(seq 400); do echo $i > d/$i; done; \
        dd if=/dev/urandom of=big bs=1M count=60 2>/dev/null; md5sum big"
    );
    script(&berth, &fill, &[mount("one", "/v")]);
    let sums = format!("{LIST}; md5sum big");
    let before = script(&berth, &sums, &[mount("one", "/v")]);
    let run = berth.started(&scripted(&berth, &[], "sleep 1000", &[mount("one", "/v")]));
    let container = run.container.clone();
    drop(run);
    let refused = hand_over(&berth, "one");
    assert_eq!(refused["code"], "volume.in-use", "{refused}");
    end(&berth, &container);
    remove(&berth, &container);
    // Killed at several moments of it: whole with the one, or the other, whoever asks.
    for pause_ms in [5, 20, 60, 150] {
        let request =
            json!({"op": "volume_hand_over", "person": PERSON, "volume": id("one"), "heir": HEIR});
        let connection = berth.connect().expect("it listens");
        let frame = json!({"version": 1, "request": request}).to_string();
        system_tests::supervisor::send(&connection, frame.as_bytes(), &[]).expect("sent");
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        berth.kill();
        berth.launch();
        let seen = [PERSON, HEIR].map(|person| {
            let has = volumes(&berth, person).join(id("one")).join("data").exists();
            has.then_some(person)
        });
        assert!(seen.iter().any(Option::is_some), "it is nobody's after {pause_ms} ms");
        if seen[1].is_some() {
            break;
        }
        let now = script(&berth, &sums, &[mount("one", "/v")]);
        assert_eq!(alike(&now), alike(&before), "after {pause_ms} ms");
    }
    assert_eq!(hand_over(&berth, "one")["answer"], "done", "{}", berth.log());
    assert_eq!(alike(&theirs(&berth, &sums, "one").output()), alike(&before));
    wait_until(&berth, "nothing else is left", || {
        names(&volumes(&berth, PERSON)).is_empty()
            && names(&volumes(&berth, HEIR)) == BTreeSet::from([id("one")])
    });
}

#[test]
fn it_counts_to_whoever_gets_it_and_stays_where_it_does_not_fit() {
    requires_root!();
    let berth = with_heir();
    make(&berth, "one");
    script(
        &berth,
        "dd if=/dev/urandom of=/v/big bs=1M count=50 2>/dev/null",
        &[mount("one", "/v")],
    );
    let limit = |person: u32, mib: u64| {
        let answer =
            berth.call(&json!({"op": "person_data", "person": person, "bytes": mib * MIB}));
        assert_eq!(answer["answer"], "person_data", "{answer}");
    };
    limit(HEIR, 40);
    let refused = hand_over(&berth, "one");
    let check = Check {
        id: "A06",
        variant: "a volume is handed over that is larger than the heir may keep",
        control: "with more allowed it is taken",
    };
    check.sees("data.over", refused["code"].as_str().unwrap_or_default());
    assert_eq!(script(&berth, "ls /v", &[mount("one", "/v")]), "big\n", "it stays");
    wait_until(&berth, "nothing of it is there", || names(&volumes(&berth, HEIR)).is_empty());
    limit(HEIR, 120);
    limit(PERSON, 120);
    assert_eq!(hand_over(&berth, "one")["answer"], "done", "{}", berth.log());
    assert_eq!(theirs(&berth, "ls /v", "one").output(), "big\n");
    // One that was never used is given, too, and one of the same id that is there is the true one.
    make(&berth, "bare");
    assert_eq!(hand_over(&berth, "bare")["answer"], "done", "{}", berth.log());
    assert_eq!(theirs(&berth, "ls -A /v | wc -l", "bare").output(), "0\n");
    let none = hand_over(&berth, "none");
    assert_eq!(none["code"], "volume.unknown", "{none}");
}
