//! What operators and auditors oversee: the audit and its files, people's ways in, the host, the
//! registries; and that none of it shows content or reaches those who are neither.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Client, Options, TestServer, image, requires_root};

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

async fn items(client: &Client, path: &str) -> Vec<Value> {
    let answer = client.get(path).await.expect_status(200).json();
    answer["items"].as_array().expect("items").clone()
}

async fn id_of(client: &Client) -> Value {
    client.get("/api/v1/me").await.json()["id"].clone()
}

#[tokio::test]
async fn the_audit_is_narrowed_by_who_what_whose_result_and_time() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let body = json!({"image": "127.0.0.1:1/none:latest", "name": "web"});
    let made = anna.post("/api/v1/containers", &body).await.json();
    let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
    olga.patch(&path, &json!({"name": "renamed"})).await.expect_status(200);
    assert_eq!(tom.patch(&path, &json!({"name": "mine"})).await.status, 404);
    let one = |rows: &[Value]| {
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].clone()
    };
    let row = one(&items(&olga, "/api/v1/audit?action=container.change").await);
    assert_eq!((&row["actor_name"], &row["owner_name"]), (&json!("olga"), &json!("anna")));
    assert_eq!((&row["outcome"], &row["address"]), (&json!("done"), &json!("127.0.0.1")));
    assert_eq!(row["subject"], made["id"]);
    assert!(row["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{row}");
    let filtered =
        format!("/api/v1/audit?owner={}&actor=olga&action=container.*", id_of(&anna).await);
    one(&items(&olga, &filtered).await);
    let subject = format!("/api/v1/audit?subject={}", made["id"].as_str().expect("an id"));
    assert_eq!(items(&olga, &subject).await.len(), 2, "made and renamed");
    // Refusals are written in a moment.
    let deadline = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        let rows = items(&olga, "/api/v1/audit?actor=tom&outcome=refused").await;
        if !rows.is_empty() {
            break one(&rows);
        }
        assert!(Instant::now() < deadline, "the refusal is not audited");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        (&refused["outcome"], &refused["action"]),
        (&json!("not-found"), &json!("PATCH /api/v1/containers/{id}"))
    );
    assert!(items(&olga, "/api/v1/audit?until=2020-01-01T00:00:00Z").await.is_empty());
    assert!(!items(&olga, "/api/v1/audit?since=2020-01-01T00:00:00Z").await.is_empty());
    assert_eq!(olga.get("/api/v1/audit?since=yesterday").await.status, 422);
    let hostile = items(&olga, "/api/v1/audit?actor=%27%20or%201%3D1--").await;
    assert!(hostile.is_empty(), "text is never SQL");
}

#[tokio::test]
async fn exports_hold_every_row_and_nobody_elses() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    for (client, name) in [(&anna, "hers"), (&tom, "his")] {
        let body = json!({"image": "127.0.0.1:1/none:latest", "name": name});
        let made = client.post("/api/v1/containers", &body).await.json();
        let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
        client.patch(&path, &json!({"name": format!("{name}-now")})).await.expect_status(200);
    }
    let answer = olga.get("/api/v1/audit/export?action=person.*").await.expect_status(200);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"audit.csv\"");
    let lines: Vec<&str> = answer.text.split_terminator("\r\n").collect();
    assert!(lines[0].starts_with("at,actor,actor_name,via,action,"), "{}", lines[0]);
    let listed = items(&olga, "/api/v1/audit?action=person.*&limit=500").await;
    assert_eq!(lines.len() - 1, listed.len(), "{}", answer.text);
    let answer = olga.get("/api/v1/audit/export?format=json&action=person.*").await;
    let rows: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows, listed);
    // Events of one's own, and of everybody to those who oversee.
    let path = "/api/v1/events/export?format=json&kind=container.changed";
    let own = anna.get(path).await.expect_status(200).text;
    assert!(own.contains("hers-now") && !own.contains("his-now"), "{own}");
    let all = olga.get(path).await.expect_status(200).text;
    assert!(all.contains("hers-now") && all.contains("his-now"), "{all}");
}

#[tokio::test]
async fn ways_in_are_counted_and_ended_and_never_shown() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    let token = anna.token("read").await;
    let path = format!("/api/v1/people/{}/access", id_of(&anna).await);
    let seen = olga.get(&path).await.expect_status(200);
    let counted = seen.json();
    assert_eq!((&counted["sessions"], &counted["tokens"]), (&json!(1), &json!(1)), "{counted}");
    assert_eq!(counted["registry_logins"], 0);
    assert_eq!(anna.get(&path).await.expect_status(200).json()["tokens"], 1, "one's own, too");
    let tom = server.person("tom", "user").await;
    assert_eq!(tom.get(&path).await.status, 404);
    olga.delete(&path).await.expect_status(204);
    assert_eq!(anna.get("/api/v1/me").await.status, 401);
    assert_eq!(token.get("/api/v1/me").await.status, 401);
    let after = olga.get(&path).await.json();
    assert_eq!((&after["sessions"], &after["tokens"]), (&json!(0), &json!(0)));
    // The control: others stay, and she may sign in again.
    assert_eq!(tom.get("/api/v1/me").await.status, 200);
    server.sign_in("anna", system_tests::instance::PASSWORD).await.expect_status(201);
}

#[tokio::test]
async fn the_doctor_is_asked_through_the_supervisor_and_seldom() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let report = olga.get("/api/v1/system/doctor").await.expect_status(200).json();
    let checks = report["checks"].as_array().expect("checks");
    let kernel =
        checks.iter().find(|check| check["id"] == "kernel.version").expect("the kernel's check");
    assert_eq!(kernel["status"], "ok", "{kernel}");
    for check in checks {
        let lacking = check["status"] != "ok";
        assert_eq!(check["mend"] != "", lacking, "a lack says how to mend it: {check}");
    }
    // A second question is answered from the first; one for a new look is not.
    let again = olga.get("/api/v1/system/doctor").await.json();
    assert_eq!(again["at"], report["at"]);
    let fresh = olga.get("/api/v1/system/doctor?fresh=true").await.json();
    assert_ne!(fresh["at"], report["at"]);
    let facts = olga.get("/api/v1/system/facts").await.expect_status(200).json();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    assert_eq!(facts["host"]["kernel"], release.trim());
    assert_eq!(facts["limits"]["containers_per_person"], 200);
    assert!(facts["supervisor"]["version"].is_string(), "{facts}");
    server.kill_supervisor();
    let facts = olga.get("/api/v1/system/facts").await.expect_status(200).json();
    assert!(facts["supervisor"].is_null(), "{facts}");
    assert_eq!(olga.get("/api/v1/system/doctor?fresh=true").await.status, 503);
}

#[tokio::test]
async fn only_configured_registries_are_asked_and_the_answer_is_said() {
    requires_root!();
    // Something that answers, though not as a registry does: the appliance itself.
    let silent = "127.0.0.1:1";
    let sections = format!("[registries]\nallowed = [\"{silent}\"]\ninsecure = [\"{silent}\"]\n");
    let server = TestServer::with(Options { sections, ..plain() }).await;
    let olga = server.operator();
    let policy = olga.get("/api/v1/system/registries").await.expect_status(200).json();
    assert_eq!((&policy["allowed"], &policy["insecure"]), (&json!([silent]), &json!([silent])));
    let path = "/api/v1/system/registries/check";
    let said = olga.post(path, &json!({"registry": silent})).await.expect_status(200).json();
    assert_eq!((&said["answers"], &said["status"]), (&json!(false), &json!(null)), "{said}");
    assert!(said["problem"].as_str().is_some_and(|text| text.contains("127.0.0.1")), "{said}");
    for other in ["docker.io", "127.0.0.1:22", "localhost"] {
        let refused = olga.post(path, &json!({"registry": other})).await;
        assert_eq!(refused.status, 422, "{other}: {}", refused.text);
    }
}

#[tokio::test]
async fn the_servers_own_warnings_are_the_operators() {
    requires_root!();
    // Without a supervisor the server has something to warn of.
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let deadline = Instant::now() + Duration::from_secs(30);
    let warnings = loop {
        let warnings = items(&olga, "/api/v1/system/warnings").await;
        if !warnings.is_empty() {
            break warnings;
        }
        assert!(Instant::now() < deadline, "no warning is kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(warnings.iter().all(|warning| warning["at"].is_string()), "{warnings:?}");
    let auditor = server.person("audit", "auditor").await;
    assert_eq!(auditor.get("/api/v1/system/warnings").await.status, 403);
}

#[tokio::test]
async fn lists_are_narrowed_to_one_owner() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    for (client, content) in [(&anna, b"hers".as_slice()), (&tom, b"his".as_slice())] {
        image::import(client, image::archive("lab/app:v1", &[("content", 0o644, content)])).await;
    }
    let (hers, his) = (id_of(&anna).await, id_of(&tom).await);
    assert_eq!(items(&olga, "/api/v1/images").await.len(), 2);
    let of_hers = items(&olga, &format!("/api/v1/images?owner={hers}")).await;
    assert!(of_hers.len() == 1 && of_hers[0]["owner"] == hers, "{of_hers:?}");
    assert!(items(&tom, &format!("/api/v1/images?owner={hers}")).await.is_empty());
    assert_eq!(items(&tom, &format!("/api/v1/images?owner={his}")).await.len(), 1);
}
