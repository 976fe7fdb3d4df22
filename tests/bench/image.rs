//! The image that is pulled: five layers of real files of this machine's `/usr`, compressed as
//! `docker build` does, pushed to the registry.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::peers::{REGISTRY, Scratch, done};

/// Layers of an image.
const LAYERS: usize = 5;
/// Where files are taken from, in this order.
const SOURCES: [&str; 5] = ["/usr/sbin", "/usr/include", "/usr/bin", "/usr/lib", "/usr/share"];
/// Larger ones are no part of most images.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// One layer: its blob and what it inflates to.
struct Layer {
    blob: String,
    blob_bytes: u64,
    diff_id: String,
}

/// What was pushed.
pub(crate) struct Pushed {
    /// The image.
    pub(crate) first: String,
    /// The same but for its last layer.
    pub(crate) second: String,
    /// How large it is, in words.
    pub(crate) size: String,
    /// The blobs of the first, compressed, as files.
    pub(crate) blobs: Vec<PathBuf>,
    _scratch: Scratch,
}

/// Makes both images with `megabytes` of files each, and pushes them.
pub(crate) fn push(megabytes: u64) -> Pushed {
    let scratch = Scratch::new("image");
    let each = megabytes * 1_000_000 / LAYERS as u64;
    let slices = slices(each, LAYERS + 1);
    let layers: Vec<Layer> = slices.iter().map(|files| layer(&scratch.0, files)).collect();
    let last = &layers[LAYERS];
    let first: Vec<&Layer> = layers[..LAYERS].iter().collect();
    let second: Vec<&Layer> = layers[..LAYERS - 1].iter().chain([last]).collect();
    let blobs = first.iter().map(|layer| blob_path(&scratch.0, &layer.blob)).collect();
    let compressed: u64 = first.iter().map(|layer| layer.blob_bytes).sum();
    let entries: usize = slices[..LAYERS].iter().map(Vec::len).sum();
    let size = format!(
        "{LAYERS} layers, {entries} files and directories of /usr, {megabytes} MB, gzip -6 to {} MB",
        compressed / 1_000_000
    );
    let references = [("first", first), ("second", second)].map(|(tag, layers)| {
        write_image(&scratch.0, tag, &layers);
        let reference = format!("{REGISTRY}/bench:{tag}");
        done(
            Command::new("skopeo")
                .args([
                    "copy",
                    "--preserve-digests",
                    "--insecure-policy",
                    "--dest-tls-verify=false",
                ])
                .arg(format!("oci:{}:{tag}", scratch.0.display()))
                .arg(format!("docker://{reference}")),
        );
        reference
    });
    let [first, second] = references;
    Pushed { first, second, size, blobs, _scratch: scratch }
}

/// `count` runs of files with about `bytes` in each.
fn slices(bytes: u64, count: usize) -> Vec<Vec<PathBuf>> {
    let mut slices = vec![Vec::new()];
    let mut filled = 0;
    let mut todo: Vec<PathBuf> = SOURCES.iter().rev().map(PathBuf::from).collect();
    let mut seen = std::collections::HashSet::new();
    while let Some(path) = todo.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if !seen.insert(path.clone()) {
            continue;
        }
        if about.is_dir() {
            let mut inside: Vec<PathBuf> =
                fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()).collect();
            inside.sort_unstable_by(|a, b| b.cmp(a));
            todo.extend(inside);
            slices.last_mut().expect("never empty").push(path);
        } else if about.is_file() && about.len() <= FILE_BYTES_MAX {
            filled += about.len();
            slices.last_mut().expect("never empty").push(path);
            if filled >= bytes {
                if slices.len() == count {
                    return slices;
                }
                slices.push(Vec::new());
                filled = 0;
            }
        }
    }
    panic!("/usr has too few files for {count} layers of {bytes} bytes; use --image-mb");
}

/// Packs and compresses a layer; its blob is a file of the layout then.
fn layer(layout: &Path, files: &[PathBuf]) -> Layer {
    let plain = layout.join("layer.tar");
    let mut tar = Command::new("tar")
        .args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--hard-dereference", "--null", "--no-recursion", "--files-from=-", "--file"])
        .arg(&plain)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start tar");
    let mut names = tar.stdin.take().expect("it is a pipe");
    for file in files {
        names.write_all(file.as_os_str().as_encoded_bytes()).expect("tar reads");
        names.write_all(b"\0").expect("tar reads");
    }
    drop(names);
    assert!(tar.wait().expect("tar ends").success(), "tar failed");
    let diff_id = sha256_of(&plain);
    done(Command::new("gzip").args(["--force", "-6", "--no-name"]).arg(&plain));
    let packed = layout.join("layer.tar.gz");
    let blob = sha256_of(&packed);
    let blob_bytes = fs::metadata(&packed).expect("gzip wrote it").len();
    let place = blob_path(layout, &blob);
    fs::create_dir_all(place.parent().expect("it has one")).expect("a layout");
    fs::rename(packed, place).expect("name the blob");
    Layer { blob, blob_bytes, diff_id }
}

/// An OCI layout with one image (OCI image-spec, image-layout.md); another tag replaces its index.
fn write_image(layout: &Path, tag: &str, layers: &[&Layer]) {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| &*layer.diff_id).collect();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = write_blob(layout, &config.to_string());
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": layer.blob, "size": layer.blob_bytes})
        })
        .collect();
    let manifest = json!({"schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.0, "size": config.1},
        "layers": layers});
    let manifest = write_blob(layout, &manifest.to_string());
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": manifest.0, "size": manifest.1,
        "annotations": {"org.opencontainers.image.ref.name": tag}}]});
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
    fs::write(layout.join("index.json"), index.to_string()).expect("a layout");
}

fn write_blob(layout: &Path, text: &str) -> (String, usize) {
    let digest = format!("sha256:{}", hex(&Sha256::digest(text)));
    fs::write(blob_path(layout, &digest), text).expect("write a blob");
    (digest, text.len())
}

fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn sha256_of(path: &Path) -> String {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).expect("open what was made");
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).expect("read what was made") {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    format!("sha256:{}", hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
