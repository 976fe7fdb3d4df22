//! The life of an account as pages: people from a table, and an account's last day.

use system_tests::{TestServer, requires_root};

use crate::browser::{Driver, Script};
use crate::{launched, signed_in};

#[tokio::test]
async fn an_operator_adds_people_from_a_table_and_says_when_an_account_ends() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let tom = server.person("tom", "user").await;
    let tom = tom.get("/api/v1/me").await.json()["id"].to_string();
    server.person("omar", "operator").await;
    for (who, name, script) in [("omar", "kim", Script::Off), ("olga", "lea", Script::On)] {
        let olga = signed_in(&driver, &server, who, script).await;
        olga.open("/people").await;
        olga.press("From a table").await;
        olga.fill("csv", &format!("name,role\n{name},user\ntom,user")).await;
        olga.press("Say what would happen").await;
        olga.sees("exists already").await;
        olga.sees("Nobody is added while a line is not somebody new").await;
        olga.fill("csv", &format!("name,role\n{name},user")).await;
        olga.press("Say what would happen").await;
        olga.sees("Every line is somebody new").await;
        olga.press("Add 1 and make their links").await;
        olga.sees("Download the links (CSV)").await;
        olga.counts("#links tbody tr", 1).await;
        assert_eq!(olga.complaints().await, Vec::<String>::new());
        olga.close().await;
    }
    server.person("ola", "operator").await;
    let olga = signed_in(&driver, &server, "ola", Script::Off).await;
    let toms = signed_in(&driver, &server, "tom", Script::Off).await;
    olga.open(&format!("/people/{tom}")).await;
    // A date is typed as the browser shows dates: month, day, year.
    olga.fill("expires", "01312090").await;
    olga.press("Save the end").await;
    olga.sees("tom is here through 2090-01-31.").await;
    toms.open("/account").await;
    toms.sees("Your account ends on 2090-02-01 00:00:00 UTC").await;
    toms.open("/containers").await;
    toms.counts("#strips .strip", 0).await;
    olga.fill("expires", &soon()).await;
    olga.press("Save the end").await;
    olga.sees("tom is here through").await;
    toms.open("/containers").await;
    toms.sees("Your account ends in").await;
    for browser in [olga, toms] {
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}

/// A day within the two weeks in which everybody is told, as it is typed.
fn soon() -> String {
    let date = std::process::Command::new("date").args(["-u", "-d", "+3 days", "+%m%d%Y"]).output();
    String::from_utf8(date.expect("run date").stdout).expect("a date").trim().to_owned()
}

#[tokio::test]
async fn an_operator_sees_what_would_happen_and_takes_somebody_off_the_machine() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let tom = server.person("tom", "user").await;
    let id = tom.get("/api/v1/me").await.json()["id"].to_string();
    launched(&tom, "train", &["sleep", "900"]).await;
    let olga = signed_in(&driver, &server, "olga", Script::Off).await;
    let page = format!("/people/{id}/offboarding");
    olga.open(&format!("/people/{id}")).await;
    olga.press("Take off the machine…").await;
    olga.sees("Stopped: 1 container.").await;
    olga.sees("Removed with all that is in it: 1 container, 1 image.").await;
    olga.press("Stop and keep").await;
    olga.sees_after_reloading("stopped and disabled").await;
    olga.counts("#steps tbody tr", 1).await;
    olga.sees("Nothing of tom runs.").await;
    olga.fill("typed", "tim").await;
    olga.press("Delete all of it").await;
    olga.sees("Type tom to delete all of it.").await;
    olga.fill("typed", "tom").await;
    olga.press("Delete all of it").await;
    olga.sees_after_reloading("deleted").await;
    olga.open(&page).await;
    olga.sees("Asked for by olga").await;
    olga.counts("form[action$='/offboarding']", 0).await;
    assert_eq!(olga.complaints().await, Vec::<String>::new());
    olga.close().await;
}
