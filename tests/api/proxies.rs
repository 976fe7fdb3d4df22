//! Trusted proxies: whose word is taken for a client's address, scheme and host, and whose is not.

use serde_json::json;
use system_tests::client::send;
use system_tests::instance::PASSWORD;
use system_tests::{Answer, Options, TestServer, requires_root};

async fn server(lines: &str) -> TestServer {
    let options = Options { no_supervisor: true, server: lines.to_owned(), ..Options::default() };
    TestServer::with(options).await
}

/// Signs olga in with these headers.
async fn sign_in(server: &TestServer, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"name": "olga", "password": PASSWORD});
    let mut request = server.anonymous().raw("POST", "/api/v1/sessions").json(&body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await
}

/// The address that the newest session was opened from, and the audit's.
async fn seen(server: &TestServer) -> (String, String) {
    let olga = server.operator();
    let sessions = olga.get("/api/v1/sessions").await.expect_status(200).json();
    let address = sessions["items"][0]["address"].as_str().expect("an address").to_owned();
    let audit = olga.get("/api/v1/audit").await.expect_status(200).json();
    let rows = audit["items"].as_array().expect("rows").clone();
    let row = rows.iter().find(|row| row["action"] == "session.open").expect("it was audited");
    (address, row["address"].as_str().expect("an address").to_owned())
}

#[tokio::test]
async fn only_a_trusted_proxy_says_where_somebody_comes_from() {
    requires_root!();
    let forged = [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "berth.lab"),
        ("forwarded", "for=198.51.100.7;proto=https;host=berth.lab"),
    ];
    for lines in ["", "trusted_proxies = [\"10.9.9.9\"]"] {
        let server = server(lines).await;
        let answer = sign_in(&server, &forged).await.expect_status(201);
        assert!(!answer.header("set-cookie").contains("Secure"), "{lines}: {answer:?}");
        assert_eq!(seen(&server).await, ("127.0.0.1".into(), "127.0.0.1".into()), "{lines}");
    }
    // The control: the same from a proxy that is trusted.
    let lines = "hosts = [\"berth.lab\"]\ntrusted_proxies = [\"127.0.0.1\"]";
    let server = server(lines).await;
    let answer = sign_in(&server, &forged).await.expect_status(201);
    assert!(answer.header("set-cookie").starts_with("__Host-"), "{answer:?}");
    assert_eq!(answer.header("strict-transport-security"), "max-age=15552000");
    let address = "198.51.100.7".to_owned();
    assert_eq!(seen(&server).await, (address.clone(), address));
}

#[tokio::test]
async fn of_a_chain_the_right_most_stranger_counts() {
    requires_root!();
    let server = server("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/28\"]").await;
    for (line, expected) in [
        ("127.0.0.1, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.3, 198.51.100.8, 10.0.0.4", "198.51.100.8"),
        ("198.51.100.9, unknown, 10.0.0.4", "10.0.0.4"),
        ("[2001:db8::5]:4000", "2001:db8::5"),
    ] {
        sign_in(&server, &[("x-forwarded-for", line)]).await.expect_status(201);
        assert_eq!(seen(&server).await.0, expected, "{line}");
    }
    // The kind of header that is not configured is a client's to write, and so is nobody's word.
    let other = [("forwarded", "for=203.0.113.9;proto=https"), ("x-forwarded-for", "198.51.100.7")];
    let answer = sign_in(&server, &other).await.expect_status(201);
    assert!(!answer.header("set-cookie").contains("Secure"));
    assert_eq!(seen(&server).await.0, "198.51.100.7");
}

#[tokio::test]
async fn forwarded_is_read_where_it_is_configured() {
    requires_root!();
    let lines = "trusted_proxies = [\"127.0.0.1\"]\nproxy_headers = \"forwarded\"\n\
                 hosts = [\"berth.lab\"]";
    let server = server(lines).await;
    let spoofed = [
        (
            "forwarded",
            "for=203.0.113.9;proto=http, for=\"[2001:db8::7]:1\";proto=https;host=berth.lab",
        ),
        ("x-forwarded-for", "192.0.2.55"),
    ];
    let answer = sign_in(&server, &spoofed).await.expect_status(201);
    assert!(answer.header("set-cookie").starts_with("__Host-"), "{answer:?}");
    assert_eq!(seen(&server).await.0, "2001:db8::7");
}

#[tokio::test]
async fn a_forwarded_host_must_be_ours_too() {
    requires_root!();
    let server = server("trusted_proxies = [\"127.0.0.1\"]\nhosts = [\"berth.lab\"]").await;
    let status = async |host: &str| {
        let request = server.anonymous().raw("GET", "/healthz").header("x-forwarded-host", host);
        send(request).await.status
    };
    assert_eq!(status("evil.example").await, 421);
    assert_eq!(status("berth.lab").await, 200, "the control");
    // What changes something must come from the page at that host.
    let olga = sign_in(&server, &[("x-forwarded-proto", "https")]).await.expect_status(201);
    let olga = server.anonymous().with_cookies_of(&olga);
    for (origin, expected) in
        [("https://berth.lab", 201), ("http://berth.lab", 403), ("https://evil.example", 403)]
    {
        let body = json!({"name": "laptop", "scope": "read", "days": 1});
        let request = olga.raw("POST", "/api/v1/tokens").json(&body).header("origin", origin);
        let request =
            request.header("x-forwarded-proto", "https").header("x-forwarded-host", "berth.lab");
        assert_eq!(send(request).await.status, expected, "{origin}");
    }
}

#[tokio::test]
async fn throttling_follows_the_client_and_not_the_proxy() {
    requires_root!();
    let server = server("trusted_proxies = [\"127.0.0.1\"]").await;
    let tries = async |address: &str, count: u32| {
        for number in 0..count {
            let body = json!({"name": format!("nobody{number}"), "password": "a wrong password"});
            let request = server.anonymous().raw("POST", "/api/v1/sessions").json(&body);
            let answer = send(request.header("x-forwarded-for", address)).await;
            if answer.status != 403 {
                return answer.status;
            }
        }
        403
    };
    // 30 are free; each after them waits twice as long as the one before, on a busy machine perhaps for longer
    // than the next takes to come.
    assert_eq!(tries("198.51.100.7", 40).await, 429, "nobody slowed the guesser down");
    // Writing another address in front does not help.
    assert_eq!(tries("203.0.113.1, 198.51.100.7", 10).await, 429);
    // The control: somebody else's address.
    assert_eq!(tries("198.51.100.8", 1).await, 403);
}
