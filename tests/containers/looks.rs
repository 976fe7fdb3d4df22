//! An operator's look into somebody else's container: nothing without it, reading alone with it, told to the owner,
//! over when it is ended.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::containers::{import, in_status, log_with, run};
use system_tests::{Check, Client, TestServer, requires_root};

const LIMIT: Duration = Duration::from_secs(10);

/// One act each, as the operator meets it: what is read, then what would change something.
async fn tries(client: &Client, id: &str) -> Vec<(&'static str, u16)> {
    let path = format!("/api/v1/containers/{id}");
    let shown = client.get(&path).await.json();
    let content = if shown["content"].is_null() { 403 } else { 200 };
    let exec = json!({"program": {"command": ["true"]}});
    let grant = json!({"kind": "person", "name": "olga", "rights": ["terminal"]});
    vec![
        ("environment", content),
        ("logs", client.get(&format!("{path}/logs")).await.status),
        ("files", client.get(&format!("{path}/files?path=/bin")).await.status),
        ("exec", client.post(&format!("{path}/exec"), &exec).await.status),
        (
            "changed files",
            client.post(&format!("{path}/files/folder"), &json!({"path": "/new"})).await.status,
        ),
        ("a share to oneself", client.put(&format!("{path}/grants"), &grant).await.status),
    ]
}

#[tokio::test]
async fn an_operator_looks_into_content_with_a_reason_that_the_owner_reads() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    let bert = server.person("bert", "user").await;
    import(&anna).await;
    let id =
        run(&anna, "mine", "echo from-inside; sleep 1000", json!({"env": {"KEY": "value"}})).await;
    in_status(&anna, &id, "running").await;
    log_with(&anna, &id, "from-inside").await;
    let looks = format!("/api/v1/containers/{id}/looks");
    // The control: without a look, nothing of it.
    let before = tries(&olga, &id).await;
    assert!(before.iter().all(|(_, status)| *status == 403), "{before:?}");
    // A reason is asked for, and nobody else may.
    assert_eq!(olga.post(&looks, &json!({"reason": "  "})).await.status, 422);
    assert_eq!(olga.post(&looks, &json!({"reason": "z".repeat(501)})).await.status, 422);
    olga.post(&looks, &json!({"reason": "z".repeat(500)})).await.expect_status(201);
    olga.delete(&looks).await.expect_status(204);
    assert_eq!(anna.post(&looks, &json!({"reason": "mine"})).await.status, 403);
    assert_eq!(bert.get(&looks).await.status, 404);
    let reason = "it sends mail by the thousand";
    let made = olga.post(&looks, &json!({"reason": reason})).await.expect_status(201).json();
    assert_eq!(made["operator"], "olga", "{made}");
    let during = tries(&olga, &id).await;
    for (act, status) in &during {
        let reads = matches!(*act, "environment" | "logs" | "files");
        let check = Check { id: "A04", variant: act, control: "refused without the look" };
        let expected = if reads { "200" } else { "403" };
        assert!(check.notes(expected, status.to_string()), "{during:?}");
    }
    // Another's container is as it was.
    let other = run(&anna, "other", "sleep 1000", json!({})).await;
    assert_eq!(olga.get(&format!("/api/v1/containers/{other}/logs")).await.status, 403);
    // The owner is told who and why: in the list, in the events, in the container's story.
    let told = anna.get(&looks).await.expect_status(200).json();
    assert_eq!(told["items"][0]["reason"], reason, "{told}");
    let events = anna.get("/api/v1/events").await.expect_status(200).text;
    assert!(events.contains(reason), "{events}");
    let story =
        anna.get(&format!("/api/v1/containers/{id}/activity")).await.expect_status(200).text;
    assert!(story.contains(reason), "{story}");
    let audit = olga.get("/api/v1/audit?action=container.look").await.expect_status(200).text;
    assert!(audit.contains(&id), "{audit}");
    // Its end ends what rests on it.
    let followed = follow(&olga, &id);
    let end = async {
        log_with(&anna, &id, "from-inside").await;
        olga.delete(&looks).await.expect_status(204);
    };
    let (followed, ()) = tokio::join!(tokio::time::timeout(LIMIT, followed), end);
    assert!(followed.is_ok(), "the log is followed on after the look");
    let after = tries(&olga, &id).await;
    assert!(after.iter().all(|(_, status)| *status == 403), "{after:?}");
    let told = anna.get(&looks).await.expect_status(200).json();
    assert_eq!(told["items"].as_array().map(Vec::len), Some(2), "{told}");
    // One's own is read without.
    import(&olga).await;
    let own = run(&olga, "own", "true", Value::Null).await;
    let path = format!("/api/v1/containers/{own}/looks");
    assert_eq!(olga.post(&path, &json!({"reason": reason})).await.status, 409);
}

/// Follows the log to its end.
async fn follow(client: &Client, id: &str) {
    let path = format!("/api/v1/containers/{id}/logs?follow=true");
    let mut stream = client.request("GET", &path).send().await.expect("an answer");
    while let Ok(Some(_)) = stream.chunk().await {}
}
