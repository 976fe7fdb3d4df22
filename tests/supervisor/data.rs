//! What a person may keep on disk: as their programs feel it and their neighbours do not; given, widened,
//! narrowed and taken away, whatever is killed meanwhile; and what a lost file system takes with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::disk::unmount_disks;
use system_tests::supervisor::{PERSON, Supervisor, id};
use system_tests::{Check, requires_root};

const MIB: u64 = 1 << 20;
const NEIGHBOUR: u32 = 1001;

fn limit(berth: &Supervisor, person: u32, mib: Option<u64>) -> Value {
    let bytes = mib.map(|mib| mib * MIB);
    berth.call(&json!({"op": "person_data", "person": person, "bytes": bytes}))
}

fn give(berth: &Supervisor, person: u32, mib: Option<u64>) {
    let answer = limit(berth, person, mib);
    assert_eq!(answer["answer"], "person_data", "{answer}\n{}", berth.log());
    assert_eq!(answer["limit_bytes"], json!(mib.map(|mib| mib * MIB)), "{answer}");
}

fn request(berth: &Supervisor, name: &str, person: u32, run: u64, script: &str) -> Value {
    let mut request = berth.start_request(&id(name), run, &["sh", "-c", script]);
    request["person"] = json!(person);
    request["limits"]["memory_bytes"] = json!(256 * MIB);
    request
}

/// Runs a script to its end; what it has written.
fn script(berth: &Supervisor, name: &str, person: u32, run: u64, script: &str) -> String {
    let started = berth.started(&request(berth, name, person, run, script));
    started.wait_exit();
    wait_gone(berth, &id(name));
    words(&berth.container_log(&id(name)))
}

/// Waits until nothing is left on tmpfs of a container's run.
fn wait_gone(berth: &Supervisor, container: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while berth.run_dir().join("containers").join(container).exists() {
        assert!(Instant::now() < deadline, "the run is left: {}", berth.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a log holds, without times and streams.
fn words(log: &str) -> String {
    let lines = log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

fn neighbour(berth: &Supervisor) {
    let added = berth.call(&json!({"op": "person_add", "person": NEIGHBOUR, "group": 2}));
    assert_eq!(added["answer"], "person", "{added}");
}

fn first_id(berth: &Supervisor, person: u32) -> String {
    let text = fs::read_to_string(berth.data_dir().join("state/people.json")).expect("the record");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    record["people"][person.to_string()]["first_id"].to_string()
}

/// Where a person's containers' trees are now, as the record has it.
fn trees(berth: &Supervisor, person: u32) -> PathBuf {
    let text = fs::read_to_string(berth.data_dir().join("state/people.json")).expect("the record");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    let row = &record["people"][person.to_string()];
    let first = row["first_id"].to_string();
    match row["data"]["number"].as_u64() {
        Some(number) => berth.run_dir().join(format!("disks/{first}.{number}/containers")),
        None => berth.data_dir().join("people").join(first).join("containers"),
    }
}

fn images(berth: &Supervisor, person: u32) -> Vec<String> {
    let folder = berth.data_dir().join("people").join(first_id(berth, person)).join("data");
    let listed = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = listed.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "lock").collect()
}

/// Loop devices whose file is, or was, one of the instance's.
fn devices(berth: &Supervisor) -> Vec<String> {
    let place = berth.data_dir().display().to_string();
    let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = loops.map(|entry| entry.path().join("loop/backing_file"));
    let files = files.filter_map(|path| fs::read_to_string(path).ok());
    files.filter(|file| file.starts_with(&place)).collect()
}

/// Prints each name below a tree with what it is like, and which names are one file.
const MANIFEST: &str = "
import hashlib, json, os, stat, sys
top, found, same = sys.argv[1], {}, {}
def look(path):
    name, s = os.path.relpath(path, top), os.lstat(path)
    content = hex(s.st_rdev)
    if stat.S_ISLNK(s.st_mode): content = os.readlink(path)
    if stat.S_ISREG(s.st_mode):
        content = str(s.st_size) + hashlib.sha256(open(path, 'rb').read()).hexdigest()
    x = [(n, os.getxattr(path, n, follow_symlinks=False).hex())
         for n in sorted(os.listxattr(path, follow_symlinks=False))]
    found[name] = f'{s.st_mode:o} {s.st_uid} {s.st_gid} {s.st_mtime_ns}: {content} {x}'
    if not stat.S_ISDIR(s.st_mode): same.setdefault(s.st_ino, []).append(name)
for folder, folders, files in os.walk(top):
    look(folder)
    for name in files + [f for f in folders if os.path.islink(os.path.join(folder, f))]:
        look(os.path.join(folder, name))
for names in same.values():
    if len(names) > 1: found['one file: ' + ' '.join(sorted(names))] = ''
print(json.dumps(found))
";

/// All that is in a tree, and what it is like: what a container's writable layer means.
fn manifest(top: &Path) -> BTreeMap<String, String> {
    let output = Command::new("python3").args(["-c", MANIFEST]).arg(top).output();
    let output = output.expect("python3 is here");
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Makes one of everything in a container's writable layer.
const ZOO: &str = "cd /root; echo one > a; ln a b; ln -s a link; mkdir -p deep/deeper; ln a deep/c; \
    echo secret > deep/deeper/d; chmod 4751 deep/deeper/d; chmod 1777 deep; mknod pipe p; \
    dd if=/dev/zero of=sparse bs=1 count=1 seek=30000000 2> /dev/null; touch -t 201001010101 a; \
    rm /etc/passwd; mkdir /tmp/x; chown 1000:1000 deep; \
    rm -r /tmp; mkdir /tmp; touch /tmp/new";

#[test]
fn at_the_limit_one_person_is_refused_and_nobody_else() {
    requires_root!();
    let berth = Supervisor::start();
    neighbour(&berth);
    give(&berth, PERSON, Some(64));
    let write = "dd if=/dev/zero of=/big bs=1M count=100; echo ended $?; ls -l /big";
    let control = script(&berth, "neighbour", NEIGHBOUR, 1, write);
    assert!(control.contains("ended 0"), "without a limit the same passes: {control}");
    let df = "/bin/busybox df -m / | tail -n 1";
    let shown = script(&berth, "shown", PERSON, 1, df);
    assert_eq!(shown.split_whitespace().nth(1), Some("64"), "df shows the limit: {shown}");
    let check = Check {
        id: "A06",
        variant: "a person writes past what they may keep",
        control: "without the limit the same writer passes the size",
    };
    let full = script(&berth, "full", PERSON, 1, write);
    check.sees("refused", if full.contains("No space left") { "refused" } else { full.as_str() });
    assert!(full.contains("ended 1"), "{full}");
    // Theirs is full: what they have can be read, run again, stopped and removed.
    let held = "cat /big > /dev/null; echo read $?; echo x > /more; sleep 1000";
    let again = berth.started(&request(&berth, "full", PERSON, 2, held));
    assert!(again.wait_log("read 0").contains("ended 1"));
    let beside = script(&berth, "neighbour", NEIGHBOUR, 2, write);
    assert_eq!(beside.matches("ended 0").count(), 2, "the neighbour goes on: {beside}");
    again.act("container_kill");
    again.wait_exit();
    wait_gone(&berth, &id("full"));
    let used = berth.call(&json!({"op": "person_data_use", "person": PERSON}));
    assert!(used["used_bytes"].as_u64() > Some(60 * MIB), "{used}");
    let gone = berth.call(&json!({"op": "container_remove", "container": id("full")}));
    assert_eq!(gone["answer"], "done", "{gone}");
    let fits = "dd if=/dev/zero of=/big bs=1M count=30; echo ended $?";
    let fits = script(&berth, "fits", PERSON, 1, fits);
    assert!(fits.contains("ended 0"), "there is room again: {fits}");
    let small = script(&berth, "small", PERSON, 1, write);
    assert!(small.contains("No space left"), "the limit is of all containers together: {small}");
}

#[test]
fn a_limit_grows_while_programs_run() {
    requires_root!();
    let mut berth = Supervisor::start();
    give(&berth, PERSON, Some(48));
    let huge = limit(&berth, PERSON, Some(1 << 22));
    assert_eq!(
        (&huge["code"], &huge["class"]),
        (&json!("disk.room"), &json!("exhausted")),
        "{huge}"
    );
    let text = "until [ -e /go ]; do dd if=/dev/zero of=/big bs=1M count=100 2> /dev/null && touch /go; \
         rm /big; done; /bin/busybox df -m / | tail -n 1; sleep 1000";
    let run = berth.started(&request(&berth, "one", PERSON, 1, text));
    let (container, pid) = (run.container.clone(), run.pid());
    drop(run);
    for bytes in [json!(0), json!(32 * MIB - 1), json!((1_u64 << 42) + 1)] {
        let answer = berth.call(&json!({"op": "person_data", "person": PERSON, "bytes": bytes}));
        assert_eq!(answer["class"], "invalid", "{answer}");
    }
    for refused in [Some(40), None] {
        let answer = limit(&berth, PERSON, refused);
        assert_eq!(answer["code"], "data.busy", "{answer}");
    }
    let status = fs::read_to_string("/proc/self/status").expect("our own");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a mask");
    if mask & (1 << 24) == 0 {
        let answer = limit(&berth, PERSON, Some(1200));
        assert_eq!(answer["code"], "data.busy", "{answer}");
        system_tests::programs::skip("needs CAP_SYS_RESOURCE: ext4 grows mounted");
        return;
    }
    give(&berth, PERSON, Some(1200));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !berth.container_log(&container).contains("1200") {
        assert!(Instant::now() < deadline, "{}", berth.container_log(&container));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The next supervisor finds what is mounted, and the program does not notice.
    berth.kill();
    berth.launch();
    give(&berth, PERSON, Some(1300));
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let image = berth.data_dir().join("people").join(first_id(&berth, PERSON)).join("data/1.ext4");
    let about = fs::metadata(image).expect("the file system's file");
    assert_eq!(about.len(), 1300 * MIB);
    assert!(about.blocks() * 512 >= about.len(), "all of its blocks are set aside: {about:?}");
}

#[test]
fn whatever_somebody_keeps_comes_along_between_the_ways_and_sizes() {
    requires_root!();
    let berth = Supervisor::start();
    script(&berth, "zoo", PERSON, 1, ZOO);
    let upper = trees(&berth, PERSON).join(id("zoo")).join("upper");
    let mark = "import os,sys\nos.setxattr(sys.argv[1], 'user.mark', b'\\0m')\n\
         os.setxattr(sys.argv[1], 'trusted.overlay.opaque', b'y')\n\
         os.utime(sys.argv[2], ns=(1, 2))";
    let mut command = Command::new("python3");
    let marked = command.args(["-c", mark]).arg(upper.join("root")).arg(&upper).status();
    assert!(marked.expect("python3 is here").success());
    let before = manifest(&trees(&berth, PERSON));
    let listed = format!("{before:#?}");
    for kind in ["upper/root/sparse", "upper/root/pipe", "user.mark", "trusted.overlay.opaque"] {
        assert!(listed.contains(kind), "{kind}: {listed}");
    }
    let whiteout = before.get(&format!("{}/upper/etc/passwd", id("zoo")));
    assert!(whiteout.is_some_and(|seen| seen.starts_with("20000 ")), "a whiteout: {whiteout:?}");
    for (step, mib) in [Some(64), Some(40), Some(200), None, Some(64), None].into_iter().enumerate()
    {
        give(&berth, PERSON, mib);
        assert_eq!(manifest(&trees(&berth, PERSON)), before, "step {step} to {mib:?}");
        assert_eq!(images(&berth, PERSON).len(), usize::from(mib.is_some()), "step {step}");
        let sparse = trees(&berth, PERSON).join(id("zoo")).join("upper/root/sparse");
        assert!(fs::metadata(sparse).expect("it is there").blocks() < 100, "holes are holes");
    }
    assert_eq!(devices(&berth), [""; 0], "no device is left");
    // More than fits leaves all as it was.
    script(&berth, "big", PERSON, 1, "dd if=/dev/urandom of=/big bs=1M count=50");
    let before = manifest(&trees(&berth, PERSON));
    let over = limit(&berth, PERSON, Some(40));
    assert_eq!(
        (&over["code"], &over["class"]),
        (&json!("data.over"), &json!("conflict")),
        "{over}"
    );
    assert_eq!(manifest(&trees(&berth, PERSON)), before);
    assert!(images(&berth, PERSON).is_empty() && devices(&berth).is_empty());
    // By one stream: of two the log keeps no order.
    assert_eq!(
        script(&berth, "zoo", PERSON, 2, "exec 2>&1; cat /root/deep/deeper/d; ls /etc/passwd"),
        "secret\nls: /etc/passwd: No such file or directory\n"
    );
}

/// Ends the supervisor and all that it has begun, as a power cut does; what is mounted goes as well.
fn cut(berth: &mut Supervisor) {
    let pid = berth.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let mut pids: Vec<String> =
        children.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    berth.kill();
    while let Some(pid) = pids.pop() {
        let more = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        pids.extend(more.unwrap_or_default().split_whitespace().map(str::to_owned));
        let task = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&task).contains("monitor") {
            let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a pid"));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
    unmount_disks(&berth.run_dir());
}

#[test]
fn a_move_that_is_killed_anywhere_loses_nothing() {
    requires_root!();
    let mut berth = Supervisor::start();
    script(&berth, "zoo", PERSON, 1, ZOO);
    script(&berth, "big", PERSON, 1, "dd if=/dev/urandom of=/big bs=1M count=12");
    let before = manifest(&trees(&berth, PERSON));
    let mut seen = [0, 0];
    let mut delay = Duration::ZERO;
    for round in 0_u32..15 {
        let mib = [Some(64), Some(48), None][usize::try_from(round % 3).expect("small")];
        let request = json!({"op": "person_data", "person": PERSON,
            "bytes": mib.map(|mib| mib * MIB)});
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                let frame = json!({"version": 1, "request": request}).to_string();
                let socket = berth.connect().expect("a connection");
                system_tests::supervisor::send(&socket, frame.as_bytes(), &[]).expect("sent");
                socket
            });
            drop(asker.join().expect("it asks"));
        });
        // Each round is killed somewhat later than the one before, beyond the end of the move.
        std::thread::sleep(delay);
        delay += Duration::from_millis(40);
        cut(&mut berth);
        berth.launch();
        let state = berth.call(&json!({"op": "person_data_use", "person": PERSON}));
        assert_eq!(state["answer"], "person_data", "round {round}: {state}\n{}", berth.log());
        let there = manifest(&trees(&berth, PERSON));
        assert_eq!(there, before, "round {round}, after {delay:?}: {state}\n{}", berth.log());
        let limited = state["limit_bytes"].is_u64();
        seen[usize::from(limited)] += 1;
        assert_eq!(images(&berth, PERSON).len(), usize::from(limited), "round {round}: {state}");
    }
    assert!(seen[0] > 0 && seen[1] > 0, "killed before and after the switch: {seen:?}");
    assert_eq!(script(&berth, "zoo", PERSON, 2, "cat /root/deep/deeper/d"), "secret\n");
}

#[test]
fn a_lost_file_system_is_one_persons_fault() {
    requires_root!();
    let mut berth = Supervisor::start();
    neighbour(&berth);
    for person in [PERSON, NEIGHBOUR] {
        give(&berth, person, Some(48));
    }
    script(&berth, "lost", PERSON, 1, "echo mine > /mine");
    script(&berth, "kept", NEIGHBOUR, 1, "echo mine > /mine");
    let image = |berth: &Supervisor| {
        berth.data_dir().join("people").join(first_id(berth, PERSON)).join("data/1.ext4")
    };
    // Not left clean: its journal is read at the next start.
    cut(&mut berth);
    let away = berth.dir.join("away.ext4");
    fs::rename(image(&berth), &away).expect("take it away");
    berth.launch();
    let refused = berth.call(&request(&berth, "lost", PERSON, 2, "cat /mine"));
    assert_eq!(refused["code"], "data.missing", "{refused}");
    assert_eq!(
        script(&berth, "kept", NEIGHBOUR, 2, "cat /mine"),
        "mine\n",
        "the neighbour goes on"
    );
    fs::rename(&away, image(&berth)).expect("bring it back");
    give(&berth, PERSON, Some(48));
    assert_eq!(script(&berth, "lost", PERSON, 3, "cat /mine"), "mine\n", "nothing is lost");
    // Damaged beyond mending.
    cut(&mut berth);
    fs::copy(image(&berth), &away).expect("keep it");
    let file = fs::OpenOptions::new().write(true).open(image(&berth)).expect("open it");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 2048], 1024).expect("damage it");
    berth.launch();
    let refused = berth.call(&request(&berth, "lost", PERSON, 4, "cat /mine"));
    assert_eq!(refused["code"], "data.damaged", "{refused}");
    assert_eq!(script(&berth, "kept", NEIGHBOUR, 3, "cat /mine"), "mine\nmine\n");
}
