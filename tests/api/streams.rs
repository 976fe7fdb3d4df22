//! W02: streams open only for those who may, and end when they may no more.

use std::time::Duration;

use serde_json::json;
use system_tests::client::send;
use system_tests::{Check, Client, Options, TestServer, requires_root};

/// A stream must be over this long after its reader's right is.
const LIMIT: Duration = Duration::from_secs(5);

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

#[tokio::test]
async fn no_stream_opens_from_another_site_or_without_a_session() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let path = "/api/v1/events/stream";
    for (header, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        let answer = send(anna.raw("GET", path).header(header, value)).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "request.cross-site"), "{value}");
    }
    assert_eq!(server.anonymous().get(path).await.status, 401);
    let answer = anna.head_of(anna.request("GET", path)).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
}

#[tokio::test]
async fn a_stream_ends_with_its_readers_right() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();

    let anna = server.person("anna", "user").await;
    let stream = open(&anna).await;
    let body = json!({"disabled": true});
    olga.patch(&person_path(&anna).await, &body).await.expect_status(200);
    ended(stream, "its person was disabled").await;

    let berta = server.person("berta", "user").await;
    let stream = open(&berta).await;
    berta.delete("/api/v1/me/session").await.expect_status(204);
    ended(stream, "its session was ended").await;

    let carla = server.person("carla", "user").await;
    let token = carla.token("read").await;
    let stream = open(&token).await;
    let tokens = carla.get("/api/v1/tokens").await.json();
    let id = tokens["items"][0]["id"].as_str().expect("a token").to_owned();
    carla.delete(&format!("/api/v1/tokens/{id}")).await.expect_status(204);
    ended(stream, "its token was ended").await;

    let dora = server.person("dora", "auditor").await;
    let stream = open(&dora).await;
    let body = json!({"role": "user"});
    olga.patch(&person_path(&dora).await, &body).await.expect_status(200);
    ended(stream, "its person has another role").await;

    // The control: somebody else's stream lives through all of that, and through the server's stop
    // none does.
    let emma = server.person("emma", "user").await;
    let mut stream = open(&emma).await;
    let frida = server.person("frida", "user").await;
    frida.delete("/api/v1/me/session").await.expect_status(204);
    let still = tokio::time::timeout(Duration::from_millis(500), stream.chunk()).await;
    assert!(still.is_err(), "a stream ended that had no reason to: {still:?}");
    server.stop_server();
    ended(stream, "the server stopped").await;
}

async fn open(client: &Client) -> reqwest::Response {
    let request = client.request("GET", "/api/v1/events/stream");
    let response = request.send().await.expect("the server answers");
    assert_eq!(response.status(), 200);
    response
}

async fn ended(mut stream: reqwest::Response, why: &str) {
    let end = async { while let Ok(Some(_)) = stream.chunk().await {} };
    let over = tokio::time::timeout(LIMIT, end).await.is_ok();
    let control = "another's stream lives through all of it";
    Check { id: "A07", variant: &format!("a stream, when {why}"), control }.sees(true, over);
}

async fn person_path(client: &Client) -> String {
    format!("/api/v1/people/{}", client.get("/api/v1/me").await.json()["id"])
}
