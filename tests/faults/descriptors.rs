//! F11: more followers than the server has descriptors for, and rounds of life after life. It turns away
//! what it cannot serve, is itself again when they are gone, and has no descriptor more than before.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::containers::{act, import, log_with, run};
use system_tests::{Check, Client, Options, TestServer, requires_root, times};

use crate::footprint;

/// What the server may have open.
const DESCRIPTORS: u64 = 256;
/// How soon it is itself again.
const RECOVERY: Duration = Duration::from_secs(10);
/// What may be open longer than before.
const GROWTH_MAX: u64 = 5;

#[tokio::test]
async fn more_followers_than_descriptors_are_turned_away_and_leave_no_trace() {
    requires_root!();
    raise_own_limit();
    let lines = "connections_max = 4000\nconnections_per_address_max = 4000\nrequests_max = 4000\n\
                 streams_max = 4000";
    let server = TestServer::with(Options { server: lines.to_owned(), ..Default::default() }).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "talks", "while :; do echo on; usleep 50000; done", json!({})).await;
    log_with(&anna, &id, "on").await;
    let pid = server.server_pid().expect("the server runs");
    limit(pid, DESCRIPTORS);
    fill_pools(&anna).await;
    let before = footprint::of(&server);
    let followers = times(1000, 300);
    let mut held = Vec::new();
    let mut turned_away = 0;
    let mut most = 0;
    for number in 0..followers {
        let path = format!("/api/v1/containers/{id}/logs/events");
        let path = if number % 2 == 0 { path } else { "/api/v1/events/stream".to_owned() };
        let request = anna.request("GET", &path).timeout(Duration::from_secs(30));
        // Those that are not accepted wait in the listener's backlog: they are not waited for here.
        held.push(tokio::spawn(async move { request.send().await }));
        most = most.max(descriptors(pid));
    }
    let deadline = Instant::now() + RECOVERY;
    while most < DESCRIPTORS - 8 && Instant::now() < deadline {
        most = most.max(descriptors(pid));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut kept = Vec::new();
    for one in held {
        match tokio::time::timeout(Duration::from_millis(20), one).await {
            Ok(Ok(Ok(response))) if response.status() == 200 => kept.push(response),
            Ok(Ok(Ok(response))) => turned_away += usize::from(response.status() == 503),
            _ => {}
        }
    }
    let control = format!(
        "{followers} followers: {most} of {DESCRIPTORS} descriptors open, {} served, {turned_away} told 503",
        kept.len()
    );
    let check = |variant| Check { id: "F11", variant, control: &control };
    check("the fault strikes").sees(true, most >= DESCRIPTORS - 8);
    check("the server lives").sees(true, server.server_pid() == Some(pid));
    drop(kept);
    check("after they are gone")
        .sees("200, no more descriptors", recovered(&server, &anna, &before).await);
    let panics = server.server_log().matches("panicked").count();
    check("panics").sees(0, panics);
    let lives = anna.get(&format!("/api/v1/containers/{id}")).await.json()["status"].clone();
    check("what runs").sees("running", lives.as_str().unwrap_or_default());
    let grown = footprint::growth(&server, &before, &["descriptors"], GROWTH_MAX);
    check("descriptors: more than 5 above").finds_nothing(&grown);
}

async fn recovered(server: &TestServer, anna: &Client, before: &footprint::Footprint) -> String {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let request = anna.request("GET", "/api/v1/containers").timeout(Duration::from_secs(5));
        let status = request.send().await.map(|response| response.status().as_u16()).ok();
        let now = descriptors(server.server_pid().expect("the server runs"));
        let then = before["server: descriptors"];
        if status == Some(200) && now <= then + GROWTH_MAX {
            return "200, no more descriptors".to_owned();
        }
        if Instant::now() > deadline {
            return format!("{status:?}, {then} -> {now}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn rounds_of_lives_leave_no_descriptor_open() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let stays = run(&anna, "stays", "while :; do echo on; usleep 50000; done", json!({})).await;
    let round = async || {
        for number in 0..4 {
            let id = run(&anna, &format!("c{number}"), "echo on; sleep 1000", json!({})).await;
            log_with(&anna, &id, "on").await;
            let follow = format!("/api/v1/containers/{id}/logs/events");
            anna.head_of(anna.request("GET", &follow)).await;
            act(&anna, &id, "kill").await.expect_status(200);
            anna.delete(&format!("/api/v1/containers/{id}")).await.expect_status(204);
        }
        let follow = format!("/api/v1/containers/{stays}/logs/events");
        anna.head_of(anna.request("GET", &follow)).await;
    };
    round().await;
    let before = footprint::of(&server);
    for _ in 0..5 {
        round().await;
    }
    let check =
        |variant| Check { id: "F11", variant, control: "20 lives and 25 followers, all seen" };
    let grown = footprint::growth(&server, &before, &["descriptors"], GROWTH_MAX);
    check("after 5 rounds: descriptors more than 5 above").finds_nothing(&grown);
    check("zombies").finds_nothing(&footprint::differences(&server, &before, &["zombies"]));
}

/// Opens what the server keeps open once many have asked at once.
async fn fill_pools(anna: &Client) {
    let ask = |_| {
        let anna = anna.clone();
        tokio::spawn(async move { anna.get("/api/v1/events?limit=100").await.expect_status(200) })
    };
    let asked: Vec<_> = (0..64).map(ask).collect();
    for one in asked {
        one.await.expect("it is answered");
    }
}

fn descriptors(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// As the process's own user, who may lower it without a right over the host.
fn limit(pid: u32, most: u64) {
    use std::os::unix::process::CommandExt;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a uid");
    let uid = line.split_whitespace().next().and_then(|uid| uid.parse().ok()).expect("a number");
    let arguments = [format!("--pid={pid}"), format!("--nofile={most}:{most}")];
    let status = std::process::Command::new("prlimit").args(arguments).uid(uid).gid(uid).status();
    assert!(status.expect("prlimit is installed").success(), "limit the server");
}

/// As far as this process may.
fn raise_own_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("ask for a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("raise it to what is allowed");
}
