//! F15, many people: twenty of them at once, each with volumes, ports, files, shares, programs beside their
//! containers and something that goes wrong. Afterwards the appliance holds what it held, nobody's life
//! was another's, and what the inventory says is what the kernel shows.

use std::sync::Arc;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{self, act, in_status, log_with};
use system_tests::{Check, Client, Options, TestServer, is_long, reality, requires_root, times};

use crate::soak;

/// Who lives at once.
const PEOPLE: usize = 20;
/// Rows that one life may leave: what was done (audit) and what happened (events, operations).
const ROWS_PER_LIFE_MAX: u64 = 24;
/// Of lives.
const KINDS: usize = 7;
const COURSE: (&str, &str) = ("group", "course");

#[tokio::test]
async fn twenty_people_at_once_leave_nothing_and_harm_nobody() {
    requires_root!();
    let (lives, every) = if is_long() { (times(2000, 40), 100) } else { (times(2000, 40), 20) };
    let sections = "[containers]\nlog_file_bytes = 65536\nlog_files = 2\n\
                    [rates]\nchanges_per_min = 1000000\nperson_per_min = 1000000\n"
        .to_owned();
    let log = Some("warn".to_owned());
    let options = Options { log, sections, many_people: true, ..Default::default() };
    let server = TestServer::with(options).await;
    let people = Arc::new(class(&server).await);
    let live = move |number: usize| {
        let people = people.clone();
        async move { live(&people, number).await }
    };
    // Whoever has had a volume once has the folders that stay: one for each of them.
    let with_a_volume = live.clone();
    soak::side_by_side(PEOPLE, 0..PEOPLE, move |number| with_a_volume(number * KINDS)).await;
    let mut samples = vec![soak::look(&server, 0, 0).await];
    for first in (0..lives).step_by(every) {
        soak::side_by_side(PEOPLE, every + first..2 * every + first, live.clone()).await;
        samples.push(soak::look(&server, 0, first + every).await);
    }
    let control = format!("{lives} lives of {PEOPLE} people, all seen to begin and end");
    soak::compare(&samples, ROWS_PER_LIFE_MAX, &control);
    Check { id: "F15", variant: "what differs from the kernel", control: &control }
        .finds_nothing(&reality::disagreements(&server).await);
    let warned = server.server_log().lines().count();
    Check { id: "F15", variant: "warnings of the server, many people", control: &control }
        .sees(0, warned);
}

/// The people, all of one group, each with the image.
async fn class(server: &TestServer) -> Vec<Client> {
    let operator = server.operator();
    let made = operator.post("/api/v1/groups", &json!({"name": COURSE.1})).await;
    let members = format!("/api/v1/groups/{}/members", made.expect_status(201).json()["id"]);
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let name = name_of(number);
        let client = server.person(&name, "user").await;
        let member = json!({"name": name, "role": "member"});
        operator.put(&members, &member).await.expect_status(200);
        containers::import(&client).await;
        people.push(client);
    }
    people
}

fn name_of(number: usize) -> String {
    format!("person-{}", number % PEOPLE)
}

fn path(id: &str) -> String {
    format!("/api/v1/containers/{id}")
}

/// One life of somebody's, which one follows from its number; beside it whoever comes next in the class.
async fn live(people: &[Client], number: usize) {
    let (own, other) = (&people[number % PEOPLE], &people[(number + 1) % PEOPLE]);
    let name = format!("life-{number}");
    // Each of them meets each kind of life: both numbers have no divisor in common.
    let id = match number % KINDS {
        0 | 1 => keeps_a_volume(own, other, number).await,
        2 => serves_a_port(own, &name).await,
        3 => is_shared_with_the_course(own, other, &name).await,
        4 => has_a_program_beside_it(own, &name).await,
        5 => goes_over_its_memory(own, &name).await,
        _ => forks_without_end(own, other, &name).await,
    };
    let hidden = other.get(&path(&id)).await.status;
    assert_eq!(hidden, 404, "{name} is seen by another");
    own.delete(&format!("{}?force=true", path(&id))).await.expect_status(204);
}

/// A volume is filled by an upload, read by its owner's container and by one of whom it is shared with.
async fn keeps_a_volume(own: &Client, other: &Client, number: usize) -> String {
    let volume = format!("volume-{number}");
    let made = own.post("/api/v1/volumes", &json!({"name": volume})).await.expect_status(201);
    let volume = made.json()["id"].as_str().expect("an id").to_owned();
    let at = format!("/api/v1/volumes/{volume}");
    let content = own.request("PUT", &format!("{at}/files/content?path=/note"));
    let content = content.header("content-type", "application/octet-stream");
    send(content.body(format!("note {number}"))).await.expect_status(200);
    let grants = format!("{at}/grants");
    let share =
        json!({"kind": "person", "name": name_of(number + 1), "rights": ["state", "files"]});
    own.put(&grants, &share).await.expect_status(200);
    let mounted =
        |read_only| json!({"mounts": [{"volume": volume, "target": "/v", "read_only": read_only}]});
    let reads = "cat /v/note; echo; echo no > /v/other && echo wrote; echo over; sleep 1000";
    let theirs = containers::run(other, &format!("guest-{number}"), reads, mounted(true)).await;
    let told = log_with(other, &theirs, "over").await;
    assert!(told.contains(&format!("note {number}")) && !told.contains("wrote"), "{told}");
    let writes = format!("echo more >> /v/note; cat /v/note; echo says {number}");
    let id = containers::run(own, &format!("life-{number}"), &writes, mounted(false)).await;
    log_with(own, &id, &format!("says {number}")).await;
    in_status(own, &id, "exited").await;
    other.delete(&format!("{}?force=true", path(&theirs))).await.expect_status(204);
    own.delete(&path(&id)).await.expect_status(204);
    own.delete(&at).await.expect_status(204);
    other.get(&at).await.expect_status(404);
    containers::run(own, &format!("life-{number}"), "true", json!({})).await
}

async fn serves_a_port(own: &Client, name: &str) -> String {
    let wanted = json!({"ports": [{"container_port": 8080}]});
    let id = containers::run(own, name, "echo serves; sleep 1000", wanted).await;
    log_with(own, &id, "serves").await;
    act(own, &id, "restart").await.expect_status(200);
    let shown = in_status(own, &id, "running").await;
    assert!(shown["ports"][0]["host_port"].is_u64(), "{shown}");
    id
}

async fn is_shared_with_the_course(own: &Client, other: &Client, name: &str) -> String {
    let id = containers::run(own, name, "echo to be seen; sleep 1000", json!({})).await;
    other.get(&path(&id)).await.expect_status(404);
    let grants = format!("{}/grants", path(&id));
    let share = json!({"kind": COURSE.0, "name": COURSE.1, "rights": ["logs"]});
    own.put(&grants, &share).await.expect_status(200);
    log_with(other, &id, "to be seen").await;
    let refused = other.post(&format!("{}/stop", path(&id)), &Value::Null).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let end = format!("{grants}?kind={}&name={}", COURSE.0, COURSE.1);
    own.delete(&end).await.expect_status(204);
    id
}

async fn has_a_program_beside_it(own: &Client, name: &str) -> String {
    let id = containers::run(own, name, "sleep 1000", json!({})).await;
    let program = json!({"program": {"command": ["sh", "-c", "echo beside; exit 3"]}});
    let ran = own.post(&format!("{}/exec", path(&id)), &program).await.expect_status(200).json();
    assert_eq!((&ran["stdout"], &ran["exit_code"]), (&json!("beside\n"), &json!(3)), "{ran}");
    act(own, &id, "stop").await.expect_status(200);
    id
}

async fn goes_over_its_memory(own: &Client, name: &str) -> String {
    let little = json!({"limits": {"memory_bytes": 16 << 20, "swap_bytes": 0}});
    let id = containers::run(own, name, "exec tail /dev/zero", little).await;
    let ended = in_status(own, &id, "exited").await;
    assert_eq!(ended["status_text"], "killed: out of memory at its limit of 16 MiB", "{ended}");
    id
}

/// Whose neighbour's list and start are answered meanwhile.
async fn forks_without_end(own: &Client, other: &Client, name: &str) -> String {
    let few = json!({"limits": {"pids": 32}});
    let bomb = "f() { f | f & }; (f) & exec sleep 1000";
    let id = containers::run(own, name, bomb, few).await;
    other.get("/api/v1/containers").await.expect_status(200);
    act(own, &id, "kill").await.expect_status(200);
    id
}
