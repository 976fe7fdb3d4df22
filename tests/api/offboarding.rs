//! Somebody is taken off the machine: what would happen is said, then it is done, whatever is killed meanwhile.

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, identity, import, in_status, ready, run, until};
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root};

async fn id_of(person: &Client) -> String {
    person.get("/api/v1/me").await.json()["id"].to_string()
}

async fn ended(olga: &Client, id: &str) -> Value {
    let path = format!("/api/v1/people/{id}/offboarding");
    until(olga, &path, |view| view["state"] == "ended").await
}

fn steps(view: &Value) -> Vec<String> {
    let steps = view["steps"].as_array().expect("steps").iter();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    steps
        .map(|step| {
            format!("{} {} {}", word(&step["act"]), word(&step["kind"]), word(&step["name"]))
        })
        .collect()
}

/// Two containers, one of them running with a volume, and an image; the pid of what runs.
async fn furnished(person: &Client) -> (String, i64) {
    import(person).await;
    person.post("/api/v1/volumes", &json!({"name": "data"})).await.expect_status(201);
    let more =
        json!({"mounts": [{"volume": "data", "target": "/data"}], "restart": {"name": "always"}});
    let id = run(person, "works", "echo x > /data/x; while :; do usleep 20000; done", more).await;
    let body = json!({"image": IMAGE, "name": "idle"});
    person.post("/api/v1/containers", &body).await.expect_status(201);
    let (pid, _) = identity(person, &id).await;
    (id, pid)
}

/// What would happen is said, with what its volumes hold.
async fn is_previewed(olga: &Client, anna_id: &str) {
    let path = format!("/api/v1/people/{anna_id}/offboarding");
    let [keep, delete] = ["keep", "delete"].map(|things| json!({"things": things}));
    let seen = olga.post(&format!("{path}/preview"), &keep).await.expect_status(200).json();
    assert_eq!(
        (steps(&seen), &seen["state"]),
        (vec!["stop container works".to_owned()], &json!("preview"))
    );
    let seen = olga.post(&format!("{path}/preview"), &delete).await.expect_status(200).json();
    let all =
        ["remove container idle", "remove container works", "remove volume data", "remove image "];
    let planned = steps(&seen);
    assert_eq!(planned.len(), 4, "{planned:?}");
    assert!(planned.iter().zip(all).all(|(step, begun)| step.starts_with(begun)), "{planned:?}");
    // What its volumes hold is looked at for that.
    let sized = |seen: &Value| seen["steps"][2]["bytes"].as_u64() > Some(0);
    let seen = olga.post(&format!("{path}/preview"), &delete).await.expect_status(200).json();
    assert!(sized(&seen) && seen["steps"][1]["bytes"].is_null(), "{seen}");
    let page = olga.get(&format!("/people/{anna_id}/offboarding")).await.expect_status(200).text;
    assert!(page.contains("the volumes hold "), "{page}");
}

#[tokio::test]
async fn whoever_leaves_is_stopped_and_kept_or_deleted_and_the_audit_knows_them_still() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let anna_id = id_of(&anna).await;
    let (works, pid) = furnished(&anna).await;
    let (toms, _) = furnished(&tom).await;
    let path = format!("/api/v1/people/{anna_id}/offboarding");
    assert_eq!(olga.get(&path).await.status, 404);
    let [keep, delete] = ["keep", "delete"].map(|things| json!({"things": things}));
    is_previewed(&olga, &anna_id).await;
    assert_eq!(anna.get("/api/v1/me").await.status, 200, "a look changes nothing");

    olga.post(&path, &keep).await.expect_status(202);
    let control = "tom, who stays, goes on";
    Check { id: "A07", variant: "a session of somebody who leaves", control }
        .sees(401, anna.get("/api/v1/me").await.status);
    let kept = ended(&olga, &anna_id).await;
    assert_eq!(
        (&kept["has_account"], steps(&kept)),
        (&json!(true), vec!["stop container works".to_owned()])
    );
    in_status(&olga, &works, "exited").await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it lives");
    assert!(olga.get(&format!("/api/v1/people/{anna_id}")).await.json()["disabled_at"].is_string());

    olga.post(&path, &delete).await.expect_status(202);
    let gone = ended(&olga, &anna_id).await;
    assert_eq!(gone["has_account"], false, "{gone}");
    assert!(
        gone["steps"].as_array().expect("steps").iter().all(|step| step["done_at"].is_string()),
        "{gone}"
    );
    assert_eq!(steps(&gone).len(), 4, "{gone}");
    assert_eq!(olga.get(&format!("/api/v1/people/{anna_id}")).await.status, 404);
    assert_eq!(olga.get(&format!("/api/v1/containers/{works}")).await.status, 404);
    assert_eq!(server.sign_in("anna", PASSWORD).await.status, 403);
    assert!(!written_somewhere(&server, &works), "something of it is on disk");
    // Asked again, it is what it was.
    let again = olga.post(&path, &delete).await.expect_status(202).json();
    assert_eq!(again["ended_at"], gone["ended_at"]);
    // What is known of her stays, by name; nobody gets her id, and her name is another's if it comes back.
    let rows = olga.get("/api/v1/audit?owner=anna&limit=200").await.json();
    let rows = rows["items"].as_array().expect("rows").clone();
    assert!(
        rows.iter().any(|row| row["action"] == "person.delete" && row["owner_name"] == "anna"),
        "{rows:?}"
    );
    assert!(
        rows.iter().any(|row| row["action"] == "container.remove" && row["actor_name"] == "olga"),
        "{rows:?}"
    );
    assert!(
        rows.iter().any(|row| row["action"] == "container.create" && row["actor_name"] == "anna"),
        "{rows:?}"
    );
    let new = server.person("anna", "user").await;
    assert_ne!(id_of(&new).await, anna_id);
    assert_eq!(new.get("/api/v1/containers").await.json()["items"], json!([]));
    identity(&tom, &toms).await;
    assert_eq!(olga.get("/api/v1/audit/verify").await.json()["state"], "whole");
}

#[tokio::test]
async fn nobody_but_an_operator_takes_another_off_the_machine() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let (olga, keep) = (server.operator(), json!({"things": "keep"}));
    let (tom, new) = (server.person("tom", "user").await, server.person("anna", "user").await);
    let tom_id = id_of(&tom).await;
    let toms_path = format!("/api/v1/people/{tom_id}/offboarding");
    Check {
        id: "A01",
        variant: "a user takes somebody off the machine",
        control: "an operator gets 202",
    }
    .sees(403, new.post(&toms_path, &keep).await.status);
    let own = format!("/api/v1/people/{}/offboarding", id_of(&olga).await);
    let refused = olga.post(&own, &keep).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "person.self"));
}

/// Whether anything below the machine's own directory is called like this.
fn written_somewhere(server: &TestServer, id: &str) -> bool {
    let found = std::process::Command::new("find")
        .arg(server.data_dir())
        .args(["-name", &format!("*{id}*")])
        .output();
    !found.expect("run find").stdout.is_empty()
}

#[tokio::test]
async fn a_deletion_goes_on_after_the_server_is_killed_at_any_time() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    for round in 0..4_u64 {
        let name = format!("p{round}");
        let person = server.person(&name, "user").await;
        let (works, pid) = furnished(&person).await;
        let id = id_of(&person).await;
        let path = format!("/api/v1/people/{id}/offboarding");
        olga.post(&path, &json!({"things": "delete"})).await.expect_status(202);
        if round > 0 {
            // Nothing changes an account that is on its way out.
            let back =
                olga.patch(&format!("/api/v1/people/{id}"), &json!({"disabled": false})).await;
            assert!(matches!(back.status, 404 | 409), "{}", back.text);
            tokio::time::sleep(std::time::Duration::from_millis(15 * round)).await;
        }
        server.kill_server();
        server.start_server().await;
        ready(&server).await;
        let gone = ended(&olga, &id).await;
        assert_eq!(gone["has_account"], false, "{gone}");
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it lives");
        assert_eq!(show_status(&olga, &works).await, 404);
    }
}

async fn show_status(olga: &Client, id: &str) -> u16 {
    olga.get(&format!("/api/v1/containers/{id}")).await.status
}

#[tokio::test]
async fn without_its_supervisor_a_deletion_waits_and_says_what_for() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let (works, pid) = furnished(&anna).await;
    let id = id_of(&anna).await;
    server.kill_supervisor();
    let path = format!("/api/v1/people/{id}/offboarding");
    olga.post(&path, &json!({"things": "delete"})).await.expect_status(202);
    let said = |view: &Value| {
        view["steps"].as_array().is_some_and(|all| all.iter().any(|step| step["said"] != ""))
    };
    let waits = until(&olga, &path, said).await;
    assert_eq!((&waits["state"], &waits["has_account"]), (&json!("running"), &json!(true)));
    let other = olga.post(&path, &json!({"things": "keep"})).await;
    assert_eq!((other.status, other.code().as_str()), (409, "person.leaving"));
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the control: it runs on");
    server.start_supervisor().await;
    ended(&olga, &id).await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(show_status(&olga, &works).await, 404);
}
