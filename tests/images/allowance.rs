//! What somebody may hold of images: each holder is charged all of a layer, it is counted while it comes,
//! and what would be too much is refused by a sentence and leaves nothing.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use system_tests::{Client, Options, TestServer, requires_root};

use super::import::{import, upload};
use super::registry::{Fake, Image, OCI_MANIFEST, RATES, ended, host_architecture, pull};
use super::support::{Entry, archive, sha256};

const MIB: usize = 1 << 20;

/// An image of one layer that holds one file of `mib` MiB, of which `mark` is the content; not compressed.
fn plain(mark: u8, mib: usize) -> Image {
    let layer = archive(&[Entry::file("file", &vec![mark; mib * MIB])]);
    Image::of(&[layer], host_architecture())
}

/// The same compressed: next to nothing on its way.
fn compressed(mark: u8, mib: usize) -> Image {
    let layer = archive(&[Entry::file("file", &vec![mark; mib * MIB])]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&layer).expect("memory");
    let bytes = encoder.finish().expect("memory");
    let mut image = Image { top_type: OCI_MANIFEST.into(), ..Image::default() };
    let config = json!({"architecture": host_architecture(), "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]}});
    let config = config.to_string().into_bytes();
    let (config_bytes, config) = (config.len(), image.add(config));
    let blob = image.add(bytes.clone());
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config,
            "size": config_bytes},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob,
            "size": bytes.len()}]});
    image.top = image.add(manifest.to_string().into_bytes());
    image.layers = vec![blob];
    image
}

async fn id_of(client: &Client) -> String {
    client.get("/api/v1/me").await.expect_status(200).json()["id"].to_string()
}

async fn allow(server: &TestServer, person: &Client, allowance: Value) {
    let path = format!("/api/v1/people/{}/allowance", id_of(person).await);
    server.operator().put(&path, &allowance).await.expect_status(200);
}

/// What somebody is charged for images.
async fn charged(client: &Client) -> u64 {
    let usage = client.get("/api/v1/me/usage").await.expect_status(200).json();
    usage["images"]["bytes"].as_u64().expect("a number")
}

/// How many layers, whole or not, and blobs on their way are on disk.
fn on_disk(server: &TestServer) -> usize {
    let count = |place: &str| std::fs::read_dir(server.data_dir().join(place)).expect("it").count();
    ["layers/sha256", "layers/tmp", "store/tmp"].into_iter().map(count).sum()
}

/// Waits until so many are: what nobody holds goes by itself.
async fn leaves(server: &TestServer, count: usize) {
    let begun = std::time::Instant::now();
    while on_disk(server) != count {
        assert!(begun.elapsed().as_secs() < 10, "{} are left, not {count}", on_disk(server));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn assert_above(done: &Value) {
    assert_eq!(done["state"], "failed", "{done}");
    assert_eq!(done["failure"]["code"], "image.above-allowance", "{done}");
    let said = done["failure"]["message"].as_str().unwrap_or_default();
    assert!(said.contains("may hold") && said.contains("ask an operator"), "{said}");
}

#[tokio::test]
async fn each_holder_of_a_layer_is_charged_all_of_it() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let image = plain(1, 3);
    let done = import(&anna, image.layout_archive("lab/a:v1")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let whole = charged(&anna).await;
    assert!(whole > 6 << 20, "stored and unpacked: {whole}");
    // That it is here already makes it no cheaper; one byte too little is too little, and takes nothing away.
    allow(&server, &bert, json!({"images_bytes": whole - 1})).await;
    assert_above(&import(&bert, image.layout_archive("lab/b:v1")).await);
    assert_eq!(charged(&bert).await, 0);
    assert_eq!(bert.get("/api/v1/images").await.json()["items"], json!([]));
    leaves(&server, 1).await;
    allow(&server, &bert, json!({"images_bytes": whole})).await;
    let done = import(&bert, image.layout_archive("lab/b:v1")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!((charged(&anna).await, charged(&bert).await), (whole, whole));
    // What one holds may come again: that is no more. Another is.
    let done = import(&bert, image.layout_archive("lab/b:v2")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_above(&import(&bert, plain(2, 1).layout_archive("lab/c:v1")).await);
    assert_eq!(charged(&bert).await, whole);
    // An archive that is larger than all of it is not even received whole.
    allow(&server, &bert, json!({"images_bytes": 2 << 20})).await;
    let refused = upload(&bert, plain(3, 4).layout_archive("lab/d:v1"), "").await;
    assert_eq!((refused.status, refused.code()), (507, "image.above-allowance".to_owned()));
    assert_eq!(refused.json()["limit"]["limit"], "images_bytes", "{}", refused.text);
    leaves(&server, 1).await;
}

#[tokio::test]
async fn what_grows_beyond_ends_while_it_is_written() {
    requires_root!();
    let fake = Fake::start(compressed(4, 80), |_| None);
    let sections = format!("{}{RATES}", fake.section());
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let reference = format!("{}/app:v1", fake.address);
    for most in [1 << 20, 40 << 20, 80 << 20] {
        allow(&server, &anna, json!({"images_bytes": most})).await;
        assert_above(&pull(&anna, &reference).await);
        assert_eq!(charged(&anna).await, 0);
        leaves(&server, 0).await;
    }
    let done = import(&anna, compressed(4, 80).layout_archive("lab/bomb:v1")).await;
    assert_above(&done);
    leaves(&server, 0).await;
    // Others notice nothing; the control: it comes where there is room for it, though it grows by more than is
    // reckoned with at first.
    let done = pull(&bert, &reference).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    allow(&server, &anna, json!({"images_bytes": 90 << 20})).await;
    let done = pull(&anna, &reference).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(charged(&anna).await, charged(&bert).await);
    leaves(&server, 1).await;
}

#[tokio::test]
async fn two_at_once_do_not_have_the_same_room() {
    requires_root!();
    let sections = RATES.to_owned();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    // Each of them fits by itself, and no two.
    let most: u64 = 28 << 20;
    allow(&server, &anna, json!({"images_bytes": most})).await;
    let group = json!({"images_bytes": 3 * most});
    server.operator().put("/api/v1/groups/2/allowance", &group).await.expect_status(200);
    let begin = async |client: &Client, mark: u8| {
        let bytes = plain(mark, 9).layout_archive(&format!("lab/p{mark}:v1"));
        let answer = upload(client, bytes, "").await.expect_status(202).json();
        answer["id"].as_str().expect("an id").to_owned()
    };
    let mut came = 0;
    for round in 0..3 {
        let mark = 10 + 3 * round;
        let begun = tokio::join!(
            begin(&anna, mark),
            begin(&anna, mark + 1),
            begin(&anna, mark + 2),
            begin(&bert, 7)
        );
        let done = tokio::join!(
            ended(&anna, &begun.0),
            ended(&anna, &begun.1),
            ended(&anna, &begun.2),
            ended(&bert, &begun.3)
        );
        assert_eq!(done.3["state"], "succeeded", "another's: {}", done.3);
        let mine = [done.0, done.1, done.2];
        let succeeded = mine.iter().filter(|done| done["state"] == "succeeded").count();
        assert!(succeeded <= 1, "{mine:?}");
        mine.iter().filter(|done| done["state"] != "succeeded").for_each(assert_above);
        assert!(charged(&anna).await <= most);
        came += succeeded;
        for image in anna.get("/api/v1/images").await.json()["items"].as_array().expect("a list") {
            let path = format!("/api/v1/images/{}", image["id"].as_str().expect("an id"));
            anna.delete(&path).await.expect_status(204);
        }
        assert_eq!(charged(&anna).await, 0);
    }
    // What was set down is gone with those that failed: the room is there again.
    let one = begin(&anna, 30).await;
    let done = ended(&anna, &one).await;
    assert_eq!(done["state"], "succeeded", "{came} came before: {done}");
}

#[tokio::test]
async fn a_groups_images_are_the_sum_of_its_peoples() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let image = plain(5, 2);
    assert_eq!(import(&anna, image.layout_archive("lab/a:v1")).await["state"], "succeeded");
    let whole = charged(&anna).await;
    let group = "/api/v1/groups/2/allowance";
    let olga = server.operator();
    olga.put(group, &json!({"images_bytes": 2 * whole - 1})).await.expect_status(200);
    let done = import(&bert, image.layout_archive("lab/b:v1")).await;
    assert_above(&done);
    assert!(done.to_string().contains("the group everybody may hold"), "{done}");
    olga.put(group, &json!({"images_bytes": 2 * whole})).await.expect_status(200);
    let done = import(&bert, image.layout_archive("lab/b:v1")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    // How many there may be, of one and of all.
    olga.put(group, &json!({"images_max": 2})).await.expect_status(200);
    assert_above(&import(&bert, plain(6, 1).layout_archive("lab/c:v1")).await);
    let done = import(&bert, image.layout_archive("lab/b:v3")).await;
    assert_eq!(done["state"], "succeeded", "one's own may come again: {done}");
    olga.put(group, &json!({})).await.expect_status(200);
    allow(&server, &bert, json!({"images_max": 2})).await;
    assert_eq!(import(&bert, plain(6, 1).layout_archive("lab/c:v1")).await["state"], "succeeded");
    assert_above(&import(&bert, plain(8, 1).layout_archive("lab/d:v1")).await);
    // Who would be over says it, too.
    let path = format!("/api/v1/people/{}/allowance/preview", id_of(&bert).await);
    let proposed = json!({"images_max": 1, "images_bytes": 1 << 20});
    let told = olga.post(&path, &proposed).await.expect_status(200).json();
    let limits = told["over"][0]["limits"].as_array().expect("limits");
    let names: Vec<&str> = limits.iter().filter_map(|one| one["limit"].as_str()).collect();
    assert_eq!(names, ["images_max", "images_bytes"], "{told}");
}
