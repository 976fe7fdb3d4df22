//! `update` and `events`: resources of a container that is there. runc's manual is the reference.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use super::{is_v2, path, shown};
use crate::case::{Case, is_berths, said};

/// A file's value on either layout.
fn value(case: &Case, controller: &str, (v1, v2): (&str, &str)) -> String {
    shown(case, controller, if is_v2() { v2 } else { v1 })
}

const MEMORY: (&str, &str) = ("memory.limit_in_bytes", "memory.max");
const QUOTA: (&str, &str) = ("cpu.cfs_quota_us", "cpu.max");

/// `update --resources -`, with this on its standard input.
fn piped(case: &Case, resources: &str) -> Output {
    let mut command = case.command(&["update", "--resources", "-", &case.id]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run the runtime");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(resources.as_bytes()).expect("write the resources");
    drop(input);
    child.wait_with_output().expect("wait for the runtime")
}

#[test]
fn update_changes_what_its_options_name() {
    let Some(case) = Case::new("update") else { return };
    let resources = json!({ "memory": { "limit": 64 << 20 }, "cpu": { "period": 50_000 } });
    let case = case.with("/linux/resources", resources).started();
    case.done("update --memory 128m --cpu-quota 25000 --pids-limit 33 ID");
    case.done("update ID --cpu-share 2048 --cpuset-cpus 0 --memory-reservation 16M");
    assert_eq!(value(&case, "memory", MEMORY), (128 << 20).to_string());
    let quota = if is_v2() && is_berths() { "25000 50000" } else { "25000" };
    assert!(value(&case, "cpu", QUOTA).starts_with(quota));
    assert_eq!(shown(&case, "pids", "pids.max"), "33");
    assert_eq!(shown(&case, "cpuset", "cpuset.cpus"), "0");
    let reservation = value(&case, "memory", ("memory.soft_limit_in_bytes", "memory.low"));
    assert_eq!(reservation, (16 << 20).to_string());
    case.done("update --cpu-quota -1 ID");
    let unlimited = if is_v2() { "max 50000" } else { "-1" };
    assert_eq!(value(&case, "cpu", QUOTA), unlimited);
}

#[test]
fn update_reads_resources_from_a_file_or_standard_input() {
    let Some(case) = Case::new("update-file") else { return };
    let case = case.created();
    let resources = json!({ "memory": { "limit": 32 << 20 }, "pids": { "limit": 44 } });
    std::fs::write(case.directory.join("resources.json"), resources.to_string()).expect("write");
    case.done("update -r resources.json --pids-limit 99 ID");
    assert_eq!(shown(&case, "pids", "pids.max"), "44", "a file is all there is");
    assert_eq!(value(&case, "memory", MEMORY), (32 << 20).to_string());
    // What is named as 0, or not at all, stays.
    let output = piped(&case, r#"{"memory":{"limit":0},"pids":{"limit":55}}"#);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(shown(&case, "pids", "pids.max"), "55");
    assert_eq!(value(&case, "memory", MEMORY), (32 << 20).to_string());
    assert!(!piped(&case, "{").status.success());
    case.refused("update -r nosuch.json ID");
}

/// Memory and swap change in either direction, although the kernel holds one against the other.
#[test]
fn memory_and_swap_change_together() {
    let Some(case) = Case::new("update-swap") else { return };
    let case = case.created();
    if !is_v2() && !path(&case, "memory", "memory.memsw.limit_in_bytes").exists() {
        eprintln!("SKIPPED conformance: this kernel does not count swap");
        return;
    }
    for (memory, total) in [(64, 128), (256, 512), (32, 32), (512, 512), (16, 1024)] {
        case.done(&format!("update --memory {memory}m --memory-swap {total}m ID"));
        assert_eq!(value(&case, "memory", MEMORY), (memory << 20).to_string());
        let swap = if is_v2() { total - memory } else { total };
        let file = ("memory.memsw.limit_in_bytes", "memory.swap.max");
        assert_eq!(value(&case, "memory", file), (swap << 20).to_string());
    }
    case.done("update --memory -1 ID");
    assert!(["max", "9223372036854771712"].contains(&value(&case, "memory", MEMORY).as_str()));
}

/// Of a change that is refused, nothing is left, and the container's state knows nothing of it.
#[test]
fn a_refused_update_changes_nothing() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: other runtimes leave a part of it");
        return;
    }
    let Some(case) = Case::new("update-undo") else { return };
    let cpu = json!({ "quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0" });
    let resources = json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 }, "cpu": cpu,
        "pids": { "limit": 20 } });
    let case = case.with("/linux/resources", resources).started();
    let all = |case: &Case| {
        let names = [
            ("memory", MEMORY),
            ("memory", ("memory.memsw.limit_in_bytes", "memory.swap.max")),
            ("cpu", QUOTA),
            ("cpu", ("cpu.cfs_period_us", "cpu.max")),
            ("cpu", ("cpu.shares", "cpu.weight")),
            ("cpuset", ("cpuset.cpus", "cpuset.cpus")),
            ("pids", ("pids.max", "pids.max")),
        ];
        names.map(|(controller, file)| value(case, controller, file))
    };
    let before = all(&case);
    let state = case.file(&format!("state/{}/config.json", case.id));
    for wrong in ["--pids-limit 9999999999", "--cpuset-mems 99999"] {
        let text = case.refused(&format!(
            "update --memory 128m --memory-swap 256m --cpu-quota 9000 --cpu-period 20000 \
             --cpu-share 7 {wrong} ID"
        ));
        assert!(text.contains("linux.resources."), "{wrong}: {text}");
        assert!(text.contains("put back"), "{wrong}: {text}");
        assert_eq!(all(&case), before, "{wrong}");
    }
    assert_eq!(case.file(&format!("state/{}/config.json", case.id)), state);
    assert_eq!(case.file(&format!("state/{}/config.json.new", case.id)), "");
    case.done("update --pids-limit 21 ID");
    let now: Value = serde_json::from_str(&case.file(&format!("state/{}/config.json", case.id)))
        .expect("the state is JSON");
    let resources = &now["linux"]["resources"];
    assert_eq!(
        (&resources["pids"]["limit"], &resources["cpu"]["shares"]),
        (&21.into(), &512.into())
    );
}

/// `checkBeforeUpdate`: less memory than is in use is refused, by the kernel on v1 and by us on v2.
#[test]
fn memory_in_use_is_not_taken_away() {
    let Some(case) = Case::new("update-use") else { return };
    // A shell that keeps some MiB of text.
    let script = "text=xxxxxxxxxxxxxxxx; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do \
        text=$text$text; done; echo full; exec 3<&1; while :; do sleep 100; done";
    let case = case.script(script);
    let case = case.with("/linux/resources", json!({ "memory": { "limit": 64 << 20 } })).started();
    case.wait("the text", || case.file("output") == "full\n");
    let output = piped(&case, r#"{"memory":{"limit":1048576,"checkBeforeUpdate":true}}"#);
    assert!(!output.status.success());
    assert_eq!(value(&case, "memory", MEMORY), (64 << 20).to_string());
    if is_berths() {
        let text = said(&output);
        assert!(text.contains("linux.resources.memory.limit") && text.contains("in use"), "{text}");
    }
    assert_eq!(case.state()["status"], "running");
}

#[test]
fn update_refuses_what_it_cannot_do_by_name() {
    let Some(case) = Case::new("update-refused") else { return };
    case.refused("update --pids-limit 5 ID");
    let case = case.created();
    for words in ["--memory 5x", "--nosuch 1", "--cpu-share many", "--pids-limit"] {
        case.refused(&format!("update ID {words}"));
    }
    if is_berths() {
        for name in ["--l3-cache-schema", "--mem-bw-schema"] {
            let text = case.refused(&format!("update {name} L3:0=f ID"));
            assert!(text.contains(name), "{text}");
        }
        let devices = r#"{"devices":[{"allow":true,"access":"rwm"}]}"#;
        let output = piped(&case, devices);
        assert!(!output.status.success() && said(&output).contains("devices"), "{}", said(&output));
    }
    case.done("update --kernel-memory 5m --pids-limit 9 ID");
    assert_eq!(shown(&case, "pids", "pids.max"), "9");
    case.done("kill ID KILL");
    case.wait_for("stopped");
    case.refused("update --pids-limit 5 ID");
}

/// `events --stats`: what is limited is shown, after an update as well.
#[test]
fn events_show_the_resources_in_force() {
    let Some(case) = Case::new("update-stats") else { return };
    let cpu = json!({ "cpus": "0", "mems": "0" });
    let case = case.with("/linux/resources", json!({ "cpu": cpu })).started();
    case.done("update --memory 64m --pids-limit 12 ID");
    let text = case.done("events --stats ID");
    let event: Value = serde_json::from_str(&text).expect("JSON");
    let data = &event["data"];
    let limits = (&data["memory"]["usage"]["limit"], &data["pids"]["limit"]);
    assert_eq!(limits, (&json!(64 << 20), &json!(12)));
    if !is_v2() || is_berths() {
        assert_eq!((&data["cpuset"]["cpus"], &data["cpuset"]["mems"]), (&json!([0]), &json!([0])));
    }
    if is_v2() && is_berths() && path(&case, "", "cpu.pressure").exists() {
        for part in ["cpu", "memory", "blkio"] {
            assert!(data[part]["psi"]["some"]["total"].is_u64(), "{part}: {data}");
        }
    }
}
