//! What nothing needs any more (`berth gc`): what goes, what stays and why, and that nobody's but one's own
//! is told or removed.

use std::fs;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::until;
use system_tests::{Answer, Client, Options, TestServer, requires_root};

use super::registry::{DockerRegistry, Image, host_architecture, pull};
use super::support::{Entry, archive};

const BASE_BYTES: usize = 70_000;

/// An image with a base that others have too, and a file of its own.
fn image(marker: &str) -> Image {
    let base = archive(&[Entry::file("base", &vec![7; BASE_BYTES])]);
    let own = archive(&[Entry::file("own", marker.repeat(3000).as_bytes())]);
    Image::of(&[base, own], host_architecture())
}

async fn pulled(client: &Client, reference: &str) -> String {
    let done = pull(client, reference).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    done["result"]["image"].as_str().expect("an image").to_owned()
}

/// What is said of each image, by id: verdict, reason, sentence.
fn said(view: &Value, id: &str) -> (String, String, String) {
    let items = view["items"].as_array().expect("items");
    let item = items.iter().find(|item| item["id"] == id).unwrap_or_else(|| panic!("{id}: {view}"));
    let word = |name: &str| item[name].as_str().expect("a word").to_owned();
    (word("verdict"), word("reason"), word("why"))
}

fn verdict(view: &Value, id: &str) -> (String, String) {
    let (verdict, reason, _) = said(view, id);
    (verdict, reason)
}

fn pair(verdict: &str, reason: &str) -> (String, String) {
    (verdict.to_owned(), reason.to_owned())
}

async fn look(client: &Client, query: &str) -> Value {
    client.get(&format!("/api/v1/gc{query}")).await.expect_status(200).json()
}

async fn remove(client: &Client, body: &Value) -> Value {
    client.post("/api/v1/gc", body).await.expect_status(200).json()
}

async fn untag(client: &Client, id: &str, reference: &str) -> Answer {
    let path = format!("/api/v1/images/{id}/tags?reference={reference}");
    send(client.request("DELETE", &path)).await
}

#[tokio::test]
async fn what_nothing_needs_goes_and_what_stays_says_why() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    for (marker, name) in [("a", "used"), ("b", "tagged"), ("c", "untagged"), ("d", "second")] {
        registry.push(&image(marker), name, "v1");
    }
    let sections = registry.section();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let reference = |name: &str| format!("{}/{name}:v1", registry.address);
    let used = pulled(&anna, &reference("used")).await;
    let tagged = pulled(&anna, &reference("tagged")).await;
    let untagged = pulled(&anna, &reference("untagged")).await;
    let second = pulled(&anna, &reference("second")).await;
    let berts = pulled(&bert, &reference("untagged")).await;
    for (client, id, name) in [
        (&anna, &used, "used"),
        (&anna, &untagged, "untagged"),
        (&anna, &second, "second"),
        (&bert, &berts, "untagged"),
    ] {
        assert_eq!(untag(client, id, &reference(name)).await.status, 204);
    }
    let body = json!({"name": "web", "image": used, "command": ["/own"]});
    anna.post("/api/v1/containers", &body).await.expect_status(201);

    // For a week everything stays, and says why.
    let view = look(&anna, "").await;
    assert_eq!(verdict(&view, &untagged), pair("keep", "recent"));
    assert_eq!(verdict(&view, &tagged), pair("keep", "tagged"));
    assert_eq!(said(&view, &used).2, "the container web uses it");
    assert_eq!((&view["frees_bytes"], &view["more"]), (&json!(0), &json!(false)));
    assert!(!view.to_string().contains(&berts), "nobody else's is told: {view}");
    let view = look(&anna, "?unneeded_days=0").await;
    assert_eq!(verdict(&view, &untagged), pair("remove", "unneeded"));
    assert_eq!(verdict(&view, &second), pair("remove", "unneeded"));
    assert_eq!(verdict(&view, &used), pair("keep", "in_use"));
    let frees = view["frees_bytes"].as_u64().expect("a number");
    // Both have a file of their own; the base stays with the others.
    let least = 2 * 3000;
    assert!((least..least + BASE_BYTES as u64).contains(&frees), "{view}");
    let view = look(&anna, "?unneeded_days=0&tagged=true").await;
    assert_eq!(verdict(&view, &tagged), pair("remove", "unneeded"));

    // Looking has changed nothing; asking does, and once.
    assert_eq!(anna.get(&format!("/api/v1/images/{untagged}")).await.status, 200);
    let done = remove(&anna, &json!({"unneeded_days": 0})).await;
    assert_eq!(verdict(&done, &untagged), pair("removed", "unneeded"));
    assert_eq!(done["frees_bytes"], json!(frees));
    for (id, status) in [(&untagged, 404), (&second, 404), (&used, 200), (&tagged, 200)] {
        assert_eq!(anna.get(&format!("/api/v1/images/{id}")).await.status, status, "{done}");
    }
    assert_eq!(bert.get(&format!("/api/v1/images/{berts}")).await.status, 200, "it is bert's");
    let again = remove(&anna, &json!({"unneeded_days": 0})).await;
    assert_eq!(
        (&again["frees_bytes"], again["items"].as_array().map(Vec::len)),
        (&json!(0), Some(2))
    );
    let audit = server.operator().get("/api/v1/audit?action=image.remove").await.json();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(2), "{audit}");

    // What the last container has left is needed until then.
    anna.delete("/api/v1/containers/web").await.expect_status(204);
    assert_eq!(verdict(&look(&anna, "?unneeded_days=1").await, &used), pair("keep", "recent"));
    let view = look(&anna, "?unneeded_days=0").await;
    assert_eq!(verdict(&view, &used), pair("remove", "unneeded"));

    everyone(&server, &anna, &berts).await;
    // Its content goes with the last who has it.
    let stored = || {
        fs::read_dir(server.data_dir().join("store/blobs/sha256"))
            .map(Iterator::count)
            .unwrap_or_default()
    };
    let before = stored();
    remove(&anna, &json!({"unneeded_days": 0, "tagged": true})).await;
    until(&anna, "/api/v1/images", |shown| shown["items"] == json!([]) && stored() < before).await;
}

/// Operators remove everybody's, auditors look, others are refused.
async fn everyone(server: &TestServer, anna: &Client, berts: &str) {
    let (olga, ada) = (server.operator(), server.person("ada", "auditor").await);
    let wanted = json!({"everyone": true, "unneeded_days": 0});
    for answer in
        [anna.get("/api/v1/gc?everyone=true").await, anna.post("/api/v1/gc", &wanted).await]
    {
        let problem = answer.expect_status(403).json();
        assert_eq!(problem["type"], "/problems/gc.everyone");
    }
    assert_eq!(ada.post("/api/v1/gc", &wanted).await.status, 403);
    let db = server.data_dir().join("db");
    let (kept, newest) = (db.join("berth.db.version-3"), db.join("berth.db.version-9"));
    for path in [&kept, &newest] {
        fs::copy(db.join("berth.db"), path).expect("a copy from before an upgrade");
    }
    let view = look(&ada, "?everyone=true&unneeded_days=0").await;
    assert_eq!(verdict(&view, berts), pair("remove", "unneeded"));
    assert_eq!(verdict(&view, "berth.db.version-3"), pair("remove", "unneeded"));
    assert_eq!(verdict(&view, "berth.db.version-9"), pair("keep", "way_back"));
    let view = look(&olga, "?everyone=true").await;
    assert_eq!(verdict(&view, "berth.db.version-3"), pair("keep", "recent"));
    // Without the word an operator's own are meant, of which there are none.
    assert_eq!(look(&olga, "?unneeded_days=0").await["items"], json!([]));
    let done = remove(&olga, &wanted).await;
    assert_eq!(verdict(&done, berts), pair("removed", "unneeded"));
    assert!(!kept.exists() && newest.exists());
    let audit = olga.get("/api/v1/audit?action=inventory.copy-remove").await.json();
    assert_eq!(audit["items"][0]["subject"], "berth.db.version-3", "{audit}");
}
