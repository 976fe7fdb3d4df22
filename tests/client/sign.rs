//! `berth login` and `berth logout`: what is kept, who may read it, and what is over at the server.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::instance::{PASSWORD, free_address};
use system_tests::{Options, TestServer, requires_root};

use crate::{Person, url_of};

async fn plain() -> TestServer {
    TestServer::with(Options { no_supervisor: true, ..Options::default() }).await
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

#[tokio::test]
async fn a_login_keeps_a_token_of_limited_scope_alone_and_a_logout_ends_it() {
    requires_root!();
    let server = plain().await;
    let anna = server.person("anna", "user").await;
    let sessions = anna.get("/api/v1/sessions").await.json()["items"].as_array().map(Vec::len);
    let person = Person::at(&server.url());
    person.sign_in("anna").await;
    let file = person.credentials();
    assert_eq!((mode(&file), mode(file.parent().expect("a directory"))), (0o600, 0o700));
    let text = fs::read_to_string(&file).expect("it can be read");
    assert!(!text.contains(PASSWORD), "the password was kept");
    let tokens = anna.get("/api/v1/tokens").await.json()["items"].clone();
    assert_eq!((&tokens[0]["scope"], &tokens[1]), (&"operate".into(), &Value::Null));
    // The session that made it is over.
    let now = anna.get("/api/v1/sessions").await.json()["items"].as_array().map(Vec::len);
    assert_eq!(now, sessions);

    let by_token = server.anonymous().with_bearer(&person.token());
    by_token.get("/api/v1/me").await.expect_status(200);
    // Again: the new token takes the old one's place, at the server too.
    person.sign_in("anna").await;
    assert_eq!(by_token.get("/api/v1/me").await.status, 401);
    let by_token = server.anonymous().with_bearer(&person.token());
    by_token.get("/api/v1/me").await.expect_status(200);

    person.does(&["logout"], "").await.good();
    assert_eq!(by_token.get("/api/v1/me").await.status, 401);
    assert_eq!(anna.get("/api/v1/tokens").await.json()["items"], serde_json::json!([]));
    person.does(&["logout"], "").await.fails(1, "not signed in");
    person.does(&["ps"], "").await.fails(1, "berth login");
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_nothing_is_kept() {
    requires_root!();
    let server = plain().await;
    server.person("anna", "user").await;
    let person = Person::at(&server.url());
    let url = person.url.as_str();
    let login = ["login", url, "--user", "anna", "--password-stdin"];
    person.does(&login, "wrong password").await.fails(1, "cannot sign in");
    person.does(&login, "").await.fails(2, "nothing was entered");
    assert!(!person.credentials().exists());
    let elsewhere = ["login", "http://berth.lab:1", "--user", "anna", "--password-stdin"];
    person.does(&elsewhere, PASSWORD).await.fails(2, "plain HTTP");
    let days = [&login[..], &["--days", "100000"]].concat();
    person.does(&days, PASSWORD).await.fails(1, "/days");
    assert!(!person.credentials().exists());
    // The control.
    person.does(&login, PASSWORD).await.good();
    // A token that somebody has ended is told as that.
    server.anonymous().with_bearer(&person.token()).delete("/api/v1/me/session").await;
    person.does(&["ps"], "").await.fails(1, "berth login");
    // There is nothing to end any more, and that is no failure.
    person.does(&["logout"], "").await.good();
}

#[tokio::test]
async fn credentials_that_others_can_get_at_are_refused() {
    requires_root!();
    let server = plain().await;
    let person = Person::signed_in(&server, "anna").await;
    let file = person.credentials();
    let directory = file.parent().expect("a directory").to_owned();
    person.gets(&["ps"]).await;
    for (path, bad, good) in
        [(&file, 0o640, 0o600), (&file, 0o602, 0o600), (&directory, 0o755, 0o700)]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(bad)).expect("chmod");
        person.does(&["ps"], "").await.fails(1, "others can get at it");
        fs::set_permissions(path, fs::Permissions::from_mode(good)).expect("chmod");
    }
    // Another's file, and another's link to one that is good.
    std::os::unix::fs::chown(&file, Some(65_534), None).expect("chown");
    person.does(&["ps"], "").await.fails(1, "somebody else's");
    std::os::unix::fs::chown(&file, Some(0), None).expect("chown");
    let moved = directory.join("moved.json");
    fs::rename(&file, &moved).expect("move it");
    symlink(&moved, &file).expect("link to it");
    std::os::unix::fs::lchown(&file, Some(65_534), None).expect("chown the link");
    person.does(&["ps"], "").await.fails(1, "symbolic link of somebody else's");
    // The control: one's own link is as good as the file.
    std::os::unix::fs::lchown(&file, Some(0), None).expect("chown the link");
    person.gets(&["ps"]).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_is_an_error_in_seconds() {
    requires_root!();
    let begin = Instant::now();
    let person = Person::at(&url_of(free_address()));
    let words = ["login", &person.url, "--user", "anna", "--password-stdin"];
    person.does(&words, PASSWORD).await.fails(1, "is it running");
    let silent = TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = url_of(silent.local_addr().expect("it is bound"));
    let words = ["login", &url, "--user", "anna", "--password-stdin"];
    person.does(&words, PASSWORD).await.fails(1, "has not answered within 5 seconds");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}
