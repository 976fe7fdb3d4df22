//! I06 and I07: documents that could mean two things, and digests that are none, by a pull and by an
//! import; I10: what an image says of itself is shown, and otherwise never acted upon.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::containers::in_status;
use system_tests::{Check, Client, Options, TestServer, requires_root, sample};

use super::faulty::{Fault, Faulty, Place};
use super::import::import;
use super::registry::{Fake, Image, OCI_INDEX, OCI_MANIFEST, RATES, host_architecture, pull};
use super::support::{Entry, archive, sha256};

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// An image whose manifest is this document.
fn with_top(image: &Image, document: &Value, kind: &str) -> Image {
    let mut image = image.clone();
    image.top = image.add(document.to_string().into_bytes());
    image.top_type = kind.into();
    image
}

fn manifest_of(image: &Image) -> Value {
    serde_json::from_slice(&image.blobs[&image.top]).expect("json")
}

/// An index's entry for an image.
fn entry(image: &Image, kind: &str, platform: Value) -> Value {
    let size = image.blobs[&image.top].len();
    json!({"mediaType": kind, "digest": image.top, "size": size, "platform": platform})
}

fn index(entries: Value) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
}

fn here() -> Value {
    json!({"os": "linux", "architecture": host_architecture()})
}

/// Documents that could mean two things, by name; and what the registry calls them.
fn of_two_meanings(image: &Image) -> Vec<(String, Image)> {
    let mut all = Vec::new();
    let mut put = |name: &str, document: Value, kind: &str| {
        all.push((name.to_owned(), with_top(image, &document, kind)));
    };
    let manifest = manifest_of(image);
    let changed = |key: &str, value: Value| {
        let mut document = manifest.clone();
        document[key] = value;
        document
    };
    let entry = |kind: &str, platform: Value| entry(image, kind, platform);
    put(
        "layers and manifests",
        changed("manifests", json!([entry(OCI_MANIFEST, here())])),
        OCI_MANIFEST,
    );
    put(
        "layers and null for manifests, called an index",
        changed("manifests", Value::Null),
        OCI_INDEX,
    );
    put(
        "config and manifests",
        json!({"schemaVersion": 2, "config": manifest["config"], "manifests": []}),
        OCI_INDEX,
    );
    put("a manifest called an index", manifest.clone(), OCI_INDEX);
    put("a manifest called Docker's", manifest.clone(), DOCKER_MANIFEST);
    put(
        "a manifest that calls itself an index",
        changed("mediaType", json!(OCI_INDEX)),
        OCI_MANIFEST,
    );
    put(
        "a manifest that calls itself Docker's, called OCI's",
        changed("mediaType", json!(DOCKER_MANIFEST)),
        OCI_MANIFEST,
    );
    put("an index called a manifest", index(json!([entry(OCI_MANIFEST, here())])), OCI_MANIFEST);
    put("an index called Docker's", index(json!([entry(OCI_MANIFEST, here())])), DOCKER_INDEX);
    all
}

/// Manifests that are none.
fn misshapen(image: &Image) -> Vec<(String, Image)> {
    let mut all = Vec::new();
    let mut put = |name: &str, document: Value, kind: &str| {
        all.push((name.to_owned(), with_top(image, &document, kind)));
    };
    let manifest = manifest_of(image);
    let changed = |key: &str, value: Value| {
        let mut document = manifest.clone();
        document[key] = value;
        document
    };
    put("a type of another case", changed("mediaType", json!(OCI_MANIFEST.to_uppercase())), "");
    put("schema 1", changed("schemaVersion", json!(1)), OCI_MANIFEST);
    put("schema 2 as text", changed("schemaVersion", json!("2")), OCI_MANIFEST);
    put("schema 2.0", changed("schemaVersion", json!(2.5)), OCI_MANIFEST);
    put("schema 1's layers, too", changed("fsLayers", json!([])), OCI_MANIFEST);
    put("no layers", changed("layers", json!([])), OCI_MANIFEST);
    put("layers that are an object", changed("layers", json!({"0": 1})), OCI_MANIFEST);
    put("no config", changed("config", Value::Null), OCI_MANIFEST);
    put("a config that is a list", changed("config", json!([])), OCI_MANIFEST);
    put("an empty object", json!({}), OCI_MANIFEST);
    put("a list", json!([manifest.clone()]), OCI_MANIFEST);
    put("null", Value::Null, OCI_MANIFEST);
    all
}

/// Indexes that name nothing for this machine, or nothing for sure.
fn indexes(image: &Image) -> Vec<(String, Image)> {
    let mut all = Vec::new();
    let mut put = |name: &str, document: Value, kind: &str| {
        all.push((name.to_owned(), with_top(image, &document, kind)));
    };
    let entry = |kind: &str, platform: Value| entry(image, kind, platform);
    put("an empty index", index(json!([])), OCI_INDEX);
    put(
        "an index for another machine",
        index(json!([entry(OCI_MANIFEST, json!({"os": "plan9", "architecture": "mips"}))])),
        OCI_INDEX,
    );
    put(
        "an index of two, no platform",
        index(json!([entry(OCI_MANIFEST, Value::Null), entry(OCI_MANIFEST, Value::Null)])),
        OCI_INDEX,
    );
    put("a platform that is text", index(json!([entry(OCI_MANIFEST, json!("linux"))])), OCI_INDEX);
    put("an entry of an unknown type", index(json!([entry("text/html", here())])), OCI_INDEX);
    put(
        "an index of 2,000 entries",
        index(Value::Array(vec![entry(OCI_MANIFEST, here()); 2000])),
        OCI_INDEX,
    );
    all
}

/// An index in an index.
fn nested(image: &Image) -> Vec<(String, Image)> {
    let mut all = Vec::new();
    let mut nested =
        with_top(image, &index(json!([entry(image, OCI_MANIFEST, here())])), OCI_INDEX);
    for depth in 1..=100 {
        let next = index(json!([entry(&nested, OCI_INDEX, here())]));
        if matches!(depth, 1 | 2 | 100) {
            let name = format!("an index in an index, {depth} deep");
            all.push((name, with_top(&nested, &next, OCI_INDEX)));
        }
        if depth == 1 {
            let lies = index(json!([entry(&nested, OCI_MANIFEST, here())]));
            let name = "an index that an index has for a manifest".to_owned();
            all.push((name, with_top(&nested, &lies, OCI_INDEX)));
        }
        nested = with_top(&nested, &next, OCI_INDEX);
    }
    all
}

/// Digests that are none.
fn digests(good: &str) -> Vec<(&'static str, String)> {
    let hex = &good[7..];
    vec![
        ("a path", "sha256:../../../../etc/passwd".into()),
        ("a path of the right length", format!("sha256:{}", "../".repeat(21) + "x")),
        ("upper case", good.to_uppercase()),
        ("upper-case digits", format!("sha256:{}", hex.to_uppercase())),
        ("short", format!("sha256:{}", &hex[..63])),
        ("long", format!("{good}0")),
        ("md5", "md5:d41d8cd98f00b204e9800998ecf8427e".into()),
        ("sha512", format!("sha512:{}", hex.repeat(2))),
        ("no algorithm", hex.to_owned()),
        ("two algorithms", format!("sha256:{good}")),
        ("a blank before it", format!(" {good}")),
        ("a blank after it", format!("{good} ")),
        ("a newline after it", format!("{good}\n")),
        ("a NUL in it", format!("sha256:{}\0", &hex[..63])),
        ("digits of another script", format!("sha256:{}", "\u{661}".repeat(64))),
        ("a plus", format!("sha256+b64:{hex}")),
        ("empty", String::new()),
        ("a slash", format!("sha256/{hex}")),
    ]
}

fn wrong_digests(image: &Image) -> Vec<(String, Image)> {
    let manifest = manifest_of(image);
    let mut all = Vec::new();
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    for (what, digest) in digests(layer) {
        for (place, pointer) in [("a layer", "/layers/0/digest"), ("the config", "/config/digest")]
        {
            let mut document = manifest.clone();
            *document.pointer_mut(pointer).expect("it is there") = json!(digest);
            all.push((format!("{what} for {place}"), with_top(image, &document, OCI_MANIFEST)));
        }
        let mut config: Value = serde_json::from_slice(
            &image.blobs[manifest["config"]["digest"].as_str().expect("it")],
        )
        .expect("json");
        config["rootfs"]["diff_ids"][0] = json!(digest);
        all.push((format!("{what} for a diff_id"), with_config(image, &config)));
    }
    let mut sizes = |what: &str, pointer: &str, value: Value| {
        let mut document = manifest.clone();
        *document.pointer_mut(pointer).expect("it is there") = value;
        all.push((what.to_owned(), with_top(image, &document, OCI_MANIFEST)));
    };
    sizes(
        "a layer's size, one less",
        "/layers/1/size",
        json!(manifest["layers"][1]["size"].as_u64().expect("it") - 1),
    );
    sizes(
        "a layer's size, one more",
        "/layers/1/size",
        json!(manifest["layers"][1]["size"].as_u64().expect("it") + 1),
    );
    sizes("a layer's size, 2^63", "/layers/1/size", json!(1_u64 << 63));
    sizes("a layer's size, negative", "/layers/1/size", json!(-1));
    sizes(
        "the config's size, one more",
        "/config/size",
        json!(manifest["config"]["size"].as_u64().expect("it") + 1),
    );
    all
}

/// The image with another config.
fn with_config(image: &Image, config: &Value) -> Image {
    let mut image = image.clone();
    let mut manifest = manifest_of(&image);
    let bytes = config.to_string().into_bytes();
    manifest["config"]["size"] = json!(bytes.len());
    manifest["config"]["digest"] = json!(image.add(bytes));
    with_top(&image, &manifest, OCI_MANIFEST)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i06_and_i07_documents_that_mean_two_things_or_nothing_are_refused() {
    requires_root!();
    let image = Image::small("documents");
    let registry = Faulty::start();
    let section = format!("[registries]\ninsecure = [\"{}\"]\n{RATES}", registry.address);
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let mut all: Vec<(&str, String, Image)> = Vec::new();
    for family in [of_two_meanings, misshapen, indexes, nested] {
        all.extend(family(&image).into_iter().map(|(name, image)| ("I06", name, image)));
    }
    all.extend(wrong_digests(&image).into_iter().map(|(name, image)| ("I07", name, image)));
    for (number, (row, name, image)) in sample(&all, 24).into_iter().enumerate() {
        let repository = format!("d{number}");
        let kind = Fault::Header("content-type", image.top_type.clone());
        let import_too = image.layout_archive("lab/app:v1");
        registry.host(&repository, image, Place::Manifest, kind, usize::MAX);
        let done = pull(&anna, &format!("{}/{repository}:v1", registry.address)).await;
        let control = "the same image as it is can be pulled";
        let by_pull = format!("{name}, by a pull");
        Check { id: row, variant: &by_pull, control }.sees("failed", ending(&done));
        // What only the registry's header says is not in an archive, whose types are the documents' own.
        if name.contains("called") {
            continue;
        }
        let done = import(&anna, import_too).await;
        let by_import = format!("{name}, by an import");
        Check { id: row, variant: &by_import, control }.sees("failed", ending(&done));
    }
    assert_eq!(anna.get("/api/v1/images").await.json()["items"], json!([]));
    let good = Fault::Header("content-type", OCI_MANIFEST.to_owned());
    registry.host("good", image, Place::Manifest, good, usize::MAX);
    let done = pull(&anna, &format!("{}/good:v1", registry.address)).await;
    assert_eq!(done["state"], "succeeded", "the control: {done}");
}

fn ending(done: &Value) -> String {
    let state = done["state"].as_str().unwrap_or_default();
    match done["failure"]["code"].as_str() {
        Some("internal") => done.to_string(),
        _ => state.to_owned(),
    }
}

const SLEEP: [&str; 2] = ["/bin/sleep", "60"];
/// Values for every field that an image may say of itself, none of them what it should be.
const HOSTILE: [&str; 8] = [
    "marker; touch /tmp/berth-marker",
    "$(touch /tmp/berth-marker)",
    "../../../etc/passwd",
    "binary:///bin/sh",
    "line\nlayer_bytes_max = 1",
    "nul\0byte",
    "<script>alert('marker')</script>",
    "\u{1b}]52;c;bWFya2Vy\u{7}",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_what_an_image_says_of_itself_is_no_policy() {
    requires_root!();
    let shell = archive(&[Entry::dir("bin"), Entry::file("bin/sleep", &busybox()).mode(0o755)]);
    let registry = Fake::start(Image::small("unused"), |_| None);
    let server =
        TestServer::with(Options { sections: registry.section(), ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let same = json!({"architecture": host_architecture(), "os": "linux",
        "config": {"Cmd": SLEEP}, "rootfs": {"type": "layers", "diff_ids": [sha256(&shell)]}});
    let bare = with_config(&Image::of(std::slice::from_ref(&shell), host_architecture()), &same);
    let done = import(&anna, bare.layout_archive("lab/plain:v1")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let plain = running(&server, &anna, "plain", "lab/plain:v1").await;
    for (number, value) in HOSTILE.iter().enumerate() {
        let config = json!({"architecture": host_architecture(), "os": "linux",
            "author": value, "created": value,
            "history": [{"created_by": value, "comment": value, "created": value}],
            "config": {"Cmd": SLEEP, "Labels": {
                    (*value): value, "berth.privileged": "true", "io.kubernetes.cri-o.Devices": "/dev/sda",
                    "org.opencontainers.image.title": value, "berth.owner": "1"},
                "StopSignal": value, "Volumes": {(*value): {}}, "ExposedPorts": {(*value): {}},
                "Healthcheck": {"Test": ["CMD-SHELL", value]}, "OnBuild": [value], "Shell": [value],
                "ArgsEscaped": true, "Domainname": value, "MacAddress": value, "Hostname": value, "Env": [format!("A={value}").replace('\0', "")],
                "HostConfig": {"Privileged": true, "Binds": ["/:/host"]}, "User": "0:0"},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&shell)]}});
        let made = Image::of(std::slice::from_ref(&shell), host_architecture());
        let annotated = with_config(&made, &config);
        let mut manifest = manifest_of(&annotated);
        manifest["annotations"] = json!({"berth.privileged": "true", (*value): value});
        let image = with_top(&annotated, &manifest, OCI_MANIFEST);
        let tag = format!("lab/odd{number}:v1");
        let done = import(&anna, image.layout_archive(&tag)).await;
        assert_eq!(done["state"], "succeeded", "{value:?}: {done}");
        let variant = format!("{value:?} in every field");
        let odd = running(&server, &anna, &format!("odd{number}"), &tag).await;
        Check { id: "I10", variant: &variant, control: "an image without any of it" }
            .sees(&plain, odd);
    }
    assert!(!std::path::Path::new("/tmp/berth-marker").exists());
}

fn busybox() -> Vec<u8> {
    std::fs::read("/bin/busybox").expect("the static busybox")
}

/// What a container of an image has, where an image could have asked for more: its first process's
/// privileges, mounts and arguments as the kernel shows them.
async fn running(server: &TestServer, client: &Client, name: &str, image: &str) -> String {
    let body = json!({"name": name, "image": image, "start": true});
    let made = client.post("/api/v1/containers", &body).await.expect_status(201).json();
    let id = made["id"].as_str().expect("an id");
    in_status(client, id, "running").await;
    let begun = Instant::now();
    let pid = loop {
        match first_process(id) {
            Some(pid) => break pid,
            None => assert!(begun.elapsed() < Duration::from_secs(10), "{name}: no process of it"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let kept = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp:",
    ];
    let of_status = status.lines().filter(|line| kept.iter().any(|key| line.starts_with(key)));
    let mounts = read("mountinfo");
    // Where, what, and how; not the numbers, nor the layers' names.
    let of_mounts = mounts.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        format!("{} {}", fields[4], fields[5])
    });
    let cmdline = read("cmdline").replace('\0', " ");
    let all: Vec<String> = of_status.map(str::to_owned).chain(of_mounts).chain([cmdline]).collect();
    client.post(&format!("/api/v1/containers/{id}/kill"), &json!({})).await;
    let _ = server;
    all.join("\n")
}

/// The process of the container that sleeps, by its cgroup.
fn first_process(id: &str) -> Option<u32> {
    let pids = std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid: u32, file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
    };
    let mut found = pids.filter(|pid| {
        read(*pid, "cgroup").contains(id) && read(*pid, "cmdline").contains("/bin/sleep")
    });
    found.next()
}
