//! W01 and W03: what other sites' pages and foreign host names can do, which is nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use system_tests::client::send;
use system_tests::{Options, TestServer, requires_root};

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

#[tokio::test]
async fn another_sites_page_changes_nothing() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let own = server.url();
    let sibling = format!("http://127.0.0.1:{}", server.address.port() ^ 1);
    let attacks: &[(&str, &[(&str, &str)])] = &[
        ("cross-site", &[("sec-fetch-site", "cross-site")]),
        ("sibling port", &[("sec-fetch-site", "same-site"), ("origin", &sibling)]),
        ("typed in", &[("sec-fetch-site", "none")]),
        ("a link", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
        ("foreign origin", &[("origin", "http://evil.example")]),
        ("null origin", &[("origin", "null")]),
        ("sibling origin", &[("origin", &sibling)]),
        ("no origin at all", &[]),
    ];
    let body = json!({"name": "eve", "role": "operator"});
    for (name, headers) in attacks {
        for method in ["POST", "DELETE", "PATCH", "PUT"] {
            let mut request = olga.raw(method, "/api/v1/people").json(&body);
            for (header, value) in *headers {
                request = request.header(*header, *value);
            }
            let answer = send(request).await;
            let refused = answer.status == 403 && answer.code() == "request.cross-site";
            assert!(refused || answer.status == 405, "{method} {name}: {answer:?}");
        }
    }
    // What a form can send without asking first.
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let request = olga.request("POST", "/api/v1/people").header("content-type", media_type);
        assert_eq!(send(request.body(body.to_string())).await.status, 415, "{media_type}");
    }
    let people = olga.get("/api/v1/people").await.json();
    assert_eq!(people["items"].as_array().map(Vec::len), Some(1), "somebody was added: {people}");
    // The controls: our own page's request, by either header, and a token's without any.
    for (number, header) in [("sec-fetch-site", "same-origin"), ("origin", &own)].iter().enumerate()
    {
        let body = json!({"name": format!("anna{number}"), "role": "user"});
        let request = olga.raw("POST", "/api/v1/people").json(&body).header(header.0, header.1);
        send(request).await.expect_status(201);
    }
    let token = olga.token("manage").await;
    let body = json!({"name": "berta", "role": "user"});
    send(token.raw("POST", "/api/v1/people").json(&body)).await.expect_status(201);
}

#[tokio::test]
async fn looking_changes_nothing() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let output = std::process::Command::new(system_tests::programs::berth())
        .args(["openapi", "--routes"])
        .output()
        .expect("run berth openapi");
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a table in JSON");
    let before = audit_rows(&olga).await;
    for route in table.as_array().expect("a list") {
        let path = route["path"].as_str().expect("a path").replace(['{', '}'], "");
        for method in ["GET", "HEAD"] {
            olga.head_of(olga.request(method, &path)).await;
        }
    }
    assert_eq!(audit_rows(&olga).await, before, "a GET or HEAD was audited as a change");
    // The control: a change is seen in the audit.
    olga.token("read").await;
    assert_eq!(audit_rows(&olga).await, before + 1);
}

async fn audit_rows(client: &system_tests::Client) -> usize {
    let rows = client.get("/api/v1/audit?limit=500").await.expect_status(200).json();
    rows["items"].as_array().expect("a list").len()
}

#[tokio::test]
async fn cookies_are_out_of_scripts_reach_and_pages_carry_their_headers() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let answer = server.sign_in("olga", system_tests::instance::PASSWORD).await.expect_status(201);
    let cookies: Vec<&str> =
        answer.headers.get_all("set-cookie").iter().filter_map(|v| v.to_str().ok()).collect();
    assert_eq!(cookies.len(), 2);
    for cookie in cookies {
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
    }
    let page = server.anonymous().get("/no-such-page").await;
    let csp = page.header("content-security-policy");
    assert!(csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"), "{csp}");
    assert!(!csp.contains("unsafe"), "{csp}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert!(page.text.contains("<html") && page.header("content-type").starts_with("text/html"));
}

#[tokio::test]
async fn a_foreign_host_name_is_refused() {
    requires_root!();
    let options = Options { server: "hosts = [\"berth.lab\"]".into(), ..plain() };
    let server = TestServer::with(options).await;
    let port = server.address.port();
    let own = format!("127.0.0.1:{port}");
    let status = |head: &str| {
        let mut stream = TcpStream::connect(server.address).expect("connect");
        write!(stream, "{head}\r\nConnection: close\r\n\r\n").expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("receive");
        answer.split(' ').nth(1).and_then(|text| text.parse::<u16>().ok()).unwrap_or(0)
    };
    for head in [
        "GET /healthz HTTP/1.1\r\nHost: evil.example".to_owned(),
        format!("GET /healthz HTTP/1.1\r\nHost: evil.example:{port}"),
        format!("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1.evil.example:{port}"),
        format!("GET /healthz HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: {own}"),
        format!("GET http://evil.example/healthz HTTP/1.1\r\nHost: {own}"),
        format!("GET http://{own}/healthz HTTP/1.1\r\nHost: evil.example"),
        format!("GET /healthz HTTP/1.1\r\nHost: {own}\r\nHost: evil.example"),
        "GET /healthz HTTP/1.1\r\nHost:".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: 10.0.0.1".to_owned(),
        "GET /healthz HTTP/1.0".to_owned(),
    ] {
        let status = status(&head);
        assert!(status == 421 || status == 400, "{head}: {status}");
    }
    for head in [
        format!("GET /healthz HTTP/1.1\r\nHost: {own}"),
        "GET /healthz HTTP/1.1\r\nHost: localhost:8080".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: [::1]".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: Berth.Lab".to_owned(),
        format!(
            "GET http://{own}/healthz HTTP/1.1\r\nHost: {own}\r\nX-Forwarded-Host: evil.example"
        ),
    ] {
        assert_eq!(status(&head), 200, "the control {head}");
    }
}
