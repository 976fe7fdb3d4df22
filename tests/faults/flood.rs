//! F13: output without end, a reader that does not read, and log files that somebody has put links and pipes
//! in place of. Disk and memory stay bounded, and nothing is written or read through a link.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::containers::{act, import, in_status, log, log_with, run};
use system_tests::{Check, Options, TestServer, requires_root, times};

use crate::footprint;

const FILE_BYTES: u64 = 1 << 20;
const FILES: u64 = 3;
/// What a flood may cost server and monitor.
const GROWTH_KIB_MAX: u64 = 64 << 10;
const CANARY: &str = "nobody's business";

async fn small_logs() -> TestServer {
    let sections = format!("[containers]\nlog_file_bytes = {FILE_BYTES}\nlog_files = {FILES}\n");
    TestServer::with(Options { sections, ..Default::default() }).await
}

#[tokio::test]
async fn a_flood_is_bounded_on_disk_and_in_memory_with_a_reader_that_does_not_read() {
    requires_root!();
    let server = small_logs().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let pid = server.server_pid().expect("the server runs");
    let before = footprint::peak_kib(pid);
    let id = run(&anna, "flood", "exec busybox yes a line of a flood that does not end", json!({}))
        .await;
    let path = format!("/api/v1/containers/{id}/logs/events");
    let stalled = anna.request("GET", &path).send().await.expect("it is answered");
    assert_eq!(stalled.status(), 200);
    let monitor = footprint::monitors(&server)[0];
    let written = || {
        let io = fs::read_to_string(format!("/proc/{monitor}/io")).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        line.and_then(|line| line.parse::<u64>().ok()).unwrap_or(0)
    };
    let wanted = times(4 << 30, 128 << 20) as u64;
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut most_on_disk = 0;
    while written() < wanted {
        assert!(Instant::now() < deadline, "only {} bytes came", written());
        most_on_disk = most_on_disk.max(footprint::tree(&logs(&server)).1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let control = format!("{} MiB were written through the monitor", written() >> 20);
    let check = |variant| Check { id: "F13", variant, control: &control };
    let bound = (FILES + 1) * FILE_BYTES + (64 << 10);
    check("a flood: the disk").sees(true, most_on_disk > FILE_BYTES && most_on_disk <= bound);
    let grown = footprint::peak_kib(pid).saturating_sub(before);
    check("a flood: the server's memory").sees(true, grown < GROWTH_KIB_MAX);
    check("a flood: the monitor's memory").sees(true, footprint::memory_kib(monitor) < 4096);
    act(&anna, &id, "kill").await.expect_status(200);
    drop(stalled);
    check("a flood: it can be ended").sees(
        "exited",
        in_status(&anna, &id, "exited").await["status"].as_str().unwrap_or_default(),
    );
}

#[tokio::test]
async fn nothing_is_written_or_read_through_a_link_in_place_of_a_log() {
    requires_root!();
    let server = small_logs().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let canary = server.dir.join("canary");
    fs::write(&canary, CANARY).expect("make a canary");
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 4] = [
        ("a symbolic link", |place, canary| symlink(canary, place).expect("a link")),
        ("a hard link", |place, canary| fs::hard_link(canary, place).expect("a link")),
        ("a pipe", |place, _| {
            nix::unistd::mkfifo(place, nix::sys::stat::Mode::from_bits_truncate(0o666))
                .expect("a pipe");
        }),
        ("a directory", |place, _| fs::DirBuilder::new().mode(0o777).create(place).expect("one")),
    ];
    for (number, (what, plant)) in plants.into_iter().enumerate() {
        let script = "trap 'go=1' USR1; echo first; while [ -z \"$go\" ]; do usleep 20000; done; \
                      i=0; while [ $i -lt 40000 ]; do echo a line of some sixty characters to have it rotated; \
                      i=$((i+1)); done; echo last";
        let id = run(&anna, &format!("c{number}"), script, json!({})).await;
        log_with(&anna, &id, "first").await;
        let folder = logs(&server).join(&id);
        assert!(folder.join("1.log").exists(), "the log is where it is looked for");
        for number in 2..5 {
            plant(&folder.join(format!("{number}.log")), &canary);
        }
        act(&anna, &id, "kill?signal=USR1").await.expect_status(200);
        in_status(&anna, &id, "exited").await;
        let control = format!("{what} lay where the next three files were to be");
        let check = |variant: &str, observed: &str, expected: &str| {
            let variant = format!("{what}: {variant}");
            Check { id: "F13", variant: &variant, control: &control }.sees(expected, observed);
        };
        check("what it leads to", &fs::read_to_string(&canary).expect("read it"), CANARY);
        let text = log(&anna, &id, "tail=5").await;
        let leaked = if text.contains(CANARY) { "leaked" } else { "not read" };
        check("read through", if what == "a hard link" { "not read" } else { leaked }, "not read");
        check("the log goes on", if text.contains("last") { "last" } else { &text }, "last");
    }
}

/// The only person's logs.
fn logs(server: &TestServer) -> PathBuf {
    let people = fs::read_dir(server.data_dir().join("people")).expect("people").flatten();
    let found = people.map(|entry| entry.path().join("logs")).find(|path| path.is_dir());
    found.expect("somebody has logs")
}
