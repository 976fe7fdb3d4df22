//! A05, A07 and W02 beside `credentials.rs`, `names.rs` and `streams.rs`: crowds at the sign-in,
//! sessions that somebody else has chosen, every stream, and names by the thousand.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::client::send;
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Dice, Options, TestServer, requires_root, times};

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_the_sign_in_costs_the_memory_of_one() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let pid = server.server_pid().expect("it runs");
    // The control: one derivation, whose memory the server has had once before it is measured.
    server.sign_in("nobody", "wrong wrong wrong").await.expect_status(403);
    let before = resident(pid);
    let crowd: Vec<_> = (0..times(200, 50))
        .map(|number| {
            let client = server.anonymous();
            let body = json!({"name": format!("name{number}"), "password": "wrong wrong wrong"});
            tokio::spawn(async move { client.post("/api/v1/sessions", &body).await.status })
        })
        .collect();
    let (mut most, mut slowest) = (0, Duration::ZERO);
    while crowd.iter().any(|one| !one.is_finished()) {
        most = most.max(resident(pid).saturating_sub(before));
        let began = Instant::now();
        olga.get("/api/v1/me").await.expect_status(200);
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for one in crowd {
        let status = one.await.expect("it answers");
        assert!(matches!(status, 403 | 429 | 503), "{status}");
    }
    let control = "one derivation takes 19 MiB, of 200 at once each would have its own";
    let seen = if most < 96 << 20 { "bounded".to_owned() } else { format!("{most} bytes") };
    Check { id: "A07", variant: "many sign-ins at once: memory", control }.sees("bounded", seen);
    let seen =
        if slowest < Duration::from_secs(2) { "served".to_owned() } else { format!("{slowest:?}") };
    Check { id: "A07", variant: "many sign-ins at once: others", control }.sees("served", seen);
    // Known browsers and people still come in.
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.sign_in("olga", PASSWORD).await.status != 201 {
        assert!(Instant::now() < deadline, "nobody comes in any more");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_session_that_somebody_else_has_chosen_is_never_entered() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let eve = server.person("eve", "user").await;
    server.person("anna", "user").await;
    let session = |cookie: &str| {
        let pair = cookie.split("; ").find(|pair| pair.contains("_session=")).expect("a session");
        pair.to_owned()
    };
    let name = session(eve.cookie()).split('=').next().expect("a name").to_owned();
    for planted in [session(eve.cookie()), format!("{name}=chosen-by-eve"), format!("{name}=")] {
        let request = server.anonymous().raw("POST", "/api/v1/sessions").header("cookie", &planted);
        let request = request.header("sec-fetch-site", "same-origin");
        let body = json!({"name": "anna", "password": PASSWORD});
        let answer = send(request.json(&body)).await.expect_status(201);
        let anna = server.anonymous().with_cookies_of(&answer);
        let fresh = if session(anna.cookie()) == planted { "the planted one" } else { "a new one" };
        let control = "the planted cookie was sent with the sign-in";
        Check { id: "A07", variant: "a session chosen before the sign-in", control }
            .sees("a new one", fresh);
        let me = server.anonymous().with_cookie(&planted).get("/api/v1/me").await;
        let whose = if me.status == 200 { me.json()["name"].to_string() } else { "nobody".into() };
        assert!(!whose.contains("anna"), "the planted session is anna's now");
    }
}

#[tokio::test]
async fn no_stream_opens_from_another_site_without_a_session_or_of_another() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    system_tests::containers::import(&anna).await;
    let id = system_tests::containers::run(&anna, "streams", "sleep 600", json!({})).await;
    let operation = anna.get("/api/v1/operations").await.json()["items"][0]["id"].clone();
    let operation = operation.as_str().expect("an operation").to_owned();
    let never = "0123456789abcdef0123456789abcdef";
    for path in [
        "/api/v1/events/stream".to_owned(),
        format!("/api/v1/operations/{operation}/events"),
        format!("/api/v1/containers/{id}/logs/events"),
        format!("/api/v1/containers/{id}/logs?follow=true"),
        format!("/api/v1/containers/{id}/stats/events"),
    ] {
        let route = path.replace(&id, "{id}").replace(&operation, "{id}");
        let control = "its owner's own page opens it";
        for (header, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
        ] {
            let answer = anna.head_of(anna.raw("GET", &path).header(header, value)).await;
            let variant = format!("{route} from {header}: {value}");
            Check { id: "W02", variant: &variant, control }.sees(403, answer.status);
        }
        let nobody = server.anonymous().get(&path).await.status;
        Check { id: "W02", variant: &format!("{route} of nobody"), control }.sees(401, nobody);
        if path.contains(&id) || path.contains(&operation) {
            let foreign = tom.get(&path).await;
            let unknown = tom.get(&path.replace(&id, never).replace(&operation, never)).await;
            let same = foreign.body_without_id() == unknown.body_without_id();
            let seen = format!("{} {same}", foreign.status);
            Check { id: "W02", variant: &format!("{route} of another"), control }
                .sees("404 true", seen);
        }
        let opened = anna.head_of(anna.request("GET", &path)).await;
        assert_eq!(opened.status, 200, "the control: {path}");
    }
    // Whatever is open ends with its reader's right.
    let path = format!("/api/v1/containers/{id}/logs?follow=true");
    let mut open = anna.request("GET", &path).send().await.expect("it opens");
    let me = anna.get("/api/v1/me").await.json()["id"].to_string();
    let body = json!({"disabled": true});
    server.operator().patch(&format!("/api/v1/people/{me}"), &body).await.expect_status(200);
    let end = async { while let Ok(Some(_)) = open.chunk().await {} };
    let ended = tokio::time::timeout(Duration::from_secs(5), end).await.is_ok();
    let control = "it was open, and the container runs on";
    Check { id: "A07", variant: "a followed log, after its reader was disabled", control }
        .sees(true, ended);
}

#[tokio::test]
async fn names_are_taken_by_one_grammar_and_no_other() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let body = json!({"image": "127.0.0.1:1/none:latest", "name": "first"});
    let made = anna.post("/api/v1/containers", &body).await.json();
    let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
    let mut dice = Dice::new();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..times(3000, 120) {
        let name = name(&mut dice);
        let answer = anna.patch(&path, &json!({"name": name})).await;
        let good = is_name(&name);
        let seen = match answer.status {
            200 => true,
            422 => false,
            other => panic!("{name:?}: {other} {}", answer.text),
        };
        assert_eq!(seen, good, "{name:?}");
        taken += usize::from(good);
        refused += usize::from(!good);
        if good {
            // It leads to this container by its name, and to nothing by a part of it.
            let found = anna.get(&format!("/api/v1/containers/{name}")).await;
            assert_eq!(found.json()["id"], made["id"], "{name:?}");
        }
    }
    let control = format!("{taken} good names were taken by the same request");
    assert!(taken > 5 && refused > 40, "{taken} taken, {refused} refused");
    Check { id: "A05", variant: "random names, held to the grammar", control: &control }
        .sees("as the grammar says", "as the grammar says");
}

/// The grammar that the manual promises, written once more.
fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest =
        bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b));
    let like_an_id = bytes.len() >= 12 && bytes.iter().all(u8::is_ascii_hexdigit);
    first && rest && bytes.len() <= 63 && !like_an_id
}

/// A name out of good and bad pieces.
fn name(dice: &mut Dice) -> String {
    const PIECES: [&str; 40] = [
        "a", "b", "web", "0", "9", "deadbeef", "cafe", ".", "..", "-", "_", "/", "\\", "%2e",
        "%00", "\0", "\n", "\r", " ", "\t", "A", "а", "ａ", "é", "\u{202e}", "\u{200b}", "~", "$",
        "`", ";", "|", "<", ">", "\"", "'", "*", "?", ":", "@", "=",
    ];
    // Mostly the good ones, or hardly any name would be one.
    let pieces = 1 + dice.below(5);
    let piece = |dice: &mut Dice| match dice.below(5) {
        0 => PIECES[dice.below(PIECES.len())],
        _ => PIECES[dice.below(11)],
    };
    let mut name: String = (0..pieces).map(|_| piece(dice)).collect();
    if dice.below(20) == 0 {
        name = name.repeat(30);
    }
    name
}

#[tokio::test]
async fn a_token_makes_no_larger_one() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    for (scope, wanted) in [("read", "read"), ("read", "manage"), ("operate", "manage")] {
        let token: Client = anna.token(scope).await;
        let body = json!({"name": format!("{scope} {wanted}"), "scope": wanted, "days": 1});
        let answer = token.post("/api/v1/tokens", &body).await;
        let variant = format!("a token to {scope} makes one to {wanted}");
        Check { id: "A08", variant: &variant, control: "a token to manage makes one" }
            .sees(403, answer.status);
    }
    let body = json!({"name": "made", "scope": "manage", "days": 1});
    anna.token("manage").await.post("/api/v1/tokens", &body).await.expect_status(201);
}
