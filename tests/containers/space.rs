//! My space: limits with what is in use, the last day, what ends, what takes the disk; and whom a lower rate would slow.

use serde_json::{Value, json};
use system_tests::containers::{import, in_status, run, until};
use system_tests::{TestServer, requires_root};

const MIB: u64 = 1 << 20;

fn limit<'a>(space: &'a Value, name: &str) -> &'a Value {
    let limits = space["limits"].as_array().expect("limits");
    limits.iter().find(|limit| limit["limit"] == name).expect("the limit")
}

fn named(space: &Value, list: &str, name: &str) -> bool {
    space[list].as_array().expect("a list").iter().any(|one| one["name"] == name)
}

#[tokio::test]
async fn everybody_sees_what_they_use_and_used_what_ends_and_what_takes_the_disk() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    import(&anna).await;
    let id = anna.get("/api/v1/me").await.expect_status(200).json()["id"].to_string();
    let allowance = json!({"memory_bytes": 512 * MIB, "containers_max": 4});
    let path = format!("/api/v1/people/{id}/allowance");
    olga.put(&path, &allowance).await.expect_status(200);
    let token = json!({"name": "nightly", "scope": "read", "days": 1});
    anna.post("/api/v1/tokens", &token).await.expect_status(201);
    let busy = "dd if=/dev/zero of=/dev/shm/file bs=1M count=16; while :; do :; done";
    let lives = run(&anna, "busy", busy, json!({"limits": {"cpu_millis": 300}})).await;
    in_status(&anna, &lives, "running").await;
    let look = json!({"reason": "to see"});
    olga.post(&format!("/api/v1/containers/{lives}/looks"), &look).await.expect_status(201);
    let place = "/api/v1/me/space";
    let used = |space: &Value| {
        let newest = space["points"].as_array().and_then(|points| points.last()).cloned();
        newest.is_some_and(|point| {
            point["cpu_millis"].as_u64() > Some(0) && point["memory_bytes"].as_u64() > Some(0)
        })
    };
    let space = until(&anna, place, used).await;
    let containers = limit(&space, "containers_max");
    assert_eq!((&containers["allowed"], &containers["used"]), (&json!(4), &json!(1)), "{space}");
    let memory = limit(&space, "memory_bytes");
    assert_eq!(memory["allowed"], 512 * MIB, "{memory}");
    assert!(memory["used"].as_u64() > Some(16 * MIB), "{memory}");
    assert_eq!(limit(&space, "images_max")["allowed"], Value::Null);
    assert!(named(&space, "ends", "nightly") && named(&space, "ends", "busy"), "{space}");
    assert!(space["largest"][0]["bytes"].as_u64() > Some(0), "the image: {space}");
    let week = anna.get("/api/v1/me/space?span=week").await.expect_status(200).json();
    assert_eq!(week["step_secs"], 7200, "{week}");
    let page = anna.get("/space").await.expect_status(200).text;
    assert!(page.contains("chart-memory") && page.contains("nightly"), "{page}");
    assert!(page.contains("/asks?limit=containers_max"), "{page}");
    // Nothing of it is anybody else's.
    let other = bert.get(place).await.expect_status(200).json();
    assert_eq!((&other["points"], &other["ends"]), (&json!([]), &json!([])), "{other}");
    assert_eq!(limit(&other, "containers_max")["used"], 0);
    // What was seen is there after a stop of the server.
    let before = space["points"].as_array().map(Vec::len);
    server.stop_server();
    server.start_server().await;
    let after = anna.get(place).await.expect_status(200).json();
    assert!(after["points"].as_array().map(Vec::len) >= before, "{after}");
    assert!(used(&after), "{after}");
}

#[tokio::test]
async fn who_moves_more_than_a_lower_rate_lets_them_is_named_before_it_is_saved() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    import(&anna).await;
    import(&bert).await;
    let writes = "while dd if=/dev/zero of=/f bs=1M count=16 oflag=direct; do :; done; sleep 1000";
    let lives = run(&anna, "writes", writes, json!({})).await;
    in_status(&anna, &lives, "running").await;
    let rests = run(&bert, "rests", "sleep 1000", json!({})).await;
    in_status(&bert, &rests, "running").await;
    // Whether this host counts what is written.
    let stats = format!("/api/v1/containers/{lives}/stats/history");
    let counted = |seen: &Value| {
        let points = seen["points"].as_array().expect("points");
        points.len() >= 2
    };
    let seen = until(&anna, &stats, counted).await;
    let most = |seen: &Value| {
        let points = seen["points"].as_array().expect("points").iter();
        points.filter_map(|point| point["write_bytes_per_sec"].as_u64()).max().unwrap_or(0)
    };
    if most(&seen) <= 2 * MIB {
        system_tests::programs::skip("this host does not count what is written to its disk");
        return;
    }
    let proposed = |rate: u64| json!({"io_write_bytes_per_sec": rate});
    let path = "/api/v1/allowance/preview";
    let told = olga.post(path, &proposed(MIB)).await.expect_status(200).json();
    let over = told["over"].as_array().expect("a list");
    assert_eq!(over.len(), 1, "bert moves nothing: {told}");
    assert_eq!(over[0]["name"], "anna", "{told}");
    let limit = &over[0]["limits"][0];
    assert_eq!(limit["limit"], "io_write_bytes_per_sec", "{told}");
    assert_eq!(limit["outcome"], "slower", "{told}");
    assert!(limit["used"].as_u64() > Some(MIB), "{told}");
    // The control: a rate that nobody reaches names nobody.
    let told = olga.post(path, &proposed(9_000_000_000)).await.expect_status(200).json();
    assert_eq!(told["over_total"], 0, "{told}");
}
