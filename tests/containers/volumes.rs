//! Volumes over the API: made, mounted by several containers, renamed, measured, removed; whose they are, how
//! many one may have; and that what is cut short is finished.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{IMAGE, act, import, in_status, log_with, run, show, until};
use system_tests::{Check, Client, Options, TestServer, requires_root};

async fn volume(client: &Client, name: &str) -> Value {
    client.post("/api/v1/volumes", &json!({"name": name})).await.expect_status(201).json()
}

fn mounts(volume: &str, target: &str) -> Value {
    json!({"mounts": [{"volume": volume, "target": target}]})
}

fn path(volume: &Value) -> String {
    format!("/api/v1/volumes/{}", volume["id"].as_str().expect("an id"))
}

#[tokio::test]
async fn a_volume_is_kept_over_containers_and_shared_by_them() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let made = volume(&anna, "data").await;
    assert_eq!((&made["name"], &made["containers"]), (&json!("data"), &json!(0)), "{made}");
    assert_eq!(made["used_by"], json!([]), "{made}");
    let writer = run(
        &anna,
        "writer",
        "echo kept > /data/file; echo wrote; sleep 1000",
        mounts("data", "/data"),
    );
    let writer = writer.await;
    log_with(&anna, &writer, "wrote").await;
    let more = json!({"mounts": [
        {"volume": made["id"], "target": "/x//y/", "read_only": true},
        {"volume": "data", "target": "/part", "sub_path": "./file"},
    ]});
    let text = "cat /x/y/file /part; echo no > /x/y/file; echo ended";
    let reader = run(&anna, "reader", text, more).await;
    let log = log_with(&anna, &reader, "ended").await;
    assert!(log.contains("kept\nkept\n") && log.contains("Read-only file system"), "{log}");
    let shown = show(&anna, &reader).await;
    let id = &made["id"];
    let expected = json!([
        {"volume": "data", "volume_id": id, "owner": null, "target": "/x/y", "read_only": true, "sub_path": null},
        {"volume": "data", "volume_id": id, "owner": null, "target": "/part", "read_only": false, "sub_path": "file"},
    ]);
    assert_eq!(shown["mounts"], expected);
    let seen = anna.get("/api/v1/volumes/data").await.expect_status(200).json();
    assert_eq!(seen["containers"], 2, "{seen}");
    let used: Vec<_> = seen["used_by"].as_array().expect("a list").iter().collect();
    assert_eq!(used.len(), 3, "{seen}");
    assert_eq!((&used[2]["container"], &used[2]["target"]), (&json!(writer), &json!("/data")));
    let used = &seen["used"];
    assert!(used["bytes"].as_u64() > Some(0) && used["entries"] == 1, "{seen}");
    assert!(used["measured_at"].is_string() && used["is_whole"] == true, "{seen}");
    let posture = format!("/api/v1/containers/{writer}/posture");
    let posture = anna.get(&posture).await.expect_status(200).json();
    let lines = posture["items"].as_array().expect("lines");
    let line = lines.iter().find(|line| line["id"] == "mount./data").expect("it shows");
    let value = line["value"].as_str().expect("a text");
    assert!(
        value.contains("nosuid") && value.contains("nodev") && line["word"] == "holds",
        "{line}"
    );
    // While containers have it, running or not, it stays.
    act(&anna, &writer, "kill").await.expect_status(200);
    let refused = anna.delete("/api/v1/volumes/data").await;
    assert_eq!((refused.status, refused.code()), (409, "volume.in-use".to_owned()));
    assert!(refused.text.contains("reader, writer"), "{}", refused.text);
    for id in [&writer, &reader] {
        anna.delete(&format!("/api/v1/containers/{id}?force=true")).await.expect_status(204);
    }
    let again = run(&anna, "again", "cat /data/file; echo ended", mounts("data", "/data")).await;
    assert!(log_with(&anna, &again, "ended").await.contains("kept"));
    is_renamed_and_removed(&server, &anna, (&made, &again)).await;
}

/// With another name it is the same, and what was asked for is said by that; then nothing has it.
async fn is_renamed_and_removed(server: &TestServer, anna: &Client, (made, again): (&Value, &str)) {
    let renamed = json!({"name": "results"});
    anna.patch("/api/v1/volumes/data", &renamed).await.expect_status(200);
    assert_eq!(anna.get("/api/v1/volumes/data").await.status, 404);
    let shown = show(anna, again).await;
    assert_eq!(shown["mounts"][0]["volume"], "results");
    assert_eq!(shown["content"]["request"]["mounts"][0]["volume"], "results");
    in_status(anna, again, "exited").await;
    act(anna, again, "start").await.expect_status(200);
    in_status(anna, again, "exited").await;
    anna.delete(&format!("/api/v1/containers/{again}")).await.expect_status(204);
    anna.delete("/api/v1/volumes/results").await.expect_status(204);
    assert_eq!(anna.get(&path(made)).await.status, 404);
    volume(anna, "results").await;
    let events = anna.get("/api/v1/events?limit=200").await.expect_status(200).text;
    for kind in ["volume.created", "volume.changed", "volume.removed"] {
        assert!(events.contains(&format!("\"{kind}\"")), "{kind}");
    }
    let audit = server.operator().get("/api/v1/audit?limit=200").await.expect_status(200).text;
    for action in ["volume.create", "volume.change", "volume.remove"] {
        assert!(audit.contains(&format!("\"{action}\"")), "{action}");
    }
}

#[tokio::test]
async fn anothers_volume_answers_as_one_that_never_existed() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, berta) = (server.person("anna", "user").await, server.person("berta", "user").await);
    let (olga, looks) = (server.operator(), server.person("looks", "auditor").await);
    import(&berta).await;
    let hers = volume(&anna, "data").await;
    let nobodys = "0123456789abcdef0123456789abcdef";
    let control = "its owner sees it";
    anna.get(&path(&hers)).await.expect_status(200);
    for key in [hers["id"].as_str().expect("an id"), nobodys, "data"] {
        let check = |variant: &str, answer: &system_tests::Answer| {
            let variant = format!("{variant} of {key}");
            let seen = format!("{} {}", answer.status, answer.code());
            Check { id: "A01", variant: &variant, control }.sees("404 not-found", seen);
        };
        let path = format!("/api/v1/volumes/{key}");
        check("GET", &berta.get(&path).await);
        check("PATCH", &berta.patch(&path, &json!({"name": "mine"})).await);
        check("DELETE", &berta.delete(&path).await);
        let mut body = json!({"image": IMAGE, "command": ["true"]});
        body["mounts"] = mounts(key, "/data")["mounts"].clone();
        let refused = berta.post("/api/v1/containers", &body).await.expect_status(422).json();
        assert_eq!(refused["fields"][0]["pointer"], "/mounts/0/volume", "{refused}");
        let told = refused["fields"][0]["detail"].as_str().expect("why").replace(key, "KEY");
        assert_eq!(told, "you have no volume \"KEY\"; make it first");
    }
    assert_eq!(berta.get("/api/v1/volumes").await.json()["items"], json!([]));
    // Her own may have the same name. Operators and auditors see both, page by page.
    volume(&berta, "data").await;
    for client in [&olga, &looks] {
        let first = client.get("/api/v1/volumes?limit=1").await.expect_status(200).json();
        let next = first["next"].as_str().expect("there is more");
        let second = format!("/api/v1/volumes?limit=1&after={next}");
        let second = client.get(&second).await.expect_status(200).json();
        assert!(second["next"].is_null(), "{second}");
        let mut owners =
            [&first, &second].map(|page| page["items"][0]["owner"]["name"].to_string());
        owners.sort();
        assert_eq!(owners, ["\"anna\"", "\"berta\""]);
    }
    assert_eq!(looks.delete(&path(&hers)).await.status, 403);
    // An operator's request names their own, not everybody's.
    assert_eq!(olga.get("/api/v1/volumes/data").await.status, 404);
    olga.delete(&path(&hers)).await.expect_status(204);
    assert_eq!(anna.get("/api/v1/volumes/data").await.status, 404);
    assert_eq!(berta.get("/api/v1/volumes/data").await.status, 200);
}

#[tokio::test]
async fn volumes_are_bounded_and_edits_say_what_they_were_made_from() {
    requires_root!();
    let sections = "[containers]\nvolumes_per_person_max = 2\n".to_owned();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let made = |name: &str, key: &'static str| {
        let request = anna.request("POST", "/api/v1/volumes").json(&json!({"name": name}));
        send(request.header("idempotency-key", key))
    };
    let first = made("one", "a").await.expect_status(201);
    let tag = first.header("etag").to_owned();
    assert_eq!(made("one", "a").await.expect_status(201).json()["id"], first.json()["id"]);
    let taken = made("one", "b").await;
    assert_eq!((taken.status, taken.code()), (409, "volume.name-taken".to_owned()));
    made("two", "c").await.expect_status(201);
    let many = made("three", "d").await;
    assert_eq!((many.status, many.code()), (507, "volume.too-many".to_owned()));
    assert!(many.text.contains("2 volumes and may have 2"), "{}", many.text);
    let rename = |name: &str, tag: &str| {
        let request = anna.request("PATCH", "/api/v1/volumes/one").json(&json!({"name": name}));
        send(request.header("if-match", tag))
    };
    let taken = rename("two", &tag).await;
    assert_eq!((taken.status, taken.code()), (409, "volume.name-taken".to_owned()));
    assert_eq!(rename("uno", "\"another\"").await.status, 412);
    let renamed = rename("uno", &tag).await.expect_status(200);
    assert_ne!(renamed.header("etag"), tag);
    let stale = anna.request("DELETE", "/api/v1/volumes/uno").header("if-match", &tag);
    assert_eq!(send(stale).await.status, 412);
    anna.delete("/api/v1/volumes/uno").await.expect_status(204);
    made("three", "e").await.expect_status(201);
    for bad in ["", "A", "a/b", "..", "-a", "0123456789abcdef"] {
        let refused = anna.post("/api/v1/volumes", &json!({"name": bad})).await;
        assert_eq!(refused.status, 422, "{bad:?}: {}", refused.text);
    }
}

#[tokio::test]
async fn what_is_cut_short_is_finished() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let gone = volume(&anna, "gone").await;
    let one = run(&anna, "one", "echo x > /v/x; echo ended", mounts("gone", "/v")).await;
    log_with(&anna, &one, "ended").await;
    in_status(&anna, &one, "exited").await;
    anna.delete(&format!("/api/v1/containers/{one}")).await.expect_status(204);
    // Without the supervisor volumes can be made, and a removal is taken and seen to later.
    server.kill_supervisor();
    volume(&anna, "later").await;
    anna.delete(&path(&gone)).await.expect_status(202);
    assert_eq!(anna.get(&path(&gone)).await.status, 404, "nobody sees it any more");
    server.kill_server();
    server.start_supervisor().await;
    server.start_server().await;
    let people = server.data_dir().join("people");
    let left = || {
        let mut find = std::process::Command::new("find");
        let listed = find.arg(&people).args(["-path", "*volumes*"]).output().expect("run find");
        String::from_utf8_lossy(&listed.stdout).contains(gone["id"].as_str().expect("an id"))
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while left() {
        assert!(std::time::Instant::now() < deadline, "it stays: {}", server.server_log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that the disk has lost is made anew, empty.
    let script = "ls -A /v; echo x > /v/x; echo ended";
    let again = run(&anna, "again", script, mounts("later", "/v")).await;
    log_with(&anna, &again, "ended").await;
    in_status(&anna, &again, "exited").await;
    let status = std::process::Command::new("sh")
        .args(["-c", "rm -r \"$0\"/*/volumes/*"])
        .arg(&people)
        .status();
    assert!(status.expect("run rm").success());
    act(&anna, &again, "start").await.expect_status(200);
    let path = format!("/api/v1/containers/{again}");
    let ended = |value: &Value| value["status"] == "exited" && value["run"] == 2;
    assert_eq!(until(&anna, &path, ended).await["exit"]["code"], 0);
    let log = log_with(&anna, &again, "ended\nended").await;
    assert!(!log.contains("x\n"), "{log}");
}
