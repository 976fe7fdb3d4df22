//! A09: the first operator. One of many callers with the secret wins; without it nobody does.

use serde_json::json;
use system_tests::instance::PASSWORD;
use system_tests::{Check, Options, TestServer, requires_root};

const RACES: usize = 100;

fn fresh() -> Options {
    Options { fresh: true, no_supervisor: true, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_races_for_the_setup_exactly_one_wins() {
    requires_root!();
    let server = TestServer::with(fresh()).await;
    let secret = server.setup_secret().await;
    let racers: Vec<_> = (0..RACES)
        .map(|number| {
            let client = server.anonymous();
            let body =
                json!({"secret": secret, "name": format!("racer{number}"), "password": PASSWORD});
            tokio::spawn(async move { client.post("/api/v1/setup", &body).await })
        })
        .collect();
    let mut won = Vec::new();
    for racer in racers {
        let answer = racer.await.expect("a racer answers");
        match answer.status {
            201 => won.push(answer),
            // Too late, wrong by now, or turned away by a full queue.
            403 | 409 | 429 | 503 => {}
            other => panic!("{other}: {}", answer.text),
        }
    }
    let control = "all of them had the right secret";
    Check { id: "A09", variant: "100 at once with the secret", control }.sees(1, won.len());
    let winner = server.anonymous().with_cookies_of(&won[0]);
    let people = winner.get("/api/v1/people").await.expect_status(200).json();
    assert_eq!(people["items"].as_array().map(Vec::len), Some(1), "{people}");
    // Once more: it stays done, also for a new secret.
    let body = json!({"secret": secret, "name": "late", "password": PASSWORD});
    assert_eq!(server.anonymous().post("/api/v1/setup", &body).await.status, 409);
    assert_eq!(server.root().post("/api/v1/setup/secret", &json!(null)).await.status, 409);
}

#[tokio::test]
async fn a_stranger_without_the_secret_sets_nothing_up() {
    requires_root!();
    let server = TestServer::with(fresh()).await;
    let secret = server.setup_secret().await;
    let anonymous = server.anonymous();
    for wrong in ["", "x", &secret.to_uppercase(), &format!("{secret} ")] {
        let body = json!({"secret": wrong, "name": "eve", "password": PASSWORD});
        let status = anonymous.post("/api/v1/setup", &body).await.status;
        let control = "the right secret does it";
        Check { id: "A09", variant: "a wrong secret", control }.sees(403, status);
    }
    assert_eq!(anonymous.post("/api/v1/setup/secret", &json!(null)).await.status, 401);
    // A newer secret ends the older one.
    let newer = server.setup_secret().await;
    let body = json!({"secret": secret, "name": "eve", "password": PASSWORD});
    assert_eq!(anonymous.post("/api/v1/setup", &body).await.status, 403);
    // The control: the right one does it.
    let body = json!({"secret": newer, "name": "olga", "password": PASSWORD});
    anonymous.post("/api/v1/setup", &body).await.expect_status(201);
}

#[tokio::test]
async fn only_root_is_taken_on_the_root_socket() {
    requires_root!();
    let server = TestServer::with(fresh()).await;
    let socket = server.run_dir().join("server/root.sock");
    // Open the way, so that only the check of the peer is left between another user and root's API.
    for path in [server.run_dir().join("server"), socket.clone()] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("open it");
    }
    let ask = |uid: u32| {
        use std::os::unix::process::CommandExt;
        let output = std::process::Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "--unix-socket"])
            .arg(&socket)
            .arg("http://localhost/api/v1/setup/secret")
            .uid(uid)
            .gid(uid)
            .output()
            .expect("run curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let control = "root gets an answer by the same program";
    Check { id: "A09", variant: "another user on the root socket", control }
        .sees("000", ask(12_345));
    assert_eq!(ask(65_534), "000", "the server's own user got an answer");
    assert_eq!(ask(0), "201", "the control: root gets one");
}
