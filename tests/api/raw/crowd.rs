//! W06: crowds that only sit there. Whoever else asks is answered within a second, the server's
//! memory stays small, and a moment after the crowd has gone nothing of it is left.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Check, Client, Options, TestServer, is_long, requires_root, times};

use super::bodies::resident;
use super::{Said, bearer, connect, hear};

/// The server's memory may grow by this.
const GROWTH_BYTES_MAX: u64 = 96 << 20;
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Looks while a crowd is there: how long others' requests take, and how much memory it costs.
async fn others_are_served(server: &TestServer, what: &str, before: u64) {
    let client = server.operator();
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        client.get("/api/v1/me").await.expect_status(200);
        took.push(began.elapsed());
    }
    took.sort();
    // Other tests run beside this one: two of twenty may be theirs.
    let slowest = took[took.len() - 3];
    let seen = if slowest < ANSWER_MAX { "within 1 s".to_owned() } else { format!("{slowest:?}") };
    let control = "the crowd is connected; without it the same requests take milliseconds";
    Check { id: "W06", variant: &format!("{what}: others' requests"), control }
        .sees("within 1 s", seen);
    let grown = resident(server.server_pid().expect("it runs")).saturating_sub(before);
    let seen =
        if grown < GROWTH_BYTES_MAX { "bounded".to_owned() } else { format!("{grown} bytes") };
    Check { id: "W06", variant: &format!("{what}: memory"), control }.sees("bounded", seen);
}

/// Descriptors that the server has open.
fn open_files(server: &TestServer) -> usize {
    let pid = server.server_pid().expect("it runs");
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Waits until nothing of a crowd is left.
async fn recovers(server: &TestServer, what: &str, files: usize) {
    let began = Instant::now();
    while open_files(server) > files + 8 {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {} files", open_files(server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let control = "the crowd's connections were open";
    Check { id: "W06", variant: &format!("{what}: afterwards"), control }
        .sees("recovered within 10 s", "recovered within 10 s");
}

async fn server() -> TestServer {
    TestServer::with(Options { no_supervisor: true, ..Options::default() }).await
}

fn measure(server: &TestServer) -> (u64, usize) {
    (resident(server.server_pid().expect("it runs")), open_files(server))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_keep_nobody_out() {
    requires_root!();
    let server = server().await;
    let (memory, files) = measure(&server);
    let crowd: Vec<TcpStream> = (0..5000).map(|_| connect(server.address)).collect();
    others_are_served(&server, "5,000 idle connections", memory).await;
    let open = open_files(&server);
    Check { id: "W06", variant: "5,000 idle connections: the limit", control: "5,000 were made" }
        .sees(
            "1024 at most",
            if open < 1100 { "1024 at most".to_owned() } else { open.to_string() },
        );
    drop(crowd);
    recovers(&server, "5,000 idle connections", files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_slow_bodies_keep_nobody_out() {
    requires_root!();
    let server = server().await;
    let (memory, files) = measure(&server);
    let crowd = |count: usize, bytes: &str| -> Vec<TcpStream> {
        let start = |_| {
            let mut stream = connect(server.address);
            stream.write_all(bytes.as_bytes()).expect("send");
            stream
        };
        (0..count).map(start).collect()
    };
    let mut heads = crowd(1500, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ");
    for stream in &mut heads {
        // One more byte each; some have made room for others.
        drop(stream.write_all(b"a"));
    }
    others_are_served(&server, "1,500 slow heads", memory).await;
    drop(heads);
    recovers(&server, "1,500 slow heads", files).await;
    // More than the requests that are worked on at once (256), of a stranger.
    let body = "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\
                \r\nContent-Length: 1000\r\n\r\n{";
    let mut bodies = crowd(600, body);
    others_are_served(&server, "600 slow bodies", memory).await;
    if is_long() {
        // The silent are given up; who dribbles may go on until the request's own limit.
        let began = Instant::now();
        let said = hear(&mut bodies[0], Duration::from_secs(45));
        let control = "the request was not whole";
        Check { id: "W06", variant: "a silent body", control }.sees(
            "ended",
            match said {
                Said::Status(400 | 408 | 503, _) | Said::Closed => "ended".to_owned(),
                other => format!("{other:?}"),
            },
        );
        assert!(began.elapsed() > Duration::from_secs(10), "it was cut at once");
    }
    drop(bodies);
    recovers(&server, "600 slow bodies", files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_the_answer_costs_a_place_and_no_memory() {
    requires_root!();
    let server = server().await;
    // Made at the first request for it.
    server.anonymous().get("/api/v1/openapi.json").await.expect_status(200);
    let (memory, files) = measure(&server);
    let head = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..times(500, 100) {
        let mut stream = connect(server.address);
        stream.set_nonblocking(true).expect("do not wait");
        // As many requests as the buffers take.
        drop(stream.write_all(head.repeat(200).as_bytes()));
        crowd.push(stream);
    }
    others_are_served(&server, "answers that nobody reads", memory).await;
    if is_long() {
        // Whoever takes nothing for a minute is let go of.
        let began = Instant::now();
        while open_files(&server) > files + 8 {
            assert!(began.elapsed() < Duration::from_secs(100), "they are kept");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Check {
            id: "W06",
            variant: "answers that nobody reads: after a minute",
            control: "they were open",
        }
        .sees("let go of", "let go of");
    }
    for stream in &crowd {
        drop(stream.shutdown(Shutdown::Both));
    }
    drop(crowd);
    recovers(&server, "answers that nobody reads", files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_not_spoken_and_its_floods_end_with_the_preface() {
    requires_root!();
    let server = server().await;
    let (memory, files) = measure(&server);
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS, then HEADERS and RST_STREAM by turns, then CONTINUATION without end.
    flood.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for stream in (1_u32..20_000).step_by(2) {
        flood.extend([0, 0, 1, 1, 4]);
        flood.extend(stream.to_be_bytes());
        flood.push(0x82);
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(stream.to_be_bytes());
        flood.extend(8_u32.to_be_bytes());
    }
    for _ in 0..20_000 {
        flood.extend([0, 0, 1, 9, 0, 0, 0, 0, 1, 0x82]);
    }
    for _ in 0..20 {
        let mut stream = connect(server.address);
        drop(stream.write_all(&flood));
        let said = hear(&mut stream, Duration::from_secs(3));
        let seen = match said.status() {
            0 | 400 | 505 if said != Said::Nothing => "ended",
            _ => "spoken",
        };
        let control = "HTTP/1.1 on the same socket is answered";
        Check { id: "W06", variant: "HTTP/2 rapid reset and CONTINUATION", control }
            .sees("ended", seen);
    }
    others_are_served(&server, "HTTP/2 floods", memory).await;
    recovers(&server, "HTTP/2 floods", files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_have_a_number_of_their_own() {
    requires_root!();
    let server = server().await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let token = bearer(&anna.token("read").await);
    let head = format!(
        "GET /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n"
    );
    let mut crowd = Vec::new();
    let mut refused = 0;
    for _ in 0..300 {
        let mut stream = connect(server.address);
        stream.write_all(head.as_bytes()).expect("send");
        match hear(&mut stream, Duration::from_secs(5)).status() {
            200 => crowd.push(stream),
            429 | 503 | 507 | 409 => refused += 1,
            other => panic!("{other}"),
        }
    }
    let seen = if refused > 0 && crowd.len() < 200 {
        "bounded".to_owned()
    } else {
        crowd.len().to_string()
    };
    let control = "another person's stream opens";
    Check { id: "W06", variant: "300 streams of one person", control }.sees("bounded", seen);
    let answer = tom.head_of(tom.request("GET", "/api/v1/events/stream")).await;
    assert_eq!(answer.status, 200, "the control");
    drop(crowd);
    let deadline = Instant::now() + Duration::from_secs(10);
    while opens(&anna).await != 200 {
        assert!(Instant::now() < deadline, "the places of streams are not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anna.post("/api/v1/tokens", &json!({"name": "a", "scope": "read", "days": 1}))
        .await
        .expect_status(201);
}

async fn opens(client: &Client) -> u16 {
    client.head_of(client.request("GET", "/api/v1/events/stream")).await.status
}
