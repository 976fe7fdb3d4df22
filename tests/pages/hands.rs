//! What hands and networks do to an open page: the keyboard alone, a server that goes away and comes
//! back, rows under the pointer.

use std::time::Instant;

use fantoccini::Locator;
use fantoccini::key::Key;
use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Options, TestServer, requires_root};

use crate::browser::{Browser, Driver, LIMIT, Script};
use crate::{launched, signed_in};

#[tokio::test]
async fn a_lost_server_is_said_and_comes_back_by_itself() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    launched(&anna, "steady", &["sleep", "600"]).await;
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    browser.open("/containers").await;
    browser.sees("steady").await;
    type_into(&browser, "input[name=q]", "ste").await;
    server.kill_server();
    browser.sees("Connection lost: showing ").await;
    assert!(browser.text().await.contains("steady"), "what was shown stays");
    server.start_server().await;
    until(&browser, "return document.getElementById('stale').hidden").await;
    // Nobody has opened the page again: what was typed is there, and so is the focus.
    let state = "return [document.activeElement.name, document.activeElement.value]";
    let state = browser.client.execute(state, Vec::new()).await.expect("ask for the focus");
    assert_eq!(state, json!(["q", "ste"]));
    // And it is live again: another container appears.
    type_into(&browser, "input[name=q]", "\u{8}\u{8}\u{8}").await;
    launched(&anna, "second", &["sleep", "600"]).await;
    browser.sees("second").await;
    browser.close().await;
}

#[tokio::test]
async fn a_page_that_looks_again_takes_no_notice_from_the_next() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let left = send(anna.request("POST", "/sign-out")).await.expect_status(303);
    let after = server.anonymous().with_cookies_of(&left);
    let look = send(after.request("GET", "/sign-in").header("berth-look", "again")).await;
    assert!(!look.text.contains("You are signed out."), "{}", look.text);
    assert_eq!(look.header("set-cookie"), "", "the notice stays for the page that is opened");
    // The control: a page that is opened shows it and uses it up.
    let opened = after.get("/sign-in").await;
    assert!(opened.text.contains("You are signed out."), "{}", opened.text);
    assert!(opened.header("set-cookie").contains("_flash=;"), "{opened:?}");
}

#[tokio::test]
async fn the_keyboard_does_what_a_mouse_does() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    for name in ["one", "two", "three"] {
        launched(&anna, name, &["sleep", "600"]).await;
    }
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    browser.open("/home").await;
    browser.sees("What happened").await;
    press(&browser, "gc").await;
    until(&browser, "return location.pathname === '/containers'").await;
    until(&browser, "return document.querySelectorAll('#rows tbody tr').length === 3").await;
    press(&browser, "jj").await;
    let row = "return document.activeElement.closest('tr').rowIndex";
    until(&browser, &format!("{row} === 2")).await;
    press(&browser, "x").await;
    browser.sees("1 selected:").await;
    press(&browser, "k").await;
    until(&browser, &format!("{row} === 1")).await;
    press(&browser, "?").await;
    browser.sees("Next and previous row").await;
    press(&browser, &Key::Escape.to_string()).await;
    // The dialog gives the focus back to the row.
    until(&browser, "return !document.querySelector('dialog')").await;
    until(&browser, &format!("{row} === 1")).await;
    press(&browser, "/").await;
    until(&browser, "return document.activeElement.name === 'q'").await;
    press(&browser, "two").await;
    // The list follows, and the address keeps the filter.
    until(&browser, "return document.querySelectorAll('#rows tbody tr').length === 1").await;
    until(&browser, "return location.search === '?q=two'").await;
    press(&browser, &Key::Escape.to_string()).await;
    press(&browser, "j").await;
    press(&browser, &Key::Enter.to_string()).await;
    until(&browser, "return /^.containers.[0-9a-f]{32}$/.test(location.pathname)").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn help_lists_the_keys_that_the_pages_know() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let driver = Driver::start().await;
    let browser = signed_in(&driver, &server, "olga", Script::On).await;
    browser.open("/help/keys").await;
    browser.sees("These keys").await;
    press(&browser, "?").await;
    until(&browser, "return !!document.querySelector('dialog .keys')").await;
    // Every key of the dialog is on the page, and no other.
    let same = "return ((keys) => keys('main .keys').length > 20
        && keys('dialog .keys') === keys('main .keys'))((where) =>
            [...document.querySelectorAll(`${where} dt`)].map((dt) => dt.textContent).sort().join(' '))";
    until(&browser, same).await;
    browser.close().await;
}

#[tokio::test]
async fn a_row_stays_under_the_pointer_while_others_come() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    launched(&anna, "first", &["sleep", "600"]).await;
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    browser.open("/containers").await;
    browser.sees("first").await;
    let row = browser.client.find(Locator::Css("#rows tbody tr")).await.expect("a row");
    hover(&browser, &row).await;
    launched(&anna, "second", &["sleep", "600"]).await;
    let names =
        "return [...document.querySelectorAll('#rows tbody th a')].map((a) => a.textContent)";
    until(&browser, &format!("{names}.length === 2")).await;
    let order = browser.client.execute(names, Vec::new()).await.expect("read the rows");
    assert_eq!(order, json!(["first", "second"]), "the newer row came below");
    // The control: without the pointer the newer one comes first.
    let title = browser.client.find(Locator::Css("h1")).await.expect("a title");
    hover(&browser, &title).await;
    until(&browser, &format!("{names}[0] === 'second'")).await;
    browser.close().await;
}

/// Waits until the page's script says yes.
async fn until(browser: &Browser, script: &str) {
    let deadline = Instant::now() + LIMIT;
    let safe = script.replacen("return ", "", 1);
    let safe = format!("try {{ return Boolean({}) }} catch {{ return false }}", expression(&safe));
    loop {
        let now = browser.client.execute(&safe, Vec::new()).await.unwrap_or(Value::Null);
        if now == Value::Bool(true) {
            return;
        }
        assert!(Instant::now() < deadline, "never so: {script}\n{}", browser.text().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn expression(text: &str) -> &str {
    text.trim_end_matches(';')
}

/// Types, wherever the focus is.
async fn press(browser: &Browser, keys: &str) {
    let active = browser.client.active_element().await.expect("something has the focus");
    active.send_keys(keys).await.expect("type");
}

async fn type_into(browser: &Browser, selector: &str, keys: &str) {
    let field = browser.client.find(Locator::Css(selector)).await.expect("find a field");
    field.send_keys(keys).await.expect("type");
}

async fn hover(browser: &Browser, element: &fantoccini::elements::Element) {
    use fantoccini::actions::{InputSource, MouseActions, PointerAction};
    let move_there =
        PointerAction::MoveToElement { element: element.clone(), duration: None, x: 0.0, y: 0.0 };
    let mouse = MouseActions::new("mouse".to_owned()).then(move_there);
    browser.client.perform_actions(mouse).await.expect("move the mouse");
}
