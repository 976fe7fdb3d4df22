//! Create and start, stop, remove: over the API, with a network and without, beside docker's API and
//! bare crun.

use std::time::Instant;

use serde_json::{Value, json};
use system_tests::{Client, TestServer};

use crate::Options;
use crate::peers::{Crun, Docker, IMAGE, PROGRAM, busybox_archive};
use crate::table::{Samples, Table};

/// The three acts of one contender.
struct Acts {
    run: Samples,
    stop: Samples,
    remove: Samples,
}

impl Acts {
    fn new() -> Self {
        let none = || Samples::new("ms");
        Self { run: none(), stop: none(), remove: none() }
    }

    /// Berth's turn.
    async fn of_berth(&mut self, owner: &Client, network: &str) {
        let body = json!({"image": IMAGE, "command": PROGRAM, "network": network,
            "stop_signal": "KILL", "start": true});
        let begun = Instant::now();
        let made = owner.post("/api/v1/containers", &body).await;
        self.run.add_time(begun.elapsed());
        let made = made.expect_status(201).json();
        assert_eq!(made["status"], "running", "{made}");
        let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
        let begun = Instant::now();
        let stopped = owner.post(&format!("{path}/stop"), &Value::Null).await;
        self.stop.add_time(begun.elapsed());
        stopped.expect_status(200);
        let begun = Instant::now();
        let removed = owner.delete(&path).await;
        self.remove.add_time(begun.elapsed());
        removed.expect_status(204);
    }

    /// Docker's turn.
    async fn of_docker(&mut self, docker: &Docker, network: &str) {
        let name = format!("bench-{network}");
        let begun = Instant::now();
        docker.run(&name, network).await;
        self.run.add_time(begun.elapsed());
        let begun = Instant::now();
        docker.stop(&name).await;
        self.stop.add_time(begun.elapsed());
        let begun = Instant::now();
        docker.remove(&name).await;
        self.remove.add_time(begun.elapsed());
    }
}

/// Bare crun's figures.
struct Bare {
    whole: Samples,
    started: Samples,
}

/// An instance with a person who has the image of the measured program.
pub(crate) async fn instance(options: system_tests::Options) -> (TestServer, Client) {
    let server = TestServer::with(options).await;
    let owner = server.person("anna", "user").await.token("operate").await;
    system_tests::image::import(&owner, busybox_archive()).await;
    (server, owner)
}

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    let (_server, owner) = instance(system_tests::Options::default()).await;
    let (_other, first) = instance(system_tests::Options::default()).await;
    // The common case: the person has something running, so their bridge and the rules are there, as
    // docker's always are. The other person's container is each time the only one of all.
    let body = json!({"image": IMAGE, "command": PROGRAM, "stop_signal": "KILL", "start": true});
    owner.post("/api/v1/containers", &body).await.expect_status(201);
    let docker = if options.peers { Docker::start().await } else { None };
    if let Some(docker) = &docker {
        docker.load_image().await;
    }
    let mut whole = options.peers.then(|| Crun::new(&["/bin/busybox", "true"])).flatten();
    let mut waiting = options.peers.then(|| Crun::new(&PROGRAM)).flatten();
    let mut berth = [Acts::new(), Acts::new()];
    let mut alone = Acts::new();
    let mut theirs = [Acts::new(), Acts::new()];
    let mut bare = Bare { whole: Samples::new("ms"), started: Samples::new("ms") };
    // The first round warms every cache and does not count.
    for round in 0..=options.rounds {
        if round == 1 {
            berth = [Acts::new(), Acts::new()];
            alone = Acts::new();
            theirs = [Acts::new(), Acts::new()];
            bare = Bare { whole: Samples::new("ms"), started: Samples::new("ms") };
        }
        berth[0].of_berth(&owner, "private").await;
        crun(&mut bare, whole.as_mut(), waiting.as_mut(), round);
        berth[1].of_berth(&owner, "none").await;
        alone.of_berth(&first, "private").await;
        if let Some(docker) = &docker {
            theirs[0].of_docker(docker, "bridge").await;
            theirs[1].of_docker(docker, "none").await;
        }
    }
    let names = [("network", "bridge"), ("no network", "none")];
    for ((berth, theirs), (name, network)) in berth.iter().zip(&theirs).zip(names) {
        let run = format!("create+start, {name}");
        if whole.is_some() {
            table.beside(&run, &berth.run, "crun run (true)", &bare.whole);
            table.beside(&run, &berth.run, "crun create+start", &bare.started);
        } else {
            table.alone(&run, &berth.run);
        }
        if docker.is_some() {
            let peer = format!("docker API, {network}");
            table.beside(&run, &berth.run, &peer, &theirs.run);
            table.beside(&format!("stop, {name}"), &berth.stop, &peer, &theirs.stop);
            table.beside(&format!("remove, {name}"), &berth.remove, &peer, &theirs.remove);
        } else {
            table.alone(&format!("stop, {name}"), &berth.stop);
            table.alone(&format!("remove, {name}"), &berth.remove);
        }
    }
    table.alone("create+start, network, the only container of all", &alone.run);
    table.alone("remove, network, the only container of all", &alone.remove);
    notes(options, table, docker.is_some(), whole.is_some());
}

/// Bare crun's turn.
fn crun(bare: &mut Bare, whole: Option<&mut Crun>, waiting: Option<&mut Crun>, round: usize) {
    if let Some(crun) = whole {
        bare.whole.add_time(crun.timed(&format!("crun run bench-w{round}")));
    }
    if let Some(crun) = waiting {
        let name = format!("bench-s{round}");
        let begun = crun.timed(&format!("crun create {name} && crun start {name}"));
        bare.started.add_time(begun);
        crun.timed(&format!("crun delete --force {name}"));
    }
}

fn notes(options: &Options, table: &mut Table, docker: bool, crun: bool) {
    table.note(
        "create+start: one request to Berth, two to docker, each answered when the program runs; the \
         program is `busybox sleep`, its stop signal KILL, so that stop measures the engine and not \
         the program's farewell",
    );
    if crun {
        table.note(
            "crun run: crun's own default configuration (no user namespace, no seccomp filter, no \
             limits, no address) over a plain directory with the same busybox, `true` from start to \
             end, cgroups as the host has them (see `Crun` in tests/bench/peers.rs)",
        );
    }
    if options.peers && !docker {
        table.note("left out: docker (no dockerd here)");
    }
    if options.peers && !crun {
        table.note("left out: crun (it is not here, or wrote no configuration)");
    }
}
