//! The server's log as JSON: an object a line whatever people send, with who asked for what, and no secret.

use serde_json::{Value, json};
use system_tests::instance::PASSWORD;
use system_tests::{Options, TestServer, requires_root};

fn lines(server: &TestServer) -> Vec<Value> {
    let log = server.server_log();
    let parse = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(value) if value.is_object() => value,
        other => panic!("{line:?} is no object: {other:?}"),
    };
    log.lines().map(parse).collect()
}

/// The line of one answer, which is written before the answer goes out.
fn line_of(server: &TestServer, request_id: &str) -> Value {
    let all = lines(server);
    let found: Vec<_> = all.iter().filter(|line| line["request_id"] == request_id).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[tokio::test]
async fn a_log_in_json_is_an_object_a_line_with_who_asked_for_what_and_no_secret() {
    requires_root!();
    let options = |lines: &str| Options {
        no_supervisor: true,
        log: Some("info".to_owned()),
        server: lines.to_owned(),
        ..Options::default()
    };
    let server = TestServer::with(options("log_format = \"json\"")).await;
    let anna = server.person("anna", "user").await;
    let id = anna.get("/api/v1/me").await.json()["id"].clone();
    let token = json!({"name": "made", "scope": "read", "days": 1});
    let token = anna.post("/api/v1/tokens", &token).await.expect_status(201).json();
    let secret = token["secret"].as_str().expect("a secret");

    let missing = anna.get("/api/v1/containers/nothing?q=%0A%7B%22level%22:1%7D").await;
    let request_id = missing.header("x-request-id").to_owned();
    let line = line_of(&server, &request_id);
    assert_eq!((&line["person"], &line["status"]), (&id, &json!(missing.status)), "{line}");
    assert_eq!(
        (&line["route"], &line["method"]),
        (&json!("/api/v1/containers/{id}"), &json!("GET"))
    );
    assert!(line["duration_ms"].is_u64() && line["level"] == "DEBUG", "{line}");
    assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");

    // What strangers send makes no line of its own, and is nobody's.
    let forged = "x\n{\"level\":\"ERROR\",\"message\":\"forged\"}\r\n";
    let refused = server.sign_in(forged, PASSWORD).await;
    let request_id = refused.header("x-request-id").to_owned();
    assert_eq!(line_of(&server, &request_id)["person"], json!(null));
    server.anonymous().get("/%0A%7B%22message%22:%22forged%22%7D").await;
    let all = lines(&server);
    assert!(all.iter().all(|line| line["message"] != "forged"), "a line was forged");
    let log = server.server_log();
    for kept in [PASSWORD, secret] {
        assert!(!log.contains(kept), "a secret is in the log");
    }

    // The control: as text it is no JSON, and tells of no answer unless it is asked to.
    let server = TestServer::with(options("")).await;
    server.anonymous().get("/api/v1/me").await;
    let log = server.server_log();
    assert!(!log.is_empty() && !log.contains("answered"), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_err()), "{log}");
}
