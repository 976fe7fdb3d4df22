//! Images, long actions and one's own account in a browser, with and without script: import, names,
//! download, remove; a pull that is cancelled; a login for a registry and a token from end to end.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fantoccini::Locator;
use system_tests::instance::PASSWORD;
use system_tests::{Client, Options, TestServer, requires_root};

use crate::browser::{Browser, Driver, LIMIT, Script};
use crate::image::Image;
use crate::{launched, signed_in};

/// A file that goes when it is dropped.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn archive(name: &str) -> File {
    let path = std::env::temp_dir().join(format!("berth-upload-{}-{name}", std::process::id()));
    std::fs::write(&path, Image::busybox().archive("tools/busybox:1")).expect("an archive");
    File(path)
}

/// Waits for a text, by looking again without a script.
async fn sees(browser: &Browser, script: Script, text: &str) {
    match script {
        Script::On => browser.sees(text).await,
        Script::Off => browser.sees_after_reloading(text).await,
    }
}

#[tokio::test]
async fn an_image_is_imported_named_downloaded_and_removed() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    for (name, script) in [("anna", Script::On), ("bert", Script::Off)] {
        let client = server.person(name, "user").await;
        let browser = signed_in(&driver, &server, name, script).await;
        browser.open("/images").await;
        let file = archive(name);
        let field = browser.client.find(Locator::Css("input[type=file]")).await.expect("a field");
        field.send_keys(&file.0.display().to_string()).await.expect("choose a file");
        browser.press("Import").await;
        // A notice is on the page that the form leads to, and on no other: opened again, it is gone.
        browser.sees("The archive is here").await;
        let deadline = Instant::now() + LIMIT;
        while browser.count("#rows .reference").await == 0 {
            assert!(Instant::now() < deadline, "no image:\n{}", browser.text().await);
            browser.open("/images?q=busybox").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        browser.press("docker.io/tools/busybox:1").await;
        browser.sees("How it was made").await;
        name_it(&browser).await;
        download(&browser, &client).await;
        hold_and_remove(&browser, &client, script).await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}

/// One more name, a wrong one refused in its field, and one taken away.
async fn name_it(browser: &Browser) {
    browser.fill("reference", "No Name").await;
    browser.press("Add").await;
    browser.sees("One more name").await;
    assert_eq!(browser.count("#names .field-error").await, 1, "{}", browser.text().await);
    browser.fill("reference", "lab/tool:v2").await;
    browser.press("Add").await;
    browser.sees("docker.io/lab/tool:v2").await;
    let away = Locator::Css("#names a[href*='lab%2Ftool']");
    browser.client.find(away).await.expect("a link").click().await.expect("press it");
    browser.sees("The image stays as docker.io/tools/busybox:1.").await;
    browser.press("Take it away").await;
    browser.sees("The name is taken away.").await;
    let deadline = Instant::now() + LIMIT;
    while browser.count("#names li").await != 1 {
        assert!(Instant::now() < deadline, "the name stays:\n{}", browser.text().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The button leads to a whole archive.
async fn download(browser: &Browser, client: &Client) {
    let link = browser.client.find(Locator::Css("a[download]")).await.expect("a download");
    let path = link.attr("href").await.expect("its address").expect("it has one");
    let answer = client.request("GET", &path).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    let length = answer.content_length().expect("a length");
    let bytes = answer.bytes().await.expect("the archive");
    assert_eq!(bytes.len() as u64, length);
    let mut reader = tar::Archive::new(bytes.as_ref());
    let names = reader
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string());
    assert!(names.collect::<Vec<_>>().contains(&"oci-layout".to_owned()));
}

/// A container keeps the image, and the page says so; without it the image goes.
async fn hold_and_remove(browser: &Browser, client: &Client, script: Script) {
    let image = browser.path().await;
    let id = launched(client, "holder", &["sleep", "600"]).await;
    sees(browser, script, "It can be removed when these are.").await;
    browser.press("Remove…").await;
    browser.sees("It cannot go while containers use it: holder").await;
    browser.press("Remove it").await;
    browser.sees("Containers use it: holder.").await;
    browser.open(&image).await;
    client.post(&format!("/api/v1/containers/{id}/kill"), &serde_json::json!({})).await;
    let deadline = Instant::now() + LIMIT;
    while client.delete(&format!("/api/v1/containers/{id}")).await.status >= 400 {
        assert!(Instant::now() < deadline, "the container stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    browser.open(&image).await;
    browser.sees("No container uses it").await;
    browser.press("Remove…").await;
    browser.sees("go with it").await;
    browser.press("Remove it").await;
    browser.sees("The image is removed.").await;
}

#[tokio::test]
async fn a_pull_is_followed_cancelled_and_told_afterwards() {
    requires_root!();
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = silent.local_addr().expect("its address").to_string();
    let sections = format!("[registries]\ninsecure = [\"{host}\"]\n");
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let driver = Driver::start().await;
    for (name, script) in [("anna", Script::On), ("bert", Script::Off)] {
        server.person(name, "user").await;
        let browser = signed_in(&driver, &server, name, script).await;
        browser.open("/images").await;
        browser.fill("reference", &format!("{host}/slow:1")).await;
        browser.press("Pull").await;
        sees(&browser, script, "looking what there is").await;
        browser.press("Cancel").await;
        sees(&browser, script, "cancelled").await;
        // The list keeps it, and tells it from what goes on.
        browser.press("Operations").await;
        browser.sees("slow:1").await;
        browser.press("Under way").await;
        browser.sees("No operation fits.").await;
        browser.open("/images").await;
        browser.fill("reference", &format!("{host}/other:1")).await;
        browser.press("Pull").await;
        browser.sees("other:1").await;
        browser.open("/operations?q=state:running").await;
        browser.press(&format!("Pull {host}/other:1")).await;
        browser.sees("Begun by").await;
        browser.press("Cancel").await;
        sees(&browser, script, "cancelled").await;
        sees(&browser, script, "Ended").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
    // Each sees their own; those who oversee see all, and whose.
    let annas = signed_in(&driver, &server, "anna", Script::Off).await;
    annas.open("/operations").await;
    assert_eq!(annas.count("#rows tbody tr").await, 2);
    let olga = signed_in(&driver, &server, "olga", Script::Off).await;
    olga.open("/operations?q=slow").await;
    assert_eq!(olga.count("#rows tbody tr").await, 2);
    olga.open("/operations?q=slow+owner:bert").await;
    assert_eq!(olga.count("#rows tbody tr").await, 1);
    olga.sees("bert").await;
    for browser in [annas, olga] {
        browser.close().await;
    }
}

#[tokio::test]
async fn a_login_for_a_registry_is_kept_replaced_and_forgotten() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    for (name, script) in [("anna", Script::On), ("bert", Script::Off)] {
        let client = server.person(name, "user").await;
        let browser = signed_in(&driver, &server, name, script).await;
        browser.open("/account").await;
        let enter = async |registry: &str| {
            browser.fill("registry", registry).await;
            browser.fill("username", "lab").await;
            browser.fill("password", "secret-of-the-lab").await;
        };
        enter("No Host").await;
        browser.press("Save the login").await;
        browser.sees("A registry's host, such as ghcr.io or host:5000.").await;
        enter("registry.lab:5000").await;
        browser.press("Save the login").await;
        browser.sees("Kept: your next pull from registry.lab:5000 signs in with it.").await;
        browser.sees("not refused so far").await;
        let kept = client.get("/api/v1/registries").await.expect_status(200).json();
        assert_eq!(kept["items"][0]["username"], "lab");
        assert!(!browser.client.source().await.expect("it").contains("secret-of-the-lab"));
        browser.press("Replace").await;
        browser.sees("Replace the login").await;
        browser.fill("password", "another").await;
        browser.press("Replace the login").await;
        browser.sees("Kept: your next pull").await;
        browser.press("Remove…").await;
        browser.sees("The password for lab there is forgotten").await;
        browser.press("Remove it").await;
        browser.sees("The login is forgotten.").await;
        browser.sees("Public images need none").await;
        let kept = client.get("/api/v1/registries").await.expect_status(200).json();
        assert_eq!(kept["items"].as_array().map(Vec::len), Some(0));
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
    // Those who may not pull have none.
    server.person("kim", "auditor").await;
    let auditor = signed_in(&driver, &server, "kim", Script::Off).await;
    auditor.open("/account").await;
    assert_eq!(auditor.count("#registries").await, 0);
    auditor.close().await;
}

#[tokio::test]
async fn a_token_is_shown_once_and_ends_when_it_is_revoked() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    for (name, script) in [("anna", Script::On), ("bert", Script::Off)] {
        server.person(name, "user").await;
        let browser = signed_in(&driver, &server, name, script).await;
        browser.open("/account").await;
        browser.fill("token_name", "nightly").await;
        browser.choose("scope", "read").await;
        browser.press("Make it").await;
        browser.sees("Your new token").await;
        let code = browser.client.find(Locator::Css(".fresh code")).await.expect("it is shown");
        let secret = code.text().await.expect("it is text");
        let script_client = server.anonymous().with_bearer(&secret);
        script_client.get("/api/v1/images").await.expect_status(200);
        browser.open("/account").await;
        assert_eq!(browser.count(".fresh").await, 0, "it is shown once");
        browser.press("Revoke…").await;
        browser.sees("Whatever uses it is refused at once").await;
        script_client.get("/api/v1/images").await.expect_status(200);
        browser.press("Revoke it").await;
        browser.sees("The token is revoked.").await;
        browser.sees("A token lets a script act as you").await;
        script_client.get("/api/v1/images").await.expect_status(401);
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}

#[tokio::test]
async fn a_password_is_changed_and_a_second_factor_set_up() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    for (name, script) in [("anna", Script::On), ("bert", Script::Off)] {
        server.person(name, "user").await;
        let browser = signed_in(&driver, &server, name, script).await;
        let types = async |selector: &str, text: &str| {
            let field = browser.client.find(Locator::Css(selector)).await.expect("find a field");
            field.send_keys(text).await.expect("type into it");
        };
        browser.open("/account").await;
        types("#current", PASSWORD).await;
        types("#password-new", "another good one").await;
        browser.press("Change the password").await;
        browser.sees("Your password is changed").await;
        assert_eq!(server.sign_in(name, PASSWORD).await.status, 403);

        types("#factor-password", "another good one").await;
        browser.press("Set it up").await;
        browser.sees("Scan this with the program").await;
        assert_eq!(browser.count("#second-factor svg.qr path").await, 1);
        let line = Locator::Css("#second-factor .codeline code");
        let secret = browser.client.find(line).await.expect("the secret");
        let secret = secret.text().await.expect("it is text").replace(' ', "");
        let code = std::process::Command::new("oathtool").args(["--totp", "-b", &secret]).output();
        let code = String::from_utf8(code.expect("oathtool is installed").stdout).expect("digits");
        types("#factor-code", code.trim()).await;
        browser.press("Turn it on").await;
        browser.sees("Your recovery codes").await;
        browser.sees("Recovery codes left: 10").await;
        assert_eq!(server.sign_in(name, "another good one").await.status, 403);
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}
