//! What nobody asked for is in the audit, too: what the kernel kills for memory, what a policy starts
//! again, what was lost; with whose it is, and counted where it goes on and on.

use serde_json::{Value, json};
use system_tests::containers::{import, in_status, run, until};
use system_tests::{Client, TestServer, requires_root};

/// The rows of a query, once `good` says that they are all there.
async fn rows(client: &Client, query: &str, good: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let path = format!("/api/v1/audit?limit=500&{query}");
    let seen = until(client, &path, |seen| good(items(seen))).await;
    items(&seen).to_vec()
}

fn items(seen: &Value) -> &[Value] {
    seen["items"].as_array().map_or(&[], Vec::as_slice)
}

#[tokio::test]
async fn a_kill_for_memory_is_in_the_audit_as_the_kernels() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let limits = json!({"limits": {"memory_bytes": 16 << 20, "swap_bytes": 0}});
    let id = run(&anna, "greedy", "exec tail /dev/zero", limits).await;
    in_status(&anna, &id, "exited").await;
    let query = format!("subject={id}&action=container.oom-kill");
    let row = rows(&olga, &query, |rows| !rows.is_empty()).await[0].clone();
    assert_eq!((&row["via"], &row["actor_name"]), (&json!("kernel"), &json!("system")), "{row}");
    assert_eq!((&row["owner_name"], &row["actor"]), (&json!("anna"), &Value::Null), "{row}");
    let state = olga.get("/api/v1/audit/verify").await.expect_status(200).json();
    assert_eq!(state["state"], "whole", "{state}");
}

#[tokio::test]
async fn what_a_policy_starts_again_is_in_the_audit_and_cannot_fill_it() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let policy = json!({"restart": {"name": "on-failure", "max_attempts": 4}});
    let id = run(&anna, "again", "exit 3", policy).await;
    // The control: it was started five times.
    let events = format!("/api/v1/events?subject={id}&kind=container.restarted");
    until(&anna, &events, |seen| items(seen).len() == 4).await;
    in_status(&anna, &id, "exited").await;
    let query = format!("subject={id}&action=container.restart");
    let first = rows(&olga, &query, |rows| !rows.is_empty()).await;
    assert_eq!((first.len(), &first[0]["times"]), (1, &json!(1)), "{first:?}");
    assert_eq!(first[0]["via"], "policy", "{first:?}");
    assert_eq!(first[0]["owner_name"], "anna", "{first:?}");
    // The rest is one row, when its minute is over or the server ends.
    server.stop_server();
    server.start_server().await;
    let all = rows(&olga, &query, |rows| rows.len() > 1).await;
    let times: Vec<_> = all.iter().map(|row| row["times"].as_u64()).collect();
    assert_eq!(times, [Some(3), Some(1)], "{all:?}");
    // The container's own story says it once, not twice.
    let story = anna.get(&format!("/api/v1/containers/{id}/activity")).await.expect_status(200);
    assert!(!story.text.contains("\"container.restart\""), "{}", story.text);
}

#[tokio::test]
async fn a_container_whose_monitor_is_lost_is_in_the_audit() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "lost", "exec sleep 600", json!({})).await;
    in_status(&anna, &id, "running").await;
    let monitors = server.monitors();
    assert_eq!(monitors.len(), 1, "{monitors:?}");
    let pid = nix::unistd::Pid::from_raw(monitors[0].cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("its own monitor");
    in_status(&anna, &id, "exited").await;
    let query = format!("subject={id}&action=container.lost");
    let row = rows(&olga, &query, |rows| !rows.is_empty()).await[0].clone();
    assert_eq!((&row["via"], &row["owner_name"]), (&json!("server"), &json!("anna")), "{row}");
}
