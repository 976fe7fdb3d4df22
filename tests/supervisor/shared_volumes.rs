//! Volumes of one person's in containers of another's: whose ids are seen from which side and lie on the disk, what
//! may be written and what not, who may be the first to use one, and what waits for whoever has one (R05, A06).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use system_tests::programs::unguarded;
use system_tests::supervisor::{PERSON, Supervisor, id};
use system_tests::{Check, requires_root};

use crate::hostile::{Outcome, attempt, plain};
use crate::volumes::{
    LISTING, MIB, end, furnished, make, mount, names, remove_volume, script, scripted, wait_until,
    with,
};

/// Whoever the volumes are shared with.
const COLLEAGUE: u32 = PERSON + 1;

fn with_colleague() -> Supervisor {
    let berth = Supervisor::start();
    let added = berth.call(&json!({"op": "person_add", "person": COLLEAGUE, "group": 2}));
    assert_eq!(added["answer"], "person", "{added}");
    berth
}

/// A mount of the first person's volume in somebody else's container.
fn shared(volume: &str, target: &str) -> Value {
    let mut mount = mount(volume, target);
    mount["owner"] = json!(PERSON);
    mount
}

fn read_only(mount: Value) -> Value {
    with(mount, "read_only", json!(true))
}

/// A start of a new container of the colleague's.
fn theirs(berth: &Supervisor, layers: &[&str], text: &str, mounts: &[Value]) -> Value {
    let mut request = scripted(berth, layers, text, mounts);
    request["person"] = json!(COLLEAGUE);
    request
}

fn first_id(berth: &Supervisor, person: u32) -> u32 {
    let first = &record(berth)["people"][person.to_string()]["first_id"];
    first.as_u64().and_then(|id| id.try_into().ok()).expect("an id")
}

fn record(berth: &Supervisor) -> Value {
    let text = fs::read_to_string(berth.data_dir().join("state/people.json")).expect("the record");
    serde_json::from_str(&text).expect("JSON")
}

/// Where a volume of the first person's is on the host.
fn holder(berth: &Supervisor, volume: &str) -> PathBuf {
    let row = record(berth)["people"][PERSON.to_string()].clone();
    let first = row["first_id"].to_string();
    let volumes = match row["data"]["number"].as_u64() {
        Some(number) => berth.run_dir().join(format!("disks/{first}.{number}/volumes")),
        None => berth.data_dir().join("people").join(first).join("volumes"),
    };
    volumes.join(id(volume))
}

#[test]
fn what_a_colleague_writes_is_the_owners_on_disk_and_their_own_inside() {
    requires_root!();
    let berth = with_colleague();
    let own = first_id(&berth, PERSON);
    assert_ne!(own, first_id(&berth, COLLEAGUE));
    make(&berth, "one");
    let text =
        "cd /v; mkdir d; echo o > d/root; echo o > d/user; chown 1000:1001 d/user; chmod 777 d";
    script(&berth, text, &[mount("one", "/v")]);
    let text = "cd /v/d; stat -c '%n %u %g' root user; echo c > mine; echo c > given; \
        chown 7:9 given; echo c >> root; ln -s /etc/passwd link; stat -c '%n %u %g' mine given; \
        grep ' /v ' /proc/self/mountinfo";
    let seen = attempt(&berth, &theirs(&berth, &[], text, &[shared("one", "/v")])).output();
    let (lines, info) = seen.trim_end().rsplit_once('\n').expect("lines");
    assert_eq!(lines, "root 0 0\nuser 1000 1001\nmine 0 0\ngiven 7 9");
    for option in ["nosuid", "nodev", "idmapped", "rw"] {
        assert!(info.split([' ', ',']).any(|word| word == option), "{option}: {info}");
    }
    let content = holder(&berth, "one").join("data/d");
    for (name, uid, gid) in [("mine", 0, 0), ("given", 7, 9), ("link", 0, 0), ("root", 0, 0)] {
        let facts = fs::symlink_metadata(content.join(name)).expect("it is there");
        assert_eq!((facts.uid(), facts.gid()), (own + uid, own + gid), "{name}");
    }
    // And the owner finds it as it was written, by the ids of both.
    let text = "cd /v/d; stat -c '%n %u %g' mine given; cat root mine; rm mine given && echo gone";
    let back = script(&berth, text, &[mount("one", "/v")]);
    assert_eq!(back, "mine 0 0\ngiven 7 9\no\nc\nc\ngone\n");
    // The control: without the map the owner's ids are nobody's for whoever is in the colleague's containers.
    let run = berth.started(&theirs(&berth, &[], "sleep 1000", &[]));
    let pid = berth.state(&run.container)["live"]["pid"].to_string();
    let without = unguarded(&format!(
        "mkdir -p /tmp/m && mount --bind {} /tmp/m && nsenter --target {pid} --user stat -c '%u %g' /tmp/m/root",
        content.display()
    ));
    assert_eq!(without.trim(), "65534 65534", "the control shows nobody");
    end(&berth, &run.container);
}

#[test]
fn a_volume_shared_to_be_read_is_not_written_to() {
    requires_root!();
    let berth = with_colleague();
    make(&berth, "one");
    script(&berth, "mkdir /v/d; echo own > /v/d/file; chmod -R 777 /v", &[mount("one", "/v")]);
    let text = "exec 2>&1; cat /v/d/file; echo x > /v/d/file; rm /v/d/file; chmod 700 /v/d; \
        mount -o remount,rw,bind /v && echo remounted; mkdir /v/new; echo x > /part/file; \
        touch /v/d/file; echo end";
    let mounts = [
        read_only(shared("one", "/v")),
        with(read_only(shared("one", "/part")), "sub_path", json!("d")),
    ];
    let held = attempt(&berth, &theirs(&berth, &[], text, &mounts)).output();
    let writes = "echo x > /v/d/file && echo written";
    let control = attempt(&berth, &theirs(&berth, &[], writes, &[shared("one", "/v")])).output();
    assert_eq!(control, "written\n", "the control writes to what is shared to be written");
    script(&berth, "echo own > /v/d/file", &[mount("one", "/v")]);
    let held = held + &attempt(&berth, &theirs(&berth, &[], text, &mounts)).output();
    assert!(held.starts_with("own\n") && held.ends_with("end\n"), "{held}");
    let check = Check {
        id: "R05",
        variant: "a colleague writes to a volume that they may read",
        control: "with a mount to be written the same file is written",
    };
    check.sees(false, held.contains("remounted"));
    let content = holder(&berth, "one").join("data");
    assert_eq!(fs::read_to_string(content.join("d/file")).expect("it is there"), "own\n");
    assert_eq!(names(&content), BTreeSet::from(["d".to_owned()]));
    assert!(held.matches("Read-only file system").count() >= 8, "{held}");
}

#[test]
fn a_colleagues_first_use_fills_a_volume_with_the_owners_ids() {
    requires_root!();
    let berth = with_colleague();
    let own = first_id(&berth, PERSON);
    let layer = furnished(&berth);
    let image = attempt(&berth, &scripted(&berth, &[&layer], LISTING, &[])).output();
    // Folders have the sizes of their file system.
    let alike = |text: &str| {
        let lines = text.lines().map(|line| match line.contains(" directory ") {
            true => line.rsplit_once(' ').expect("a size").0.to_owned(),
            false => line.to_owned(),
        });
        lines.collect::<Vec<_>>()
    };
    make(&berth, "filled");
    // Who may only read is not the first, and leaves it as it was: also when it is killed or tried again.
    for _ in 0..2 {
        let mounts = [read_only(shared("filled", "/data"))];
        match attempt(&berth, &theirs(&berth, &[&layer], "true", &mounts)) {
            Outcome::Refused { code, message } => {
                assert_eq!(code, "volume.unused", "{message}");
                assert!(message.contains("never used"), "{message}");
            }
            ran @ Outcome::Ran { .. } => panic!("{ran:?}"),
        }
        assert_eq!(names(&holder(&berth, "filled")), BTreeSet::new());
    }
    let first = theirs(&berth, &[&layer], LISTING, &[shared("filled", "/data")]);
    assert_eq!(alike(&attempt(&berth, &first).output()), alike(&image));
    let again = scripted(&berth, &[], LISTING, &[mount("filled", "/data")]);
    assert_eq!(alike(&attempt(&berth, &again).output()), alike(&image), "the owner sees the same");
    let facts = fs::metadata(holder(&berth, "filled").join("data/file")).expect("it is there");
    assert_eq!((facts.uid(), facts.gid()), (own, own));
    // One that nothing was brought to belongs to who the program is, as the owner's containers number them.
    make(&berth, "bare");
    let mut request =
        theirs(&berth, &[], "touch /v/mine && stat -c %u /v", &[shared("bare", "/v")]);
    request["process"]["user"] = json!("1000:1000");
    assert_eq!(attempt(&berth, &request).output(), "1000\n");
    let facts = fs::metadata(holder(&berth, "bare").join("data")).expect("it is there");
    assert_eq!((facts.uid(), facts.mode() & 0o7777), (own + 1000, 0o755));
    // What is used can be read now, by whoever may.
    let mounts = [read_only(shared("bare", "/v"))];
    assert_eq!(attempt(&berth, &theirs(&berth, &[], "ls /v", &mounts)).output(), "mine\n");
}

#[test]
fn a_setuid_file_of_a_colleagues_gives_nobody_anything() {
    requires_root!();
    let berth = with_colleague();
    make(&berth, "one");
    let text = "exec 2>&1; cp /bin/busybox /v/id && chmod 6755 /v/id && stat -c '%a %u' /v/id; \
        mknod /v/disk b 8 0; mknod /v/pipe p && echo pipe";
    let made = attempt(&berth, &theirs(&berth, &[], text, &[shared("one", "/v")])).output();
    assert!(made.starts_with("6755 0\n") && made.contains("pipe"), "{made}");
    let content = holder(&berth, "one").join("data");
    let facts = fs::metadata(content.join("id")).expect("it is there");
    let check = Check {
        id: "R05",
        variant: "a setuid file that a colleague leaves in a volume",
        control: "it is there with its bits, and root's by the ids inside",
    };
    assert_eq!(facts.mode() & 0o7777, 0o6755);
    check.sees(false, facts.uid() == 0);
    assert!(!content.join("disk").exists(), "no device was made");
    let mut request = scripted(&berth, &[], "/v/id -u", &[mount("one", "/v")]);
    request["process"]["user"] = json!("1000:1000");
    let ran = attempt(&berth, &request).output();
    assert_eq!(ran.lines().next(), Some("1000"), "{ran}");
}

#[test]
fn whoever_has_a_volume_keeps_it_from_removal_and_its_owners_data_from_moving() {
    requires_root!();
    let mut berth = with_colleague();
    make(&berth, "one");
    let limit = |berth: &Supervisor, mib: Option<u64>| {
        let bytes = mib.map(|mib| mib * MIB);
        berth.call(&json!({"op": "person_data", "person": PERSON, "bytes": bytes}))
    };
    let text = "echo first > /v/file; echo wrote; until [ -e /v/go ]; do sleep 1; done; cat /v/go";
    let run = berth.started(&theirs(&berth, &[], text, &[shared("one", "/v")]));
    run.wait_log("wrote");
    let container = run.container.clone();
    drop(run);
    for restarted in [false, true] {
        if restarted {
            berth.kill();
            berth.launch();
        }
        let refused = remove_volume(&berth, "one");
        assert_eq!(refused["code"], "volume.in-use", "{restarted}: {refused}");
        let refused = limit(&berth, Some(64));
        assert_eq!(refused["code"], "data.busy", "{restarted}: {refused}");
    }
    // It goes on with what it has, and its end frees both.
    fs::write(holder(&berth, "one").join("data/go"), "gone on\n").expect("written");
    berth.wait_state(&container, "the end", |state| state["exit"].is_object());
    assert!(plain(&berth.container_log(&container)).contains("gone on"), "{}", berth.log());
    crate::hostile::remove(&berth, &container);
    assert_eq!(limit(&berth, Some(64))["answer"], "person_data", "{}", berth.log());
    // From the owner's file system it is mounted the same way, and held by its size.
    let check = Check {
        id: "A06",
        variant: "a colleague writes past what the owner of a volume may keep",
        control: "without the limit the same writer passes the size",
    };
    let fill = "exec 2>&1; cat /v/file; dd if=/dev/zero of=/v/big bs=1M count=100; echo ended $?; rm /v/big";
    let held = attempt(&berth, &theirs(&berth, &[], fill, &[shared("one", "/v")])).output();
    assert!(held.starts_with("first\n"), "{held}");
    check.sees(true, held.contains("No space left") && held.contains("ended 1"));
    // A start that comes while the data moves waits for the end of that.
    let runs = std::thread::scope(|scope| {
        let moving = scope.spawn(|| limit(&berth, None));
        let started = attempt(&berth, &theirs(&berth, &[], fill, &[shared("one", "/v")])).output();
        let moved = moving.join().expect("it answers");
        // Whichever was first: the data moves before the start, or is refused while it runs.
        assert!(moved["answer"] == "person_data" || moved["code"] == "data.busy", "{moved}");
        started
    });
    assert!(runs.starts_with("first\n"), "{runs}");
    assert_eq!(limit(&berth, None)["answer"], "person_data", "{}", berth.log());
    let free = attempt(&berth, &theirs(&berth, &[], fill, &[shared("one", "/v")])).output();
    assert!(free.contains("ended 0"), "the control passes: {free}");
    assert_eq!(remove_volume(&berth, "one")["answer"], "done");
    wait_until(&berth, "it is away", || !holder(&berth, "one").exists());
    let gone = berth.call(&theirs(&berth, &[], "true", &[shared("one", "/v")]));
    assert_eq!(gone["code"], "volume.unknown", "{gone}");
}

#[test]
fn a_volume_is_had_under_its_owner_alone() {
    requires_root!();
    let berth = with_colleague();
    make(&berth, "one");
    script(&berth, "echo own > /v/file", &[mount("one", "/v")]);
    for (owner, code) in [
        (json!(COLLEAGUE), "volume.unknown"),
        (json!(null), "volume.unknown"),
        (json!(4_242), "person.unknown"),
        (json!(0), "person.unknown"),
        (json!("/etc"), "wire."),
    ] {
        let one = with(shared("one", "/v"), "owner", owner.clone());
        let answer = berth.call(&theirs(&berth, &[], "cat /v/file", &[one]));
        let said = answer["code"].as_str().unwrap_or_default();
        assert!(said.starts_with(code), "{owner}: {answer}");
    }
    // The same id under both is two volumes.
    let answer =
        berth.call(&json!({"op": "volume_make", "person": COLLEAGUE, "volume": id("one")}));
    assert_eq!(answer["answer"], "done", "{answer}");
    let both = [mount("one", "/mine"), shared("one", "/theirs")];
    let text = "ls -A /mine; cat /theirs/file; echo c > /mine/own; ls /theirs";
    let seen = attempt(&berth, &theirs(&berth, &[], text, &both)).output();
    assert_eq!(seen, "own\nfile\n");
    // What runs has its owner's; the other's is free to go.
    let mounts = [read_only(shared("one", "/v"))];
    let run = berth.started(&theirs(&berth, &[], "sleep 1000", &mounts));
    let container = run.container.clone();
    drop(run);
    let theirs = json!({"op": "volume_remove", "person": COLLEAGUE, "volume": id("one")});
    assert_eq!(berth.call(&theirs)["answer"], "done");
    assert_eq!(remove_volume(&berth, "one")["code"], "volume.in-use");
    end(&berth, &container);
    crate::hostile::remove(&berth, &container);
    assert_eq!(remove_volume(&berth, "one")["answer"], "done");
}
