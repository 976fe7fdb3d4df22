//! What a person may use together: given by an operator, held by the kernel above their containers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, act, import, in_status, kernel_says, run, until};
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
    let id = run(&anna, "one", wait, json!({"limits": {"pids": 90}})).await;
    let shown = in_status(&anna, &id, "running").await;
    assert_eq!((pids_above(&shown).as_str(), kernel_says(&shown, "pids").as_str()), ("100", "90"));
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
    let body = json!({"name": "three", "image": IMAGE});
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

fn wait() -> &'static str {
    "while :; do usleep 20000; done"
}

/// One container that asks for more than the sum could never have it: made, started, restarted and
/// changed it is refused, and the answer says by how much and who can lift it. Two that have more than
/// the sum between them are what the kernel is there for.
#[tokio::test]
async fn one_container_never_asks_for_more_than_all_may_have() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    import(&anna).await;
    let path = format!("/api/v1/people/{}/allowance", id_of(&anna).await);
    let large = json!({"limits": {"memory_bytes": 96 << 20}});
    // The control: without an allowance it is made.
    let before = run(&anna, "before", wait(), large.clone()).await;
    in_status(&anna, &before, "running").await;
    let set = json!({"memory_bytes": 64 << 20, "pids": 40, "cpu_millis": 900, "ports_max": 1});
    olga.put(&path, &set).await.expect_status(200);
    for (field, asked, allowed) in
        [("memory_bytes", 96_u64 << 20, 64_u64 << 20), ("pids", 41, 40), ("cpu_millis", 1000, 900)]
    {
        let body = json!({"name": "large", "image": IMAGE, "limits": {field: asked}});
        let refused = anna.post("/api/v1/containers", &body).await;
        assert_eq!((refused.status, refused.code()), (507, "container.above-allowance".to_owned()));
        let limit = &refused.json()["limit"];
        assert_eq!(
            (&limit["limit"], &limit["of"], &limit["name"], &limit["lifted_by"]),
            (&json!(field), &json!("person"), &json!("anna"), &json!("operator")),
            "{limit}"
        );
        assert_eq!((&limit["asked"], &limit["allowed"]), (&json!(asked), &json!(allowed)));
        assert!(refused.text.contains("ask an operator"), "{}", refused.text);
    }
    assert!(anna.get("/api/v1/containers/large").await.status == 404, "nothing was made");
    // What is not asked for is no more than may be had; and two at the sum are admitted.
    let one = run(&anna, "one", wait(), json!({})).await;
    let shown = in_status(&anna, &one, "running").await;
    assert_eq!(
        (
            &shown["limits"]["memory_bytes"],
            &shown["limits"]["pids"],
            &shown["limits"]["cpu_millis"]
        ),
        (&json!(64 << 20), &json!(40), &json!(900))
    );
    let two = run(&anna, "two", wait(), json!({"limits": {"memory_bytes": 64 << 20}})).await;
    in_status(&anna, &two, "running").await;
    // What grows beyond is refused, of what runs and of what does not; what shrinks is taken.
    let container = format!("/api/v1/containers/{one}");
    let refused = anna.patch(&container, &json!({"limits": {"memory_bytes": 65 << 20}})).await;
    assert_eq!((refused.status, refused.code()), (507, "container.above-allowance".to_owned()));
    assert!(refused.json()["limit"]["used"].as_u64().is_some_and(|used| used > 0), "{refused:?}");
    let still = in_status(&anna, &one, "running").await;
    assert_eq!(still["limits"]["memory_bytes"], json!(64 << 20));
    let small = json!({"limits": {"memory_bytes": 32 << 20}});
    anna.patch(&container, &small).await.expect_status(200);
    let other = format!("/api/v1/containers/{before}");
    let smaller = json!({"limits": {"memory_bytes": 80 << 20}});
    anna.patch(&other, &smaller).await.expect_status(200);
    // What was admitted before runs on, and is neither started again nor stopped for that.
    let refused = act(&anna, &before, "restart").await;
    assert_eq!((refused.status, refused.code()), (507, "container.above-allowance".to_owned()));
    in_status(&anna, &before, "running").await;
    act(&anna, &before, "kill").await.expect_status(200);
    in_status(&anna, &before, "exited").await;
    let refused = act(&anna, &before, "start").await;
    assert_eq!((refused.status, refused.code()), (507, "container.above-allowance".to_owned()));
    let fits = json!({"limits": {"memory_bytes": 64 << 20, "cpu_millis": 900, "pids": 40}});
    anna.patch(&other, &fits).await.expect_status(200);
    act(&anna, &before, "start").await.expect_status(200);
    // The ports of all together.
    let ports = json!([{"container_port": 80}, {"container_port": 81}]);
    let body = json!({"name": "ports", "image": IMAGE, "ports": ports});
    let refused = anna.post("/api/v1/containers", &body).await;
    assert_eq!((refused.status, refused.code()), (507, "port.too-many".to_owned()));
    assert_eq!(refused.json()["limit"]["allowed"], json!(1), "{}", refused.text);
}

/// The group's sum is looked at as a person's is, and named.
#[tokio::test]
async fn a_groups_allowance_refuses_what_its_people_could_never_have() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    import(&anna).await;
    let set = json!({"memory_bytes": 64 << 20, "ports_max": 1});
    olga.put("/api/v1/groups/2/allowance", &set).await.expect_status(200);
    let body = json!({"name": "large", "image": IMAGE, "limits": {"memory_bytes": 96 << 20}});
    let refused = anna.post("/api/v1/containers", &body).await;
    assert_eq!((refused.status, refused.code()), (507, "container.above-allowance".to_owned()));
    let limit = &refused.json()["limit"];
    assert_eq!((&limit["of"], &limit["name"]), (&json!("group"), &json!("everybody")), "{limit}");
    let one = run(&anna, "one", wait(), json!({"ports": [{"container_port": 80}]})).await;
    assert_eq!(in_status(&anna, &one, "running").await["limits"]["memory_bytes"], json!(64 << 20));
    let ben = server.person("ben", "user").await;
    import(&ben).await;
    let body = json!({"name": "b", "image": IMAGE, "ports": [{"container_port": 80}]});
    let refused = ben.post("/api/v1/containers", &body).await;
    assert_eq!((refused.status, refused.code()), (507, "port.too-many".to_owned()));
    assert!(refused.text.contains("your group everybody has 1 ports"), "{}", refused.text);
}

/// "Who would be over?" names who uses more now, of what, and what would happen; it changes nothing.
#[tokio::test]
async fn who_would_be_over_is_told_before_an_allowance_is_given() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    let ben = server.person("ben", "user").await;
    import(&anna).await;
    let hog = "dd if=/dev/zero of=/dev/shm/file bs=1M count=40; while :; do :; done";
    let more = json!({"shm_bytes": 50 << 20, "limits": {"pids": 60, "memory_bytes": 256 << 20}});
    let id = run(&anna, "hog", hog, more).await;
    in_status(&anna, &id, "running").await;
    until(&anna, "/api/v1/me/usage", |usage| {
        usage["memory"]["used_bytes"].as_u64().is_some_and(|used| used > 40 << 20)
    })
    .await;
    let (anna_id, ben_id) = (id_of(&anna).await, id_of(&ben).await);
    let proposed =
        json!({"memory_bytes": 16 << 20, "pids": 8, "cpu_millis": 10, "containers_max": 0});
    let path = |id: &str| format!("/api/v1/people/{id}/allowance/preview");
    let told = olga.post(&path(&anna_id), &proposed).await.expect_status(200).json();
    let over = &told["over"][0];
    assert_eq!((&over["name"], &told["over_total"]), (&json!("anna"), &json!(1)), "{told}");
    let of = |name: &str| {
        let limits = over["limits"].as_array().expect("limits");
        limits.iter().find(|one| one["limit"] == name).cloned().unwrap_or_default()
    };
    let memory = of("memory_bytes");
    assert!(memory["used"].as_u64().is_some_and(|used| used > 40 << 20), "{told}");
    assert_eq!((&memory["proposed"], &memory["outcome"]), (&json!(16 << 20), &json!("kept")));
    assert_eq!(of("cpu_millis")["outcome"], "slower", "{told}");
    assert_eq!(of("containers_max")["used"], json!(1), "{told}");
    assert_eq!(over["containers_total"], json!(1), "{told}");
    assert_eq!(over["containers"][0]["name"], "hog", "{told}");
    // What does not hold yet is as it was; what cannot be given is refused as it is when it is given.
    let now = olga.get(&format!("/api/v1/people/{anna_id}/allowance")).await.json();
    assert_eq!((&now["own"], &now["memory_bytes"]), (&json!(false), &json!(null)));
    assert_eq!(olga.post(&path(&anna_id), &json!({"pids": 1})).await.status, 422);
    assert_eq!(olga.post(&path("999"), &proposed).await.status, 404);
    // Nobody is over where nothing is used, and a bound that is wide enough meets nobody.
    let told = olga.post(&path(&ben_id), &proposed).await.expect_status(200).json();
    assert_eq!(told, json!({"over": [], "over_total": 0}));
    let wide = json!({"memory_bytes": 1_u64 << 40, "pids": 4000});
    let told = olga.post(&path(&anna_id), &wide).await.expect_status(200).json();
    assert_eq!(told["over"], json!([]));
    // Everybody's meets those who have none of their own; the group's is a sum.
    let told = olga.post("/api/v1/allowance/preview", &proposed).await.expect_status(200).json();
    assert_eq!((&told["over"][0]["name"], &told["over_total"]), (&json!("anna"), &json!(1)));
    olga.put(&format!("/api/v1/people/{anna_id}/allowance"), &json!({})).await.expect_status(200);
    let told = olga.post("/api/v1/allowance/preview", &proposed).await.expect_status(200).json();
    assert_eq!(told["over"], json!([]), "anna has an allowance of her own");
    let told = olga.post("/api/v1/groups/2/allowance/preview", &proposed).await;
    let told = told.expect_status(200).json();
    assert_eq!(
        (&told["over"][0]["of"], &told["over"][0]["name"], &told["over"][1]["name"]),
        (&json!("group"), &json!("everybody"), &json!("anna")),
        "{told}"
    );
}
