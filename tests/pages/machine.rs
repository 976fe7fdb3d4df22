//! The pages of those who oversee the machine: people, events and audit, registries, system; with and
//! without script, for operators who act and auditors who look.

use serde_json::json;
use system_tests::{Client, Options, TestServer, requires_root};

use crate::browser::{Browser, Driver, Script};
use crate::{launched, signed_in};

async fn id_of(client: &Client) -> String {
    client.get("/api/v1/me").await.json()["id"].to_string()
}

#[tokio::test]
async fn an_operator_looks_after_a_person() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    launched(&anna, "annas-work", &["sleep", "600"]).await;
    let path = format!("/people/{}", id_of(&anna).await);
    for script in [Script::On, Script::Off] {
        let driver = Driver::start().await;
        let olga = signed_in(&driver, &server, "olga", script).await;
        olga.open("/people").await;
        olga.sees("1 of 1").await;
        olga.press("anna").await;
        for text in ["annas-work", "running", "What is in them", "container.create", "1 browser"] {
            olga.sees(text).await;
        }
        stale_role(&olga, &server, &path).await;
        olga.press("New link").await;
        olga.sees("A link for anna").await;
        assert_eq!(olga.complaints().await, Vec::<String>::new());
        olga.close().await;
    }
    let olga = signed_in(&driver, &server, "olga", Script::Off).await;
    olga.open(&path).await;
    olga.press("End all sessions…").await;
    olga.sees("may sign in again").await;
    assert_eq!(
        anna.get("/api/v1/me").await.status,
        200,
        "nothing has ended before it is confirmed"
    );
    olga.press("End them").await;
    olga.sees("All sessions and tokens have ended").await;
    assert_eq!(anna.get("/api/v1/me").await.status, 401);
    assert_eq!(olga.complaints().await, Vec::<String>::new());
    olga.close().await;
}

/// Who would be over is asked before it is saved, with and without script.
#[tokio::test]
async fn who_would_be_over_is_shown_before_an_allowance_is_saved() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    launched(&anna, "annas-work", &["sleep", "600"]).await;
    let id = id_of(&anna).await;
    let (page, api) = (format!("/people/{id}"), format!("/api/v1/people/{id}/allowance"));
    for script in [Script::On, Script::Off] {
        let olga = signed_in(&driver, &server, "olga", script).await;
        for kept in [true, false] {
            olga.open(&page).await;
            olga.fill("memory", "32 MiB").await;
            olga.fill("containers", "0").await;
            olga.press("Save the allowance").await;
            olga.sees("Save this allowance for anna?").await;
            olga.sees("annas-work asks for").await;
            olga.sees("no container is made until there are fewer").await;
            let now = server.operator().get(&api).await.json();
            assert_eq!(now["own"], false, "nothing is saved before it is confirmed: {now}");
            olga.press(if kept { "Keep it" } else { "Save it" }).await;
        }
        olga.sees("The allowance is saved, and held").await;
        let now = server.operator().get(&api).await.json();
        assert_eq!((&now["memory_bytes"], &now["containers_max"]), (&json!(32 << 20), &json!(0)));
        // Back to everybody's, under which nobody is over: no question.
        olga.press("As for everybody").await;
        olga.sees("allowance applies again").await;
        assert_eq!(olga.complaints().await, Vec::<String>::new());
        olga.close().await;
    }
}

#[tokio::test]
async fn an_operator_makes_a_group_bounds_it_and_moves_a_person() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let page = format!("/people/{}", id_of(&anna).await);
    let olga = signed_in(&driver, &server, "olga", Script::Off).await;
    olga.open("/groups").await;
    olga.fill("name", "Summer").await;
    olga.press("Make it").await;
    olga.sees("use 1 to 32 lower-case letters").await;
    olga.fill("name", "summer").await;
    olga.fill("note", "the summer's course").await;
    olga.press("Make it").await;
    olga.sees("Nobody counts to it yet").await;
    let group = olga.path().await;
    let id = group.trim_start_matches("/groups/").to_owned();
    olga.fill("memory", "much").await;
    olga.press("Save the allowance").await;
    olga.sees("is no size").await;
    olga.fill("memory", "512 MiB").await;
    olga.press("Save the allowance").await;
    olga.sees("is saved, and held").await;
    let held = server.operator().get(&format!("/api/v1{group}/allowance")).await.json();
    assert_eq!(held["memory_bytes"], 512 << 20, "{held}");
    // Who only looks changes nothing.
    olga.press("Who would be over?").await;
    olga.sees("Nobody would be over").await;
    olga.press("Keep it").await;

    olga.open(&page).await;
    olga.choose("group", &id).await;
    olga.press("Save the group").await;
    olga.sees("anna counts to summer now").await;
    olga.fill("host_user", "root").await;
    olga.press("Save the user").await;
    olga.sees("root has a socket of its own and is nobody's user").await;
    olga.fill("host_user", "daemon").await;
    olga.press("Save the user").await;
    olga.sees("anna is daemon on this host now").await;

    // Whose people it holds is seen there, and holds it.
    olga.open(&group).await;
    olga.counts("#members tbody tr", 1).await;
    olga.press("Delete…").await;
    olga.press("Delete it").await;
    olga.sees("people count to it; move them first").await;
    assert_eq!(olga.complaints().await, Vec::<String>::new());
    olga.close().await;
}

/// Another operator gives a role while this one has the form open: this one is shown both.
async fn stale_role(olga: &Browser, server: &TestServer, path: &str) {
    olga.open(path).await;
    olga.sees("Save the role").await;
    let api = format!("/api/v1{path}");
    server.operator().patch(&api, &json!({"role": "auditor"})).await.expect_status(200);
    olga.choose("role", "operator").await;
    olga.press("Save the role").await;
    olga.sees("Somebody has changed anna").await;
    olga.sees("is auditor now; you chose operator").await;
    assert_eq!(server.operator().get(&api).await.json()["role"], "auditor");
    // Saving again, now that both are seen, goes through.
    olga.choose("role", "user").await;
    olga.press("Save the role").await;
    olga.sees("anna is a user now").await;
    assert_eq!(server.operator().get(&api).await.json()["role"], "user");
}

#[tokio::test]
async fn auditors_look_and_find_nothing_to_press() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    server.person("audit", "auditor").await;
    let path = format!("/people/{}", id_of(&anna).await);
    let auditor = signed_in(&driver, &server, "audit", Script::On).await;
    for (page, text) in [
        ("/people", "anna"),
        (path.as_str(), "What is in them"),
        ("/events", "What happened"),
        ("/audit", "person.add"),
        ("/registries", "docker.io"),
        ("/system", "Who uses it"),
        ("/system/doctor", "kernel.version"),
    ] {
        auditor.open(page).await;
        auditor.sees(text).await;
        let acts = "main form[method=post] button, main form[method=post] a.button";
        assert_eq!(auditor.count(acts).await, 0, "{page}");
    }
    assert_eq!(auditor.complaints().await, Vec::<String>::new());
    auditor.close().await;
    // The control: an operator finds some.
    let olga = signed_in(&driver, &server, "olga", Script::On).await;
    olga.open(&path).await;
    assert!(olga.count("main form[method=post] button").await > 0);
    olga.close().await;
}

#[tokio::test]
async fn events_and_audit_are_narrowed_paged_and_taken_away() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let body = json!({"image": "127.0.0.1:1/none:latest", "name": "c"});
    let made = anna.post("/api/v1/containers", &body).await.json();
    let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
    for number in 0..105 {
        anna.patch(&path, &json!({"name": format!("c{number}")})).await.expect_status(200);
    }
    for script in [Script::On, Script::Off] {
        let driver = Driver::start().await;
        let olga = signed_in(&driver, &server, "olga", script).await;
        olga.open("/events").await;
        olga.fill("kind", "container.changed").await;
        olga.press("Filter").await;
        olga.sees("name c104").await;
        assert_eq!(olga.count("#rows tbody tr").await, 100);
        olga.press("Next page").await;
        olga.sees("name c4").await;
        assert_eq!(olga.count("#rows tbody tr").await, 5);
        olga.open("/events?kind=Not+A+Kind").await;
        olga.sees("This filter cannot be read").await;
        olga.open("/audit").await;
        olga.fill("actor", "anna").await;
        olga.choose("outcome", "done").await;
        olga.fill("action", "container.create").await;
        olga.press("Filter").await;
        olga.sees("by session").await;
        assert_eq!(olga.count("#rows tbody tr").await, 1);
        olga.open("/audit?actor=nobody-of-that-name").await;
        olga.sees("No act fits").await;
        assert_eq!(olga.complaints().await, Vec::<String>::new());
        olga.close().await;
    }
    let page = server.operator().get("/audit?actor=anna&since=2026-01-01T00:00").await.text;
    let (_, link) = page.split_once("href=\"/api/v1/audit/export").expect("a link to the file");
    let link = link.split('"').next().expect("the link ends").replace("&#38;", "&");
    let link = link.replace("&amp;", "&");
    let file =
        server.operator().get(&format!("/api/v1/audit/export{link}")).await.expect_status(200);
    assert!(file.text.lines().count() > 100, "{link}");
}

#[tokio::test]
async fn the_machine_is_shown_with_what_it_lacks_and_where_images_come_from() {
    requires_root!();
    let sections = "[registries]\ninsecure = [\"127.0.0.1:1\"]\n".to_owned();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    launched(&anna, "annas-work", &["sleep", "600"]).await;
    for script in [Script::On, Script::Off] {
        let driver = Driver::start().await;
        let olga = signed_in(&driver, &server, "olga", script).await;
        olga.open("/system").await;
        for text in ["anna", "1 of 1", "Kernel", "Addresses from", "If nothing is said"] {
            olga.sees(text).await;
        }
        olga.press("Doctor").await;
        olga.sees("kernel.version").await;
        olga.press("Look again").await;
        olga.sees("just now").await;
        olga.press("Warnings").await;
        olga.sees("The server’s own newest warnings").await;
        olga.open("/registries").await;
        olga.sees("insecure: plain HTTP").await;
        olga.client
            .find(fantoccini::Locator::Css("button[value=\"127.0.0.1:1\"]"))
            .await
            .expect("a button")
            .click()
            .await
            .expect("press it");
        olga.sees("the exchange with").await;
        assert_eq!(olga.complaints().await, Vec::<String>::new());
        olga.close().await;
    }
    // Who is neither operator nor auditor has no such pages.
    for path in ["/system", "/system/doctor", "/registries", "/events", "/audit", "/people"] {
        assert_eq!(anna.get(path).await.status, 403, "{path}");
    }
}
