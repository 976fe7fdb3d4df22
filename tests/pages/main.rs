//! The pages in a real Chromium, with and without script: the whole story of a machine from its
//! first operator to a removed container, two people who don't see each other, and hostile text.
//!
//! After every story the browser's own log must be empty: no refused content, no script error.

mod accounts;
mod axe;
mod browser;
mod containers;
mod errors;
mod every;
mod files;
mod hands;
mod hostile;
mod image;
mod images;
mod machine;
mod sharing;
mod terminal;

use std::time::Duration;

use browser::{Browser, Driver, Script};
use image::{Image, Registry, text};
use serde_json::json;
use system_tests::instance::PASSWORD;
use system_tests::{Client, Options, TestServer, requires_root};

const HOSTILE: &str = "\"><script>document.title='owned'</script><img src=x onerror=alert(1)>";

#[tokio::test]
async fn the_whole_story_with_script() {
    requires_root!();
    story(Script::On).await;
}

#[tokio::test]
async fn the_whole_story_without_script() {
    requires_root!();
    story(Script::Off).await;
}

#[tokio::test]
async fn two_people_do_not_see_each_other() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let id = launched(&anna, "annas-secret-work", &["sleep", "600"]).await;
    let toms = signed_in(&driver, &server, "tom", Script::On).await;
    toms.open("/containers").await;
    toms.sees("Nothing is moored here yet").await;
    assert!(!toms.text().await.contains("anna"), "{}", toms.text().await);
    for path in [
        format!("/containers/{id}"),
        format!("/containers/{id}/logs"),
        format!("/containers/{id}/processes"),
        format!("/containers/{id}/posture"),
        format!("/containers/{id}/terminal"),
        format!("/containers/{id}/settings"),
        format!("/containers/{id}/remove"),
        "/containers/annas-secret-work".to_owned(),
    ] {
        let unknown = path.replace(&id, "00000000000000000000000000000000");
        let seen = tom.get(&path).await;
        let never = tom.get(&unknown).await;
        assert_eq!((seen.status, never.status), (404, 404), "{path}");
        assert!(!seen.text.contains("annas"), "{path} tells of it");
    }
    // The control: its owner does see all of it.
    let annas = signed_in(&driver, &server, "anna", Script::On).await;
    annas.open("/containers").await;
    annas.sees("annas-secret-work").await;
    // An operator sees that it is there and whose, and nothing of what is in it.
    let operators = signed_in(&driver, &server, "olga", Script::On).await;
    operators.open(&format!("/containers/{id}")).await;
    operators.sees("owned by anna").await;
    // Overview, Settings, Sharing, Posture, Activity, Raw.
    assert_eq!(operators.count(".tabs a").await, 6, "an operator reads no content");
    operators.press("Raw").await;
    operators.sees("annas-secret-work").await;
    assert!(!operators.text().await.contains("sleep"), "the command is the owner's alone");
    // The control: the owner's own raw page has it.
    annas.open(&format!("/containers/{id}/raw")).await;
    annas.sees("sleep").await;
    assert_eq!(server.operator().get(&format!("/containers/{id}/logs")).await.status, 403);
    for browser in [toms, annas, operators] {
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}

#[tokio::test]
async fn hostile_text_stays_text() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let image = import(&anna).await;
    let body = json!({
        "name": "inert", "image": image, "start": true,
        "command": ["sh", "-c", format!("printf '%s\\n' '{}'; printf '\\033]52;c;aGk=\\007'; sleep 600; :",
            HOSTILE.replace('\'', "'\\''"))],
        "env": {"EVIL": HOSTILE}, "labels": {"evil": HOSTILE},
    });
    let made = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let id = text(&made, "id").to_owned();
    let token = json!({"name": HOSTILE.get(..60), "scope": "read", "days": 1});
    anna.post("/api/v1/tokens", &token).await.expect_status(201);
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    for (path, shown) in [
        (format!("/containers/{id}"), HOSTILE),
        (format!("/containers/{id}/logs"), HOSTILE),
        (format!("/containers/{id}/processes"), "document.title"),
        ("/account".to_owned(), "<script>"),
        (
            format!("/launch?image={}", "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"),
            "Launch a container",
        ),
        ("/containers?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(), "No container fits"),
        ("/sign-in?next=javascript:alert(1)".to_owned(), "Containers"),
    ] {
        browser.open(&path).await;
        browser.sees(shown).await;
        assert_eq!(browser.count("main script, main img, main [onerror], main iframe").await, 0);
        let title = browser.client.title().await.expect("a title");
        assert_ne!(title, "owned", "{path}");
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

/// From the setup secret to a removed container.
async fn story(script: Script) {
    let image = Image::busybox();
    let registry = Registry::start(&image).await;
    let sections = format!("[registries]\ninsecure = [\"{}\"]\n", registry.host);
    let server = TestServer::with(Options { fresh: true, sections, ..Options::default() }).await;
    let driver = Driver::start().await;
    let base = server.anonymous().base().to_owned();
    let operator = driver.browser("operator", &base, script).await;
    let link = first_operator(&operator, &server).await;
    let person = driver.browser("person", &base, script).await;
    person.client.goto(&link).await.expect("open the invitation");
    person.sees("Welcome, kim").await;
    person.fill("password", PASSWORD).await;
    person.fill("again", PASSWORD).await;
    person.press("Open my account").await;
    person.sees("First steps").await;
    pull(&person, &registry, script).await;
    launch(&person, &registry, script).await;
    look_inside(&person, script).await;
    change_and_end(&person, script).await;
    // The operator ends the person's account: the next page is the sign-in page.
    operator.open("/people").await;
    operator.press("Disable").await;
    operator.sees("disabled").await;
    person.open("/containers").await;
    person.sees("Sign in").await;
    for browser in [operator, person] {
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}

/// Sets the machine up, signs out and in again, adds kim; answers kim's link.
async fn first_operator(operator: &Browser, server: &TestServer) -> String {
    operator.open("/").await;
    operator.sees("Set up this machine").await;
    operator.fill("secret", "not-the-secret").await;
    operator.fill("name", "olga").await;
    operator.fill("password", PASSWORD).await;
    operator.press("Become the operator").await;
    operator.sees("This is not the setup secret.").await;
    operator.fill("secret", &server.setup_secret().await).await;
    operator.fill("password", PASSWORD).await;
    operator.press("Become the operator").await;
    operator.sees("First steps").await;
    operator.press("Sign out").await;
    operator.sees("You are signed out.").await;
    operator.sees("For people who don’t trust one another").await;
    operator.fill("name", "olga").await;
    operator.fill("password", "wrong wrong wrong").await;
    operator.press("Sign in").await;
    operator.sees("Name or password is wrong.").await;
    operator.fill("password", PASSWORD).await;
    operator.press("Sign in").await;
    operator.sees("Containers").await;
    operator.open("/people").await;
    operator.fill("name", "Kim!").await;
    operator.press("Add and make a link").await;
    operator.sees("lower-case letters").await;
    operator.fill("name", "kim").await;
    operator.press("Add and make a link").await;
    operator.sees("A link for kim").await;
    let code = fantoccini::Locator::Css(".fresh code");
    let code = operator.client.find(code).await.expect("the link is shown");
    code.text().await.expect("the link is text")
}

async fn pull(person: &Browser, registry: &Registry, script: Script) {
    person.open("/images").await;
    person.fill("reference", &format!("{}/tools/busybox:1", registry.host)).await;
    person.press("Pull").await;
    match script {
        Script::On => person.sees("tools/busybox").await,
        Script::Off => person.sees_after_reloading("tools/busybox").await,
    }
    let row = "#rows tbody tr";
    let deadline = std::time::Instant::now() + browser::LIMIT;
    while person.count(row).await == 0 {
        assert!(std::time::Instant::now() < deadline, "no image:\n{}", person.text().await);
        if script == Script::Off {
            person.open("/images").await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn launch(person: &Browser, registry: &Registry, script: Script) {
    person.open("/launch").await;
    person.fill("image", &format!("{}/tools/busybox:1", registry.host)).await;
    person.fill("name", "first").await;
    person.choose("restart", "on-failure").await;
    let command =
        "sh -c \"echo ahoy from $0; echo trouble >&2; while :; do echo tick; sleep 1; done\"";
    person.fill("command", command).await;
    person.fill("memory", "lots").await;
    person.press("Launch").await;
    // What was typed is still there, and the field says what is wrong with it.
    person.sees("\"lots\" is no size").await;
    person.fill("memory", "64 MiB").await;
    person.fill("cpu", "0.5").await;
    person.fill("pids", "32").await;
    person.press("Launch").await;
    match script {
        Script::On => person.sees("of 64 MiB").await,
        Script::Off => person.sees_after_reloading("of 64 MiB").await,
    }
    person.sees("of 0.5 cores").await;
    person.sees("held").await;
}

async fn look_inside(person: &Browser, script: Script) {
    person.press("Logs").await;
    person.sees("ahoy from sh").await;
    person.sees("trouble").await;
    if script == Script::On {
        person.sees("following").await;
        let before = person.count("#log .line").await;
        let deadline = std::time::Instant::now() + browser::LIMIT;
        while person.count("#log .line").await < before + 2 {
            assert!(std::time::Instant::now() < deadline, "the log does not grow");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    person.press("Errors").await;
    person.sees("trouble").await;
    assert!(!person.text().await.contains("ahoy"), "only the error output is shown");
    person.press("Processes").await;
    person.sees("while :;").await;
}

async fn change_and_end(person: &Browser, script: Script) {
    person.press("Settings").await;
    person.fill("memory", "900 TiB").await;
    person.press("Save changes").await;
    person.sees("900 TiB is not between 6 MiB and").await;
    assert!(person.count(".field-error").await > 0, "a refused limit says why");
    person.fill("memory", "96 MiB").await;
    person.press("Save changes").await;
    person.sees("Saved.").await;
    person.press("Overview").await;
    person.sees("of 96 MiB").await;
    // The kernel's own file says the same.
    person.sees(&(96_u64 << 20).to_string()).await;
    person.press("Stop").await;
    match script {
        Script::On => person.sees("kim").await,
        Script::Off => person.sees_after_reloading("by kim").await,
    }
    person.sees("stopped").await;
    person.press("More").await;
    person.press("Remove…").await;
    person.sees("Remove first?").await;
    person.press("Remove it").await;
    person.sees("Nothing is moored here yet").await;
}

/// A browser in which this person has signed in.
pub(crate) async fn signed_in(
    driver: &Driver,
    server: &TestServer,
    name: &str,
    script: Script,
) -> Browser {
    let profile = format!("{name}-{script:?}");
    let browser = driver.browser(&profile, server.anonymous().base(), script).await;
    browser.open("/sign-in").await;
    browser.fill("name", name).await;
    browser.fill("password", PASSWORD).await;
    browser.press("Sign in").await;
    browser.sees("Containers").await;
    browser
}

/// Imports busybox by the API; answers the image's name.
pub(crate) async fn import(person: &Client) -> String {
    let archive = Image::busybox().archive("tools/busybox:1");
    let request = person.request("POST", "/api/v1/images/import?reference=tools/busybox:1");
    let answer = system_tests::client::send(request.body(archive)).await.expect_status(202);
    let operation = text(&answer.json(), "id").to_owned();
    let deadline = std::time::Instant::now() + browser::LIMIT;
    loop {
        let now = person.get(&format!("/api/v1/operations/{operation}")).await.json();
        match text(&now, "state") {
            "running" => assert!(std::time::Instant::now() < deadline, "no end: {now}"),
            "succeeded" => return "tools/busybox:1".to_owned(),
            _ => panic!("the import ended otherwise: {now}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Launches a container by the API; answers its id.
pub(crate) async fn launched(person: &Client, name: &str, command: &[&str]) -> String {
    let image = import(person).await;
    let body = json!({"name": name, "image": image, "command": command, "start": true});
    let made = person.post("/api/v1/containers", &body).await.expect_status(201).json();
    text(&made, "id").to_owned()
}
