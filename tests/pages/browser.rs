//! A real Chromium through chromedriver: one driver for a test, one browser for each person, and the
//! browser's own log, in which the content security policy and scripts complain.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long anything on a page may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A running chromedriver; it and its browsers end with it.
pub(crate) struct Driver {
    process: Child,
    port: u16,
    profiles: PathBuf,
}

/// Whether a browser runs the pages' script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// As usual.
    On,
    /// Switched off by the person.
    Off,
}

/// One person's browser.
pub(crate) struct Browser {
    /// The WebDriver client.
    pub client: Client,
    session: String,
    driver_port: u16,
    base: String,
}

impl Driver {
    /// Starts a driver and waits until it is ready.
    pub(crate) async fn start() -> Self {
        let port = free_port();
        let profiles =
            std::env::temp_dir().join(format!("berth-chromium-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&profiles).expect("make a folder for profiles");
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start chromedriver (Debian package chromium-driver)");
        let this = Self { process, port, profiles };
        let deadline = Instant::now() + LIMIT;
        let status = format!("http://127.0.0.1:{port}/status");
        loop {
            let http = system_tests::client::builder().build().expect("build a client");
            if http.get(&status).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return this;
            }
            assert!(Instant::now() < deadline, "chromedriver is not ready in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Opens a browser with a profile of its own.
    pub(crate) async fn browser(&self, name: &str, base: &str, script: Script) -> Browser {
        let profile = self.profiles.join(name);
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            "--window-size=1280,900",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let content = if script == Script::Off { 2 } else { 1 };
        let preferences = json!({"profile.managed_default_content_settings.javascript": content});
        let capabilities = json!({
            // A look at a whole page takes long where other browsers run.
            "timeouts": {"script": 120_000},
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments, "prefs": preferences},
        });
        let capabilities: Capabilities =
            serde_json::from_value(capabilities).expect("capabilities are an object");
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .expect("open a browser");
        let session = client.session_id().await.expect("ask for the session").expect("a session");
        Browser { client, session, driver_port: self.port, base: base.to_owned() }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        // A test that fails closes no browser, and the driver leaves it running.
        for pid in browsers_with(&self.profiles) {
            kill(pid, Signal::SIGKILL).ok();
        }
        drop(std::fs::remove_dir_all(&self.profiles));
    }
}

/// The browsers that were told to keep their profile below `profiles`.
fn browsers_with(profiles: &Path) -> Vec<Pid> {
    let told = format!("--user-data-dir={}/", profiles.display());
    let processes = std::fs::read_dir("/proc").expect("list processes").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&told)
    })
    .map(Pid::from_raw)
    .collect()
}

impl Browser {
    /// Opens a page of the appliance.
    pub(crate) async fn open(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.base)).await.expect("open a page");
    }

    /// Types into the field with this name, in place of what is there.
    pub(crate) async fn fill(&self, name: &str, text: &str) {
        let selector = format!("main [name=\"{name}\"]:not([type=hidden])");
        let field = self.client.wait().at_most(LIMIT).for_element(Locator::Css(&selector)).await;
        let field = field.unwrap_or_else(|error| panic!("find {selector}: {error}"));
        field.clear().await.expect("empty a field");
        field.send_keys(text).await.expect("type into a field");
    }

    /// Chooses of a list.
    pub(crate) async fn choose(&self, name: &str, value: &str) {
        let selector = format!("select[name=\"{name}\"]");
        let list = self.client.find(Locator::Css(&selector)).await.expect("find a list");
        list.select_by_value(value).await.expect("choose of a list");
    }

    /// Presses the button or link that is shown with this text.
    pub(crate) async fn press(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        let path =
            format!("//*[self::button or self::a or self::summary][normalize-space(.)=\"{text}\"]");
        loop {
            let found = self.client.find_all(Locator::XPath(&path)).await.unwrap_or_default();
            for element in found {
                if element.is_displayed().await.unwrap_or(false)
                    && element.is_enabled().await.unwrap_or(false)
                    && element.click().await.is_ok()
                {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "no {text:?} to press on:\n{}", self.text().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page shows this text.
    pub(crate) async fn sees(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let shown = self.text().await;
            if shown.contains(text) {
                return;
            }
            let at = self.path().await;
            assert!(Instant::now() < deadline, "{at} does not show {text:?}:\n{shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Opens the page again until it shows this text: what a person without script does.
    pub(crate) async fn sees_after_reloading(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let shown = self.text().await;
            if shown.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "the page does not show {text:?}:\n{shown}");
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.client.refresh().await.expect("open the page again");
        }
    }

    /// All text that is shown.
    pub(crate) async fn text(&self) -> String {
        match self.client.find(Locator::Css("body")).await {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// The path of the page.
    pub(crate) async fn path(&self) -> String {
        let url = self.client.current_url().await.expect("ask for the address");
        url.path().to_owned()
    }

    /// How many elements fit a selector.
    pub(crate) async fn count(&self, selector: &str) -> usize {
        self.client.find_all(Locator::Css(selector)).await.expect("look for elements").len()
    }

    /// Waits until so many elements fit a selector: a page is shown while it is still being read.
    pub(crate) async fn counts(&self, selector: &str, expected: usize) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let count = self.count(selector).await;
            if count == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{count} of {selector} instead of {expected}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the browser has complained of since the last time: script errors, refused content.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let url = format!("http://127.0.0.1:{}/session/{}/se/log", self.driver_port, self.session);
        let http = system_tests::client::builder().build().expect("build a client");
        let answer = http.post(url).json(&json!({"type": "browser"})).send().await;
        let answer: Value = answer.expect("ask for the log").json().await.expect("the log is JSON");
        let entries = answer["value"].as_array().expect("the log is a list");
        // The answer to a refused form is an error by design: the status is the browser's remark.
        entries
            .iter()
            .map(|entry| format!("{} {}", entry["level"], entry["message"]))
            .filter(|line| !line.contains("the server responded with a status of 4"))
            // Nor is it the page's doing that other tests' containers bring and take interfaces.
            .filter(|line| !line.contains("net::ERR_NETWORK_CHANGED"))
            .collect()
    }

    /// A command of the browser's own protocol for developers.
    pub(crate) async fn devtools(&self, command: &str, params: Value) {
        let path = format!("session/{}/goog/cdp/execute", self.session);
        let url = format!("http://127.0.0.1:{}/{path}", self.driver_port);
        let http = system_tests::client::builder().build().expect("build a client");
        let request = http.post(url).json(&json!({"cmd": command, "params": params}));
        let answer = request.send().await.expect("ask the browser");
        assert!(
            answer.status().is_success(),
            "{command}: {}",
            answer.text().await.unwrap_or_default()
        );
    }

    /// Ends it.
    pub(crate) async fn close(self) {
        self.client.close().await.expect("close a browser");
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("find a free port");
    listener.local_addr().expect("know it").port()
}
