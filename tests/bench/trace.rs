//! One create+start and one pull, phase by phase, beside what the machine itself takes for the same.
//!
//! The phases are what the shipped programs say when they are asked (`server.log` with
//! `berth::timing=debug`, `[runtime] timing`); the limits are measured here, in turns with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use serde_json::json;
use sha2::{Digest, Sha256};
use system_tests::TestServer;

use crate::image::{self, Pushed};
use crate::lifecycle::instance;
use crate::peers::{IMAGE, PROGRAM, REGISTRY, Registry, Scratch};
use crate::pull::pull;
use crate::table::Samples;
use crate::{Options, say};

/// Programs that make the namespaces of a container and nothing else.
const NAMESPACES: [&str; 10] = [
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--net",
    "--ipc",
    "--uts",
    "--cgroup",
    "--time",
];

/// The two tables.
pub(crate) async fn report(options: &Options) -> String {
    let mut text = start(options).await;
    if let Some(_registry) = Registry::start().await {
        text += &pulled(options).await;
    }
    text
}

fn talkative(sections: String) -> system_tests::Options {
    system_tests::Options {
        log: Some("info,berth::timing=debug".to_owned()),
        runtime: "timing = true".to_owned(),
        sections,
        ..system_tests::Options::default()
    }
}

/// One row: whose phase, which, and how long, summed over a piece of work.
type Phase = (String, String);

/// What logs say of the phases since `from`; summed by work and phase, in order of appearance.
struct Said {
    order: Vec<Phase>,
    sums: BTreeMap<Phase, f64>,
}

impl Said {
    fn read(server: &TestServer, from: &mut [usize; 2]) -> Self {
        let mut this = Self { order: Vec::new(), sums: BTreeMap::new() };
        for (name, from) in ["server.log", "supervisor.log"].iter().zip(from) {
            let text = fs::read_to_string(server.dir.join(name)).unwrap_or_default();
            for line in text[*from..].lines() {
                let Some((_, said)) = line.split_once("timing: ") else { continue };
                let mut words = said.splitn(4, ' ');
                let (Some(process), Some(_), Some(micros), Some(phase)) =
                    (words.next(), words.next(), words.next(), words.next())
                else {
                    continue;
                };
                let key = (process.to_owned(), phase.to_owned());
                let micros: f64 = micros.parse().unwrap_or(f64::NAN);
                if !this.sums.contains_key(&key) {
                    this.order.push(key.clone());
                }
                *this.sums.entry(key).or_default() += micros / 1000.0;
            }
            *from = text.len();
        }
        this
    }
}

/// Medians of several pieces of work, in the order of the first.
#[derive(Default)]
struct Phases {
    order: Vec<Phase>,
    samples: BTreeMap<Phase, Samples>,
}

impl Phases {
    fn add(&mut self, said: Said) {
        for key in said.order {
            if !self.samples.contains_key(&key) {
                self.order.push(key.clone());
            }
            let sum = said.sums[&key];
            self.samples.entry(key).or_insert_with(|| Samples::new("ms")).add(sum);
        }
    }

    fn write(&self, out: &mut String) {
        for key in &self.order {
            // Writing into a String cannot fail.
            writeln!(out, "| {} | {} | {} |", key.0, key.1, self.samples[key]).ok();
        }
    }
}

async fn start(options: &Options) -> String {
    say("  tracing create+start");
    let (server, owner) = instance(talkative(String::new())).await;
    let body = json!({"image": IMAGE, "command": PROGRAM, "stop_signal": "KILL", "start": true});
    owner.post("/api/v1/containers", &body).await.expect_status(201);
    let mut from = [0; 2];
    Said::read(&server, &mut from);
    let mut phases = Phases::default();
    let (mut whole, mut spaces) = (Samples::new("ms"), Samples::new("ms"));
    for _ in 0..options.rounds {
        let begun = Instant::now();
        let made = owner.post("/api/v1/containers", &body).await;
        whole.add_time(begun.elapsed());
        let made = made.expect_status(201).json();
        phases.add(Said::read(&server, &mut from));
        let path = format!("/api/v1/containers/{}?force=true", made["id"].as_str().expect("an id"));
        owner.delete(&path).await.expect_status(204);
        Said::read(&server, &mut from);
        let alone = timed(Command::new("true"));
        let made = timed(Command::new("unshare").args(NAMESPACES).arg("true"));
        spaces.add((made.as_secs_f64() - alone.as_secs_f64()) * 1000.0);
    }
    let mut text = String::from("\ncreate+start with a network, another container running\n\n");
    text += "| process | phase | median (10th–90th) |\n|---|---|---|\n";
    phases.write(&mut text);
    writeln!(text, "| client | the whole request, as the client sees it | {whole} |").ok();
    writeln!(text, "| limit | unshare(1) with the same namespaces, less true(1) | {spaces} |").ok();
    text
}

async fn pulled(options: &Options) -> String {
    say("  tracing pulls");
    let pushed = image::push(options.image_mb);
    let mut phases = Phases::default();
    let mut whole = Samples::new("ms");
    let mut limits = Limits::new();
    let mut used = Vec::new();
    for _ in 0..options.rounds.div_ceil(4) {
        let sections = format!("[registries]\ninsecure = [\"{REGISTRY}\"]\n");
        let server = TestServer::with(talkative(sections)).await;
        let owner = server.person("anna", "user").await.token("operate").await;
        nix::unistd::sync();
        whole.add_time(pull(&owner, &pushed.first).await);
        phases.add(Said::read(&server, &mut [0; 2]));
        used.push(server);
        limits.measure(&pushed);
    }
    let mut text =
        String::from("\npull, cold; of what runs for each layer, the sum over the layers\n\n");
    text += "| process | phase | median (10th–90th) |\n|---|---|---|\n";
    phases.write(&mut text);
    writeln!(text, "| client | the whole pull, as the client sees it | {whole} |").ok();
    limits.write(&mut text);
    text
}

/// What one core and the disk take for the same bytes.
struct Limits {
    hash: Samples,
    inflate: Samples,
    hash_inflated: Samples,
    write: Samples,
    sync: Samples,
}

impl Limits {
    fn new() -> Self {
        let none = || Samples::new("ms");
        Self { hash: none(), inflate: none(), hash_inflated: none(), write: none(), sync: none() }
    }

    fn measure(&mut self, pushed: &Pushed) {
        let scratch = Scratch::new("limits");
        let mut sums = [Duration::ZERO; 5];
        for (number, blob) in pushed.blobs.iter().enumerate() {
            let packed = fs::read(blob).expect("read a blob");
            sums[0] += took(|| hash(&packed));
            let mut plain = Vec::new();
            sums[1] += took(|| {
                GzDecoder::new(&packed[..]).read_to_end(&mut plain).expect("it is gzip");
            });
            sums[2] += took(|| hash(&plain));
            let into = scratch.0.join(number.to_string());
            fs::create_dir(&into).expect("a directory");
            sums[3] += took(|| untar(&plain, &into));
        }
        let top = File::open(&scratch.0).expect("the directory");
        sums[4] += took(|| nix::unistd::syncfs(&top).expect("sync"));
        let all = [
            &mut self.hash,
            &mut self.inflate,
            &mut self.hash_inflated,
            &mut self.write,
            &mut self.sync,
        ];
        for (samples, sum) in all.into_iter().zip(sums) {
            samples.add_time(sum);
        }
    }

    fn write(&self, out: &mut String) {
        for (what, samples) in [
            ("sha256 of the blobs in memory", &self.hash),
            ("gunzip of the blobs in memory", &self.inflate),
            ("sha256 of the archives in memory", &self.hash_inflated),
            ("tar(1) of the archives in memory into files", &self.write),
            ("syncfs(2) after it", &self.sync),
        ] {
            writeln!(out, "| limit, one core | {what} | {samples} |").ok();
        }
    }
}

fn took(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn timed(command: impl std::borrow::BorrowMut<Command>) -> Duration {
    let mut command = command;
    let command = command.borrow_mut();
    took(|| {
        let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("the program is there").success(), "{command:?}");
    })
}

fn hash(bytes: &[u8]) {
    std::hint::black_box(Sha256::digest(bytes));
}

fn untar(archive: &[u8], into: &Path) {
    let mut tar = Command::new("tar")
        .args(["--extract", "--directory"])
        .arg(into)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start tar");
    tar.stdin.take().expect("a pipe").write_all(archive).expect("tar reads");
    assert!(tar.wait().expect("tar ends").success(), "tar failed");
}
