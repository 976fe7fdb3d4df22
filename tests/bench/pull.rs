//! Pull of one image from one registry on loopback: cold, and when all layers but one are there.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Client, TestServer};

use crate::image::{self, Pushed};
use crate::peers::{Docker, Podman, REGISTRY, Registry};
use crate::table::{Samples, Table};
use crate::{Options, say};

const LIMIT: Duration = Duration::from_secs(300);
/// How often an operation is asked for.
const PAUSE: Duration = Duration::from_millis(5);

/// Cold and shared.
struct Pulls {
    cold: Samples,
    shared: Samples,
    /// Until all of it is on disk, for those that do not see to that themselves.
    synced: Samples,
}

impl Pulls {
    fn new() -> Self {
        let none = || Samples::new("s");
        Self { cold: none(), shared: none(), synced: none() }
    }
}

/// An instance that may pull from the bench's registry.
pub(crate) async fn instance() -> (TestServer, Client) {
    let sections = format!("[registries]\ninsecure = [\"{REGISTRY}\"]\n");
    let options = system_tests::Options { sections, ..system_tests::Options::default() };
    let server = TestServer::with(options).await;
    let owner = server.person("anna", "user").await.token("operate").await;
    (server, owner)
}

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    let Some(_registry) = Registry::start().await else {
        table.note("left out: pulls (no docker-registry here)");
        return;
    };
    say("  making the image");
    let pushed = image::push(options.image_mb);
    let [mut ours, mut dockers, mut podmans] = [Pulls::new(), Pulls::new(), Pulls::new()];
    let peers = options.peers;
    // Each turn begins with an empty store of its own, and all are kept until the end: ext4 gives inodes
    // that were freed in the last minutes out again only after a search that costs more than the pull.
    let mut used = Used::default();
    for _ in 0..options.rounds.div_ceil(4) {
        used.berth.push(of_berth(&mut ours, &pushed).await);
        let docker = if peers { of_docker(&mut dockers, &pushed).await } else { None };
        used.docker.extend(docker);
        used.podman.extend(if peers { of_podman(&mut podmans, &pushed) } else { None });
    }
    let there = [
        ("docker pull", !used.docker.is_empty(), &dockers),
        ("podman pull", !used.podman.is_empty(), &podmans),
    ];
    for (name, there, theirs) in there {
        if !there {
            table.note(&format!("left out: {name}"));
            continue;
        }
        table.beside("pull, cold", &ours.cold, name, &theirs.cold);
        table.beside("pull, cold", &ours.cold, &format!("{name}, on disk"), &theirs.synced);
        table.beside("pull, 4 of 5 layers here", &ours.shared, name, &theirs.shared);
    }
    if used.docker.is_empty() && used.podman.is_empty() {
        table.alone("pull, cold", &ours.cold);
        table.alone("pull, 4 of 5 layers here", &ours.shared);
    }
    table.note(&format!(
        "pull: {}, from docker-registry on loopback, the registry's files in memory, each into an empty \
         store; sync(2) before each. Berth answers when all of it is on disk; docker and podman do not \
         wait for that, so a second row adds the sync they leave out. docker inflates with unpigz, as \
         it does where pigz is installed",
        pushed.size
    ));
}

/// Stores that were pulled into.
#[derive(Default)]
struct Used {
    berth: Vec<TestServer>,
    docker: Vec<Docker>,
    podman: Vec<Podman>,
}

async fn of_berth(pulls: &mut Pulls, pushed: &Pushed) -> TestServer {
    let (server, owner) = instance().await;
    sync();
    pulls.cold.add(pull(&owner, &pushed.first).await.as_secs_f64());
    sync();
    pulls.shared.add(pull(&owner, &pushed.second).await.as_secs_f64());
    server
}

async fn of_docker(pulls: &mut Pulls, pushed: &Pushed) -> Option<Docker> {
    let docker = Docker::start().await?;
    sync();
    let begun = Instant::now();
    docker.pull(&pushed.first).await;
    pulls.cold.add(begun.elapsed().as_secs_f64());
    sync();
    pulls.synced.add(begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    docker.pull(&pushed.second).await;
    pulls.shared.add(begun.elapsed().as_secs_f64());
    docker.rest().await;
    Some(docker)
}

fn of_podman(pulls: &mut Pulls, pushed: &Pushed) -> Option<Podman> {
    let podman = Podman::new()?;
    sync();
    let begun = Instant::now();
    podman.pull(&pushed.first);
    pulls.cold.add(begun.elapsed().as_secs_f64());
    sync();
    pulls.synced.add(begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    podman.pull(&pushed.second);
    pulls.shared.add(begun.elapsed().as_secs_f64());
    Some(podman)
}

/// Nobody's turn pays for what another has written.
fn sync() {
    nix::unistd::sync();
}

/// Pulls; how long until the image is listed.
pub(crate) async fn pull(owner: &Client, reference: &str) -> Duration {
    let begun = Instant::now();
    let body = json!({"reference": reference});
    let operation = owner.post("/api/v1/images/pull", &body).await.expect_status(202).json();
    let path = format!("/api/v1/operations/{}", operation["id"].as_str().expect("an id"));
    loop {
        let operation = owner.get(&path).await.expect_status(200).json();
        match operation["state"].as_str() {
            Some("succeeded") => return begun.elapsed(),
            Some("running") => {}
            _ => panic!("the pull failed: {operation}"),
        }
        assert!(begun.elapsed() < LIMIT, "{operation}");
        tokio::time::sleep(PAUSE).await;
    }
}
