//! Pulling from a real registry, by the API.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::{Options, TestServer, requires_root};

use super::registry::{DockerRegistry, Image, begin, ended, host_architecture, pull};
use super::support::{Entry, archive};

async fn server_for(section: String) -> TestServer {
    TestServer::with(Options { sections: section, ..Options::default() }).await
}

/// The names in a directory of the instance's data.
fn names(server: &TestServer, path: &str) -> Vec<String> {
    let entries = fs::read_dir(server.data_dir().join(path)).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn assert_succeeded(operation: &Value) {
    assert_eq!(operation["state"], "succeeded", "{operation}");
}

fn states(operation: &Value) -> Vec<&str> {
    let layers = operation["progress"]["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["state"].as_str().expect("a state")).collect()
}

#[tokio::test]
async fn pulls_by_tag_digest_both_and_index_from_an_anonymous_registry() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    let server = server_for(registry.section()).await;
    let anna = server.person("anna", "user").await;
    let image = Image::small("one");
    let foreign = Image::of(
        &image.layers.iter().map(|l| image.blobs[l].clone()).collect::<Vec<_>>(),
        "riscv64",
    );
    let index = Image::index(&[("riscv64", &foreign), (host_architecture(), &image)]);
    registry.push(&image, "app", "v1");
    registry.push(&index, "multi", "v1");
    registry.push(&foreign, "foreign", "v1");
    let address = &registry.address;

    let done = pull(&anna, &format!("{address}/app:v1")).await;
    assert_succeeded(&done);
    assert_eq!(states(&done), ["done", "done"]);
    let (got, total) = (&done["progress"]["downloaded_bytes"], &done["progress"]["total_bytes"]);
    assert_eq!(got, total);
    let id = done["result"]["image"].as_str().expect("an image");
    for reference in [
        format!("{address}/app@{}", image.top),
        format!("{address}/app:v1@{}", image.top),
        format!("{address}/multi:v1"),
    ] {
        let done = pull(&anna, &reference).await;
        assert_succeeded(&done);
        assert_eq!(done["result"]["image"], id, "{reference}");
        assert_eq!(states(&done), ["present", "present"], "{reference}");
    }
    let wrong = pull(&anna, &format!("{address}/foreign:v1")).await;
    assert_eq!(wrong["failure"]["code"], "image.malformed", "{wrong}");
    let unknown = pull(&anna, &format!("{address}/app:nothing")).await;
    assert_eq!(unknown["failure"]["code"], "image.unknown", "{unknown}");

    let detail = anna.get(&format!("/api/v1/images/{id}")).await.expect_status(200).json();
    assert_eq!(detail["config"]["command"], json!(["/bin/sh"]));
    assert_eq!(detail["history"][0]["created_by"], "made by a test");
    let digests: Vec<_> = detail["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| layer["digest"].as_str().expect("a digest").to_owned())
        .collect();
    assert_eq!(digests, image.layers);
    let mut hex: Vec<_> = image.layers.iter().map(|layer| layer[7..].to_owned()).collect();
    hex.sort();
    assert_eq!(names(&server, "layers/sha256"), hex);

    // Removed, its content goes: blobs and layers.
    anna.delete(&format!("/api/v1/images/{id}")).await.expect_status(204);
    let begun = std::time::Instant::now();
    while !names(&server, "layers/sha256").is_empty()
        || !names(&server, "store/blobs/sha256").is_empty()
    {
        assert!(begun.elapsed() < Duration::from_secs(30), "content stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(names(&server, "store/tmp"), Vec::<String>::new());
}

#[tokio::test]
async fn a_stored_layer_is_given_to_those_only_whom_its_registry_gives_it_to() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(Some(("anna", "secret-of-anna"))) else { return };
    let server = server_for(registry.section()).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let image = Image::small("private");
    registry.push(&image, "private/app", "v1");
    let reference = format!("{}/private/app:v1", registry.address);
    let credentials = json!({"registry": registry.address, "username": "anna",
        "password": "secret-of-anna"});
    anna.put("/api/v1/registries", &credentials).await.expect_status(200);
    assert!(!anna.get("/api/v1/registries").await.text.contains("secret-of-anna"));
    assert_succeeded(&pull(&anna, &reference).await);

    // Without rights: refused by the registry, and nothing of the image is Bert's.
    let refused = pull(&bert, &reference).await;
    assert_eq!(refused["failure"]["code"], "registry.refused", "{refused}");
    assert_eq!(bert.get("/api/v1/images").await.json()["items"], json!([]));
    let anna_image = anna.get("/api/v1/images").await.json()["items"][0]["id"].clone();
    let path = format!("/api/v1/images/{}", anna_image.as_str().expect("an id"));
    bert.get(&path).await.expect_status(404);
    bert.delete(&path).await.expect_status(404);
    // With a wrong password too.
    let wrong = json!({"registry": registry.address, "username": "anna", "password": "guess"});
    bert.put("/api/v1/registries", &wrong).await.expect_status(200);
    assert_eq!(pull(&bert, &reference).await["failure"]["code"], "registry.refused");

    // With rights: confirmed, not downloaded, stored once.
    bert.put("/api/v1/registries", &credentials).await.expect_status(200);
    let done = pull(&bert, &reference).await;
    assert_succeeded(&done);
    assert_eq!(states(&done), ["present", "present"]);
    assert_eq!(names(&server, "layers/sha256").len(), 2);
    // The password is nowhere in the inventory's files.
    for name in names(&server, "db") {
        let bytes = fs::read(server.data_dir().join("db").join(name)).expect("a file");
        assert!(!bytes.windows(14).any(|part| part == b"secret-of-anna"));
    }

    // While Bert holds it, Anna's removal takes nothing from him.
    anna.delete(&path).await.expect_status(204);
    let again = pull(&bert, &reference).await;
    assert_eq!(states(&again), ["present", "present"]);
}

#[tokio::test]
async fn credentials_outlive_the_key_that_sealed_them() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(Some(("anna", "secret-of-anna"))) else { return };
    let server = server_for(registry.section()).await;
    let anna = server.person("anna", "user").await;
    let credentials = json!({"registry": registry.address, "username": "anna",
        "password": "secret-of-anna"});
    anna.put("/api/v1/registries", &credentials).await.expect_status(200);
    let old = server.root().get("/api/v1/keys").await.json()["items"][0]["id"].clone();
    server.root().post("/api/v1/keys", &Value::Null).await.expect_status(201);
    // Signed by the new key, so that it outlives the old one, which is gone for good.
    let anna = anna.token("operate").await;
    let path = format!("/api/v1/keys/{}", old.as_str().expect("a key"));
    server.root().delete(&path).await.expect_status(204);
    server.stop_server();
    server.start_server().await;
    registry.push(&Image::small("private"), "private/app", "v1");
    let reference = format!("{}/private/app:v1", registry.address);
    assert_succeeded(&pull(&anna, &reference).await);
}

#[tokio::test]
async fn one_blob_pulled_by_two_at_once_is_stored_once() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    let server = server_for(registry.section()).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let image = Image::small("both");
    registry.push(&image, "app", "v1");
    let reference = format!("{}/app:v1", registry.address);
    let (first, second) = (begin(&anna, &reference).await, begin(&bert, &reference).await);
    let (first, second) = (ended(&anna, &first).await, ended(&bert, &second).await);
    assert_succeeded(&first);
    assert_succeeded(&second);
    assert_ne!(first["result"]["image"], second["result"]["image"]);
    assert_eq!(names(&server, "layers/sha256").len(), 2);
    assert_eq!(names(&server, "layers/tmp"), Vec::<String>::new());
}

#[tokio::test]
async fn a_launch_pulls_what_is_missing_and_says_so() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    let server = server_for(registry.section()).await;
    let anna = server.person("anna", "user").await;
    let busybox = fs::read("/bin/busybox").expect("a static busybox");
    let shell = Entry::file("bin/sh", &busybox).mode(0o755);
    let image = Image::of(&[archive(&[Entry::dir("bin"), shell])], host_architecture());
    registry.push(&image, "tool", "v1");
    let launch = |name: &str, image: String| {
        json!({"name": name, "image": image, "start": true,
            "command": ["/bin/sh", "-c", "echo pulled; exit 7"]})
    };
    let body = launch("tool", format!("{}/tool:v1", registry.address));
    let made = anna.post("/api/v1/containers", &body).await.expect_status(202).json();
    assert_eq!(made["status"], "pulling", "{made}");
    let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
    let end = |path: String| {
        let anna = anna.clone();
        async move {
            let deadline = std::time::Instant::now() + Duration::from_secs(40);
            loop {
                let shown = anna.get(&path).await.expect_status(200).json();
                if !["pulling", "starting", "running"].iter().any(|word| shown["status"] == *word) {
                    break shown;
                }
                assert!(std::time::Instant::now() < deadline, "{shown}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let shown = end(path.clone()).await;
    assert_eq!(shown["exit"]["code"], 7, "{shown}");
    assert!(anna.get(&format!("{path}/logs")).await.text.contains("pulled"));
    assert_eq!(anna.get("/api/v1/images").await.json()["items"].as_array().map(Vec::len), Some(1));
    // What cannot be pulled is said of the container, which starts nothing.
    let body = launch("none", format!("{}/nothing:v1", registry.address));
    let answer = anna.post("/api/v1/containers", &body).await;
    assert!([201, 202].contains(&answer.status), "{}", answer.text);
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let failed = end(format!("/api/v1/containers/{id}")).await;
    assert!(
        failed["status_text"].as_str().is_some_and(|text| text.contains("nothing")),
        "{failed}"
    );
}
