//! A container that is shared: what each right lets people do and nothing more, what a share's end ends, who is told
//! of whom.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::containers::{act, import, in_status, run, until};
use system_tests::socket::{Socket, open};
use system_tests::{Answer, Check, Client, TestServer, requires_root};

use super::execs::commands_until;

/// What somebody is at must be over this long after their share is.
const LIMIT: Duration = Duration::from_secs(5);
const SCRIPT: &str = "echo from-inside; while :; do sleep 1000; done";

fn path(id: &str) -> String {
    format!("/api/v1/containers/{id}")
}

async fn share(client: &Client, id: &str, with: (&str, &str), rights: &[&str]) -> Answer {
    let body = json!({"kind": with.0, "name": with.1, "rights": rights});
    client.put(&format!("{}/grants", path(id)), &body).await
}

async fn unshare(client: &Client, id: &str, with: (&str, &str)) -> Answer {
    client.delete(&format!("{}/grants?kind={}&name={}", path(id), with.0, with.1)).await
}

fn said(answer: &Answer) -> String {
    match answer.status {
        200..300 => "done".to_owned(),
        404 => "not there".to_owned(),
        403 => answer.code(),
        status => format!("{status} {}", answer.code()),
    }
}

/// One act that takes each right, as somebody meets it.
async fn tries(client: &Client, id: &str) -> Vec<(&'static str, String)> {
    let path = path(id);
    let exec = json!({"program": {"command": ["true"]}});
    let shown = client.get(&path).await;
    let content = match shown.status {
        200 if shown.json()["content"].is_null() => "hidden".to_owned(),
        200 => "shown".to_owned(),
        _ => said(&shown),
    };
    let limits = json!({"limits": {"pids": 60}});
    let folder = json!({"path": "/bin"});
    vec![
        ("state", said(&shown)),
        ("files", content),
        ("listed files", said(&client.get(&format!("{path}/files?path=/bin")).await)),
        ("changed files", said(&client.post(&format!("{path}/files/folder"), &folder).await)),
        ("logs", said(&client.get(&format!("{path}/logs")).await)),
        ("terminal", said(&client.post(&format!("{path}/exec"), &exec).await)),
        ("manage", said(&client.patch(&path, &limits).await)),
        ("rename", said(&client.patch(&path, &json!({"name": "theirs"})).await)),
        ("see_shares", said(&client.get(&format!("{path}/grants")).await)),
        ("share", said(&share(client, id, ("person", "max"), &["state"]).await)),
        ("unshare", said(&unshare(client, id, ("person", "nobody")).await)),
        ("remove", said(&client.delete(&format!("{path}?force=true")).await)),
    ]
}

/// What of [`tries`] is to be seen by whoever has `rights`.
fn expected(rights: &[&str]) -> Vec<(&'static str, String)> {
    let has = |right: &str| rights.contains(&right);
    let refused = "sharing.not-granted";
    let all = [
        "state",
        "files",
        "listed files",
        "changed files",
        "logs",
        "terminal",
        "manage",
        "rename",
        "see_shares",
        "share",
        "unshare",
        "remove",
    ];
    let one = |what: &'static str| {
        let seen = match what {
            _ if rights.is_empty() => "not there",
            "state" => "done",
            "files" if has("files") => "shown",
            "files" => "hidden",
            "listed files" if has("files") => "done",
            // It is there already.
            "changed files" if has("files") && has("terminal") => "409 files.exists",
            "logs" | "terminal" | "manage" if has(what) => "done",
            _ => refused,
        };
        (what, seen.to_owned())
    };
    all.map(one).into()
}

#[tokio::test]
async fn each_right_lets_people_do_what_it_says_and_nothing_more() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let (tom, max) = (server.person("tom", "user").await, server.person("max", "user").await);
    import(&anna).await;
    let id = run(&anna, "shared", SCRIPT, json!({})).await;
    in_status(&anna, &id, "running").await;
    let control = "with the right the same request is done";
    for rights in [
        &[][..],
        &["state"],
        &["logs"],
        &["terminal"],
        &["files"],
        &["manage"],
        &["state", "logs", "terminal", "files", "manage"],
    ] {
        if !rights.is_empty() {
            share(&anna, &id, ("person", "tom"), rights).await.expect_status(200);
        }
        let variant = format!("a container shared as {rights:?}");
        let seen = format!("{:?}", tries(&tom, &id).await);
        Check { id: "A01", variant: &variant, control }
            .sees(format!("{:?}", expected(rights)), seen);
        // It is among theirs, marked, or not at all.
        let listed = tom.get("/api/v1/containers").await.expect_status(200).json();
        let shared = tom.get("/api/v1/containers?whose=shared").await.expect_status(200).json();
        let mine = tom.get("/api/v1/containers?whose=mine").await.expect_status(200).json();
        assert_eq!(listed, shared, "{rights:?}");
        assert_eq!(mine["items"], json!([]));
        match rights.is_empty() {
            true => assert_eq!(listed["items"], json!([])),
            false => {
                assert_eq!(listed["items"][0]["owner"]["name"], "anna", "{listed}");
                let told = listed["items"][0]["rights"].as_array().expect("rights");
                assert!(rights.iter().all(|right| told.contains(&json!(right))), "{told:?}");
                assert_eq!(told.len(), 1 + rights.iter().filter(|one| **one != "state").count());
            }
        }
    }
    // Another still sees nothing, and whoever had it neither, afterwards.
    assert_eq!(format!("{:?}", tries(&max, &id).await), format!("{:?}", expected(&[])));
    unshare(&anna, &id, ("person", "tom")).await.expect_status(204);
    assert_eq!(format!("{:?}", tries(&tom, &id).await), format!("{:?}", expected(&[])));
    // The control: its owner has done none of that in vain.
    anna.get(&path(&id)).await.expect_status(200);
}

#[tokio::test]
async fn a_shares_end_ends_what_rests_on_it_and_nothing_of_the_owners() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let tom = server.person("tom", "user").await;
    import(&anna).await;
    let id = run(&anna, "shared", SCRIPT, json!({})).await;
    in_status(&anna, &id, "running").await;
    share(&anna, &id, ("person", "tom"), &["logs", "terminal"]).await.expect_status(200);
    let own = open(&anna, &id, "sleep 5551", true).await;
    let theirs = open(&tom, &id, "sleep 5552", true).await;
    // Neither that of others is theirs to be with, nor to end.
    let control = "its owner is with it";
    for method in ["GET", "DELETE"] {
        let answer = tom.send(method, &own, &Value::Null).await;
        let variant = format!("{method} the owner's session");
        Check { id: "A01", variant: &variant, control }.sees(404, answer.status);
    }
    let list = tom.get(&format!("{}/execs", path(&id))).await.expect_status(200).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["items"][0]["opened_by"], "tom", "{list}");
    let list = anna.get(&format!("{}/execs", path(&id))).await.expect_status(200).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
    let _anna_at = Socket::attach(&anna, &format!("{own}/attach")).await;
    let mut tom_at = Socket::attach(&tom, &format!("{theirs}/attach")).await;
    let logs = format!("{}/logs?follow=true", path(&id));
    let log_of = |client: Client| {
        let logs = logs.clone();
        async move { client.request("GET", &logs).send().await.expect("an answer") }
    };
    let (tom_log, mut anna_log) = (log_of(tom.clone()).await, log_of(anna.clone()).await);
    let events = tom.request("GET", &format!("{}/stats/events", path(&id))).send().await;
    let once = tokio::spawn({
        let (tom, exec) = (tom.clone(), format!("{}/exec", path(&id)));
        let body = json!({"program": {"command": ["sleep", "5553"]}, "timeout_secs": 50});
        async move { tom.post(&exec, &body).await }
    });
    commands_until(&anna, &id, |all| {
        ["5551", "5552", "5553"].iter().all(|one| all.iter().any(|command| command.contains(one)))
    })
    .await;
    unshare(&anna, &id, ("person", "tom")).await.expect_status(204);
    let control = "its owner's of the same kind goes on";
    let check = |variant| Check { id: "A07", variant, control };
    for (what, mut stream) in [("a log", tom_log), ("figures", events.expect("an answer"))] {
        let end = async { while let Ok(Some(_)) = stream.chunk().await {} };
        check(what).sees(true, tokio::time::timeout(LIMIT, end).await.is_ok());
    }
    let closed = async { while tom_at.next().await {} };
    check("a terminal").sees(true, tokio::time::timeout(LIMIT, closed).await.is_ok());
    let answer = tokio::time::timeout(LIMIT, once).await.expect("in time").expect("an answer");
    check("a program that is waited for").sees("sharing.ended", answer.code());
    commands_until(&anna, &id, |all| {
        !all.iter().any(|one| one.contains("5552") || one.contains("5553"))
    })
    .await;
    // The control.
    commands_until(&anna, &id, |all| all.iter().any(|one| one.contains("5551"))).await;
    let still = async { while let Ok(Some(_)) = anna_log.chunk().await {} };
    assert!(tokio::time::timeout(Duration::from_millis(500), still).await.is_err());
}

#[tokio::test]
async fn a_groups_share_is_its_members_as_long_as_they_are() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let tom = server.person("tom", "user").await;
    let made = olga.post("/api/v1/groups", &json!({"name": "course"})).await.expect_status(201);
    let group = format!("/api/v1/groups/{}", made.json()["id"]);
    let member = |name: &str| json!({"name": name, "role": "member"});
    import(&anna).await;
    let id = run(&anna, "shared", SCRIPT, json!({})).await;
    in_status(&anna, &id, "running").await;
    // A group that one is not in is none, whether it is there or not.
    let refused = share(&anna, &id, ("group", "course"), &["state"]).await;
    let never = share(&anna, &id, ("group", "nocourse"), &["state"]).await;
    let control = "a member shares with it";
    Check { id: "A05", variant: "a group that one is not in", control }
        .sees(never.body_without_id().replace("nocourse", "course"), refused.body_without_id());
    olga.put(&format!("{group}/members"), &member("anna")).await.expect_status(200);
    olga.put(&format!("{group}/members"), &member("tom")).await.expect_status(200);
    assert_eq!(tom.get(&path(&id)).await.status, 404, "the control");
    share(&anna, &id, ("group", "course"), &["logs"]).await.expect_status(200);
    share(&anna, &id, ("person", "tom"), &["state"]).await.expect_status(200);
    // What somebody has of several shares adds up.
    tom.get(&format!("{}/logs", path(&id))).await.expect_status(200);
    // A renamed group is the same; what is of its name later is another's.
    olga.patch(&group, &json!({"name": "lecture"})).await.expect_status(200);
    let list = anna.get(&format!("{}/grants", path(&id))).await.expect_status(200).json();
    let names: Vec<_> =
        list["items"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["lecture", "tom"]);
    let stream = tom.request("GET", &format!("{}/logs?follow=true", path(&id))).send().await;
    let mut stream = stream.expect("an answer");
    olga.delete(&format!("{group}/members?name=tom")).await.expect_status(204);
    let end = async { while let Ok(Some(_)) = stream.chunk().await {} };
    let control = "it went on before";
    Check { id: "A07", variant: "a log, when its reader leaves the group", control }
        .sees(true, tokio::time::timeout(LIMIT, end).await.is_ok());
    let refused = tom.get(&format!("{}/logs", path(&id))).await;
    assert_eq!((refused.status, refused.code()), (403, "sharing.not-granted".to_owned()));
    tom.get(&path(&id)).await.expect_status(200);
    olga.delete(&group).await.expect_status(204);
    let list = anna.get(&format!("{}/grants", path(&id))).await.expect_status(200).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
}

#[tokio::test]
async fn sharing_tells_nobody_who_is_here_and_lasts_no_longer_than_its_object() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let tom = server.person("tom", "user").await;
    import(&anna).await;
    let id = run(&anna, "shared", SCRIPT, json!({})).await;
    in_status(&anna, &id, "running").await;
    let strip = |answer: &Answer, name: &str| {
        let mut body = answer.json();
        body["given_at"] = json!(0);
        format!("{} {}", answer.status, body.to_string().replace(name, "NAME"))
    };
    let control = "an operator is told";
    let known = share(&anna, &id, ("person", "tom"), &["logs"]).await;
    let unknown = share(&anna, &id, ("person", "zoe"), &["logs"]).await;
    Check { id: "A05", variant: "sharing with a name that nobody has", control }
        .sees(strip(&known, "tom"), strip(&unknown, "zoe"));
    let list = anna.get(&format!("{}/grants", path(&id))).await.expect_status(200).json();
    for item in list["items"].as_array().expect("a list") {
        assert_eq!(item["known"], json!(false), "{list}");
    }
    // Somebody who gets the name later has nothing of it.
    let zoe = server.person("zoe", "user").await;
    assert_eq!(zoe.get(&path(&id)).await.status, 404);
    share(&anna, &id, ("person", "zoe"), &["state"]).await.expect_status(200);
    zoe.get(&path(&id)).await.expect_status(200);
    // The grantees do not see each other; the owner's and the operator's events tell.
    let seen = tom.get("/api/v1/events?limit=200").await.expect_status(200).text;
    assert!(seen.contains("container.created") && !seen.contains("zoe"), "{seen}");
    let story = tom.get(&format!("{}/activity", path(&id))).await.expect_status(200).text;
    assert!(!story.contains("container.share") && !story.contains("zoe"), "{story}");
    let story = anna.get(&format!("{}/activity", path(&id))).await.expect_status(200).text;
    assert!(story.contains("logs with tom"), "{story}");
    // An operator sees the state and that, takes it away, and gives themselves nothing.
    let grants = format!("{}/grants", path(&id));
    let list = olga.get(&grants).await.expect_status(200).json();
    assert_eq!(list["items"][0]["known"], json!(true), "{list}");
    let refused = share(&olga, &id, ("person", "olga"), &["logs"]).await;
    let control = "the owner shares it with them, and then they read it";
    Check { id: "A01", variant: "an operator shares another's container with themselves", control }
        .sees("403 sharing.not-granted", format!("{} {}", refused.status, refused.code()));
    let refused = olga.get(&format!("{}/logs", path(&id))).await;
    assert_eq!((refused.status, refused.code()), (403, "sharing.not-granted".to_owned()));
    share(&anna, &id, ("person", "olga"), &["logs"]).await.expect_status(200);
    until_log(&olga, &id).await;
    unshare(&olga, &id, ("person", "zoe")).await.expect_status(204);
    assert_eq!(zoe.get(&path(&id)).await.status, 404);
    // Who did what on whose object.
    share(&anna, &id, ("person", "tom"), &["manage"]).await.expect_status(200);
    act(&tom, &id, "kill").await.expect_status(200);
    let audit = olga.get("/api/v1/audit?limit=100&actor=tom").await.expect_status(200).json();
    let row = audit["items"]
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["action"] == "container.kill");
    let row = row.expect("the act is audited");
    assert_eq!((&row["owner_name"], &row["subject"]), (&json!("anna"), &json!(id)), "{row}");
    // It goes with the container.
    until(&anna, &path(&id), |shown| shown["status"] == "exited").await;
    anna.delete(&path(&id)).await.expect_status(204);
    assert_eq!((tom.get(&path(&id)).await.status, olga.get(&grants).await.status), (404, 404));
}

async fn until_log(client: &Client, id: &str) {
    let text = system_tests::containers::log_with(client, id, "from-inside").await;
    assert!(text.contains("from-inside"), "{text}");
}
