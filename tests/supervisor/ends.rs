//! How runs end, and that nothing is left of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::requires_root;
use system_tests::supervisor::{Supervisor, id};

fn cgroups(berth: &Supervisor) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut looked_at: Vec<PathBuf> = fs::read_dir("/sys/fs/cgroup")
        .expect("cgroups are mounted")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    looked_at.extend(looked_at.clone().iter().map(|root| root.join(&berth.instance)));
    while let Some(path) = looked_at.pop() {
        let inside = path.components().any(|part| part.as_os_str() == berth.instance.as_str());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if inside && name.len() == 33 && name.starts_with('c') {
            found.push(path);
        } else if inside {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            looked_at.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
    }
    found
}

#[test]
fn codes_and_signals_are_kept() {
    requires_root!();
    let berth = Supervisor::start();
    for (name, script, code, signal) in [
        ("zero", "true", json!(0), json!(null)),
        ("code", "exit 77", json!(77), json!(null)),
        ("missing", "exec /bin/nothing-here", json!(127), json!(null)),
    ] {
        let exit = berth.run(name, &["sh", "-c", script]).wait_exit();
        assert_eq!((&exit["code"], &exit["signal"]), (&code, &signal), "{name}: {exit}");
        assert_eq!(exit["cause"], "exited");
    }
    for signal in [9, 15, 34, 64] {
        let run = berth.run(&format!("signal-{signal}"), &["sleep", "1000"]);
        let request =
            json!({"op": "container_signal", "container": run.container, "signal": signal});
        // As the first process of its namespace it takes only what it handles, and SIGKILL from us.
        assert_eq!(berth.call(&request)["answer"], "done");
        if signal == 9 {
            let exit = run.wait_exit();
            assert_eq!((&exit["signal"], &exit["cause"]), (&json!(9), &json!("exited")), "{exit}");
        }
    }
}

#[test]
fn a_program_that_cannot_be_run_fails_the_start_and_leaves_nothing() {
    requires_root!();
    let berth = Supervisor::start();
    let container = id("nope");
    let request = berth.start_request(&container, 1, &["/no/such/program"]);
    let answer = berth.call(&request);
    assert_eq!(answer["answer"], "failed", "{answer}");
    let state = berth.state(&container);
    assert_eq!(state["exit"]["cause"], "start_failed", "{state}");
    assert_eq!(state["exit"]["failure"]["code"], answer["code"]);
    berth.wait_idle();
    assert_eq!(cgroups(&berth), Vec::<PathBuf>::new());
}

#[test]
fn lack_of_memory_is_recorded_with_the_limit() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("greedy", &["tail", "/dev/zero"]);
    let exit = run.wait_exit();
    assert_eq!(exit["cause"], "out_of_memory", "{exit}");
    assert_eq!(exit["signal"], 9);
    assert_eq!(exit["memory_bytes_max"], 64 << 20);
    assert!(exit["oom_kills"].as_u64() >= Some(1));
    // The control: the same end without lack of memory is no such thing.
    let run = berth.run("killed", &["sleep", "1000"]);
    let request = json!({"op": "container_signal", "container": run.container, "signal": 9});
    assert_eq!(berth.call(&request)["answer"], "done");
    assert_eq!(run.wait_exit()["cause"], "exited");
}

#[test]
fn a_process_that_is_killed_for_memory_is_told_while_the_container_runs_on() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("survivor", &["sh", "-c", "tail /dev/zero; echo after; sleep 1000"]);
    run.wait_log("after");
    assert_eq!(run.event()["event"], "out_of_memory");
    let state = berth.state(&run.container);
    assert_eq!(state["status"], "running");
    assert!(state["live"]["oom_kills"].as_u64() >= Some(1), "{state}");
}

#[test]
fn a_fork_bomb_is_held_and_killed() {
    requires_root!();
    let berth = Supervisor::start();
    let bomb = "sh -c 'while true; do sleep 1000 & done' & exec sleep 1000";
    let run = berth.run("bomb", &["sh", "-c", bomb]);
    let files = &run.started["live"]["limits"];
    let pids = files.as_array().expect("limits are listed").iter();
    let pids = pids.clone().find(|limit| limit["name"] == "pids").expect("pids are limited");
    let maximum = Path::new(pids["file"].as_str().expect("it names its file"));
    let current = maximum.with_file_name("pids.current");
    let deadline = Instant::now() + Duration::from_secs(30);
    let count = || -> u64 {
        let text = fs::read_to_string(&current).expect("the cgroup is there");
        text.trim().parse().expect("a number")
    };
    while count() < 50 {
        assert!(Instant::now() < deadline, "the bomb does not go off");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(count() <= 64);
    run.act("container_kill");
    let exit = run.wait_exit();
    assert_eq!(exit["cause"], "killed", "{exit}");
    berth.wait_idle();
    assert_eq!(cgroups(&berth), Vec::<PathBuf>::new());
}

#[test]
fn a_frozen_container_can_be_killed_and_a_thawed_one_goes_on() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("ice", &["sh", "-c", "while true; do echo tick; sleep 0.05; done"]);
    run.wait_log("tick");
    run.act("container_pause");
    assert_eq!(berth.state(&run.container)["status"], "paused");
    run.act("container_resume");
    assert_eq!(berth.state(&run.container)["status"], "running");
    run.act("container_pause");
    run.act("container_kill");
    assert_eq!(run.wait_exit()["cause"], "killed");
}

#[test]
fn a_removed_container_leaves_nothing_whatever_it_has_made() {
    requires_root!();
    let berth = Supervisor::start();
    let victim = berth.dir.join("victim");
    fs::create_dir(&victim).expect("make the victim");
    fs::write(victim.join("file"), "untouched").expect("write the victim");
    let script = format!(
        "ln -s {victim} /link; ln -s / /tmp/root; mkdir /deep; cd /deep; n=0; \
         while [ $n -lt 600 ]; do mkdir d && cd d || break; n=$((n+1)); done; \
         touch /locked; chmod 0 /locked; mkdir /closed; chmod 0 /closed; echo made",
        victim = victim.display()
    );
    let run = berth.run("messy", &["sh", "-c", &script]);
    run.wait_exit();
    run.wait_log("made");
    let container = run.container.clone();
    run.act("container_remove");
    assert_eq!(berth.state(&container)["code"], "container.unknown");
    run.act("container_remove");
    assert_eq!(fs::read_to_string(victim.join("file")).expect("still there"), "untouched");
    let mut left = Vec::new();
    let mut looked_at = vec![berth.data_dir(), berth.run_dir()];
    while let Some(path) = looked_at.pop() {
        if path.to_string_lossy().contains(&container) {
            left.push(path.clone());
        }
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        looked_at.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn at_host_shutdown_each_container_gets_its_signal_and_its_grace() {
    requires_root!();
    let berth = Supervisor::start();
    let polite = "trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.05; done";
    let polite = berth.run("polite", &["sh", "-c", polite]);
    let stubborn = berth.run("stubborn", &["sh", "-c", "trap '' TERM; echo ready; sleep 1000"]);
    let frozen = "trap 'exit 6' TERM; echo ready; while true; do sleep 0.05; done";
    let frozen = berth.run("frozen", &["sh", "-c", frozen]);
    for run in [&polite, &stubborn, &frozen] {
        run.wait_log("ready");
    }
    frozen.act("container_pause");
    let stop_all = |flags: &[&str]| {
        let mut command = std::process::Command::new(system_tests::programs::berth_runtime());
        command.arg("stop-all").args(flags).arg("--config").arg(berth.config());
        let status = command.status().expect("run stop-all");
        assert!(status.success());
    };
    // The control: the system is not stopping, so nothing happens.
    stop_all(&[]);
    assert_eq!(berth.state(&polite.container)["status"], "running");
    stop_all(&["--now"]);
    let ended = |run: &system_tests::supervisor::Run<'_>| -> Value {
        let exit = run.wait_exit();
        assert_eq!(exit["cause"], "host_shutdown", "{exit}");
        exit
    };
    assert_eq!(ended(&polite)["code"], 5);
    assert_eq!(ended(&stubborn)["signal"], 9);
    assert_eq!(ended(&frozen)["code"], 6);
    berth.wait_idle();
}
