//! F02 and F03 from the runtime's side: nothing that is killed takes a container along but its monitor,
//! and no process is taken for another.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use system_tests::requires_root;
use system_tests::supervisor::{PERSON, Supervisor, id};

/// Containers that live through the kills; CI's machine has two cores.
const CONTAINERS: usize = 20;

fn start_time(pid: i64) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, fields) = stat.rsplit_once(')').expect("a stat line has a name");
    fields.split_whitespace().nth(19).expect("a stat line has 22 fields").to_owned()
}

fn live(berth: &Supervisor, name: &str) -> (i64, String) {
    let state = berth.state(&id(name));
    let pid = state["live"]["pid"].as_i64().unwrap_or_else(|| panic!("{name} lives: {state}"));
    (pid, start_time(pid))
}

#[test]
fn containers_live_through_kills_of_the_supervisor() {
    requires_root!();
    let mut berth = Supervisor::start();
    let counting = "n=0; while [ $n -lt 100000 ]; do echo $n; n=$((n+1)); sleep 0.02; done";
    for number in 0..CONTAINERS {
        berth.run(&number.to_string(), &["sh", "-c", counting]);
    }
    let ends_soon = berth.run("ends", &["sh", "-c", "sleep 1; exit 42"]).container;
    let before: BTreeMap<_, _> =
        (0..CONTAINERS).map(|n| (n, live(&berth, &n.to_string()))).collect();
    for _ in 0..5 {
        berth.kill();
        berth.launch();
    }
    let after: BTreeMap<_, _> =
        (0..CONTAINERS).map(|n| (n, live(&berth, &n.to_string()))).collect();
    assert_eq!(before, after);
    let exit = berth.wait_state(&ends_soon, "an exit code", |state| state["exit"].is_object());
    assert_eq!(exit["exit"]["code"], 42, "{exit}");
    let log = berth.container_log(&id("0"));
    let lines: Vec<_> = log.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    let expected: Vec<_> = (0..lines.len()).map(|number| number.to_string()).collect();
    assert_eq!(lines, expected, "the log has no gap");
    for number in 0..CONTAINERS {
        let container = id(&number.to_string());
        berth.call(&json!({"op": "container_kill", "container": container}));
        let killed = |state: &Value| state["exit"]["cause"] == "killed";
        berth.wait_state(&container, "its end", killed);
    }
    berth.wait_idle();
}

#[test]
fn a_supervisor_that_crashes_again_and_again_starts_within_five_seconds() {
    requires_root!();
    let mut berth = Supervisor::start();
    let run = berth.run("stays", &["sleep", "1000"]);
    let (pid, container) = (run.pid(), run.container.clone());
    drop(run);
    for _ in 0..20 {
        let began = std::time::Instant::now();
        berth.kill();
        berth.launch();
        assert!(began.elapsed().as_secs() < 5);
    }
    assert_eq!(berth.state(&container)["live"]["pid"], pid);
}

#[test]
fn a_start_that_the_supervisor_does_not_see_through_is_finished_or_undone() {
    requires_root!();
    let mut berth = Supervisor::start();
    berth.layer();
    for round in 0..8_u64 {
        let container = id("half");
        let request = berth.start_request(&container, round + 1, &["sleep", "1000"]);
        let frame = json!({"version": 1, "request": request}).to_string();
        let socket = berth.connect().expect("root may connect");
        system_tests::supervisor::send(&socket, frame.as_bytes(), &[]).expect("it is sent");
        // From at once to when the program surely runs.
        std::thread::sleep(std::time::Duration::from_millis(round * 12));
        berth.kill();
        berth.launch();
        let settled = |state: &Value| {
            state["status"] == "running"
                || state["exit"].is_object()
                || state["code"] == "container.unknown"
                || state["run"] == round
        };
        let state = berth.wait_state(&container, "a settled state", settled);
        if state["status"] == "running" {
            berth.call(&json!({"op": "container_kill", "container": container}));
            berth.wait_state(&container, "its end", |state| state["exit"].is_object());
        }
        berth.wait_idle();
    }
}

#[test]
fn a_container_whose_monitor_is_killed_is_ended_and_recorded_as_lost() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("orphan", &["sh", "-c", "sleep 1000 & sleep 1000"]);
    let path = berth.run_dir().join(format!("containers/{}/init/live.json", run.container));
    let record: Value =
        serde_json::from_slice(&fs::read(path).expect("a running container has a record"))
            .expect("the record is JSON");
    let monitor = record["monitor"]["pid"].as_i64().expect("it names its monitor");
    kill(Pid::from_raw(i32::try_from(monitor).expect("a pid fits")), Signal::SIGKILL)
        .expect("the monitor runs");
    assert_eq!(run.wait_exit()["cause"], "monitor_lost");
    berth.wait_idle();
    // It has left its cgroup before it is a zombie, which the host's first process reaps in its own time.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = fs::read_to_string(format!("/proc/{}/stat", run.pid())).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            break;
        }
        assert!(Instant::now() < deadline, "its first process is there: {stat}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let again = berth.start_request(&run.container, 2, &["true"]);
    assert_eq!(berth.started(&again).wait_exit()["code"], 0, "and it can be started again");
}

#[test]
fn a_record_of_another_boot_or_process_is_never_believed() {
    requires_root!();
    let mut berth = Supervisor::start();
    let mut innocent =
        std::process::Command::new("sleep").arg("1000").spawn().expect("start a process");
    for (name, boot) in [("reused", None), ("rebooted", Some("an-earlier-boot"))] {
        let container = id(name);
        berth.run(name, &["true"]).wait_exit();
        berth.wait_idle();
        berth.kill();
        let state = berth.data_dir().join(format!("state/containers/{container}/start.json"));
        let mut start: Value =
            serde_json::from_slice(&fs::read(&state).expect("a start is recorded"))
                .expect("the record is JSON");
        let boot_id = boot.map_or(start["boot_id"].clone(), Value::from);
        start["run"] = json!(2);
        start["boot_id"] = boot_id.clone();
        fs::write(&state, start.to_string()).expect("change the record");
        let run = berth.run_dir().join(format!("containers/{container}/init"));
        fs::create_dir_all(&run).expect("make a run directory");
        let pid = innocent.id();
        let key = json!({"pid": pid, "start_ticks": 1, "boot_id": boot_id});
        let live = json!({"version": 1, "run": 2, "monitor": key, "live": null});
        fs::write(run.join("live.json"), live.to_string()).expect("write a false record");
        berth.launch();
        let ended = |state: &Value| state["exit"]["run"] == 2;
        let state = berth.wait_state(&container, "the loss", ended);
        let expected = if boot.is_some() { "host_lost" } else { "monitor_lost" };
        assert_eq!(state["exit"]["cause"], expected, "{state}");
        assert_eq!(innocent.try_wait().expect("it is our child"), None, "nobody touched it");
    }
    innocent.kill().expect("it still runs");
    innocent.wait().expect("it is our child");
}

#[test]
fn people_keep_their_ranges_and_a_lost_record_stops_the_start() {
    requires_root!();
    let mut berth = Supervisor::start();
    let add = |berth: &Supervisor, person: u32| {
        berth.call(&json!({"op": "person_add", "person": person, "group": 2}))
    };
    let ranges: Vec<_> = (PERSON..PERSON + 5).map(|person| add(&berth, person)).collect();
    let mut firsts: Vec<_> = ranges.iter().map(|range| range["first_id"].as_u64()).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 5, "{ranges:?}");
    berth.kill();
    berth.launch();
    let again: Vec<_> = (PERSON..PERSON + 5).map(|person| add(&berth, person)).collect();
    assert_eq!(ranges, again);
    berth.run("data", &["true"]).wait_exit();
    berth.wait_idle();
    berth.kill();
    let record = berth.data_dir().join("state/people.json");
    let kept = fs::read(&record).expect("the record is there");
    for bad in [None, Some(&b"{"[..])] {
        match bad {
            None => fs::remove_file(&record).expect("remove the record"),
            Some(bytes) => fs::write(&record, bytes).expect("spoil the record"),
        }
        let mut command = std::process::Command::new(system_tests::programs::berth_runtime());
        let output = command.args(["supervise", "--config"]).arg(berth.config()).output();
        let output = output.expect("run the supervisor");
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("people.json"));
    }
    fs::write(&record, kept).expect("put the record back");
    berth.launch();
}
