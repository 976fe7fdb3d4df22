//! What a captured server could try: every request of the wire protocol with the server's own
//! credentials, made to ask for a host path, another range's ids, or a looser profile; and frames that
//! are no requests. Each is refused with a clear failure, and the supervisor goes on.
//!
//! The table is checked against the request type's own source: a request without a row fails the test.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::supervisor::{PERSON, SERVER_UID, Supervisor, id, receive, send};
use system_tests::{Check, requires_root};

use crate::execs::exec_request;

/// One thing that must be refused.
struct Attack {
    op: &'static str,
    what: &'static str,
    request: Value,
    /// How the failure's code begins.
    code: &'static str,
}

/// The requests of the protocol, from the type's source.
fn requests() -> BTreeSet<String> {
    let source = include_str!("../../runtime/src/wire.rs");
    let (_, rest) = source.split_once("pub enum Request {").expect("the type is there");
    let (body, _) = rest.split_once("\n}").expect("the type ends");
    let name = |line: &str| {
        let line = line.strip_prefix("    ")?;
        let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
        name.starts_with(|letter: char| letter.is_ascii_uppercase()).then_some(name)
    };
    let snake = |name: String| {
        let mut text = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.push(letter.to_ascii_lowercase());
        }
        text
    };
    body.lines().filter_map(name).map(snake).collect()
}

/// A start request with one field changed, by JSON pointer.
fn start_with(berth: &Supervisor, pointer: &str, value: Value) -> Value {
    let mut request = berth.start_request(&id("attack"), 1, &["true"]);
    *request.pointer_mut(pointer).unwrap_or_else(|| panic!("there is {pointer}")) = value;
    request
}

/// A request with one field more.
fn extended(mut request: Value, pointer: &str, field: &str, value: Value) -> Value {
    let object = request.pointer_mut(pointer).and_then(Value::as_object_mut);
    object.expect("it is an object").insert(field.to_owned(), value);
    request
}

fn fields_beyond_the_protocol(berth: &Supervisor) -> Vec<Attack> {
    let mut start = berth.start_request(&id("attack"), 1, &["true"]);
    start["volumes"] = json!([{"volume": id("volume"), "target": "/v", "read_only": false,
        "sub_path": null, "copy_up": true}]);
    let more = [
        ("", "rootfs", json!("/")),
        ("", "mounts", json!([{"source": "/", "destination": "/host"}])),
        ("", "devices", json!(["/dev/sda"])),
        ("/volumes/0", "source", json!("/etc")),
        ("", "first_id", json!(0)),
        ("", "uid_map", json!([[0, 0, 65_536]])),
        ("", "seccomp", json!("unconfined")),
        ("", "cgroup_parent", json!("/")),
        ("", "privileged", json!(true)),
        ("", "spec", json!({"ociVersion": "1.0.0"})),
        ("/process", "capabilities_added", json!(["CAP_SYS_ADMIN"])),
        ("/process", "no_new_privileges", json!(false)),
        ("/process", "apparmor", json!("unconfined")),
        ("/limits", "devices", json!("a *:* rwm")),
        ("/log", "path", json!("/etc/cron.d/x")),
    ];
    more.into_iter()
        .map(|(pointer, field, value)| Attack {
            op: "container_start",
            what: field,
            request: extended(start.clone(), pointer, field, value),
            code: "wire.",
        })
        .collect()
}

fn values_out_of_bounds(berth: &Supervisor) -> Vec<Attack> {
    let long = "a".repeat(64);
    let digest = berth.layer().to_owned();
    let start = [
        ("/container", json!("../../etc"), "wire."),
        ("/container", json!("A".repeat(32)), "wire."),
        ("/person", json!(0), "person."),
        ("/person", json!(4_242), "person."),
        ("/run", json!(0), "start.run"),
        ("/run", json!(-1), "wire."),
        ("/layers", json!([]), "start.layers"),
        ("/layers", json!(["/etc"]), "wire."),
        ("/layers", json!(["sha256:../../../../etc"]), "wire."),
        ("/layers", json!([format!("sha256:{}", "0".repeat(64))]), "layer."),
        ("/layers", json!(vec![digest; 128]), "start.layers"),
        ("/process/args", json!([]), "start.args"),
        ("/process/args", json!(["a\0b"]), "start.args"),
        ("/process/env", json!(["NOVALUE"]), "start.env"),
        ("/process/env", json!(["A=b\0c"]), "start.env"),
        ("/process/cwd", json!("relative"), "start.cwd"),
        ("/process/cwd", json!("/a\0/b"), "start.cwd"),
        ("/process/user", json!("0:0\n0"), "start.user"),
        ("/process/user", json!("x".repeat(300)), "start.user"),
        ("/process/capabilities_dropped", json!(["CAP_EVERYTHING"]), ""),
        ("/process/ulimits", json!({"nofile": {"soft": 2, "hard": 1}}), "start.ulimits"),
        ("/process/ulimits", json!({"nofile": {"soft": 1, "hard": 1_u64 << 40}}), ""),
        ("/process/ulimits", json!({"everything": {"soft": 1, "hard": 1}}), ""),
        ("/hostname", json!(""), "start.hostname"),
        ("/hostname", json!(long), "start.hostname"),
        ("/hostname", json!("a\nb"), "start.hostname"),
        ("/tmpfs", json!([{"target": "/", "size_bytes": 65_536}]), "start.tmpfs"),
        ("/tmpfs", json!([{"target": "/proc", "size_bytes": 65_536}]), "start.tmpfs"),
        ("/tmpfs", json!([{"target": "/sys/fs/cgroup", "size_bytes": 65_536}]), "start.tmpfs"),
        ("/tmpfs", json!([{"target": "/dev/x", "size_bytes": 65_536}]), "start.tmpfs"),
        ("/tmpfs", json!([{"target": "/a/../proc", "size_bytes": 65_536}]), "start.tmpfs"),
        ("/tmpfs", json!([{"target": "//proc", "size_bytes": 65_536}]), "start.tmpfs"),
        ("/tmpfs", json!([{"target": "/tmp", "size_bytes": u64::MAX}]), "start.tmpfs"),
        ("/shm_bytes", json!(u64::MAX), "start.shm_bytes"),
        ("/network", json!("host"), "wire."),
        ("/limits/memory_bytes", json!(0), "start.memory_bytes"),
        ("/limits/memory_bytes", json!(1_u64 << 43), "start.memory_bytes"),
        ("/limits/swap_bytes", json!(1_u64 << 43), "start.swap_bytes"),
        ("/limits/pids", json!(0), "start.pids"),
        ("/limits/pids", json!(1 << 20), "start.pids"),
        ("/limits/cpu_millis", json!(0), "start.cpu_millis"),
        ("/limits/cpu_weight", json!(20_000), "start.cpu_weight"),
        ("/log/file_bytes_max", json!(u64::MAX), "start.log"),
        ("/log/files_max", json!(0), "start.log"),
        ("/stop/signal", json!(65), "start.signal"),
        ("/stop/grace_secs", json!(601), "start.stop"),
    ];
    start
        .into_iter()
        .map(|(pointer, value, code)| Attack {
            op: "container_start",
            what: pointer,
            request: start_with(berth, pointer, value),
            code,
        })
        .collect()
}

#[expect(clippy::too_many_lines, reason = "a table, one row per request")]
fn other_requests(berth: &Supervisor, running: &str) -> Vec<Attack> {
    let stranger = id("stranger");
    let free = json!({"cpu_weight": 100});
    let attack = |op, what, fields: Value, code| {
        let mut request = fields;
        request["op"] = json!(op);
        Attack { op, what, request, code }
    };
    let mut attacks = vec![
        attack("hello", "a path", json!({"path": "/"}), "wire."),
        attack("doctor", "a path", json!({"config": "/etc/shadow"}), "wire."),
        attack("person_add", "the system's ids", json!({"person": 0, "group": 2}), "person.id"),
        attack("person_add", "a group's id", json!({"person": 2, "group": 2}), "person.id"),
        attack("person_add", "no group", json!({"person": 1001, "group": 3}), "person.group"),
        attack(
            "person_add",
            "ids of choice",
            json!({"person": 1001, "group": 2, "first_id": 0}),
            "wire.",
        ),
        attack(
            "person_add",
            "another group while busy",
            json!({"person": PERSON, "group": 1500}),
            "person.busy",
        ),
        attack("person_list", "a path", json!({"after": "/etc"}), "wire."),
        attack(
            "person_total",
            "a stranger's",
            json!({"person": 999_999, "total": free}),
            "person.unknown",
        ),
        attack("person_total", "a group's", json!({"person": 2, "total": free}), "person.unknown"),
        attack(
            "person_total",
            "no memory",
            json!({"person": PERSON, "total": {"cpu_weight": 100, "memory_bytes": 4096}}),
            "start.memory_bytes",
        ),
        attack(
            "person_total",
            "no processes",
            json!({"person": PERSON, "total": {"cpu_weight": 100, "pids": 0}}),
            "start.pids",
        ),
        attack(
            "person_total",
            "no weight",
            json!({"person": PERSON, "total": {"cpu_weight": 0}}),
            "start.cpu_weight",
        ),
        attack(
            "person_total",
            "a path",
            json!({"person": PERSON, "total": {"cpu_weight": 100, "cgroup": "/"}}),
            "wire.",
        ),
        attack("group_total", "no group's", json!({"group": 3, "total": free}), "person.group"),
        attack("group_total", "the system's", json!({"group": 1, "total": free}), "person.group"),
        attack(
            "group_total",
            "no processes",
            json!({"group": 2, "total": {"cpu_weight": 100, "pids": 0}}),
            "start.pids",
        ),
        attack(
            "group_total",
            "a path",
            json!({"group": 2, "total": {"cpu_weight": 100, "cgroup": "/"}}),
            "wire.",
        ),
        attack(
            "person_data",
            "a stranger's",
            json!({"person": 999_999, "bytes": 64 << 20}),
            "person.unknown",
        ),
        attack(
            "person_data",
            "nearly nothing",
            json!({"person": PERSON, "bytes": 1}),
            "start.bytes",
        ),
        attack(
            "person_data",
            "more than a disk can have",
            json!({"person": PERSON, "bytes": u64::MAX}),
            "start.bytes",
        ),
        attack(
            "person_data",
            "a path",
            json!({"person": PERSON, "bytes": 64 << 20, "path": "/etc"}),
            "wire.",
        ),
        attack(
            "volume_make",
            "a stranger's",
            json!({"person": 999_999, "volume": stranger}),
            "person.unknown",
        ),
        attack(
            "volume_make",
            "a path as name",
            json!({"person": PERSON, "volume": "../containers"}),
            "wire.",
        ),
        attack(
            "volume_make",
            "a path",
            json!({"person": PERSON, "volume": stranger, "path": "/etc"}),
            "wire.",
        ),
        attack(
            "volume_hand_over",
            "a path",
            json!({"person": PERSON, "volume": "../x", "heir": PERSON}),
            "wire.",
        ),
        attack(
            "volume_hand_over",
            "to a stranger",
            json!({"person": PERSON, "volume": running, "heir": 999_999}),
            "person.unknown",
        ),
        attack(
            "volume_hand_over",
            "to whose it is",
            json!({"person": PERSON, "volume": running, "heir": PERSON}),
            "volume.heir",
        ),
        attack(
            "volume_remove",
            "one that a program has",
            json!({"person": PERSON, "volume": running}),
            "volume.in-use",
        ),
        attack(
            "volume_remove",
            "a path",
            json!({"person": PERSON, "volume": "gone/../../x"}),
            "wire.",
        ),
        attack(
            "volume_measure",
            "another person's",
            json!({"person": PERSON + 1, "volume": running}),
            "volume.unknown",
        ),
        attack("volume_measure", "a path", json!({"person": PERSON, "volume": "/etc"}), "wire."),
        attack(
            "files",
            "a stranger's",
            json!({"person": 999_999, "place": {"volume": running}, "path": "/", "act": "look"}),
            "person.unknown",
        ),
        attack(
            "files",
            "another person's volume",
            json!({"person": PERSON + 1, "place": {"volume": running}, "path": "/", "act": "look"}),
            "volume.unknown",
        ),
        attack(
            "files",
            "another person's container",
            json!({"person": PERSON + 1, "path": "/etc/passwd", "act": "open",
                "place": {"container": {"container": running, "layers": [berth.layer()]}}}),
            "container.foreign",
        ),
        attack(
            "files",
            "a layer that is not there",
            json!({"person": PERSON, "path": "/", "act": "look", "place": {"container":
                {"container": stranger, "layers": [format!("sha256:{}", "0".repeat(64))]}}}),
            "layer.",
        ),
        attack(
            "files",
            "no layer",
            json!({"person": PERSON, "path": "/", "act": "look", "place": {"container":
                {"container": stranger, "layers": []}}}),
            "start.layers",
        ),
        attack(
            "files",
            "a place on the host",
            json!({"person": PERSON, "place": {"host": "/"}, "path": "/etc/shadow", "act": "open"}),
            "wire.",
        ),
        attack(
            "files",
            "a path for a volume",
            json!({"person": PERSON, "place": {"volume": "../x"}, "path": "/", "act": "look"}),
            "wire.",
        ),
        attack(
            "files",
            "an owner of choice",
            json!({"person": PERSON, "place": {"volume": running}, "path": "/x",
                "act": {"put": {"upload": stranger, "mode": null, "uid": 0}}}),
            "wire.",
        ),
        attack(
            "files",
            "more than a mode",
            json!({"person": PERSON, "place": {"volume": running}, "path": "/x",
                "act": {"put": {"upload": stranger, "mode": 0o10000}}}),
            "files.mode",
        ),
        attack(
            "files",
            "an upload of nobody's",
            json!({"person": PERSON, "place": {"volume": running}, "path": "/x",
                "act": {"put": {"upload": stranger, "mode": null}}}),
            "files.upload-unknown",
        ),
        attack(
            "upload_open",
            "a path",
            json!({"person": PERSON, "upload": "../../etc/passwd"}),
            "wire.",
        ),
        attack(
            "upload_open",
            "a stranger's",
            json!({"person": 999_999, "upload": stranger}),
            "person.unknown",
        ),
        attack("upload_drop", "a path", json!({"person": PERSON, "upload": "../x"}), "wire."),
        attack("person_data_use", "a stranger's", json!({"person": 999_999}), "person.unknown"),
        attack("person_data_use", "a path", json!({"person": "../1000"}), "wire."),
        attack("group_total", "a name", json!({"group": "../p1", "total": free}), "wire."),
        attack(
            "layer_unpack",
            "no bytes",
            json!({"blob": berth.layer(), "diff_id": berth.layer(), "compression": "none",
                "bytes_max": 1 << 20}),
            "wire.descriptors",
        ),
        attack(
            "layer_unpack",
            "a path as name",
            json!({"blob": "sha256:../x", "diff_id": berth.layer(), "compression": "none",
                "bytes_max": 1 << 20}),
            "wire.",
        ),
        attack(
            "layer_unpack",
            "no bound",
            json!({"blob": berth.layer(), "diff_id": berth.layer(), "compression": "none"}),
            "wire.",
        ),
        attack(
            "layer_verify",
            "no bytes",
            json!({"blob": berth.layer(), "diff_id": berth.layer(), "compression": "none"}),
            "wire.descriptors",
        ),
        attack(
            "layer_verify",
            "a path as name",
            json!({"blob": "sha256:../x", "diff_id": berth.layer(), "compression": "none"}),
            "wire.",
        ),
        attack("layer_list", "a path", json!({"after": "../.."}), "wire."),
        attack("layer_remove", "a path", json!({"blob": "../../etc"}), "wire."),
        attack("layer_remove", "one in use", json!({"blob": berth.layer()}), "layer.in-use"),
        attack("container_list", "a path", json!({"after": "../.."}), "wire."),
        attack(
            "container_signal",
            "no signal",
            json!({"container": running, "signal": 0}),
            "start.signal",
        ),
        attack(
            "container_signal",
            "a stranger's",
            json!({"container": stranger, "signal": 9}),
            "container.unknown",
        ),
        attack(
            "container_update",
            "above the ceiling",
            json!({"container": running, "limits": {"cpu_millis": 1000, "cpu_weight": 100,
                "memory_bytes": 1_u64 << 43, "swap_bytes": 0, "pids": 64}}),
            "start.memory_bytes",
        ),
        attack(
            "container_update",
            "without limits",
            json!({"container": running, "limits": {}}),
            "wire.",
        ),
        attack("container_remove", "a running one", json!({"container": running}), "container."),
        attack(
            "container_start",
            "another person's container",
            berth.start_request(running, 2, &["true"]),
            "container.foreign",
        ),
    ];
    for one in attacks.iter_mut().filter(|one| one.what == "another person's container") {
        one.request["person"] = json!(PERSON + 1);
    }
    for op in [
        "container_kill",
        "container_pause",
        "container_resume",
        "container_watch",
        "container_logs",
        "container_processes",
        "container_posture",
        "container_attach",
        "container_state",
    ] {
        attacks.push(attack(
            op,
            "a stranger's",
            json!({"container": stranger}),
            "container.unknown",
        ));
        attacks.push(attack(op, "a path", json!({"container": "../../../etc"}), "wire."));
    }
    attacks
}

/// Programs beside the first one that would be looser, or another's.
fn execs(running: &str) -> Vec<Attack> {
    let exec = || exec_request(running, 1, &["true"]);
    let more = [
        ("capabilities_added", json!(["CAP_SYS_ADMIN"])),
        ("capabilities_dropped", json!([])),
        ("ulimits", json!({})),
        ("privileged", json!(true)),
        ("no_new_privileges", json!(false)),
        ("seccomp", json!("unconfined")),
        ("apparmor", json!("unconfined")),
        ("pid", json!(1)),
        ("namespaces", json!(["/proc/1/ns/mnt"])),
        ("cgroup", json!("/")),
        ("console_socket", json!("/run/x")),
    ];
    let mut attacks: Vec<Attack> = more
        .into_iter()
        .map(|(what, value)| Attack {
            op: "container_exec",
            what,
            request: extended(exec(), "", what, value),
            code: "wire.",
        })
        .collect();
    let values = [
        ("another person", "/person", json!(PERSON + 1), "container.foreign"),
        ("a stranger's", "/container", json!(id("stranger")), "container.unknown"),
        ("a path", "/container", json!("../../../etc"), "wire."),
    ];
    for (what, pointer, value, code) in values {
        let mut request = exec();
        *request.pointer_mut(pointer).expect("a request has it") = value;
        attacks.push(Attack { op: "container_exec", what, request, code });
    }
    for (what, exec, signal, code) in [
        ("no signal", 1, 0, "start.signal"),
        ("one that is not there", 99, 9, "exec.ended"),
        ("by a pid", 1, 9, "exec.ended"),
    ] {
        let request =
            json!({"op": "exec_signal", "container": running, "exec": exec, "signal": signal});
        attacks.push(Attack { op: "exec_signal", what, request, code });
    }
    attacks
}

#[test]
fn the_servers_credentials_buy_no_path_no_ids_and_no_looser_profile() {
    requires_root!();
    let berth = Supervisor::start();
    let added = berth.call(&json!({"op": "person_add", "person": PERSON + 1, "group": 2}));
    assert_eq!(added["answer"], "person");
    // The control: an honest start with the same credentials works.
    let running = id("honest");
    let made = json!({"op": "volume_make", "person": PERSON, "volume": running});
    assert_eq!(berth.call_as_server(&made)["answer"], "done");
    let mut honest = berth.start_request(&running, 1, &["sleep", "1000"]);
    honest["volumes"] = json!([{"volume": running, "target": "/v", "read_only": false,
        "sub_path": null, "copy_up": true}]);
    let answer = berth.call_as_server(&honest);
    assert_eq!(answer["answer"], "started", "{answer}");
    let mut attacks = fields_beyond_the_protocol(&berth);
    attacks.extend(values_out_of_bounds(&berth));
    attacks.extend(other_requests(&berth, &running));
    attacks.extend(execs(&running));
    let covered: BTreeSet<String> = attacks.iter().map(|one| one.op.to_owned()).collect();
    assert_eq!(covered, requests(), "every request has a row, and no row is of another");
    let mut wrong = Vec::new();
    for Attack { op, what, request, code } in attacks {
        let answer = berth.call_as_server(&request);
        let said = answer["code"].as_str().unwrap_or_default();
        let clear = answer["message"].as_str().is_some_and(|message| !message.is_empty());
        let refused = answer["answer"] == "failed" && said.starts_with(code) && clear;
        let variant = format!("the supervisor's {op}: {what}");
        let control = "an honest start with the same credentials works";
        let check = Check { id: "A03", variant: &variant, control };
        if !check.notes("refused", if refused { "refused" } else { said }) {
            wrong.push(format!("{op}, {what}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let state = berth.state(&running);
    assert_eq!(state["status"], "running", "none of it touched the honest container");
    assert_eq!(berth.state(&id("attack"))["code"], "container.unknown", "and nothing was begun");
}

#[test]
fn only_root_and_the_servers_user_are_heard() {
    requires_root!();
    let berth = Supervisor::start();
    let hello = json!({"op": "hello"});
    assert_eq!(berth.call_as_server(&hello)["answer"], "hello");
    assert_eq!(berth.call(&hello)["answer"], "hello");
    // The socket's mode keeps others out; with the mode gone, the peer's uid does.
    assert!(berth.connect_as(1234).is_none());
    let path = berth.run_dir().join("supervisor.sock");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .expect("open the socket to all");
    let stranger = berth.connect_as(1234).expect("the mode lets it in");
    // It may be turned away before the frame is sent.
    send(&stranger, br#"{"version":1,"request":{"op":"hello"}}"#, &[]).ok();
    let (answer, _) = receive(&stranger).expect("it is told");
    assert_eq!(answer["code"], "peer.denied");
    assert_ne!(SERVER_UID, 1234);
}

#[test]
fn frames_that_are_no_requests_are_answered_and_harm_nothing() {
    requires_root!();
    let berth = Supervisor::start();
    let pid = berth.pid();
    let deep = "[".repeat(100_000);
    let frames: Vec<Vec<u8>> = vec![
        b"x".to_vec(),
        b"{".to_vec(),
        b"{}".to_vec(),
        b"null".to_vec(),
        vec![0xff; 1000],
        vec![0; 128 * 1024],
        deep.into_bytes(),
        br#"{"version":1}"#.to_vec(),
        br#"{"version":99,"request":{"op":"hello"}}"#.to_vec(),
        br#"{"version":4294967295,"request":{"op":"hello"}}"#.to_vec(),
        br#"{"version":-1,"request":{"op":"hello"}}"#.to_vec(),
        br#"{"version":1,"request":{"op":"hello"},"request":{"op":"doctor"}}"#.to_vec(),
        br#"{"version":1,"request":{"op":"hello","op":"doctor"}}"#.to_vec(),
        br#"{"version":1,"request":{"op":"exec","path":"/bin/sh"}}"#.to_vec(),
        br#"{"version":1,"request":{"op":"hello"},"extra":1}"#.to_vec(),
        br#"{"version":1,"request":{"op":"container_state","container":1e999}}"#.to_vec(),
    ];
    for frame in frames {
        let shown = String::from_utf8_lossy(&frame[..frame.len().min(80)]).into_owned();
        let answer = berth.exchange_as_server(&frame);
        assert_eq!(answer["answer"], "failed", "{shown}: {answer}");
        assert_eq!(answer["class"], "invalid", "{shown}: {answer}");
    }
    let null = std::fs::File::open("/dev/null").expect("there is one");
    let fds = [std::os::fd::AsFd::as_fd(&null); 16];
    let (answer, _) = berth.call_with(&json!({"op": "hello"}), &fds);
    assert_eq!(answer["code"], "wire.descriptors");
    assert_eq!(berth.pid(), pid);
    assert_eq!(berth.call(&json!({"op": "hello"}))["answer"], "hello", "{}", berth.log());
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    assert!(open < 40, "{open} descriptors are open after all that");
}

#[test]
fn silent_connections_are_ended_and_keep_nobody_out() {
    requires_root!();
    let berth = Supervisor::start();
    let silent: Vec<_> = (0..600).filter_map(|_| berth.connect()).collect();
    assert!(silent.len() >= 500, "{}", silent.len());
    let began = Instant::now();
    assert_eq!(berth.call(&json!({"op": "hello"}))["answer"], "hello");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}
