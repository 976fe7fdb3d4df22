//! A volume is handed over by an operator: whose it is, what becomes of its shares and of containers that name it, and
//! that a kill of the server in between loses nothing.

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{act, import, in_status, log_with, ready, run, show, until};
use system_tests::{Client, TestServer, requires_root};

fn mounts(volume: &str) -> Value {
    json!({"mounts": [{"volume": volume, "target": "/d"}]})
}

async fn volume(client: &Client, name: &str) -> String {
    let made = client.post("/api/v1/volumes", &json!({"name": name})).await.expect_status(201);
    made.json()["id"].as_str().expect("an id").to_owned()
}

async fn upload(client: &Client, id: &str, text: &str) {
    let path = format!("/api/v1/volumes/{id}/files/content?path=/file");
    let request = client.request("PUT", &path).header("content-type", "application/octet-stream");
    send(request.body(text.to_owned())).await.expect_status(200);
}

#[tokio::test]
async fn a_volume_is_given_to_somebody_else_with_all_that_is_in_it() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let eve = server.person("eve", "user").await;
    let olga = server.operator();
    import(&anna).await;
    import(&tom).await;
    let id = volume(&anna, "data").await;
    upload(&anna, &id, "annas").await;
    let path = format!("/api/v1/volumes/{id}");
    let share = json!({"kind": "person", "name": "eve", "rights": ["files"]});
    anna.put(&format!("{path}/grants"), &share).await.expect_status(200);
    volume(&tom, "data").await;
    let text = "cat /d/file; echo ran; while :; do usleep 50000; done";
    let works = run(&anna, "works", text, mounts("data")).await;
    log_with(&anna, &works, "ran").await;
    let give = |to: &str| json!({"to": to});
    let over = format!("{path}/hand-over");
    assert_eq!(anna.post(&over, &give("tom")).await.status, 403, "only operators do");
    for (to, status, text) in
        [("nobody", 422, "nobody of this name"), ("anna", 422, "theirs already")]
    {
        let refused = olga.post(&over, &give(to)).await;
        assert!(refused.status == status && refused.text.contains(text), "{}", refused.text);
    }
    let held = olga.post(&over, &give("tom")).await;
    assert_eq!((held.status, held.code()), (409, "volume.in-use".to_owned()));
    assert!(held.text.contains("works of anna"), "{}", held.text);
    act(&anna, &works, "kill").await.expect_status(200);
    in_status(&anna, &works, "exited").await;
    until_given(&olga, &over).await;
    // It is his under another name, since he has one of this; nobody else has it any more.
    for client in [&anna, &eve] {
        assert_eq!(client.get(&path).await.status, 404);
    }
    let seen = tom.get(&path).await.expect_status(200).json();
    assert_eq!(
        (&seen["owner"]["name"], &seen["name"]),
        (&json!("tom"), &json!(format!("data-{}", &id[..6])))
    );
    assert_eq!(tom.get(&format!("{path}/grants")).await.json()["items"], json!([]));
    let reads = run(&tom, "reads", "cat /d/file; echo ended", mounts(&id)).await;
    assert!(log_with(&tom, &reads, "ended").await.contains("annas"));
    assert_eq!(act(&anna, &works, "start").await.code(), "volume.not-shared");
    assert_eq!(show(&anna, &works).await["mounts"][0]["volume"], json!(id), "no name of his");
    for (client, kind) in [(&anna, "volume.given"), (&tom, "volume.received")] {
        let events = client.get("/api/v1/events").await.json().to_string();
        assert!(events.contains(kind), "{events}");
    }
    let audit = olga.get("/api/v1/audit?limit=200").await.json()["items"].clone();
    let rows = audit.as_array().expect("rows").iter();
    let of = |action: &str| {
        rows.clone()
            .filter(|row| row["action"] == action)
            .map(|row| row["owner_name"].clone())
            .collect::<Vec<_>>()
    };
    assert!(of("volume.hand-over").contains(&json!("anna")), "{audit}");
    assert_eq!(of("volume.receive"), [json!("tom")], "{audit}");
}

/// The run that had it may be being cleared away yet.
async fn until_given(olga: &Client, path: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let answer = olga.post(path, &json!({"to": "tom"})).await;
        if answer.status == 204 {
            return;
        }
        let waits = answer.code() == "volume.in-use" || answer.code() == "volume.moving";
        assert!(waits && std::time::Instant::now() < deadline, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_kill_of_the_server_leaves_a_hand_over_that_goes_on() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let olga = server.operator();
    import(&anna).await;
    let id = volume(&anna, "data").await;
    let text = "dd if=/dev/urandom of=/d/big bs=1M count=80 2>/dev/null; echo wrote";
    let fill = run(&anna, "fills", text, mounts("data")).await;
    log_with(&anna, &fill, "wrote").await;
    in_status(&anna, &fill, "exited").await;
    let path = format!("/api/v1/volumes/{id}");
    let asked = {
        let (olga, over) = (olga.clone(), format!("{path}/hand-over"));
        tokio::spawn(async move {
            send(olga.request("POST", &over).json(&json!({"to": "tom"}))).await.status
        })
    };
    // As soon as it is wished, nothing else is done with it.
    until(&olga, "/api/v1/events", |list| list.to_string().contains("volume.handing_over")).await;
    server.kill_server();
    asked.abort();
    server.start_server().await;
    ready(&server).await;
    let taken = until(&tom, "/api/v1/volumes", |list| list["items"][0]["id"] == json!(id)).await;
    assert_eq!(taken["items"][0]["name"], "data", "{taken}");
    let files = tom.get(&format!("{path}/files?path=/")).await.expect_status(200).json();
    assert_eq!(files["items"][0]["name"], "big", "{files}");
    assert_eq!(anna.get(&path).await.status, 404);
}
