//! Groups: made and bounded by an operator, held by the kernel above their people, whom an operator moves
//! while nothing of theirs runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, act, import, in_status, run};
use system_tests::{Client, TestServer, requires_root};

/// The pids controller's file of the cgroup above a container's person.
fn group_file(shown: &Value) -> PathBuf {
    let held = shown["limits_held"].as_array().expect("limits");
    let limit = held.iter().find(|limit| limit["name"] == "pids").expect("the limit");
    let own = Path::new(limit["file"].as_str().expect("a file"));
    own.ancestors().nth(3).expect("a group's").join("pids.max")
}

fn pids_of_group(shown: &Value) -> String {
    fs::read_to_string(group_file(shown)).expect("read it").trim().to_owned()
}

async fn id_of(client: &Client) -> String {
    client.get("/api/v1/me").await.expect_status(200).json()["id"].to_string()
}

#[tokio::test]
async fn a_group_is_bounded_and_people_move_while_nothing_runs() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    import(&anna).await;
    let person = format!("/api/v1/people/{}", id_of(&anna).await);
    let body = json!({"name": "course", "note": "spring"});
    let made = olga.post("/api/v1/groups", &body).await.expect_status(201).json();
    let id = made["id"].as_u64().expect("an id");
    assert!(id >= 1000, "{made}");
    let taken = olga.post("/api/v1/groups", &body).await;
    assert_eq!((taken.status, taken.code()), (409, "group.name-taken".to_owned()));
    let path = format!("/api/v1/groups/{id}");
    assert_eq!(anna.get(&path).await.status, 404, "she is not in it");
    let allowance = format!("{path}/allowance");
    let given = olga.put(&allowance, &json!({"pids": 90, "containers_max": 1})).await;
    assert_eq!(given.expect_status(200).json()["held"], json!([]), "nothing runs");
    // Not while something runs; then at once, and the next container is below the group's bound.
    let wait = "while :; do usleep 20000; done";
    let one = run(&anna, "one", wait, json!({"limits": {"pids": 70}})).await;
    let shown = in_status(&anna, &one, "running").await;
    assert_eq!(pids_of_group(&shown), "max", "the control");
    let busy = olga.patch(&person, &json!({"group": id})).await;
    assert_eq!((busy.status, busy.code()), (409, "person.busy".to_owned()));
    let still = olga.get(&person).await.expect_status(200).json();
    assert_eq!(still["group"], json!(2));
    act(&anna, &one, "kill").await.expect_status(200);
    in_status(&anna, &one, "exited").await;
    // The supervisor may still be clearing the run away.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut moved = olga.patch(&person, &json!({"group": id})).await;
    while moved.status == 409 && std::time::Instant::now() < patience {
        moved = olga.patch(&person, &json!({"group": id})).await;
    }
    assert_eq!(moved.expect_status(200).json()["group"], json!(id));
    act(&anna, &one, "start").await.expect_status(200);
    let shown = in_status(&anna, &one, "running").await;
    assert_eq!(pids_of_group(&shown), "90");
    // Live; and one more container is more than the group may have.
    let given = olga.put(&allowance, &json!({"pids": 80, "containers_max": 1})).await;
    let given = given.expect_status(200).json();
    let held = given["held"].as_array().expect("a list");
    assert!(held.len() == 5 && held.iter().all(|one| one["held"] == true), "{held:?}");
    assert_eq!(pids_of_group(&shown), "80");
    let refused = anna.post("/api/v1/containers", &json!({"name": "two", "image": IMAGE})).await;
    assert_eq!((refused.status, refused.code()), (507, "container.too-many".to_owned()));
    assert!(refused.text.contains("course has 1 containers and may have 1"), "{}", refused.text);
    // A group with people stays; so does the one that people begin in.
    let kept = olga.delete(&path).await;
    assert_eq!((kept.status, kept.code()), (409, "group.not-empty".to_owned()));
    let kept = olga.delete("/api/v1/groups/2").await;
    assert_eq!((kept.status, kept.code()), (409, "group.default".to_owned()));
    let empty = olga.post("/api/v1/groups", &json!({"name": "empty"})).await.expect_status(201);
    let empty = format!("/api/v1/groups/{}", empty.json()["id"]);
    olga.delete(&empty).await.expect_status(204);
    assert_eq!(olga.get(&empty).await.status, 404);
    let audit = olga.get("/api/v1/audit?limit=100").await.expect_status(200).text;
    for action in ["group.add", "group.allowance", "group.delete", "person.group"] {
        assert!(audit.contains(&format!("\"{action}\"")), "{action}");
    }
}
