//! F03: the machine was reset. Records say that containers run, under process ids that are others' by now:
//! nobody is signalled or adopted, each is written down as lost, and policies are followed.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use system_tests::containers::{import, in_status, ready, run, show, until};
use system_tests::{Check, TestServer, requires_root};

use crate::footprint;

const SCRIPT: &str = "while :; do usleep 20000; done";

#[tokio::test]
async fn after_a_reset_nobody_is_taken_for_a_container_and_policies_hold() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let policies = [
        ("no", json!({"name": "no"}), "exited"),
        ("always", json!({"name": "always"}), "running"),
        ("unless-stopped", json!({"name": "unless-stopped"}), "running"),
        ("on-failure", json!({"name": "on-failure", "max_attempts": 1}), "running"),
    ];
    let mut ids = Vec::new();
    for (name, restart, _) in &policies {
        ids.push(run(&anna, name, SCRIPT, json!({"restart": restart})).await);
    }
    let innocent = Command::new("sleep").arg("1000").spawn().expect("start a process");
    reset(&server, &ids, innocent.id());
    server.start_supervisor().await;
    server.start_server().await;
    ready(&server).await;
    let control = format!("records of another boot name process {} as their own", innocent.id());
    for ((name, _, expected), id) in policies.iter().zip(&ids) {
        let check = |variant: &str, expected: &str, observed: &Value| {
            let variant = format!("{variant}, restart {name}");
            let observed = observed.as_str().unwrap_or_default();
            Check { id: "F03", variant: &variant, control: &control }.sees(expected, observed);
        };
        let path = format!("/api/v1/containers/{id}");
        let lost = until(&anna, &path, |now| now["exit"].is_object()).await;
        check("the end", "host_lost", &lost["exit"]["cause"]);
        check("then", expected, &in_status(&anna, id, expected).await["status"]);
        let pid = show(&anna, id).await["pid"].as_u64();
        let adopted = pid == Some(u64::from(innocent.id()));
        check("adopted", "no", &Value::from(if adopted { "yes" } else { "no" }));
    }
    let mut innocent = innocent;
    let alive = innocent.try_wait().expect("it is our child").is_none();
    Check { id: "F03", variant: "the innocent", control: &control }.sees(true, alive);
    innocent.kill().expect("it still runs");
    innocent.wait().expect("it is our child");
}

/// Everything of the instance dies, and what is on disk is another boot's.
fn reset(server: &TestServer, ids: &[String], innocent: u32) {
    server.cut_power();
    assert_eq!(footprint::monitors(server), Vec::<u32>::new(), "nothing runs");
    for id in ids {
        let record = server.data_dir().join(format!("state/containers/{id}"));
        let mut start: Value = serde_json::from_slice(
            &fs::read(record.join("start.json")).expect("a start is recorded"),
        )
        .expect("the record is JSON");
        start["boot_id"] = "an-earlier-boot".into();
        fs::write(record.join("start.json"), start.to_string()).expect("change the record");
        // A reset leaves no end behind.
        drop(fs::remove_file(record.join("init/exit.json")));
        let run = server.run_dir().join(format!("containers/{id}/init"));
        fs::create_dir_all(&run).expect("make a run directory");
        let key = json!({"pid": innocent, "start_ticks": 1, "boot_id": "an-earlier-boot"});
        let live = json!({"version": 1, "run": start["run"], "monitor": key, "live": null});
        fs::write(run.join("live.json"), live.to_string()).expect("write a false record");
    }
}
