//! A volume that is shared: who finds it and mounts it how, whose what is written is, what others learn of it, and what
//! comes of it when it is shared no more or removed.

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{IMAGE, act, import, in_status, log_with, ready, run, show, until};
use system_tests::{Answer, Check, Client, TestServer, requires_root};

fn mounts(volume: &str, target: &str, read_only: bool) -> Value {
    json!({"mounts": [{"volume": volume, "target": target, "read_only": read_only}]})
}

async fn volume(client: &Client, name: &str) -> String {
    let made = client.post("/api/v1/volumes", &json!({"name": name})).await.expect_status(201);
    made.json()["id"].as_str().expect("an id").to_owned()
}

async fn share(client: &Client, id: &str, with: (&str, &str), rights: &[&str]) -> Answer {
    let body = json!({"kind": with.0, "name": with.1, "rights": rights});
    client.put(&format!("/api/v1/volumes/{id}/grants"), &body).await
}

async fn unshare(client: &Client, id: &str, name: &str) {
    let path = format!("/api/v1/volumes/{id}/grants?kind=person&name={name}");
    client.delete(&path).await.expect_status(204);
}

async fn refused(client: &Client, mounts: &Value) -> Value {
    let mut body = json!({"image": IMAGE, "command": ["true"]});
    body["mounts"] = mounts["mounts"].clone();
    client.post("/api/v1/containers", &body).await.expect_status(422).json()
}

async fn upload(client: &Client, id: &str, path: &str, text: &str) -> Answer {
    let path = format!("/api/v1/volumes/{id}/files/content?path={path}");
    let request = client.request("PUT", &path).header("content-type", "application/octet-stream");
    send(request.body(text.to_owned())).await
}

#[tokio::test]
async fn a_volume_is_read_and_written_by_whom_it_is_shared_with_and_stays_its_owners() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    import(&anna).await;
    import(&tom).await;
    let id = volume(&anna, "data").await;
    let first =
        run(&anna, "first", "echo annas > /d/file; echo wrote", mounts("data", "/d", false));
    let first = first.await;
    log_with(&anna, &first, "wrote").await;
    // Before it is shared it is not there, by id or by name.
    let control = "with a share the same requests are taken";
    for key in [id.as_str(), "anna/data", "nobody/data", "data"] {
        let told = refused(&tom, &mounts(key, "/d", true)).await;
        let detail = told["fields"][0]["detail"].as_str().expect("why").replace(key, "KEY");
        let check = Check { id: "A01", variant: &format!("mount {key}"), control };
        check.sees("you have no volume \"KEY\"; make it first", detail);
        let key = key.replace('/', "%2F");
        assert_eq!(tom.get(&format!("/api/v1/volumes/{key}")).await.status, 404);
    }
    // To be read: found, mounted read-only, and nothing else.
    let given = share(&anna, &id, ("person", "tom"), &["files"]).await.expect_status(200).json();
    assert_eq!((&given["rights"], &given["known"]), (&json!(["state", "files"]), &json!(false)));
    let listed = tom.get("/api/v1/volumes").await.expect_status(200).json();
    let seen = &listed["items"][0];
    assert_eq!((&seen["id"], &seen["owner"]["name"]), (&json!(id), &json!("anna")), "{listed}");
    assert_eq!((&seen["rights"], &seen["containers"]), (&json!(["state", "files"]), &json!(0)));
    let shown = tom.get("/api/v1/volumes/anna%2Fdata").await.expect_status(200).json();
    assert_eq!((&shown["used_by"], &shown["used_by_others"]), (&json!([]), &json!([])));
    let told = refused(&tom, &mounts("anna/data", "/d", false)).await;
    assert_eq!(told["fields"][0]["pointer"], "/mounts/0/read_only", "{told}");
    let reader = run(
        &tom,
        "reader",
        "cat /d/file; echo x > /d/file; id -u; echo ended; while :; do usleep 50000; done",
        mounts("anna/data", "/d", true),
    );
    let reader = reader.await;
    let log = log_with(&tom, &reader, "ended").await;
    assert!(log.contains("annas\n") && log.contains("Read-only file system"), "{log}");
    let mount = show(&tom, &reader).await["mounts"][0].clone();
    assert_eq!((&mount["volume"], &mount["owner"]), (&json!("anna/data"), &json!("anna")));
    let asked = show(&tom, &reader).await["content"]["request"]["mounts"][0]["volume"].clone();
    assert_eq!(asked, "anna/data", "it can be asked for again");
    let files = format!("/api/v1/volumes/{id}/files");
    tom.get(&format!("{files}?path=/")).await.expect_status(200);
    assert_eq!(upload(&tom, &id, "/toms", "t").await.code(), "sharing.not-granted");
    for answer in [
        tom.patch(&format!("/api/v1/volumes/{id}"), &json!({"name": "mine"})).await,
        tom.delete(&format!("/api/v1/volumes/{id}")).await,
        tom.get(&format!("/api/v1/volumes/{id}/grants")).await,
        share(&tom, &id, ("person", "eve"), &["files"]).await,
    ] {
        assert_eq!((answer.status, answer.code()), (403, "sharing.not-granted".to_owned()));
    }
    // To be written as well: what tom writes is anna's, and as hers inside.
    share(&anna, &id, ("person", "tom"), &["write"]).await.expect_status(200);
    let text = "echo toms > /d/mine; echo done; while :; do usleep 50000; done";
    let writer = run(&tom, "writer", text, mounts(&id, "/d", false)).await;
    log_with(&tom, &writer, "done").await;
    upload(&tom, &id, "/uploaded", "text").await.expect_status(200);
    let text = "cat /d/mine /d/uploaded; rm /d/mine; mkdir /d/sub; echo back";
    let back = run(&anna, "back", text, mounts("data", "/d", false)).await;
    assert!(log_with(&anna, &back, "back").await.contains("toms\ntext"));
    is_seen_and_ended(&server, (&anna, &tom), &id, (&reader, &writer)).await;
}

/// The owner sees who has it and can remove it only when none of them runs; the end of the share leaves what runs and
/// starts nothing.
async fn is_seen_and_ended(
    server: &TestServer,
    (anna, tom): (&Client, &Client),
    id: &str,
    (reader, writer): (&str, &str),
) {
    let seen = anna.get("/api/v1/volumes/data").await.expect_status(200).json();
    let others = json!([{"person": "tom", "containers": 2, "running": 2}]);
    assert_eq!(seen["used_by_others"], others, "{seen}");
    assert_eq!(seen["used_by"].as_array().map(Vec::len), Some(2), "her own alone: {seen}");
    assert!(!seen.to_string().contains("reader"), "no name of his: {seen}");
    for name in ["first", "back"] {
        in_status(anna, name, "exited").await;
        anna.delete(&format!("/api/v1/containers/{name}")).await.expect_status(204);
    }
    let path = format!("/api/v1/volumes/{id}");
    let held = anna.delete(&path).await;
    assert_eq!((held.status, held.code()), (409, "volume.in-use".to_owned()));
    assert!(held.text.contains("2 running containers of tom"), "{}", held.text);
    // Killed between the end of the share and whatever comes of it.
    unshare(anna, id, "tom").await;
    server.kill_server();
    server.start_server().await;
    ready(server).await;
    assert_eq!(tom.get(&path).await.status, 404);
    for container in [reader, writer] {
        assert_eq!(show(tom, container).await["status"], "running", "what runs goes on");
    }
    assert_eq!(anna.delete(&path).await.code(), "volume.in-use", "also for the next server");
    let mount = show(tom, reader).await["mounts"][0].clone();
    assert_eq!((&mount["volume"], &mount["owner"]), (&json!(id), &Value::Null), "no name any more");
    act(tom, reader, "kill").await.expect_status(200);
    in_status(tom, reader, "exited").await;
    let again = act(tom, reader, "start").await;
    assert_eq!((again.status, again.code()), (409, "volume.not-shared".to_owned()));
    // Shared to be read again: what reads starts, what is to write does not.
    share(anna, id, ("person", "tom"), &["files"]).await.expect_status(200);
    act(tom, reader, "start").await.expect_status(200);
    act(tom, writer, "kill").await.expect_status(200);
    in_status(tom, writer, "exited").await;
    assert_eq!(act(tom, writer, "start").await.code(), "volume.read-only");
    act(tom, reader, "kill").await.expect_status(200);
    in_status(tom, reader, "exited").await;
    // Now none runs: it goes, and what names it does not start.
    let gone = anna.delete(&path).await;
    assert!([202, 204].contains(&gone.status), "{}", gone.text);
    until(tom, "/api/v1/volumes", |list| list["items"] == json!([])).await;
    for container in [reader, writer] {
        assert_eq!(act(tom, container, "start").await.code(), "volume.not-shared");
        let path = format!("/api/v1/containers/{container}");
        tom.delete(&path).await.expect_status(204);
    }
}

#[tokio::test]
async fn who_may_only_read_is_not_the_first_and_a_group_has_it_as_long_as_one_is_in_it() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let olga = server.operator();
    import(&anna).await;
    import(&tom).await;
    let made = olga.post("/api/v1/groups", &json!({"name": "course"})).await.expect_status(201);
    let group = format!("/api/v1/groups/{}", made.json()["id"]);
    for name in ["anna", "tom"] {
        let member = json!({"name": name, "role": "member"});
        olga.put(&format!("{group}/members"), &member).await.expect_status(200);
    }
    let id = volume(&anna, "sets").await;
    share(&anna, &id, ("group", "course"), &["files"]).await.expect_status(200);
    let body = json!({"name": "early", "image": IMAGE, "command": ["sh", "-c", "cat /d/a; echo ended"],
        "mounts": [{"volume": "anna/sets", "target": "/d", "read_only": true}]});
    let early = tom.post("/api/v1/containers", &body).await.expect_status(201).json();
    let early = early["id"].as_str().expect("an id");
    let first = act(&tom, early, "start").await;
    assert_eq!((first.status, first.code()), (409, "volume.unused".to_owned()), "{}", first.text);
    upload(&anna, &id, "/a", "annas").await.expect_status(200);
    act(&tom, early, "start").await.expect_status(200);
    assert!(log_with(&tom, early, "ended").await.contains("annas"));
    in_status(&tom, early, "exited").await;
    // What an operator oversees they do not mount by that.
    let told = refused(&olga, &mounts("anna/sets", "/d", true)).await;
    assert_eq!(told["fields"][0]["pointer"], "/mounts/0/volume", "{told}");
    let content = format!("/api/v1/volumes/{id}/files/content?path=/a");
    assert_eq!(olga.get(&content).await.code(), "sharing.not-granted");
    tom.get(&content).await.expect_status(200);
    olga.delete(&format!("{group}/members?name=tom")).await.expect_status(204);
    assert_eq!(tom.get(&content).await.status, 404);
    assert_eq!(act(&tom, early, "start").await.code(), "volume.not-shared");
}
