//! A04: bodies that are too large, too deep, too slow, or not what they are said to be.

use std::time::{Duration, Instant};

use system_tests::client::send;
use system_tests::{Check, Options, TestServer, requires_root};

use super::{bearer, say};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "a table, one row per body")]
async fn a_body_that_is_too_much_is_refused_and_costs_little() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let olga = server.operator();
    let pid = server.server_pid().expect("it runs");
    let before = resident(pid);
    let good = br#"{"name":"a1","role":"user"}"#;
    let padded = |bytes: usize| {
        let mut body = good.to_vec();
        body.resize(bytes, b' ');
        body
    };
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{{\"name\":{}1{}}}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("1 MiB and a byte", padded((1 << 20) + 1), &[413]),
        ("a list in 10^6 lists", nested("[", "]", 400_000), &[400]),
        ("an object in 100,000 objects", nested("{\"a\":", "}", 100_000), &[400]),
        ("a name in 33 lists", nested("[", "]", 33), &[400]),
        (
            "10^5 fields",
            format!(
                "{{{}\"a\":1}}",
                (0..100_000).map(|n| format!("\"{n}\":1,")).collect::<String>()
            )
            .into_bytes(),
            &[400, 422, 413],
        ),
        (
            "a number of 10^5 digits",
            format!("{{\"name\":{}}}", "9".repeat(100_000)).into_bytes(),
            &[400, 422],
        ),
        ("a lone surrogate", br#"{"name":"\ud800","role":"user"}"#.to_vec(), &[400]),
        ("no UTF-8", b"{\"name\":\"\xff\xfe\",\"role\":\"user\"}".to_vec(), &[400]),
        ("UTF-16", "{\"name\":\"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(), &[400]),
        (
            "a doubled key in escapes",
            br#"{"name":"a1","n\u0061me":"a2","role":"user"}"#.to_vec(),
            &[400],
        ),
        ("NaN", br#"{"name":NaN,"role":"user"}"#.to_vec(), &[400]),
        ("a comment", br#"{"name":"a1"/**/,"role":"user"}"#.to_vec(), &[400]),
        ("a comma at the end", br#"{"name":"a1","role":"user",}"#.to_vec(), &[400]),
    ];
    for (what, body, allowed) in cases {
        let request = olga.request("POST", "/api/v1/people");
        let answer = send(request.header("content-type", "application/json").body(body)).await;
        let seen =
            if allowed.contains(&answer.status) { format!("{allowed:?}") } else { answer.text };
        Check { id: "A04", variant: what, control: "the same body without it is taken" }
            .sees(format!("{allowed:?}"), seen);
    }
    // 20 MiB: refused before all of it is read.
    let bearer = bearer(&olga.token("manage").await);
    let mut bytes = format!(
        "POST /api/v1/people HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        20 << 20
    )
    .into_bytes();
    bytes.extend(padded(20 << 20));
    let said = say(server.address, &bytes, Duration::from_secs(10));
    let seen = if matches!(said.status(), 413 | 0) { "413 or ended" } else { "taken" };
    Check { id: "A04", variant: "20 MiB", control: "the same body without it is taken" }
        .sees("413 or ended", seen);
    for coding in ["gzip", "deflate", "br", "zstd", "identity", "chunked"] {
        let request = olga.request("POST", "/api/v1/people").header("content-encoding", coding);
        let request = request.header("content-type", "application/json").body(good.to_vec());
        Check { id: "A04", variant: coding, control: "the same body without it is taken" }
            .sees(415, send(request).await.status);
    }
    let grown = resident(pid).saturating_sub(before);
    Check { id: "A04", variant: "memory", control: "20 MiB were sent at once" }.sees(
        "less than 64 MiB",
        if grown < 64 << 20 { "less than 64 MiB".into() } else { grown.to_string() },
    );
    let request = olga.request("POST", "/api/v1/people").header("content-type", "application/json");
    assert_eq!(send(request.body(good.to_vec())).await.status, 201, "the control");
    let began = Instant::now();
    assert_eq!(olga.get("/api/v1/people").await.json()["items"].as_array().map(Vec::len), Some(2));
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// A process's memory in bytes.
pub(super) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
