//! F06: another program holds the inventory's lock, a reader holds its log, the disk takes no writes.
//! Reads go on; a write waits, then says to come again; nothing happens that is not written.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::containers::{IMAGE, act, identity, import, run, show};
use system_tests::disk::{SmallDisk, make_read_only};
use system_tests::{Answer, Check, Client, Options, TestServer, requires_root, times};

/// The inventory's own patience, and what a waiter before one may take of it.
const WRITE_LIMIT: Duration = Duration::from_secs(12);
/// No read waits for a writer.
const READ_LIMIT: Duration = Duration::from_secs(3);

/// A sqlite3 shell with a transaction open, for as long as this lives.
struct Shell(Child);

impl Shell {
    fn begin(server: &TestServer, statements: &str) -> Self {
        let mut child = Command::new("sqlite3")
            .arg(server.data_dir().join("db/berth.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3 is installed");
        let input = child.stdin.as_mut().expect("it is piped");
        writeln!(input, "{statements}\nselect 'begun';").expect("it listens");
        let mut output = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("begun") {
            line.clear();
            std::io::BufRead::read_line(&mut output, &mut line).expect("it says so");
        }
        Self(child)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // At the end of its input it rolls back and goes.
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_lock_of_another_program_delays_writes_and_nothing_else() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id =
        run(&anna, "lives", "trap 'exit 7' TERM; while :; do usleep 20000; done", json!({})).await;
    let before = identity(&anna, &id).await;
    let lock = Shell::begin(&server, "begin exclusive;");
    let file = server.data_dir().join("db/berth.db");
    let other = Command::new("sqlite3").arg(file).arg("begin immediate").output().expect("sqlite3");
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("locked"), "the lock holds: {said}");
    let check = |variant| Check { id: "F06", variant, control: "sqlite3: database is locked" };
    let stop = {
        let (anna, id) = (anna.clone(), id.clone());
        tokio::spawn(async move { act(&anna, &id, "stop").await })
    };
    let create = {
        let anna = anna.clone();
        tokio::spawn(async move { make(&anna, "new").await })
    };
    let begun = Instant::now();
    check("reads under a lock").sees("all answered", reads(&anna, &id).await);
    for (variant, waiting) in [("a stop under a lock", stop), ("a create under a lock", create)] {
        let answer = waiting.await.expect("it is answered");
        check(variant).sees("503 inventory.busy, Retry-After 1", in_short(&answer));
    }
    let waited = begun.elapsed();
    check("writes waited first")
        .sees(true, waited > Duration::from_secs(4) && waited < WRITE_LIMIT);
    check("no act without its row").sees(true, identity(&anna, &id).await == before);
    drop(lock);
    act(&anna, &id, "stop").await.expect_status(200);
    check("after the lock").sees(7, &show(&anna, &id).await["exit"]["code"]);
    check("no row of a refused create").sees(404, anna.get("/api/v1/containers/new").await.status);
}

#[tokio::test]
async fn the_log_begins_anew_after_a_long_reader() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Default::default() }).await;
    let operator = server.operator();
    let log = server.data_dir().join("db/berth.db-wal");
    let size = || std::fs::metadata(&log).map_or(0, |found| found.len());
    let reader = Shell::begin(&server, "begin; select count(*) from audit;");
    write_tokens(&operator, times(1500, 150)).await;
    let grown = size();
    let control = format!("the log grew to {grown} bytes under the reader");
    assert!(grown > 4 << 20, "{control}");
    drop(reader);
    let head = || std::fs::read(&log).map(|bytes| bytes[..32].to_vec()).unwrap_or_default();
    let before = head();
    write_tokens(&operator, 20).await;
    let check = |variant| Check { id: "F06", variant, control: &control };
    check("a long reader: the log begins anew").sees(true, head() != before);
    check("a long reader: the log's size").sees(true, size() <= 16 << 20);
}

/// Makes and ends tokens: two commits each.
async fn write_tokens(client: &Client, number: usize) {
    for _ in 0..number {
        let body = json!({"name": "one", "scope": "read", "days": 1});
        let made = client.post("/api/v1/tokens", &body).await.expect_status(201).json();
        let id = made["token"]["id"].as_str().expect("an id");
        client.delete(&format!("/api/v1/tokens/{id}")).await.expect_status(204);
    }
}

#[tokio::test]
async fn a_disk_that_became_read_only_can_still_be_read() {
    requires_root!();
    let disk = SmallDisk { place: "data/db", mib: 64, files: 600, memory: false };
    let server = TestServer::with(Options { disks: vec![disk], ..Default::default() }).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "lives", "while :; do usleep 20000; done", json!({})).await;
    let before = identity(&anna, &id).await;
    make_read_only(&server.data_dir().join("db"));
    let control = "a write of the test's root there: read-only file system";
    let check = |variant| Check { id: "F06", variant, control };
    check("read-only: reads").sees("all answered", reads(&anna, &id).await);
    let expected = "503 inventory.read-only, Retry-After 1";
    check("read-only: create").sees(expected, in_short(&make(&anna, "new").await));
    check("read-only: stop").sees(expected, in_short(&act(&anna, &id, "stop").await));
    check("read-only: no act without its row").sees(true, identity(&anna, &id).await == before);
    check("read-only: reads, later").sees("all answered", reads(&anna, &id).await);
}

async fn make(anna: &Client, name: &str) -> Answer {
    let body = json!({"name": name, "image": IMAGE, "command": ["sleep", "1000"], "start": true});
    anna.post("/api/v1/containers", &body).await
}

fn in_short(answer: &Answer) -> String {
    format!("{} {}, Retry-After {}", answer.status, answer.code(), answer.header("retry-after"))
}

async fn reads(anna: &Client, id: &str) -> String {
    let own = format!("/api/v1/containers/{id}");
    for path in
        ["/api/v1/containers", &own, &format!("{own}/logs"), "/api/v1/events", "/containers"]
    {
        let begun = Instant::now();
        let answer = anna.get(path).await;
        if answer.status != 200 || begun.elapsed() > READ_LIMIT {
            return format!("{path}: {} after {:?}", answer.text, begun.elapsed());
        }
    }
    "all answered".to_owned()
}
