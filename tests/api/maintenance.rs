//! Maintenance: who may begin it, what it refuses to whom, what goes on, and that everybody is told.

use std::process::Command;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{IMAGE, identity, import, in_status, ready, run};
use system_tests::{Answer, Client, TestServer, programs, requires_root};

const MESSAGE: &str = "A new kernel, back at 18:00";

fn berth(server: &TestServer, arguments: &[&str]) -> String {
    let mut command = Command::new(programs::berth());
    command.arg("maintenance").args(arguments).arg("--config").arg(server.config_path());
    let output = command.env_clear().output().expect("run berth maintenance");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// All that begins something new, with the status that it has otherwise.
async fn begun_by(client: &Client, id: &str) -> Vec<(&'static str, Answer)> {
    let create = json!({"name": "new", "image": IMAGE});
    let pull = json!({"reference": "127.0.0.1:1/a:b"});
    let start = format!("/api/v1/containers/{id}/start");
    let restart = format!("/api/v1/containers/{id}/restart");
    let import = client.request("POST", "/api/v1/images/import");
    let import = import.header("content-type", "application/x-tar").body("no archive");
    vec![
        ("create", client.post("/api/v1/containers", &create).await),
        ("start", client.post(&start, &Value::Null).await),
        ("restart", client.post(&restart, &Value::Null).await),
        ("pull", client.post("/api/v1/images/pull", &pull).await),
        ("import", send(import).await),
    ]
}

#[tokio::test]
async fn maintenance_refuses_what_is_new_to_all_but_operators_and_tells_everybody() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    let ben = server.person("ben", "auditor").await;
    import(&anna).await;
    let lives = run(&anna, "lives", "while :; do usleep 20000; done", json!({})).await;
    in_status(&anna, &lives, "running").await;
    let before = identity(&anna, &lives).await;
    let body = json!({"name": "idle", "image": IMAGE});
    let idle = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let idle = idle["id"].as_str().expect("an id").to_owned();
    let wanted = json!({"message": MESSAGE});
    for client in [&anna, &ben] {
        assert_eq!(client.put("/api/v1/maintenance", &wanted).await.status, 403);
        assert_eq!(client.get("/api/v1/maintenance").await.json()["on"], false);
    }
    assert_eq!(berth(&server, &["show"]), "not in maintenance");
    olga.put("/api/v1/maintenance", &wanted).await.expect_status(200);

    for (what, answer) in begun_by(&anna, &idle).await {
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["type"]),
            (503, &json!("/problems/server.maintenance")),
            "{what}"
        );
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(MESSAGE)), "{problem}");
        assert_eq!(answer.headers["retry-after"], "60", "{what}");
    }
    for (what, answer) in begun_by(&olga, &idle).await {
        assert_ne!(answer.status, 503, "{what}: {}", answer.text);
    }
    told(&server, &anna, &olga).await;
    let shown = anna.get("/api/v1/maintenance").await.expect_status(200).json();
    assert_eq!((&shown["message"], &shown["by"]), (&json!(MESSAGE), &json!(null)));
    assert_eq!(ben.get("/api/v1/maintenance").await.json()["by"], "olga");

    // It outlasts the server, and what ran before still does.
    server.kill_server();
    server.start_server().await;
    ready(&server).await;
    assert!(berth(&server, &["show"]).ends_with(&format!("(olga): {MESSAGE}")));
    assert_eq!(begun_by(&anna, &idle).await[0].1.status, 503);
    assert_eq!(identity(&anna, &lives).await, before);
    let stop = anna.post(&format!("/api/v1/containers/{lives}/stop"), &Value::Null).await;
    assert_eq!(stop.status, 200, "{}", stop.text);
    assert_eq!(anna.delete(&format!("/api/v1/containers/{lives}")).await.status, 204);
    let audit = olga.get("/api/v1/audit").await.text;
    assert!(audit.contains("maintenance.begin"), "{audit}");

    let said = berth(&server, &["begin", "Longer than thought"]);
    assert!(said.ends_with("(system): Longer than thought"), "{said}");
    assert_eq!(berth(&server, &["end"]), "not in maintenance");
    let made = anna.post("/api/v1/containers", &json!({"name": "after", "image": IMAGE})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert!(!anna.get("/home").await.text.contains("In maintenance"));
}

/// Each page says so, before signing in, too; and the form of the launch page keeps what was typed.
async fn told(server: &TestServer, anna: &Client, olga: &Client) {
    for (client, path) in [
        (&server.anonymous(), "/sign-in"),
        (anna, "/home"),
        (anna, "/containers"),
        (anna, "/no-such-page"),
        (olga, "/system"),
    ] {
        let page = client.get(path).await.text;
        assert!(page.contains("In maintenance: A new kernel, back at 18:00."), "{path}: {page}");
        assert_eq!(page.contains("Change or end it"), path == "/system", "{path}");
    }
    let form =
        anna.request("POST", "/launch").header("content-type", "application/x-www-form-urlencoded");
    let body = form.body("image=berth%2Fbusybox%3A1&name=typed&start=no");
    let page = send(body).await;
    assert_eq!(page.status, 503, "{}", page.text);
    assert!(page.text.contains("typed") && page.text.contains("nothing new is begun"));
    // The operator's page, by its form.
    let form = olga.request("POST", "/system/maintenance");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let empty = send(form.body("message=")).await;
    assert_eq!(empty.status, 422, "{}", empty.text);
}
