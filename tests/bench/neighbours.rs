//! What somebody's work keeps of its speed while another person does their worst, beside the same in docker.
//!
//! The work has one thread: alone it gets one of the processors, which of two is the fair half of the machine.
//! What it does in a second beside the harm is told in percent of what it does alone.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Client, TestServer, programs};
use tokio::task::JoinSet;

use crate::Options;
use crate::peers::Docker;
use crate::table::{Samples, Table};

const IMAGE: &str = "berth/neighbour:1";
const PROGRAM: &str = "/neighbour";
const WORKS: [&str; 5] = ["compute", "memory", "processes", "network", "fsync"];
/// `api` is done from outside.
const HARMS: [&str; 10] =
    ["compute", "memory", "forks", "writes", "fsync", "log", "cache", "files", "network", "api"];
/// Containers of the person who does harm.
const ATTACKERS: usize = 3;
/// Clients of theirs that ask for something all the time.
const ASKERS: usize = 16;
/// A piece of work.
const SECONDS: &str = "1";
/// The harm has begun.
const SETTLED: Duration = Duration::from_secs(2);
/// What nobody asks for more than so often counts.
const ROUNDS_MAX: usize = 3;
/// Questions, of whose times the middle one counts.
const QUESTIONS: usize = 15;

/// Somebody who works beside others.
trait Side {
    /// Does a piece of work; how often a second.
    async fn work(&self, kind: &str) -> f64;
    /// Has the others begin.
    async fn begin(&mut self, harm: &str);
    /// Has them end, and what they have left go.
    async fn end(&mut self);
    /// How long a list of what one has takes.
    async fn ask(&self) -> Duration;
}

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/neighbour.c");
    let program = programs::compile(&source, &["-static", "-O2", "-Wall"]);
    let archive = system_tests::image::archive(IMAGE, &[("neighbour", 0o755, &program)]);
    let rounds = options.rounds.min(ROUNDS_MAX);
    let berth = of(&mut Ours::start(&archive).await, rounds).await;
    let theirs = match options.peers {
        true => match Theirs::start(&archive).await {
            Some(mut docker) => Some(of(&mut docker, rounds).await),
            None => None,
        },
        false => None,
    };
    for (number, (what, samples)) in berth.iter().enumerate() {
        match &theirs {
            Some(theirs) => table.beside(what, samples, "docker", &theirs[number].1),
            None => table.alone(what, samples),
        }
    }
    table.note(
        "neighbours: percent of what the same work of one thread does alone; three containers of one other \
         person, or of docker, do harm with default limits; lists over the API in milliseconds",
    );
}

/// All works beside all harms.
async fn of(side: &mut impl Side, rounds: usize) -> Vec<(String, Samples)> {
    let mut alone = Vec::new();
    for work in WORKS {
        let mut samples = Samples::new("a second");
        for _ in 0..rounds {
            samples.add(side.work(work).await);
        }
        alone.push(samples.median());
    }
    let mut all = vec![("a list, alone".to_owned(), asked(side, rounds).await)];
    for harm in HARMS {
        side.begin(harm).await;
        tokio::time::sleep(SETTLED).await;
        for (work, alone) in WORKS.into_iter().zip(&alone) {
            let mut samples = Samples::new("%");
            for _ in 0..rounds {
                samples.add(100.0 * side.work(work).await / alone);
            }
            all.push((format!("{work} beside {harm}"), samples));
        }
        all.push((format!("a list beside {harm}"), asked(side, rounds).await));
        side.end().await;
    }
    all
}

async fn asked(side: &impl Side, rounds: usize) -> Samples {
    let mut samples = Samples::new("ms");
    for _ in 0..rounds * QUESTIONS {
        samples.add_time(side.ask().await);
    }
    samples
}

fn rate(text: &str) -> f64 {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is no rate"))
}

/// Asks the same all the time, until the set is dropped.
fn flood(client: &Client, path: &'static str) -> JoinSet<()> {
    let mut askers = JoinSet::new();
    for _ in 0..ASKERS {
        let client = client.clone();
        askers.spawn(async move {
            loop {
                client.get(path).await;
            }
        });
    }
    askers
}

/// Two people of Berth's.
struct Ours {
    _server: TestServer,
    anna: Client,
    mallory: Client,
    id: String,
    harm: Vec<String>,
    askers: Option<JoinSet<()>>,
}

impl Ours {
    async fn start(archive: &[u8]) -> Self {
        let server = TestServer::start().await;
        let anna = server.person("anna", "user").await.token("operate").await;
        let mallory = server.person("mallory", "user").await.token("operate").await;
        for person in [&anna, &mallory] {
            system_tests::image::import(person, archive.to_vec()).await;
        }
        let id = run(&anna, &["wait"]).await;
        Self { _server: server, anna, mallory, id, harm: Vec::new(), askers: None }
    }
}

async fn run(person: &Client, words: &[&str]) -> String {
    let command: Vec<&str> = [PROGRAM].iter().chain(words).copied().collect();
    let body = json!({"image": IMAGE, "command": command, "stop_signal": "KILL", "start": true});
    let made = person.post("/api/v1/containers", &body).await.expect_status(201).json();
    made["id"].as_str().expect("an id").to_owned()
}

impl Side for Ours {
    async fn work(&self, kind: &str) -> f64 {
        let body = json!({"program": {"command": [PROGRAM, "work", kind, SECONDS]}});
        let path = format!("/api/v1/containers/{}/exec", self.id);
        let answer = self.anna.post(&path, &body).await.expect_status(200).json();
        rate(answer["stdout"].as_str().unwrap_or_default())
    }

    async fn begin(&mut self, harm: &str) {
        if harm == "api" {
            self.askers = Some(flood(&self.mallory, "/api/v1/containers"));
            return;
        }
        for _ in 0..ATTACKERS {
            self.harm.push(run(&self.mallory, &["harm", harm]).await);
        }
    }

    async fn end(&mut self) {
        self.askers = None;
        for id in self.harm.drain(..) {
            let path = format!("/api/v1/containers/{id}");
            self.mallory.post(&format!("{path}/kill"), &Value::Null).await;
            let deadline = Instant::now() + Duration::from_secs(60);
            while self.mallory.delete(&path).await.status != 204 {
                assert!(Instant::now() < deadline, "{id} is not removed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn ask(&self) -> Duration {
        let begun = Instant::now();
        self.anna.get("/api/v1/containers").await.expect_status(200);
        begun.elapsed()
    }
}

/// The same with docker, which has no people.
struct Theirs {
    docker: Docker,
    harm: usize,
    askers: Option<JoinSet<()>>,
}

impl Theirs {
    async fn start(archive: &[u8]) -> Option<Self> {
        let docker = Docker::start().await?;
        let request = docker.client.request("POST", "/images/load").body(archive.to_vec());
        system_tests::client::send(request).await.expect_status(200);
        docker.run_of(IMAGE, "anna", &[PROGRAM, "wait"]).await;
        Some(Self { docker, harm: 0, askers: None })
    }
}

impl Side for Theirs {
    async fn work(&self, kind: &str) -> f64 {
        let socket = format!("unix://{}/docker.sock", self.docker.directory());
        let done = tokio::process::Command::from(Command::new("docker"))
            .args(["--host", &socket, "exec", "anna", PROGRAM, "work", kind, SECONDS])
            .output()
            .await
            .expect("docker's client runs");
        rate(&String::from_utf8_lossy(&done.stdout))
    }

    async fn begin(&mut self, harm: &str) {
        if harm == "api" {
            self.askers = Some(flood(&self.docker.client, "/containers/json?all=1"));
            return;
        }
        for number in 0..ATTACKERS {
            let name = format!("harm-{number}");
            self.docker.run_of(IMAGE, &name, &[PROGRAM, "harm", harm]).await;
        }
        self.harm = ATTACKERS;
    }

    async fn end(&mut self) {
        self.askers = None;
        for number in 0..std::mem::take(&mut self.harm) {
            self.docker.remove(&format!("harm-{number}")).await;
        }
    }

    async fn ask(&self) -> Duration {
        let begun = Instant::now();
        self.docker.client.get("/containers/json?all=1").await.expect_status(200);
        begun.elapsed()
    }
}
