//! An image made of the host's static busybox, and containers of it over the API.

use std::time::{Duration, Instant};

use crate::client::send;
use crate::{Answer, Client, TestServer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What the image is called.
pub const IMAGE: &str = "berth/busybox:1";
/// How long anything may take to become so.
pub const LIMIT: Duration = Duration::from_secs(40);
/// Names in the image that busybox answers to.
const APPLETS: [&str; 15] = [
    "sh", "sleep", "echo", "cat", "true", "false", "id", "ls", "tail", "head", "kill", "seq",
    "usleep", "mkdir", "nc",
];

/// Imports the image as `client`'s own.
pub async fn import(client: &Client) {
    import_archive(client, image(IMAGE, "true")).await;
}

/// Imports another image on the same layer.
pub async fn import_another(client: &Client) {
    import_archive(client, image("berth/busybox:2", "false")).await;
}

async fn import_archive(client: &Client, archive: Vec<u8>) {
    let request = client
        .request("POST", "/api/v1/images/import")
        .header("content-type", "application/x-tar")
        .body(archive);
    let operation = send(request).await.expect_status(202).json();
    let id = operation["id"].as_str().expect("an operation has an id");
    let path = format!("/api/v1/operations/{id}");
    let ended = until(client, &path, |value| value["state"] != "running").await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
}

/// Makes and starts a container that runs `script` in a shell; answers its id.
pub async fn run(client: &Client, name: &str, script: &str, more: Value) -> String {
    let mut body = json!({
        "name": name, "image": IMAGE, "command": ["sh", "-c", script], "start": true,
        "stop_grace_secs": 2,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let made = client.post("/api/v1/containers", &body).await.expect_status(201).json();
    made["id"].as_str().expect("a container has an id").to_owned()
}

/// The container now.
pub async fn show(client: &Client, id: &str) -> Value {
    client.get(&format!("/api/v1/containers/{id}")).await.expect_status(200).json()
}

/// An act on a container.
pub async fn act(client: &Client, id: &str, verb: &str) -> Answer {
    client.post(&format!("/api/v1/containers/{id}/{verb}"), &Value::Null).await
}

/// The container once it is in `status`.
pub async fn in_status(client: &Client, id: &str, status: &str) -> Value {
    until(client, &format!("/api/v1/containers/{id}"), |value| value["status"] == status).await
}

/// What `path` answers once that is `good`.
pub async fn until(client: &Client, path: &str, good: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let value = client.get(path).await.json();
        if good(&value) {
            return value;
        }
        assert!(Instant::now() < deadline, "{path}: {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The container's log as text.
pub async fn log(client: &Client, id: &str, query: &str) -> String {
    client.get(&format!("/api/v1/containers/{id}/logs?{query}")).await.expect_status(200).text
}

/// The log once it holds `text`.
pub async fn log_with(client: &Client, id: &str, text: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = log(client, id, "").await;
        if found.contains(text) {
            return found;
        }
        assert!(Instant::now() < deadline, "{text:?} is not in {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Pid and start time (`/proc/<pid>/stat`, field 22) of the container's first process.
pub async fn identity(client: &Client, id: &str) -> (i64, String) {
    let shown = show(client, id).await;
    let pid = shown["pid"].as_i64().unwrap_or_else(|| panic!("it does not run: {shown}"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    (pid, fields.split_whitespace().nth(19).expect("field 22").to_owned())
}

/// The kernel's own file of a limit, read by this test.
pub fn kernel_says(shown: &Value, name: &str) -> String {
    let held = shown["limits_held"].as_array().expect("limits");
    let limit = held.iter().find(|limit| limit["name"] == name).expect("the limit");
    assert_eq!(limit["held"], true, "{limit}");
    let file = limit["file"].as_str().expect("a file");
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.trim().to_owned()
}

/// The server answers that it is ready, supervisor included.
pub async fn ready(server: &TestServer) {
    let client = server.anonymous();
    let deadline = Instant::now() + LIMIT;
    while client.get("/readyz").await.status != 200 {
        assert!(Instant::now() < deadline, "not ready\n{}", server.server_log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A `docker save` archive of one layer.
pub fn image(reference: &str, command: &str) -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin/", "etc/", "tmp/"] {
        entry(&mut layer, directory, tar::EntryType::Directory, b"");
    }
    entry(&mut layer, "bin/busybox", tar::EntryType::Regular, &busybox);
    for applet in APPLETS {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .expect("append to a buffer");
    }
    entry(&mut layer, "etc/passwd", tar::EntryType::Regular, b"root:x:0:0::/:/bin/sh\n");
    let layer = layer.into_inner().expect("finish a buffer");
    let diff_id = format!("sha256:{}", hex(&layer));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin", "FROM=image"], "Cmd": [command]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", hex(&config));
    let manifest = json!([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, &name, tar::EntryType::Regular, &config);
    entry(&mut archive, "layer.tar", tar::EntryType::Regular, &layer);
    let manifest = manifest.to_string();
    entry(&mut archive, "manifest.json", tar::EntryType::Regular, manifest.as_bytes());
    archive.into_inner().expect("finish a buffer")
}

fn entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(1);
    builder.append_data(&mut header, path, data).expect("append to a buffer");
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
