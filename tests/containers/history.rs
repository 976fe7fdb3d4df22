//! The last hour of a container, and its story: figures against the kernel's own, the limits that held
//! then, kills for memory, and all of it over a restart of the server.

use serde_json::{Value, json};
use system_tests::{TestServer, requires_root};

use system_tests::containers::{import, in_status, ready, run, show, until};

#[tokio::test]
async fn the_last_hour_is_kept_with_its_limits_and_survives_the_server() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let limits = json!({"limits": {"memory_bytes": 64 << 20, "pids": 20, "cpu_millis": 200}});
    let id = run(&anna, "busy", "while :; do :; done", limits).await;
    in_status(&anna, &id, "running").await;
    let path = format!("/api/v1/containers/{id}/stats/history");
    let change = json!({"limits": {"pids": 30}});
    anna.patch(&format!("/api/v1/containers/{id}"), &change).await.expect_status(200);
    let seen = until(&anna, &path, |seen| points(seen).len() >= 2).await;
    for point in points(&seen) {
        let cpu = point["cpu_millis"].as_u64().expect("a number");
        assert!((50..=260).contains(&cpu), "a busy loop with 0.2 cores uses them: {point}");
        assert_eq!(point["pids"], 1, "{point}");
        let used = point["memory_used_bytes"].as_u64().expect("a number");
        assert!(used > 0 && used <= 64 << 20, "{point}");
    }
    let pids: Vec<_> = seen["limits"].as_array().expect("limits").iter().collect();
    let pids: Vec<_> = pids.iter().map(|step| step["limits"]["pids"].as_u64()).collect();
    assert_eq!(pids, [Some(20), Some(30)], "the limits as they were: {seen}");
    assert_eq!(marks(&seen), ["start", "limits"], "{seen}");
    assert!(seen["marks"][1]["text"].as_str().is_some_and(|text| text == "processes 20 → 30"));
    let csv = anna.get(&format!("{path}?format=csv")).await.expect_status(200).text;
    assert!(
        csv.starts_with("time,cpu_millis,cpu_limit_millis,") && csv.lines().count() >= 3,
        "{csv}"
    );
    // Another step is fewer points; what is too small, or no time, is refused.
    assert!(points(&anna.get(&format!("{path}?step=3600")).await.json()).len() <= 2);
    for wrong in ["step=1", "step=3601", "since=yesterday", "from=1"] {
        assert_eq!(anna.get(&format!("{path}?{wrong}")).await.status, 422, "{wrong}");
    }
    let before: Vec<Value> = points(&seen).to_vec();
    server.stop_server();
    server.start_server().await;
    ready(&server).await;
    let after = anna.get(&path).await.expect_status(200).json();
    assert!(points(&after).len() >= before.len(), "{after}");
    assert_eq!(points(&after)[..before.len()], before[..], "the same points as before");
    assert_eq!(marks(&after), ["start", "limits"]);
}

#[tokio::test]
async fn a_kill_for_memory_is_a_mark_and_an_event() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let limits = json!({"limits": {"memory_bytes": 16 << 20, "swap_bytes": 0}});
    let script = "tail /dev/zero; while :; do usleep 100000; done";
    let id = run(&anna, "greedy", script, limits).await;
    let path = format!("/api/v1/containers/{id}/stats/history");
    let seen = until(&anna, &path, |seen| marks(seen).contains(&"out_of_memory")).await;
    let mark = &seen["marks"].as_array().expect("marks")[1];
    assert_eq!(mark["text"], "1 process killed: out of memory", "{seen}");
    assert_eq!(show(&anna, &id).await["status"], "running", "only the child was killed");
    let story = anna.get(&format!("/api/v1/containers/{id}/activity")).await.expect_status(200);
    let story = story.json();
    let kinds: Vec<_> = items(&story).iter().map(|item| item["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("container.oom_killed"), Some("container.create")], "{story}");
}

#[tokio::test]
async fn the_story_says_who_did_what() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "told", "exec sleep 600", json!({})).await;
    in_status(&anna, &id, "running").await;
    let base = format!("/api/v1/containers/{id}");
    let change = json!({"name": "retold", "limits": {"memory_bytes": 32 << 20}});
    anna.patch(&base, &change).await.expect_status(200);
    server.operator().post(&format!("{base}/kill"), &Value::Null).await.expect_status(200);
    let path = format!("{base}/activity");
    let ended = |story: &Value| items(story).iter().any(|item| item["kind"] == "container.ended");
    let story = until(&anna, &path, ended).await;
    let said: Vec<_> = items(&story)
        .iter()
        .rev()
        .map(|item| format!("{}: {}", item["by"].as_str().unwrap_or("-"), text(item)))
        .collect();
    let changed = "anna: changed limits: memory 512 MiB → 32 MiB; renamed it from told to retold";
    assert_eq!(said, ["anna: made it", changed, "olga: killed it", "-: killed by olga"]);
    assert!(!story.to_string().contains("127.0.0.1"), "no address of an operator: {story}");
    // Page by page it is the same.
    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let page = anna.get(&format!("{path}?limit=1{after}")).await.expect_status(200).json();
        paged.extend(items(&page).iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(&paged, items(&story));
    // The last run's end is a mark that says who.
    let hour = anna.get(&format!("{base}/stats/history")).await.json();
    assert_eq!(marks(&hour), ["start", "limits", "end"], "{hour}");
}

fn points(history: &Value) -> &[Value] {
    history["points"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().expect("a list")
}

fn text(item: &Value) -> &str {
    item["text"].as_str().expect("words")
}

fn marks(history: &Value) -> Vec<&str> {
    let marks = history["marks"].as_array().map(Vec::as_slice).unwrap_or_default();
    marks.iter().filter_map(|mark| mark["kind"].as_str()).collect()
}
