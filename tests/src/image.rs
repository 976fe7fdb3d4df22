//! Images made on the spot, as `docker save` would write them.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::client::{Client, send};

/// A `docker save` archive of one image with one layer of `files` (path, mode, content).
pub fn archive(reference: &str, files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        append(&mut layer, path, *mode, content);
    }
    let layer = layer.into_inner().expect("write to memory");
    let config = json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
        "history": [{"created_by": "made by a test"}],
    })
    .to_string();
    let name = format!("{}.json", hex(config.as_bytes()));
    let manifest = json!([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "layer.tar", 0o644, &layer);
    append(&mut archive, &name, 0o644, config.as_bytes());
    append(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes());
    archive.into_inner().expect("write to memory")
}

/// Imports an archive as `owner` and waits for the end; the image's id.
pub async fn import(owner: &Client, archive: Vec<u8>) -> String {
    let request = owner.request("POST", "/api/v1/images/import");
    let request = request.header("content-type", "application/x-tar").body(archive);
    let begun = send(request).await.expect_status(202).json();
    let path = format!("/api/v1/operations/{}", begun["id"].as_str().expect("an operation"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let operation = owner.get(&path).await.expect_status(200).json();
        match operation["state"].as_str() {
            Some("succeeded") => {
                let images = owner.get("/api/v1/images").await.expect_status(200).json();
                let image = &images["items"][0]["id"];
                return image.as_str().expect("the newest image has an id").to_owned();
            }
            Some("running") => {}
            _ => panic!("the import failed: {operation}"),
        }
        assert!(std::time::Instant::now() < deadline, "{operation}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, path, content).expect("write to memory");
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
