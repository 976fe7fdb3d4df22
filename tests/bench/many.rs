//! Five hundred containers that run at once: how long they take to start, what each costs, and how soon
//! they are listed and measured.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Client, Options as Instance};

use crate::Options;
use crate::lifecycle::instance;
use crate::memory::{children_of, held};
use crate::peers::{IMAGE, PROGRAM, busybox_archive};
use crate::table::{Samples, Table};

/// Containers of the person whose subnet holds them; the others' have no network.
const WITH_NETWORK: usize = 200;
/// Containers of each of the others.
const WITHOUT: usize = 150;
/// Requests at once.
const AT_ONCE: usize = 5;
/// As long as anything may take that is waited for.
const SETTLED: Duration = Duration::from_secs(10);

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    let sections = "[containers]\nper_person_max = 1000\n\n[rates]\ncostly_per_min = 1000000\n\
                    changes_per_min = 1000000\nperson_per_min = 1000000\n";
    let settings =
        Instance { one_subnet: true, sections: sections.to_owned(), ..Instance::default() };
    let (server, first) = instance(settings).await;
    let mut others = Vec::new();
    for name in ["bob", "carol"] {
        let person = server.person(name, "user").await.token("operate").await;
        system_tests::image::import(&person, busybox_archive()).await;
        others.push(person);
    }
    let each = start(&first, WITH_NETWORK, "private").await;
    table.alone(&format!("{WITH_NETWORK} started with a network, {AT_ONCE} at once: each"), &each);
    let mut bare = Samples::new("ms");
    for person in &others {
        bare.extend(start(person, WITHOUT, "none").await);
    }
    let count = others.len() * WITHOUT;
    table.alone(&format!("{count} more without: each"), &bare);
    tokio::time::sleep(SETTLED).await;
    let all = WITH_NETWORK + count;
    let server_pid = server.server_pid().expect("the server runs");
    let supervisor_pid = server.supervisor_pid().expect("the supervisor runs");
    let mib = |kib: f64| Samples::one("MiB", kib / 1024.0);
    for (name, pid) in [("server", server_pid), ("supervisor", supervisor_pid)] {
        table.alone(&format!("{name} with {all} running: resident"), &mib(held(pid).resident));
    }
    let monitors = children_of(supervisor_pid, "berth-runtime");
    assert_eq!(monitors.len(), all, "one monitor per container");
    let mut private = Samples::new("KiB");
    monitors.into_iter().map(held).for_each(|held| private.add(held.private));
    table.alone(&format!("monitor with {all} running: private, each"), &private);
    let (mut list, mut stats) = (Samples::new("ms"), Samples::new("ms"));
    let shown = first.get("/api/v1/containers?limit=100").await.expect_status(200).json();
    let id = shown["items"][0]["id"].as_str().expect("an id").to_owned();
    for _ in 0..options.rounds {
        let begun = Instant::now();
        first.get("/api/v1/containers?limit=100").await.expect_status(200);
        list.add_time(begun.elapsed());
        let begun = Instant::now();
        first.get(&format!("/api/v1/containers/{id}/stats")).await.expect_status(200);
        stats.add_time(begun.elapsed());
    }
    table.alone(&format!("a list of 100, with {all} running"), &list);
    table.alone(&format!("one's figures, with {all} running"), &stats);
}

/// Starts containers, a few at once; how long each took from request to answer.
async fn start(person: &Client, count: usize, network: &str) -> Samples {
    let body = json!({"image": IMAGE, "command": PROGRAM, "start": true, "stop_signal": "KILL",
        "network": network});
    let one = async || {
        let begun = Instant::now();
        let made = person.post("/api/v1/containers", &body).await.expect_status(201).json();
        assert_eq!(made["status"], "running", "{made}");
        begun.elapsed()
    };
    let several = async |count: usize| {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(one().await);
        }
        times
    };
    let shares = (0..AT_ONCE).map(|_| several(count / AT_ONCE));
    let mut samples = Samples::new("ms");
    for times in futures_util::future::join_all(shares).await {
        times.into_iter().for_each(|time| samples.add_time(time));
    }
    samples
}
