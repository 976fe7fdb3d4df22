//! The audit cannot be changed unnoticed: every way to do so, on a copy of the inventory, is named by
//! `berth audit verify` with its row. What is dropped leaves a chain that holds, nobody's noise takes what
//! others did, and a file that was exported is verified by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Check, Client, Options, TestServer, programs, requires_root};

const NO_TRIGGERS: &str = "drop trigger audit_is_appended_to; drop trigger audit_is_not_changed; \
                           drop trigger audit_is_not_cut;";

fn with(sections: &str) -> Options {
    Options { no_supervisor: true, sections: sections.into(), ..Options::default() }
}

fn sqlite(file: &Path, statement: &str) -> Result<String, String> {
    let output = Command::new("sqlite3").arg(file).arg(statement).output().expect("run sqlite3");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The exit code, and what was said.
fn verify(server: &TestServer, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(programs::berth())
        .args(["audit", "verify", "--config"])
        .arg(server.config_path())
        .args(arguments)
        .env_clear()
        .output()
        .expect("run berth audit verify");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

async fn rows(client: &Client, query: &str) -> Vec<Value> {
    let answer = client.get(&format!("/api/v1/audit?limit=500&{query}")).await.expect_status(200);
    answer.json()["items"].as_array().expect("items").clone()
}

async fn until_there(client: &Client, query: &str) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(100);
    loop {
        let found = rows(client, query).await;
        if !found.is_empty() {
            return found;
        }
        assert!(Instant::now() < deadline, "nothing of {query}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A whole copy of the inventory as it is now.
fn copy(server: &TestServer, name: &str) -> PathBuf {
    let copy = server.dir.join(name);
    let file = server.data_dir().join("db/berth.db");
    sqlite(&file, &format!("vacuum into '{}'", copy.display())).expect("a copy");
    copy
}

/// People whose names and acts make a few dozen rows.
async fn lived_in() -> TestServer {
    let server = TestServer::with(with("")).await;
    let anna = server.person("anna", "user").await;
    for number in 0..12 {
        if number == 6 {
            server.person("bert", "user").await;
        }
        let body = json!({"name": format!("t{number}"), "scope": "read", "days": 1});
        anna.post("/api/v1/tokens", &body).await.expect_status(201);
    }
    server
}

/// Ways to do something to the rows of an audit that ends with `newest`: a name, the statement, and the row
/// and the word that are to be said.
fn attacks(newest: i64) -> Vec<(&'static str, String, (i64, &'static str))> {
    let shift = |from: i64, by: i64| {
        format!(
            "update audit set id = -id where id >= {from}; \
             update audit set id = -id + {by} where id < 0;"
        )
    };
    let columns = "at, actor, actor_name, via, action, subject_kind, subject, owner, outcome, \
                   address, request_id, times, prev, hash";
    let again = format!("insert into audit ({columns}) select {columns} from audit where id = 6;");
    let between = format!(
        "{} insert into audit (id, {columns}) select 9, {columns} from audit where id = 8;",
        shift(9, 1)
    );
    vec![
        ("name", "update audit set actor_name = 'tom' where id = 7".to_owned(), (7, "changed")),
        ("outcome", "update audit set outcome = 'denied' where id = 7".to_owned(), (7, "changed")),
        ("whose", "update audit set owner = null where id = 7".to_owned(), (7, "changed")),
        ("time", "update audit set at = at + 1 where id = 7".to_owned(), (7, "changed")),
        ("hash", "update audit set hash = zeroblob(32) where id = 7".to_owned(), (7, "changed")),
        (
            "binary",
            "update audit set subject = cast(x'ff' as text) where id = 7".into(),
            (7, "changed"),
        ),
        ("unlinked", "update audit set prev = null where id = 7".to_owned(), (7, "inserted")),
        ("removed", "delete from audit where id = 7".to_owned(), (7, "removed")),
        ("range", "delete from audit where id between 7 and 9".to_owned(), (7, "removed")),
        ("first", "delete from audit where id = 1".to_owned(), (1, "removed")),
        (
            "listed",
            "delete from audit where id = 7; insert into audit_gaps values (7, 7)".to_owned(),
            (7, "removed"),
        ),
        ("closed up", format!("delete from audit where id = 7; {}", shift(8, -1)), (7, "moved")),
        ("put between", between, (9, "moved")),
        ("appended", again, (newest + 1, "moved")),
        (
            "exchanged",
            "update audit set id = -7 where id = 7; update audit set id = 7 where id = 8; \
             update audit set id = 8 where id = -7"
                .to_owned(),
            (7, "moved"),
        ),
        ("cut", format!("delete from audit where id = {newest}"), (newest, "removed")),
        ("all", "delete from audit".to_owned(), (1, "removed")),
        (
            "cut and forgotten",
            format!(
                "delete from audit where id > {0}; update sqlite_sequence set seq = {0} \
                 where name = 'audit'",
                newest - 3
            ),
            (newest - 2, "removed"),
        ),
    ]
}

#[tokio::test]
async fn whatever_is_done_to_the_rows_is_named_with_the_row() {
    requires_root!();
    let server = lived_in().await;
    let (code, said) = verify(&server, &[]);
    assert_eq!(code, 0, "while the server runs: {said}");
    let whole = copy(&server, "whole.db");
    let newest: i64 =
        sqlite(&whole, "select max(id) from audit").expect("rows").parse().expect("one");
    assert!(newest > 12, "{newest}");
    let head = said.lines().find_map(|line| line.strip_prefix("head ")).expect("a head").to_owned();
    assert!(head.starts_with(&format!("{newest}:")), "{said}");
    // The control of every attack: the same copy without triggers is whole.
    let attack = |name: &str, statement: &str| {
        let file = server.dir.join(format!("{name}.db"));
        fs::copy(&whole, &file).expect("a copy");
        sqlite(&file, NO_TRIGGERS).expect("drop the triggers");
        let shown = file.display().to_string();
        assert_eq!(verify(&server, &["--database", &shown]).0, 0, "the control");
        sqlite(&file, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        verify(&server, &["--database", &shown, "--head", &head])
    };
    let control = "the same copy without triggers, and nothing done to it, is whole";
    for (name, statement, (row, kind)) in attacks(newest) {
        let (code, said) = attack(name, &statement);
        let named = said.starts_with(&format!("broken: row {row} ")) && said.contains(kind);
        Check { id: "A10", variant: &format!("the audit, {name}"), control }
            .sees("1 true", format!("{code} {named} {}", if named { "" } else { &said }).trim());
    }
    // A cut that is forgotten everywhere is seen by a head that was kept, and by nothing else.
    let cut = server.dir.join("cut and forgotten.db").display().to_string();
    assert_eq!(verify(&server, &["--database", &cut]).0, 0, "what SECURITY.md says");
    let other = format!("{newest}:{}", "0".repeat(64));
    assert_eq!(verify(&server, &["--head", &other]).0, 1, "another head");
    assert_eq!(verify(&server, &["--head", &head]).0, 0, "the right one");
    assert_eq!(verify(&server, &["--head", "x"]).0, 2, "no head at all");
    assert_eq!(verify(&server, &["--database", "/dev/null"]).0, 2, "no inventory");
}

#[tokio::test]
async fn rows_are_only_appended_while_the_triggers_are_there() {
    requires_root!();
    let server = lived_in().await;
    let file = copy(&server, "copy.db");
    for statement in [
        "update audit set actor_name = 'tom' where id = 3",
        "update audit set hash = null where id = 3",
        "delete from audit where id = 3",
        "delete from audit",
        "insert or replace into audit select * from audit where id = 3",
    ] {
        let refused = sqlite(&file, statement).expect_err("a trigger");
        assert!(refused.contains("audit"), "{statement}: {refused}");
    }
    let shown = file.display().to_string();
    assert_eq!(verify(&server, &["--database", &shown]).0, 0);
    // And the server goes on with the chain after a restart.
    server.stop_server();
    assert_eq!(verify(&server, &[]).0, 0, "with nobody at it");
    server.start_server().await;
    server.person("carl", "user").await;
    assert_eq!(verify(&server, &[]).0, 0);
}

#[tokio::test]
async fn no_name_breaks_the_chain_and_exports_are_verified_by_themselves() {
    requires_root!();
    let server = lived_in().await;
    let olga = server.operator();
    let hostile = "x\",\"action\":\"person.add\"}\r\n{\"id\":1,'=cmd'\u{0}\u{1F600}\u{202E}";
    let credential = json!({"registry": "r.example:5000", "username": hostile, "password": "p"});
    olga.put("/api/v1/registries", &credential).await;
    olga.delete(&format!("/api/v1/tokens/{}", "%0A%22%2C")).await;
    until_there(&olga, "outcome=refused").await;
    let state = olga.get("/api/v1/audit/verify").await.expect_status(200).json();
    assert_eq!(state["state"], "whole", "{state}");
    assert!(state["fault"].is_null(), "{state}");
    let page = olga.get("/audit").await.expect_status(200).text;
    let head = state["head"].as_str().expect("a head");
    assert!(page.contains(head) && page.contains("whole"), "the page shows what was found");
    assert_eq!(verify(&server, &["--head", head]).0, 0, "the same head from outside");
    let export = |query: &str| format!("/api/v1/audit/export?format=json{query}");
    for (query, left_out) in [("", false), ("&actor=anna", true)] {
        let text = olga.get(&export(query)).await.expect_status(200).text;
        let file = server.dir.join("audit.ndjson");
        fs::write(&file, &text).expect("keep it");
        let shown = file.display().to_string();
        let (code, said) = verify(&server, &["--file", &shown]);
        assert_eq!((code, said.contains("left out")), (0, left_out), "{said}");
        // One word changed, one line less, two lines exchanged.
        let lines: Vec<&str> = text.lines().collect();
        let mut forged = lines.clone();
        let renamed = lines[3].replace("\"anna\"", "\"tom\"").replace("\"olga\"", "\"tom\"");
        forged[3] = &renamed;
        fs::write(&file, forged.join("\n")).expect("forge it");
        let (code, said) = verify(&server, &["--file", &shown]);
        let at = format!("line 4 of {shown}");
        assert!(code == 1 && said.contains("changed") && said.contains(&at), "{said}");
        let mut moved = lines.clone();
        moved.swap(2, 3);
        fs::write(&file, moved.join("\n")).expect("forge it");
        assert_eq!(verify(&server, &["--file", &shown]).0, 1, "lines exchanged");
    }
    let csv = olga.get("/api/v1/audit/export").await.expect_status(200).text;
    assert!(
        csv.starts_with("at,actor,")
            && csv.lines().next().is_some_and(|names| {
                names.trim_end().ends_with("request_id,id,times,prev,hash")
            })
    );
}

#[tokio::test]
async fn what_is_the_same_is_counted_and_no_noise_takes_what_others_did() {
    requires_root!();
    let rates = "[rates]\nperson_per_min = 100000\nchanges_per_min = 100000\n\
                 [retention]\naudit_max = 80\n";
    let server = TestServer::with(with(rates)).await;
    let olga = server.operator();
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let token = |name: String| json!({"name": name, "scope": "read", "days": 1});
    // One refusal two hundred times is two rows.
    for _ in 0..200 {
        assert_eq!(tom.post("/api/v1/people", &json!({})).await.status, 403);
    }
    let first = until_there(&olga, "actor=tom&outcome=refused").await;
    assert_eq!((first.len(), &first[0]["times"]), (1, &json!(1)), "{first:?}");
    // Acts that were done are rows each.
    for number in 0..5 {
        anna.post("/api/v1/tokens", &token(format!("a{number}"))).await.expect_status(201);
        for loud in 0..30 {
            let made = tom.post("/api/v1/tokens", &token(format!("t{number}-{loud}"))).await;
            let made = made.expect_status(201).json();
            let id = made["token"]["id"].as_str().expect("an id");
            tom.delete(&format!("/api/v1/tokens/{id}")).await.expect_status(204);
        }
    }
    let annas = rows(&olga, "actor=anna").await;
    assert!(rows(&olga, "").await.len() > 200, "the control: more than are kept");
    // The end of the server writes what was counted, its start drops what is too much.
    server.stop_server();
    server.start_server().await;
    let pruned = until_there(&olga, "action=audit.prune").await;
    assert_eq!(pruned[0]["via"], "server", "{pruned:?}");
    let kept = rows(&olga, "").await;
    assert!((70..=82).contains(&kept.len()), "{} rows are kept", kept.len());
    assert_eq!(rows(&olga, "actor=anna").await, annas, "nothing of hers is gone");
    let left = rows(&olga, "actor=tom").await;
    assert!(left.len() > 20, "of his the newest stay: {}", left.len());
    let (code, said) = verify(&server, &[]);
    assert!(code == 0 && said.contains("were dropped by the pruning"), "{code} {said}");
    let state = olga.get("/api/v1/audit/verify").await.json();
    assert_eq!(state["state"], "whole", "{state}");
    // What the pruning has listed is sealed: one more row is seen, with its place in the list, too.
    let file = copy(&server, "pruned.db");
    sqlite(&file, NO_TRIGGERS).expect("drop the triggers");
    let hers = annas[0]["id"].as_i64().expect("a number");
    let taken = format!(
        "delete from audit where id = {hers}; insert into audit_gaps values ({hers}, {hers})"
    );
    sqlite(&file, &taken).expect("take it out");
    let (code, said) = verify(&server, &["--database", &file.display().to_string()]);
    assert!(code == 1 && said.contains("removed") && said.contains("sealed"), "{code} {said}");
}

#[tokio::test]
async fn what_was_counted_is_written_when_its_minute_is_over_or_the_server_ends() {
    requires_root!();
    let server = TestServer::with(with("")).await;
    let olga = server.operator();
    let tom = server.person("tom", "user").await;
    for _ in 0..20 {
        assert_eq!(tom.post("/api/v1/people", &json!({})).await.status, 403);
    }
    until_there(&olga, "actor=tom&outcome=refused").await;
    server.stop_server();
    server.start_server().await;
    let told = rows(&olga, "actor=tom&outcome=refused").await;
    let times: Vec<_> = told.iter().map(|row| row["times"].as_u64()).collect();
    assert_eq!(times, [Some(19), Some(1)], "{told:?}");
    assert_eq!(verify(&server, &[]).0, 0);
}
