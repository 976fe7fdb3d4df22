//! F15: thousands of containers made, started, read, stopped and removed, beside some that live on.
//! Afterwards the appliance holds of the machine what it held at first.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::containers::{self, act, in_status, log_with, until};
use system_tests::{
    Check, Client, Options, TestServer, image, is_long, reality, requires_root, times,
};

use crate::footprint::{self, Footprint};

/// Lives side by side.
const WORKERS: usize = 4;
/// Requests at once before the first life: more than there are places in any pool.
const CROWD: usize = 48;
/// Rows that one life may leave: what was done (audit) and what happened (events, operations).
const ROWS_PER_LIFE_MAX: u64 = 16;
/// Bytes of them on disk, indexes included.
const BYTES_PER_LIFE_MAX: u64 = 8 << 10;
/// Tables of what has happened, which retention bounds by days and rows.
const HISTORIES: [&str; 3] = ["audit", "events", "operations"];

/// One look.
pub(crate) struct Sample {
    lives: usize,
    held: Footprint,
    rows: Footprint,
    database_bytes: u64,
}

#[tokio::test]
async fn thousands_of_lives_leave_nothing() {
    requires_root!();
    let (lives, every) = if is_long() { (times(5000, 60), 100) } else { (times(5000, 60), 10) };
    // Small logs, so that the one that talks is full before the first look.
    let sections = "[containers]\nlog_file_bytes = 65536\nlog_files = 2\n\
                    [rates]\nchanges_per_min = 1000000\nperson_per_min = 1000000\n"
        .to_owned();
    let options = Options { log: Some("warn".to_owned()), sections, ..Default::default() };
    let server = TestServer::with(options).await;
    let anna = server.person("anna", "user").await;
    containers::import(&anna).await;
    let mut neighbours = Vec::new();
    let talks = "while :; do echo something to be kept for a while; usleep 10000; done";
    for (name, script) in [("still", "sleep 100000"), ("talks", talks)] {
        let id = containers::run(&anna, name, script, json!({})).await;
        neighbours.push((containers::identity(&anna, &id).await, id));
    }
    // What is made once is made: connections, thread pools, the heap's arenas.
    crowd(&anna, &neighbours[1].1).await;
    let owner = anna.clone();
    let live = move |number| {
        let owner = owner.clone();
        async move { live(&owner, number).await }
    };
    side_by_side(WORKERS, 0..every, live.clone()).await;
    let mut samples = vec![look(&server, 2, 0).await];
    for first in (0..lives).step_by(every) {
        side_by_side(WORKERS, every + first..2 * every + first, live.clone()).await;
        samples.push(look(&server, 2, first + every).await);
    }
    for (before, id) in &neighbours {
        assert_eq!(containers::identity(&anna, id).await, *before, "a neighbour was hurt");
    }
    let control = format!("{lives} lives, all seen to begin and end");
    compare(&samples, ROWS_PER_LIFE_MAX, &control);
    let warned = server.server_log().lines().count();
    check("warnings of the server", &control).sees(0, warned);
}

/// Has more answered at once than the lives ever ask for, so that every pool is as full as it gets.
async fn crowd(anna: &Client, talks: &str) {
    let paths =
        ["", "/stats", "/logs?tail=1000"].map(|what| format!("/api/v1/containers/{talks}{what}"));
    let ask = |number: usize| {
        let (anna, path) = (anna.clone(), paths[number % paths.len()].clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                anna.get(&path).await.expect_status(200);
            }
        })
    };
    let asking: Vec<_> = (0..CROWD).map(ask).collect();
    for one in asking {
        one.await.expect("all are answered");
    }
}

/// The lives of these numbers, `workers` at a time.
pub(crate) async fn side_by_side<Life>(
    workers: usize,
    numbers: Range<usize>,
    live: impl Fn(usize) -> Life + Clone + Send + 'static,
) where
    Life: Future<Output = ()> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let work = |_| {
        let (live, next) = (live.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let mine = next.fetch_add(1, Ordering::Relaxed);
                if mine >= numbers.end {
                    return;
                }
                live(mine).await;
            }
        })
    };
    let workers: Vec<_> = (0..workers).map(work).collect();
    for worker in workers {
        worker.await.expect("a life went wrong");
    }
}

/// One life; which one follows from its number.
async fn live(anna: &Client, number: usize) {
    let name = format!("life-{number}");
    let path = |id: &str| format!("/api/v1/containers/{id}");
    if number % 50 == 9 {
        return live_on_an_image_of_its_own(anna, number).await;
    }
    let id = match number % 10 {
        3 => {
            let restart = json!({"restart": {"name": "on-failure", "max_attempts": 1}});
            let id = containers::run(anna, &name, "exit 3", restart).await;
            until(anna, &path(&id), |now| now["run"] == 2 && now["status"] == "exited").await;
            id
        }
        5 => {
            let body = json!({"name": name, "image": containers::IMAGE,
                "command": ["there-is-no-such-program"], "start": true});
            let answer = anna.post("/api/v1/containers", &body).await.expect_status(422);
            assert_eq!(answer.code(), "container.program-not-found", "{}", answer.text);
            name
        }
        7 => {
            let id = containers::run(anna, &name, "sleep 1000", json!({})).await;
            let forced = anna.delete(&format!("{}?force=true", path(&id))).await;
            assert_eq!(forced.status, 204, "{}", forced.text);
            return;
        }
        8 => {
            let alone =
                json!({"network": "none", "tmpfs": [{"target": "/tmp", "size_bytes": 65536}]});
            let id = containers::run(anna, &name, "echo alone; sleep 1000", alone).await;
            act(anna, &id, "pause").await.expect_status(200);
            act(anna, &id, "resume").await.expect_status(200);
            act(anna, &id, "kill").await.expect_status(200);
            in_status(anna, &id, "exited").await;
            id
        }
        _ => {
            let script = format!(
                "trap 'exit 0' TERM; echo {number} > /f; echo says {number}; sleep 1000 & wait"
            );
            let id = containers::run(anna, &name, &script, json!({})).await;
            log_with(anna, &id, &format!("says {number}")).await;
            act(anna, &id, "stop").await.expect_status(200);
            id
        }
    };
    let removed = anna.delete(&path(&id)).await;
    assert_eq!(removed.status, 204, "{}", removed.text);
}

async fn live_on_an_image_of_its_own(anna: &Client, number: usize) {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let text = number.to_string();
    let reference = format!("berth/own:{number}");
    let files = [("bin/sh", 0o755, busybox.as_slice()), ("number", 0o644, text.as_bytes())];
    let image = image::import(anna, image::archive(&reference, &files)).await;
    let body = json!({"name": format!("life-{number}"), "image": reference,
        "command": ["/bin/sh", "-c", "read n < /number; echo says $n"], "start": true});
    let made = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let id = made["id"].as_str().expect("an id");
    log_with(anna, id, &format!("says {number}")).await;
    in_status(anna, id, "exited").await;
    anna.delete(&format!("/api/v1/containers/{id}")).await.expect_status(204);
    anna.delete(&format!("/api/v1/images/{image}")).await.expect_status(204);
}

/// A look once everything has come to rest: so many containers are there, and run.
pub(crate) async fn look(server: &TestServer, living: usize, lives: usize) -> Sample {
    let deadline = Instant::now() + Duration::from_secs(30);
    let runs = server.run_dir().join("containers");
    loop {
        let running = std::fs::read_dir(&runs).expect("the runs").count();
        let kept = reality::containers(server).await.len();
        if (running, kept) == (living, living) {
            break;
        }
        assert!(Instant::now() < deadline, "{running} runs and {kept} containers are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let database = server.data_dir().join("db/berth.db");
    let database_bytes = std::fs::metadata(database).map_or(0, |file| file.len());
    let (held, rows) = (footprint::of(server), footprint::rows(server));
    let sample = Sample { lives, held, rows, database_bytes };
    say(&sample);
    sample
}

#[expect(clippy::print_stderr, reason = "a long run shows how it goes")]
fn say(sample: &Sample) {
    let Sample { lives, held, rows, database_bytes } = sample;
    eprintln!("{lives} lives: {held:?} {rows:?} database {database_bytes}");
}

fn check<'a>(variant: &'a str, control: &'a str) -> Check<'a> {
    Check { id: "F15", variant, control }
}

/// That nothing is more in the last tenth of the looks than in the first, but for so many rows a life of what has
/// happened.
pub(crate) fn compare(samples: &[Sample], rows_per_life: u64, control: &str) {
    // Caches of the inventory's connections fill while it grows: the first fifth is for warming up.
    let warm = &samples[samples.len() / 5..];
    let tenth = (warm.len() / 10).max(1);
    let (early, late) = (&warm[..tenth], &warm[warm.len() - tenth..]);
    for name in samples[0].held.keys() {
        let of = |part: &[Sample]| {
            let values = part.iter().map(|sample| sample.held[name]);
            // What is free in the heap goes back every ten seconds: the least is what is held.
            if name.ends_with(": memory") { values.min().unwrap_or(0) } else { median(values) }
        };
        let (before, after) = (of(early), of(late));
        let slack = slack(name, before);
        let verdict = if after <= before + slack {
            "flat".to_owned()
        } else {
            format!("{before} -> {after}")
        };
        self::say_flat(name, before, after);
        check(name, control).sees("flat", verdict);
    }
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    let number = u64::try_from(last.lives).expect("a count");
    for (name, before) in &first.rows {
        let grown = last.rows[name].saturating_sub(*before);
        let most = match HISTORIES.contains(&name.as_str()) {
            true => number * rows_per_life,
            false => 0,
        };
        let verdict = if grown <= most { "bounded".to_owned() } else { format!("{grown} rows") };
        check(&format!("rows of {name}"), control).sees("bounded", verdict);
    }
    let grown = last.database_bytes.saturating_sub(first.database_bytes) / number;
    let verdict =
        if grown <= BYTES_PER_LIFE_MAX { "bounded".to_owned() } else { grown.to_string() };
    check("database: bytes a life", control).sees("bounded", verdict);
}

#[expect(clippy::print_stderr, reason = "the figures behind a verdict")]
fn say_flat(name: &str, before: u64, after: u64) {
    eprintln!("{name}: {before} -> {after}");
}

/// What may differ between the first and the last tenth: five in a hundred. The sample of `tests/run`
/// is taken while allocators and pools still grow.
fn slack(name: &str, before: u64) -> u64 {
    match name {
        _ if name.ends_with(": memory") && !is_long() => before / 2,
        // Blocking threads and idle connections come and go one at a time, which a short run does not
        // average out.
        "server: threads" | "server: descriptors" if !is_long() => 8,
        // The log of the one that talks: not more than this, sooner or later.
        _ if name.ends_with("bytes") => before / 20 + 3 * (64 << 10),
        _ => before / 20,
    }
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}
