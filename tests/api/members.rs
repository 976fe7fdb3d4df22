//! Who is in which group: seen and changed by operators and by those who manage it; a person sees their own
//! groups and none beside them.

use serde_json::{Value, json};
use system_tests::{Answer, Check, Client, Options, TestServer, requires_root};

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

async fn made(olga: &Client, name: &str) -> String {
    let made = olga.post("/api/v1/groups", &json!({"name": name})).await.expect_status(201).json();
    format!("/api/v1/groups/{}", made["id"])
}

async fn set(client: &Client, group: &str, name: &str, role: &str) -> Answer {
    client.put(&format!("{group}/members"), &json!({"name": name, "role": role})).await
}

async fn out(client: &Client, group: &str, name: &str) -> Answer {
    client.delete(&format!("{group}/members?name={name}")).await
}

fn refusal(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.code())
}

async fn names(client: &Client, path: &str) -> Vec<String> {
    let all = client.get(path).await.expect_status(200).json();
    let items = all["items"].as_array().expect("a list");
    items.iter().map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn managers_have_members_and_nobody_else_has_a_say_or_a_look() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let eve = server.person("eve", "user").await;
    let course = made(&olga, "course").await;
    let other = made(&olga, "other").await;
    let control = "whoever manages the group may";
    let check = |variant| Check { id: "A01", variant, control };
    // Before: what they are not in is not there.
    let never = anna.get("/api/v1/groups/999").await;
    let seen = anna.get(&course).await;
    check("a group that one is not in").sees(never.body_without_id(), seen.body_without_id());
    assert_eq!(never.status, 404);
    assert_eq!(names(&anna, "/api/v1/groups").await, ["everybody"], "what she counts to");
    set(&olga, &course, "anna", "manager").await.expect_status(200);
    assert_eq!(names(&anna, "/api/v1/groups").await, ["course", "everybody"]);
    assert_eq!(names(&olga, "/api/v1/groups").await, ["course", "everybody", "other"]);
    // A manager adds and takes out.
    let added = set(&anna, &course, "tom", "member").await.expect_status(200).json();
    assert_eq!((&added["role"], &added["counts"]), (&json!("member"), &json!(false)), "{added}");
    assert_eq!(names(&anna, &format!("{course}/members")).await, ["anna", "tom"]);
    let seen = tom.get(&course).await.expect_status(200).json();
    assert_eq!((&seen["role"], &seen["members"]), (&json!("member"), &Value::Null), "{seen}");
    assert_eq!(anna.get(&course).await.json()["joined"], json!(2), "its manager may count");
    // A member is none; a manager is no operator; neither is anything elsewhere.
    let denied = "403 group.managers-only";
    let looked = tom.get(&format!("{course}/members")).await;
    check("a member looks at the members").sees(denied, refusal(&looked));
    check("a member adds").sees(denied, refusal(&set(&tom, &course, "eve", "member").await));
    check("a member takes out").sees(denied, refusal(&out(&tom, &course, "anna").await));
    let counted = anna.get("/api/v1/groups/2/members").await;
    check("whoever counts to a group looks").sees(denied, refusal(&counted));
    let denied = "403 group.operators-only";
    check("a manager makes a manager")
        .sees(denied, refusal(&set(&anna, &course, "tom", "manager").await));
    set(&olga, &course, "eve", "manager").await.expect_status(200);
    check("a manager takes a manager out").sees(denied, refusal(&out(&anna, &course, "eve").await));
    check("a manager makes a manager a member")
        .sees(denied, refusal(&set(&anna, &course, "eve", "member").await));
    let gone = "404 not-found";
    check("a manager of another group")
        .sees(gone, refusal(&set(&anna, &other, "tom", "member").await));
    // Somebody who is nobody, and somebody who is not in it.
    let unknown = set(&anna, &course, "nobody", "member").await;
    assert_eq!(refusal(&unknown), "422 request.invalid");
    assert_eq!(out(&anna, &course, "olga").await.status, 404);
    // Everybody may go, and those who are out see nothing of it.
    out(&eve, &course, "eve").await.expect_status(204);
    out(&anna, &course, "tom").await.expect_status(204);
    assert_eq!((tom.get(&course).await.status, eve.get(&course).await.status), (404, 404));
    let audit = olga.get("/api/v1/audit?limit=100").await.expect_status(200).text;
    for action in ["group.member", "group.member-remove"] {
        assert!(audit.contains(&format!("\"{action}\"")), "{action}");
    }
}

#[tokio::test]
async fn whoever_counts_to_a_group_is_in_it_as_long_as_they_do() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let everybody = "/api/v1/groups/2";
    let names_of = names(&olga, &format!("{everybody}/members")).await;
    assert_eq!(names_of, ["anna", "olga"]);
    let kept = out(&anna, everybody, "anna").await;
    assert_eq!(refusal(&kept), "409 group.counts-to-it");
    // Made a manager and back, she counts to it all along.
    set(&olga, everybody, "anna", "manager").await.expect_status(200);
    assert_eq!(names(&anna, &format!("{everybody}/members")).await, ["anna", "olga"]);
    out(&olga, everybody, "anna").await.expect_status(204);
    let shown = anna.get(everybody).await.expect_status(200).json();
    assert_eq!(shown["role"], json!("member"));
    // A group with members that nobody counts to can go.
    let course = made(&olga, "course").await;
    set(&olga, &course, "anna", "member").await.expect_status(200);
    olga.delete(&course).await.expect_status(204);
    assert_eq!(names(&anna, "/api/v1/groups").await, ["everybody"]);
}
