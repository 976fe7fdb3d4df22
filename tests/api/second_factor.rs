//! The second factor: what it takes to sign in with one, that each code is good once, what a stolen password,
//! link or session does not give, and what somebody may do who has to set one up. Codes are made by oathtool.

use std::process::Command;

use serde_json::{Value, json};
use system_tests::instance::PASSWORD;
use system_tests::{Answer, Client, Options, TestServer, programs, requires_root};

/// Seconds from now: each of these steps is near enough, and later than the one before.
const STEPS: [i32; 3] = [-30, 0, 30];

/// The code of a secret, so many seconds from now.
fn code(secret: &str, from_now: i32) -> String {
    let when = format!("now {from_now:+} seconds");
    let output =
        Command::new("oathtool").args(["--totp", "--base32", "--now", &when, secret]).output();
    let output = output.expect("oathtool is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn is(answer: &Answer, status: u16, problem: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.json()["type"], format!("/problems/{problem}"), "{}", answer.text);
}

async fn enter(server: &TestServer, name: &str, password: &str, code: Option<&str>) -> Answer {
    let body = json!({"name": name, "password": password, "code": code});
    server.anonymous().post("/api/v1/sessions", &body).await
}

/// Begins, and shows the first code; the secret and the recovery codes.
async fn set_up(client: &Client) -> (String, Vec<String>) {
    let body = json!({"present_password": PASSWORD});
    let begun = client.post("/api/v1/me/second-factor", &body).await.expect_status(201).json();
    let secret = begun["secret"].as_str().expect("a secret").to_owned();
    let address = begun["address"].as_str().expect("an address");
    assert!(address.starts_with("otpauth://totp/") && address.contains(&secret), "{address}");
    let body = json!({"code": code(&secret, STEPS[0])});
    let done =
        client.post("/api/v1/me/second-factor/confirm", &body).await.expect_status(200).json();
    let codes = done["recovery_codes"].as_array().expect("codes").iter();
    (secret, codes.map(|code| code.as_str().expect("a code").to_owned()).collect())
}

#[tokio::test]
async fn signing_in_takes_a_code_that_was_never_taken_before() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let other = enter(&server, "anna", PASSWORD, None).await;
    let path = "/api/v1/me/second-factor";
    let wrong = anna.post(path, &json!({"present_password": "wrong wrong wrong"})).await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    let body = json!({"present_password": PASSWORD});
    anna.post(path, &body).await.expect_status(201);
    // Begun is not set up: nobody is locked out by closing the page.
    assert_eq!(anna.get(path).await.json()["on"], false);
    enter(&server, "anna", PASSWORD, None).await.expect_status(201);
    let wrong = anna.post(&format!("{path}/confirm"), &json!({"code": "000000"})).await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    let (secret, recovery) = set_up(&anna).await;
    let shown = anna.get(path).await.json();
    assert_eq!((&shown["on"], &shown["recovery_codes_left"]), (&json!(true), &json!(10)));
    // Whoever was signed in by the password alone is not any more.
    let other = server.anonymous().with_cookies_of(&other);
    assert_eq!(other.get("/api/v1/me").await.status, 401);
    is(&anna.post(path, &body).await, 409, "second-factor.on");

    is(&enter(&server, "anna", PASSWORD, None).await, 403, "session.second-factor");
    is(&enter(&server, "anna", PASSWORD, Some("000000")).await, 403, "session.second-factor");
    // The one that it was set up with was taken.
    let first = code(&secret, STEPS[0]);
    is(&enter(&server, "anna", PASSWORD, Some(&first)).await, 403, "session.second-factor");
    let now = code(&secret, STEPS[1]);
    // A right code with a wrong password says nothing of either.
    is(&enter(&server, "anna", "wrong wrong wrong", Some(&now)).await, 403, "session.refused");
    enter(&server, "anna", PASSWORD, Some(&now)).await.expect_status(201);
    is(&enter(&server, "anna", PASSWORD, Some(&now)).await, 403, "session.second-factor");
    // Recovery codes, typed as people do; each once.
    let typed = recovery[0].to_ascii_uppercase().replace('-', " ");
    enter(&server, "anna", PASSWORD, Some(&typed)).await.expect_status(201);
    is(&enter(&server, "anna", PASSWORD, Some(&recovery[0])).await, 403, "session.second-factor");
    assert_eq!(anna.get(path).await.json()["recovery_codes_left"], 9);
    // The control: of who has none nothing is asked.
    server.person("bert", "user").await;
    enter(&server, "bert", PASSWORD, None).await.expect_status(201);

    // A link sets a password; it is no way around.
    let olga = server.operator();
    let me = anna.get("/api/v1/me").await.json()["id"].clone();
    let link = olga.post(&format!("/api/v1/people/{me}/invitation"), &Value::Null).await;
    let link = link.expect_status(201).json()["secret"].clone();
    let accept = async |code: Option<&str>| {
        let body = json!({"secret": link, "password": "another good one", "code": code});
        server.anonymous().post("/api/v1/invitations/accept", &body).await
    };
    is(&accept(None).await, 403, "session.second-factor");
    enter(&server, "anna", PASSWORD, Some(&recovery[1])).await.expect_status(201);
    accept(Some(&recovery[2])).await.expect_status(201);
    is(&enter(&server, "anna", "another good one", None).await, 403, "session.second-factor");

    // The operator takes it away; nobody else can.
    let bert = server.person("carl", "user").await;
    let factor = format!("/api/v1/people/{me}/second-factor");
    assert_eq!(bert.delete(&factor).await.status, 403);
    olga.delete(&factor).await.expect_status(204);
    assert_eq!(olga.delete(&factor).await.status, 404);
    let again = enter(&server, "anna", "another good one", None).await;
    again.expect_status(201);
    let audit = olga.get("/api/v1/audit?action=second-factor.*").await.text;
    for action in ["begin", "confirm", "reset"] {
        assert!(audit.contains(&format!("second-factor.{action}")), "{audit}");
    }
    assert!(!audit.contains(&secret) && !server.server_log().contains(&secret));
}

#[tokio::test]
async fn a_factor_is_given_up_with_a_code_and_outlives_the_keys() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let (secret, recovery) = set_up(&anna).await;
    let mut rotate = Command::new(programs::berth());
    rotate.args(["keys", "rotate", "--retire", "--config"]).arg(server.config_path());
    let rotated = rotate.env_clear().output().expect("run berth keys");
    assert!(rotated.status.success(), "{rotated:?}");
    let in_again = enter(&server, "anna", PASSWORD, Some(&code(&secret, STEPS[1]))).await;
    in_again.expect_status(201);
    let anna = server.anonymous().with_cookies_of(
        &enter(&server, "anna", PASSWORD, Some(&recovery[0])).await.expect_status(201),
    );
    let path = "/api/v1/me/second-factor";
    let wrong = anna.post(&format!("{path}/codes"), &json!({"code": "000000"})).await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    let body = json!({"code": code(&secret, STEPS[2])});
    let renewed = anna.post(&format!("{path}/codes"), &body).await.expect_status(200).json();
    let renewed = renewed["recovery_codes"][0].as_str().expect("a code").to_owned();
    is(&enter(&server, "anna", PASSWORD, Some(&recovery[1])).await, 403, "session.second-factor");
    let wrong = anna.post(&format!("{path}/remove"), &json!({"code": recovery[1]})).await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    anna.post(&format!("{path}/remove"), &json!({"code": renewed})).await.expect_status(204);
    enter(&server, "anna", PASSWORD, None).await.expect_status(201);
}

#[tokio::test]
async fn who_must_have_one_can_do_nothing_before() {
    requires_root!();
    let sections = "[auth]\nsecond_factor = \"overseers\"\n".to_owned();
    let options = Options { no_supervisor: true, sections, ..Options::default() };
    let server = TestServer::with(options).await;
    let (olga, anna) = (server.operator(), server.person_by(&server.root(), "anna", "user").await);
    // The control: of users it is not wanted.
    anna.get("/api/v1/containers").await.expect_status(200);
    for path in ["/api/v1/containers", "/api/v1/people", "/api/v1/tokens", "/home", "/people"] {
        let answer = olga.get(path).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text);
        assert!(answer.text.contains("second factor"), "{path}: {}", answer.text);
    }
    is(&olga.post("/api/v1/tokens", &json!({})).await, 403, "session.second-factor-due");
    let page = olga.get("/account").await.expect_status(200).text;
    assert!(page.contains("This machine wants a second factor of you"), "{page}");
    olga.get("/api/v1/me").await.expect_status(200);
    let (secret, _) = set_up(&olga).await;
    olga.get("/api/v1/people").await.expect_status(200);
    let body = json!({"code": code(&secret, STEPS[1])});
    let kept = olga.post("/api/v1/me/second-factor/remove", &body).await;
    is(&kept, 403, "second-factor.required");
}
