//! What a person may keep on disk: given, widened live, narrowed when nothing of theirs runs, and felt by them alone.

use serde_json::{Value, json};
use system_tests::containers::{act, import, in_status, log_with, run, until};
use system_tests::{Client, TestServer, requires_root};

const MIB: u64 = 1 << 20;
/// Writes as much as there is, says whether that ended in "no space", and stays.
const FILL: &str =
    "busybox dd if=/dev/zero of=/full bs=64k 2>&1; busybox ls -s /full; echo filled; sleep 1000";

struct Person {
    client: Client,
    allowance: String,
    data: String,
}

async fn person(server: &TestServer, name: &str) -> Person {
    let client = server.person(name, "user").await;
    let id = client.get("/api/v1/me").await.expect_status(200).json()["id"].to_string();
    import(&client).await;
    let path = |what| format!("/api/v1/people/{id}/{what}");
    Person { client, allowance: path("allowance"), data: path("data") }
}

/// The bound is that, and nothing waits.
async fn holds(person: &Person, mib: Option<u64>) -> Value {
    let wanted = json!(mib.map(|mib| mib * MIB));
    let settled = |seen: &Value| seen["limit_bytes"] == wanted && seen["pending"].is_null();
    until(&person.client, &person.data, settled).await
}

#[tokio::test]
async fn a_bound_on_disk_is_felt_by_its_person_alone() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, bert) = (person(&server, "anna").await, person(&server, "bert").await);
    let free = holds(&anna, None).await;
    assert_eq!((&free["way"], &free["used_bytes"]), (&json!("shared"), &json!(null)), "{free}");
    olga.put(&anna.allowance, &json!({"data_bytes": 64 * MIB})).await.expect_status(200);
    let held = holds(&anna, Some(64)).await;
    assert_eq!(held["way"], "image", "{held}");
    // Programs see it, and feel it.
    let size = "busybox df -k / | busybox awk 'NR == 2 { print \"size\", $2 }'; ";
    let full = run(&anna.client, "full", &format!("{size}{FILL}"), json!({})).await;
    let log = log_with(&anna.client, &full, "filled").await;
    assert!(log.contains("No space left on device"), "{log}");
    let kib: u64 = log
        .split_once("size ")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .expect("a size");
    assert!((32 << 10..=64 << 10).contains(&kib), "df says {kib} KiB");
    let seen = anna.client.get(&anna.data).await.expect_status(200).json();
    assert!(seen["used_bytes"].as_u64() > Some(50 * MIB), "{seen}");
    // The control: who has no bound writes as much, and more.
    let more = "busybox dd if=/dev/zero of=/more bs=1M count=80 2>&1; echo written; sleep 1000";
    let neighbour = run(&bert.client, "neighbour", more, json!({})).await;
    let log = log_with(&bert.client, &neighbour, "written").await;
    assert!(log.contains("80+0 records out"), "{log}");
    // Who is full stops and removes, and has room again.
    act(&anna.client, &full, "stop").await.expect_status(200);
    in_status(&anna.client, &full, "exited").await;
    let path = format!("/api/v1/containers/{full}");
    assert_eq!(anna.client.delete(&path).await.status, 204);
    let empty = |seen: &Value| seen["used_bytes"].as_u64() < Some(20 * MIB);
    until(&anna.client, &anna.data, empty).await;
    // Nobody learns of another's, and the operator sees it.
    assert_eq!(bert.client.get(&anna.data).await.status, 404);
    assert_eq!(olga.get(&anna.data).await.expect_status(200).json()["limit_bytes"], 64 * MIB);
}

/// It is as before, and waits until nothing runs.
fn waits_at(seen: &Value, mib: u64) -> bool {
    let reason = seen["pending"]["reason"].as_str().unwrap_or_default();
    let before = seen["limit_bytes"].as_u64().unwrap_or(0);
    before == mib * MIB && reason.contains("can be had only while nothing")
}

#[tokio::test]
async fn more_is_given_while_something_runs_and_less_when_nothing_does() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = person(&server, "anna").await;
    let kept = "echo kept > /kept; echo ready; sleep 1000";
    let id = run(&anna.client, "one", kept, json!({})).await;
    log_with(&anna.client, &id, "ready").await;
    // A first bound waits, and says for what.
    olga.put(&anna.allowance, &json!({"data_bytes": 48 * MIB})).await.expect_status(200);
    let seen = until(&anna.client, &anna.data, |seen| waits_at(seen, 0)).await;
    assert_eq!(seen["pending"]["limit_bytes"], 48 * MIB, "{seen}");
    act(&anna.client, &id, "stop").await.expect_status(200);
    in_status(&anna.client, &id, "exited").await;
    // Looked at again at once where somebody asks for it again.
    olga.put(&anna.allowance, &json!({"data_bytes": 48 * MIB})).await.expect_status(200);
    holds(&anna, Some(48)).await;
    act(&anna.client, &id, "start").await.expect_status(200);
    in_status(&anna.client, &id, "running").await;
    // More at once, under what runs; where the host lets no file system grow mounted, when nothing does.
    olga.put(&anna.allowance, &json!({"data_bytes": 96 * MIB})).await.expect_status(200);
    let decided = |seen: &Value| seen["limit_bytes"] == 96 * MIB || waits_at(seen, 48);
    let seen = until(&anna.client, &anna.data, decided).await;
    if !seen["pending"].is_null() {
        act(&anna.client, &id, "stop").await.expect_status(200);
        in_status(&anna.client, &id, "exited").await;
        olga.put(&anna.allowance, &json!({"data_bytes": 96 * MIB})).await.expect_status(200);
        holds(&anna, Some(96)).await;
        act(&anna.client, &id, "start").await.expect_status(200);
        in_status(&anna.client, &id, "running").await;
    }
    // Less than is kept is tried in vain, and what is kept stays.
    let exec = json!({"program": {"command": ["sh", "-c", "busybox dd if=/dev/zero of=/big bs=1M count=60; cat /kept"]}});
    let path = format!("/api/v1/containers/{id}/exec");
    let answer = anna.client.post(&path, &exec).await.expect_status(200).json();
    assert_eq!(answer["exit_code"], 0, "{answer}");
    act(&anna.client, &id, "stop").await.expect_status(200);
    in_status(&anna.client, &id, "exited").await;
    olga.put(&anna.allowance, &json!({"data_bytes": 48 * MIB})).await.expect_status(200);
    let over = |seen: &Value| {
        let reason = seen["pending"]["reason"].as_str().unwrap_or_default();
        seen["limit_bytes"] == 96 * MIB && reason.contains("remove something first")
    };
    until(&anna.client, &anna.data, over).await;
    let preview = format!("{}/preview", anna.allowance);
    let told =
        olga.post(&preview, &json!({"data_bytes": 48 * MIB})).await.expect_status(200).json();
    let limits = told["over"][0]["limits"].as_array().expect("who would be over");
    assert!(limits.iter().any(|one| one["limit"] == "data_bytes"), "{told}");
    // Nothing is lost by a bound that goes.
    olga.delete(&anna.allowance).await.expect_status(200);
    holds(&anna, None).await;
    act(&anna.client, &id, "start").await.expect_status(200);
    in_status(&anna.client, &id, "running").await;
    let exec = json!({"program": {"command": ["sh", "-c", "cat /kept; busybox wc -c < /big"]}});
    let answer = anna.client.post(&path, &exec).await.expect_status(200).json();
    let text = answer["stdout"].as_str().unwrap_or_default();
    assert!(text.contains("kept") && text.contains(&(60 * MIB).to_string()), "{answer}");
}

#[tokio::test]
async fn a_bound_is_refused_that_the_disk_does_not_have() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = person(&server, "anna").await;
    // Each of these is 2 TiB and more than the disk of anybody who runs tests.
    let much = json!({"data_bytes": 1_u64 << 42});
    let refused = olga.put(&anna.allowance, &much).await;
    assert_eq!((refused.status, refused.code().as_str()), (507, "disk.room"), "{}", refused.text);
    let refused = olga.put("/api/v1/allowance", &much).await;
    assert_eq!((refused.status, refused.code().as_str()), (507, "disk.room"), "{}", refused.text);
    let groups = olga.get("/api/v1/groups").await.expect_status(200).json();
    let group = format!("/api/v1/groups/{}/allowance", groups["items"][0]["id"]);
    let refused = olga.put(&group, &json!({"data_bytes": 64 * MIB})).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    // Everybody's comes to who has none of their own, and before their first container to who is new.
    olga.put("/api/v1/allowance", &json!({"data_bytes": 40 * MIB})).await.expect_status(200);
    holds(&anna, Some(40)).await;
    let carla = person(&server, "carla").await;
    let id = run(&carla.client, "one", "sleep 1000", json!({})).await;
    in_status(&carla.client, &id, "running").await;
    holds(&carla, Some(40)).await;
}

/// Page faults of the supervisor's children that have ended (proc(5), `cminflt`): more with each process that it makes.
fn faults(server: &TestServer) -> u64 {
    let pid = server.supervisor_pid().expect("a supervisor");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    rest.split_whitespace().nth(8).and_then(|field| field.parse().ok()).expect("a number")
}

#[tokio::test]
async fn nobody_without_a_bound_costs_a_process_each_time_that_their_page_is_looked_at() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, bert) = (person(&server, "anna").await, person(&server, "bert").await);
    olga.put(&bert.allowance, &json!({"data_bytes": 64 * MIB})).await.expect_status(200);
    holds(&bert, Some(64)).await;
    holds(&anna, None).await;
    let before = faults(&server);
    for _ in 0..5 {
        anna.client.get("/home").await.expect_status(200);
        let seen = anna.client.get(&anna.data).await.expect_status(200).json();
        assert_eq!((&seen["way"], &seen["used_bytes"]), (&json!("shared"), &json!(null)), "{seen}");
    }
    assert_eq!(faults(&server), before, "a process was made");
    // The control: who has a bound is looked at by one.
    bert.client.get("/home").await.expect_status(200);
    assert!(faults(&server) > before, "no process was made");
}
