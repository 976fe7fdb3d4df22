//! What holds for every route that changes something, by the table of routes: no other site's page
//! can use it (W01), and each use leaves exactly one row in the audit (A10).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Answer, Check, Client, Options, TestServer, requires_root, sample};

use crate::matrix::{ROWS, Row, Who};

fn plain() -> Options {
    let sections = "[rates]\nperson_per_min = 100000\nchanges_per_min = 100000\n\
                    costly_per_min = 100000\n";
    Options { no_supervisor: true, sections: sections.into(), ..Options::default() }
}

/// Rows of routes that change something, each once.
fn changing() -> Vec<&'static Row> {
    let mut rows = BTreeMap::new();
    for row in ROWS.iter().filter(|row| !row.route.starts_with("GET ") && row.who != Who::Root) {
        rows.entry(row.route).or_insert(row);
    }
    rows.into_values().collect()
}

/// A request as a row says, with these headers and nothing that a browser would add.
async fn ask(client: &Client, row: &Row, id: &str, headers: &[(&str, &str)]) -> Answer {
    let (method, path) = row.route.split_once(' ').expect("a method and a path");
    let path = path.replace("{id}", id).replace(['{', '}'], "");
    let mut request = client.raw(method, &path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !row.body.is_empty() {
        let kind = match row.body.starts_with('{') {
            true => "application/json",
            false => "application/x-www-form-urlencoded",
        };
        request = request.header("content-type", kind).body(row.body);
    }
    send(request).await
}

const NOBODYS: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn no_other_sites_page_uses_any_route_that_changes_something() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let sibling = format!("http://127.0.0.1:{}", server.address.port() ^ 1);
    let attacks: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("another site", vec![("sec-fetch-site", "cross-site")]),
        ("a sibling port", vec![("sec-fetch-site", "same-site"), ("origin", &sibling)]),
        ("typed in", vec![("sec-fetch-site", "none")]),
        ("a form's way", vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
        ("a foreign origin", vec![("origin", "http://evil.example")]),
        ("no origin to tell", vec![("origin", "null")]),
        ("a sibling's origin", vec![("origin", &sibling)]),
        ("another scheme's origin", vec![("origin", "ftp://127.0.0.1")]),
        ("neither header", vec![]),
        ("an unknown word", vec![("sec-fetch-site", "SAME-ORIGIN")]),
    ];
    let before = done(&olga).await;
    let mut wrong = Vec::new();
    for row in changing() {
        for (what, headers) in sample(&attacks, 3) {
            let answer = ask(&olga, row, NOBODYS, &headers).await;
            let seen = match answer.status {
                403 => answer.code(),
                status => format!("{status}"),
            };
            let variant = format!("{} from {what}", row.route);
            let control = "the same request from our own page is not refused for that";
            if !(Check { id: "W01", variant: &variant, control }.notes("request.cross-site", &seen))
            {
                wrong.push(format!("{variant}: {seen}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(done(&olga).await, before, "something was done");
    for row in changing() {
        // Signing out would end the one who asks.
        if matches!(row.route, "POST /sign-out" | "DELETE /api/v1/me/session") {
            continue;
        }
        let answer = ask(&olga, row, NOBODYS, &[("sec-fetch-site", "same-origin")]).await;
        assert_ne!(answer.code(), "request.cross-site", "the control: {}", row.route);
    }
}

/// Rows of the audit that say that something was done.
async fn done(client: &Client) -> usize {
    let rows = client.get("/api/v1/audit?outcome=done&limit=500").await.expect_status(200).json();
    rows["items"].as_array().expect("items").len()
}

/// What changes nothing that anybody else could see, and is not audited when it is done.
const UNSEEN: [&str; 9] = [
    "POST /theme",
    "POST /containers/columns",
    "POST /launch/preview",
    "POST /people/import",
    "POST /api/v1/people/{id}/offboarding/preview",
    "POST /api/v1/people/import",
    "POST /api/v1/allowance/preview",
    "POST /api/v1/people/{id}/allowance/preview",
    "POST /api/v1/groups/{id}/allowance/preview",
];

#[tokio::test]
async fn every_use_of_a_changing_route_leaves_one_row() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let auditor = server.person("looks", "auditor").await;
    let mut asked = Vec::new();
    for row in changing() {
        for (role, client) in [("operator", &olga), ("auditor", &auditor)] {
            let client = match row.route {
                "POST /sign-out" | "DELETE /api/v1/me/session" => &again(&server, role).await,
                _ => client,
            };
            let numbered =
                ["/people/", "/groups/", "/asks/"].iter().any(|path| row.route.contains(path));
            let id = if numbered { "999" } else { NOBODYS };
            let answer = ask(client, row, id, &[("sec-fetch-site", "same-origin")]).await;
            let request = answer.header("x-request-id").to_owned();
            asked.push((format!("{} as {role}", row.route), request, answer.status));
        }
    }
    // Some that are done, not only refused.
    for number in 0..3 {
        let body = json!({"name": format!("made{number}"), "role": "user"});
        let answer = olga.post("/api/v1/people", &body).await.expect_status(201);
        asked.push(("a person is made".into(), answer.header("x-request-id").to_owned(), 201));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut counts = BTreeMap::new();
    while Instant::now() < deadline {
        counts = rows_by_request(&olga).await;
        if asked.iter().all(|(_, request, _)| counts.contains_key(request)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        if Instant::now() + Duration::from_secs(7) > deadline {
            break;
        }
    }
    let mut wrong = Vec::new();
    for (what, request, status) in &asked {
        let unseen = UNSEEN.iter().any(|route| what.starts_with(route)) && *status < 400;
        let expected = usize::from(!unseen);
        let rows = counts.get(request).copied().unwrap_or(0);
        let variant = format!("{what}: {status}");
        let control = "what only looks leaves none";
        if !(Check { id: "A10", variant: &variant, control }.notes(expected, rows)) {
            wrong.push(format!("{variant}: {rows} rows"));
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    let looked = olga.get("/api/v1/people").await;
    assert!(
        !rows_by_request(&olga).await.contains_key(looked.header("x-request-id")),
        "the control"
    );
}

async fn again(server: &TestServer, role: &str) -> Client {
    let name = if role == "operator" { "olga" } else { "looks" };
    let answer = server.sign_in(name, system_tests::instance::PASSWORD).await.expect_status(201);
    server.anonymous().with_cookies_of(&answer)
}

async fn rows_by_request(client: &Client) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut path = "/api/v1/audit?limit=500".to_owned();
    loop {
        let page = client.get(&path).await.expect_status(200).json();
        for row in page["items"].as_array().expect("items") {
            let request = row["request_id"].as_str().unwrap_or_default().to_owned();
            *counts.entry(request).or_default() += 1;
        }
        let Some(next) = page["next"].as_str() else { return counts };
        path = format!("/api/v1/audit?limit=500&after={next}");
    }
}

#[tokio::test]
async fn no_text_makes_a_line_of_its_own_in_audit_or_log() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let forged = "x\r\n2026-01-01T00:00:00Z  INFO forged: person.add outcome=done actor=olga";
    let encoded: String = forged.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let before = rows_by_request(&olga).await.values().sum::<usize>();
    for (method, path, body) in [
        ("POST", "/api/v1/people".to_owned(), json!({"name": forged, "role": "user"})),
        ("POST", "/api/v1/tokens".to_owned(), json!({"name": forged, "scope": "read", "days": 1})),
        ("POST", "/api/v1/sessions".to_owned(), json!({"name": forged, "password": forged})),
        ("POST", "/api/v1/images/pull".to_owned(), json!({"reference": forged})),
        (
            "PUT",
            "/api/v1/registries".to_owned(),
            json!({"registry": forged, "username": forged, "password": forged}),
        ),
        (
            "POST",
            "/api/v1/containers".to_owned(),
            json!({"image": forged, "name": forged, "user": forged}),
        ),
        ("DELETE", format!("/api/v1/containers/{encoded}"), Value::Null),
        ("DELETE", format!("/api/v1/tokens/{encoded}"), Value::Null),
        ("POST", format!("/{encoded}"), Value::Null),
    ] {
        let answer = olga.send(method, &path, &body).await;
        assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while rows_by_request(&olga).await.values().sum::<usize>() < before + 9 {
        assert!(Instant::now() < deadline, "a refusal was not audited");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let export = olga.get("/api/v1/audit/export").await.expect_status(200).text;
    let lines =
        export.split("\r\n").filter(|line| line.contains("forged:") && line.starts_with("20"));
    let control = "the same text with its line break in a file of its own is a line";
    Check { id: "A10", variant: "a line break, in the exported audit", control }
        .sees(0, lines.count());
    let log = server.server_log();
    let forged = log.lines().filter(|line| line.starts_with("2026-01-01T00:00:00Z")).count();
    Check { id: "A10", variant: "a line break, in the log", control }.sees(0, forged);
    assert!(log.lines().count() > 20, "the control: the log is read");
}
