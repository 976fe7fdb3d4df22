//! A whole course, from the first day to a broken disk: thirty people from a table, a bound for all of them together,
//! data for them to read, somebody's work on a port with a volume, somebody else's harm beside it, who did it, their leaving, a backup, a
//! damaged inventory, and the work that has gone on all the time.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{
    act, identity, import, in_status, log_with, ready, run, show, until,
};
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root};

use crate::backup::{back_up, good, restore};

/// Who takes part.
const STUDENTS: usize = 30;
/// How soon the work must answer, whatever happens beside it.
const PATIENCE: Duration = Duration::from_secs(5);
/// What every Debian has to be read.
const DATA: &str = "/usr/share/common-licenses";
/// A site of what the volume holds, and of a file of the data set.
const SITE: &str =
    "busybox cp /licenses/GPL-3 /site/data.txt; exec busybox httpd -f -p 8080 -h /site";

#[tokio::test]
async fn a_course_lives_on_one_machine() {
    requires_root!();
    let sections =
        format!("[runtime.data_sets.licenses]\npath = {DATA:?}\ngroups = [\"course\"]\n");
    let server =
        TestServer::with(Options { sections, many_people: true, ..Options::default() }).await;
    let operator = server.operator();
    let (group, invitations) = enrol(&operator).await;
    let kim = accept(&server, &invitations[0]).await;
    let lee = accept(&server, &invitations[1]).await;
    let (work, port) = publish(&kim).await;
    let before = identity(&kim, &work).await;
    assert_eq!(read(port, "").await.as_deref(), Some("first results"));
    let data = read(port, "data.txt").await.unwrap_or_default();
    assert!(data.contains("GNU GENERAL PUBLIC LICENSE"), "of the data set: {data:.100}");

    do_harm(&lee, &work).await;
    let check = |variant, control| Check { id: "A02", variant, control };
    check("a neighbour's work beside a course mate's harm", "the harm was seen to happen")
        .sees("first results", read(port, "").await.unwrap_or_default());
    assert_eq!(identity(&kim, &work).await, before, "it was hurt");
    who_did_it(&operator).await;

    take_off(&operator, &lee).await;
    let file = back_up(&server, "course.tar.gz", &[]);
    server.stop_server();
    let inventory = server.data_dir().join("db/berth.db");
    let whole = fs::metadata(&inventory).expect("the inventory").len();
    fs::write(&inventory, vec![0xa5; usize::try_from(whole).expect("it fits")]).expect("break it");
    let refused = server.try_start_server().await;
    assert!(refused.is_some_and(|status| !status.success()), "it serves from a broken inventory");
    let restored = restore(&server, &file, &["--replace"]);
    good(&restored);
    server.start_server().await;
    ready(&server).await;
    let after = in_status(&kim, &work, "running").await;
    assert_eq!(identity(&kim, &work).await, before, "{after}");
    assert_eq!(read(port, "").await.as_deref(), Some("first results"));
    let people = operator.get("/api/v1/people?limit=100").await.expect_status(200).json();
    let people = people["items"].as_array().expect("people").len();
    // The operator herself among them, and not whoever has left.
    assert_eq!(people, STUDENTS, "{people}");
    let shown = operator.get(&group).await.expect_status(200).json();
    assert_eq!(shown["name"], "course", "{shown}");
    assert_eq!(operator.get("/api/v1/audit/verify").await.json()["state"], "whole");
}

/// A group with a bound, and its people from a table, first looked at and then added; the group's path, and the secrets of their invitations.
async fn enrol(operator: &Client) -> (String, Vec<String>) {
    let made = operator.post("/api/v1/groups", &json!({"name": "course", "note": "spring"})).await;
    let group = format!("/api/v1/groups/{}", made.expect_status(201).json()["id"]);
    let bound =
        json!({"pids": 300, "memory_bytes": 256 << 20, "swap_bytes": 0, "containers_max": 60});
    operator.put(&format!("{group}/allowance"), &bound).await.expect_status(200);
    let mut csv = "name,group,expires\n".to_owned();
    for number in 0..STUDENTS {
        csv += &format!("student-{number:02},course,2090-07-31\n");
    }
    let look = json!({"csv": csv, "dry_run": true});
    let seen = operator.post("/api/v1/people/import", &look).await.expect_status(200).json();
    assert_eq!(seen["people"], json!(STUDENTS), "{seen}");
    let wish = json!({"csv": csv, "dry_run": false});
    let done = operator.post("/api/v1/people/import", &wish).await.expect_status(201).json();
    let secret = |added: &Value| added["invitation"]["secret"].as_str().expect("one").to_owned();
    let invitations = done["added"].as_array().expect("people").iter().map(secret).collect();
    (group, invitations)
}

async fn accept(server: &TestServer, secret: &str) -> Client {
    let body = json!({"secret": secret, "password": PASSWORD});
    let signed_in = server.anonymous().post("/api/v1/invitations/accept", &body).await;
    let client = server.anonymous().with_cookies_of(&signed_in.expect_status(201));
    import(&client).await;
    client
}

/// A site on a leased port, of what was put into a volume; the container and its port.
async fn publish(kim: &Client) -> (String, u64) {
    let made = kim.post("/api/v1/volumes", &json!({"name": "results"})).await.expect_status(201);
    let volume = made.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/volumes/{volume}/files/content?path=/index.html");
    let upload = kim.request("PUT", &path).header("content-type", "application/octet-stream");
    send(upload.body("first results")).await.expect_status(200);
    let more = json!({"mounts": [{"volume": "results", "target": "/site"}],
        "ports": [{"container_port": 8080}], "restart": {"name": "always"},
        "data_sets": [{"name": "licenses", "target": "/licenses"}],
        "limits": {"pids": 40, "memory_bytes": 64 << 20}});
    let id = run(kim, "site", SITE, more).await;
    let shown = in_status(kim, &id, "running").await;
    (id, shown["ports"][0]["host_port"].as_u64().expect("a port"))
}

/// What the site says, asked again until it does or the patience is over.
async fn read(port: u64, path: &str) -> Option<String> {
    let http = system_tests::client::builder().build().expect("a client");
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(answer) = http.get(format!("http://127.0.0.1:{port}/{path}")).send().await {
            return answer.text().await.ok();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// Memory until the kernel ends it, forks until they are refused, and hands on what is another's.
async fn do_harm(lee: &Client, work: &str) {
    let greedy = json!({"limits": {"memory_bytes": 32 << 20, "swap_bytes": 0}});
    let id = run(lee, "greedy", "exec tail /dev/zero", greedy).await;
    in_status(lee, &id, "exited").await;
    let bomb = "f() { f | f & }; (f; f) & echo forks; exec sleep 100000";
    let bomb = run(lee, "bomb", bomb, json!({"limits": {"pids": 64}})).await;
    log_with(lee, &bomb, "forks").await;
    let refused = |text: &str| text.split_whitespace().nth(1).is_some_and(|count| count != "0");
    let pids = show(lee, &bomb).await["cgroup"]["pids"].as_str().expect("a cgroup").to_owned();
    let events = || fs::read_to_string(format!("{pids}/pids.events")).unwrap_or_default();
    let begun = Instant::now();
    while !refused(&events()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no fork was refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for verb in ["stop", "kill", "restart"] {
        assert_eq!(act(lee, work, verb).await.status, 404, "{verb}");
    }
    assert_eq!(lee.delete(&format!("/api/v1/containers/{work}?force=true")).await.status, 404);
    let stolen = json!({"mounts": [{"volume": "student-00/results", "target": "/site"}],
        "image": system_tests::containers::IMAGE, "command": ["true"]});
    assert_eq!(lee.post("/api/v1/containers", &stolen).await.status, 422);
}

/// The operator finds it: what the kernel ended, and whose it was.
async fn who_did_it(operator: &Client) {
    let path = "/api/v1/audit?owner=student-01&action=container.oom-kill";
    let found = until(operator, path, |found| found["items"][0].is_object()).await;
    let row = &found["items"][0];
    assert_eq!(
        (&row["via"], &row["owner_name"]),
        (&json!("kernel"), &json!("student-01")),
        "{row}"
    );
    let tried = operator.get("/api/v1/audit?actor=student-01&limit=200").await;
    let tried = tried.expect_status(200).json();
    let rows = tried["items"].as_array().expect("rows");
    let denied = rows.iter().filter(|row| row["outcome"] != "done").count();
    assert!(denied >= 4, "acts on what is another's: {tried}");
}

/// Whoever did harm leaves, with everything of theirs.
async fn take_off(operator: &Client, lee: &Client) {
    let id = lee.get("/api/v1/me").await.expect_status(200).json()["id"].to_string();
    let path = format!("/api/v1/people/{id}/offboarding");
    operator.post(&path, &json!({"things": "delete"})).await.expect_status(202);
    let gone = until(operator, &path, |view| view["state"] == "ended").await;
    assert_eq!(gone["has_account"], false, "{gone}");
    assert_eq!(lee.get("/api/v1/me").await.status, 401);
}
