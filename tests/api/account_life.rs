//! The life of an account: that it ends when it was said to, with all that rests on it, and can be given back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use system_tests::containers::{identity, import, in_status, run, show, until};
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root};

/// What follows from an end is done this long after it.
const LIMIT: Duration = Duration::from_secs(20);

/// So many seconds from now, as the API takes a time.
fn in_secs(secs: u64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    json!((now + secs).to_string())
}

async fn path_of(person: &Client) -> String {
    format!("/api/v1/people/{}", person.get("/api/v1/me").await.json()["id"])
}

async fn status_within(client: &Client, path: &str, status: u16) -> bool {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if client.get(path).await.status == status {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Rows of the audit about somebody's account, or about what is theirs.
async fn audited(olga: &Client, action: &str) -> Vec<Value> {
    let rows = olga.get(&format!("/api/v1/audit?action={action}&limit=100")).await;
    rows.expect_status(200).json()["items"].as_array().expect("rows").clone()
}

#[tokio::test]
async fn an_account_ends_with_all_that_rests_on_it_and_can_be_given_back() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    import(&anna).await;
    import(&tom).await;
    let kept = run(
        &anna,
        "kept",
        "while :; do usleep 20000; done",
        json!({"restart": {"name": "always"}}),
    )
    .await;
    let frozen = run(&anna, "frozen", "sleep 7777", json!({})).await;
    anna.post(&format!("/api/v1/containers/{frozen}/pause"), &json!({})).await.expect_status(200);
    let idle = json!({"image": "berth/busybox:1", "name": "idle"});
    let never = anna.post("/api/v1/containers", &idle).await;
    let never = never.expect_status(201).json()["id"].as_str().expect("an id").to_owned();
    let other = run(&tom, "other", "sleep 7777", json!({})).await;
    let (pid, _) = identity(&anna, &kept).await;
    let token = anna.token("operate").await;
    let person = path_of(&anna).await;
    let mut stream = anna
        .request("GET", &format!("/api/v1/containers/{kept}/logs?follow=true"))
        .send()
        .await
        .expect("it opens");

    let ends = json!({"expires_at": in_secs(3)});
    let shown = olga.patch(&person, &ends).await.expect_status(200).json();
    assert!(shown["expires_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{shown}");
    // They are told, and all is as it was until then.
    assert_eq!(anna.get("/api/v1/me").await.json()["account_expires_at"], shown["expires_at"]);
    assert!(anna.get("/containers").await.text.contains("Your account ends in"));
    assert!(!tom.get("/containers").await.text.contains("Your account ends"), "the control");

    let control = "it was good until then, and another person's goes on";
    let check = |variant| Check { id: "A07", variant, control };
    check("a session, when its account has ended")
        .sees(true, status_within(&anna, "/api/v1/me", 401).await);
    check("a token, when its owner's account has ended")
        .sees(401, token.get("/api/v1/me").await.status);
    let over =
        tokio::time::timeout(LIMIT, async { while let Ok(Some(_)) = stream.chunk().await {} });
    check("a followed log, when its reader's account has ended").sees(true, over.await.is_ok());
    let again = server.sign_in("anna", PASSWORD).await;
    check("a new session, when the account has ended").sees(403, again.status);
    assert_eq!(again.code(), "session.refused");
    let invited = olga.post(&format!("{person}/invitation"), &json!({})).await;
    assert_eq!((invited.status, invited.code().as_str()), (409, "person.ended"));

    // What ran is stopped, never removed: the kernel has none of its processes.
    in_status(&olga, &kept, "exited").await;
    in_status(&olga, &frozen, "exited").await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its first program lives");
    assert_eq!(show(&olga, &never).await["status"], "created");
    identity(&tom, &other).await;
    let ended = audited(&olga, "person.expire").await;
    assert_eq!((ended.len(), &ended[0]["via"]), (1, &json!("policy")), "{ended:?}");
    let stops = audited(&olga, "container.stop").await;
    let by_policy = stops.iter().filter(|row| row["via"] == "policy");
    assert_eq!(by_policy.count(), 2, "each once: {stops:?}");
    // Nobody starts it meanwhile, and a restart of the server changes nothing.
    let start = olga.post(&format!("/api/v1/containers/{kept}/start"), &json!({})).await;
    assert_eq!((start.status, start.code().as_str()), (409, "person.ended"), "{}", start.text);
    server.kill_server();
    server.start_server().await;
    assert_eq!(show(&olga, &kept).await["status"], "exited");

    // A later end gives it back, with what was there.
    olga.patch(&person, &json!({"expires_at": ""})).await.expect_status(200);
    let back = server.sign_in("anna", PASSWORD).await.expect_status(201);
    let anna = server.anonymous().with_cookies_of(&back);
    anna.post(&format!("/api/v1/containers/{kept}/start"), &json!({})).await.expect_status(200);
    identity(&anna, &kept).await;
    assert_eq!(token.get("/api/v1/me").await.status, 401, "what has ended has ended");
}

#[tokio::test]
async fn an_end_that_comes_while_the_server_is_away_is_found_at_its_start() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "kept", "sleep 7777", json!({})).await;
    let (pid, _) = identity(&anna, &id).await;
    let at = Instant::now() + Duration::from_secs(2);
    let ends = json!({"expires_at": in_secs(2)});
    olga.patch(&path_of(&anna).await, &ends).await.expect_status(200);
    server.kill_server();
    tokio::time::sleep_until((at + Duration::from_millis(200)).into()).await;
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the control: it ran on");
    server.start_server().await;
    assert_eq!(anna.get("/api/v1/me").await.status, 401);
    in_status(&olga, &id, "exited").await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn the_end_of_an_account_is_an_operators_to_say_and_never_the_last_operators() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let olga = server.operator();
    let own = path_of(&olga).await;
    let last = olga.patch(&own, &json!({"expires_at": "2090-01-01"})).await;
    assert_eq!((last.status, last.code().as_str()), (409, "person.last-operator"));
    let second = server.person("second", "operator").await;
    let end = json!({"expires_at": "2090-01-01"});
    olga.patch(&own, &end).await.expect_status(200);
    // Of two operators the one who stays may not go.
    let page = path_of(&second).await;
    for body in [&end, &json!({"disabled": true}), &json!({"role": "user"})] {
        let refused = olga.patch(&page, body).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "person.last-operator"),
            "{body}"
        );
    }
    let anna = server.person("anna", "user").await;
    let hers = path_of(&anna).await;
    assert_eq!(anna.patch(&hers, &json!({"expires_at": ""})).await.status, 403);
    // Through the day that is named.
    let shown = olga.patch(&hers, &json!({"expires_at": "2090-01-31"})).await.expect_status(200);
    assert_eq!(shown.json()["expires_at"], "2090-02-01T00:00:00.000Z");
    let refused = olga.patch(&hers, &json!({"expires_at": "2020-01-31"})).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.text.contains("/expires_at") && refused.text.contains("is past"),
        "{}",
        refused.text
    );
    // No link outlives the account that it is for.
    let body = json!({"name": "kim", "role": "user", "expires_at": in_secs(3)});
    let kim = olga.post("/api/v1/people", &body).await.expect_status(201).json();
    assert_eq!(kim["invitation"]["expires_at"], kim["person"]["expires_at"]);
    let look = json!({"secret": kim["invitation"]["secret"]});
    server.anonymous().post("/api/v1/invitations/look", &look).await.expect_status(200);
    until(&olga, "/api/v1/audit?action=person.expire", |rows| rows["items"][0].is_object()).await;
    assert_eq!(server.anonymous().post("/api/v1/invitations/look", &look).await.status, 404);
}
