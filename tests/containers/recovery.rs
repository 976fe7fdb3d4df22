//! F02: server and supervisor killed at any moment; containers, logs, exit codes and policies stay.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{TestServer, requires_root};

use system_tests::containers::{identity, import, in_status, log, log_with, ready, run, show};

/// Containers that run while everything around them is killed.
const CONTAINERS: usize = 50;
/// How often both are killed in turn.
const CRASHES: usize = 20;

/// A server with one subnet, which holds that many.
async fn roomy() -> TestServer {
    TestServer::with(system_tests::Options { one_subnet: true, ..Default::default() }).await
}

#[tokio::test]
async fn containers_outlive_server_and_supervisor() {
    requires_root!();
    let server = roomy().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let mut running = Vec::new();
    for number in 0..CONTAINERS {
        let script = "i=0; while :; do echo $i; i=$((i+1)); usleep 200000; done";
        let id = run(&anna, &format!("c{number}"), script, json!({})).await;
        running.push((identity(&anna, &id).await, id));
    }
    let brief = run(&anna, "brief", "usleep 1500000; exit 42", json!({})).await;
    let again = json!({"restart": {"name": "always"}});
    let looped = run(&anna, "looped", "usleep 300000; exit 1", again).await;
    let check = async |what: &str| {
        ready(&server).await;
        for (before, id) in &running {
            in_status(&anna, id, "running").await;
            assert_eq!(identity(&anna, id).await, *before, "{what}");
        }
    };
    server.kill_server();
    server.start_server().await;
    check("server killed").await;
    server.kill_supervisor();
    server.start_supervisor().await;
    check("supervisor killed").await;
    server.kill_server();
    server.kill_supervisor();
    server.start_supervisor().await;
    server.start_server().await;
    check("both killed").await;
    for _ in 0..CRASHES {
        server.kill_server();
        server.start_server().await;
        server.kill_supervisor();
        server.start_supervisor().await;
    }
    check("a crash loop").await;
    let ended = in_status(&anna, &brief, "exited").await;
    assert_eq!(ended["exit"]["code"], 42, "{ended}");
    let before = show(&anna, &looped).await["run"].as_u64().expect("a run");
    let path = format!("/api/v1/containers/{looped}");
    system_tests::containers::until(&anna, &path, |value| value["run"].as_u64() > Some(before))
        .await;
    for (_, id) in &running {
        let text = log(&anna, id, "").await;
        for (number, line) in text.lines().enumerate() {
            assert_eq!(line, number.to_string(), "a gap in the log of {id}");
        }
        assert!(text.lines().count() > 10, "the log has not grown: {text}");
    }
}

#[tokio::test]
async fn the_server_is_ready_soon_with_everything_known() {
    requires_root!();
    let server = roomy().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    for number in 0..CONTAINERS {
        run(&anna, &format!("c{number}"), "while :; do usleep 200000; done", json!({})).await;
    }
    server.kill_server();
    let begun = Instant::now();
    server.start_server().await;
    ready(&server).await;
    system_tests::containers::until(&anna, "/api/v1/containers?state=running&limit=100", |value| {
        value["items"].as_array().map(Vec::len) == Some(CONTAINERS)
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_follower_goes_on_after_a_restart_without_a_gap() {
    requires_root!();
    let sections = "[containers]\nlog_file_bytes = 65536\nlog_files = 10\n";
    let options = system_tests::Options { sections: sections.to_owned(), ..Default::default() };
    let server = TestServer::with(options).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    // Enough for several rotations of 64 KiB.
    let script = "for i in $(seq 1 4000); do echo line $i; [ $((i % 20)) = 0 ] && usleep 1000; done; \
                  usleep 3000000";
    let id = run(&anna, "talks", script, json!({})).await;
    let mut last = String::new();
    let mut lines = Vec::new();
    for attempt in 0..4 {
        let path = format!("/api/v1/containers/{id}/logs/events");
        let mut request = anna.request("GET", &path);
        if !last.is_empty() {
            request = request.header("last-event-id", &last);
        }
        let mut response = request.send().await.expect("the server answers");
        assert_eq!(response.status(), 200);
        let mut text = String::new();
        let mut taken = 0;
        while let Some(chunk) = next_chunk(&mut response).await {
            text.push_str(&chunk);
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                taken += collect(&event, &mut last, &mut lines);
            }
            if attempt < 3 && taken > 500 {
                break;
            }
        }
        drop(response);
        match attempt {
            0 => server.kill_server(),
            1 => {
                server.kill_supervisor();
                server.start_supervisor().await;
                continue;
            }
            _ => continue,
        }
        server.start_server().await;
        ready(&server).await;
    }
    let expected: Vec<String> = (1..=4000).map(|number| format!("line {number}")).collect();
    assert_eq!(lines.len(), expected.len());
    assert_eq!(lines, expected);
    assert_eq!(log(&anna, &id, "tail=2").await, "line 3999\nline 4000\n");
}

/// Takes an event's record; answers how many lines it held.
fn collect(event: &str, last: &mut String, lines: &mut Vec<String>) -> usize {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_ne!(field("event:"), Some("gap"), "records were lost");
    let (Some(id), Some("stdout"), Some(data)) = (field("id:"), field("event:"), field("data:"))
    else {
        return 0;
    };
    let record: Value = serde_json::from_str(data).expect("a record is JSON");
    lines.push(record["text"].as_str().expect("a text").to_owned());
    id.clone_into(last);
    1
}

#[tokio::test]
async fn what_was_begun_while_the_supervisor_was_away_is_finished() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "web", "echo here; while :; do usleep 20000; done", json!({})).await;
    log_with(&anna, &id, "here").await;
    server.kill_supervisor();
    let removed = anna.delete(&format!("/api/v1/containers/{id}?force=true")).await;
    assert_eq!(removed.status, 202, "{}", removed.text);
    assert_eq!(show(&anna, &id).await["status"], "removing");
    server.kill_server();
    server.start_supervisor().await;
    server.start_server().await;
    let deadline = Instant::now() + system_tests::containers::LIMIT;
    while anna.get(&format!("/api/v1/containers/{id}")).await.status != 404 {
        assert!(Instant::now() < deadline, "it is still there\n{}", server.server_log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The next piece of a streamed answer; `None` at the end or when the connection broke.
async fn next_chunk(response: &mut reqwest::Response) -> Option<String> {
    let chunk = response.chunk().await.ok().flatten()?;
    Some(String::from_utf8_lossy(&chunk).into_owned())
}
