//! The report of a defect: what it tells, and that nothing which somebody has typed is in it.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use system_tests::{Options, TestServer, programs, requires_root};

/// In every name, text, path and host of the instance.
const MARK: &str = "zqmark";

fn report(server: &TestServer) -> String {
    let mut command = Command::new(programs::berth());
    command.args(["doctor", "--report", "--config"]).arg(server.config_path()).env_clear();
    let output = command.output().expect("run berth doctor");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn a_report_tells_numbers_and_nothing_that_somebody_has_typed() {
    requires_root!();
    let data = std::env::temp_dir().join(format!("{MARK}-data-{}", std::process::id()));
    let secret = std::env::temp_dir().join(format!("{MARK}-proxy-{}", std::process::id()));
    fs::write(&secret, format!("{MARK}user:{MARK}password")).expect("write a secret");
    let options = Options {
        data_dir: Some(data.clone()),
        server: format!("hosts = [\"{MARK}.lab\"]\ntrusted_proxies = [\"192.0.2.77\"]"),
        runtime: "nameservers = [\"192.0.2.53\"]".to_owned(),
        sections: format!(
            "[registries]\nallowed = [\"{MARK}.registry\"]\nforbidden_networks = [\"198.51.100.0/24\"]\n\
             proxy = \"http://{MARK}.proxy:3128\"\nproxy_credentials_file = {secret:?}\n\
             [[containers.sizes]]\nname = \"{MARK}\"\nlimits = {{ cpu_millis = 500, cpu_weight = 100, \
             memory_bytes = 67108864, swap_bytes = 0, pids = 64 }}"
        ),
        ..Options::default()
    };
    let server = TestServer::with(options).await;
    let anna = server.person(&format!("{MARK}anna"), "user").await;
    let token = anna.token("operate").await;
    let credentials = json!({"registry": format!("{MARK}.registry"), "username": format!("{MARK}user"), "password": format!("{MARK}secret")});
    anna.put("/api/v1/registries", &credentials).await.expect_status(200);
    let reference = format!("{MARK}.registry/{MARK}/image:{MARK}");
    let pull = json!({"reference": reference});
    let pulled = anna.post("/api/v1/images/pull", &pull).await.expect_status(202).json();
    let operation = format!("/api/v1/operations/{}", pulled["id"].as_str().expect("an id"));
    system_tests::containers::until(&anna, &operation, |one| one["state"] != "running").await;
    system_tests::containers::import(&anna).await;
    let body = json!({"name": format!("{MARK}-container"), "image": system_tests::containers::IMAGE,
        "command": ["true", MARK], "env": {"SECRET": MARK}, "labels": {MARK: MARK}});
    anna.post("/api/v1/containers", &body).await;
    let body = json!({"name": format!("{MARK}-plain"), "image": system_tests::containers::IMAGE});
    anna.post("/api/v1/containers", &body).await.expect_status(201);
    server.sign_in(&format!("{MARK}nobody"), MARK).await;

    let text = report(&server);
    let (_, bearer) = token.credential();
    let bearer = bearer.trim_start_matches("Bearer ").to_owned();
    let typed = [MARK, "192.0.2.", "198.51.100.", "127.0.0.1", "olga", &server.instance, &bearer];
    for word in typed {
        assert!(!text.contains(word), "{word} is in it: {text}");
    }
    let said: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(said["configuration"]["server"]["hosts"], 1, "{text}");
    assert_eq!(said["configuration"]["registries"]["proxy"], true, "{text}");
    let counts = &said["inventory"]["counts"];
    assert_eq!((&counts["people.user"], &counts["people.operator"]), (&json!(1), &json!(1)));
    assert_eq!(counts["operations.image.pull.failed"], 1, "{text}");
    assert_eq!(said["inventory"]["failures"][0]["kind"], "image.pull", "{text}");
    assert!(said["inventory"]["refusals"].as_object().is_some_and(|map| !map.is_empty()), "{text}");
    assert!(said["checks"].as_array().is_some_and(|checks| checks.len() > 5), "{text}");
    assert!(said["sizes"]["inventory_bytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{text}");

    // It is wanted most when nothing works any more.
    server.stop_server();
    server.kill_supervisor();
    fs::write(data.join("db/berth.db"), "damaged").expect("damage it");
    let said: Value = serde_json::from_str(&report(&server)).expect("JSON");
    assert!(said["inventory"].is_null() && said["host"]["kernel"].is_string(), "{said}");
    drop(server);
    fs::remove_dir_all(&data).expect("remove the data");
    fs::remove_file(&secret).expect("remove the secret");
}
