//! The terminal in a real browser: typed into, left and come back to, and kept inside its frame.

use std::time::Instant;

use fantoccini::Locator;
use serde_json::json;
use system_tests::{Check, TestServer, requires_root};

use crate::browser::{Browser, Driver, LIMIT, Script};
use crate::{import, launched, signed_in};

/// What the terminal shows, without the spaces at the ends of its lines.
const SHOWN: &str = "return [...document.querySelectorAll('.xterm-rows > div')]\
    .map((row) => row.textContent.replace(/\\u00a0/g, ' ').trimEnd()).join('\\n')";

/// Links, and what xterm.js underlines because it takes it for one.
const REACHING_OUT: &str = "[data-terminal-screen] a, [data-terminal-screen] [href], \
    [data-terminal-screen] [class*=xterm-underline]";

async fn type_in(browser: &Browser, text: &str) {
    let area = browser.client.find(Locator::Css(".xterm-helper-textarea")).await;
    area.expect("a terminal").send_keys(text).await.expect("type");
}

async fn shows(browser: &Browser, wanted: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let shown = browser.client.execute(SHOWN, Vec::new()).await.expect("look");
        let shown = shown.as_str().unwrap_or_default().to_owned();
        if shown.contains(wanted) {
            return;
        }
        let page = browser.text().await;
        assert!(Instant::now() < deadline, "{wanted:?} is not in {shown:?}\n{page}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_terminal_is_opened_typed_into_and_come_back_to() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let id = launched(&anna, "desk", &["sleep", "600"]).await;
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    browser.open(&format!("/containers/{id}")).await;
    browser.press("Terminal").await;
    browser.sees("Sessions open: 0").await;
    browser.press("Open").await;
    browser.sees("Session 1.").await;
    type_in(&browser, "echo he''llo\u{e007}").await;
    shows(&browser, "\nhello").await;
    browser.sees("Sessions open: 1").await;
    // Its size is the program's.
    let size = anna.get(&format!("/api/v1/containers/{id}/execs")).await.json();
    assert_eq!(
        (&size["items"][0]["terminal"], &size["items"][0]["attached"]),
        (&json!(true), &json!(true))
    );
    type_in(&browser, "busybox stty size | { read r c; [ $c -gt 60 ] && echo wi''de; }\u{e007}")
        .await;
    shows(&browser, "\nwide").await;

    // What a program writes reaches nothing but the terminal.
    let title = browser.client.title().await.expect("a title");
    let escapes = r"\033]0;stolen\007\033]2;stolen\007\033]52;c;c3RvbGVu\007\033]8;;http://evil.example\007li''nk\033]8;;\007";
    type_in(
        &browser,
        &format!("printf '{escapes}'; echo; printf '\\033[38;2;1;2;3mco''lour\\033[0m\\n'\u{e007}"),
    )
    .await;
    shows(&browser, "\nlink").await;
    shows(&browser, "\ncolour").await;
    assert_eq!(browser.client.title().await.expect("a title"), title);
    let links = browser.count(REACHING_OUT).await;
    Check {
        id: "W04",
        variant: "escape sequences of a terminal",
        control: "the same text is shown",
    }
    .sees(0, links);
    // The control of that control: an underline is found when there is one.
    type_in(&browser, "printf '\\033[4mun''der\\033[0m\\n'\u{e007}").await;
    shows(&browser, "\nunder").await;
    browser.counts(REACHING_OUT, 1).await;
    let nobody = "return document.querySelectorAll('script:not([src]), iframe, img').length";
    assert_eq!(browser.client.execute(nobody, Vec::new()).await.expect("look"), json!(0));

    // A page that is opened again goes on where the other was.
    browser.open(&format!("/containers/{id}/terminal")).await;
    browser.press("Attach").await;
    shows(&browser, "\nhello").await;
    type_in(&browser, "echo ba''ck\u{e007}").await;
    shows(&browser, "\nback").await;
    type_in(&browser, "exit 3\u{e007}").await;
    browser.sees("Ended with exit code 3.").await;
    browser.sees("Sessions open: 0").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // A program that is not there is said, in the server's words.
    browser.fill("program", "no-such-shell").await;
    browser.press("Open").await;
    browser.sees("no-such-shell").await;
    browser.close().await;
}

#[tokio::test]
async fn the_program_of_a_container_is_attached_to_and_left_running() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let image = import(&anna).await;
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    browser.open("/launch").await;
    browser.fill("image", &image).await;
    browser.fill("name", "desk").await;
    browser.fill("command", "sh").await;
    let tick = "document.querySelector('main [name=terminal]').click()";
    browser.client.execute(tick, Vec::new()).await.expect("tick it");
    browser.press("Launch").await;
    browser.sees("can be attached to").await;
    browser.press("Terminal").await;
    browser.sees("the container’s program; closing the terminal leaves it running").await;
    browser.press("Attach").await;
    browser.sees("With the container’s program.").await;
    shows(&browser, "/ #").await;
    type_in(&browser, "echo he''re\u{e007}").await;
    shows(&browser, "\nhere").await;
    // Another page is in its place, and is shown what there was.
    browser.client.refresh().await.expect("open the page again");
    browser.press("Attach").await;
    shows(&browser, "\nhere").await;
    type_in(&browser, "exit 5\u{e007}").await;
    browser.sees("Ended with exit code 5.").await;
}
