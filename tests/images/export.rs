//! Exports: read by skopeo, pushed by it to a real registry, imported again; whole, in order, and
//! neither taken away nor held in memory while they are read.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Client, Options, TestServer, requires_root};

use super::registry::{DockerRegistry, Image, ended, host_architecture, pull};
use super::support::{Entry, Scratch, archive};

/// An answer's bytes, as long as it said they are.
async fn download(client: &Client, id: &str) -> Vec<u8> {
    let request = client.request("GET", &format!("/api/v1/images/{id}/export"));
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    let length = answer.content_length().expect("a length");
    let kind = answer.headers()["content-type"].to_str().expect("a type").to_owned();
    assert_eq!(kind, "application/x-tar");
    let bytes = answer.bytes().await.expect("the whole archive").to_vec();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

async fn import(client: &Client, bytes: Vec<u8>) -> Value {
    let request = client.request("POST", "/api/v1/images/import");
    let request = request.header("content-type", "application/x-tar").body(bytes);
    let begun = send(request).await.expect_status(202).json();
    let done = ended(client, begun["id"].as_str().expect("an id")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let id = done["result"]["images"][0].as_str().expect("an image");
    client.get(&format!("/api/v1/images/{id}")).await.expect_status(200).json()
}

fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo").args(arguments).output().expect("skopeo");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "skopeo {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn digest(place: &str) -> String {
    skopeo(&["inspect", "--tls-verify=false", "--format={{.Digest}}", place])
}

fn names(path: &Path) -> Vec<String> {
    let mut reader = tar::Archive::new(fs::File::open(path).expect("the archive"));
    let entries = reader.entries().expect("entries");
    let name = |entry: std::io::Result<tar::Entry<'_, fs::File>>| {
        entry.expect("an entry").path().expect("a path").display().to_string()
    };
    entries.map(name).collect()
}

#[tokio::test]
async fn an_export_is_read_pushed_and_imported_as_the_same_image() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    let scratch = Scratch::new();
    let image = Image::small("exported");
    registry.push(&image, "tools/app", "v1");
    let sections = registry.section();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let reference = format!("{}/tools/app:v1", registry.address);
    let done = pull(&anna, &reference).await;
    let id = done["result"]["image"].as_str().expect("an image");
    let file = scratch.0.join("image.tar");
    fs::write(&file, download(&anna, id).await).expect("a file");

    // With one name it is the archive's only image; its files are in order.
    assert_eq!(digest(&format!("oci-archive:{}", file.display())), image.top);
    let found = names(&file);
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(found.len(), image.blobs.len() + 3, "{found:?}");
    let config = skopeo(&["inspect", "--config", &format!("oci-archive:{}", file.display())]);
    assert!(config.contains("made by a test"), "{config}");
    // As docker load reads it: manifest.json, tags, layers.
    let saved = skopeo(&["inspect", &format!("docker-archive:{}:{reference}", file.display())]);
    assert!(saved.contains(&image.layers[1]), "{saved}");

    // With more names, each names it.
    let more = json!({"reference": "lab/other:v2"});
    anna.post(&format!("/api/v1/images/{id}/tags"), &more).await.expect_status(200);
    let bytes = download(&anna, id).await;
    assert_eq!(bytes, download(&anna, id).await, "the same image gives the same bytes");
    fs::write(&file, &bytes).expect("a file");
    for name in [reference.as_str(), "docker.io/lab/other:v2"] {
        assert_eq!(digest(&format!("oci-archive:{}:{name}", file.display())), image.top, "{name}");
    }
    let copy = format!("docker://{}/copy:v1", registry.address);
    let from = format!("oci-archive:{}:{reference}", file.display());
    skopeo(&[
        "copy",
        "--insecure-policy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &copy,
    ]);
    assert_eq!(digest(&copy), image.top);

    let imported = import(&bert, bytes).await;
    assert_eq!(imported["image"]["manifest_digest"], image.top.as_str());
    assert_eq!(imported["image"]["tags"], json!([reference, "docker.io/lab/other:v2"]));
    let mine = anna.get(&format!("/api/v1/images/{id}")).await.expect_status(200).json();
    for part in ["config", "history"] {
        assert_eq!(imported[part], mine[part]);
    }
    assert_eq!(imported["image"]["config_digest"], mine["image"]["config_digest"]);
}

#[tokio::test]
async fn images_of_others_are_exported_by_nobody_and_the_systems_by_everybody() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let auditor = server.person("kim", "auditor").await;
    let own = import(&anna, Image::small("own").layout_archive("lab/own:v1")).await;
    let path = |image: &Value| {
        format!("/api/v1/images/{}/export", image["image"]["id"].as_str().expect("an id"))
    };
    bert.get(&path(&own)).await.expect_status(404);
    for overseer in [&auditor, &server.operator()] {
        let refused = overseer.get(&path(&own)).await.expect_status(403);
        assert_eq!(refused.code(), "content.owner-only");
    }
    let system = import(&server.root(), Image::small("all").layout_archive("lab/all:v1")).await;
    for who in [&anna, &bert, &auditor] {
        let answer = who.request("GET", &path(&system)).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        let name = answer.headers()["content-disposition"].to_str().expect("a name");
        assert_eq!(name, "attachment; filename=\"all-v1.tar\"");
    }
}

/// A figure of a process in KiB, such as `VmHWM`.
fn memory_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with(key)).expect("the figure");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

#[tokio::test]
async fn an_export_outlives_the_removal_of_its_image_and_is_not_held_in_memory() {
    requires_root!();
    const BYTES: usize = 96 << 20;
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let layer = archive(&[Entry::file("zeros", &vec![0; BYTES])]);
    let image = Image::of(&[layer], host_architecture());
    let shown = import(&anna, image.layout_archive("lab/large:v1")).await;
    let id = shown["image"]["id"].as_str().expect("an id");
    let pid = server.server_pid().expect("a server");
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("forget the peak");
    let before = memory_kib(pid, "VmRSS");
    let request = anna.request("GET", &format!("/api/v1/images/{id}/export"));
    let mut answer = request.send().await.expect("an answer");
    let length = answer.content_length().expect("a length");
    let mut came = answer.chunk().await.expect("a piece").expect("the first").len() as u64;
    anna.delete(&format!("/api/v1/images/{id}")).await.expect_status(204);
    anna.get(&format!("/api/v1/images/{id}")).await.expect_status(404);
    while let Some(piece) = answer.chunk().await.expect("the archive goes on") {
        came += piece.len() as u64;
    }
    assert_eq!(came, length);
    let grown = memory_kib(pid, "VmHWM").saturating_sub(before);
    assert!(grown < 24 << 10, "the server grew by {grown} KiB for {BYTES} bytes");
    all_gone(&server).await;
    // A reader that goes away ends it too.
    let again = import(&anna, image.layout_archive("lab/large:v1")).await;
    let id = again["image"]["id"].as_str().expect("an id").to_owned();
    let request = anna.request("GET", &format!("/api/v1/images/{id}/export"));
    let mut answer = request.send().await.expect("an answer");
    answer.chunk().await.expect("a piece");
    anna.delete(&format!("/api/v1/images/{id}")).await.expect_status(204);
    drop(answer);
    all_gone(&server).await;
}

/// Waits until no content is stored.
async fn all_gone(server: &TestServer) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    for path in ["store/blobs/sha256", "layers/sha256"] {
        let path = server.data_dir().join(path);
        while fs::read_dir(&path).expect("the content").count() > 0 {
            assert!(std::time::Instant::now() < deadline, "content stays in {}", path.display());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
