//! runtime.md: state, operations, life cycle.

use crate::case::{Case, is_berths};

/// "State": the fields that it must have.
#[test]
fn state_has_every_required_field() {
    let Some(case) = Case::new("state-fields") else { return };
    let case = case.with("/annotations", serde_json::json!({ "org.a": "b" })).created();
    let state = case.state();
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")));
    assert_eq!(state["id"], case.id.as_str());
    assert_eq!(state["status"], "created");
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 0), "{state}");
    assert_eq!(state["bundle"].as_str(), case.directory.to_str());
    assert_eq!(state["annotations"]["org.a"], "b");
}

/// "State", status: created, running, stopped, one after the other.
#[test]
fn state_follows_the_life_cycle() {
    let Some(case) = Case::new("life-cycle") else { return };
    let case = case.created();
    assert_eq!(case.state()["status"], "created");
    case.done("start ID");
    assert_eq!(case.state()["status"], "running");
    case.done("kill ID KILL");
    case.wait_for("stopped");
    assert_eq!(case.state()["pid"].as_i64().unwrap_or(0), 0);
    case.done("delete ID");
    case.refused("state ID");
}

/// "Query State": "MUST generate an error if it is not provided the ID of a container".
#[test]
fn state_needs_the_id_of_a_container() {
    let Some(case) = Case::new("state-id") else { return };
    case.refused("state ID");
    case.refused("state");
}

/// "Create": "MUST generate an error if the ID provided is not unique".
#[test]
fn create_needs_a_new_id() {
    let Some(case) = Case::new("create-twice") else { return };
    let case = case.created();
    let pid = case.state()["pid"].clone();
    assert!(!case.create().status.success());
    assert_eq!(case.state()["pid"], pid, "the first one is untouched");
}

/// "Create": the program "MUST NOT be run", "Start": it must be.
#[test]
fn the_program_runs_at_start_and_not_before() {
    let Some(case) = Case::new("not-before") else { return };
    let case = case.script("echo ran; exec sleep 1000").created();
    assert_eq!(case.file("output"), "");
    case.done("start ID");
    case.wait("the program", || case.file("output") == "ran\n");
}

/// "Create": "Any changes made to the config.json file after this operation will not have an effect".
#[test]
fn a_changed_configuration_has_no_effect_after_create() {
    let Some(case) = Case::new("changed") else { return };
    let case = case.script("echo first; exec sleep 1000").created();
    let case = case.script("echo second");
    case.done("start ID");
    case.wait("the program", || case.file("output") == "first\n");
}

/// "Create": what cannot be done as configured "MUST generate an error and a new container MUST NOT be
/// created"; here a root that is not there.
#[test]
fn create_without_its_root_is_an_error() {
    let Some(case) = Case::new("no-root") else { return };
    case.with("/root/path", "nosuch".into()).create_refused();
}

/// "Start": only of a created container, and without effect on another.
#[test]
fn start_needs_a_created_container() {
    let Some(case) = Case::new("start-twice") else { return };
    case.refused("start ID");
    let case = case.started();
    let pid = case.state()["pid"].clone();
    case.refused("start ID");
    assert_eq!((&case.state()["pid"], &case.state()["status"]), (&pid, &"running".into()));
    case.done("kill ID KILL");
    case.wait_for("stopped");
    case.refused("start ID");
}

/// "Start": without `process` it must be an error.
#[test]
fn start_without_a_process_is_an_error() {
    let Some(case) = Case::new("no-process") else { return };
    let case = case.with("/process", serde_json::Value::Null);
    assert!(!case.create().status.success() || !case.call("start ID").status.success());
}

/// "Kill": the signal arrives at the container's process.
#[test]
fn kill_sends_the_given_signal() {
    let Some(case) = Case::new("kill-signal") else { return };
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit' TERM; echo ready; \
        while :; do sleep 0.05; done";
    let case = case.script(script).started();
    case.wait("the traps", || case.file("output") == "ready\n");
    case.done("kill ID USR1");
    case.wait("SIGUSR1", || case.file("output") == "ready\nusr1\n");
    case.done("kill ID");
    case.wait("SIGTERM, the default", || case.file("output").ends_with("term\n"));
    case.wait_for("stopped");
}

/// "Kill": names with and without SIG, and numbers; an unknown one is an error.
#[test]
fn kill_takes_names_and_numbers() {
    for (name, signal) in [("name", "SIGKILL"), ("short", "kill"), ("number", "9")] {
        let Some(case) = Case::new(&format!("kill-{name}")) else { return };
        let case = case.started();
        case.refused("kill ID NOSUCH");
        case.done(&format!("kill ID {signal}"));
        case.wait_for("stopped");
    }
}

/// "Kill": an error unless created or running.
#[test]
fn kill_needs_a_living_container() {
    let Some(case) = Case::new("kill-stopped") else { return };
    case.refused("kill ID KILL");
    let case = case.created();
    case.done("kill ID KILL");
    case.wait_for("stopped");
    case.refused("kill ID KILL");
}

/// "Delete": an error, and no effect, unless stopped. runc deletes a created container.
#[test]
fn delete_needs_a_stopped_container() {
    let Some(case) = Case::new("delete") else { return };
    case.refused("delete ID");
    let case = case.created();
    if is_berths() {
        case.refused("delete ID");
        assert_eq!(case.state()["status"], "created");
    }
    case.done("start ID");
    case.refused("delete ID");
    assert_eq!(case.state()["status"], "running");
}

/// "Delete": "MUST delete the resources that were created during the create step", and the id is free.
#[test]
fn delete_removes_cgroups_and_frees_the_id() {
    let Some(case) = Case::new("free") else { return };
    for _ in 0..2 {
        let output = case.create();
        assert!(output.status.success(), "{}", crate::case::said(&output));
        case.done("kill ID KILL");
        case.wait_for("stopped");
        case.done("delete ID");
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").expect("list").flatten();
        for hierarchy in hierarchies {
            let path = hierarchy.path().join(format!("berth-conformance-{}", case.id));
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}
