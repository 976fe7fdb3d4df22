//! A07 and A08: guessing, stolen and forged credentials, and what ends them.

use serde_json::json;
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root, times};

/// Guesses at one account that are compared at all, while a test lasts.
const JUDGED_MAX: usize = 12;

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

async fn status_of(client: &Client) -> u16 {
    client.get("/api/v1/me").await.status
}

/// The session cookie's token.
fn token_of(client: &Client) -> String {
    let cookie = client.cookie();
    let pair = cookie.split("; ").find(|pair| pair.contains("_session=")).expect("a session");
    pair.split_once('=').expect("a value").1.to_owned()
}

#[tokio::test]
async fn a_stranger_guessing_does_not_lock_the_owner_out() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let guesses = times(10_000, 24);
    let mut judged = 0;
    for _ in 0..guesses {
        let answer = server.sign_in("anna", "wrong password").await;
        assert!(matches!(answer.status, 403 | 429), "{answer:?}");
        judged += usize::from(answer.status == 403);
    }
    let control = "the owner's own browser comes in meanwhile";
    let variant = format!("{guesses} guesses");
    let seen = if judged <= JUDGED_MAX { "throttled".into() } else { format!("{judged} judged") };
    Check { id: "A07", variant: &variant, control }.sees("throttled", seen);
    // Even with the right password a browser that nobody knows waits now.
    let answer = server.sign_in("anna", PASSWORD).await;
    assert_eq!(answer.status, 429);
    assert!(!answer.header("retry-after").is_empty());
    // The owner's own browser does not, nor does another person.
    let cookie =
        anna.cookie().split("; ").find(|pair| pair.contains("_device=")).expect("a device");
    let body = json!({"name": "anna", "password": PASSWORD});
    let request = server.anonymous().raw("POST", "/api/v1/sessions").header("cookie", cookie);
    let request = request.header("sec-fetch-site", "same-origin").json(&body);
    system_tests::client::send(request).await.expect_status(201);
    server.sign_in("olga", PASSWORD).await.expect_status(201);
}

#[tokio::test]
async fn an_unknown_name_answers_as_a_wrong_password() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let time = async |name: String| {
        let start = std::time::Instant::now();
        let answer = server.sign_in(&name, "wrong password").await.expect_status(403);
        (start.elapsed(), answer.body_without_id())
    };
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for number in 0..4 {
        let one = time("olga".to_owned()).await;
        let other = time(format!("nobody{number}")).await;
        assert_eq!(one.1, other.1);
        known.push(one.0);
        unknown.push(other.0);
    }
    known.sort();
    unknown.sort();
    let (known, unknown) = (known[2].as_secs_f64(), unknown[2].as_secs_f64());
    let alike = (0.33..3.0).contains(&(unknown / known));
    let seen = if alike { "alike".to_owned() } else { format!("{known} s, {unknown} s") };
    let control = "both derive; without that an unknown name would take a hundredth of it";
    Check { id: "A07", variant: "an unknown name's time", control }.sees("alike", seen);
}

#[tokio::test]
async fn forged_and_misused_tokens_are_refused() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let bearer = anna.token("manage").await;
    assert_eq!(status_of(&bearer).await, 200, "the control");
    let session = token_of(&anna);
    let anonymous = server.anonymous();
    assert_eq!(status_of(&anonymous.with_bearer(&session)).await, 401, "a cookie's as a bearer");
    let parts: Vec<&str> = session.split('.').collect();
    let name = anna.cookie().split('=').next().expect("a name").to_owned();
    // base64url of {"alg":"none"}, {"alg":"HS384"} and {"alg":"RS256","kid":"../../dev/null"}.
    for header in [
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJIUzM4NCJ9",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLy4uL2Rldi9udWxsIn0",
    ] {
        for signature in ["", parts[2]] {
            let forged = format!("{header}.{}.{signature}", parts[1]);
            let client = anonymous.with_cookie(&format!("{name}={forged}"));
            let control = "the same token as it was signed is taken";
            Check { id: "A08", variant: header, control }.sees(401, status_of(&client).await);
            assert_eq!(status_of(&anonymous.with_bearer(&forged)).await, 401, "{header}");
        }
    }
    for position in [0, session.len() / 2, session.len() - 3] {
        let mut bytes = session.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(bytes).expect("still ASCII");
        let client = anonymous.with_cookie(&format!("{name}={tampered}"));
        let control = "the same token unchanged is taken";
        let variant = format!("one letter changed at {position}");
        Check { id: "A08", variant: &variant, control }.sees(401, status_of(&client).await);
    }
    assert_eq!(status_of(&anonymous.with_cookie(&format!("{name}={session}"))).await, 200);
    let in_url = anonymous.get(&format!("/api/v1/me?token={session}&access_token={session}")).await;
    assert_eq!(in_url.status, 401);
    assert!(!server.server_log().contains(parts[2]), "a token is in the log");
}

#[tokio::test]
async fn what_is_ended_is_dead_at_once() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let second = {
        let answer = server.sign_in("anna", PASSWORD).await.expect_status(201);
        server.anonymous().with_cookies_of(&answer)
    };
    assert_ne!(token_of(&anna), token_of(&second), "a sign-in makes a session of its own");
    let token = anna.token("read").await;
    // Password change: this session and the tokens live, the others don't.
    let body = json!({"present_password": PASSWORD, "password": "another battery staple"});
    anna.put("/api/v1/me/password", &body).await.expect_status(204);
    assert_eq!(status_of(&anna).await, 200);
    assert_eq!(status_of(&token).await, 200);
    assert_eq!(status_of(&second).await, 401);
    assert_eq!(server.sign_in("anna", PASSWORD).await.status, 403);
    // Sign-out.
    let answer = server.sign_in("anna", "another battery staple").await.expect_status(201);
    let third = server.anonymous().with_cookies_of(&answer);
    third.delete("/api/v1/me/session").await.expect_status(204);
    assert_eq!(status_of(&third).await, 401);
    assert_eq!(status_of(&anna).await, 200, "the control: another session lives");
    // So does a token, whatever its scope.
    let other = anna.token("read").await;
    other.delete("/api/v1/me/session").await.expect_status(204);
    assert_eq!((status_of(&other).await, status_of(&token).await), (401, 200));
    // Disabled: everything is over, also for the right password; enabled again it is not back.
    let path = format!("/api/v1/people/{}", anna.get("/api/v1/me").await.json()["id"]);
    olga.patch(&path, &json!({"disabled": true})).await.expect_status(200);
    assert_eq!(status_of(&anna).await, 401);
    assert_eq!(status_of(&token).await, 401);
    assert_eq!(server.sign_in("anna", "another battery staple").await.status, 403);
    olga.patch(&path, &json!({"disabled": false})).await.expect_status(200);
    assert_eq!(status_of(&anna).await, 401);
    server.sign_in("anna", "another battery staple").await.expect_status(201);
}

#[tokio::test]
async fn sessions_and_tokens_outlive_a_killed_server_and_secrets_are_not_stored() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let token = anna.token("read").await;
    server.kill_server();
    server.start_server().await;
    assert_eq!((status_of(&anna).await, status_of(&token).await), (200, 200));
    server.stop_server();
    let database = std::fs::read(server.data_dir().join("db/berth.db")).expect("the inventory");
    let session = token_of(&anna);
    for secret in [PASSWORD, session.rsplit('.').next().expect("a signature"), &session] {
        let found = database.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "a secret is in the inventory");
    }
    assert!(database.windows(9).any(|window| window == b"$argon2id"), "the control");
    use std::os::unix::fs::PermissionsExt;
    for name in ["berth.db", "token.key"] {
        let found =
            std::fs::metadata(server.data_dir().join("db").join(name)).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn somebody_can_always_operate_the_appliance() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let path = format!("/api/v1/people/{}", olga.get("/api/v1/me").await.json()["id"]);
    for body in [json!({"disabled": true}), json!({"role": "user"})] {
        let answer = olga.patch(&path, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "person.last-operator"));
    }
    server.person("otto", "operator").await;
    olga.patch(&path, &json!({"role": "user"})).await.expect_status(200);
    assert_eq!(olga.get("/api/v1/people").await.status, 403);
}
