//! I06, I07, I09 and I12: registries that lie, lead elsewhere, or stall.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Client, Options, TestServer, requires_root};

use super::registry::{Fake, Image, OCI_INDEX, Reply, begin, ended, pull};
use super::support::sha256;

async fn pulled_from(fake: &Fake) -> (TestServer, Client, Value) {
    let server = TestServer::with(Options { sections: fake.section(), ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
    (server, anna, done)
}

/// Nothing is listed, stored or staged.
async fn assert_nothing(server: &TestServer, client: &Client, name: &str) {
    assert_eq!(client.get("/api/v1/images").await.json()["items"], json!([]), "{name}");
    for directory in ["layers/sha256", "layers/tmp", "store/tmp"] {
        let path = server.data_dir().join(directory);
        let left = std::fs::read_dir(path).expect("a directory").count();
        assert_eq!(left, 0, "{name}: {directory}");
    }
}

#[tokio::test]
async fn i07_and_i06_what_does_not_match_is_neither_stored_nor_listed() {
    requires_root!();
    let image = Image::small("x");
    let layer = image.layers[1].clone();
    let bytes = image.blobs[&layer].clone();
    let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut document = manifest.clone();
        change(&mut document);
        document.to_string()
    };
    let blob = format!("/blobs/{layer}");
    let answers = |path: &'static str, reply: Arc<dyn Fn() -> Reply + Send + Sync>| {
        let blob = blob.clone();
        move |line: &str| {
            let path = if path == "layer" { blob.as_str() } else { path };
            line.contains(path).then(|| reply())
        }
    };
    let mut flipped = bytes.clone();
    flipped[600] ^= 1;
    let longer = [bytes.as_slice(), b"garbage"].concat();
    let shorter = bytes[..bytes.len() - 512].to_vec();
    let both = changed(&|m| m["manifests"] = json!([]));
    let bad = changed(&|m| m["layers"][0]["digest"] = json!("sha256:../../../../etc/x"));
    let upper = changed(&|m| m["layers"][0]["digest"] = json!(sha256(b"").to_uppercase()));
    let md5 =
        changed(&|m| m["layers"][0]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e"));
    let as_index = changed(&|_| {});
    let huge = "x".repeat(5 << 20);
    type Answer = Arc<dyn Fn() -> Reply + Send + Sync>;
    let cases: Vec<(&str, &'static str, Answer)> = vec![
        ("flipped bit", "layer", Arc::new(move || Reply::ok(flipped.clone()))),
        ("longer", "layer", Arc::new(move || Reply::ok(longer.clone()))),
        ("shorter", "layer", Arc::new(move || Reply::ok(shorter.clone()))),
        ("both documents", "/manifests/", Arc::new(move || Reply::ok(both.clone()))),
        ("digest is a path", "/manifests/", Arc::new(move || Reply::ok(bad.clone()))),
        ("upper case", "/manifests/", Arc::new(move || Reply::ok(upper.clone()))),
        ("md5", "/manifests/", Arc::new(move || Reply::ok(md5.clone()))),
        (
            "called an index",
            "/manifests/",
            Arc::new(move || Reply::ok(as_index.clone()).header("content-type", OCI_INDEX)),
        ),
        ("5 MiB manifest", "/manifests/", Arc::new(move || Reply::ok(huge.clone()))),
    ];
    for (name, path, reply) in cases {
        let fake = Fake::start(image.clone(), answers(path, reply));
        let (server, anna, done) = pulled_from(&fake).await;
        assert_eq!(done["state"], "failed", "{name}: {done}");
        // One good layer may be there until the next start; it is listed by nobody.
        assert_eq!(anna.get("/api/v1/images").await.json()["items"], json!([]), "{name}");
        let wrong = server.data_dir().join("layers/sha256").join(&layer[7..]);
        assert!(!wrong.exists(), "{name}");
    }
    // The control: the same image, served as it is.
    let fake = Fake::start(image, |_| None);
    let (_server, _, done) = pulled_from(&fake).await;
    assert_eq!(done["state"], "succeeded", "{done}");
}

#[tokio::test]
async fn i09_redirects_and_token_services_do_not_lead_to_forbidden_places() {
    requires_root!();
    let image = Image::small("x");
    let recorder = TcpListener::bind("127.0.0.1:0").expect("a port");
    recorder.set_nonblocking(true).expect("a listener");
    let port = recorder.local_addr().expect("its address").port();
    for target in [
        format!("http://127.0.0.1:{port}/x"),
        format!("https://127.0.0.1:{port}/x"),
        format!("https://[::ffff:127.0.0.1]:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("https://localhost:{port}/x"),
        "http://169.254.169.254/latest".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        for by_realm in [false, true] {
            let target = target.clone();
            let fake = Fake::start(image.clone(), move |_| {
                Some(if by_realm {
                    let challenge = format!("Bearer realm=\"{target}\",service=\"x\"");
                    Reply::status(401).header("www-authenticate", &challenge)
                } else {
                    Reply::status(307).header("location", &target)
                })
            });
            let (server, anna, done) = pulled_from(&fake).await;
            assert_eq!(done["failure"]["code"], "registry.forbidden", "{done}");
            assert_nothing(&server, &anna, "forbidden").await;
        }
    }
    assert!(recorder.accept().is_err(), "somebody was connected to");
    // The control: a redirect to a listed place is followed, without the registry's credentials.
    let other = Fake::start(image.clone(), |_| None);
    let to = other.address.clone();
    let first = Fake::start(image, move |line| {
        let path = line.split(' ').nth(1).unwrap_or_default();
        line.contains("/blobs/")
            .then(|| Reply::status(307).header("location", &format!("http://{to}{path}")))
    });
    let section =
        format!("[registries]\ninsecure = [\"{}\", \"{}\"]\n", first.address, other.address);
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let credentials = json!({"registry": first.address, "username": "a", "password": "b"});
    anna.put("/api/v1/registries", &credentials).await.expect_status(200);
    let done = pull(&anna, &format!("{}/app:v1", first.address)).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let seen = other.seen.lock().expect("the log").clone();
    assert!(!seen.is_empty() && seen.iter().all(|seen| !seen.headers.contains("authorization")));
}

#[tokio::test]
async fn only_allowed_and_listed_registries_are_asked() {
    requires_root!();
    let fake = Fake::start(Image::small("x"), |_| None);
    let section = "[registries]\nallowed = [\"ghcr.io\"]\n".to_owned();
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let body = json!({"reference": format!("{}/app:v1", fake.address)});
    let answer = anna.post("/api/v1/images/pull", &body).await.expect_status(403);
    assert_eq!(answer.code(), "registry.not-allowed");
    assert!(fake.lines().is_empty());
    // Not listed as insecure: TLS is spoken, and loopback is no place for it.
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
    assert_eq!(done["failure"]["code"], "registry.forbidden", "{done}");
    assert!(fake.lines().is_empty());
}

#[tokio::test]
async fn a_stored_layer_is_not_given_on_another_repositorys_word() {
    requires_root!();
    let image = Image::small("secret");
    let first = Fake::start(image.clone(), |_| None);
    let config_digest = {
        let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
        manifest["config"]["digest"].as_str().expect("a digest").to_owned()
    };
    let config = image.blobs[&config_digest].clone();
    // It says yes to every HEAD and has no bytes.
    let liar = Fake::start(image, move |line| {
        if line.contains(&config_digest) {
            return Some(Reply::ok(config.clone()));
        }
        match (line.contains("/blobs/"), line.starts_with("HEAD")) {
            (true, true) => Some(Reply::status(200)),
            (true, false) => Some(Reply::status(404)),
            _ => None,
        }
    });
    let section =
        format!("[registries]\ninsecure = [\"{}\", \"{}\"]\n", first.address, liar.address);
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    assert_eq!(pull(&anna, &format!("{}/app:v1", first.address)).await["state"], "succeeded");
    let stolen = pull(&bert, &format!("{}/app:v1", liar.address)).await;
    assert_eq!(stolen["state"], "failed", "{stolen}");
    assert_eq!(bert.get("/api/v1/images").await.json()["items"], json!([]));
    // The control: where the layer came from, the same is given to him.
    assert_eq!(pull(&bert, &format!("{}/app:v1", first.address)).await["state"], "succeeded");
}

#[tokio::test]
async fn i12_a_cut_transfer_is_taken_up_and_a_stalled_one_cancelled_within_two_seconds() {
    requires_root!();
    let image = Image::small("x");
    let layer = image.layers[0].clone();
    let bytes = image.blobs[&layer].clone();
    let tries = Arc::new(AtomicUsize::new(0));
    let (count, path, whole) =
        (Arc::clone(&tries), format!("GET /v2/app/blobs/{layer}"), bytes.clone());
    let fake = Fake::start(image.clone(), move |line| {
        let first = line == path && count.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(|| Reply { sent: Some(whole.len() / 2), ..Reply::ok(whole.clone()) })
    });
    let (_server, _, done) = pulled_from(&fake).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(tries.load(Ordering::SeqCst), 2);

    let path = format!("GET /v2/app/blobs/{layer}");
    let fake = Fake::start(image, move |line| {
        let stall = Some(Duration::from_secs(20));
        (line == path).then(|| Reply { stall, ..Reply::ok(bytes.clone()) })
    });
    let server = TestServer::with(Options { sections: fake.section(), ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let id = begin(&anna, &format!("{}/app:v1", fake.address)).await;
    let begun = Instant::now();
    while !fake.lines().iter().any(|line| line.contains(&layer)) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the layer is not asked for");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancelled = Instant::now();
    anna.post(&format!("/api/v1/operations/{id}/cancel"), &json!({})).await;
    let done = ended(&anna, &id).await;
    assert_eq!(done["state"], "cancelled", "{done}");
    assert!(cancelled.elapsed() < Duration::from_secs(2), "{:?}", cancelled.elapsed());
    let limit = Instant::now() + Duration::from_secs(2);
    let staged = || std::fs::read_dir(server.data_dir().join("layers/tmp")).expect("it").count();
    while staged() > 0 {
        assert!(Instant::now() < limit, "staging stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(anna.get("/api/v1/images").await.json()["items"], json!([]));
}
