//! `berth backup` and `berth restore`: taken under writes and put into an empty place, damaged at any byte,
//! killed at any step, and the way back to the version before. What is there afterwards is one inventory,
//! whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, import, in_status, log_with, ready, run, show, until};
use system_tests::instance::PASSWORD;
use system_tests::{
    Check, Client, Dice, Options, TestServer, programs, requires_root, sample, times,
};

use crate::damage::{Snapshot, sqlite};
use crate::upgrade;

/// What a restore does to a disk, each of which may be its last call.
const CALLS: &str = "write,fsync,rename,renameat2,mkdir,unlink,fchownat,chown";
/// A container that waits.
const WAITS: &str = "while :; do usleep 20000; done";

/// `berth` with the instance's configuration.
fn berth(server: &TestServer, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::berth());
    command.args(arguments).arg("--config").arg(server.config_path()).env_clear();
    command.stdin(Stdio::null()).output().expect("run berth")
}

pub(crate) fn good(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A backup in a file of the instance's directory.
pub(crate) fn back_up(server: &TestServer, name: &str, more: &[&str]) -> PathBuf {
    let file = server.dir.join(name);
    let to = file.to_str().expect("a path");
    let said = good(&berth(server, &[&["backup", "--to", to], more].concat()));
    assert!(said.contains("holds secrets"), "{said}");
    file
}

pub(crate) fn restore(server: &TestServer, file: &Path, more: &[&str]) -> Output {
    let file = file.to_str().expect("a path");
    berth(server, &[&["restore", file], more].concat())
}

/// Everything of the appliance is gone from the disk, as on another machine.
fn lose_everything(server: &TestServer) {
    server.stop_server();
    server.cut_power();
    fs::remove_dir_all(server.data_dir()).expect("lose the data");
}

async fn come_up(server: &TestServer) {
    server.start_supervisor().await;
    server.start_server().await;
    ready(server).await;
}

/// The rows of the tables that a backup is about, as text.
fn rows(inventory: &Path) -> BTreeMap<&'static str, String> {
    let tables = [
        "principals",
        "people",
        "sessions",
        "tokens",
        "images",
        "image_references",
        "image_layers",
        "registry_credentials",
        "containers",
        "allowances",
        "operations",
    ];
    let read = |table| (table, sqlite(inventory, &format!("select * from {table} order by 1, 2")));
    tables.into_iter().map(read).collect()
}

/// What another tar takes out of a backup.
fn unpacked(server: &TestServer, backup: &Path) -> PathBuf {
    let into = server.dir.join("unpacked");
    fs::create_dir(&into).expect("a folder");
    let mut tar = Command::new("tar");
    let status = tar.arg("-xzf").arg(backup).arg("-C").arg(&into).status();
    assert!(status.expect("run tar").success());
    into
}

/// Makes containers until it is over; the names that were acknowledged.
async fn write_on(anna: Client, over: Arc<AtomicBool>) -> Vec<String> {
    let mut made = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let name = format!("w{}", made.len());
        let body = json!({"name": name, "image": IMAGE});
        anna.post("/api/v1/containers", &body).await.expect_status(201);
        made.push(name);
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_under_writes_is_restored_into_an_empty_place() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let by_token = anna.token("operate").await;
    import(&anna).await;
    let early = run(&anna, "early", "echo written > /tmp/file; exec sleep 1000", json!({})).await;
    let over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_on(anna.clone(), over.clone()));
    until(&anna, "/api/v1/containers/w1", |one| one["name"] == "w1").await;
    let file = tokio::task::block_in_place(|| back_up(&server, "backup.tar.gz", &[]));
    over.store(true, Ordering::Relaxed);
    let made = writer.await.expect("the writer");
    assert_eq!(fs::metadata(&file).expect("it is there").mode() & 0o777, 0o600);
    let again = berth(&server, &["backup", "--to", file.to_str().expect("a path")]);
    assert!(refused(&again).contains("is there already"), "{again:?}");
    let said = good(&restore(&server, &file, &["--check"]));
    assert!(said.contains("whole") && said.contains("2 people, 1 image,"), "{said}");
    let piped = berth(&server, &["backup", "--to", "-"]);
    let copy = server.dir.join("piped.tar.gz");
    fs::write(&copy, &piped.stdout).expect("write it");
    assert!(good(&restore(&server, &copy, &["--check"])).contains("without images"));
    let leftovers = fs::read_dir(&server.dir).expect("the folder").flatten();
    let hidden = leftovers.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0);
    let content = unpacked(&server, &file);
    assert!(content.join("db/token.key").exists() && content.join("state/people.json").exists());
    let config = fs::read(content.join("berth.toml")).expect("the configuration");
    assert_eq!(config, fs::read(server.config_path()).expect("the configuration"));

    lose_everything(&server);
    let kept = server.dir.join("restored.toml");
    let said = good(&restore(&server, &file, &["--config-to", kept.to_str().expect("a path")]));
    assert!(said.contains("1 images are listed whose layers are not on this machine"), "{said}");
    assert!(said.contains("1 containers have lost what they had written"), "{said}");
    assert_eq!(fs::read(kept).expect("it was written"), config);
    let restored = server.data_dir().join("db/berth.db");
    assert_eq!(rows(&restored), rows(&content.join("db/berth.db")), "row by row");
    come_up(&server).await;
    assert_eq!(server.sign_in("anna", PASSWORD).await.status, 201);
    assert_eq!(by_token.get("/api/v1/me").await.status, 200, "the token is good");
    assert_eq!(anna.get("/api/v1/me").await.status, 200, "the session is good");
    let there = anna.get("/api/v1/containers?limit=200").await.expect_status(200).json();
    let there = there["items"].as_array().expect("a list").len();
    assert!((1..=made.len() + 1).contains(&there), "{there} of {}", made.len() + 1);
    // What is not here is said, and not made up.
    let start = anna.post("/api/v1/containers/w0/start", &Value::Null).await;
    let code = start.json()["type"].as_str().unwrap_or_default().to_owned();
    assert!(code.ends_with("/layer.unknown"), "{}", start.text);
    let whole = async || anna.get("/api/v1/images").await.json()["items"][0]["whole"].clone();
    assert_eq!(whole().await, false);
    let page = anna.get("/images").await.text;
    assert!(page.contains("its layers are not on this machine"), "{page}");
    let story = anna.get(&format!("/api/v1/containers/{early}/activity")).await.text;
    assert!(story.contains("without what it had written"), "{story}");
    let audit = server.operator().get("/api/v1/audit").await.text;
    assert!(audit.contains("inventory.restore"), "{audit}");
    // And pulled or imported again, it is whole.
    import(&anna).await;
    assert_eq!(whole().await, true);
    let again = run(&anna, "again", WAITS, json!({})).await;
    in_status(&anna, &again, "running").await;
}

#[tokio::test]
async fn images_that_a_backup_holds_are_there_after_it() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let file = back_up(&server, "images.tar.gz", &["--with-images"]);
    lose_everything(&server);
    good(&restore(&server, &file, &[]));
    come_up(&server).await;
    let layers = server.data_dir().join("layers/sha256");
    let deadline = std::time::Instant::now() + system_tests::containers::LIMIT;
    while fs::read_dir(&layers).expect("layers").count() == 0 {
        assert!(std::time::Instant::now() < deadline, "not unpacked\n{}", server.server_log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let id = run(&anna, "works", "echo from the image", json!({})).await;
    log_with(&anna, &id, "from the image").await;
}

#[tokio::test]
async fn a_backup_is_put_in_place_of_what_is_there_and_that_is_kept() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let lives = run(&anna, "lives", WAITS, json!({})).await;
    let before = show(&anna, &lives).await;
    let file = back_up(&server, "backup.tar.gz", &[]);
    let bert = server.person("bert", "user").await;
    let running = restore(&server, &file, &["--replace"]);
    assert!(refused(&running).contains("in use by a running server"), "{running:?}");
    assert_eq!(bert.get("/api/v1/me").await.status, 200);
    server.stop_server();
    assert!(refused(&restore(&server, &file, &[])).contains("--replace"));
    let said = good(&restore(&server, &file, &["--replace"]));
    assert!(said.contains("what was there before is in"), "{said}");
    server.start_server().await;
    ready(&server).await;
    assert_eq!(bert.get("/api/v1/me").await.status, 401, "he came later");
    let after = in_status(&anna, &lives, "running").await;
    assert_eq!(after["pid"], before["pid"], "what runs was not touched");
    assert_eq!(server.sign_in("anna", PASSWORD).await.status, 201);
    // What was there before is one to go back to.
    let kept = kept(&server);
    assert_eq!(kept.len(), 1);
    assert_eq!(sqlite(&kept[0].join("berth.db"), "select count(*) from people"), "3");
    let owner = fs::metadata(server.data_dir().join("db")).expect("it is there");
    assert_eq!((owner.uid(), owner.mode() & 0o777), (65_534, 0o700));
    let key = fs::metadata(server.data_dir().join("db/token.key")).expect("it is there");
    assert_eq!((key.uid(), key.mode() & 0o777), (65_534, 0o600));
}

/// What restores have put aside.
fn kept(server: &TestServer) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.data_dir()).expect("the data").flatten();
    let named = |path: &PathBuf| path.to_string_lossy().contains("/db.re");
    entries.map(|entry| entry.path()).filter(named).collect()
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_changes_nothing() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Default::default() }).await;
    let file = back_up(&server, "backup.tar.gz", &[]);
    server.stop_server();
    let whole = fs::read(&file).expect("read it");
    let before = Snapshot::of(&server.data_dir().join("db"));
    let damaged = server.dir.join("damaged.tar.gz");
    let mut dice = Dice::new();
    for round in 0..times(200, 12) {
        let mut bytes = whole.clone();
        let at = dice.below(bytes.len());
        let what = match round % 3 {
            0 => {
                bytes.truncate(at);
                "cut after"
            }
            1 => {
                bytes[at] ^= 1 << dice.below(8);
                "one bit of"
            }
            _ => {
                bytes.insert(at, 0);
                "a byte more at"
            }
        };
        fs::write(&damaged, &bytes).expect("write it");
        let variant = format!("a backup damaged: {what} byte {at} of {}", whole.len());
        let control = "the whole one is restored below";
        let check = || Check { id: "F16", variant: &variant, control };
        let mode = ["--check", "--replace"][round % 2];
        let status = restore(&server, &damaged, &[mode]).status;
        check().sees(1, status.code().unwrap_or(-1));
        check().sees(true, before.is_there() && kept(&server).is_empty());
    }
    let mut newer = server.dir.join("newer.db");
    fs::copy(server.data_dir().join("db/berth.db"), &newer).expect("copy it");
    sqlite(
        &newer,
        "insert into _sqlx_migrations select 9999, description, installed_on, success, checksum, \
        execution_time from _sqlx_migrations limit 1",
    );
    let said = refused(&restore(&server, &newer, &["--replace"]));
    assert!(said.contains("newer version's (schema 9999"), "{said}");
    newer.set_file_name("other.db");
    sqlite(&newer, "create table other (id integer)");
    assert!(refused(&restore(&server, &newer, &["--replace"])).contains("no inventory of Berth's"));
    assert!(before.is_there());
    good(&restore(&server, &file, &["--replace"]));
    server.start_server().await;
    server.operator().get("/api/v1/people").await.expect_status(200);
}

/// Runs a restore that strace traces or kills, and waits for it.
fn traced(server: &TestServer, file: &Path, more: &[&str], out: &Path) -> bool {
    let mut strace = Command::new("/usr/bin/strace");
    strace.args(["-f", "-q", "-o"]).arg(out).args(more).arg(programs::berth());
    strace.args(["restore", "--replace"]).arg(file).arg("--config").arg(server.config_path());
    let output = strace.env_clear().stdin(Stdio::null()).output().expect("run strace");
    output.status.success()
}

/// The calls of a whole restore, numbered as strace counts: by name.
fn steps(text: &str) -> Vec<(String, usize)> {
    let mut seen = BTreeMap::<(String, String), usize>::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        *seen.entry((call.to_owned(), pid.to_owned())).or_default() += 1;
    }
    let mut steps = Vec::new();
    for ((call, _), count) in seen {
        steps.extend((1..=count).map(|nth| (call.clone(), nth)));
    }
    steps.sort();
    steps.dedup();
    steps
}

#[tokio::test]
async fn a_restore_that_is_killed_at_any_step_leaves_the_old_inventory_or_the_new() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Default::default() }).await;
    let operator = server.operator();
    let add = async |name: &str| {
        let body = json!({"name": name, "role": "user"});
        operator.post("/api/v1/people", &body).await.expect_status(201);
    };
    let file = back_up(&server, "backup.tar.gz", &[]);
    add("anna").await;
    server.stop_server();
    let before = Snapshot::of(&server.data_dir().join("db"));
    let put_back = || {
        for path in kept(&server) {
            fs::remove_dir_all(path).expect("remove what was put aside");
        }
        before.put_back();
    };
    let out = server.dir.join("calls");
    assert!(traced(&server, &file, &["-e", &format!("trace={CALLS}")], &out));
    let steps = steps(&fs::read_to_string(&out).expect("strace wrote it"));
    assert!(steps.iter().any(|(call, _)| call == "renameat2"), "{steps:?}");
    let exchanges = steps.iter().filter(|(call, _)| call.starts_with("rename")).cloned();
    let others: Vec<_> = steps.iter().filter(|(call, _)| !call.starts_with("rename")).collect();
    let mut struck: Vec<(String, usize)> = exchanges.collect();
    struck.extend(sample(&others, 6).into_iter().cloned());
    for (call, nth) in struck {
        put_back();
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let whole = traced(&server, &file, &["-e", &format!("trace={call}"), "-e", &inject], &out);
        let variant = format!("a restore killed at {call} number {nth}");
        let control = format!("strace; it came to its end: {whole}");
        let check = |expected: &str, observed: String| {
            Check { id: "F16", variant: &variant, control: &control }.sees(expected, observed);
        };
        let started = server.try_start_server().await;
        let people = match started {
            Some(status) => format!("does not start: {status}: {}", server.server_log()),
            None => {
                let list = operator.get("/api/v1/people").await.expect_status(200).json();
                let names = list["items"].as_array().expect("people").iter();
                names.map(|one| one["name"].to_string()).collect::<Vec<_>>().join(" ")
            }
        };
        let old = people == "\"anna\" \"olga\"" || people == "\"olga\" \"anna\"";
        check(
            "the old or the new",
            if old || people == "\"olga\"" {
                "the old or the new".to_owned()
            } else {
                people.clone()
            },
        );
        server.stop_server();
        // It can be done again, and the old one is never lost.
        good(&restore(&server, &file, &["--replace"]));
        let count = |path: &PathBuf| sqlite(&path.join("berth.db"), "select count(*) from people");
        let kept: Vec<String> = kept(&server).iter().map(count).collect();
        check(
            "kept",
            if kept.contains(&"2".to_owned()) { "kept".into() } else { format!("{kept:?}") },
        );
    }
}

#[tokio::test]
async fn an_upgrade_is_taken_back_by_the_inventory_that_it_has_kept() {
    requires_root!();
    let (server, operator, _) = upgrade::older().await;
    let folder = server.data_dir().join("db");
    let schema = "select max(version) from _sqlx_migrations";
    let old = sqlite(&folder.join("berth.db"), schema);
    server.start_server().await;
    let body = json!({"name": "later", "role": "user"});
    operator.post("/api/v1/people", &body).await.expect_status(201);
    server.stop_server();
    let copy = folder.join(format!("berth.db.version-{old}"));
    let said = good(&restore(&server, &copy, &["--check"]));
    assert!(said.contains(&format!("schema {old}: 2 people")), "{said}");
    good(&restore(&server, &copy, &["--replace"]));
    assert_eq!(sqlite(&folder.join("berth.db"), schema), old, "the program before can use it");
    let mode = fs::metadata(folder.join("berth.db")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.start_server().await;
    let list = operator.get("/api/v1/people").await.expect_status(200).json();
    assert_eq!(
        list["items"].as_array().map(Vec::len),
        Some(2),
        "as it was before the upgrade: {list}"
    );
}
