//! Files in volumes and containers: looked at, read, written and removed, in those that run and in those that
//! do not; and what programs achieve that swap names, plant links and leave pipes meanwhile (R06, R08, R09, I11).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};
use system_tests::programs::unguarded;
use system_tests::supervisor::{LIMIT, PERSON, Supervisor, id};
use system_tests::{Check, requires_root, sample, times};

use crate::hostile::{
    Host, Layer, TOKEN, attacker_layer, attempt, remove as remove_container, request,
};

fn volume(name: &str) -> Value {
    json!({"volume": id(name)})
}

fn container(berth: &Supervisor, id: &str) -> Value {
    json!({"container": {"container": id, "layers": [berth.layer()]}})
}

fn ask(berth: &Supervisor, place: &Value, path: &str, act: Value) -> (Value, Vec<OwnedFd>) {
    let request =
        json!({"op": "files", "person": PERSON, "place": place, "path": path, "act": act});
    berth.call_with(&request, &[])
}

fn look(berth: &Supervisor, place: &Value, path: &str) -> Value {
    ask(berth, place, path, json!("look")).0
}

#[track_caller]
fn names(berth: &Supervisor, place: &Value, path: &str) -> Vec<String> {
    let (answer, _) = ask(berth, place, path, json!({"list": {"after": null}}));
    assert_eq!(answer["answer"], "files", "{path}: {answer}\n{}", berth.log());
    let rows = answer["files"].as_array().expect("rows");
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

/// What a file holds, or the code of the refusal.
fn read(berth: &Supervisor, place: &Value, path: &str) -> Result<String, String> {
    let (answer, mut fds) = ask(berth, place, path, json!("open"));
    if answer["answer"] == "failed" {
        return Err(answer["code"].as_str().unwrap_or_default().to_owned());
    }
    let mut text = String::new();
    let mut file = File::from(fds.pop().expect("a descriptor comes with it"));
    file.read_to_string(&mut text).expect("it can be read");
    assert!(file.write(b"x").is_err(), "and not written");
    Ok(text)
}

fn archive(berth: &Supervisor, place: &Value, path: &str) -> Result<Vec<u8>, String> {
    let (answer, mut fds) = ask(berth, place, path, json!("archive"));
    if answer["answer"] == "failed" {
        return Err(answer["code"].as_str().unwrap_or_default().to_owned());
    }
    let mut bytes = Vec::new();
    let mut pipe = File::from(fds.pop().expect("a pipe comes with it"));
    pipe.read_to_end(&mut bytes).expect("it can be read");
    Ok(bytes)
}

#[track_caller]
fn upload(berth: &Supervisor, name: &str) -> (u64, File) {
    let request = json!({"op": "upload_open", "person": PERSON, "upload": id(name)});
    let (answer, mut fds) = berth.call_with(&request, &[]);
    assert_eq!(answer["answer"], "upload", "{answer}\n{}", berth.log());
    let bytes = answer["bytes"].as_u64().expect("a size");
    (bytes, File::from(fds.pop().expect("a descriptor comes with it")))
}

/// Uploads and puts.
fn put(berth: &Supervisor, place: &Value, path: &str, content: &[u8]) -> Value {
    let (_, mut file) = upload(berth, path);
    file.set_len(0).expect("begin anew");
    file.write_all(content).expect("it takes bytes");
    drop(file);
    ask(berth, place, path, json!({"put": {"upload": id(path), "mode": null}})).0
}

#[track_caller]
fn done(answer: &Value, kind: &str) {
    assert_eq!(answer["answer"], kind, "{answer}");
}

fn make_volume(berth: &Supervisor, name: &str) {
    let answer = berth.call(&json!({"op": "volume_make", "person": PERSON, "volume": id(name)}));
    done(&answer, "done");
}

fn mounted(name: &str, target: &str) -> Value {
    json!({"volume": id(name), "target": target, "read_only": false, "sub_path": null,
        "copy_up": true})
}

/// What a script prints with a volume at `/v`.
#[track_caller]
fn script(berth: &Supervisor, name: &str, script: &str) -> String {
    let mut request = request(berth, &[], &["sh", "-c", script]);
    request["volumes"] = json!([mounted(name, "/v")]);
    attempt(berth, &request).output()
}

fn person_place(berth: &Supervisor) -> (u32, PathBuf) {
    let text = fs::read_to_string(berth.data_dir().join("state/people.json")).expect("the record");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    let first = record["people"][PERSON.to_string()]["first_id"].as_u64().expect("an id");
    let first = u32::try_from(first).expect("an id");
    (first, berth.data_dir().join("people").join(first.to_string()))
}

#[test]
fn files_of_a_volume_are_looked_at_read_written_and_removed() {
    requires_root!();
    let berth = Supervisor::start();
    let (first, own) = person_place(&berth);
    make_volume(&berth, "one");
    let place = volume("one");
    // Never used: empty, and looking is no use.
    assert!(names(&berth, &place, "/").is_empty());
    assert_eq!(read(&berth, &place, "/file"), Err("files.none".to_owned()));
    assert!(!own.join("volumes").join(id("one")).join("data").exists());
    let answer = put(&berth, &place, "/file", b"first");
    done(&answer, "file");
    assert_eq!(
        (&answer["bytes"], &answer["mode"], &answer["uid"]),
        (&json!(5), &json!(0o644), &json!(0))
    );
    let file = own.join("volumes").join(id("one")).join("data/file");
    let facts = fs::metadata(&file).expect("it is there");
    assert_eq!((facts.uid(), facts.gid()), (first, first), "the container's root has it");
    assert_eq!(read(&berth, &place, "file"), Ok("first".to_owned()));
    // A container sees it, and what it makes is seen; new files go to whom the folder belongs.
    let text = "cat /v/file; mkdir /v/sub; chmod 2775 /v/sub; ln -s ../file /v/sub/link; \
        /bin/busybox chown 1000:1001 /v/sub; ln /v/file /v/sub/same; echo x > /v/own; chmod 600 /v/own; \
        /bin/busybox chown 7:8 /v/own; mknod /v/pipe p";
    assert_eq!(script(&berth, "one", text), "first\n");
    assert_eq!(names(&berth, &place, "/"), ["file", "own", "pipe", "sub"]);
    done(&put(&berth, &place, "/sub/new", b"second"), "file");
    let new = look(&berth, &place, "/sub/new");
    assert_eq!((&new["uid"], &new["gid"]), (&json!(1000), &json!(1001)), "{new}");
    // One that is replaced keeps owner and mode; who has the old one open keeps that.
    let (_, mut fds) = ask(&berth, &place, "/own", json!("open"));
    done(&put(&berth, &place, "/own", b"replaced"), "file");
    let own_file = look(&berth, &place, "/own");
    assert_eq!((&own_file["uid"], &own_file["mode"]), (&json!(7), &json!(0o600)), "{own_file}");
    let old = std::io::read_to_string(File::from(fds.pop().expect("it was opened"))).expect("read");
    assert_eq!(old, "x\n");
    // A link is followed for reading and replaced by writing.
    assert_eq!(read(&berth, &place, "/sub/link"), Ok("first".to_owned()));
    let link = look(&berth, &place, "/sub/link");
    assert_eq!((&link["kind"], &link["target"]), (&json!("link"), &json!("../file")), "{link}");
    done(&put(&berth, &place, "/sub/link", b"third"), "file");
    assert_eq!(read(&berth, &place, "/file"), Ok("first".to_owned()), "not through it");
    let folder = ask(&berth, &place, "/sub/deep", json!("make_folder")).0;
    done(&folder, "done");
    let folder = look(&berth, &place, "/sub/deep");
    assert_eq!((&folder["uid"], &folder["kind"]), (&json!(1000), &json!("folder")), "{folder}");
    // What is refused says why.
    for (path, act, code) in [
        ("/file/x", json!("look"), "files.not-folder"),
        ("/sub", json!("open"), "files.not-file"),
        ("/pipe", json!("open"), "files.not-file"),
        ("/file", json!("archive"), "files.not-folder"),
        ("/sub", json!("make_folder"), "files.exists"),
        ("/", json!("remove"), "files.path"),
        ("/sub/..", json!("remove"), "files.path"),
        ("/none", json!("remove"), "files.none"),
        ("/a\0b", json!("look"), "files.path"),
        (&"x".repeat(5000), json!("look"), "files.path"),
        (&"x".repeat(300), json!("look"), "files.path"),
        ("/x", json!({"put": {"upload": id("nobody's"), "mode": null}}), "files.upload-unknown"),
    ] {
        let answer = ask(&berth, &place, path, act).0;
        assert_eq!(answer["code"], code, "{path:.20}: {answer}");
    }
    assert_eq!(put(&berth, &place, "/sub", b"")["code"], "files.folder");
    let removed = ask(&berth, &place, "/sub", json!("remove")).0;
    assert_eq!((&removed["entries"], &removed["is_whole"]), (&json!(5), &json!(true)), "{removed}");
    assert_eq!(names(&berth, &place, "/"), ["file", "own", "pipe"]);
    // Somebody else's is none.
    let added = berth.call(&json!({"op": "person_add", "person": PERSON + 1, "group": 2}));
    done(&added, "person");
    let foreign = json!({"op": "files", "person": PERSON + 1, "place": place, "path": "/file",
        "act": "open"});
    assert_eq!(berth.call(&foreign)["code"], "volume.unknown");
}

#[test]
fn a_large_folder_is_listed_in_pages_and_odd_names_are_kept() {
    requires_root!();
    let berth = Supervisor::start();
    make_volume(&berth, "many");
    let place = volume("many");
    let text = "cd /v; for n in $(seq 1000 1699); do echo > f$n; done; \
        echo odd > $(printf 'bad\\377name'); echo '<b>' > '<b>&\"'; mkdir d; echo in > d/deep";
    script(&berth, "many", text);
    let (mut all, mut after) = (Vec::new(), Value::Null);
    loop {
        let (page, _) = ask(&berth, &place, "/", json!({"list": {"after": after}}));
        let rows = page["files"].as_array().expect("rows").clone();
        assert!(rows.len() <= 256 && !rows.is_empty(), "{page}");
        after = rows.last().expect("one")["name"].clone();
        all.extend(rows);
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(all.len(), 703);
    let odd = all.iter().find(|row| row["is_exact"] == false).expect("the odd one");
    assert_eq!(odd["name"], "bad\u{fffd}name");
    // In an archive a name is what it is.
    let bytes = archive(&berth, &place, "/").expect("an archive");
    let mut found = BTreeMap::new();
    let mut tar = tar::Archive::new(bytes.as_slice());
    for entry in tar.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("it can be read");
        found.insert(entry.path_bytes().into_owned(), text);
    }
    assert_eq!(found.get(b"./bad\xffname".as_slice()).map(String::as_str), Some("odd\n"));
    assert_eq!(found.get(b"./d/deep".as_slice()).map(String::as_str), Some("in\n"));
    assert_eq!(found.len(), 705, "with the two folders");
    assert!(bytes.ends_with(&[0; 1024]), "it is whole");
}

#[test]
fn an_archive_holds_links_owners_modes_and_long_names() {
    requires_root!();
    let berth = Supervisor::start();
    make_volume(&berth, "tar");
    let place = volume("tar");
    let long = "n".repeat(200);
    let text = format!(
        "cd /v; mkdir top; cd top; echo one > file; ln file same; ln -s /etc/passwd link; \
         /bin/busybox chown 1000:1001 file; chmod 4711 file; mkdir {long}; echo deep > {long}/{long}; \
         ln -s {long}/{long} far; mknod pipe p; dd if=/dev/zero of=sparse bs=1 count=0 seek=9000000 2>&1; true"
    );
    script(&berth, "tar", &text);
    let bytes = archive(&berth, &place, "/top").expect("an archive");
    let mut shell = std::process::Command::new("tar");
    let mut shell = shell
        .args(["--numeric-owner", "-tvf", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("run tar");
    shell.stdin.take().expect("a pipe").write_all(&bytes).expect("tar reads all");
    let output = shell.wait_with_output().expect("tar ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let has = |parts: &[&str]| {
        assert!(
            text.lines().any(|line| parts.iter().all(|part| line.contains(part))),
            "{parts:?} in\n{text}"
        );
    };
    let (one, other) =
        if text.contains("same link to") { ("same", "file") } else { ("file", "same") };
    has(&["-rws--x--x 1000/1001", &format!("top/{other}")]);
    has(&[&format!("top/{one} link to top/{other}")]);
    has(&["lrwxrwxrwx 0/0", "top/link -> /etc/passwd"]);
    has(&[&format!("top/{long}/{long}")]);
    has(&[&format!("top/far -> {long}/{long}")]);
    has(&["9000000", "top/sparse"]);
    has(&["prw", "top/pipe"]);
}

#[test]
fn files_of_containers_are_reached_whether_they_run_or_not() {
    requires_root!();
    let berth = Supervisor::start();
    make_volume(&berth, "within");
    let name = id("box");
    let place = container(&berth, &name);
    // Never started: what the image has, and what is put there before the first start.
    assert!(names(&berth, &place, "/").contains(&"bin".to_owned()));
    assert!(read(&berth, &place, "/etc/passwd").expect("a file").starts_with("root:x:0:0"));
    done(&put(&berth, &place, "/etc/early", b"early\n"), "file");
    let mut start = berth.start_request(
        &name,
        1,
        &[
            "sh",
            "-c",
            "cat /etc/early; rm /etc/passwd; echo ran > /root/new; echo in > /v/file; \
            until [ -e /v/stop ]; do sleep 1; done; cat /v/stop /etc/late",
        ],
    );
    start["volumes"] = json!([mounted("within", "/v")]);
    let run = berth.started(&start);
    run.wait_log("early");
    let deadline = Instant::now() + LIMIT;
    while read(&berth, &place, "/v/file").is_err() {
        assert!(Instant::now() < deadline, "what is mounted there is seen; {}", berth.log());
    }
    assert_eq!(read(&berth, &place, "/v/file"), Ok("in\n".to_owned()));
    assert_eq!(read(&berth, &place, "/root/new"), Ok("ran\n".to_owned()));
    assert_eq!(read(&berth, &place, "/etc/passwd"), Err("files.none".to_owned()));
    // The kernel's own are no files to be had.
    for path in
        ["/proc/self/status", "/proc", "/sys/kernel", "/dev/null", "/dev", "/proc/1/root/etc"]
    {
        for act in [json!("open"), json!({"list": {"after": null}}), json!("archive")] {
            let answer = ask(&berth, &place, path, act).0;
            assert_eq!(answer["answer"], "failed", "{path}: {answer}");
        }
        done(&ask(&berth, &place, &format!("{path}/x"), json!("make_folder")).0, "failed");
    }
    assert_eq!(ask(&berth, &place, "/proc", json!("archive")).0["code"], "files.kernel");
    let whole = archive(&berth, &place, "/").expect("an archive of all of it");
    let mut tar = tar::Archive::new(whole.as_slice());
    let paths: Vec<String> = tar
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert!(paths.iter().any(|path| path.ends_with("v/file")), "{paths:?}");
    assert!(paths.iter().any(|path| path.ends_with("proc/")), "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("proc/1")), "{paths:?}");
    // Paused as well: nobody there has to do anything.
    run.act("container_pause");
    done(&put(&berth, &place, "/etc/late", b"late\n"), "file");
    run.act("container_resume");
    done(&put(&berth, &place, "/v/stop", b"stop\n"), "file");
    run.wait_exit();
    assert!(berth.container_log(&name).contains("late"), "{}", berth.container_log(&name));
    // Ended: what it has left, without what was mounted.
    assert_eq!(read(&berth, &place, "/root/new"), Ok("ran\n".to_owned()));
    assert_eq!(read(&berth, &place, "/etc/passwd"), Err("files.none".to_owned()));
    assert_eq!(read(&berth, &place, "/v/file"), Err("files.none".to_owned()));
    done(&ask(&berth, &place, "/root/new", json!("remove")).0, "files_removed");
    done(&put(&berth, &place, "/etc/again", b"again\n"), "file");
    // The next run sees both.
    let next = ["sh", "-c", "ls /root; cat /etc/again"];
    let again = berth.start_request(&name, 2, &next);
    let again = berth.started(&again);
    again.wait_exit();
    assert!(berth.container_log(&name).ends_with("again\n"));
    // Another person's is denied.
    let added = berth.call(&json!({"op": "person_add", "person": PERSON + 1, "group": 2}));
    done(&added, "person");
    let foreign = json!({"op": "files", "person": PERSON + 1, "place": place, "path": "/",
        "act": "archive"});
    assert_eq!(berth.call(&foreign)["code"], "container.foreign");
    remove_container(&berth, &name);
}

#[test]
fn a_container_that_was_written_to_and_never_started_is_removed() {
    requires_root!();
    let mut berth = Supervisor::start();
    let (_, own) = person_place(&berth);
    for (number, restart) in [false, true].into_iter().enumerate() {
        let name = id(&format!("never {number}"));
        done(&put(&berth, &container(&berth, &name), "/file", b"x"), "file");
        let tree = own.join("containers").join(&name);
        assert!(tree.join("upper/file").exists());
        if restart {
            berth.kill();
            berth.launch();
        }
        remove_container(&berth, &name);
        assert!(!tree.exists());
    }
}

#[test]
fn an_upload_goes_on_where_it_was_and_counts_to_its_owners_limit() {
    requires_root!();
    let mut berth = Supervisor::start();
    make_volume(&berth, "up");
    let place = volume("up");
    let (bytes, mut file) = upload(&berth, "long");
    assert_eq!(bytes, 0);
    file.write_all(b"begin ").expect("it takes bytes");
    drop(file);
    berth.kill();
    berth.launch();
    let (bytes, mut file) = upload(&berth, "long");
    assert_eq!(bytes, 6);
    file.write_all(b"end").expect("it is added");
    drop(file);
    assert!(names(&berth, &place, "/").is_empty(), "nothing is seen before the end");
    let act = json!({"put": {"upload": id("long"), "mode": 0o750}});
    let answer = ask(&berth, &place, "/whole", act.clone()).0;
    assert_eq!((&answer["bytes"], &answer["mode"]), (&json!(9), &json!(0o750)), "{answer}");
    assert_eq!(read(&berth, &place, "/whole"), Ok("begin end".to_owned()));
    assert_eq!(ask(&berth, &place, "/again", act).0["code"], "files.upload-unknown");
    // Given up, it is gone.
    drop(upload(&berth, "other"));
    let give_up = json!({"op": "upload_drop", "person": PERSON, "upload": id("other")});
    done(&berth.call(&give_up), "done");
    done(&berth.call(&give_up), "done");
    let act = json!({"put": {"upload": id("other"), "mode": null}});
    assert_eq!(ask(&berth, &place, "/x", act).0["code"], "files.upload-unknown");
    // Within a limit, what does not fit is not taken; and what does is not there twice on its way.
    let check = Check {
        id: "A06",
        variant: "a person uploads more than they may keep",
        control: "without the limit the same upload is taken",
    };
    let limit = |berth: &Supervisor, bytes: Value| {
        let answer = berth.call(&json!({"op": "person_data", "person": PERSON, "bytes": bytes}));
        done(&answer, "person_data");
    };
    let fill =
        |file: &mut File, mib: usize| (0..mib).try_for_each(|_| file.write_all(&vec![7; 1 << 20]));
    limit(&berth, json!(64 << 20));
    let (_, mut file) = upload(&berth, "big");
    let refused = fill(&mut file, 100).expect_err("it does not fit");
    check.sees(true, refused.raw_os_error() == Some(libc::ENOSPC));
    drop(file);
    done(&berth.call(&json!({"op": "upload_drop", "person": PERSON, "upload": id("big")})), "done");
    let (_, mut file) = upload(&berth, "fits");
    fill(&mut file, 35).expect("it fits");
    drop(file);
    let act = json!({"put": {"upload": id("fits"), "mode": null}});
    let answer = ask(&berth, &place, "/fits", act).0;
    assert_eq!(answer["bytes"], 35 << 20, "moved and not copied: {answer}");
    limit(&berth, json!(null));
    let (_, mut file) = upload(&berth, "big");
    fill(&mut file, 100).expect("the control is taken");
}

/// Names in a volume that lead, or seem to lead, out of it.
const LINKS: [&str; 3] = ["absolute", "relative", "magic"];

/// A volume with something of its own at `d`, and links that a naive reader follows to the canary.
fn furnish(berth: &Supervisor, host: &Host) -> String {
    make_volume(berth, "raced");
    let canary = host.canary.to_str().expect("it is UTF-8").to_owned();
    let up = format!("{}{canary}", "../".repeat(20));
    let text = format!(
        "cd /v && mkdir -p d/inner && echo own > d/token && echo own > d/inner/token && \
         ln -s {canary} absolute && ln -s {up} relative && ln -s /proc/1/root{canary} magic"
    );
    script(berth, "raced", &text);
    let (_, own) = person_place(berth);
    let naive = own.join("volumes").join(id("raced")).join("data/absolute/token");
    let control = unguarded(&format!("cat {}", naive.display()));
    assert_eq!(control, TOKEN, "the control reads the canary");
    format!("cat(1) of the joined path by the host's root reads {control}")
}

#[test]
fn links_lead_to_nothing_outside_of_a_volume_or_container() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let control = furnish(&berth, &host);
    let mut start = request(&berth, &[], &["sleep", "1000"]);
    start["volumes"] = json!([mounted("raced", "/v")]);
    let run = berth.started(&start);
    for (what, place, base) in [
        ("a volume", volume("raced"), ""),
        ("a container", container(&berth, &run.container), "/v"),
    ] {
        for link in LINKS {
            let variant = format!("{link} in {what}");
            let check = Check { id: "R08", variant: &variant, control: &control };
            let path = format!("{base}/{link}");
            let token = format!("{path}/token");
            check.sees(false, read(&berth, &place, &token).is_ok_and(|text| text == TOKEN));
            let listed = ask(&berth, &place, &path, json!({"list": {"after": null}})).0;
            assert_eq!(listed["answer"], "failed", "{variant}: {listed}");
            let found = archive(&berth, &place, &path).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&found).contains(TOKEN), "{variant}");
            for act in [json!("remove"), json!("make_folder")] {
                let answer = ask(&berth, &place, &token, act).0;
                assert_eq!(answer["answer"], "failed", "{variant}: {answer}");
            }
            assert_eq!(put(&berth, &place, &token, b"x")["answer"], "failed", "{variant}");
            check.finds_nothing(&host.changes());
        }
    }
    // Removing a link, and what holds links, touches nothing behind them.
    let place = volume("raced");
    for link in LINKS {
        let removed = ask(&berth, &place, &format!("/{link}"), json!("remove")).0;
        assert_eq!(removed["entries"], 1, "{removed}");
    }
    Check { id: "R08", variant: "links removed", control: &control }.finds_nothing(&host.changes());
}

#[test]
fn names_that_a_program_swaps_meanwhile_lead_no_act_out() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let control = furnish(&berth, &host);
    let layer = attacker_layer(&berth);
    for link in sample(&LINKS, 1) {
        let other = format!("/v/{link}");
        let mut start =
            request(&berth, &[&layer], &["/attacker", "exchange", "/v/d", &other, "3600000"]);
        start["volumes"] = json!([mounted("raced", "/v")]);
        let run = berth.started(&start);
        run.wait_log("swaps");
        let inside = json!({"container": {"container": run.container,
            "layers": [berth.layer(), layer]}});
        let (mut own, mut refused) = (0, 0);
        for turn in 0..times(500, 40) {
            let (place, base) = match turn % 2 {
                0 => (&volume("raced"), ""),
                _ => (&inside, "/v"),
            };
            match read(&berth, place, &format!("{base}/d/token")) {
                Ok(text) => {
                    assert_eq!(text, "own\n", "turn {turn}");
                    own += 1;
                }
                Err(_) => refused += 1,
            }
            let path = format!("{base}/d/made{turn}");
            put(&berth, place, &path, b"made");
            ask(&berth, place, &format!("{path}.d"), json!("make_folder"));
            ask(&berth, place, &format!("{path}.d"), json!("remove"));
            ask(&berth, place, &path, json!("remove"));
            if turn % 10 == 0 {
                let found = archive(&berth, place, &format!("{base}/")).unwrap_or_default();
                assert!(!String::from_utf8_lossy(&found).contains(TOKEN), "turn {turn}");
            }
        }
        assert!(own > 0 && refused > 0, "both were met: {own} {refused}");
        let variant = format!("a folder swapped with {link} {} times", own + refused);
        Check { id: "R06", variant: &variant, control: &control }.finds_nothing(&host.changes());
        run.act("container_kill");
        run.wait_exit();
        // What is removed while it is being swapped is what is in the volume.
        let container = run.container.clone();
        drop(run);
        remove_container(&berth, &container);
        let back = format!(
            "cd /v; [ -L d ] && /bin/busybox mv d x && /bin/busybox mv {link} d && \
            /bin/busybox mv x {link}; true"
        );
        script(&berth, "raced", &back);
    }
}

#[test]
fn a_tree_is_removed_while_a_program_swaps_it_for_a_link() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let control = furnish(&berth, &host);
    let layer = attacker_layer(&berth);
    let mut start = request(
        &berth,
        &[&layer],
        &["/attacker", "exchange", "/v/d/inner", "/v/absolute", "3600000"],
    );
    start["volumes"] = json!([mounted("raced", "/v")]);
    let run = berth.started(&start);
    run.wait_log("swaps");
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = ask(&berth, &volume("raced"), "/d", json!("remove")).0;
        if answer["code"] == "files.none" || answer["is_whole"] == true {
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
    }
    Check { id: "R09", variant: "a tree removed under swaps", control: &control }
        .finds_nothing(&host.changes());
}

#[test]
fn pipes_sockets_and_devices_hold_nobody_up() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = Layer::new()
        .directory("odd/", 0o755)
        .fifo("odd/pipe")
        .link("odd/tty", "/dev/tty")
        .link("odd/loop", "loop")
        .link("odd/self", "/proc/self/exe")
        .file("odd/xz", 0o755, b"#!/bin/sh\ntouch /odd/marker\n")
        .bytes();
    let layer = berth.unpack(&layer);
    let start = request(
        &berth,
        &[&layer],
        &["sh", "-c", "cd /odd; /bin/busybox nc -lU sock & sleep 1000 3>lease"],
    );
    let run = berth.started(&start);
    let place =
        json!({"container": {"container": run.container, "layers": [berth.layer(), layer]}});
    let deadline = Instant::now() + LIMIT;
    while look(&berth, &place, "/odd/lease")["answer"] != "file" {
        assert!(Instant::now() < deadline, "{}", berth.log());
    }
    let begun = Instant::now();
    for name in ["pipe", "tty", "loop", "self", "sock"] {
        let code = read(&berth, &place, &format!("/odd/{name}")).expect_err(name);
        assert!(code.starts_with("files."), "{name}: {code}");
    }
    let bytes = archive(&berth, &place, "/odd").expect("an archive");
    assert!(bytes.ends_with(&[0; 1024]));
    assert!(begun.elapsed() < LIMIT, "nothing waits for another end");
    assert_eq!(look(&berth, &place, "/odd/marker")["code"], "files.none", "nothing was executed");
}

#[test]
fn whoever_acts_is_the_containers_root_and_no_more() {
    requires_root!();
    let berth = Supervisor::start();
    make_volume(&berth, "big");
    let place = volume("big");
    let text =
        "cd /v; for n in $(seq 1 400); do dd if=/dev/zero of=f$n bs=64k count=1 2>/dev/null; done";
    script(&berth, "big", text);
    let (first, _) = person_place(&berth);
    // An archive that nobody reads keeps its writer where it can be looked at.
    let (answer, fds) = ask(&berth, &place, "/", json!("archive"));
    done(&answer, "done");
    let writer = system_tests::supervised::wait_for("the writer", || {
        fs::read_dir("/proc").expect("proc").flatten().find_map(|entry| {
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let line = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            // No container runs.
            let ours = line("Uid:").first()? == &first.to_string();
            (ours && line("Seccomp:") == ["2"])
                .then(|| (entry.path(), line("CapEff:"), line("CapBnd:"), line("NoNewPrivs:")))
        })
    });
    let (path, effective, bounding, no_new) = writer;
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, in its own user namespace.
    assert_eq!(effective, ["000000000000001b"]);
    assert_eq!(bounding, effective);
    assert_eq!(no_new, ["1"]);
    let own = fs::read_link(path.join("ns/user")).expect("a namespace");
    assert_ne!(own, fs::read_link("/proc/self/ns/user").expect("a namespace"));
    let open: Vec<String> = fs::read_dir(path.join("fd"))
        .expect("descriptors")
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    let odd = |target: &&String| {
        !(target.starts_with("pipe:")
            || target.starts_with("socket:")
            || *target == "/dev/null"
            || target.contains(&id("big")))
    };
    let odd: Vec<&String> = open.iter().filter(odd).collect();
    let check = Check {
        id: "R02",
        variant: "what the confined reader has open",
        control: "its own task has the store open, and so would it",
    };
    assert!(odd.len() <= 2, "{odd:?}");
    check.finds_nothing(
        &odd.iter()
            .filter(|target| target.as_str() != "/")
            .map(|t| (*t).clone())
            .collect::<Vec<_>>(),
    );
    // Whoever hangs up ends it.
    drop(fds);
    system_tests::supervised::wait_for("its end", || (!path.exists()).then_some(()));
}
