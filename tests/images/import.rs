//! Importing `docker save` and OCI-layout archives, good and hostile (I11).

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Answer, Client, TestServer, requires_root};

use super::registry::{Image, ended};
use super::support::{Entry, archive};

async fn upload(client: &Client, bytes: Vec<u8>, query: &str) -> Answer {
    let request = client.request("POST", &format!("/api/v1/images/import{query}"));
    send(request.header("content-type", "application/x-tar").body(bytes)).await
}

async fn import(client: &Client, bytes: Vec<u8>) -> Value {
    let answer = upload(client, bytes, "").await.expect_status(202);
    ended(client, answer.json()["id"].as_str().expect("an id")).await
}

/// As `docker save` writes it.
fn saved(image: &Image, change: impl Fn(&mut Value)) -> Vec<Entry> {
    let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
    let config = manifest["config"]["digest"].as_str().expect("a digest");
    let name = |number: usize| format!("{number}/layer.tar");
    let mut document = json!([{"Config": "config.json", "RepoTags": ["lab/app:v1"],
        "Layers": (0..image.layers.len()).map(name).collect::<Vec<_>>()}]);
    change(&mut document);
    let mut entries = vec![Entry::file("config.json", &image.blobs[config])];
    for (number, layer) in image.layers.iter().enumerate() {
        entries.push(Entry::file(name(number), &image.blobs[layer]));
    }
    entries.push(Entry::file("manifest.json", document.to_string().as_bytes()));
    entries
}

#[tokio::test]
async fn archives_are_imported_for_the_importer_and_by_the_system_for_all() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let image = Image::small("imported");
    let done = import(&anna, archive(&saved(&image, |_| {}))).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let listed = anna.get("/api/v1/images").await.json();
    assert_eq!(listed["items"][0]["tags"], json!(["docker.io/lab/app:v1"]));
    assert_eq!(bert.get("/api/v1/images").await.json()["items"], json!([]));
    let done = import(&bert, image.layout_archive("lab/layout:v2")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let listed = bert.get("/api/v1/images").await.json();
    assert_eq!(listed["items"][0]["tags"], json!(["docker.io/lab/layout:v2"]));
    // The root socket imports as the system: visible to all, removable by operators only.
    let other = Image::small("system");
    let done = import(&server.root(), archive(&saved(&other, |_| {}))).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let id = done["result"]["images"][0].as_str().expect("an image");
    let path = format!("/api/v1/images/{id}");
    assert_eq!(bert.get(&path).await.expect_status(200).json()["image"]["owner"], 1);
    assert!(bert.delete(&path).await.status >= 403);
    bert.get(&path).await.expect_status(200);
    // Names: one more, one less.
    let body = json!({"reference": "mine:latest"});
    let own = format!("/api/v1/images/{}", listed["items"][0]["id"].as_str().expect("an id"));
    let tagged = bert.post(&format!("{own}/tags"), &body).await.expect_status(200).json();
    assert_eq!(tagged["tags"].as_array().expect("tags").len(), 2);
    bert.delete(&format!("{own}/tags?reference=mine:latest")).await.expect_status(204);
    bert.delete(&format!("{own}/tags?reference=mine:latest")).await.expect_status(404);
}

#[tokio::test]
async fn i11_hostile_archives_are_refused_and_the_server_goes_on() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let pid = server.server_pid();
    let image = Image::small("x");
    let with = |change: &dyn Fn(&mut Value)| archive(&saved(&image, change));
    let mut linked = saved(&image, |_| {});
    linked[1] = Entry::symlink("0/layer.tar", "/etc/shadow");
    let mut hard = saved(&image, |_| {});
    hard[1] = Entry::link("0/layer.tar", "/etc/shadow");
    let mut twice = saved(&image, |_| {});
    twice.push(twice[0].clone());
    let cases = [
        ("layers outside", with(&|m| m[0]["Layers"][0] = json!("../../etc/shadow"))),
        ("absolute layer", with(&|m| m[0]["Layers"][0] = json!("/etc/shadow"))),
        ("config outside", with(&|m| m[0]["Config"] = json!("../../../etc/passwd"))),
        ("no layers", with(&|m| m[0]["Layers"] = json!([]))),
        ("null layers", with(&|m| m[0]["Layers"] = Value::Null)),
        ("missing config", with(&|m| drop(m[0].as_object_mut().expect("it").remove("Config")))),
        ("no images", with(&|m| *m = json!([]))),
        ("a string", with(&|m| *m = json!("x"))),
        ("too few layers", with(&|m| m[0]["Layers"] = json!(["0/layer.tar"]))),
        ("symlinked layer", archive(&linked)),
        ("hard-linked layer", archive(&hard)),
        ("two of one name", archive(&twice)),
        ("another tar", archive(&[Entry::file("hello", b"x")])),
        ("no tar", b"hello".to_vec()),
        ("nothing", Vec::new()),
    ];
    for (name, bytes) in cases {
        let done = import(&anna, bytes).await;
        assert_eq!(done["state"], "failed", "{name}: {done}");
        assert_ne!(done["failure"]["code"], "internal", "{name}: {done}");
    }
    let whole = archive(&saved(&image, |_| {}));
    for cut in (0..whole.len() - 1024).step_by(512 * 3) {
        let done = import(&anna, whole[..cut].to_vec()).await;
        assert_eq!(done["state"], "failed", "cut at {cut}: {done}");
        assert_ne!(done["failure"]["code"], "internal", "cut at {cut}: {done}");
    }
    assert_eq!(anna.get("/api/v1/images").await.json()["items"], json!([]));
    assert_eq!(server.server_pid(), pid);
    // The control.
    assert_eq!(import(&anna, whole).await["state"], "succeeded");
}
