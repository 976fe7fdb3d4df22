//! Logs and events: how much goes through, and how soon it is there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::Client;

use crate::Options;
use crate::lifecycle::instance;
use crate::peers::{Docker, IMAGE};
use crate::table::{Samples, Table};

/// Lines that a container writes, and bytes in each.
const LINES: u64 = 400_000;
const LINE_BYTES: u64 = 100;
/// Containers whose making is followed.
const EVENTS: usize = 200;
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    // Room for every line, so that what is read is what was written.
    let sections =
        "[containers]\nlog_file_bytes = 268435456\nlog_files = 3\nper_person_max = 2000\n";
    let more =
        system_tests::Options { sections: sections.into(), ..system_tests::Options::default() };
    let (server, owner) = instance(more).await;
    let docker = if options.peers { Docker::start().await } else { None };
    if let Some(docker) = &docker {
        docker.load_image().await;
    }
    let [mut wrote, mut read] = [Samples::new("MB/s"), Samples::new("MB/s")];
    let [mut docker_wrote, mut docker_read] = [Samples::new("MB/s"), Samples::new("MB/s")];
    for _ in 0..options.rounds.div_ceil(4) {
        log_of_berth(&owner, &mut wrote, &mut read).await;
        if let Some(docker) = &docker {
            log_of_docker(docker, &mut docker_wrote, &mut docker_read).await;
        }
    }
    if docker.is_some() {
        table.beside("log: written to its end", &wrote, "docker, json-file", &docker_wrote);
        table.beside("log: read over the API", &read, "docker, json-file", &docker_read);
    } else {
        table.alone("log: written to its end", &wrote);
        table.alone("log: read over the API", &read);
    }
    events(&owner, table).await;
    table.note(&format!(
        "logs: {LINES} lines of {LINE_BYTES} bytes by `yes | head`, from the start of the container to \
         its end; for ratios of MB/s more is better"
    ));
    drop(server);
}

fn script() -> String {
    let line = "x".repeat(usize::try_from(LINE_BYTES - 1).unwrap_or(0));
    format!("/bin/busybox yes {line} | /bin/busybox head -n {LINES}")
}

fn megabytes_per_second(took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let megabytes = (LINES * LINE_BYTES) as f64 / 1e6;
    megabytes / took.as_secs_f64()
}

async fn log_of_berth(owner: &Client, wrote: &mut Samples, read: &mut Samples) {
    let body = json!({"image": IMAGE, "start": true,
        "command": ["/bin/busybox", "sh", "-c", script()]});
    let begun = Instant::now();
    let made = owner.post("/api/v1/containers", &body).await.expect_status(201).json();
    let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
    loop {
        let ended =
            owner.get(&format!("{path}/wait?timeout_secs=50")).await.expect_status(200).json();
        if ended["status"] != "running" {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{ended}");
    }
    wrote.add(megabytes_per_second(begun.elapsed()));
    let begun = Instant::now();
    let log = owner.get(&format!("{path}/logs")).await.expect_status(200);
    read.add(megabytes_per_second(begun.elapsed()));
    let lines = log.text.lines().count() as u64;
    assert_eq!(lines, LINES, "every line is there once: {:?}", log.text.get(..300));
    owner.delete(&path).await.expect_status(204);
}

async fn log_of_docker(docker: &Docker, wrote: &mut Samples, read: &mut Samples) {
    let name = "bench-log";
    let body = json!({"Image": IMAGE, "Cmd": ["/bin/busybox", "sh", "-c", script()]});
    let begun = Instant::now();
    let client = &docker.client;
    client.post(&format!("/containers/create?name={name}"), &body).await.expect_status(201);
    client.post(&format!("/containers/{name}/start"), &Value::Null).await.expect_status(204);
    client.post(&format!("/containers/{name}/wait"), &Value::Null).await.expect_status(200);
    wrote.add(megabytes_per_second(begun.elapsed()));
    let begun = Instant::now();
    let request = client.request("GET", &format!("/containers/{name}/logs?stdout=1"));
    // Frames with binary heads: not text.
    let bytes = request.send().await.expect("docker answers").bytes().await.expect("all of it");
    read.add(megabytes_per_second(begun.elapsed()));
    assert!(bytes.len() as u64 >= LINES * LINE_BYTES, "every line is there");
    docker.remove(name).await;
}

/// Containers are made as fast as one client can, and somebody follows the event stream.
async fn events(owner: &Client, table: &mut Table) {
    let request = owner.request("GET", "/api/v1/events/stream");
    let mut stream = request.send().await.expect("the server answers");
    assert_eq!(stream.status(), 200);
    let writer = owner.clone();
    let begun = Instant::now();
    let making = tokio::spawn(async move {
        let mut answered = Vec::new();
        for number in 0..EVENTS {
            let body = json!({"image": IMAGE, "name": format!("event-{number}")});
            writer.post("/api/v1/containers", &body).await.expect_status(201);
            answered.push(Instant::now());
        }
        answered
    });
    let mut seen = Vec::new();
    let mut text = String::new();
    while seen.len() < EVENTS {
        let chunk = tokio::time::timeout(LIMIT, stream.chunk()).await.expect("events come");
        let chunk = chunk.expect("the stream goes on").expect("the stream does not end");
        text += &String::from_utf8_lossy(&chunk);
        while let Some((event, rest)) = text.split_once("\n\n") {
            if event.contains("event: container.created")
                || event.contains("event:container.created")
            {
                seen.push(Instant::now());
            }
            text = rest.to_owned();
        }
    }
    let took = begun.elapsed();
    let answered = making.await.expect("all were made");
    let mut late = Samples::new("ms");
    for (seen, answered) in seen.iter().zip(&answered) {
        late.add_time(seen.saturating_duration_since(*answered));
    }
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let rate = EVENTS as f64 / took.as_secs_f64();
    table.alone("events: made and followed", &Samples::one("per second", rate));
    table.alone("events: seen after the answer", &late);
}
