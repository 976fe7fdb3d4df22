//! ETag and If-Match (RFC 9110, 13): an edit goes through only from what is there, whoever made it.

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Answer, Client, Options, TestServer, image, requires_root};

/// Editors at once.
const RACERS: usize = 8;

async fn with_header(
    client: &Client,
    (method, path): (&str, &str),
    (name, value): (&'static str, &str),
    body: &Value,
) -> Answer {
    let request = client.request(method, path).header(name, value);
    send(if body.is_null() { request } else { request.json(body) }).await
}

/// A container that has come no further than its row, and its path.
async fn container(client: &Client, name: &str) -> String {
    let body = json!({"image": "127.0.0.1:1/none:latest", "name": name});
    let made = client.post("/api/v1/containers", &body).await;
    assert!(matches!(made.status, 201 | 202), "{made:?}");
    format!("/api/v1/containers/{}", made.json()["id"].as_str().expect("an id"))
}

async fn tag_of(client: &Client, path: &str) -> String {
    let shown = client.get(path).await.expect_status(200);
    let tag = shown.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "a strong tag: {tag}");
    tag
}

#[tokio::test]
async fn an_edit_from_an_old_look_is_refused_and_says_what_to_do() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let path = container(&anna, "web").await;
    let first = tag_of(&anna, &path).await;
    assert_eq!(tag_of(&anna, &path).await, first, "looking changes nothing");
    let always = json!({"restart": {"name": "always"}});
    let changed = with_header(&anna, ("PATCH", &path), ("if-match", &first), &always).await;
    let second = changed.expect_status(200).header("etag").to_owned();
    assert_ne!(second, first);
    assert_eq!(tag_of(&anna, &path).await, second, "the edit's answer has the new tag");
    let late = json!({"restart": {"name": "no"}});
    let refused = with_header(&anna, ("PATCH", &path), ("if-match", &first), &late).await;
    assert_eq!((refused.status, refused.code().as_str()), (412, "edit.stale"), "{refused:?}");
    assert_eq!(refused.header("etag"), second, "it tells where to go on from");
    assert!(refused.json()["detail"].as_str().is_some_and(|text| text.contains("If-Match")));
    assert_eq!(anna.get(&path).await.json()["restart"]["policy"]["name"], "always");
    // The control: the same edit from what is there goes through.
    with_header(&anna, ("PATCH", &path), ("if-match", &second), &late).await.expect_status(200);
    // Nobody is made to use it.
    anna.patch(&path, &always).await.expect_status(200);
}

#[tokio::test]
async fn star_lists_weak_tags_and_nonsense_are_taken_as_the_rfc_says() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let path = container(&anna, "web").await;
    let now = tag_of(&anna, &path).await;
    let nothing = json!({});
    for (name, value, status) in [
        ("if-match", "*".to_owned(), 200),
        ("if-match", format!("\"other\", {now}"), 200),
        ("if-match", format!("W/{now}"), 412),
        ("if-match", "\"other\"".to_owned(), 412),
        ("if-match", "\"\"".to_owned(), 412),
        ("if-match", now.trim_matches('"').to_owned(), 400),
        ("if-match", "*, \"a\"".to_owned(), 400),
        ("if-none-match", "*".to_owned(), 412),
        ("if-none-match", now.clone(), 412),
        ("if-none-match", format!("W/{now}"), 412),
        ("if-none-match", "\"other\"".to_owned(), 200),
    ] {
        let answer = with_header(&anna, ("PATCH", &path), (name, &value), &nothing).await;
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.text);
    }
    // What one may not see or change stays what it was, with whatever precondition.
    let tom = server.person("tom", "user").await;
    let auditor = server.person("audit", "auditor").await;
    for value in ["*", "\"other\"", now.as_str()] {
        let foreign = with_header(&tom, ("PATCH", &path), ("if-match", value), &nothing).await;
        let gone = "/api/v1/containers/00000000000000000000000000000000";
        let never = with_header(&tom, ("PATCH", gone), ("if-match", value), &nothing).await;
        assert_eq!(foreign.status, 404, "{value}");
        assert_eq!(foreign.body_without_id(), never.body_without_id());
        assert_eq!(foreign.header("etag"), "");
        let looked = with_header(&auditor, ("PATCH", &path), ("if-match", value), &nothing).await;
        assert_eq!(looked.status, 403);
    }
}

#[tokio::test]
async fn of_editors_who_began_from_the_same_look_one_wins() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let path = container(&anna, "web").await;
    for round in 0..5 {
        let from = tag_of(&anna, &path).await;
        let racers = (0..RACERS).map(|racer| {
            let (anna, path, from) = (anna.clone(), path.clone(), from.clone());
            tokio::spawn(async move {
                let body = json!({"name": format!("web-{round}-{racer}")});
                with_header(&anna, ("PATCH", &path), ("if-match", &from), &body).await
            })
        });
        let mut won = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            let answer = racer.await.expect("no racer panics");
            match answer.status {
                200 => won.push(answer.json()["name"].clone()),
                412 => {}
                other => panic!("{other}: {}", answer.text),
            }
        }
        assert_eq!(won.len(), 1, "one of {RACERS}: {won:?}");
        assert_eq!(anna.get(&path).await.json()["name"], won[0]);
    }
    // The control: without a precondition all go through, and all but the last are lost.
    let racers = (0..RACERS).map(|racer| {
        let (anna, path) = (anna.clone(), path.clone());
        tokio::spawn(
            async move { anna.patch(&path, &json!({"name": format!("free-{racer}")})).await },
        )
    });
    for racer in racers.collect::<Vec<_>>() {
        assert_eq!(racer.await.expect("no racer panics").status, 200);
    }
}

#[tokio::test]
async fn people_and_removals_keep_to_it_too() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let person = format!("/api/v1/people/{}", anna.get("/api/v1/me").await.json()["id"]);
    let first = tag_of(&olga, &person).await;
    let auditor = json!({"role": "auditor"});
    with_header(&olga, ("PATCH", &person), ("if-match", &first), &auditor).await.expect_status(200);
    let disable = json!({"disabled": true});
    let refused = with_header(&olga, ("PATCH", &person), ("if-match", &first), &disable).await;
    assert_eq!(refused.status, 412, "{}", refused.text);
    assert!(olga.get(&person).await.json()["disabled_at"].is_null());

    let tom = server.person("tom", "user").await;
    let path = container(&tom, "web").await;
    let first = tag_of(&tom, &path).await;
    tom.patch(&path, &json!({"name": "precious"})).await.expect_status(200);
    let force = format!("{path}?force=true");
    let none = Value::Null;
    let refused = with_header(&tom, ("DELETE", &force), ("if-match", &first), &none).await;
    assert_eq!(refused.status, 412, "{}", refused.text);
    assert_eq!(tom.get(&path).await.json()["name"], "precious");
    let now = tag_of(&tom, &path).await;
    let removed = with_header(&tom, ("DELETE", &force), ("if-match", &now), &none).await;
    assert!(matches!(removed.status, 202 | 204), "{removed:?}");
}

#[tokio::test]
async fn an_images_names_are_its_version() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let archive = image::archive("lab/app:v1", &[("content", 0o644, b"some")]);
    let path = format!("/api/v1/images/{}", image::import(&anna, archive).await);
    let first = tag_of(&anna, &path).await;
    let tags = format!("{path}/tags");
    let name = json!({"reference": "lab/app:v2"});
    let tagged = with_header(&anna, ("POST", &tags), ("if-match", &first), &name).await;
    let second = tagged.expect_status(200).header("etag").to_owned();
    assert_eq!(tag_of(&anna, &path).await, second);
    let none = Value::Null;
    let refused = with_header(&anna, ("DELETE", &path), ("if-match", &first), &none).await;
    assert_eq!(refused.status, 412, "{}", refused.text);
    let untag = format!("{tags}?reference=lab/app:v2");
    with_header(&anna, ("DELETE", &untag), ("if-match", &second), &none).await.expect_status(204);
    assert_eq!(tag_of(&anna, &path).await, first, "the same names are the same version");
    with_header(&anna, ("DELETE", &path), ("if-match", &first), &none).await.expect_status(204);
}
