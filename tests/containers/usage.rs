//! What people use of what they may: sums that agree with the kernel's own files, and nobody else's.

use serde_json::{Value, json};
use system_tests::{Client, TestServer, requires_root};

use system_tests::containers::{act, import, import_another, in_status, run, show, until};

const BUSY: &str = "while :; do :; done";
const IDLE: &str = "while :; do usleep 20000; done";

async fn usage(client: &Client) -> Value {
    client.get("/api/v1/me/usage").await.expect_status(200).json()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn usage_is_the_sum_of_what_runs_beside_the_sum_of_its_limits() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let empty = usage(&anna).await;
    assert_eq!(empty["containers"], json!({"running": 0, "total": 0, "max": 200}));
    assert_eq!(empty["cpu"], json!({"used_millis": 0, "limit_millis": 0}));
    import(&anna).await;
    let limits = |memory: u64| json!({"limits": {"cpu_millis": 300, "memory_bytes": memory << 20, "pids": 20}});
    let busy = run(&anna, "busy", BUSY, limits(64)).await;
    let idle = run(&anna, "idle", IDLE, limits(32)).await;
    in_status(&anna, &busy, "running").await;
    in_status(&anna, &idle, "running").await;
    let used =
        until(&anna, "/api/v1/me/usage", |used| number(&used["cpu"]["used_millis"]) > 100).await;
    // Held to 300 thousandths; the idle one and the monitors take little.
    assert!(number(&used["cpu"]["used_millis"]) < 600, "{used}");
    assert_eq!(used["containers"], json!({"running": 2, "total": 2, "max": 200}));
    assert_eq!((&used["cpu"]["limit_millis"], &used["pids"]["limit"]), (&json!(600), &json!(40)));
    assert_eq!(number(&used["memory"]["limit_bytes"]), 96 << 20);
    let memory = number(&used["memory"]["used_bytes"]);
    assert!(memory > 0 && memory <= 96 << 20, "{used}");
    assert!((2..=8).contains(&number(&used["pids"]["used"])), "{used}");
    // A paused one holds what it holds; an ended one counts no more, nor do its limits.
    act(&anna, &idle, "pause").await.expect_status(200);
    assert_eq!(usage(&anna).await["containers"]["running"], 2);
    act(&anna, &busy, "kill").await.expect_status(200);
    in_status(&anna, &busy, "exited").await;
    let used = usage(&anna).await;
    assert_eq!(used["containers"], json!({"running": 1, "total": 2, "max": 200}));
    assert_eq!(number(&used["memory"]["limit_bytes"]), 32 << 20);
    assert!(number(&used["memory"]["used_bytes"]) <= 32 << 20, "{used}");
    // Nobody else's use shows it, and nobody else may ask for it but who sees everybody.
    assert_eq!(usage(&tom).await["containers"]["total"], 0);
    let path = format!("/api/v1/people/{}/usage", anna.get("/api/v1/me").await.json()["id"]);
    assert_eq!(tom.get(&path).await.status, 404);
    let seen = server.operator().get(&path).await.expect_status(200).json();
    assert_eq!(
        (&seen["person"]["name"], &seen["containers"]["running"]),
        (&json!("anna"), &json!(1))
    );
}

#[tokio::test]
async fn a_layer_counts_once_for_its_owner_and_once_on_the_machine() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    import(&anna).await;
    let one = usage(&anna).await["images"].clone();
    assert_eq!(one["count"], 1);
    assert!(number(&one["bytes"]) > 100_000, "{one}");
    import_another(&anna).await;
    let two = usage(&anna).await["images"].clone();
    assert_eq!((&two["count"], &two["bytes"]), (&json!(2), &one["bytes"]));
    import(&tom).await;
    // Tom's figure does not tell that somebody else has the same layer.
    assert_eq!(usage(&tom).await["images"]["bytes"], one["bytes"]);
    let system = server.operator().get("/api/v1/system/usage").await.expect_status(200).json();
    assert_eq!(
        (&system["images"]["count"], &system["images"]["bytes"]),
        (&json!(3), &one["bytes"])
    );
    let people = system["people"].as_array().expect("people");
    let named = |name: &str| people.iter().any(|row| row["person"]["name"] == name);
    assert!(named("anna") && named("tom"), "{system}");
    assert_eq!(system["people_total"], people.len());
}

#[tokio::test]
async fn the_machine_agrees_with_the_kernel() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "busy", BUSY, json!({"limits": {"cpu_millis": 500}})).await;
    in_status(&anna, &id, "running").await;
    let olga = server.operator();
    let path = "/api/v1/system/usage";
    let busy = |seen: &Value| number(&seen["machine"]["cpu_used_millis"]) > 200;
    let seen = until(&olga, path, busy).await;
    let machine = &seen["machine"];
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("a total");
    let total: u64 = total.trim().trim_end_matches(" kB").parse().expect("a number");
    assert_eq!(number(&machine["memory"]["total_bytes"]), total * 1024);
    let cpus = std::fs::read_to_string("/proc/stat").expect("stat");
    let cpus = cpus.lines().filter(|line| line.starts_with("cpu")).count() - 1;
    assert_eq!(number(&machine["cpus"]), cpus as u64);
    assert!(number(&machine["disk"]["total_bytes"]) > number(&machine["disk"]["available_bytes"]));
    assert_eq!(machine["pressure"].is_object(), std::path::Path::new("/proc/pressure/io").exists());
    assert_eq!(seen["containers"]["running"], 1);
    assert_eq!(seen["people"][0]["person"]["name"], "anna", "most memory first: {seen}");
    // The control: the container is the one that the kernel shows.
    assert_eq!(show(&anna, &id).await["status"], "running");
}

/// Sums of today, by name.
async fn today(client: &Client) -> Value {
    client.get("/api/v1/usage/days").await.expect_status(200).json()["items"].clone()
}

#[tokio::test]
async fn what_was_used_is_summed_by_day_and_no_kill_loses_processor_time() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    import(&anna).await;
    let busy = run(&anna, "busy", BUSY, json!({})).await;
    in_status(&anna, &busy, "running").await;
    let spent = |sample: &Value| sample["sample"]["cpu"]["usage_usec"].as_u64().unwrap_or(0);
    let path = format!("/api/v1/containers/{busy}/stats");
    until(&anna, &path, |sample| spent(sample) > 2_000_000).await;
    // Nothing is written down yet; the container computes on while nobody counts.
    server.kill_server();
    server.start_server().await;
    let sample = until(&anna, &path, |sample| spent(sample) > 9_000_000).await;
    server.stop_server();
    server.start_server().await;
    let days = today(&anna).await;
    assert_eq!(days.as_array().map(Vec::len), Some(1), "{days}");
    let hours = |day: &Value, what: &str| day[what].as_f64().expect("a number");
    // The thousandth of an hour is 3.6 s.
    let seen = hours(&days[0], "cpu_hours") * 3600.0;
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let real = spent(&sample) as f64 / 1e6;
    assert!(seen > real - 2.0 && seen < real + 30.0, "{seen} s of {real} s: {days}");
    assert!(hours(&days[0], "container_hours") > 0.0, "{days}");
    assert_eq!(days[0]["person"]["name"], "anna");
    // Nobody else's shows it but theirs who see everybody.
    assert_eq!(today(&tom).await, json!([]));
    assert_eq!(today(&server.operator()).await[0]["person"]["name"], "anna");
    let anna_id = anna.get("/api/v1/me").await.json()["id"].clone();
    let of_anna = format!("/api/v1/usage/days?person={anna_id}");
    assert_eq!(tom.get(&of_anna).await.status, 404);
    let table = anna.get(&format!("{of_anna}&format=csv")).await.expect_status(200).text;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 2 && lines[1].contains(",anna,"), "{table}");
    // The processor time of what has ended is kept.
    act(&anna, &busy, "kill").await.expect_status(200);
    in_status(&anna, &busy, "exited").await;
    server.stop_server();
    server.start_server().await;
    assert!(hours(&today(&anna).await[0], "cpu_hours") >= hours(&days[0], "cpu_hours"));
}
