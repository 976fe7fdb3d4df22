//! Sharing as pages: an owner lets somebody use a container, who finds it among theirs and can do what was said; a
//! group has members.

use serde_json::json;
use system_tests::{TestServer, requires_root};

use crate::browser::{Driver, Script};
use crate::{launched, signed_in};

#[tokio::test]
async fn a_container_is_shared_used_by_another_and_shared_no_more() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    server.person("tom", "user").await;
    let id = launched(&anna, "train", &["sh", "-c", "echo said; sleep 900"]).await;
    let page = format!("/containers/{id}");
    let annas = signed_in(&driver, &server, "anna", Script::Off).await;
    let toms = signed_in(&driver, &server, "tom", Script::Off).await;
    toms.open(&page).await;
    toms.sees("There is no such thing").await;
    annas.open(&format!("{page}/sharing")).await;
    annas.sees("It is yours alone").await;
    annas.fill("grantee", "anna").await;
    annas.press("Share it").await;
    annas.sees("it is yours already").await;
    annas.fill("grantee", "tom").await;
    annas.choose("level", "use").await;
    annas.press("Share it").await;
    annas.sees("Shared with tom, if that is somebody’s name here.").await;
    annas.counts("#shares tbody tr", 1).await;
    toms.open("/containers").await;
    toms.press("Shared with me 1").await;
    toms.sees("train").await;
    toms.open(&page).await;
    toms.sees("owned by anna").await;
    // Only what was shared is offered.
    toms.counts("nav.tabs a[href$='/terminal'], nav.tabs a[href$='/logs']", 2).await;
    toms.counts("nav.tabs a[href$='/settings'], nav.tabs a[href$='/sharing']", 0).await;
    toms.counts("header form.acts button", 0).await;
    toms.open(&format!("{page}/logs")).await;
    toms.sees("said").await;
    annas.press("End").await;
    annas.sees("It is shared with them no more.").await;
    toms.open(&page).await;
    toms.sees("There is no such thing").await;
    for browser in [annas, toms] {
        browser.close().await;
    }
}

#[tokio::test]
async fn a_volume_is_shared_to_be_read_found_by_another_and_shared_no_more() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    server.person("tom", "user").await;
    let made = anna.post("/api/v1/volumes", &json!({"name": "data"})).await.expect_status(201);
    let page = format!("/volumes/{}", made.json()["id"].as_str().expect("an id"));
    let annas = signed_in(&driver, &server, "anna", Script::Off).await;
    let toms = signed_in(&driver, &server, "tom", Script::Off).await;
    toms.open(&page).await;
    toms.sees("There is no such thing").await;
    annas.open("/volumes").await;
    annas.press("data").await;
    annas.press("Sharing").await;
    annas.sees("It is yours alone").await;
    annas.fill("grantee", "tom").await;
    annas.choose("level", "read").await;
    annas.press("Share it").await;
    annas.sees("Shared with tom, if that is somebody’s name here.").await;
    annas.counts("#shares tbody tr", 1).await;
    toms.open("/volumes").await;
    toms.counts("#rows .tag", 1).await;
    toms.press("data").await;
    toms.sees("You may read it.").await;
    toms.sees("anna/data:/data:ro").await;
    // Only what was shared is offered.
    toms.counts(".page-head .acts a", 1).await;
    toms.press("Files").await;
    toms.counts(".import-form, .add-form", 0).await;
    annas.press("End").await;
    annas.sees("It is shared with them no more.").await;
    toms.open(&page).await;
    toms.sees("There is no such thing").await;
    for browser in [annas, toms] {
        browser.close().await;
    }
}

#[tokio::test]
async fn a_manager_adds_a_member_who_leaves_again() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    for name in ["anna", "tom"] {
        server.person(name, "user").await;
    }
    let olga = signed_in(&driver, &server, "olga", Script::Off).await;
    olga.open("/groups").await;
    olga.fill("name", "course").await;
    olga.press("Make it").await;
    olga.sees("Nobody is in it.").await;
    let group = olga.path().await;
    olga.fill("member", "anna").await;
    olga.choose("role", "manager").await;
    olga.press("Add").await;
    olga.sees("anna manages it.").await;
    olga.close().await;
    let anna = signed_in(&driver, &server, "anna", Script::Off).await;
    anna.open("/account").await;
    anna.press("Your groups").await;
    anna.press("course").await;
    anna.fill("member", "nobody").await;
    anna.press("Add").await;
    anna.sees("there is nobody of this name").await;
    anna.fill("member", "tom").await;
    anna.press("Add").await;
    anna.sees("tom is in it.").await;
    anna.counts("#members tbody tr", 2).await;
    anna.close().await;
    let tom = signed_in(&driver, &server, "tom", Script::Off).await;
    tom.open(&group).await;
    tom.sees("what is shared with it is shared with you").await;
    tom.counts("#members", 0).await;
    tom.press("Leave the group").await;
    tom.sees("You are in it no more.").await;
    tom.open(&group).await;
    tom.sees("There is no such thing").await;
    tom.close().await;
}
