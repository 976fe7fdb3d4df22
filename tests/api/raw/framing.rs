//! A04 and W03: where one request ends and the next begins is read in one way, or the request is
//! refused and its connection ended: nothing that hides in another's body is ever run.

use std::time::Duration;

use system_tests::{Check, Options, TestServer, requires_root};

use super::{Said, bearer, say};

const LIMIT: Duration = Duration::from_secs(3);

/// What is before the blank line of a request with a body, and how its body begins; behind that comes
/// the request that is smuggled.
const FRAMINGS: &[(&str, &str, &str)] = &[
    ("a length beside chunks", "Content-Length: 400\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("chunks beside a length", "Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 5", ""),
    ("two lengths in one", "Content-Length: 0, 5", ""),
    ("the same length twice", "Content-Length: 5\r\nContent-Length: 6", "0\r\n\r\n"),
    ("a signed length", "Content-Length: +0", ""),
    ("a hexadecimal length", "Content-Length: 0x0", ""),
    ("a negative length", "Content-Length: -1", ""),
    ("a length beyond 2^64", "Content-Length: 18446744073709551616", ""),
    ("an empty length", "Content-Length:", ""),
    ("chunked not last", "Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
    ("an unknown coding", "Transfer-Encoding: xchunked", "0\r\n\r\n"),
    ("a vertical tab before chunked", "Transfer-Encoding: \u{b}chunked", "0\r\n\r\n"),
    ("chunked in quotes", "Transfer-Encoding: \"chunked\"", "0\r\n\r\n"),
    ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
    ("a space before the colon", "Transfer-Encoding : chunked", "0\r\n\r\n"),
    ("a folded line", "Transfer-Encoding:\r\n chunked", "0\r\n\r\n"),
    ("a folded length", "X: a\r\n Content-Length: 0", ""),
    ("a NUL in a header", "X: a\0b\r\nContent-Length: 5", ""),
    ("a CR in a header", "X: a\rContent-Length: 5", ""),
    ("a name that is none", "Content Length: 0", ""),
    ("a line without colon", "Content-Length\r\nX: a", ""),
    ("a chunk's size with a sign", "Transfer-Encoding: chunked", "-1\r\n\r\n"),
    ("a chunk's size with 0x", "Transfer-Encoding: chunked", "0x0\r\n\r\n"),
    ("a chunk beyond 2^64", "Transfer-Encoding: chunked", "10000000000000000\r\n\r\n"),
    ("a chunk that lies", "Transfer-Encoding: chunked", "1\r\nab\r\n0\r\n\r\n"),
    ("a chunk ended by LF", "Transfer-Encoding: chunked", "0\n\n"),
    ("a chunk's extension with CR", "Transfer-Encoding: chunked", "0;a\rb\r\n\r\n"),
    ("a coding in HTTP/1.0", "HTTP/1.0", "0\r\n\r\n"),
];

/// One that is run when it stands by itself: it adds a person.
fn smuggled(bearer: &str, name: &str) -> String {
    let body = format!(r#"{{"name":"{name}","role":"operator"}}"#);
    format!(
        "POST /api/v1/people HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_hides_in_anothers_body_is_run() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let token = server.operator().token("manage").await;
    let bearer = bearer(&token);
    let before = answered(&server);
    let (mut said_by_us, mut wrong) = (0, Vec::new());
    for (number, (what, head, body)) in FRAMINGS.iter().enumerate() {
        let (version, head) = match *head {
            "HTTP/1.0" => ("1.0", "Transfer-Encoding: chunked"),
            head => ("1.1", head),
        };
        let bytes = format!(
            "POST /api/v1/sessions HTTP/{version}\r\nHost: localhost\r\n\
             Content-Type: application/json\r\n{head}\r\n\r\n{body}{}",
            smuggled(&bearer, &format!("smuggled{number}"))
        );
        let said = say(server.address, bytes.as_bytes(), LIMIT);
        if let Said::Status(_, text) = &said
            && text.contains("x-request-id")
        {
            said_by_us += 1;
        }
        let refused = matches!(said.status(), 0 | 400 | 411 | 415 | 422 | 501);
        let seen = if refused { "refused".to_owned() } else { said.words() };
        let control = "the hidden request by itself is run";
        if !(Check { id: "A04", variant: what, control }.notes("refused", &seen)) {
            wrong.push(format!("{what}: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let people = token.get("/api/v1/people").await.expect_status(200).text;
    assert!(!people.contains("smuggled"), "{people}");
    // One line of the log for each request that was let in, and none for another.
    let lines = answered(&server) - before;
    let variant = "lines of the log for all framings together, besides the look at people";
    let control = "each request that is run writes one";
    Check { id: "A04", variant, control }.sees(said_by_us, lines - 1);
    // The control.
    let said = say(server.address, smuggled(&bearer, "honest").as_bytes(), LIMIT);
    assert_eq!(said.status(), 201, "{said:?}");
    let pair = [smuggled(&bearer, "one"), smuggled(&bearer, "two")].concat();
    assert_eq!(say(server.address, pair.as_bytes(), LIMIT).status(), 201);
    let people = token.get("/api/v1/people").await.expect_status(200).text;
    assert!(people.contains("honest"), "{people}");
}

/// Requests that the server says it has answered.
fn answered(server: &TestServer) -> usize {
    server.server_log().lines().filter(|line| line.contains("answered")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_read_in_one_way_or_refused() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let token = server.operator().token("manage").await;
    let bearer = bearer(&token);
    let own = format!("127.0.0.1:{}", server.address.port());
    let signed = format!("Host: {own}\r\nAuthorization: {bearer}\r\n");
    let heads: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("no Host", "GET /healthz HTTP/1.1\r\n\r\n".into(), &[400, 421]),
        ("an empty Host", "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n".into(), &[400, 421]),
        ("two Hosts", format!("GET /healthz HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\n\r\n").into(), &[400, 421]),
        ("a foreign Host", "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), &[421]),
        ("a Host with a user", format!("GET /healthz HTTP/1.1\r\nHost: x@{own}\r\n\r\n").into(), &[400, 421]),
        ("a Host with a path", format!("GET /healthz HTTP/1.1\r\nHost: {own}/x\r\n\r\n").into(), &[400, 421]),
        ("another Host in the target", format!("GET http://evil.example/healthz HTTP/1.1\r\nHost: {own}\r\n\r\n").into(), &[400, 421]),
        ("a forwarded Host", "GET /healthz HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\n\r\n".into(), &[421]),
        ("a method in small letters", format!("post /api/v1/people HTTP/1.1\r\n{signed}Content-Length: 0\r\n\r\n").into(), &[400, 405, 501]),
        ("CONNECT", format!("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: {own}\r\n\r\n").into(), &[400, 404, 405, 421]),
        ("TRACE", format!("TRACE /api/v1/me HTTP/1.1\r\n{signed}\r\n").into(), &[400, 404, 405]),
        ("OPTIONS of everything", format!("OPTIONS * HTTP/1.1\r\nHost: {own}\r\n\r\n").into(), &[400, 404, 405]),
        ("a method of 100 KiB", format!("{} / HTTP/1.1\r\nHost: {own}\r\n\r\n", "X".repeat(100 << 10)).into(), &[0, 400, 405, 431]),
        ("a target of 100 KiB", format!("GET /{} HTTP/1.1\r\nHost: {own}\r\n\r\n", "x".repeat(100 << 10)).into(), &[0, 400, 414, 431]),
        ("a header of 1 MiB", format!("GET /healthz HTTP/1.1\r\nHost: {own}\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into(), &[0, 400, 431]),
        ("5,000 headers", format!("GET /healthz HTTP/1.1\r\nHost: {own}\r\n{}\r\n", "X: y\r\n".repeat(5000)).into(), &[0, 400, 431]),
        ("HTTP/2 without being asked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), &[0, 400, 505]),
        ("an upgrade to HTTP/2", format!("GET /healthz HTTP/1.1\r\nHost: {own}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n").into(), &[200]),
        ("HTTP/0.9", b"GET /healthz\r\n\r\n".to_vec(), &[0, 400]),
        ("HTTP/9.9", format!("GET /healthz HTTP/9.9\r\nHost: {own}\r\n\r\n").into(), &[0, 400, 505]),
        ("TLS to plain HTTP", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), &[0, 400]),
        ("nothing but NULs", vec![0; 4096], &[0, 400]),
    ];
    for (what, bytes, allowed) in heads {
        let said = say(server.address, &bytes, LIMIT);
        let as_allowed = allowed.contains(&said.status()) && said != Said::Nothing;
        let seen = if as_allowed { format!("{allowed:?}") } else { format!("{said:?}") };
        let control = "an honest head is answered with 200";
        Check { id: "W03", variant: what, control }.sees(format!("{allowed:?}"), seen);
    }
    // A method that somebody wishes for in a header is not the request's.
    let wish = format!(
        "GET /api/v1/me/session HTTP/1.1\r\n{signed}X-HTTP-Method-Override: DELETE\r\n\
         X-HTTP-Method: DELETE\r\n_method: DELETE\r\n\r\n"
    );
    let said = say(server.address, wish.as_bytes(), LIMIT);
    assert_eq!(said.status(), 405, "{said:?}");
    // Two credentials are none.
    let two = format!("GET /api/v1/me HTTP/1.1\r\n{signed}Authorization: Bearer x\r\n\r\n");
    let said = say(server.address, two.as_bytes(), LIMIT);
    Check { id: "A08", variant: "two Authorization headers", control: "one is taken" }
        .sees(401, said.status());
    let honest = format!("GET /api/v1/me HTTP/1.1\r\n{signed}\r\n");
    assert_eq!(say(server.address, honest.as_bytes(), LIMIT).status(), 200, "the control");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_sessions_in_one_request_none_is_chosen() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let (anna, eve) = (server.person("anna", "user").await, server.person("eve", "user").await);
    let session = |client: &system_tests::Client| {
        let cookie = client.cookie().to_owned();
        cookie.split("; ").find(|pair| pair.contains("_session=")).expect("a session").to_owned()
    };
    let (hers, planted) = (session(&anna), session(&eve));
    for cookies in [
        format!("Cookie: {planted}; {hers}"),
        format!("Cookie: {hers}; {planted}"),
        format!("Cookie: {planted}\r\nCookie: {hers}"),
    ] {
        let head = format!("GET /api/v1/me HTTP/1.1\r\nHost: localhost\r\n{cookies}\r\n\r\n");
        let said = say(server.address, head.as_bytes(), LIMIT);
        let control = "either session by itself is taken";
        Check { id: "A07", variant: "a session planted beside another", control }
            .sees(401, said.status());
    }
    for one in [&hers, &planted] {
        let head = format!("GET /api/v1/me HTTP/1.1\r\nHost: localhost\r\nCookie: {one}\r\n\r\n");
        assert_eq!(say(server.address, head.as_bytes(), LIMIT).status(), 200, "the control");
    }
}
