//! F09: a container that takes more memory than it may. The kernel takes it, says so, and nobody else is
//! hurt; the privilege of Berth's own processes before the kernel's choice is not passed on.

use std::fs;

use serde_json::{Value, json};
use system_tests::containers::{identity, import, in_status, log_with, run, show};
use system_tests::{Check, TestServer, requires_root};

use crate::footprint;

/// What the units give server and supervisor.
const ADJUSTED: i32 = -900;
const OTHERWISE: i32 = 300;

#[tokio::test]
async fn the_one_that_takes_too_much_is_taken_and_nobody_else() {
    requires_root!();
    let server = TestServer::start().await;
    let mut protected = true;
    for (_, pid) in footprint::processes(&server) {
        let path = format!("/proc/{pid}/oom_score_adj");
        // Root of a container may not; then it is made the kernel's first choice instead of its last.
        let set = fs::write(&path, ADJUSTED.to_string());
        protected &= set.is_ok();
        set.or_else(|_| fs::write(&path, OTHERWISE.to_string())).expect("adjust a score");
    }
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let neighbour = run(&anna, "neighbour", "while :; do usleep 50000; done", json!({})).await;
    let before = identity(&anna, &neighbour).await;
    let pids = footprint::processes(&server);
    let small = json!({"limits": {"memory_bytes": 16 << 20}});
    let hog = run(
        &anna,
        "hog",
        "cat /proc/self/oom_score_adj; echo begun; tail /dev/zero; echo $?; exec tail /dev/zero",
        small,
    )
    .await;
    let ended = in_status(&anna, &hog, "exited").await;
    let exit = &ended["exit"];
    let control =
        format!("its first child was killed, too: {}", log_with(&anna, &hog, "137").await);
    let check = |variant| Check { id: "F09", variant, control: &control };
    check("signal").sees(9, &exit["signal"]);
    check("cause").sees("out_of_memory", exit["cause"].as_str().unwrap_or_default());
    check("kills").sees(true, exit["oom_kills"].as_u64() >= Some(1));
    check("the neighbour").sees(true, identity(&anna, &neighbour).await == before);
    check("server and supervisor").sees(true, footprint::processes(&server) == pids);
    check("the server answers").sees(200, server.anonymous().get("/readyz").await.status);

    let score = |pid: i64| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it lives");
        text.trim().parse().expect("a number")
    };
    let own = score(i64::from(server.supervisor_pid().expect("it runs")));
    let control = format!("the supervisor's is {own} (set: {protected})");
    let check = |variant| Check { id: "F09", variant, control: &control };
    let inside = score(show(&anna, &neighbour).await["pid"].as_i64().expect("it runs"));
    assert_ne!(own, 0, "{control}");
    check("a container's score").sees(own.max(0), inside);
    let said = log_with(&anna, &hog, "begun").await;
    let read: i32 =
        said.lines().next().and_then(|line| line.trim().parse().ok()).unwrap_or(ADJUSTED);
    check("as it reads it").sees(inside, read);
    let null = Value::Null;
    let again = anna.post(&format!("/api/v1/containers/{hog}/start"), &null).await;
    check("it can be started again").sees(200, again.status);
}
