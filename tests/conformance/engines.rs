//! What engines rely on beside the specification: runc's command line, messages and exit codes.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::case::{Case, said};

/// containerd's shim and conmon read the pid from here.
#[test]
fn the_pid_file_holds_the_pid_alone() {
    let Some(case) = Case::new("pid-file") else { return };
    let output = case.directory.join("output");
    let mut command = case.command(&["create", "--pid-file", "pid", &case.id]);
    let status = command.stdout(fs::File::create(&output).expect("make a file")).status();
    assert!(status.expect("run the runtime").success());
    assert_eq!(case.file("pid"), case.state()["pid"].to_string());
}

/// Options stand before or after the id.
#[test]
fn options_stand_before_or_after_the_id() {
    let Some(case) = Case::new("order") else { return };
    let case = case.started();
    case.done("kill --all ID CONT");
    if crate::case::is_berths() {
        // runc takes what follows the id as the signal.
        case.done("kill ID CONT --all");
    }
    assert!(case.done("ps --format json ID").trim().starts_with('['));
    case.done("delete --force ID");
}

/// `delete --force` in each state, and of what is not there.
#[test]
fn delete_by_force_succeeds_in_every_state() {
    for status in ["created", "running", "paused", "stopped"] {
        let Some(case) = Case::new(&format!("force-{status}")) else { return };
        case.done("delete --force ID");
        let case = case.created();
        if status != "created" {
            case.done("start ID");
        }
        match status {
            "paused" => drop(case.done("pause ID")),
            "stopped" => drop(case.done("kill ID KILL")),
            _ => {}
        }
        case.wait_for(status);
        case.done("delete --force ID");
        case.refused("state ID");
    }
}

/// What containerd's shim looks for to tell "gone already" from a failure.
#[test]
fn messages_are_those_that_engines_look_for() {
    let Some(case) = Case::new("messages") else { return };
    assert!(case.refused("state ID").contains("does not exist"));
    assert!(case.refused("kill ID KILL").contains("does not exist"));
    let case = case.created();
    case.done("kill ID KILL");
    case.wait_for("stopped");
    assert!(case.refused("kill ID KILL").contains("container not running"));
}

/// The last line of `--log` in JSON is the error that engines show.
#[test]
fn the_log_in_json_has_level_time_and_message() {
    let Some(case) = Case::new("log") else { return };
    let words = ["--log", "log", "--log-format", "json", "state", &case.id];
    let output = case.command(&words).output().expect("run the runtime");
    assert!(!output.status.success());
    let log = case.file("log");
    let line: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().is_some_and(|text| text.contains("does not exist")), "{line}");
    assert!(line["time"].as_str().is_some_and(|text| text.contains('T')), "{line}");
}

/// `run` gives the program's exit code and leaves nothing; with `-d` it leaves a running container.
#[test]
fn run_gives_the_exit_code_or_detaches() {
    let Some(case) = Case::new("run") else { return };
    let case = case.script("echo out; exit 7");
    let output = case.call("run ID");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"out\n"[..]));
    case.refused("state ID");
    let case = case.script("exec sleep 1000");
    let log = fs::File::create(case.directory.join("output")).expect("make a file");
    let mut command = case.command(&["run", "-d", &case.id]);
    assert!(command.stdout(log).status().expect("run the runtime").success());
    assert_eq!(case.state()["status"], "running");
}

fn exec(case: &Case, options: &[&str], program: &[&str]) -> Output {
    let words = [&["exec"], options, &[&case.id], program].concat();
    case.command(&words).output().expect("run the runtime")
}

/// `exec`: exit code, user, directory, environment, capabilities, as options and as a process file.
#[test]
fn exec_takes_its_process_from_options_or_a_file() {
    let Some(case) = Case::new("exec") else { return };
    let case = case.started();
    let options = ["--cwd", "/bin", "--env", "A=b", "--user", "5:6", "--additional-gids", "7"];
    let program = ["/bin/sh", "-c", "pwd; echo $A; id; exit 9"];
    let output = exec(&case, &options, &program);
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/bin\nb\nuid=5 gid=6 groups=7\n");
    let bounding = ["/bin/sh", "-c", "grep CapBnd /proc/self/status"];
    let bounding = exec(&case, &["--cap", "CAP_SYS_CHROOT"], &bounding);
    let text = String::from_utf8_lossy(&bounding.stdout).into_owned();
    let set = u64::from_str_radix(text.trim_start_matches("CapBnd:").trim(), 16);
    assert!(set.is_ok_and(|set| set & 1 << 18 != 0), "{}", said(&bounding));
    let process = r#"{"user":{"uid":5,"gid":6,"additionalGids":[7]},"args":["/bin/id"],"cwd":"/"}"#;
    fs::write(case.directory.join("process.json"), process).expect("write the process");
    assert_eq!(case.done("exec --process process.json ID"), "uid=5 gid=6 groups=7\n");
}

/// A failure of `exec` itself is 255, which conmon and shims tell from the program's own.
#[test]
fn a_failed_exec_is_255() {
    let Some(case) = Case::new("exec-failed") else { return };
    assert_eq!(case.call("exec ID true").status.code(), Some(255));
    let case = case.started();
    assert_eq!(case.call("exec ID /nosuch").status.code(), Some(255));
    case.done("pause ID");
    assert_eq!(case.call("exec ID true").status.code(), Some(255));
    case.done("resume ID");
    case.done("exec ID true");
}

/// `exec --detach --pid-file`: the pid is the process's in the host's numbers.
#[test]
fn a_detached_exec_leaves_its_pid() {
    let Some(case) = Case::new("exec-detached") else { return };
    let case = case.started();
    let words = ["exec", "--detach", "--pid-file", "pid", &case.id, "/bin/sleep", "999"];
    let null = fs::File::create("/dev/null").expect("open the null device");
    let status = case.command(&words).stdout(null).status().expect("run the runtime");
    assert!(status.success());
    let path = format!("/proc/{}/cmdline", case.file("pid"));
    let program = "/bin/sleep\u{0}999\u{0}";
    if !crate::case::is_berths() {
        // runc answers before its child has become the program.
        case.wait("the program", || fs::read_to_string(&path).is_ok_and(|line| line == program));
    }
    assert_eq!(fs::read_to_string(path).expect("it runs"), program);
    let pids: Vec<u64> = serde_json::from_str(&case.done("ps -f json ID")).expect("JSON");
    assert_eq!(pids.len(), 2, "{pids:?}");
}

/// `pause` and `resume`: states, and refusals in the others.
#[test]
fn pause_and_resume_go_both_ways() {
    let Some(case) = Case::new("pause") else { return };
    let case = case.started();
    case.refused("resume ID");
    case.done("pause ID");
    assert_eq!(case.state()["status"], "paused");
    case.refused("pause ID");
    case.done("resume ID");
    assert_eq!(case.state()["status"], "running");
}

/// `list`: JSON with the fields that engines read, and names alone.
#[test]
fn list_shows_every_container() {
    let Some(case) = Case::new("list") else { return };
    let case = case.started();
    let rows: Value = serde_json::from_str(&case.done("list --format json")).expect("JSON");
    let row = &rows[0];
    assert_eq!((&row["id"], &row["status"]), (&case.id.as_str().into(), &"running".into()));
    for field in ["pid", "bundle", "rootfs", "created", "owner", "ociVersion"] {
        assert!(!row[field].is_null(), "{field} is not in {row}");
    }
    assert_eq!(case.done("list --quiet").trim(), case.id);
    assert!(case.done("list").lines().next().is_some_and(|line| line.starts_with("ID")));
}

/// `events --stats`: one line, with the numbers that cAdvisor and containerd read.
#[test]
fn events_with_stats_is_one_line_of_json() {
    let Some(case) = Case::new("events") else { return };
    let case = case.started();
    let text = case.done("events --stats ID");
    assert_eq!(text.lines().count(), 1, "{text}");
    let event: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&event["type"], &event["id"]), (&"stats".into(), &case.id.as_str().into()));
    assert_eq!(event["data"]["pids"]["current"], 1);
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|total| total > 0));
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|used| used > 0));
}

/// `features`: versions, and lists that engines look into.
#[test]
fn features_names_versions_and_lists() {
    let Some(case) = Case::new("features") else { return };
    let output = case.call("features");
    if !output.status.success() {
        assert!(!crate::case::is_berths(), "{}", said(&output));
        eprintln!("SKIPPED conformance: this runtime has no features command");
        return;
    }
    let features: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    assert!(features["linux"]["namespaces"].as_array().is_some_and(|list| list.len() >= 7));
}

/// What is not here is said, not ignored.
#[test]
fn what_is_not_here_is_refused_by_name() {
    if !crate::case::is_berths() {
        eprintln!("SKIPPED conformance: other runtimes have what Berth's has not yet");
        return;
    }
    let Some(case) = Case::new("not-here") else { return };
    for (words, name) in [
        ("checkpoint ID", "checkpoint"),
        ("restore ID", "restore"),
        ("create --no-pivot ID", "--no-pivot"),
        ("create --no-new-keyring ID", "--no-new-keyring"),
    ] {
        let text = case.refused(words);
        assert!(text.contains(name), "{words}: {text}");
        case.refused("state ID");
    }
}
