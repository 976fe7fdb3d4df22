//! I08: two people and one layer. Knowing a digest gives nobody its bytes: not by a pull from another
//! repository, not by an archive that names it, not after access has ended.

use serde_json::{Value, json};
use system_tests::{Check, Client, Options, TestServer, requires_root};

use super::faulty::{Fault, Faulty, Place};
use super::import::{import, saved};
use super::registry::{Fake, Image, OCI_MANIFEST, Reply, pull};
use super::support::{Entry, archive};

struct Lab {
    server: TestServer,
    /// Where `anna`'s image comes from: whether it still gives it is the second thing.
    first: Fake,
    revoked: std::sync::Arc<std::sync::atomic::AtomicBool>,
    other: Faulty,
    image: Image,
    anna: Client,
    bert: Client,
}

async fn lab() -> Lab {
    let image = Image::small("a secret of anna's");
    let revoked = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
    let own = std::sync::Arc::clone(&revoked);
    let first = Fake::start(image.clone(), move |_| {
        own.load(std::sync::atomic::Ordering::SeqCst).then(|| Reply::status(403))
    });
    let other = Faulty::start();
    let section =
        format!("[registries]\ninsecure = [\"{}\", \"{}\"]\n", first.address, other.address);
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let done = pull(&anna, &format!("{}/app:v1", first.address)).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    Lab { server, first, revoked, other, image, anna, bert }
}

fn config_of(image: &Image) -> String {
    let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}

/// The image with neither its secret layer's bytes, nor any layer's.
fn without_bytes(image: &Image) -> Image {
    let mut bare = image.clone();
    for layer in &image.layers {
        bare.blobs.insert(layer.clone(), Vec::new());
    }
    bare
}

async fn has_nothing(client: &Client) -> String {
    let listed = client.get("/api/v1/images").await.json()["items"].clone();
    if listed == json!([]) { "failed, and has nothing".into() } else { listed.to_string() }
}

const NOTHING: &str = "failed, and has nothing";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i08_a_digest_is_no_key() {
    requires_root!();
    let lab = lab().await;
    let Lab { first, other, image, anna, bert, .. } = &lab;
    let held = || anna.get("/api/v1/images");
    let before = held().await.json();
    let id = before["items"][0]["id"].as_str().expect("an id").to_owned();
    let control = "anna has the layer, and may export it";
    anna.get(&format!("/api/v1/images/{id}/export")).await.expect_status(200);
    let tries: Vec<(&str, Fault)> = vec![
        ("another repository names it and has no bytes", Fault::Status(404)),
        ("another repository gives other bytes", Fault::Flip),
        ("another repository gives fewer bytes", Fault::Shorter),
        ("another repository gives bytes and more", Fault::Longer),
        ("another repository sends nobody anything", Fault::Cut(0)),
        (
            "another repository leads back to the first",
            Fault::Redirect(format!("http://{}/none", first.address)),
        ),
    ];
    for (number, (name, fault)) in tries.into_iter().enumerate() {
        let repository = format!("t{number}");
        other.host(&repository, image.clone(), Place::Layer(1), fault, usize::MAX);
        let done = pull(bert, &format!("{}/{repository}:v1", other.address)).await;
        assert_eq!(done["state"], "failed", "{name}: {done}");
        Check { id: "I08", variant: name, control }.sees(NOTHING, has_nothing(bert).await);
    }
    for (name, bytes) in archives(image) {
        let done = import(bert, bytes).await;
        assert_eq!(done["state"], "failed", "{name}: {done}");
        Check { id: "I08", variant: name, control }.sees(NOTHING, has_nothing(bert).await);
    }
    // By digest, over every way that takes one.
    let digests = [image.top.clone(), config_of(image), image.layers[1].clone(), id.clone()];
    for digest in &digests {
        let body = json!({"name": "thief", "image": digest, "command": ["/bin/sh"]});
        let answer = bert.post("/api/v1/containers", &body).await;
        let variant = format!("a container of {}", &digest[..12]);
        // The id of an image that one has not is a name like another: it would be pulled.
        let pulls = answer.status == 202 && *digest == id;
        let word = if answer.status >= 400 || pulls { "not given".into() } else { answer.text };
        Check { id: "I08", variant: &variant, control }.sees("not given", word);
        for path in ["", "/export", "/tags"] {
            let answer = bert.get(&format!("/api/v1/images/{digest}{path}")).await;
            let variant = format!("GET {path} of {}", &digest[..12]);
            let missing = matches!(answer.status, 404 | 405);
            Check { id: "I08", variant: &variant, control }
                .sees("there is none", if missing { "there is none".into() } else { answer.text });
        }
    }
    assert_eq!(held().await.json(), before, "anna notices nothing");
    // The name that anna's image has is bert's to give to his own, and means his alone.
    let own = Image::small("bert's own");
    let done = import(bert, own.layout_archive(&format!("{}/app:v1", first.address))).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    Check { id: "I08", variant: "one name, two people", control: "both have it" }
        .sees(&before, held().await.json());
    let shown = bert.get("/api/v1/images").await.json();
    assert_ne!(shown["items"][0]["manifest_digest"], before["items"][0]["manifest_digest"]);
}

/// Archives that name anna's content and do not hold it.
fn archives(image: &Image) -> Vec<(&'static str, Vec<u8>)> {
    let bare = without_bytes(image);
    let mut absent = image.clone();
    for layer in &image.layers {
        absent.blobs.remove(layer);
    }
    let mut linked = saved(image, |_| {});
    linked[2] = Entry::symlink("1/layer.tar", format!("blobs/sha256/{}", &image.layers[1][7..]));
    let named: Vec<Entry> = saved(image, |document| {
        document[0]["Layers"][1] = json!(format!("blobs/sha256/{}", &image.layers[1][7..]));
    });
    let mut stored = named.clone();
    stored.retain(|entry| entry.name != b"1/layer.tar");
    vec![
        ("a layout with empty layers", bare.layout_archive("lab/thief:v1")),
        ("a layout without layers", absent.layout_archive("lab/thief:v1")),
        ("docker save with a link for a layer", archive(&linked)),
        ("docker save that names a layer by digest", archive(&stored)),
    ]
}

/// Who is given nothing by the registry any more gets nothing from here either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i08_what_a_registry_gives_no_more_is_not_given_from_here() {
    requires_root!();
    let lab = lab().await;
    let reference = format!("{}/app:v1", lab.first.address);
    let done = pull(&lab.bert, &reference).await;
    assert_eq!(done["state"], "succeeded", "the control: {done}");
    let id = done["result"]["image"].as_str().expect("an image");
    lab.bert.delete(&format!("/api/v1/images/{id}")).await.expect_status(204);
    lab.revoked.store(true, std::sync::atomic::Ordering::SeqCst);
    let done = pull(&lab.bert, &reference).await;
    assert_eq!(done["state"], "failed", "{done}");
    let control = "before, the same pull succeeded";
    Check { id: "I08", variant: "access revoked, pulled again", control }
        .sees(NOTHING, has_nothing(&lab.bert).await);
    // Another registry that serves the documents, and says no to the layer that is here.
    lab.other.host("app", lab.image.clone(), Place::Layer(1), Fault::Status(403), usize::MAX);
    let done = pull(&lab.bert, &format!("{}/app:v1", lab.other.address)).await;
    assert_eq!(done["state"], "failed", "{done}");
    Check { id: "I08", variant: "access revoked, by another repository", control }
        .sees(NOTHING, has_nothing(&lab.bert).await);
    let listed = lab.anna.get("/api/v1/images").await.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "anna keeps hers");
    assert!(lab.server.server_pid().is_some());
    assert_eq!(lab.image.top_type, OCI_MANIFEST);
}
