//! Output: what a container writes is in its log, within bounds, and no reader or disk stops it.

use std::fs;
use std::process::Command;

use serde_json::json;
use system_tests::requires_root;
use system_tests::supervisor::{Supervisor, id};

#[test]
fn both_streams_are_kept_apart_and_complete_over_runs() {
    requires_root!();
    let berth = Supervisor::start();
    let container = id("two");
    for number in 1..=2 {
        let script = format!("echo out {number}; echo err {number} >&2; printf 'no newline'");
        let request = berth.start_request(&container, number, &["sh", "-c", &script]);
        berth.started(&request).wait_exit();
        berth.wait_idle();
    }
    let log = berth.container_log(&container);
    for expected in ["stdout F out 1", "stderr F err 1", "stdout F out 2", "stdout F no newline"] {
        assert!(log.contains(expected), "{expected:?} is in {log:?}");
    }
    assert_eq!(log.lines().count(), 6);
}

#[test]
fn a_flood_is_bounded_on_disk_and_in_memory_and_a_dead_reader_does_not_stop_it() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("flood", &["sh", "-c", "yes | dd bs=1M count=100; echo done; sleep 1000"]);
    // The watcher of the start is never read from.
    run.wait_log("done");
    let request = json!({"op": "container_logs", "container": run.container});
    let (answer, fds) = berth.call_with(&request, &[]);
    let segments = answer["segments"].as_array().expect("segments are listed").len();
    assert!(segments <= 3, "{answer}");
    for fd in fds {
        let size = fs::File::from(fd).metadata().expect("a file has a size").len();
        assert!(size <= 64 << 10, "{size}");
    }
    let live = berth.run_dir().join(format!("containers/{}/init/live.json", run.container));
    let live: serde_json::Value =
        serde_json::from_slice(&fs::read(live).expect("it runs")).expect("the record is JSON");
    let monitor = &live["monitor"]["pid"];
    let smaps = fs::read_to_string(format!("/proc/{monitor}/smaps_rollup")).expect("it lives");
    let private: u64 = smaps
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    assert!(private < 4096, "a monitor of a debug build has {private} KiB of its own");
    let status = fs::read_to_string(format!("/proc/{monitor}/status")).expect("it lives");
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line:?} is in {status}");
    }
    assert!(!status.contains("Uid:\t0\t"), "{status}");
}

#[test]
fn a_full_disk_costs_output_and_nothing_else() {
    requires_root!();
    let berth = Supervisor::start();
    let container = id("full");
    berth.started(&berth.start_request(&container, 1, &["true"])).wait_exit();
    berth.wait_idle();
    let people = fs::read_dir(berth.data_dir().join("people")).expect("somebody has data");
    let own = people.flatten().next().expect("one person has data").path();
    let logs = own.join("logs").join(&container);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&logs).expect("it is there"));
    let options = format!("size=64k,mode=700,uid={owner},gid={owner}");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
        .arg(&logs)
        .status()
        .expect("run mount");
    assert!(mounted.success());
    let mut request = berth.start_request(
        &container,
        2,
        &[
            "sh",
            "-c",
            "yes 0123456789 | dd bs=64k count=40 iflag=fullblock; echo alive >&2; exit 9",
        ],
    );
    request["log"] = json!({"file_bytes_max": 10 << 20, "files_max": 2});
    let exit = berth.started(&request).wait_exit();
    berth.wait_idle();
    let unmounted = Command::new("umount").arg(&logs).status().expect("run umount");
    assert!(unmounted.success());
    assert_eq!(exit["code"], 9, "the program went on: {exit}");
    let lost = exit["log_bytes_lost"].as_u64().expect("it is counted");
    assert!(lost > 2_000_000 && lost < 40 * 65_536 + 4096, "{lost}");
}
