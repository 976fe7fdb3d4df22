//! F07: an inventory that is damaged, cut short, another version's or not ours to open is refused in
//! words, or used whole; it is never taken for a smaller one. What runs, runs on.

use std::time::Duration;

use serde_json::json;
use system_tests::containers::{IMAGE, identity, import, in_status, ready, run};
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Dice, TestServer, check, is_long, requires_root, times};

use crate::damage::{Damage, Due, Snapshot, sqlite};

/// Containers in the inventory, of which two run.
const CONTAINERS: usize = 30;
/// No answer may take longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

struct Prepared {
    server: TestServer,
    anna: Client,
    snapshot: Snapshot,
    running: Vec<(String, (i64, String))>,
}

/// An appliance that was killed with acknowledged rows in the write-ahead log only.
async fn prepare() -> Prepared {
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    for number in 2..CONTAINERS {
        let body = json!({"name": format!("c{number:02}"), "image": IMAGE});
        anna.post("/api/v1/containers", &body).await.expect_status(201);
    }
    // What is in the file by now; the rest is in the log.
    server.stop_server();
    server.start_server().await;
    let mut running = Vec::new();
    for name in ["c00", "c01"] {
        let id = run(&anna, name, "while :; do usleep 50000; done", json!({})).await;
        running.push((id.clone(), identity(&anna, &id).await));
    }
    server.kill_server();
    let folder = server.data_dir().join("db");
    let snapshot = Snapshot::of(&folder);
    // The control: the same without its log is a smaller inventory, and SQLite does not mind.
    std::fs::remove_file(folder.join("berth.db-wal")).expect("there is a log");
    let left = sqlite(&folder.join("berth.db"), "select count(*) from containers");
    assert_eq!(left, (CONTAINERS - 2).to_string(), "the log holds the newest two");
    Prepared { server, anna, snapshot, running }
}

#[tokio::test]
async fn a_damaged_inventory_is_refused_or_whole_and_never_smaller_in_silence() {
    requires_root!();
    let prepared = prepare().await;
    let mut kinds = Damage::ALL.to_vec();
    if is_long() {
        // Most of the thousand go to what has most ways to be.
        kinds.extend([Damage::Pages; 20]);
        kinds.extend([Damage::LogPages, Damage::LogShort, Damage::Header].repeat(3));
    }
    let mut failed = Vec::new();
    let mut tally = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..times(1000, Damage::ALL.len()) {
        let damage = kinds[seed % kinds.len()];
        let mut dice = Dice::seeded(check::seed().wrapping_add(seed as u64));
        prepared.snapshot.put_back();
        let done = damage.strike(&prepared.server.data_dir().join("db"), &mut dice);
        let (due, found) = (damage.due(), outcome(&prepared).await);
        let good = match due {
            Due::Refused => found == "refused",
            Due::Whole => found == "whole",
            Due::Either => ["refused", "whole", "errors"].contains(&found.as_str()),
        };
        *tally.entry(format!("{damage:?} {found}")).or_default() += 1;
        let variant = format!("{damage:?}, seed {seed}: {done}");
        if !good {
            failed.push(format!("{variant}: {found}"));
        }
        let observed = if good { format!("{due:?}") } else { found };
        let control = "without its log the sqlite3 shell opens a smaller inventory";
        let check = Check { id: "F07", variant: &variant, control };
        std::panic::catch_unwind(|| check.sees(format!("{due:?}"), observed)).ok();
    }
    say(&tally);
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    prepared.snapshot.put_back();
    assert_eq!(outcome(&prepared).await, "whole", "what was not damaged is good");
}

#[expect(clippy::print_stderr, reason = "how often which outcome came")]
fn say(tally: &std::collections::BTreeMap<String, usize>) {
    eprintln!("{tally:?}");
}

/// What the server makes of the folder as it is: `refused` (in words), `whole`, `errors` (and nothing
/// missing besides), or what is wrong.
async fn outcome(prepared: &Prepared) -> String {
    let Prepared { server, anna, running, .. } = prepared;
    server.clear_server_log();
    let started = server.try_start_server().await;
    let mut found = match started {
        Some(_) => {
            let log = server.server_log();
            let words = [
                "Restore a backup",
                "restore a backup",
                "is it a newer version",
                "open ",
                "look at",
            ];
            match words.iter().any(|word| log.contains(word)) {
                true => "refused".to_owned(),
                false => format!("ended without words: {log}"),
            }
        }
        None => asked(server, anna).await,
    };
    server.kill_server();
    if server.server_log().contains("panicked") {
        found = format!("a panic: {}", server.server_log());
    }
    for (id, (pid, _)) in running {
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            found = format!("{id} does not run any more");
        }
    }
    found
}

/// Everything that shows the inventory, and one write.
async fn asked(server: &TestServer, anna: &Client) -> String {
    let root = server.root();
    let mut errors = 0;
    let paths = [
        "/api/v1/containers?limit=100",
        "/api/v1/people",
        "/api/v1/images",
        "/api/v1/events?limit=100",
        "/api/v1/audit?limit=100",
        "/api/v1/operations",
        "/api/v1/containers/c15",
        "/api/v1/system/usage",
    ];
    for path in paths {
        let who = if path.ends_with("c15") { anna } else { &root };
        let Ok(answer) = tokio::time::timeout(ANSWER_LIMIT, who.get(path)).await else {
            return format!("{path} hangs");
        };
        let least = match path.split(['?', '/']).nth(3) {
            Some("containers") if path.contains('?') => CONTAINERS,
            Some("people") => 2,
            Some("images") => 1,
            _ => 0,
        };
        match answer.status {
            500.. => errors += 1,
            200 => {
                let count = answer.json()["items"].as_array().map_or(0, Vec::len);
                if count < least {
                    return format!("{path}: {count} of {least}: {}", server.server_log());
                }
            }
            // A flipped bit in a name or an id, which no check of SQLite's can see.
            status => errors += usize::from(status != 200),
        }
    }
    let write = server.sign_in("anna", PASSWORD);
    match tokio::time::timeout(ANSWER_LIMIT, write).await {
        Ok(answer) if answer.status == 201 && errors == 0 => "whole".to_owned(),
        Ok(_) => "errors".to_owned(),
        Err(_) => "a write hangs".to_owned(),
    }
}

#[tokio::test]
async fn damage_that_is_met_while_it_runs_is_an_error() {
    requires_root!();
    let prepared = prepare().await;
    prepared.snapshot.put_back();
    let Prepared { server, anna, snapshot, running } = &prepared;
    server.start_server().await;
    let file = server.data_dir().join("db/berth.db");
    let before = anna.get("/api/v1/containers?limit=100").await.expect_status(200).json();
    assert_eq!(before["items"].as_array().map(Vec::len), Some(CONTAINERS));
    // Every page but the first; what is in the log stays good, so that is emptied by a restart.
    server.stop_server();
    server.start_server().await;
    let mut bytes = std::fs::read(&file).expect("read it");
    bytes[4096..].fill(0xa5);
    std::fs::write(&file, bytes).expect("write it");
    let mut seen = Vec::new();
    for path in ["/api/v1/containers?limit=100", "/api/v1/images", "/api/v1/events", "/containers"]
    {
        let answer = tokio::time::timeout(ANSWER_LIMIT, anna.get(path)).await.expect("an answer");
        let items = || answer.json()["items"].as_array().map_or(0, Vec::len);
        let whole = answer.status == 200 && (path == "/containers" || items() > 0);
        seen.push(if whole || answer.status >= 500 { "" } else { path });
    }
    let control = "every page but the first was overwritten while the server ran";
    let check = |variant| Check { id: "F07", variant, control };
    seen.retain(|path| !path.is_empty());
    check("damage while it runs: reads").finds_nothing(&seen);
    let write = anna.post("/api/v1/containers", &json!({"name": "new", "image": IMAGE})).await;
    let said = if write.status >= 500 { "an error".to_owned() } else { write.text };
    check("damage while it runs: a write").sees("an error", said);
    let panics = server.server_log().matches("panicked").count();
    check("damage while it runs: panics").sees(0, panics);
    server.kill_server();
    let started = server.try_start_server().await.is_some();
    check("damage while it runs: the next start")
        .sees("refused", if started { "refused" } else { "used" });
    snapshot.put_back();
    server.start_server().await;
    ready(server).await;
    for (id, before) in running {
        in_status(anna, id, "running").await;
        let same = identity(anna, id).await == *before;
        check("damage while it runs: what runs").sees(true, same);
    }
}
