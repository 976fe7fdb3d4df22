//! The parameters of the API: queries and headers. One row stands for a parameter wherever it is
//! taken, for it is read in one place.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use system_tests::{Answer, Check, Client, TestServer, image, requires_root, sample};

use super::judge;

/// What a parameter may be.
struct Parameter {
    name: &'static str,
    /// Taken.
    at: &'static [&'static str],
    /// Refused, besides what is absurd.
    beyond: &'static [&'static str],
    /// Free text: nothing is absurd for it, and nothing breaks.
    free: bool,
}

const fn bound(
    name: &'static str,
    at: &'static [&'static str],
    beyond: &'static [&'static str],
) -> Parameter {
    Parameter { name, at, beyond, free: false }
}

const fn free(name: &'static str) -> Parameter {
    Parameter { name, at: &["a"], beyond: &[], free: true }
}

const TIMES: &[&str] = &["0", "2026-01-01T00:00:00Z"];
const NO_TIMES: &[&str] = &["yesterday", "2026-13-01T00:00:00Z", "9999999999999999999"];

const PARAMETERS: &[Parameter] = &[
    bound("limit", &["1", "500"], &["0", "501", "+1x"]),
    bound("after", &[], &["a", "../../x"]),
    bound("since", TIMES, NO_TIMES),
    bound("until", TIMES, NO_TIMES),
    bound("format", &["json"], &["JSON", "html"]),
    bound("force", &["false"], &["1", "yes"]),
    bound("fresh", &["false"], &["1", "yes"]),
    bound("download", &["false", "true"], &["1"]),
    bound("follow", &["false"], &["1"]),
    bound("timestamps", &["true"], &["1"]),
    bound("signal", &["TERM", "64"], &["0", "65", "SIGNOPE"]),
    bound("grace_secs", &["0", "600"], &["601"]),
    bound("secs", &["10", "31536000"], &["9", "31536001"]),
    bound("timeout_secs", &["0"], &["51"]),
    bound("tail", &["0", "100000"], &[]),
    bound("from", &[], &["a", "../../x", "1:-1"]),
    bound("to", &["2026-11-28"], &["a", "2026-02-30", "1969-12-31"]),
    bound("person", &[], &["anna"]),
    bound("stream", &["stdout", "stderr"], &["stdin", "both"]),
    bound("unneeded_days", &["0", "3650"], &["3651"]),
    bound("tagged", &["false"], &["1", "yes"]),
    bound("everyone", &["false"], &["1", "yes"]),
    bound("step", &["10", "3600"], &["9", "3601"]),
    bound("state", &[], &["sometimes"]),
    bound("span", &["day", "week"], &["month", "Day"]),
    bound("whose", &["mine", "shared"], &["others", "Mine"]),
    bound("reference", &[], &["A b:c"]),
    bound("registry", &[], &["a b"]),
    bound("mode", &["0644", "7"], &["8", "00644", "rwx"]),
    bound("upload", &[], &["a", "../../x"]),
    bound("offset", &[], &["a"]),
    bound("total", &[], &["a"]),
    free("path"),
    free("Range"),
    free("actor"),
    free("owner"),
    free("owner_name"),
    free("action"),
    free("subject"),
    free("outcome"),
    free("kind"),
    free("name"),
    free("image"),
    free("contains"),
    free("q"),
    Parameter { name: "If-Match", at: &["\"a\""], beyond: &["a"], free: true },
    free("Idempotency-Key"),
    free("Last-Event-ID"),
];

/// Where a parameter means something else than its row says.
const ELSEWHERE: &[(&str, Parameter)] = &[
    ("GET /api/v1/containers", bound("owner", &["1"], &["anna"])),
    ("DELETE /api/v1/containers/{id}/grants", bound("kind", &[], &["everybody", "Person"])),
    ("DELETE /api/v1/volumes/{id}/grants", bound("kind", &[], &["everybody", "Person"])),
    ("DELETE /api/v1/images/{id}/grants", bound("kind", &[], &["everybody", "Person"])),
    ("GET /api/v1/images", bound("owner", &["1"], &["anna"])),
    ("GET /api/v1/usage/days", bound("from", &["2026-11-28"], &["a", "2026-02-30", "9999-12-31"])),
    ("GET /api/v1/images", free("reference")),
    ("DELETE /api/v1/registries", free("registry")),
    ("DELETE /api/v1/images/{id}/tags", free("reference")),
    ("POST /api/v1/images/import", free("reference")),
];

fn absurd() -> Vec<(&'static str, String)> {
    let of = |name, text: &str| (name, text.to_owned());
    vec![
        of("negative", "-1"),
        of("huge number", "1e308"),
        of("2^64", "18446744073709551616"),
        of("fraction", "1.5"),
        of("huge text", &"x".repeat(6000)),
        of("NUL", "%00"),
        of("newline", "a%0D%0Ab:%20c"),
        of("no UTF-8", "%FF%FE"),
        of("a query", "' or 1=1 --"),
    ]
}

fn parameter(route: &str, name: &str) -> Option<&'static Parameter> {
    let elsewhere = ELSEWHERE.iter().find(|(known, one)| *known == route && one.name == name);
    elsewhere.map(|(_, one)| one).or_else(|| PARAMETERS.iter().find(|one| one.name == name))
}

/// Route, place and name of every parameter but those of paths.
fn in_the_document(document: &Value) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            for one in operation["parameters"].as_array().into_iter().flatten() {
                let text = |key: &str| one[key].as_str().expect("a text").to_owned();
                if text("in") != "path" {
                    found.push((
                        format!("{} {path}", method.to_uppercase()),
                        text("in"),
                        text("name"),
                    ));
                }
            }
        }
    }
    found
}

#[tokio::test]
async fn each_parameter_has_a_row_and_takes_its_bounds_and_nothing_beyond() {
    requires_root!();
    let server = TestServer::with(super::generous()).await;
    let olga = server.operator();
    let document = olga.get("/api/v1/openapi.json").await.json();
    let known = in_the_document(&document);
    assert!(known.len() > 60, "the control: the document names {} parameters", known.len());
    let lacking: Vec<_> =
        known.iter().filter(|(route, _, name)| parameter(route, name).is_none()).collect();
    assert!(lacking.is_empty(), "no row in tests/api/fields/query.rs: {lacking:#?}");
    let names: BTreeSet<&str> = known.iter().map(|(_, _, name)| name.as_str()).collect();
    let idle: Vec<_> = PARAMETERS.iter().filter(|one| !names.contains(one.name)).collect();
    assert!(idle.is_empty(), "rows without a parameter: {:?}", idle.first().map(|one| one.name));

    let archive = image::archive("lab/app:v1", &[("a", 0o755, b"a")]);
    let image = image::import(&olga, archive).await;
    let body = json!({"name": "driven", "image": image, "command": ["a"]});
    olga.post("/api/v1/containers", &body).await.expect_status(201);
    olga.post("/api/v1/volumes", &json!({"name": "kept"})).await.expect_status(201);
    let mut wrong = Vec::new();
    for (route, place, name) in &known {
        wrong.extend(drive(&olga, &image, route, place, name).await);
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    let left = olga.get("/api/v1/containers").await.json();
    assert_eq!(left["items"][0]["name"], "driven", "something was changed: {left}");
}

async fn drive(olga: &Client, image: &str, route: &str, place: &str, name: &str) -> Vec<String> {
    let row = parameter(route, name).expect("looked at above");
    let mut wrong = Vec::new();
    // Removing it would take it from the next.
    let at = if route.starts_with("DELETE") { &[][..] } else { row.at };
    for value in at {
        let answer = ask(olga, image, route, place, name, value).await;
        // What the object's state or the body forbids is past the parameter.
        let past = answer.status == 422 && judge(name, &answer).is_some();
        if !past && !matches!(answer.status, 200..300 | 404 | 409 | 412) {
            wrong.push(format!("{route} {name}={value}: {answer:?}"));
        }
    }
    let mut refused: Vec<(&str, String)> = absurd();
    refused.extend(row.beyond.iter().map(|text| (*text, (*text).to_owned())));
    if place == "query" {
        refused.push(("twice", format!("a&{name}=b")));
    }
    for (what, value) in sample(&refused, 4) {
        if place == "header" && value.contains('%') {
            continue;
        }
        let answer = ask(olga, image, route, place, name, &value).await;
        let taken = row.free && what != "twice" && (200..500).contains(&answer.status);
        let why = match taken {
            true => None,
            false => judge(name, &answer),
        };
        let said = why.unwrap_or_else(|| "refused or harmless".to_owned());
        let variant = format!("{route} {name} is {what}");
        let control = "the parameter at its bound is taken";
        if !(Check { id: "A02", variant: &variant, control }.notes("refused or harmless", &said)) {
            wrong.push(format!("{variant}: {said}"));
        }
    }
    wrong
}

async fn ask(
    client: &Client,
    image: &str,
    route: &str,
    place: &str,
    name: &str,
    value: &str,
) -> Answer {
    let (method, path) = route.split_once(' ').expect("a method and a path");
    let id = match path {
        path if path.contains("/images/") => image,
        path if path.contains("/groups/") => "2",
        path if path.contains("/volumes/") => "kept",
        _ => "driven",
    };
    let path = path.replace("{id}", id);
    let request = match place {
        "query" => client.request(method, &format!("{path}?{name}={}", value.replace(' ', "%20"))),
        _ => client.request(method, &path).header(name, value),
    };
    let request = match (method, route) {
        ("POST", "POST /api/v1/containers") => request.json(&json!({"image": "No Reference"})),
        ("POST", "POST /api/v1/volumes") => request.json(&json!({"name": "No Name"})),
        ("POST", "POST /api/v1/images/pull") => request.json(&json!({"reference": "No Reference"})),
        ("POST", "POST /api/v1/images/{id}/tags") => request.json(&json!({"reference": "A b"})),
        ("PATCH", _) => request.json(&json!({})),
        ("POST", "POST /api/v1/images/import") => request.body("no archive"),
        _ => request,
    };
    let response = request.send().await.expect("the server answers");
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    // What is taken may be a stream without end.
    let text = match status {
        200 => String::new(),
        _ => response.text().await.expect("the answer is whole"),
    };
    Answer { status, headers, text }
}
