//! The whole life of a container, and what is said of its end.

use serde_json::{Value, json};
use system_tests::{TestServer, requires_root};

use system_tests::containers::{act, import, in_status, log, log_with, run, show, until};

#[tokio::test]
async fn a_container_is_made_run_stopped_and_removed() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let script = "echo out; echo err >&2; echo $FROM $MINE; trap 'exit 7' TERM; \
                  while :; do usleep 20000; done";
    let id = run(&anna, "web", script, json!({"env": {"MINE": "request"}})).await;
    let shown = in_status(&anna, &id, "running").await;
    let pid = shown["pid"].as_i64().expect("a pid");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    log_with(&anna, &id, "image request").await;
    assert_eq!(log(&anna, &id, "stream=stderr").await, "err\n");
    assert_eq!(log(&anna, &id, "stream=stdout&tail=1").await, "image request\n");
    let stamped = log(&anna, &id, "timestamps=true&tail=1").await;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z image request\n"), "{stamped}");
    let processes = anna.get(&format!("/api/v1/containers/{id}/processes")).await.json();
    assert_eq!(processes["items"][0]["pid"], 1, "{processes}");
    let stats = anna.get(&format!("/api/v1/containers/{id}/stats")).await.expect_status(200).json();
    assert!(stats["sample"]["memory"]["used_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert!(stats["sample"]["pids"].as_u64().is_some_and(|pids| pids > 0), "{stats}");

    let refused = act(&anna, &id, "start").await;
    assert_eq!((refused.status, refused.code()), (409, "container.running".to_owned()));
    let stopped = act(&anna, &id, "stop").await.expect_status(200).json();
    assert_eq!(stopped["status"], "exited", "{stopped}");
    assert_eq!(stopped["status_text"], "stopped by anna; exited with code 7");
    assert_eq!(stopped["exit"]["code"], 7);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());

    act(&anna, &id, "start").await.expect_status(200);
    assert_eq!(in_status(&anna, &id, "running").await["run"], 2);
    let refused = anna.delete(&format!("/api/v1/containers/{id}")).await;
    assert_eq!((refused.status, refused.code()), (409, "container.running".to_owned()));
    anna.delete(&format!("/api/v1/containers/{id}?force=true")).await.expect_status(204);
    assert_eq!(anna.get(&format!("/api/v1/containers/{id}")).await.status, 404);
    let left = server.data_dir().join(format!("state/containers/{id}"));
    assert!(!left.exists(), "{}", left.display());
}

#[tokio::test]
async fn a_frozen_container_does_nothing_until_it_is_thawed() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "ticks", "while :; do echo tick; usleep 5000; done", json!({})).await;
    log_with(&anna, &id, "tick").await;
    let paused = act(&anna, &id, "pause").await.expect_status(200).json();
    assert_eq!(paused["status"], "paused");
    // What was in the pipe comes through; then the log rests.
    let mut before = log(&anna, &id, "").await;
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let now = log(&anna, &id, "").await;
        if now == before {
            break;
        }
        before = now;
    }
    assert_eq!(act(&anna, &id, "pause").await.status, 409);
    assert_eq!(log(&anna, &id, "").await, before);
    assert_eq!(act(&anna, &id, "resume").await.expect_status(200).json()["status"], "running");
    // The control: thawed, it goes on.
    let longer = before.clone();
    let deadline = std::time::Instant::now() + system_tests::containers::LIMIT;
    while log(&anna, &id, "").await.len() <= longer.len() {
        assert!(std::time::Instant::now() < deadline, "it does not go on");
    }
    // A frozen one can be stopped, too.
    act(&anna, &id, "pause").await.expect_status(200);
    let stopped = act(&anna, &id, "stop").await.expect_status(200).json();
    assert_eq!(stopped["status"], "exited", "{stopped}");
}

#[tokio::test]
async fn any_container_can_be_removed_by_force_running_frozen_or_just_ended() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    for round in 0..6 {
        for (verb, script) in [("", "sleep 1000"), ("pause", "sleep 1000"), ("stop", "exit 3")] {
            let id = run(&anna, &format!("gone-{round}"), script, json!({})).await;
            if !verb.is_empty() {
                // The last has perhaps ended before it can be stopped.
                act(&anna, &id, verb).await;
            }
            let removed = anna.delete(&format!("/api/v1/containers/{id}?force=true")).await;
            assert_eq!(removed.status, 204, "{verb}: {}", removed.text);
            assert_eq!(anna.get(&format!("/api/v1/containers/{id}")).await.status, 404);
        }
    }
}

#[tokio::test]
async fn an_end_is_said_in_words() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let ended = async |name: &str, script: &str, more: Value| {
        let id = run(&anna, name, script, more).await;
        let path = format!("/api/v1/containers/{id}/wait?timeout_secs=30");
        let value = anna.get(&path).await.expect_status(200).json();
        value["status_text"].as_str().expect("words").to_owned()
    };
    assert_eq!(ended("code", "exit 3", json!({})).await, "exited with code 3");
    // The first process of a pid namespace takes signals only from outside, or none of its own.
    let id = run(&anna, "segv", "while :; do usleep 20000; done", json!({})).await;
    in_status(&anna, &id, "running").await;
    let path = format!("/api/v1/containers/{id}/kill?signal=KILL");
    let killed = anna.post(&path, &Value::Null).await.expect_status(200).json();
    assert_eq!(killed["status_text"], "killed by anna");
    let hungry = "x=0123456789abcdef; while :; do x=$x$x; done";
    let limits = json!({"limits": {"memory_bytes": 64 << 20}});
    let text = ended("hungry", hungry, limits).await;
    assert_eq!(text, "killed: out of memory at its limit of 64 MiB");
    // It ignores its stop signal, so its grace ends it.
    let id = run(
        &anna,
        "deaf",
        "trap '' TERM; while :; do usleep 20000; done",
        json!({"stop_grace_secs": 1}),
    )
    .await;
    in_status(&anna, &id, "running").await;
    let stopped = act(&anna, &id, "stop").await.expect_status(200).json();
    assert_eq!(stopped["status_text"], "stopped by anna; killed when its grace was over");
    let body = json!({"image": system_tests::containers::IMAGE, "command": ["/no/such/program"], "name": "none"});
    let made = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let id = made["id"].as_str().expect("an id");
    let refused = act(&anna, id, "start").await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
    let shown = show(&anna, id).await;
    assert_eq!(shown["status"], "failed", "{shown}");
    let text = shown["status_text"].as_str().expect("words");
    assert!(
        text.starts_with("could not be started: ") && text.contains("/no/such/program"),
        "{text}"
    );
}

#[tokio::test]
async fn restart_policies_do_what_their_names_say() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let failing = json!({"restart": {"name": "on-failure", "max_attempts": 2}});
    let id = run(&anna, "failing", "exit 1", failing).await;
    let path = format!("/api/v1/containers/{id}");
    let shown = until(&anna, &path, |value| value["status"] == "exited").await;
    assert_eq!((&shown["run"], &shown["exit"]["code"]), (&json!(3), &json!(1)), "{shown}");
    let good = json!({"restart": {"name": "on-failure"}});
    let id = run(&anna, "good", "exit 0", good).await;
    assert_eq!(in_status(&anna, &id, "exited").await["run"], 1);
    let id = run(&anna, "always", "exit 0", json!({"restart": {"name": "always"}})).await;
    let path = format!("/api/v1/containers/{id}");
    until(&anna, &path, |value| value["run"].as_u64().is_some_and(|run| run >= 3)).await;
    // Stopped between two attempts, it stays so.
    until(&anna, &path, |value| value["status"] == "restarting").await;
    let stopped = act(&anna, &id, "stop").await;
    if stopped.status == 200 {
        assert_eq!(
            in_status(&anna, &id, "exited").await["restart"]["next_attempt_at"],
            Value::Null
        );
    }
}

#[tokio::test]
async fn a_create_with_the_same_key_makes_one_container() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let body = json!({"image": system_tests::containers::IMAGE, "command": ["true"]});
    let create = async || {
        let request = anna.request("POST", "/api/v1/containers").header("idempotency-key", "k1");
        system_tests::client::send(request.json(&body)).await.expect_status(201).json()
    };
    let (first, second) = (create().await, create().await);
    assert_eq!(first["id"], second["id"]);
    let listed = anna.get("/api/v1/containers").await.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
}
