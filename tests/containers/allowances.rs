//! What a person may use together: given by an operator, held by the kernel above their containers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use system_tests::containers::{act, import, in_status, kernel_says, run, until};
use system_tests::{Client, TestServer, requires_root};

/// The kernel's file of one of a container's limits.
fn kernel_file(shown: &Value, name: &str) -> PathBuf {
    let held = shown["limits_held"].as_array().expect("limits");
    let limit = held.iter().find(|limit| limit["name"] == name).expect("the limit");
    PathBuf::from(limit["file"].as_str().expect("a file"))
}

/// The pids controller's file of the cgroup above a container.
fn pids_above(shown: &Value) -> String {
    let own = kernel_file(shown, "pids");
    let above = own.parent().and_then(Path::parent).expect("a parent").join("pids.max");
    fs::read_to_string(above).expect("read it").trim().to_owned()
}

async fn id_of(client: &Client) -> String {
    client.get("/api/v1/me").await.expect_status(200).json()["id"].to_string()
}

#[tokio::test]
async fn an_allowance_is_held_changed_and_taken_back() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    import(&anna).await;
    let path = format!("/api/v1/people/{}/allowance", id_of(&anna).await);
    let free = anna.get(&path).await.expect_status(200).json();
    assert_eq!((&free["own"], &free["pids"]), (&json!(false), &json!(null)));
    // Nobody gives themselves more, or sees another's.
    let wanted = json!({"pids": 4000});
    assert_eq!(anna.put(&path, &wanted).await.status, 403);
    let ben = server.person("ben", "user").await;
    assert_eq!(ben.get(&path).await.status, 404);
    let set = json!({"pids": 100, "cpu_millis": 500, "containers_max": 2});
    let given = olga.put(&path, &set).await.expect_status(200).json();
    assert_eq!((&given["own"], &given["held"]), (&json!(true), &json!([])), "nothing runs");
    let wait = "while :; do usleep 20000; done";
    let id = run(&anna, "one", wait, json!({"limits": {"pids": 200}})).await;
    let shown = in_status(&anna, &id, "running").await;
    assert_eq!((pids_above(&shown).as_str(), kernel_says(&shown, "pids").as_str()), ("100", "200"));
    // Live, and each bound is told as the kernel has it.
    let given = olga.put(&path, &json!({"pids": 120, "containers_max": 2})).await;
    let given = given.expect_status(200).json();
    let held = given["held"].as_array().expect("a list");
    assert!(held.iter().all(|one| one["held"] == true) && held.len() == 5, "{held:?}");
    assert_eq!(pids_above(&shown), "120");
    let usage = anna.get("/api/v1/me/usage").await.expect_status(200).json();
    assert_eq!(
        (&usage["allowance"]["pids"], &usage["containers"]["max"]),
        (&json!(120), &json!(2))
    );
    // The third is one too many; the answer names the use and the bound.
    run(&anna, "two", wait, json!({})).await;
    let body = json!({"name": "three", "image": system_tests::containers::IMAGE});
    let refused = anna.post("/api/v1/containers", &body).await;
    assert_eq!((refused.status, refused.code()), (507, "container.too-many".to_owned()));
    assert!(refused.text.contains("2 containers and may have 2"), "{}", refused.text);
    // Everybody's applies again, and reaches who has none of their own.
    olga.put("/api/v1/allowance", &json!({"pids": 150})).await.expect_status(200);
    assert_eq!(pids_above(&shown), "120", "an own one stays");
    let back = olga.delete(&path).await.expect_status(200).json();
    assert_eq!((&back["own"], &back["pids"]), (&json!(false), &json!(150)));
    assert_eq!(pids_above(&shown), "150");
    let everybody = olga.put("/api/v1/allowance", &json!({"pids": 160})).await;
    assert_eq!(everybody.expect_status(200).json()["over"], json!([]));
    assert_eq!(pids_above(&shown), "160");
    // Each act is in the audit.
    let audit = olga.get("/api/v1/audit?limit=100").await.expect_status(200).text;
    for action in ["person.allowance", "person.allowance-default", "allowance.default"] {
        assert!(audit.contains(&format!("\"{action}\"")), "{action}");
    }
}

#[tokio::test]
async fn what_is_in_use_is_not_taken_away_and_who_is_over_is_named() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    import(&anna).await;
    let hog = "dd if=/dev/zero of=/dev/shm/file bs=1M count=40; while :; do usleep 20000; done";
    let id = run(&anna, "hog", hog, json!({"shm_bytes": 50 << 20})).await;
    in_status(&anna, &id, "running").await;
    let path = format!("/api/v1/people/{}", id_of(&anna).await);
    until(&anna, "/api/v1/me/usage", |usage| {
        usage["memory"]["used_bytes"].as_u64().is_some_and(|used| used > 40 << 20)
    })
    .await;
    let small = json!({"memory_bytes": 16 << 20, "swap_bytes": 0});
    let refused = olga.put(&format!("{path}/allowance"), &small).await;
    assert_eq!((refused.status, refused.code()), (409, "limits.memory-in-use".to_owned()));
    let still = olga.get(&format!("{path}/allowance")).await.expect_status(200).json();
    assert_eq!((&still["own"], &still["memory_bytes"]), (&json!(false), &json!(null)));
    let everybody = olga.put("/api/v1/allowance", &small).await.expect_status(200).json();
    assert_eq!(everybody["over"], json!(["anna"]));
    in_status(&anna, &id, "running").await;
    // What fits again is held from the next start on.
    act(&anna, &id, "kill").await.expect_status(200);
    in_status(&anna, &id, "exited").await;
    let next = run(&anna, "next", "while :; do usleep 20000; done", json!({})).await;
    let shown = in_status(&anna, &next, "running").await;
    let own = kernel_file(&shown, "memory");
    let above = own.parent().and_then(Path::parent).expect("a parent");
    let name = own.file_name().expect("a name");
    let text = fs::read_to_string(above.join(name)).expect("read it");
    assert_eq!(text.trim(), (16 << 20).to_string());
}
