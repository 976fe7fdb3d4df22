//! Importing `docker save` and OCI-layout archives, good and hostile (I11).

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Answer, Check, Client, Options, TestServer, requires_root, sample};

use super::registry::{Image, RATES, ended};
use super::support::{Entry, archive};

pub(crate) async fn upload(client: &Client, bytes: Vec<u8>, query: &str) -> Answer {
    let request = client.request("POST", &format!("/api/v1/images/import{query}"));
    send(request.header("content-type", "application/x-tar").body(bytes)).await
}

pub(crate) async fn import(client: &Client, bytes: Vec<u8>) -> Value {
    let answer = upload(client, bytes, "").await.expect_status(202);
    ended(client, answer.json()["id"].as_str().expect("an id")).await
}

/// As `docker save` writes it.
pub(crate) fn saved(image: &Image, change: impl Fn(&mut Value)) -> Vec<Entry> {
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

/// Every 512 bytes of both kinds of archive in full, a sample else; and documents of other shapes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_cut_and_misshapen_archives_end_in_a_sentence() {
    requires_root!();
    let options = Options { sections: RATES.to_owned(), ..Options::default() };
    let server = TestServer::with(options).await;
    let anna = server.person("anna", "user").await;
    let pid = server.server_pid();
    let image = Image::small("x");
    let mut all = Vec::new();
    for (kind, whole) in [
        ("docker save", archive(&saved(&image, |_| {}))),
        ("layout", image.layout_archive("lab/x:v1")),
    ] {
        // The last two blocks are the end's mark, which readers do without.
        for at in (0..whole.len() - 1024).step_by(512) {
            all.push((format!("{kind}, cut at {at}"), whole[..at].to_vec()));
        }
    }
    for (name, value) in shapes() {
        all.push((format!("manifest.json is {name}"), replaced(&image, "manifest.json", &value)));
        all.push((format!("index.json is {name}"), replaced(&image, "index.json", &value)));
        all.push((format!("oci-layout is {name}"), replaced(&image, "oci-layout", &value)));
        for key in ["Config", "Layers", "RepoTags"] {
            let entries = saved(&image, |document| document[0][key] = value.clone());
            all.push((format!("{key} is {name}"), archive(&entries)));
        }
        for pointer in ["/manifests", "/manifests/0", "/manifests/0/digest"] {
            let mut index = image.layout_index("lab/x:v1");
            *index.pointer_mut(pointer).expect("it is there") = value.clone();
            all.push((format!("{pointer} is {name}"), replaced(&image, "index.json", &index)));
        }
    }
    for (name, bytes) in sample(&all, 30) {
        // Names are no reason to refuse an image; nor is a list of none of them.
        let may = name.starts_with("RepoTags") || name.starts_with("manifest.json");
        let done = import(&anna, bytes).await;
        let clear = done["failure"]["code"] != "internal"
            && done["failure"]["message"].as_str().is_none_or(|text| text.chars().count() <= 1_001);
        let seen = match done["state"].as_str() {
            Some("failed") if clear => "refused".to_owned(),
            Some("succeeded") if may => "refused".to_owned(),
            _ => done.to_string(),
        };
        Check { id: "I11", variant: &name, control: "the whole archive is imported" }
            .sees("refused", seen);
    }
    assert_eq!(server.server_pid(), pid, "the server is the same");
    assert_eq!(import(&anna, archive(&saved(&image, |_| {}))).await["state"], "succeeded");
}

/// JSON that is not what is asked for.
fn shapes() -> Vec<(&'static str, Value)> {
    vec![
        ("null", Value::Null),
        ("a number", json!(7)),
        ("true", json!(true)),
        ("empty text", json!("")),
        ("a path", json!("../../../etc/shadow")),
        ("an empty list", json!([])),
        ("a list of null", json!([null])),
        ("a list of lists", json!([[], [[]]])),
        ("an empty object", json!({})),
        ("a list of empty objects", json!([{}])),
        (
            "an object of nulls",
            json!({"digest": null, "annotations": null, "imageLayoutVersion": null}),
        ),
    ]
}

/// A layout, or a `docker save`, with one document replaced.
fn replaced(image: &Image, file: &str, value: &Value) -> Vec<u8> {
    if file == "manifest.json" {
        let mut entries = saved(image, |_| {});
        entries.retain(|entry| entry.name != b"manifest.json");
        entries.push(Entry::file(file, value.to_string().as_bytes()));
        return archive(&entries);
    }
    let other = if file == "index.json" { "oci-layout" } else { "index.json" };
    let kept = match other {
        "oci-layout" => json!({"imageLayoutVersion": "1.0.0"}),
        _ => image.layout_index("lab/x:v1"),
    };
    let mut entries = vec![
        Entry::file(other, kept.to_string().as_bytes()),
        Entry::file(file, value.to_string().as_bytes()),
    ];
    for (digest, bytes) in &image.blobs {
        entries.push(Entry::file(format!("blobs/sha256/{}", &digest[7..]), bytes));
    }
    archive(&entries)
}
