//! Every page and every list with fifty people and a thousand containers in the inventory.

use std::time::Instant;

use serde_json::{Value, json};
use system_tests::{Client, programs};

use crate::Options;
use crate::lifecycle::instance;
use crate::peers::{IMAGE, PROGRAM, busybox_archive};
use crate::table::{Samples, Table};

/// Who shares the machine.
const PEOPLE: usize = 50;
/// Containers of each.
const CONTAINERS: usize = 20;
/// In which all of them are.
const GROUP: &str = "course";

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    let sections = "[rates]\nchanges_per_min = 1000000\nperson_per_min = 1000000\n\
                    costly_per_min = 1000000\n"
        .to_owned();
    let (server, owner) =
        instance(system_tests::Options { sections, ..system_tests::Options::default() }).await;
    let operator = server.operator();
    let group = operator.post("/api/v1/groups", &json!({"name": GROUP})).await;
    let group = group.expect_status(201).json()["id"].to_string();
    let members = format!("/api/v1/groups/{group}/members");
    for number in 0..PEOPLE {
        let name = if number == 0 { "anna".to_owned() } else { format!("person-{number:02}") };
        let person = match number {
            0 => owner.clone(),
            _ => server.person(&name, "user").await,
        };
        let member = json!({"name": name, "role": "member"});
        operator.put(&members, &member).await.expect_status(200);
        if number > 0 {
            system_tests::image::import(&person, busybox_archive()).await;
        }
        live(&person).await;
    }
    let anna = server.sign_in("anna", system_tests::instance::PASSWORD).await.expect_status(201);
    let anna = server.anonymous().with_cookies_of(&anna);
    let known = Known::of(&anna, group).await;
    for route in routes() {
        let Some(path) = known.fill(&route.path) else { continue };
        for (name, who) in [("a person", &anna), ("operator", &operator)] {
            let answer = who.get(&path).await;
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
            table.alone(&format!("GET {} ({name}, {size} KiB)", route.path), &samples);
        }
    }
    table.note(&format!(
        "pages and lists: {PEOPLE} people of one group with {CONTAINERS} containers each, one of them \
         running and shared with all, and a volume; made over the API; every GET route that the server \
         declares, as one of them and as the operator; a connection each; streams are left out"
    ));
    drop(server);
}

/// What one of them has.
async fn live(person: &Client) {
    person.post("/api/v1/volumes", &json!({"name": "data"})).await.expect_status(201);
    for number in 0..CONTAINERS {
        // One of them runs, so that figures and graphs are drawn.
        let body = json!({"name": format!("container-{number:02}"), "image": IMAGE,
            "command": PROGRAM, "stop_signal": "KILL", "start": number == 0,
            "labels": {"number": number.to_string()}});
        let made = person.post("/api/v1/containers", &body).await.expect_status(201).json();
        if number == 0 {
            let grants =
                format!("/api/v1/containers/{}/grants", made["id"].as_str().expect("an id"));
            let share = json!({"kind": "group", "name": GROUP, "rights": ["state", "logs"]});
            person.put(&grants, &share).await.expect_status(200);
        }
    }
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
    volume: String,
    group: String,
}

impl Known {
    async fn of(anna: &Client, group: String) -> Self {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let running = anna.get("/api/v1/containers?state=running&limit=1").await.json();
        let image = anna.get("/api/v1/images").await.json();
        let operation = anna.get("/api/v1/operations").await.json();
        let me = anna.get("/api/v1/me").await.json();
        let volume = anna.get("/api/v1/volumes").await.json();
        Self {
            container: text(&running["items"][0]["id"]),
            image: text(&image["items"][0]["id"]),
            operation: text(&operation["items"][0]["id"]),
            person: text(&me["id"]),
            volume: text(&volume["items"][0]["id"]),
            group,
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
            "volumes" => &self.volume,
            "groups" => &self.group,
            _ => return None,
        };
        if after.contains('{') { None } else { Some(format!("{before}{id}{after}")) }
    }
}
