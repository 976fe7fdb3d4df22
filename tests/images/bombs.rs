//! I05: what is small on its way and large where it arrives, by a pull and by an import. It stops at
//! what is written, not at what was promised; nothing of it stays; and no process grows.

use std::io::Write;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use system_tests::{Check, Client, Options, TestServer, is_long, requires_root, sample, times};

use super::import::import;
use super::memory::{MEMORY_MIB_MAX, Memory};
use super::registry::{Fake, Image, OCI_MANIFEST, Reply, host_architecture, pull};
use super::support::{Entry, archive, block_entry, sha256};

const LAYER_BYTES_MAX: usize = 16 << 20;
const LAYER_ENTRIES_MAX: usize = 5_000;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A file of zeros in an archive, compressed as it is made.
fn zeros(out: impl Write, bytes: usize) -> impl Write {
    let mut out = out;
    let mut entry = Entry::file("zeros", b"");
    entry.size = Some(bytes as u64);
    let head = archive(&[entry]);
    out.write_all(&head[..512]).expect("memory");
    let chunk = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        out.write_all(&chunk).expect("memory");
    }
    out.write_all(&[0; 1024]).expect("memory");
    out
}

/// Layers by name: the bytes, and how they are called. The digest of what they inflate to is never asked
/// for: they must stop before.
fn layers() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let size = times(1 << 30, 48 << 20);
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    zeros(&mut gz, size);
    let gz = gz.finish().expect("memory");
    let mut zst = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    zeros(&mut zst, size);
    let zst = zst.finish().expect("memory");
    let count = times(1_000_000, LAYER_ENTRIES_MAX + 1_000);
    let mut tiny = GzEncoder::new(Vec::new(), Compression::fast());
    for number in 0..count {
        let bytes = archive(&[Entry::file(format!("f{number}"), b"")]);
        tiny.write_all(&bytes[..512]).expect("memory");
    }
    let tiny = tiny.finish().expect("memory");
    let map = [b"1\n1099511627264\n512\n".as_slice(), &[0; 493], &[7; 512]].concat();
    let sparse = archive(&[Entry::file("sparse", &map)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.realsize", "1099511627776")]);
    let deep = |number: usize| {
        Entry::file("x", b"").pax("path", format!("{number}/{}x", "d/".repeat(1500)))
    };
    let deep = gzip(&archive(&(0..40).map(deep).collect::<Vec<_>>()));
    // RFC 8878, 3.1.1: no content size, a window of 2^(10 + 21) bytes, one raw block, the last.
    let window = [
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0x00,
        21 << 3,
        0x01 | (8 << 3),
        0x00,
        0x00,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
    ];
    let mut long = Vec::new();
    block_entry(b"l", b'L', &vec![b'n'; 8 << 20], &mut long);
    vec![
        ("zeros in gzip", gz.clone(), "+gzip"),
        ("zeros in zstd", zst, "+zstd"),
        ("gzip in gzip", gzip(&gz), "+gzip"),
        ("a window of 2 GiB", window.to_vec(), "+zstd"),
        ("many tiny files", tiny, "+gzip"),
        ("1 TiB of a sparse file", sparse, ""),
        ("directories that names imply", deep, "+gzip"),
        ("a long name of 8 MiB", gzip(&long), "+gzip"),
    ]
}

/// An image of one layer as it is, under whatever diff_id.
fn image_of(layer: &[u8], kind: &str) -> Image {
    let mut image = Image { top_type: OCI_MANIFEST.into(), ..Image::default() };
    let blob = image.add(layer.to_vec());
    let config = json!({"architecture": host_architecture(), "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(b"never")]}});
    let config = config.to_string().into_bytes();
    let (config_bytes, config) = (config.len(), image.add(config));
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_bytes},
        "layers": [{"mediaType": format!("application/vnd.oci.image.layer.v1.tar{kind}"),
            "digest": blob, "size": layer.len()}]});
    image.top = image.add(manifest.to_string().into_bytes());
    image.layers = vec![blob];
    image
}

async fn nothing_stays(server: &TestServer, client: &Client) -> String {
    let begun = std::time::Instant::now();
    loop {
        let mut left = Vec::new();
        for directory in ["layers/sha256", "layers/tmp", "store/tmp"] {
            let entries = std::fs::read_dir(server.data_dir().join(directory)).expect("it");
            left.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let listed = client.get("/api/v1/images").await.json()["items"].clone();
        if left.is_empty() && listed == json!([]) {
            return "refused, and nothing stays".to_owned();
        }
        if begun.elapsed() > std::time::Duration::from_secs(5) {
            return format!("left: {left:?}, listed: {listed}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn judged(server: &TestServer, client: &Client, done: &Value) -> String {
    let code = done["failure"]["code"].as_str().unwrap_or_default();
    let message = done["failure"]["message"].as_str().unwrap_or_default();
    let clear = !matches!(code, "" | "internal" | "layer.broken") && message.len() <= 4_004;
    if done["state"] != "failed" || !clear {
        return done.to_string().chars().take(300).collect();
    }
    nothing_stays(server, client).await
}

fn options(sections: String) -> Options {
    let runtime =
        format!("layer_bytes_max = {LAYER_BYTES_MAX}\nlayer_entries_max = {LAYER_ENTRIES_MAX}");
    Options { sections, runtime, ..Options::default() }
}

const GONE: &str = "refused, and nothing stays";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_layers_that_grow_stop_at_what_is_written() {
    requires_root!();
    for (name, layer, kind) in sample(&layers(), 2) {
        let image = image_of(&layer, kind);
        let fake = Fake::start(image.clone(), |_| None);
        let server = TestServer::with(options(fake.section())).await;
        let anna = server.person("anna", "user").await;
        let memory = Memory::watch(&server);
        let control = format!("{} bytes on their way", layer.len());
        let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
        let by_pull = format!("{name}, by a pull");
        Check { id: "I05", variant: &by_pull, control: &control }
            .sees(GONE, judged(&server, &anna, &done).await);
        let done = import(&anna, image.layout_archive("lab/bomb:v1")).await;
        let by_import = format!("{name}, by an import");
        Check { id: "I05", variant: &by_import, control: &control }
            .sees(GONE, judged(&server, &anna, &done).await);
        let (peaks, unpackers) = memory.peaks();
        let bounded = peaks.iter().all(|mib| *mib < MEMORY_MIB_MAX);
        let word = if bounded { "below 256 MiB each".to_owned() } else { format!("{peaks:?} MiB") };
        let control = format!("{peaks:?} MiB, {unpackers} unpackers seen");
        Check { id: "I05", variant: &format!("{name}, memory"), control: &control }
            .sees("below 256 MiB each", word);
        // Others go on, by the same server and supervisor.
        let good = import(&anna, Image::small("good").layout_archive("lab/good:v1")).await;
        assert_eq!(good["state"], "succeeded", "{name}, afterwards: {good}");
    }
}

/// What is answered in the place of which path.
type Answers = Arc<Mutex<Option<(String, Vec<u8>)>>>;

/// Documents by name, as a registry's manifest.
fn documents() -> Vec<(&'static str, Vec<u8>)> {
    let image = Image::small("x");
    let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
    let mut many = manifest.clone();
    many["layers"] = Value::Array(vec![manifest["layers"][0].clone(); 10_000]);
    let depth = times(1_000_000, 100_000);
    let deep = format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(depth));
    let mut quoted = manifest.clone();
    quoted["schemaVersion"] = json!("s".repeat(3 << 20));
    let mut named = manifest;
    named["mediaType"] = json!("m".repeat(3 << 20));
    let huge = times(100 << 20, 5 << 20);
    vec![
        ("10,000 layers", many.to_string().into_bytes()),
        ("deep JSON", deep.into_bytes()),
        ("a huge manifest", vec![b' '; huge]),
        ("a message that quotes 3 MiB", quoted.to_string().into_bytes()),
        ("a type of 3 MiB", named.to_string().into_bytes()),
    ]
}

/// Configs by name.
fn configs() -> Vec<(&'static str, Vec<u8>)> {
    let with = |key: &str, value: &str| {
        let own = if key == "history" { format!(",\"history\":{value}") } else { String::new() };
        let run = if key == "history" { "{}".to_owned() } else { format!("{{\"{key}\":{value}}}") };
        format!(
            "{{\"architecture\":\"{}\",\"os\":\"linux\",\"rootfs\":{{\"diff_ids\":[]}},\"config\":{run}{own}}}",
            host_architecture()
        )
        .into_bytes()
    };
    let list = |item: &str, bytes: usize| {
        format!("[{}{item}]", format!("{item},").repeat(bytes / (item.len() + 1)))
    };
    let huge = times(100 << 20, 5 << 20);
    vec![
        ("a huge config", vec![b' '; huge]),
        (
            "deep JSON in a config",
            with("Volumes", &format!("{{\"/v\":{}", "[".repeat(times(700_000, 100_000)))),
        ),
        ("8 MiB of history", with("history", &list("{}", 8 << 20))),
        ("8 MiB of environment", with("Env", &list("\"\"", 8 << 20))),
        ("1 MiB of history", with("history", &list("{}", (1 << 20) - 300))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_documents_that_grow_are_not_read_to_their_end() {
    requires_root!();
    let image = Image::small("x");
    let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
    let config = manifest["config"]["digest"].as_str().expect("a digest").to_owned();
    let mut cases = Vec::new();
    for (name, bytes) in documents() {
        cases.push((name, "/manifests/".to_owned(), bytes));
    }
    for (name, bytes) in configs() {
        cases.push((name, config.clone(), bytes));
    }
    let answers = Answers::default();
    let said = Arc::clone(&answers);
    let fake = Fake::start(image.clone(), move |line| {
        let answer = said.lock().expect("the answer");
        let (path, bytes) = answer.as_ref()?;
        line.contains(path.as_str()).then(|| Reply::ok(bytes.clone()))
    });
    let server = TestServer::with(options(fake.section())).await;
    let anna = server.person("anna", "user").await;
    let pid = server.server_pid();
    let memory = Memory::watch(&server);
    for (name, path, bytes) in cases {
        let control = format!("{} bytes", bytes.len());
        *answers.lock().expect("the answer") = Some((path, bytes.clone()));
        let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
        let variant = format!("{name}, by a pull");
        Check { id: "I05", variant: &variant, control: &control }
            .sees(GONE, judged(&server, &anna, &done).await);
        for file in ["config.json", "manifest.json", "index.json"] {
            let done = import(&anna, saved_with(&image, file, &bytes)).await;
            let variant = format!("{name}, imported as {file}");
            Check { id: "I05", variant: &variant, control: &control }
                .sees(GONE, judged(&server, &anna, &done).await);
        }
    }
    for (name, bytes) in uploads() {
        let control = format!("{} bytes", bytes.len());
        let done = import(&anna, bytes).await;
        Check { id: "I05", variant: name, control: &control }
            .sees(GONE, judged(&server, &anna, &done).await);
    }
    assert_eq!(server.server_pid(), pid);
    let (peaks, _) = memory.peaks();
    let bounded = peaks.iter().all(|mib| *mib < MEMORY_MIB_MAX);
    let word = if bounded { "below 256 MiB each".to_owned() } else { format!("{peaks:?} MiB") };
    Check { id: "I05", variant: "documents, memory", control: &format!("{peaks:?} MiB") }
        .sees("below 256 MiB each", word);
    *answers.lock().expect("the answer") = None;
    let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
    assert_eq!(done["state"], "succeeded", "the control: {done}");
}

/// An archive with one document replaced.
fn saved_with(image: &Image, file: &str, bytes: &[u8]) -> Vec<u8> {
    let layer = &image.blobs[&image.layers[0]];
    let mut entries = vec![Entry::file("0/layer.tar", layer), Entry::file(file, bytes)];
    if file == "config.json" {
        let index = json!([{"Config": "config.json", "Layers": ["0/layer.tar"]}]);
        entries.push(Entry::file("manifest.json", index.to_string().as_bytes()));
    }
    if file == "index.json" {
        entries.push(Entry::file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#));
    }
    archive(&entries)
}

/// Uploads that are large in what no document says.
fn uploads() -> Vec<(&'static str, Vec<u8>)> {
    // Larger than any process may grow, where there is time for it.
    let name = if is_long() { 400 << 20 } else { 8 << 20 };
    let mut long = Vec::new();
    block_entry(b"l", b'L', &vec![b'n'; name], &mut long);
    long.extend(archive(&[Entry::file("x", b"x")]));
    let mut records = Vec::new();
    block_entry(b"p", b'x', &vec![b'1'; name], &mut records);
    records.extend(archive(&[Entry::file("x", b"x")]));
    let image = Image::small("x");
    let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
    let config = manifest["config"]["digest"].as_str().expect("a digest");
    let tags: Vec<String> = (0..100_000).map(|number| format!("lab/app:v{number}")).collect();
    let index = json!([{"Config": "c", "RepoTags": tags, "Layers": ["0", "1"]}]);
    let named = archive(&[
        Entry::file("c", &image.blobs[config]),
        Entry::file("0", &image.blobs[&image.layers[0]]),
        Entry::file("1", &image.blobs[&image.layers[1]]),
        Entry::file("manifest.json", index.to_string().as_bytes()),
    ]);
    let many: Vec<Entry> =
        (0..10_100).map(|number| Entry::file(format!("f{number}"), b"")).collect();
    vec![
        ("a long name in an upload", long),
        ("PAX records without an end in an upload", records),
        ("100,000 names in an upload", named),
        ("10,100 files in an upload", archive(&many)),
    ]
}
