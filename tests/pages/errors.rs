//! What went wrong is a page that says what and what to do, and leads to why: for those who have
//! signed in within the frame, for strangers by itself.

use system_tests::{Options, TestServer, requires_root};

use crate::browser::{Driver, Script};
use crate::signed_in;

#[tokio::test]
async fn a_refusal_says_what_to_do_and_leads_to_why() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let driver = Driver::start().await;
    server.person("anna", "user").await;
    let anna = signed_in(&driver, &server, "anna", Script::On).await;
    for (path, title, cure, code) in [
        ("/containers/none", "There is no such thing", "Look for it in your lists", "not-found"),
        ("/people", "Your role does not allow this", "Ask an operator to do it", "role.denied"),
        ("/images/0/remove", "There is no such thing", "Look for it in your lists", "not-found"),
    ] {
        anna.open(path).await;
        anna.sees(title).await;
        anna.sees(cure).await;
        anna.sees("Request ").await;
        assert!(anna.count(".nav a").await > 2, "{path} keeps the navigation");
        anna.press("Why it comes").await;
        anna.sees("What to do").await;
        assert_eq!(anna.path().await, format!("/problems/{code}"));
    }
    anna.close().await;
    // A stranger reads it as well, and is led to signing in from there.
    let stranger = driver.browser("stranger", server.anonymous().base(), Script::Off).await;
    stranger.open("/nothing/here").await;
    stranger.sees("There is no such thing").await;
    stranger.press("Why it comes").await;
    stranger.sees("What to do").await;
    stranger.press("Sign in").await;
    assert!(stranger.path().await.starts_with("/sign-in"), "{}", stranger.path().await);
    stranger.close().await;
}

#[tokio::test]
async fn a_busy_server_says_so_and_offers_to_try_again() {
    requires_root!();
    let server = TestServer::with(Options {
        no_supervisor: true,
        sections: "[rates]\nperson_per_min = 60\n".into(),
        ..Options::default()
    })
    .await;
    let driver = Driver::start().await;
    let olga = signed_in(&driver, &server, "olga", Script::Off).await;
    let asks = server.operator();
    // A request is allowed again each second: between the last refusal and the page, one may be.
    for tries in 0.. {
        let mut answers = 0;
        while asks.get("/api/v1/me").await.status != 429 {
            answers += 1;
            assert!(answers < 1000, "nothing was refused");
        }
        olga.open("/images").await;
        if olga.text().await.contains("Too many requests") {
            break;
        }
        assert!(tries < 20, "the page was never refused");
    }
    olga.sees("Retry-After").await;
    assert_eq!(olga.count("a.button.main[href='/images']").await, 1, "it offers to try again");
    olga.close().await;
}

#[tokio::test]
async fn a_supervisor_that_is_away_is_said_on_a_page() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let id = crate::launched(&anna, "held", &["sleep", "1000"]).await;
    let path = format!("/containers/{id}/processes");
    let browser = signed_in(&driver, &server, "anna", Script::Off).await;
    // The control: with a supervisor there is no such page.
    browser.open(&path).await;
    browser.sees("sleep 1000").await;
    server.kill_supervisor();
    browser.open(&path).await;
    assert_eq!(anna.get(&path).await.status, 503);
    for said in ["The supervisor does not answer", "Try again in a moment", "Request "] {
        browser.sees(said).await;
    }
    server.start_supervisor().await;
    browser.sees_after_reloading("sleep 1000").await;
    browser.close().await;
}
