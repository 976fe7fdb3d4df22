//! F05: each folder of the appliance on a disk of its own that is full, by blocks and by files. What
//! needs room is refused in words; what reads, ends or removes something works; nothing that was
//! acknowledged is lost; and with room again everything works again, without a restart.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{IMAGE, act, identity, import, log_with, ready, run, show, until};
use system_tests::disk::{Room, SmallDisk, fill, free};
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, image, requires_root, sample};

/// How soon after there is room again everything has to work.
const RECOVERY: Duration = Duration::from_secs(10);
/// Ends by itself when it is asked to, with a code of its own.
const POLITE: &str = "trap 'exit 7' TERM; while :; do usleep 20000; done";
const TALKS: &str = "while :; do echo and so it goes on and on and on; usleep 1000; done";

const MADE: &str = "made";
const REFUSED: &str = "refused in words";
const EITHER: &str = "made, or refused in words";

/// The folders, and what else is seen on them.
const PLACES: [SmallDisk; 6] = [
    SmallDisk { place: "data/db", mib: 64, files: 600, memory: false },
    SmallDisk { place: "data/store", mib: 64, files: 600, memory: false },
    SmallDisk { place: "data/layers", mib: 64, files: 600, memory: false },
    SmallDisk { place: "data/people", mib: 64, files: 600, memory: false },
    SmallDisk { place: "data/state", mib: 64, files: 600, memory: false },
    SmallDisk { place: "run", mib: 16, files: 300, memory: true },
];

#[test]
fn a_full_disk_refuses_in_words_and_lets_everything_be_read_ended_and_removed() {
    requires_root!();
    let mut all: Vec<_> = PLACES.iter().map(|disk| (*disk, Room::Files)).collect();
    all.extend(PLACES.iter().map(|disk| (*disk, Room::Blocks)));
    let mut failed = Vec::new();
    for (disk, room) in sample(&all, 2) {
        // On a thread of its own each, so that one that fails leaves the others their turn.
        let tried = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(fill_one(disk, room));
        });
        if tried.join().is_err() {
            failed.push((disk.place, room));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn a_commit_that_the_disk_refuses_leaves_the_next_one_its_turn() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let pid = server.server_pid().expect("the server runs").to_string();
    let mut refusing = Command::new("strace")
        .args(["-f", "-q", "-p", &pid, "-o", "/dev/null", "-e", "trace=pwrite64"])
        .args(["-e", "inject=pwrite64:error=ENOSPC"])
        .spawn()
        .expect("strace is installed");
    // It strikes once it is attached to every thread.
    let deadline = Instant::now() + RECOVERY;
    let mut number = 0;
    let refused = loop {
        let body = json!({"name": format!("new-{number}"), "image": IMAGE});
        let answer = anna.post("/api/v1/containers", &body).await;
        if answer.status != 201 {
            break verdict(&answer);
        }
        number += 1;
        assert!(Instant::now() < deadline, "the fault does not strike");
    };
    let control = "strace: pwrite64 = ENOSPC in every thread of the server";
    let check = |variant| Check { id: "F05", variant, control };
    check("a commit that fails").sees(REFUSED, refused);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(refusing.id().try_into().expect("a pid fits")),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("strace runs");
    refusing.wait().expect("strace ends");
    check("commits after it").sees("all works", recover(&anna).await);
}

/// What was made before the disk was full.
struct Before {
    server: TestServer,
    anna: Client,
    /// Ids by name.
    ids: [(&'static str, String); 5],
    lives: (i64, String),
}

impl Before {
    async fn on(disk: SmallDisk) -> Self {
        let sections = "[containers]\nlog_file_bytes = 65536\nlog_files = 2\n".to_owned();
        let options = Options { disks: vec![disk], sections, ..Default::default() };
        let server = TestServer::with(options).await;
        let anna = server.person("anna", "user").await;
        import(&anna).await;
        let scripts = [
            ("lives", "while :; do usleep 20000; done"),
            ("talks", TALKS),
            ("polite", POLITE),
            ("stubborn", "trap '' TERM; while :; do usleep 20000; done"),
            ("ended", "echo said; exit 3"),
        ];
        let mut ids = Vec::new();
        for (name, script) in scripts {
            ids.push((name, run(&anna, name, script, json!({})).await));
        }
        let ids: [_; 5] = ids.try_into().expect("as many as there are scripts");
        log_with(&anna, &ids[1].1, "goes on").await;
        let path = format!("/api/v1/containers/{}", ids[4].1);
        until(&anna, &path, |now| now["exit"]["code"] == 3).await;
        let lives = identity(&anna, &ids[0].1).await;
        Self { server, anna, ids, lives }
    }

    fn id(&self, name: &str) -> &str {
        let found = self.ids.iter().find(|(known, _)| *known == name);
        &found.expect("one of ours").1
    }
}

async fn fill_one(disk: SmallDisk, room: Room) {
    let what = format!("{} full of {room:?}", disk.place).to_lowercase();
    let before = Before::on(disk).await;
    let Before { server, anna, .. } = &before;
    let path = server.dir.join(disk.place);
    // What an act frees is taken before the next.
    let refill = || fill(&path, room);
    refill();
    let check = |variant: &str, expected: &str, observed: String| {
        let variant = format!("{what}: {variant}");
        let control = "a write of the test's root there: no space left on device";
        Check { id: "F05", variant: &variant, control }.sees(expected, observed);
    };
    check("reads", "all answered", reads(&before).await);
    refill();
    let made = make(anna, "new").await;
    check("create and start", EITHER, either(verdict(&made)));
    refill();
    check("import", EITHER, either(import_one(anna, 1).await));
    refill();
    let stopped = act(anna, before.id("polite"), "stop").await;
    let code = exit_of(anna, before.id("polite"), "code").await;
    check("stop", "200, 7", format!("{}, {code}", stopped.status));
    refill();
    let talks = act(anna, before.id("talks"), "kill").await;
    let lost = exit_of(anna, before.id("talks"), "log_bytes_lost").await.as_u64();
    // Without room for a file, what is written when the log begins a new one is lost: by then it may have, or not.
    let counted = match (disk.place, room) {
        ("data/people", Room::Blocks) => (lost > Some(0), true),
        ("data/people", Room::Files) => (lost.is_some(), true),
        _ => (lost > Some(0), false),
    };
    check("kill", "200", talks.status.to_string());
    check(
        "log loss",
        "as counted",
        match counted {
            (true, true) | (false, false) => "as counted".to_owned(),
            (found, expected) => format!("loss {found}, expected {expected}"),
        },
    );
    refill();
    let gone = anna.delete(&format!("/api/v1/containers/{}", before.id("ended"))).await;
    check("remove", "204", gone.status.to_string());
    refill();
    let path_of = format!("/api/v1/containers/{}?force=true", before.id("stubborn"));
    let gone = anna.delete(&path_of).await;
    check("remove by force", "204", gone.status.to_string());
    refill();
    let signed_in = server.sign_in("anna", PASSWORD).await;
    check("sign in", "201", signed_in.status.to_string());

    // What was acknowledged, as it is after a restart on the full disk.
    refill();
    server.kill_server();
    server.kill_supervisor();
    server.start_supervisor().await;
    server.start_server().await;
    refill();
    ready(server).await;
    check("containers after a restart", "lives polite talks", listed(anna).await);
    let same = identity(anna, before.id("lives")).await == before.lives;
    check(
        "the one that lives",
        "same process",
        if same { "same process" } else { "another" }.into(),
    );

    free(&path);
    check("with room again", "all works", recover(anna).await);
}

/// Lists, objects, logs and pages.
async fn reads(before: &Before) -> String {
    let id = before.id("talks");
    let paths = [
        "/api/v1/containers".to_owned(),
        format!("/api/v1/containers/{id}"),
        format!("/api/v1/containers/{id}/logs"),
        format!("/api/v1/containers/{id}/stats"),
        format!("/api/v1/containers/{id}/processes"),
        format!("/api/v1/containers/{id}/activity"),
        "/api/v1/images".to_owned(),
        "/api/v1/events".to_owned(),
        "/api/v1/me".to_owned(),
        "/containers".to_owned(),
        format!("/containers/{id}"),
        "/images".to_owned(),
    ];
    for path in paths {
        let answer = before.anna.get(&path).await;
        if answer.status != 200 {
            return format!("{path}: {}", answer.text);
        }
    }
    "all answered".to_owned()
}

async fn make(anna: &Client, name: &str) -> system_tests::Answer {
    let body =
        json!({"name": name, "image": IMAGE, "command": ["sh", "-c", POLITE], "start": true});
    anna.post("/api/v1/containers", &body).await
}

fn verdict(answer: &system_tests::Answer) -> String {
    match answer.status {
        201 => MADE.to_owned(),
        507 if in_words(&answer.text) => REFUSED.to_owned(),
        _ => answer.text.clone(),
    }
}

fn either(verdict: String) -> String {
    if verdict == MADE || verdict == REFUSED { EITHER.to_owned() } else { verdict }
}

fn in_words(text: &str) -> bool {
    text.contains("disk.full") && text.contains("is full")
}

/// An import of an image of its own; how it went.
async fn import_one(anna: &Client, number: u32) -> String {
    let text = format!("image {number}");
    let reference = format!("berth/another:{number}");
    let archive = image::archive(&reference, &[("a", 0o644, text.as_bytes())]);
    let request = anna.request("POST", "/api/v1/images/import");
    let request = request.header("content-type", "application/x-tar").body(archive);
    let begun = send(request).await;
    if begun.status != 202 {
        return verdict(&begun);
    }
    let begun = begun.json();
    let path = format!("/api/v1/operations/{}", begun["id"].as_str().expect("an id"));
    let ended = until(anna, &path, |now| now["state"] != "running").await;
    match ended["state"].as_str() {
        Some("succeeded") => MADE.to_owned(),
        _ if in_words(&ended.to_string()) => REFUSED.to_owned(),
        _ => ended.to_string(),
    }
}

async fn exit_of(anna: &Client, id: &str, field: &str) -> Value {
    let path = format!("/api/v1/containers/{id}");
    until(anna, &path, |now| now["exit"].is_object()).await["exit"][field].clone()
}

async fn listed(anna: &Client) -> String {
    let list = anna.get("/api/v1/containers").await.expect_status(200).json();
    let items = list["items"].as_array().expect("a list");
    let mut names: Vec<_> = items.iter().filter_map(|item| item["name"].as_str()).collect();
    // The one that may have been made.
    names.retain(|name| *name != "new");
    names.sort_unstable();
    names.join(" ")
}

/// Tries until everything works that has not.
async fn recover(anna: &Client) -> String {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let made = make(anna, "after").await;
        if made.status == 201 {
            break;
        }
        if Instant::now() > deadline {
            return made.text;
        }
        // What a refused start has left is in the way of its name.
        drop(anna.delete("/api/v1/containers/after").await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let running = show(anna, "after").await["status"].clone();
    let imported = import_one(anna, 2).await;
    match (running == "running", imported == MADE) {
        (true, true) => "all works".to_owned(),
        _ => format!("{running}, {imported}"),
    }
}
