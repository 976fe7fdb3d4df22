//! An image that is shared: who finds it and how, that a launch from it makes it one's own and is charged in full, and
//! that what is kept stays whatever becomes of the share.

use serde_json::{Value, json};
use system_tests::containers::{act, import, in_status, log_with, until};
use system_tests::{Check, Client, TestServer, requires_root};

/// The newest image of somebody's own.
async fn own(client: &Client) -> Value {
    let me = client.get("/api/v1/me").await.json()["id"].clone();
    let listed = client.get(&format!("/api/v1/images?owner={me}")).await.expect_status(200).json();
    listed["items"][0].clone()
}

fn id(image: &Value) -> String {
    image["id"].as_str().expect("an id").to_owned()
}

async fn share(client: &Client, image: &str, (kind, name): (&str, &str)) {
    let body = json!({"kind": kind, "name": name, "rights": ["files"]});
    let path = format!("/api/v1/images/{image}/grants");
    client.put(&path, &body).await.expect_status(200);
}

async fn unshare(client: &Client, image: &str, (kind, name): (&str, &str)) {
    let path = format!("/api/v1/images/{image}/grants?kind={kind}&name={name}");
    client.delete(&path).await.expect_status(204);
}

async fn allow(olga: &Client, person: &Client, bytes: u64) {
    let me = person.get("/api/v1/me").await.json()["id"].clone();
    let path = format!("/api/v1/people/{me}/allowance");
    olga.put(&path, &json!({"images_bytes": bytes})).await.expect_status(200);
}

#[tokio::test]
async fn who_launches_from_a_shared_image_has_it_as_their_own_and_is_charged_in_full() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let eve = server.person("eve", "user").await;
    let olga = server.operator();
    import(&anna).await;
    let annas = own(&anna).await;
    let image = id(&annas);
    let path = format!("/api/v1/images/{image}");
    let launch = |name: &str| json!({"name": name, "image": image, "command": ["sh", "-c", "echo ran"], "start": true});
    // Before it is shared it is as none that there is.
    let none = "0123456789abcdef0123456789abcdef";
    for (what, found) in [
        (&image, tom.get(&path).await),
        (&none.to_owned(), tom.get(&format!("/api/v1/images/{none}")).await),
    ] {
        let check = Check {
            id: "A01",
            variant: &format!("look at {what}"),
            control: "with a share it is there",
        };
        check.sees(404, found.status);
    }
    share(&anna, &image, ("person", "tom")).await;
    let seen = tom.get(&path).await.expect_status(200).json();
    assert_eq!(seen["image"]["rights"], json!(["state", "files"]), "{seen}");
    assert_eq!(seen["image"]["owner_name"], "anna", "{seen}");
    assert!(
        !seen["config"]["command"].is_null() && seen["held_by"]["images"] == json!([]),
        "{seen}"
    );
    assert_eq!(seen["image"]["unique_bytes"], seen["image"]["unpacked_bytes"], "{seen}");
    let listed = tom.get("/api/v1/images").await.json();
    assert_eq!(listed["items"][0]["id"], json!(image), "{listed}");
    let page = tom.get("/images").await.expect_status(200).text;
    assert!(page.contains("shared with you by anna"), "{page}");
    for refused in [
        tom.post(&format!("{path}/tags"), &json!({"reference": "lab/mine:v1"})).await,
        tom.delete(&path).await,
        tom.get(&format!("{path}/grants")).await,
    ] {
        assert_eq!((refused.status, refused.code()), (403, "sharing.not-granted".to_owned()));
    }
    assert_eq!(tom.get(&format!("{path}/export")).await.status, 200);
    let kept = is_charged(&olga, &tom, (&annas, &launch)).await;
    // Again it is the same one, by either id, and by no name of anna's.
    for (name, image) in [("second", &image), ("third", &kept)] {
        let mut body = launch(name);
        body["image"] = json!(image);
        let made = tom.post("/api/v1/containers", &body).await.expect_status(201).json();
        assert_eq!(made["image"]["id"], json!(kept), "{made}");
    }
    assert_eq!(own(&tom).await["tags"], json!([]));
    // The share ends, and anna's goes: what tom has kept is his.
    unshare(&anna, &image, ("person", "tom")).await;
    assert_eq!(tom.get(&path).await.status, 404);
    anna.delete(&path).await.expect_status(204);
    until(&anna, "/api/v1/images", |list| list["items"] == json!([])).await;
    in_status(&tom, "first", "exited").await;
    act(&tom, "first", "start").await.expect_status(200);
    in_status(&tom, "first", "exited").await;
    // By an id that nobody shares it is a name like others, and nothing of anna's.
    let other = eve.post("/api/v1/containers", &launch("other")).await;
    let started = serde_json::from_str::<Value>(&other.text).unwrap_or_default();
    assert_eq!(started["image"]["id"], Value::Null, "{}", other.text);
}

/// A launch from it is refused before its owner's allowance has room for all of it; then it is kept. Its new id.
async fn is_charged(
    olga: &Client,
    tom: &Client,
    (annas, launch): (&Value, &impl Fn(&str) -> Value),
) -> String {
    // Not before somebody may hold as much.
    let bytes = annas["compressed_bytes"].as_u64().zip(annas["unpacked_bytes"].as_u64());
    let bytes = bytes.map(|(stored, unpacked)| stored + unpacked).expect("sizes");
    allow(olga, tom, bytes - 1).await;
    let full = tom.post("/api/v1/containers", &launch("early")).await;
    assert_eq!(full.status, 507, "{}", full.text);
    assert_eq!(own(tom).await, Value::Null, "nothing is kept");
    allow(olga, tom, bytes).await;
    let made = tom.post("/api/v1/containers", &launch("first")).await.expect_status(201).json();
    let kept = id(&own(tom).await);
    assert_ne!(kept, id(annas));
    assert_eq!(made["image"]["id"], json!(kept), "{made}");
    log_with(tom, made["id"].as_str().expect("an id"), "ran").await;
    let usage = tom.get("/api/v1/me/usage").await.expect_status(200).json();
    assert_eq!(usage["images"]["bytes"], json!(bytes), "charged in full: {usage}");
    kept
}

#[tokio::test]
async fn an_image_is_kept_under_a_name_of_ones_own_and_by_a_group_as_long_as_one_is_in_it() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let olga = server.operator();
    import(&anna).await;
    let annas = own(&anna).await;
    let image = id(&annas);
    let path = format!("/api/v1/images/{image}");
    let made = olga.post("/api/v1/groups", &json!({"name": "course"})).await.expect_status(201);
    let members = format!("/api/v1/groups/{}/members", made.json()["id"]);
    for name in ["anna", "tom"] {
        let member = json!({"name": name, "role": "member"});
        olga.put(&members, &member).await.expect_status(200);
    }
    share(&anna, &image, ("group", "course")).await;
    // What an operator oversees is nothing that they may keep.
    assert_eq!(olga.post(&format!("{path}/keep"), &json!({})).await.code(), "sharing.not-granted");
    let wrong = tom.post(&format!("{path}/keep"), &json!({"reference": "No Name"})).await;
    assert_eq!((wrong.status, own(&tom).await), (422, Value::Null));
    let kept = tom.post(&format!("{path}/keep"), &json!({"reference": "lab/mine:v1"})).await;
    let kept = kept.expect_status(200).json();
    assert_eq!(kept["tags"].as_array().map(Vec::len), Some(1), "{kept}");
    assert_ne!(kept["id"], json!(image));
    let again = tom.post(&format!("{path}/keep"), &json!({})).await.expect_status(200).json();
    assert_eq!(again["id"], kept["id"], "once");
    olga.delete(&format!("{members}?name=tom")).await.expect_status(204);
    assert_eq!(tom.get(&path).await.status, 404);
    assert_eq!(tom.post(&format!("{path}/keep"), &json!({})).await.status, 404);
    let body = json!({"name": "mine", "image": "lab/mine:v1", "command": ["true"]});
    let made = tom.post("/api/v1/containers", &body).await.expect_status(201).json();
    assert_eq!(made["image"]["id"], kept["id"], "{made}");
    let events = tom.get("/api/v1/events").await.json().to_string();
    assert!(events.contains("image.kept"), "{events}");
    let events = anna.get("/api/v1/events").await.json().to_string();
    assert!(events.contains("image.shared") && !events.contains("image.kept"), "{events}");
}
