//! People, groups, limits and asks on the command line.

use serde_json::json;
use system_tests::{TestServer, requires_root};

use crate::Person;

/// An operator whose token may manage.
async fn operator(server: &TestServer) -> Person {
    server.person("olaf", "operator").await;
    let person = Person::at(&server.url());
    let words = ["login", &person.url, "--user", "olaf", "--password-stdin", "--scope", "manage"];
    person.does(&words, system_tests::instance::PASSWORD).await.good();
    person
}

#[tokio::test]
async fn people_and_groups_are_looked_after_on_the_command_line() {
    requires_root!();
    let server = TestServer::start().await;
    let olaf = operator(&server).await;
    let link = olaf.gets(&["people", "add", "kim", "--expires", "2090-12-31"]).await;
    let secret = link.trim().strip_prefix(&format!("{}/invitation/", olaf.url)).expect("a link");
    assert_eq!(server.anonymous().get(&format!("/invitation/{secret}")).await.status, 200);
    olaf.does(&["people", "add", "kim"], "").await.fails(1, "kim");
    olaf.does(&["people", "add", "No Name"], "").await.fails(1, "lower-case");
    let listed = olaf.gets(&["people", "ls"]).await;
    let kim = listed.lines().find(|line| line.starts_with("kim")).expect("kim is listed");
    assert!(kim.contains("invited") && kim.contains("everybody") && kim.contains("2091"), "{kim}");
    let tom = Person::signed_in(&server, "tom").await;
    assert_eq!(olaf.gets(&["people", "disable", "tom", "kim"]).await, "tom\nkim\n");
    tom.does(&["ps"], "").await.fails(1, "");
    assert!(olaf.gets(&["people", "list"]).await.contains("disabled"));
    olaf.does(&["people", "enable", "nobody", "tom"], "").await.fails(1, "nobody named nobody");
    tom.sign_in("tom").await;
    // Somebody who is no operator.
    tom.does(&["people", "ls"], "").await.fails(1, "role");
    // Limits.
    let set = ["people", "limits", "tom", "--set", "memory=1g", "--set", "containers=3"];
    let shown = olaf.gets(&set).await;
    assert!(shown.contains("1 GiB") && shown.contains('3'), "{shown}");
    olaf.gets(&["people", "limits", "tom", "--set", "containers=none"]).await;
    let own = olaf.gets_json(&["people", "limits", "tom"]).await;
    assert_eq!((&own["memory_bytes"], &own["containers_max"]), (&json!(1 << 30), &json!(null)));
    olaf.does(&["people", "limits", "tom", "--set", "room=3"], "").await.fails(2, "memory");
    assert_eq!(olaf.gets_json(&["people", "limits", "tom", "--reset"]).await["own"], false);
    // What somebody would be over is said first.
    let client = server.sign_in("tom", system_tests::instance::PASSWORD).await.expect_status(201);
    let client = server.anonymous().with_cookies_of(&client);
    system_tests::containers::import(&client).await;
    let body = json!({"image": system_tests::containers::IMAGE, "name": "a", "command": ["true"]});
    client.post("/api/v1/containers", &body).await.expect_status(201);
    let lower = ["people", "limits", "tom", "--set", "containers=0"];
    olaf.does(&lower, "").await.fails(1, "no container is made until there are fewer");
    assert_eq!(olaf.gets_json(&["people", "limits", "tom"]).await["own"], false, "nothing changed");
    let words: Vec<&str> = lower.into_iter().chain(["--force"]).collect();
    olaf.gets(&words).await;
    // Groups.
    assert_eq!(olaf.gets(&["groups", "add", "course", "--note", "summer"]).await, "course\n");
    assert_eq!(olaf.gets(&["groups", "join", "course", "tom", "--manager"]).await, "tom\n");
    let members = olaf.gets(&["groups", "members", "course"]).await;
    assert!(members.contains("tom") && members.contains("manager"), "{members}");
    assert_eq!(tom.gets_json(&["groups", "ls"]).await[0]["role"], "manager");
    assert_eq!(olaf.gets(&["groups", "leave", "course", "tom"]).await, "tom\n");
    olaf.gets(&["groups", "limits", "course", "--set", "cpus=2"]).await;
    assert_eq!(olaf.gets_json(&["groups", "limits", "course"]).await["cpu_millis"], 2000);
    assert_eq!(olaf.gets(&["groups", "count", "course", "tom"]).await, "tom\n");
    olaf.does(&["groups", "rm", "course"], "").await.fails(1, "course");
    olaf.gets(&["groups", "count", "everybody", "tom"]).await;
    assert_eq!(olaf.gets(&["groups", "rm", "course"]).await, "course\n");
    // More of a limit, asked for and decided.
    olaf.gets(&["people", "limits", "tom", "--set", "memory=1g"]).await;
    tom.does(&["ask", "memory", "much", "--reason", "x"], "").await.fails(2, "much");
    let id = tom.gets(&["ask", "memory", "4g", "--reason", "a larger course"]).await;
    let listed = olaf.gets(&["asks"]).await;
    assert!(listed.contains("a larger course") && listed.contains("4 GiB"), "{listed}");
    tom.does(&["asks", "approve", id.trim()], "").await.fails(1, "");
    olaf.gets(&["asks", "approve", id.trim(), "--give", "2g", "--for-good"]).await;
    let own = olaf.gets_json(&["people", "limits", "tom"]).await;
    assert_eq!(own["memory_bytes"], json!(2_u64 << 30));
    assert_eq!(tom.gets_json(&["asks"]).await, json!([]));
    assert_eq!(tom.gets_json(&["asks", "-a"]).await[0]["state"], "approved");
    let id = tom.gets(&["ask", "memory", "4g", "--reason", "more"]).await;
    assert_eq!(tom.gets(&["asks", "withdraw", id.trim()]).await, id);
}
