//! W08: secrets that were handed to Berth, looked for everywhere that others can look: answers to
//! other people, logs, process arguments and environments, files. Each is planted as a marker of its
//! own, and each look is first shown to find what is there.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use system_tests::containers::{IMAGE, import};
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root};

const REGISTRY_PASSWORD: &str = "marker-of-a-registry-password-7f3a";
const ENV_VALUE: &str = "marker-of-an-environment-91cc";
const WRONG_PASSWORD: &str = "marker-of-a-wrong-password-2b6d";

/// What was planted: a name, the marker.
type Marker = (&'static str, String);

#[tokio::test]
async fn a_secret_is_nowhere_but_where_its_owner_looks() {
    requires_root!();
    // A registry that nobody answers for: its name gets the password, and the error its words.
    let sections = "[registries]\ninsecure = [\"127.0.0.1:1\"]\n".to_owned();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let auditor = server.person("looks", "auditor").await;
    import(&anna).await;
    let body = json!({"name": "holds", "image": IMAGE, "command": ["sleep", "900"], "start": true,
        "env": {"SECRET": ENV_VALUE}});
    let made = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let container = made["id"].as_str().expect("an id").to_owned();
    let login =
        json!({"registry": "127.0.0.1:1", "username": "anna", "password": REGISTRY_PASSWORD});
    anna.put("/api/v1/registries", &login).await.expect_status(200);
    anna.post("/api/v1/images/pull", &json!({"reference": "127.0.0.1:1/a:b"})).await;
    server.sign_in("anna", WRONG_PASSWORD).await;
    let bad = json!({"registry": "a b", "username": "anna", "password": REGISTRY_PASSWORD});
    let refused = anna.put("/api/v1/registries", &bad).await;
    assert!(!refused.text.contains(REGISTRY_PASSWORD), "{}", refused.text);
    let token = anna.token("read").await;
    let bearer = token.raw("GET", "/").build().expect("a request");
    let bearer = bearer.headers()["authorization"].to_str().expect("ASCII").replace("Bearer ", "");
    let kim = json!({"name": "kim", "role": "user"});
    let kim = server.operator().post("/api/v1/people", &kim).await.expect_status(201).json();
    let invitation = kim["invitation"]["secret"].as_str().expect("a secret").to_owned();
    server.anonymous().get(&format!("/invitation/{invitation}")).await.expect_status(200);
    token.get("/api/v1/me").await.expect_status(200);
    let markers: Vec<Marker> = vec![
        ("a registry's password", REGISTRY_PASSWORD.to_owned()),
        ("an environment", ENV_VALUE.to_owned()),
        ("a wrong password", WRONG_PASSWORD.to_owned()),
        ("a password", PASSWORD.to_owned()),
        ("a token", bearer),
        ("an invitation", invitation),
        ("a session", session(&anna)),
    ];
    for (who, client) in
        [("another", &tom), ("an auditor", &auditor), ("an operator", &server.operator())]
    {
        in_answers(client, who, &container, &markers).await;
    }
    // The control: the owner reads the environment by the same look.
    let own = anna.get(&format!("/api/v1/containers/{container}")).await.text;
    assert!(own.contains(ENV_VALUE) && !own.contains(REGISTRY_PASSWORD), "{own}");
    for (name, log) in [("server", "server.log"), ("supervisor", "supervisor.log")] {
        let text = std::fs::read_to_string(server.dir.join(log)).expect("there is a log");
        // A supervisor that nothing troubles says nothing.
        assert!(text.len() > 20 || name == "supervisor", "the control: the log is read");
        absent(&format!("the {name}'s log"), &text, &markers);
    }
    in_processes(&server, &markers);
    in_files(&server, &markers);
}

fn session(client: &Client) -> String {
    let cookie = client.cookie();
    let pair = cookie.split("; ").find(|pair| pair.contains("_session=")).expect("a session");
    pair.split_once('=').expect("a value").1.to_owned()
}

fn absent(place: &str, text: &str, markers: &[Marker]) {
    for (what, marker) in markers {
        let seen = if text.contains(marker.as_str()) { "found" } else { "absent" };
        let variant = format!("{what}, in {place}");
        let control = "the same look finds what is there, and the owner's finds the environment";
        Check { id: "W08", variant: &variant, control }.sees("absent", seen);
    }
}

/// Everything that somebody else can get of the API, and pages.
async fn in_answers(client: &Client, who: &str, container: &str, markers: &[Marker]) {
    let mut all = String::new();
    for path in [
        "/api/v1/containers",
        "/api/v1/images",
        "/api/v1/operations",
        "/api/v1/events?limit=500",
        "/api/v1/events/export",
        "/api/v1/audit?limit=500",
        "/api/v1/audit/export",
        "/api/v1/people",
        "/api/v1/registries",
        "/api/v1/tokens",
        "/api/v1/sessions",
        "/api/v1/system/facts",
        "/api/v1/system/warnings",
        "/api/v1/system/usage",
        "/events",
        "/audit",
        "/operations",
        "/containers",
        "/people",
        "/system/warnings",
        "/home",
        "/account",
    ] {
        all.push_str(&client.get(path).await.text);
    }
    for rest in ["", "/logs", "/activity", "/processes", "/stats"] {
        all.push_str(&client.get(&format!("/api/v1/containers/{container}{rest}")).await.text);
    }
    for rest in ["", "/raw", "/settings", "/activity"] {
        all.push_str(&client.get(&format!("/containers/{container}{rest}")).await.text);
    }
    assert!(all.contains("request_id") && all.len() > 1000, "the control: answers are read");
    absent(&format!("what {who} is shown"), &all, markers);
}

/// Arguments and environments of our processes, and whether they leave core files or let others read
/// their memory.
fn in_processes(server: &TestServer, markers: &[Marker]) {
    let ours = [server.server_pid(), server.supervisor_pid()].map(|pid| pid.expect("it runs"));
    let mut looked_at = 0;
    for entry in std::fs::read_dir("/proc").expect("list processes").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).into_owned();
        if !ours.contains(&pid) && !arguments.contains(&server.instance) {
            continue;
        }
        looked_at += 1;
        let text = arguments + &String::from_utf8_lossy(&read("environ"));
        absent("a process's arguments and environment", &text, markers);
    }
    assert!(looked_at >= 2, "the control: {looked_at} processes of ours");
    // A process that is not dumpable belongs to root in /proc, whoever it runs as (proc(5)).
    let proc = PathBuf::from(format!("/proc/{}", ours[0]));
    let owner = std::fs::metadata(proc.join("mem")).expect("it runs").uid();
    let status = std::fs::read_to_string(proc.join("status")).expect("it runs");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a line");
    assert!(!uid.trim_start().starts_with('0'), "the control: the server is not root: {uid}");
    let control = "a dumpable process's files in /proc are its user's own";
    Check { id: "W08", variant: "the server is not dumpable", control }.sees(0, owner);
}

/// Who may read what lies on disk, and what of it is in the clear.
fn in_files(server: &TestServer, markers: &[Marker]) {
    let mut open = Vec::new();
    for top in [server.data_dir().join("db"), server.run_dir()] {
        walk(&top, &mut |path, facts| {
            let mode = facts.permissions().mode();
            let others = mode & 0o007 != 0 && (facts.is_file() || facts.is_dir());
            // A folder that others may not enter closes what is in it.
            if others && facts.is_file() && !closed_above(path, server) {
                open.push(path.display().to_string());
            }
        });
    }
    let control = "the test's own configuration beside them is open to all";
    Check { id: "W08", variant: "files that others may read", control }.finds_nothing(&open);
    let config = std::fs::metadata(server.config_path()).expect("it is there");
    assert!(config.permissions().mode() & 0o004 != 0, "the control");
    let mut stored = String::new();
    for name in ["berth.db", "berth.db-wal"] {
        let bytes = std::fs::read(server.data_dir().join("db").join(name)).unwrap_or_default();
        stored.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(stored.contains("$argon2id") && stored.contains("holds"), "the control: it is read");
    // What a container is started with is kept as it was given, for its owner and its start.
    let sealed: Vec<Marker> =
        markers.iter().filter(|(what, _)| *what != "an environment").cloned().collect();
    absent("the inventory", &stored, &sealed);
}

fn closed_above(path: &Path, server: &TestServer) -> bool {
    path.ancestors().skip(1).take_while(|above| **above != server.dir).any(|above| {
        std::fs::metadata(above).is_ok_and(|facts| facts.permissions().mode() & 0o001 == 0)
    })
}

fn walk(path: &Path, look: &mut impl FnMut(&Path, &std::fs::Metadata)) {
    let Ok(facts) = std::fs::symlink_metadata(path) else { return };
    look(path, &facts);
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        walk(&entry.path(), look);
    }
}
