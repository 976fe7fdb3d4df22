//! A05: names, and two people who must not know of each other.

use serde_json::json;
use system_tests::{Check, TestServer, requires_root};

use system_tests::containers::{IMAGE, import};

#[tokio::test]
async fn names_are_strict_wherever_they_enter() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let made = anna.post("/api/v1/containers", &json!({"image": IMAGE, "name": "good"})).await;
    let id = made.expect_status(201).json()["id"].as_str().expect("an id").to_owned();
    let long = "a".repeat(4096);
    for bad in [
        "..",
        "%2e%2e%2f",
        "a/b",
        "a\0b",
        &long,
        "аdmin",
        "-rf",
        "Upper",
        "a b",
        "",
        &id,
        &id[..12],
    ] {
        let refused = anna.post("/api/v1/containers", &json!({"image": IMAGE, "name": bad})).await;
        let shown: String = bad.escape_debug().take(20).collect();
        let control = "a good name is taken by the same requests";
        Check { id: "A05", variant: &format!("name {shown}"), control }.sees(422, refused.status);
        let fields = refused.json()["fields"].to_string() + &refused.json()["errors"].to_string();
        assert!(fields.contains("/name"), "{bad:?}: {}", refused.text);
        let path = format!("/api/v1/containers/{id}");
        assert_eq!(anna.patch(&path, &json!({"name": bad})).await.status, 422, "{bad:?}");
    }
    // The control: a good one is taken, and then taken.
    let path = format!("/api/v1/containers/{id}");
    anna.patch(&path, &json!({"name": "better-1.0"})).await.expect_status(200);
    assert_eq!(anna.get("/api/v1/containers/better-1.0").await.expect_status(200).json()["id"], id);
    let body = json!({"image": IMAGE, "name": "better-1.0"});
    let refused = anna.post("/api/v1/containers", &body).await;
    assert_eq!((refused.status, refused.code()), (409, "container.name-taken".to_owned()));
}

#[tokio::test]
async fn two_people_use_one_name_and_neither_sees_the_other() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    import(&anna).await;
    import(&bert).await;
    let body = json!({"image": IMAGE, "name": "web", "env": {"SECRET": "annas"}});
    let annas = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let body = json!({"image": IMAGE, "name": "web"});
    let berts = bert.post("/api/v1/containers", &body).await.expect_status(201).json();
    assert_ne!(annas["id"], berts["id"]);
    let annas_id = annas["id"].as_str().expect("an id");
    assert_eq!(bert.get("/api/v1/containers/web").await.json()["id"], berts["id"]);
    for key in [annas_id, &annas_id[..12]] {
        let path = format!("/api/v1/containers/{key}");
        let never = bert.get("/api/v1/containers/0123456789abcdef0123456789abcdef").await;
        let foreign = bert.get(&path).await;
        assert_eq!((foreign.status, foreign.body_without_id()), (404, never.body_without_id()));
        assert_eq!(bert.delete(&format!("{path}?force=true")).await.status, 404);
    }
    let listed = bert.get("/api/v1/containers").await.text;
    assert!(!listed.contains(annas_id) && !listed.contains("anna"), "{listed}");
    // The operator sees that it is there, not what is in it.
    let seen = server.operator().get(&format!("/api/v1/containers/{annas_id}")).await.json();
    assert_eq!((&seen["name"], &seen["content"]), (&json!("web"), &json!(null)));
    let logs = server.operator().get(&format!("/api/v1/containers/{annas_id}/logs")).await;
    assert_eq!(logs.status, 403);
}

#[tokio::test]
async fn what_no_file_can_be_called_is_the_callers_mistake() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let (part, long) = ("d".repeat(300), "x".repeat(20_000));
    for (what, body) in [
        ("program", json!({"command": [long]})),
        ("a part of the program", json!({"command": [format!("/{part}/sh")]})),
        ("working_dir", json!({"working_dir": format!("/{part}")})),
        ("tmpfs", json!({"tmpfs": [{"target": format!("/{part}"), "size_bytes": 4096}]})),
    ] {
        let mut body = body;
        body["image"] = json!(IMAGE);
        body["start"] = json!(true);
        let refused = anna.post("/api/v1/containers", &body).await;
        let control = "the same container with a shorter one starts";
        let variant = format!("too long a {what}");
        Check { id: "A05", variant: &variant, control }.sees(422, refused.status);
        assert!(refused.text.len() < 2000, "{}", refused.text.len());
    }
    let body = json!({"image": IMAGE, "start": true, "working_dir": "/d",
        "command": ["true"], "tmpfs": [{"target": "/d", "size_bytes": 4096}]});
    anna.post("/api/v1/containers", &body).await.expect_status(201);
}
