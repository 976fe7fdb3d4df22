//! Memory with a hundred containers that run, from `/proc/<pid>/smaps_rollup`.

use std::fs;

use serde_json::json;

use crate::Options;
use crate::lifecycle::instance;
use crate::peers::{Docker, IMAGE, PROGRAM};
use crate::table::{Samples, Table};

/// Containers that run.
const CONTAINERS: usize = 100;

/// What one process holds, in KiB.
pub(crate) struct Held {
    pub(crate) resident: f64,
    pub(crate) private: f64,
}

pub(crate) async fn measure(options: &Options, table: &mut Table) {
    // A person's subnet must hold them all, and the test instances' is small.
    let options_of_ours = system_tests::Options { one_subnet: true, ..Default::default() };
    let (server, owner) = instance(options_of_ours).await;
    for _ in 0..CONTAINERS {
        let body =
            json!({"image": IMAGE, "command": PROGRAM, "start": true, "stop_signal": "KILL"});
        owner.post("/api/v1/containers", &body).await.expect_status(201);
    }
    // What a moment's work took is given back by then, or never.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let server_pid = server.server_pid().expect("the server runs");
    let supervisor_pid = server.supervisor_pid().expect("the supervisor runs");
    let ours = [held(server_pid), held(supervisor_pid)];
    let monitors: Vec<Held> =
        children_of(supervisor_pid, "berth-runtime").into_iter().map(held).collect();
    assert_eq!(monitors.len(), CONTAINERS, "one monitor per container");
    let mib = |kib: f64| Samples::one("MiB", kib / 1024.0);
    for (name, held) in ["server", "supervisor"].iter().zip(&ours) {
        table.alone(&format!("{name}: resident"), &mib(held.resident));
        table.alone(&format!("{name}: private"), &mib(held.private));
    }
    let each = |of: fn(&Held) -> f64| {
        let mut samples = Samples::new("KiB");
        monitors.iter().map(of).for_each(|kib| samples.add(kib));
        samples
    };
    let both: f64 = ours.iter().map(|held| held.resident).sum();
    let private = each(|held| held.private);
    let all: f64 = ours.iter().chain(&monitors).map(|held| held.private).sum();
    table.alone("monitor: resident, each", &each(|held| held.resident));
    let docker = if options.peers { docker(table).await } else { None };
    let Some((daemons, shims)) = docker else {
        table.alone("monitor: private, each", &private);
        table.alone("server + supervisor: resident", &mib(both));
        table.alone("all private memory", &mib(all));
        return;
    };
    let mut each_shim = Samples::new("KiB");
    shims.iter().for_each(|held| each_shim.add(held.private));
    table.beside("monitor: private, each", &private, "containerd-shim", &each_shim);
    let resident: f64 = daemons.iter().map(|held| held.resident).sum();
    let peer = "dockerd + containerd";
    table.beside("server + supervisor: resident", &mib(both), peer, &mib(resident));
    let theirs: f64 = daemons.iter().chain(&shims).map(|held| held.private).sum();
    table.beside("all private memory", &mib(all), "docker's", &mib(theirs));
    table.note(&format!(
        "memory: {CONTAINERS} containers running, ten seconds after the last start, from smaps_rollup; \
         of each side the programs only, not the containers"
    ));
}

/// The daemons and the shims of as many containers.
async fn docker(table: &mut Table) -> Option<(Vec<Held>, Vec<Held>)> {
    let Some(docker) = Docker::start().await else {
        table.note("left out: docker's memory");
        return None;
    };
    docker.load_image().await;
    for number in 0..CONTAINERS {
        docker.run(&format!("bench-{number}"), "bridge").await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let daemons: Vec<Held> = docker.processes().into_iter().map(held).collect();
    let ours = docker.directory();
    let shims = every("containerd-shim", |command| command.contains(&ours)).into_iter().map(held);
    let shims: Vec<Held> = shims.collect();
    for number in 0..CONTAINERS {
        docker.remove(&format!("bench-{number}")).await;
    }
    Some((daemons, shims))
}

pub(crate) fn held(pid: u32) -> Held {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        let value =
            value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{path} has no {name}"))
    };
    Held { resident: field("Rss:"), private: field("Private_Clean:") + field("Private_Dirty:") }
}

/// The living children of `parent` that are called `name`.
pub(crate) fn children_of(parent: u32, name: &str) -> Vec<u32> {
    let is_child = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        fields.split(' ').nth(1).and_then(|text| text.parse().ok()) == Some(parent)
    };
    every(name, |_| true).into_iter().filter(|pid| is_child(*pid)).collect()
}

/// Processes whose command line begins with a program called `name` and is `wanted`.
fn every(name: &str, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|text| text.parse::<u32>().ok()) else {
            continue;
        };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let program = command.split(' ').next().unwrap_or_default();
        if program.rsplit('/').next().is_some_and(|last| last.starts_with(name)) && wanted(&command)
        {
            found.push(pid);
        }
    }
    found
}
