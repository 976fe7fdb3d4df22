//! The list and one container in a browser: charts read by keys, a log that loses its connection, many
//! done at once with a result each, columns that stay, and a thousand rows.

use std::path::Path;
use std::time::{Duration, Instant};

use fantoccini::Locator;
use fantoccini::key::Key;
use serde_json::json;
use system_tests::{Client, TestServer, requires_root};

use crate::browser::{Browser, Driver, LIMIT, Script};
use crate::{import, launched, signed_in};

/// Two points of the history are 20 seconds apart from the first look.
const POINTS_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn charts_are_drawn_by_the_server_and_read_by_keys() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let id = launched(&anna, "charted", &["sh", "-c", "while :; do :; done"]).await;
    let scripted = signed_in(&driver, &server, "anna", Script::On).await;
    let path = format!("/containers/{id}");
    scripted.open(&path).await;
    let line = "#chart-cpu path.line[d*=\"L\"]";
    let deadline = Instant::now() + POINTS_LIMIT;
    while scripted.count(line).await == 0 {
        assert!(Instant::now() < deadline, "no line comes: {}", scripted.text().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(scripted.count("#hour figure.chart").await, 4);
    scripted.sees("started (start 1)").await;
    let plot = scripted.client.find(Locator::Css("#chart-cpu .plot")).await.expect("a chart");
    plot.send_keys(&format!("{}{}", Key::End, Key::Left)).await.expect("press keys on it");
    let readout = Locator::Css("#chart-cpu [data-readout]");
    let said = scripted.client.find(readout).await.expect("a readout").text().await.expect("text");
    assert!(said.contains(" cores of "), "a moment, the use and the limit then: {said:?}");
    // Without script the same figures are a table, and a file.
    let plain = signed_in(&driver, &server, "anna", Script::Off).await;
    plain.open(&path).await;
    assert!(plain.count("#hour details table tbody tr").await >= 1);
    let csv = anna.get(&format!("/api/v1/containers/{id}/stats/history?format=csv")).await;
    assert!(csv.text.lines().count() >= 3, "{}", csv.text);
    for tab in ["Activity", "Raw"] {
        plain.press(tab).await;
        plain.sees(if tab == "Raw" { "limits_held" } else { "made it" }).await;
    }
    for browser in [scripted, plain] {
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}

#[tokio::test]
async fn a_lost_log_comes_back_without_losing_or_repeating_a_line() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let script = "n=0; while :; do n=$((n+1)); echo count $n.; sleep 0.2; done";
    let id = launched(&anna, "counting", &["sh", "-c", script]).await;
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    browser.open(&format!("/containers/{id}/logs")).await;
    browser.sees("following").await;
    wait_for_lines(&browser, 5).await;
    server.stop_server();
    browser.sees("connection lost").await;
    // The container goes on meanwhile: what it says then must be there afterwards.
    let before = logged_bytes(&server.data_dir());
    let deadline = Instant::now() + LIMIT;
    while logged_bytes(&server.data_dir()) < before + 400 {
        assert!(Instant::now() < deadline, "the container says nothing while the server is down");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.start_server().await;
    browser.sees("following again").await;
    let before = numbers(&browser).await.len();
    wait_for_lines(&browser, before + 5).await;
    let seen = numbers(&browser).await;
    let whole: Vec<u64> = (1..=seen.len() as u64).collect();
    assert_eq!(seen, whole, "every number once and in order");
    browser.close().await;
}

#[tokio::test]
async fn a_log_is_searched_by_the_server() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let script = "for n in $(seq 1 3000); do echo step $n; done; echo Found-It here >&2; sleep 600";
    let id = launched(&anna, "long", &["sh", "-c", script]).await;
    for script in [Script::On, Script::Off] {
        let browser = signed_in(&driver, &server, "anna", script).await;
        browser.open(&format!("/containers/{id}/logs?tail=10&find=step+17&wrap=yes&set=yes")).await;
        // 17 and 170 to 179, 1700 to 1799: more than ten, and none of the last lines of all.
        browser.sees("step 1799").await;
        browser.sees("Older lines are left out.").await;
        assert_eq!(browser.count("#log .line").await, 10);
        assert_eq!(browser.count("#log.times").await, 0, "times were not asked for");
        browser.open(&format!("/containers/{id}/logs?find=found-it")).await;
        browser.sees("Found-It here").await;
        assert_eq!(browser.count("#log .line.err").await, 1);
        browser.open(&format!("/containers/{id}/logs?find=nowhere")).await;
        browser.sees("No line fits.").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
    let saved =
        anna.get(&format!("/api/v1/containers/{id}/logs?download=true&contains=found")).await;
    assert_eq!(saved.text, "Found-It here\n");
    let long = "x".repeat(257);
    let refused = anna.get(&format!("/api/v1/containers/{id}/logs?contains={long}")).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
}

#[tokio::test]
async fn many_are_done_at_once_with_a_result_each() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    launched(&anna, "one", &["sh", "-c", "exec sleep 600"]).await;
    made(&anna, "two").await;
    for script in [Script::On, Script::Off] {
        let browser = signed_in(&driver, &server, "anna", script).await;
        browser.open("/containers?sort=name").await;
        for row in 1..=2 {
            pick(&browser, row).await;
        }
        press_bulk(&browser, "pause").await;
        browser.sees("Pause: 1 done, 1 not").await;
        browser.sees("not done").await;
        browser.press("Back to the list").await;
        match script {
            Script::On => browser.sees("paused").await,
            Script::Off => browser.sees_after_reloading("paused").await,
        }
        pick(&browser, 1).await;
        press_bulk(&browser, "resume").await;
        browser.sees("1 done").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
    }
}

#[tokio::test]
async fn to_end_anothers_running_work_its_name_is_typed() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    for (script, name) in [(Script::Off, "annas-first"), (Script::On, "annas-second")] {
        let id = launched(&anna, name, &["sleep", "1000"]).await;
        let path = format!("/api/v1/containers/{id}");
        let browser = signed_in(&driver, &server, "olga", script).await;
        // Many at once: another's running ones are kept.
        browser.open("/containers").await;
        pick(&browser, 1).await;
        press_bulk(&browser, "remove").await;
        browser.sees(&format!("These are removed: {name}.")).await;
        browser.press("Remove it").await;
        browser.sees("runs and is anna’s: remove it on its own page, by name").await;
        browser.open(&format!("/containers/{id}/remove")).await;
        browser.sees("It belongs to anna.").await;
        browser.fill("typed", "something-else").await;
        browser.press("Remove it").await;
        browser.sees("That is not its name.").await;
        assert_eq!(anna.get(&path).await.expect_status(200).json()["status"], "running");
        browser.fill("typed", name).await;
        browser.press("Remove it").await;
        browser.sees(&format!("{name} is removed.")).await;
        assert_eq!(anna.get(&path).await.status, 404);
        // The control: one's own asks for nothing but a yes.
        let own = launched(&anna, &format!("{name}-own"), &["sleep", "1000"]).await;
        let annas = signed_in(&driver, &server, "anna", script).await;
        annas.open(&format!("/containers/{own}/remove")).await;
        assert_eq!(annas.count("#typed").await, 0);
        annas.open("/containers").await;
        pick(&annas, 1).await;
        press_bulk(&annas, "remove").await;
        annas.sees(&format!("These are removed: {name}-own.")).await;
        annas.press("Remove it").await;
        annas.sees("Remove: all 1 done").await;
        assert_eq!(anna.get(&format!("/api/v1/containers/{own}")).await.status, 404);
        for browser in [browser, annas] {
            assert_eq!(complaints_but(&browser, "422").await, Vec::<String>::new());
            browser.close().await;
        }
    }
}

/// What the browser complains of, but for a page that was refused on purpose.
async fn complaints_but(browser: &Browser, status: &str) -> Vec<String> {
    let mut complaints = browser.complaints().await;
    complaints.retain(|text| !text.contains(status));
    complaints
}

#[tokio::test]
async fn columns_order_and_pages_of_a_long_list() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let image = import(&anna).await;
    for number in 0..105 {
        let body = json!({"image": image, "name": format!("c-{number:03}")});
        anna.post("/api/v1/containers", &body).await.expect_status(201);
    }
    let browser = signed_in(&driver, &server, "anna", Script::Off).await;
    browser.open("/containers?sort=name").await;
    browser.sees("1 to 100 of 105").await;
    browser.counts("#rows tbody tr", 100).await;
    browser.press("Next page").await;
    browser.sees("c-104").await;
    browser.counts("#rows tbody tr", 5).await;
    browser.press("Name").await;
    browser.sees("c-104").await;
    browser.counts("th[aria-sort=descending]", 1).await;
    // Nothing takes away what is open and marked.
    browser.counts("meta[http-equiv=refresh]", 0).await;
    browser.counts("main noscript a", 1).await;
    browser.press("Columns").await;
    for name in ["image", "since", "memory"] {
        let selector = format!(".column-choice input[value={name}]");
        let box_ = browser.client.find(Locator::Css(&selector)).await.expect("a column's box");
        box_.click().await.expect("leave a column out");
    }
    browser.press("Show these").await;
    browser.sees("c-104").await;
    browser.counts("#rows th.image", 0).await;
    browser.counts("#rows th.state", 1).await;
    // It is kept, and a filter in the address narrows.
    browser.open("/containers?q=c-00").await;
    browser.counts("#rows tbody tr", 10).await;
    browser.counts("#rows th.image", 0).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_launch_shows_what_it_sends_and_what_it_leaves() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let image = import(&anna).await;
    for (script, name) in [(Script::Off, "by-forms"), (Script::On, "by-script")] {
        let browser = signed_in(&driver, &server, "anna", script).await;
        browser.open("/launch").await;
        browser.fill("image", &image).await;
        browser.fill("name", name).await;
        browser.press("small 0.5 cores · 256 MiB").await;
        browser.sees("You have this image.").await;
        browser.sees("what you run may use 0.5 cores and 256 MiB together").await;
        browser.sees("\"memory_bytes\": 268435456").await;
        browser.sees("curl -H").await;
        // Exact limits beside a size; what is wrong is said where it is typed.
        browser.fill("memory", "1 TiBi").await;
        browser.press("Preview").await;
        browser.sees("is no size").await;
        browser.fill("memory", "48 MiB").await;
        browser.press("Make it without starting").await;
        browser.sees(&format!("{name} is created.")).await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.close().await;
        let made = anna.get(&format!("/api/v1/containers/{name}")).await.expect_status(200).json();
        assert_eq!(made["limits"]["memory_bytes"], 48 << 20, "{made}");
        assert_eq!((&made["limits"]["pids"], &made["run"]), (&json!(128), &json!(0)), "{made}");
    }
}

/// Bytes in all log segments below a folder.
fn logged_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let kind = entry.file_type().ok();
        if kind.is_some_and(|kind| kind.is_dir()) {
            return logged_bytes(&path);
        }
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        entry.metadata().map_or(0, |found| if is_log { found.len() } else { 0 })
    };
    entries.map(size).sum()
}

/// The numbers that the log shows, in order.
async fn numbers(browser: &Browser) -> Vec<u64> {
    let lines = browser.client.find(Locator::Css("#log")).await.expect("a log");
    let text = lines.text().await.expect("its text");
    let numbers = text.lines().filter_map(|line| line.rsplit_once("count ")?.1.strip_suffix('.'));
    numbers.map(|number| number.parse().expect("a number")).collect()
}

async fn wait_for_lines(browser: &Browser, count: usize) {
    let deadline = Instant::now() + LIMIT;
    while browser.count("#log .line").await < count {
        assert!(Instant::now() < deadline, "the log does not grow:\n{}", browser.text().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Selects a row; the list may be brought up to date meanwhile.
async fn pick(browser: &Browser, row: usize) {
    let selector = format!("#rows tbody tr:nth-child({row}) td.pick input");
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(found) = browser.client.find(Locator::Css(&selector)).await {
            match found.is_selected().await {
                Ok(true) => return,
                Ok(false) => drop(found.click().await),
                Err(_) => {}
            }
        }
        assert!(Instant::now() < deadline, "row {row} cannot be selected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Presses a button under the list; rows have buttons of the same names.
async fn press_bulk(browser: &Browser, verb: &str) {
    let selector = format!(".bulk button[formaction$=\"/{verb}\"]");
    let button = browser.client.find(Locator::Css(&selector)).await.expect("a button");
    button.click().await.expect("press it");
}

/// A container that is not started.
async fn made(person: &Client, name: &str) {
    let image = import(person).await;
    let body = json!({"image": image, "name": name});
    person.post("/api/v1/containers", &body).await.expect_status(201);
}

#[tokio::test]
async fn what_confines_a_container_is_shown_in_words() {
    requires_root!();
    let server = TestServer::start().await;
    let driver = Driver::start().await;
    let anna = server.person("anna", "user").await;
    let id = launched(&anna, "kept", &["sleep", "600"]).await;
    let browser = signed_in(&driver, &server, "anna", Script::Off).await;
    look_at_posture(&browser, &id).await;
    browser.close().await;
    let browser = signed_in(&driver, &server, "anna", Script::On).await;
    look_at_posture(&browser, &id).await;
    let body = json!({"limits": {"memory_bytes": 96 << 20}});
    let path = format!("/api/v1/containers/{id}");
    server.operator().patch(&path, &body).await.expect_status(200);
    browser.sees("→ 96 MiB, by olga").await;
    server.kill_supervisor();
    browser.sees("What confines it cannot be read now. The supervisor does not answer.").await;
    server.start_supervisor().await;
    browser.sees("Everything that this host has holds.").await;
    anna.post(&format!("/api/v1/containers/{id}/kill"), &serde_json::Value::Null).await;
    browser.sees("It does not run, so nothing confines it.").await;
}

async fn look_at_posture(browser: &Browser, id: &str) {
    browser.open(&format!("/containers/{id}")).await;
    browser.press("Posture").await;
    browser.sees("Everything that this host has holds.").await;
    for shown in ["no new privileges", "/proc/sys", "nobody on the host", "bounding"] {
        browser.sees(shown).await;
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
