//! Volumes: kept over containers and shared by them, filled from images, removed, moved with their owner's
//! data, whatever is killed meanwhile; and what programs achieve with links in them (R05, R06, R08, A06).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::programs::unguarded;
use system_tests::supervisor::{LIMIT, PERSON, Run, Supervisor, id};
use system_tests::{Check, requires_root, sample, times};

use crate::hostile::{Host, Layer, Outcome, TOKEN, attacker_layer, attempt, plain, request};

pub(crate) const MIB: u64 = 1 << 20;

/// One mount of a start request, with the whole volume to be read and written.
pub(crate) fn mount(volume: &str, target: &str) -> Value {
    json!({"volume": id(volume), "target": target, "read_only": false, "sub_path": null,
        "copy_up": true})
}

pub(crate) fn with(mount: Value, field: &str, value: Value) -> Value {
    let mut mount = mount;
    mount[field] = value;
    mount
}

pub(crate) fn make(berth: &Supervisor, volume: &str) {
    let answer = berth.call(&json!({"op": "volume_make", "person": PERSON, "volume": id(volume)}));
    assert_eq!(answer["answer"], "done", "{answer}\n{}", berth.log());
}

pub(crate) fn remove_volume(berth: &Supervisor, volume: &str) -> Value {
    berth.call(&json!({"op": "volume_remove", "person": PERSON, "volume": id(volume)}))
}

fn measured(berth: &Supervisor, volume: &str) -> Value {
    berth.call(&json!({"op": "volume_measure", "person": PERSON, "volume": id(volume)}))
}

/// A start of a new container of these layers that runs a script with these volumes.
pub(crate) fn scripted(
    berth: &Supervisor,
    layers: &[&str],
    script: &str,
    mounts: &[Value],
) -> Value {
    let mut request = request(berth, layers, &["sh", "-c", script]);
    request["volumes"] = json!(mounts);
    request
}

/// What a script with these volumes prints.
#[track_caller]
pub(crate) fn script(berth: &Supervisor, script: &str, mounts: &[Value]) -> String {
    attempt(berth, &scripted(berth, &[], script, mounts)).output()
}

fn first_id(berth: &Supervisor) -> u32 {
    record(berth)["first_id"].as_u64().and_then(|id| id.try_into().ok()).expect("an id")
}

fn record(berth: &Supervisor) -> Value {
    let text = fs::read_to_string(berth.data_dir().join("state/people.json")).expect("the record");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    record["people"][PERSON.to_string()].clone()
}

/// Where the person's volumes are now.
fn volumes(berth: &Supervisor) -> PathBuf {
    let row = record(berth);
    let first = row["first_id"].to_string();
    match row["data"]["number"].as_u64() {
        Some(number) => berth.run_dir().join(format!("disks/{first}.{number}/volumes")),
        None => berth.data_dir().join("people").join(first).join("volumes"),
    }
}

/// What a volume holds, on the host.
fn content(berth: &Supervisor, volume: &str) -> PathBuf {
    volumes(berth).join(id(volume)).join("data")
}

pub(crate) fn names(directory: &Path) -> BTreeSet<String> {
    let listed = fs::read_dir(directory).into_iter().flatten().flatten();
    listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[track_caller]
pub(crate) fn wait_until(berth: &Supervisor, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not in time; {}", berth.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_volume_outlives_its_containers_and_is_shared_by_them() {
    requires_root!();
    let berth = Supervisor::start();
    make(&berth, "one");
    make(&berth, "one");
    let text = "echo kept > /data/file; mkdir /data/sub; echo inner > /data/sub/file; echo wrote; \
        until [ -e /data/seen ]; do sleep 1; done; cat /proc/self/mountinfo";
    let writer = scripted(&berth, &[], text, &[mount("one", "/data")]);
    let writer = berth.started(&writer);
    writer.wait_log("wrote");
    // At the same time, at other places, read-only, and a part of it alone.
    let mounts = [
        mount("one", "/elsewhere"),
        with(mount("one", "/plain/ro"), "read_only", json!(true)),
        with(mount("one", "/part"), "sub_path", json!("sub")),
        with(mount("one", "/etc/motd"), "sub_path", json!("sub/file")),
    ];
    let text = "cat /elsewhere/file /part/file /etc/motd; exec 2>&1; echo x > /plain/ro/file; \
        echo x > /part/more && ls /elsewhere/sub; touch /elsewhere/seen";
    let seen = script(&berth, text, &mounts);
    let expected = "kept\ninner\ninner\nsh: can't create /plain/ro/file: Read-only file system\n\
        file\nmore\n";
    assert_eq!(seen, expected);
    writer.wait_exit();
    let info = plain(&berth.container_log(&writer.container));
    let line = info.lines().find(|line| line.contains(" /data ")).expect("it is mounted");
    for option in ["nosuid", "nodev", "rw"] {
        assert!(line.split([' ', ',']).any(|word| word == option), "{option}: {line}");
    }
    crate::hostile::remove(&berth, &writer.container);
    assert_eq!(script(&berth, "cat /v/file", &[mount("one", "/v")]), "kept\n");
    let found = measured(&berth, "one");
    assert_eq!((&found["entries"], &found["is_whole"]), (&json!(5), &json!(true)), "{found}");
    // Nobody else's container gets it, and what it names is theirs: there is none.
    let added = berth.call(&json!({"op": "person_add", "person": PERSON + 1, "group": 2}));
    assert_eq!(added["answer"], "person");
    let mut foreign = scripted(&berth, &[], "cat /v/file", &[mount("one", "/v")]);
    foreign["person"] = json!(PERSON + 1);
    let refused = berth.call(&foreign);
    assert_eq!(refused["code"], "volume.unknown", "{refused}");
}

#[test]
fn a_new_volume_belongs_to_who_the_program_is() {
    requires_root!();
    let berth = Supervisor::start();
    let first = first_id(&berth);
    for (user, owner) in [("", 0), ("1000:1000", 1000), ("user", 1000)] {
        let volume = format!("of {user}");
        make(&berth, &volume);
        let mut request = scripted(
            &berth,
            &[],
            "touch /data/mine && stat -c %u /data",
            &[mount(&volume, "/data")],
        );
        request["process"]["user"] = json!(user);
        let output = attempt(&berth, &request).output();
        assert_eq!(output, format!("{owner}\n"));
        let facts = fs::metadata(content(&berth, &volume)).expect("it is there");
        assert_eq!((facts.uid(), facts.mode() & 0o7777), (first + owner, 0o755));
    }
}

/// A layer with one of everything in `/data`.
pub(crate) fn furnished(berth: &Supervisor) -> String {
    let layer = Layer::new()
        .directory("data/", 0o2750)
        .file_with("data/file", 0o4711, b"of the image", ("user.mark", b"m\0k"))
        .directory("data/deep/", 0o1777)
        .file("data/deep/er", 0o600, b"deeper")
        .link("data/link", "/etc/passwd")
        .fifo("data/pipe");
    berth.unpack(&layer.bytes())
}

pub(crate) const LISTING: &str = "cd /data; for f in . file deep deep/er link pipe; do \
    stat -c '%n %a %u %g %F %Y %s' $f; done";

#[test]
fn a_volume_begins_with_what_the_image_has_and_only_once() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = furnished(&berth);
    let listing = |mounts: &[Value]| {
        let text = attempt(&berth, &scripted(&berth, &[&layer], LISTING, mounts)).output();
        // Directories have the sizes of their file system.
        let lines = text.lines().map(|line| match line.contains(" directory ") {
            true => line.rsplit_once(' ').expect("a size").0.to_owned(),
            false => line.to_owned(),
        });
        lines.collect::<Vec<_>>()
    };
    let plain_image = listing(&[]);
    assert!(plain_image[1].starts_with("file 4711 0 0"), "{plain_image:?}");
    for volume in ["filled", "read", "twice"] {
        make(&berth, volume);
    }
    assert_eq!(listing(&[mount("filled", "/data")]), plain_image);
    assert_eq!(listing(&[with(mount("read", "/data"), "read_only", json!(true))]), plain_image);
    let twice = [with(mount("twice", "/other"), "copy_up", json!(false)), mount("twice", "/data")];
    assert_eq!(listing(&twice), plain_image);
    let mark = std::process::Command::new("python3")
        .args(["-c", "import os,sys; print(os.getxattr(sys.argv[1], 'user.mark'))"])
        .arg(content(&berth, "filled").join("file"))
        .output()
        .expect("python3 is here");
    assert_eq!(String::from_utf8_lossy(&mark.stdout).trim(), r"b'm\x00k'");
    // What was removed does not come back, nor into one that was used without it.
    let clean = "rm -r /data/*; ls -A /data";
    let emptied = attempt(&berth, &scripted(&berth, &[&layer], clean, &[mount("filled", "/data")]));
    assert_eq!(emptied.output(), "");
    let again =
        attempt(&berth, &scripted(&berth, &[&layer], "ls -A /data", &[mount("filled", "/data")]));
    assert_eq!(again.output(), "");
    make(&berth, "bare");
    for copies in [false, true] {
        let one = with(mount("bare", "/data"), "copy_up", json!(copies));
        let seen = attempt(&berth, &scripted(&berth, &[&layer], "ls -A /data", &[one]));
        assert_eq!(seen.output(), "");
    }
}

/// The monitor of a container that is being built.
fn monitors(berth: &Supervisor) -> Vec<i32> {
    let pid = berth.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let pids = children.unwrap_or_default();
    let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_monitor = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("monitor")
    };
    pids.filter(is_monitor).collect()
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
}

#[test]
fn a_first_use_that_is_killed_anywhere_leaves_the_volume_unused() {
    requires_root!();
    let berth = Supervisor::start();
    let mut layer = Layer::new().directory("data/", 0o755);
    let count = 400;
    for number in 0..count {
        layer = layer.file(&format!("data/{number}"), 0o644, &[7; 20_000]);
    }
    let layer = berth.unpack(&layer.bytes());
    let (mut cut, mut whole) = (0, 0);
    let mut delay = Duration::ZERO;
    for round in 0..times(60, 12) {
        let volume = format!("cut {round}");
        make(&berth, &volume);
        let request = scripted(&berth, &[&layer], "true", &[mount(&volume, "/data")]);
        let frame = json!({"version": 1, "request": request}).to_string();
        let socket = berth.connect().expect("a connection");
        system_tests::supervisor::send(&socket, frame.as_bytes(), &[]).expect("sent");
        let holder = volumes(&berth).join(id(&volume));
        let begun = || !names(&holder).is_empty();
        wait_until(&berth, "the first use begins", begun);
        std::thread::sleep(delay);
        delay += Duration::from_millis(20);
        monitors(&berth).into_iter().for_each(kill);
        let container = request["container"].as_str().expect("it has an id").to_owned();
        berth.wait_state(&container, "the end", |state| state["exit"].is_object());
        crate::hostile::remove(&berth, &container);
        match fs::exists(holder.join("data")).expect("look") {
            true => whole += 1,
            false => cut += 1,
        }
        let again = scripted(
            &berth,
            &[&layer],
            "ls /data | /bin/busybox wc -l; cat /data/399 | /bin/busybox wc -c",
            &[mount(&volume, "/data")],
        );
        let seen = attempt(&berth, &again).output();
        let seen: Vec<&str> = seen.split_whitespace().collect();
        assert_eq!(seen, ["400", "20000"], "round {round}, killed after {delay:?}");
        assert_eq!(names(&holder), BTreeSet::from(["data".to_owned()]), "round {round}");
    }
    assert!(cut > 0, "none was killed before its end: {whole} whole");
    eprintln!("{cut} first uses were cut off, {whole} were done");
}

#[test]
fn two_first_uses_at_once_are_one() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = furnished(&berth);
    for round in 0..times(50, 5) {
        let (one, other) = (format!("one {round}"), format!("other {round}"));
        for volume in [&one, &other] {
            make(&berth, volume);
        }
        // In both orders: neither waits for the other for ever.
        let orders = [
            [mount(&one, "/data"), mount(&other, "/x")],
            [mount(&other, "/x"), mount(&one, "/data")],
            [mount(&one, "/data"), mount(&other, "/y")],
        ];
        std::thread::scope(|scope| {
            let starts = orders.iter().map(|mounts| {
                let request = scripted(&berth, &[&layer], "ls /data; echo $$ >> /data/all", mounts);
                let berth = &berth;
                scope.spawn(move || attempt(berth, &request).output())
            });
            let starts: Vec<_> = starts.collect();
            for start in starts {
                let seen = start.join().expect("it runs");
                assert!(seen.contains("deep\nfile\nlink\npipe"), "round {round}: {seen}");
            }
        });
        let all = fs::read_to_string(content(&berth, &one).join("all")).expect("it is there");
        assert_eq!(all.lines().count(), 3, "round {round}: all wrote to one content");
    }
}

#[test]
fn a_removed_volume_is_gone_at_once_and_for_good() {
    requires_root!();
    let mut berth = Supervisor::start();
    make(&berth, "big");
    let many = "cd /v; i=0; while [ $i -lt 2000 ]; do mkdir d; cd d; echo x > f; i=$((i+1)); done; echo ok";
    let mut request = scripted(&berth, &[], many, &[mount("big", "/v")]);
    request["limits"]["pids"] = json!(64);
    assert_eq!(attempt(&berth, &request).output(), "ok\n");
    let found = measured(&berth, "big");
    assert_eq!(found["is_whole"], false, "it is deeper than is looked at: {found}");
    let runs = berth.started(&scripted(&berth, &[], "sleep 1000", &[mount("big", "/v")]));
    let container = runs.container.clone();
    drop(runs);
    let refused = remove_volume(&berth, "big");
    assert_eq!(
        (&refused["code"], &refused["class"]),
        (&json!("volume.in-use"), &json!("conflict"))
    );
    // The next supervisor knows as well who has it.
    berth.kill();
    berth.launch();
    assert_eq!(remove_volume(&berth, "big")["code"], "volume.in-use");
    end(&berth, &container);
    crate::hostile::remove(&berth, &container);
    assert_eq!(remove_volume(&berth, "big")["answer"], "done", "{}", berth.log());
    assert_eq!(measured(&berth, "big")["code"], "volume.unknown");
    let again = berth.call(&scripted(&berth, &[], "true", &[mount("big", "/v")]));
    assert_eq!(again["code"], "volume.unknown", "{again}");
    // Killed while it removes: the next one goes on.
    berth.kill();
    let left = volumes(&berth).join(format!("gone.{}.7", id("left")));
    fs::create_dir_all(left.join("data/inner")).expect("what a killed one leaves");
    berth.launch();
    wait_until(&berth, "all is away", || names(&volumes(&berth)).is_empty());
    assert_eq!(remove_volume(&berth, "big")["answer"], "done", "what is gone is gone");
    // The name can be had again, empty.
    make(&berth, "big");
    assert_eq!(script(&berth, "ls -A /v", &[mount("big", "/v")]), "");
}

/// Ends what runs.
pub(crate) fn end(berth: &Supervisor, container: &str) {
    let answer = berth.call(&json!({"op": "container_kill", "container": container}));
    assert_eq!(answer["answer"], "done", "{answer}");
    berth.wait_state(container, "the end", |state| state["exit"].is_object());
}

fn limit(berth: &Supervisor, mib: Option<u64>) {
    let bytes = mib.map(|mib| mib * MIB);
    let answer = berth.call(&json!({"op": "person_data", "person": PERSON, "bytes": bytes}));
    assert_eq!(answer["answer"], "person_data", "{answer}\n{}", berth.log());
}

#[test]
fn volumes_move_with_their_owners_data_and_count_to_its_limit() {
    requires_root!();
    let mut berth = Supervisor::start();
    let layer = furnished(&berth);
    for volume in ["moves", "unused", "full"] {
        make(&berth, volume);
    }
    let look = "cat /data/file; stat -c '%a %u %Y' /data /data/deep/er; touch /data/deep/new";
    let look = |berth: &Supervisor| {
        attempt(berth, &scripted(berth, &[&layer], look, &[mount("moves", "/data")])).output()
    };
    let before = look(&berth);
    for (step, mib) in [Some(64), Some(48), None, Some(64)].into_iter().enumerate() {
        limit(&berth, mib);
        assert_eq!(look(&berth), before, "step {step}");
        assert!(names(&volumes(&berth)).contains(&id("unused")), "step {step}");
    }
    let shared = berth.data_dir().join("people").join(first_id(&berth).to_string());
    assert!(!shared.join("volumes").exists(), "nothing of it is left beside the others'");
    let write = "dd if=/dev/zero of=/v/big bs=1M count=100; echo ended $?";
    let check = Check {
        id: "A06",
        variant: "a person writes past what they may keep, to a volume",
        control: "without the limit the same writer passes the size",
    };
    let text = script(&berth, &format!("exec 2>&1; {write}"), &[mount("full", "/v")]);
    check.sees(true, text.contains("No space left") && text.contains("ended 1"));
    // Filling one from an image is held as well, and can be tried again.
    let large =
        Layer::new().directory("large/", 0o755).file("large/file", 0o644, &vec![1; 40 << 20]);
    let large = berth.unpack(&large.bytes());
    make(&berth, "filled");
    let fill = scripted(
        &berth,
        &[&large],
        "cat /large/file | /bin/busybox wc -c",
        &[mount("filled", "/large")],
    );
    match attempt(&berth, &fill) {
        Outcome::Refused { message, .. } => assert!(message.contains("No space"), "{message}"),
        ran @ Outcome::Ran { .. } => panic!("more than fits was copied: {ran:?}"),
    }
    assert_eq!(remove_volume(&berth, "full")["answer"], "done");
    berth.kill();
    berth.launch();
    wait_until(&berth, "it is away", || {
        !names(&volumes(&berth)).iter().any(|name| name.starts_with("gone."))
    });
    let mut fill = fill;
    fill["container"] = json!(id("filled again"));
    assert_eq!(attempt(&berth, &fill).output().trim(), (40 << 20).to_string());
    limit(&berth, None);
    let free = script(&berth, &format!("exec 2>&1; {write}"), &[mount("unused", "/v")]);
    assert!(free.contains("ended 0"), "the control passes: {free}");
}

/// A container that swaps two names in a volume for as long as it runs.
fn racer<'a>(berth: &'a Supervisor, layer: &str, one: &str, other: &str) -> Run<'a> {
    let mut request = request(berth, &[layer], &["/attacker", "exchange", one, other, "3600000"]);
    request["volumes"] = json!([mount("raced", "/v")]);
    let run = berth.started(&request);
    run.wait_log("swaps");
    run
}

#[test]
fn names_that_another_swaps_in_a_volume_lead_no_mount_out_of_it() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    make(&berth, "raced");
    make(&berth, "below");
    let canary = host.canary.to_str().expect("it is UTF-8").to_owned();
    let up = format!("{}{canary}", "../".repeat(20));
    let furnish = format!(
        "cd /v && mkdir -p d/inner e/inner && echo own > d/token && echo own > d/inner/token && \
         ln -s {canary} absolute && ln -s {up} relative && ln -s /proc/1/root{canary} magic"
    );
    script(&berth, &furnish, &[mount("raced", "/v")]);
    // What a runtime that joins strings does: the host's root follows the link.
    let naive = format!(
        "m=$(mktemp -d) && mount -t tmpfs none $m && mkdir $m/t && \
         mount --bind {}/absolute $m/t && cat $m/t/token; umount -R $m; rmdir $m",
        content(&berth, "raced").display()
    );
    let control = unguarded(&naive);
    assert_eq!(control, TOKEN, "the control reads the canary");
    let control = format!("mount(8) of the same path by the host's root reads {control}");
    let layer = attacker_layer(&berth);
    for link in sample(&["absolute", "relative", "magic"], 1) {
        let run = racer(&berth, &layer, "/v/d", &format!("/v/{link}"));
        let (mut ran, mut refused) = (0, 0);
        for start in 0..times(1000, 20) {
            // A part of the volume, and a mount below it that has to be made there.
            let mounts = match start % 2 {
                0 => json!([with(mount("raced", "/part"), "sub_path", json!("d/inner"))]),
                _ => json!([mount("raced", "/part"), mount("below", "/part/d/inner/made/deep")]),
            };
            let mut request = request(
                &berth,
                &[],
                &["sh", "-c", "cat /part/token /part/d/token /part/d/inner/token; true"],
            );
            request["volumes"] = mounts;
            let outcome = attempt(&berth, &request);
            match outcome {
                Outcome::Ran { .. } => ran += 1,
                Outcome::Refused { .. } => refused += 1,
            }
            let variant = format!("d and {link} are swapped, start {start}");
            let check = Check { id: "R06", variant: &variant, control: &control };
            check.sees(false, outcome.text().contains(TOKEN));
            let check = Check { id: "R06", variant: "the host", control: &control };
            check.finds_nothing(&host.changes());
        }
        eprintln!("R06, {link}: {ran} starts ran, {refused} were refused");
        assert!(ran > 0, "none ran");
        run.act("container_kill");
        run.wait_exit();
        crate::hostile::remove(&berth, &run.container);
        // Put back what the racer has left swapped.
        let back = format!(
            "cd /v; [ -L d ] && {{ rm d; for n in {link}; do [ -L $n ] || /bin/busybox mv $n d; done; ln -sf {canary} {link}; }}; true"
        );
        script(&berth, &back, &[mount("raced", "/v")]);
    }
    // With its volumes removed, nothing but them is gone.
    for volume in ["raced", "below"] {
        assert_eq!(remove_volume(&berth, volume)["answer"], "done");
    }
    wait_until(&berth, "they are away", || names(&volumes(&berth)).is_empty());
    Check { id: "R06", variant: "the host, after removal", control: &control }
        .finds_nothing(&host.changes());
}

/// Places of an image that are links, and a volume's target that goes by them.
const LINKED: [(&str, &str, &str); 10] = [
    ("x", "CANARY", "/x"),
    ("x", "../../../../../../../../..CANARY", "/x"),
    ("x", "CANARY", "/x/inner"),
    ("x", "/proc", "/x/self"),
    ("x", "/proc/self/root", "/x"),
    ("x", "/proc/1", "/x/task"),
    ("x", "/sys", "/x/kernel"),
    ("x", "/dev", "/x/shm"),
    ("x", "/proc/self/cwd", "/x/y"),
    ("x", "x", "/x"),
];

#[test]
fn a_volume_is_filled_from_inside_the_root_alone() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let canary = host.canary.to_str().expect("it is UTF-8").to_owned();
    let root = crate::paths::bare_root(&berth);
    std::os::unix::fs::symlink(&canary, root.join("x")).expect("link");
    let control = unguarded(&format!("cat {}/x/token", root.display()));
    assert_eq!(control, TOKEN, "the control reads the canary");
    let control = format!("cp(1) from the joined path reads {control}");
    for (number, (name, target, place)) in sample(&LINKED, 6).into_iter().enumerate() {
        let target = target.replace("CANARY", &canary);
        let layer = berth.unpack(&Layer::new().link(name, &target).bytes());
        let volume = format!("linked {number}");
        make(&berth, &volume);
        let outcome = attempt(
            &berth,
            &scripted(
                &berth,
                &[&layer],
                &format!(
                    "/bin/busybox find {place} -xdev | /bin/busybox head -n 50; cat {place}/token"
                ),
                &[mount(&volume, place)],
            ),
        );
        let variant =
            format!("{name} -> {}, a volume on {place}", target.replace(&canary, "CANARY"));
        let check = Check { id: "R08", variant: &variant, control: &control };
        check.sees(false, outcome.text().contains(TOKEN));
        // Nothing of proc, sys or dev is copied either.
        let mut found = names(&content(&berth, &volume));
        found.extend(names(&volumes(&berth).join(id(&volume)).join("new")));
        let own = matches!(outcome, Outcome::Ran { .. }) && found.is_empty();
        let refused =
            matches!(&outcome, Outcome::Refused { code, .. } if code.starts_with("container."));
        assert!(own || refused && found.is_empty(), "{variant}: {outcome:?} {found:?}");
        Check { id: "R08", variant: "the host", control: &control }.finds_nothing(&host.changes());
    }
}

#[test]
fn what_a_mount_has_to_be_made_in_is_said() {
    requires_root!();
    let berth = Supervisor::start();
    make(&berth, "outer");
    make(&berth, "inner");
    let nested = [mount("inner", "/v/deep/er"), mount("outer", "/v")];
    let text = "echo in > /v/deep/er/file; echo out > /v/file; cat /v/deep/er/file; ls /v";
    assert_eq!(script(&berth, text, &nested), "in\ndeep\nfile\n", "whatever the order");
    let read_only =
        [with(mount("outer", "/v"), "read_only", json!(true)), mount("inner", "/v/new")];
    match attempt(&berth, &scripted(&berth, &[], "true", &read_only)) {
        Outcome::Refused { code, message } => {
            assert_eq!(code, "container.mount-target", "{message}");
            assert!(message.contains("read-only"), "{message}");
        }
        ran @ Outcome::Ran { .. } => panic!("{ran:?}"),
    }
    for (path, why) in [("nothing", "not there"), ("file/x", "not there")] {
        let one = with(mount("outer", "/v"), "sub_path", json!(path));
        match attempt(&berth, &scripted(&berth, &[], "true", &[one])) {
            Outcome::Refused { code, message } => {
                assert_eq!(code, "volume.sub-path", "{message}");
                assert!(message.contains(why) && message.contains(path), "{message}");
            }
            ran @ Outcome::Ran { .. } => panic!("{ran:?}"),
        }
    }
}
