//! Every page and every list with a thousand containers in the inventory.

use std::time::Instant;

use serde_json::{Value, json};
use system_tests::{Client, programs};

use crate::Options;
use crate::lifecycle::instance;
use crate::peers::{IMAGE, PROGRAM};
use crate::table::{Samples, Table};

/// Containers in the inventory.
const CONTAINERS: usize = 1000;

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    let sections = "[containers]\nper_person_max = 2000\n".to_owned();
    let (server, owner) =
        instance(system_tests::Options { sections, ..system_tests::Options::default() }).await;
    let anna = server.sign_in("anna", system_tests::instance::PASSWORD).await.expect_status(201);
    let anna = server.anonymous().with_cookies_of(&anna);
    for number in 0..CONTAINERS {
        // A few of them run, so that figures and graphs are drawn.
        let body = json!({"name": format!("container-{number:04}"), "image": IMAGE,
            "command": PROGRAM, "stop_signal": "KILL", "start": number % 100 == 0,
            "labels": {"number": number.to_string()}});
        owner.post("/api/v1/containers", &body).await.expect_status(201);
    }
    let known = Known::of(&anna).await;
    let operator = server.operator();
    for route in routes() {
        let Some(path) = known.fill(&route.path) else { continue };
        // The owner's view where there is one, else the operator's.
        let mut who = &anna;
        let mut answer = who.get(&path).await;
        if !ok(answer.status) {
            who = &operator;
            answer = who.get(&path).await;
        }
        if !ok(answer.status) {
            continue;
        }
        let mut samples = Samples::new("ms");
        for _ in 0..options.rounds {
            let begun = Instant::now();
            who.get(&path).await;
            samples.add_time(begun.elapsed());
        }
        let size = answer.text.len() / 1024;
        table.alone(&format!("GET {} ({size} KiB)", route.path), &samples);
    }
    table.note(&format!(
        "pages and lists: {CONTAINERS} containers, seeded through the API, {} of them running; every GET \
         route that the server declares, as their owner, else as the operator; a connection each; \
         streams are left out",
        CONTAINERS / 100
    ));
    drop(server);
}

fn ok(status: u16) -> bool {
    (200..300).contains(&status)
}

/// A route as the server declares it.
struct Route {
    path: String,
}

/// Every GET route; streams do not end and are left out.
fn routes() -> Vec<Route> {
    let output = std::process::Command::new(programs::berth())
        .args(["openapi", "--routes"])
        .output()
        .expect("run berth openapi");
    let table: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let mut paths: Vec<String> = table
        .as_array()
        .expect("a table")
        .iter()
        .filter(|row| row["method"].as_str().is_some_and(|m| m.eq_ignore_ascii_case("get")))
        .filter_map(|row| row["path"].as_str())
        .filter(|path| !path.ends_with("/events") || *path == "/api/v1/events")
        .filter(|path| !path.ends_with("/stream") && !path.ends_with("/wait"))
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().map(|path| Route { path }).collect()
}

/// Ids to put into paths.
struct Known {
    container: String,
    image: String,
    operation: String,
    person: String,
}

impl Known {
    async fn of(anna: &Client) -> Self {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let running = anna.get("/api/v1/containers?state=running&limit=1").await.json();
        let image = anna.get("/api/v1/images").await.json();
        let operation = anna.get("/api/v1/operations").await.json();
        let me = anna.get("/api/v1/me").await.json();
        Self {
            container: text(&running["items"][0]["id"]),
            image: text(&image["items"][0]["id"]),
            operation: text(&operation["items"][0]["id"]),
            person: text(&me["id"]),
        }
    }

    /// The path with its placeholder filled in; `None` for what has no object here.
    fn fill(&self, path: &str) -> Option<String> {
        let Some((before, rest)) = path.split_once('{') else { return Some(path.to_owned()) };
        let (_, after) = rest.split_once('}')?;
        let id = match before.rsplit('/').nth(1)? {
            "containers" => &self.container,
            "images" => &self.image,
            "operations" => &self.operation,
            "people" => &self.person,
            _ => return None,
        };
        if after.contains('{') { None } else { Some(format!("{before}{id}{after}")) }
    }
}
