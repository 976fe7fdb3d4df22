//! R21: a stored layer that is not what it was any more (`berth verify`): it is named with what is wrong, nothing
//! starts from it, and whoever brings the image again has it replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use system_tests::containers::{self, act, in_status, run, show, until};
use system_tests::{Check, Client, Options, TestServer, requires_root};

use super::registry::{Fake, Image, pull};

/// Verifies all layers; what was found.
async fn verified(server: &TestServer) -> Value {
    let operator = server.operator();
    let begun = operator.post("/api/v1/layers/verify", &Value::Null).await.expect_status(202);
    let begun = begun.json();
    let path = format!("/api/v1/operations/{}", begun["id"].as_str().expect("an operation"));
    let ended = until(&operator, &path, |operation| operation["state"] != "running").await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["result"]["skipped"], 0, "each was looked at: {ended}");
    found(server).await
}

async fn found(server: &TestServer) -> Value {
    server.operator().get("/api/v1/layers").await.expect_status(200).json()
}

/// Path and harm of all that is shown, with the layer's state before.
fn said(found: &Value) -> String {
    let items = found["items"].as_array().expect("items");
    let lines = items.iter().map(|item| {
        let shown = item["shown"].as_array().expect("what is shown");
        let shown = shown.iter().map(|one| {
            let text =
                |name: &str| one[name].as_str().expect("a text").trim_matches('"').to_owned();
            format!("{} {}", text("path"), text("harm"))
        });
        let shown: Vec<String> = shown.collect();
        format!("{}: {}", item["state"].as_str().expect("a state"), shown.join(", "))
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// The one unpacked layer that has this file.
fn layer_with(server: &TestServer, file: &str) -> PathBuf {
    let store = server.data_dir().join("layers/sha256");
    let layers = fs::read_dir(store).expect("list the layers").flatten();
    let mut with = layers.map(|layer| layer.path()).filter(|layer| layer.join(file).exists());
    with.next().expect("a layer has the file")
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place: a program that runs of it would forbid it, so it is done through another name.
    let facts = fs::metadata(path).expect("inspect");
    let other = path.with_extension("flipped");
    fs::write(&other, bytes).expect("write");
    std::os::unix::fs::chown(&other, Some(uid(path)), Some(uid(path))).expect("give it");
    fs::set_permissions(&other, facts.permissions()).expect("set its mode");
    fs::rename(other, path).expect("put it in place");
}

fn uid(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).expect("inspect").uid()
}

async fn image_of(client: &Client) -> Value {
    client.get("/api/v1/images").await.expect_status(200).json()["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_starts_from_a_damaged_layer_until_the_image_is_brought_again() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    containers::import(&anna).await;
    let script = "echo up; while :; do sleep 1; done";
    let web = run(&anna, "web", script, json!({})).await;
    in_status(&anna, &web, "running").await;
    let whole = verified(&server).await;
    let control = format!("untouched, {} of {} layers are whole", whole["whole"], whole["layers"]);
    assert_eq!((&whole["harmed"], &whole["whole"]), (&json!(0), &whole["layers"]), "{whole}");
    assert_eq!(image_of(&anna).await["whole"], true);

    let layer = layer_with(&server, "bin/busybox");
    flip(&layer.join("bin/busybox"));
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(layer.join("bin"), mode).expect("change a mode");
    let harmed = verified(&server).await;
    Check { id: "R21", variant: "a flipped byte and a mode", control: &control }
        .sees("damaged: bin mode, bin/busybox content", said(&harmed));
    assert_eq!(harmed["items"][0]["images"][0], image_of(&anna).await["id"], "{harmed}");
    assert_eq!(image_of(&anna).await["whole"], false, "lists say so");
    // The page says so, and its button has them looked at.
    let operator = server.operator();
    let page = operator.get("/system").await.expect_status(200).text;
    assert!(page.contains("content bin/busybox") && page.contains(">damaged<"), "{page}");
    let form = operator.request("POST", "/system/layers/verify");
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("");
    let pressed = system_tests::client::send(form).await.expect_status(303);
    let path = pressed.header("location").to_owned();
    assert!(path.starts_with("/operations/"), "{path}");
    until(&operator, &format!("/api/v1{path}"), |operation| operation["state"] == "succeeded")
        .await;
    assert_eq!(said(&found(&server).await), said(&harmed), "the same again");
    // What runs goes on, and keeps the layer from being replaced below it.
    assert_eq!(show(&anna, &web).await["status"], "running");
    let again = imported(&anna).await;
    assert_eq!(again["failure"]["code"], "layer.in-use", "{again}");

    act(&anna, &web, "stop").await.expect_status(200);
    in_status(&anna, &web, "exited").await;
    let refused = act(&anna, &web, "start").await;
    let body = refused.json();
    assert_eq!(refused.status, 409, "{body}");
    Check { id: "R21", variant: "a start", control: "it ran before" }
        .sees("image.damaged", refused.code());
    let digest = format!("sha256:{}", layer.file_name().expect("a name").to_string_lossy());
    let detail = body["detail"].as_str().expect("a detail");
    assert!(detail.contains(&digest) && detail.contains("again"), "{detail}");

    let again = imported(&anna).await;
    assert_eq!(again["state"], "succeeded", "{again}");
    act(&anna, &web, "start").await.expect_status(200);
    in_status(&anna, &web, "running").await;
    assert_eq!(image_of(&anna).await["whole"], true);
    let mended = verified(&server).await;
    Check { id: "R21", variant: "brought again", control: &control }.sees("", said(&mended));
    act(&anna, &web, "kill").await;
    others_see_none_of_it(&server, &anna).await;
}

/// Operators verify, auditors look, others do neither; and it is in the audit.
async fn others_see_none_of_it(server: &TestServer, anna: &Client) {
    let auditor = server.person("audrey", "auditor").await;
    auditor.get("/api/v1/layers").await.expect_status(200);
    assert_eq!(auditor.post("/api/v1/layers/verify", &Value::Null).await.status, 403);
    assert_eq!(anna.get("/api/v1/layers").await.status, 403);
    assert_eq!(anna.post("/api/v1/layers/verify", &Value::Null).await.status, 403);
    let audit = server.operator().get("/api/v1/audit?action=layers.verify").await.json();
    let rows = audit["items"].as_array().expect("rows").len();
    assert!(rows >= 3, "each is in the audit: {audit}");
}

/// Imports the image of these tests again; its operation at the end.
async fn imported(client: &Client) -> Value {
    let request = client.request("POST", "/api/v1/images/import");
    let request = request.header("content-type", "application/x-tar");
    let request = request.body(containers::image(containers::IMAGE, "true"));
    let begun = system_tests::client::send(request).await.expect_status(202).json();
    let path = format!("/api/v1/operations/{}", begun["id"].as_str().expect("an operation"));
    until(client, &path, |operation| operation["state"] != "running").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_replaces_a_damaged_layer_and_a_damaged_archive() {
    requires_root!();
    let image = Image::small("what it was");
    let registry = Fake::start(image.clone(), |_| None);
    let sections = format!("[registries]\ninsecure = [\"{}\"]\n", registry.address);
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let reference = format!("{}/app:v1", registry.address);
    let done = pull(&anna, &reference).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let control = format!("untouched: {}", verified(&server).await);
    let store = server.data_dir();
    let name = &image.layers[0]["sha256:".len()..];
    let unpacked = store.join("layers/sha256").join(name);

    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>, &'a str);
    let changes: [Change<'_>; 3] = [
        (
            "a file more",
            Box::new(|| fs::write(unpacked.join("more"), "x").expect("write")),
            "damaged: more added",
        ),
        (
            "all of it is gone",
            Box::new(|| fs::remove_dir_all(&unpacked).expect("remove")),
            "damaged: . missing",
        ),
        (
            "the archive",
            Box::new(|| flip(&store.join("store/blobs/sha256").join(name))),
            "archive_damaged: ",
        ),
    ];
    for (what, change, expected) in changes {
        change();
        let harmed = verified(&server).await;
        Check { id: "R21", variant: what, control: &control }.sees(expected, said(&harmed));
        let done = pull(&anna, &reference).await;
        assert_eq!(done["state"], "succeeded", "{what}: {done}");
        assert_eq!(found(&server).await["harmed"], 0, "{what}: forgotten when it came anew");
        let mended = verified(&server).await;
        let variant = format!("{what}, pulled again");
        Check { id: "R21", variant: &variant, control: &control }.sees("", said(&mended));
        assert_eq!(mended["whole"], mended["layers"], "{mended}");
    }
}
