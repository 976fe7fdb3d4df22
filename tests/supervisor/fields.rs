//! A02: every field of every request to the supervisor has a row, made from the types' own source,
//! and each row is driven with the server's credentials: what lies at its bound starts a container,
//! what lies beyond and what is absurd starts nothing and is said.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use system_tests::supervisor::{PERSON, Supervisor, id};
use system_tests::{Check, requires_root, sample};

use crate::execs::{Exec, exec_request};

/// One field: where it is in a start, what is taken there and what is not.
struct Field {
    name: &'static str,
    pointer: &'static str,
    at: Vec<Value>,
    beyond: Vec<Value>,
    /// Absurd values that are none for it.
    may_be: &'static [&'static str],
}

fn field(
    name: &'static str,
    pointer: &'static str,
    at: impl Into<Vec<Value>>,
    beyond: impl Into<Vec<Value>>,
) -> Field {
    Field { name, pointer, at: at.into(), beyond: beyond.into(), may_be: &[] }
}

fn may(field: Field, may_be: &'static [&'static str]) -> Field {
    Field { may_be, ..field }
}

fn absurd() -> Vec<(&'static str, Value)> {
    vec![
        ("negative", json!(-1)),
        ("huge number", json!(1e308)),
        ("2^64", serde_json::from_str("18446744073709551616").expect("a number")),
        ("fraction", json!(1.5)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("list", json!([[]])),
        ("object", json!({"a": {"b": 1}})),
        ("empty", json!("")),
        ("huge text", json!("x".repeat(100_000))),
        ("NUL", json!("a\u{0}b")),
        ("newline", json!("a\nb")),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table, one row per field")]
fn fields(layer: &str) -> Vec<Field> {
    let text = |length: usize| json!("z".repeat(length));
    let no_digest = [json!("/etc"), json!("sha256:../../etc"), json!(format!("sha512:{layer}"))];
    vec![
        field(
            "StartRequest.container",
            "/container",
            [],
            [json!("../../etc"), json!("A".repeat(32))],
        ),
        field(
            "StartRequest.person",
            "/person",
            [json!(PERSON)],
            [json!(0), json!(1), json!(4_242)],
        ),
        field("StartRequest.run", "/run", [json!(1), json!(i64::MAX)], [json!(0)]),
        field("StartRequest.layers", "/layers", [], no_digest.map(|one| json!([one]))),
        field("StartRequest.process", "/process", [], [json!({})]),
        field(
            "StartRequest.hostname",
            "/hostname",
            [json!("h"), text(63)],
            [text(64), json!("-h"), json!("h.h")],
        ),
        may(field("StartRequest.read_only_root", "/read_only_root", [json!(true)], []), &["true"]),
        field("StartRequest.tmpfs", "/tmpfs", [json!([])], []),
        field("StartRequest.volumes", "/volumes", [json!([])], [json!([{}])]),
        field(
            "VolumeMount.volume",
            "/volumes/0/volume",
            [],
            [json!("../../etc"), json!("A".repeat(32)), json!("0".repeat(32)), json!("data")],
        ),
        may(
            field(
                "VolumeMount.owner",
                "/volumes/0/owner",
                [json!(null), json!(PERSON)],
                // Somebody else, whose volume it is not; nobody; no number.
                [json!(PERSON + 1), json!(0), json!(4_242), json!("somebody")],
            ),
            &["null"],
        ),
        field(
            "VolumeMount.target",
            "/volumes/0/target",
            [json!("/v"), json!("/t/below")],
            [
                json!("/"),
                json!("/proc/x"),
                json!("//dev"),
                json!("/v/../sys"),
                json!("v"),
                json!("/t"),
            ],
        ),
        may(field("VolumeMount.read_only", "/volumes/0/read_only", [json!(true)], []), &["true"]),
        may(
            field(
                "VolumeMount.sub_path",
                "/volumes/0/sub_path",
                [json!(null), json!("sub"), json!("link/sub")],
                [
                    json!("/sub"),
                    json!("../data"),
                    json!("sub/.."),
                    json!("sub//x"),
                    json!("away/etc"),
                    json!("nothing"),
                    json!("pipe"),
                ],
            ),
            &["null"],
        ),
        may(field("VolumeMount.copy_up", "/volumes/0/copy_up", [json!(true)], []), &["true"]),
        field("StartRequest.data_sets", "/data_sets", [json!([])], [json!([{}])]),
        field(
            "DataSetMount.name",
            "/data_sets/0/name",
            [json!("fields")],
            [json!("other"), json!("../fields"), json!("/usr/share"), json!("Fields")],
        ),
        field(
            "DataSetMount.target",
            "/data_sets/0/target",
            [json!("/d"), json!("/t/below")],
            [
                json!("/"),
                json!("/proc/x"),
                json!("//dev"),
                json!("/d/../sys"),
                json!("d"),
                json!("/t"),
            ],
        ),
        field("StartRequest.shm_bytes", "/shm_bytes", [json!(4096)], [json!(u64::MAX)]),
        field("StartRequest.network", "/network", [json!("none")], [json!("host"), json!("None")]),
        field("StartRequest.ports", "/ports", [json!([])], [json!([{}])]),
        field(
            "PortLease.protocol",
            "/ports/0/protocol",
            [json!("udp")],
            [json!("sctp"), json!("TCP")],
        ),
        field(
            "PortLease.host",
            "/ports/0/host",
            [json!(20_000), json!(20_999)],
            [json!(0), json!(1023), json!(19_999), json!(21_000), json!(65_536)],
        ),
        field(
            "PortLease.container",
            "/ports/0/container",
            [json!(1), json!(65_535)],
            [json!(0), json!(65_536)],
        ),
        field("StartRequest.limits", "/limits", [], [json!({})]),
        field("StartRequest.log", "/log", [], [json!({})]),
        field("StartRequest.stop", "/stop", [], [json!({})]),
        field("StartRequest.console", "/console", [], [json!({"terminals": null})]),
        may(
            field(
                "Console.terminal",
                "/console/terminal",
                [json!(null), json!({"columns": 1, "rows": 1000})],
                [json!({}), json!({"columns": 0, "rows": 1}), json!({"columns": 1, "rows": 1001})],
            ),
            &["null"],
        ),
        may(field("Console.stdin", "/console/stdin", [json!(true)], []), &["true"]),
        field(
            "ProcessSpec.args",
            "/process/args",
            [json!(["true"])],
            [json!([]), json!(["a\u{0}"])],
        ),
        field(
            "ProcessSpec.env",
            "/process/env",
            [json!([])],
            [json!(["A"]), json!(["A=\u{0}"]), json!(["=a"])],
        ),
        field(
            "ProcessSpec.cwd",
            "/process/cwd",
            [json!("/"), json!("/a/b")],
            [json!("a"), json!("/a\u{0}")],
        ),
        may(
            field(
                "ProcessSpec.user",
                "/process/user",
                [json!("0"), json!("65535:65535")],
                [json!("65536"), json!("-1"), json!("0:")],
            ),
            &["empty"],
        ),
        field(
            "ProcessSpec.capabilities_dropped",
            "/process/capabilities_dropped",
            [json!(["ALL"])],
            [json!(["CAP_NOPE"]), json!(["-CAP_CHOWN"])],
        ),
        field(
            "ProcessSpec.ulimits",
            "/process/ulimits",
            [json!({})],
            [json!({"nope": {"soft": 1, "hard": 1}})],
        ),
        field("Ulimit.soft", "/process/ulimits/nofile/soft", [json!(64)], [json!(65)]),
        field(
            "Ulimit.hard",
            "/process/ulimits/nofile/hard",
            [json!(64)],
            [json!(63), json!(1_u64 << 40)],
        ),
        field(
            "Tmpfs.target",
            "/tmpfs/0/target",
            [json!("/t")],
            [json!("/"), json!("/proc/x"), json!("//dev"), json!("/t/../sys"), json!("t")],
        ),
        field("Tmpfs.size_bytes", "/tmpfs/0/size_bytes", [json!(4096)], [json!(u64::MAX)]),
        field("Limits.cpu_millis", "/limits/cpu_millis", [json!(10)], [json!(9), json!(u32::MAX)]),
        field(
            "Limits.cpu_weight",
            "/limits/cpu_weight",
            [json!(1), json!(10_000)],
            [json!(0), json!(10_001)],
        ),
        field(
            "Limits.memory_bytes",
            "/limits/memory_bytes",
            [json!(64 << 20)],
            [json!((6 << 20) - 1), json!(u64::MAX), json!(i64::MAX)],
        ),
        field("Limits.swap_bytes", "/limits/swap_bytes", [json!(0)], [json!(u64::MAX)]),
        field("Limits.pids", "/limits/pids", [json!(8)], [json!(0), json!(u32::MAX)]),
        field(
            "LogOptions.file_bytes_max",
            "/log/file_bytes_max",
            [json!(64 << 10)],
            [json!((64 << 10) - 1), json!((1_u64 << 30) + 1)],
        ),
        field(
            "LogOptions.files_max",
            "/log/files_max",
            [json!(1), json!(10)],
            [json!(0), json!(11)],
        ),
        field("StopOptions.signal", "/stop/signal", [json!(1), json!(64)], [json!(0), json!(65)]),
        field("StopOptions.grace_secs", "/stop/grace_secs", [json!(0), json!(600)], [json!(601)]),
    ]
}

/// The types that a start is made of.
const STARTS: [&str; 11] = [
    "StartRequest",
    "PortLease",
    "ProcessSpec",
    "Console",
    "Ulimit",
    "Tmpfs",
    "VolumeMount",
    "DataSetMount",
    "Limits",
    "LogOptions",
    "StopOptions",
];
/// The types that an exec is made of.
const EXECS: [&str; 2] = ["ExecRequest", "TerminalSize"];

/// The type that a total is made of.
const TOTALS: [&str; 1] = ["Total"];

/// The fields of what a start, an exec or a total carries, from the types' source; other requests carry a name and one
/// of these, and are in `attacks.rs`.
fn in_the_source(types: &[&str]) -> BTreeSet<String> {
    let source = include_str!("../../runtime/src/wire.rs");
    let (source, _) = source.split_once("/// What the supervisor answers.").expect("the answers");
    let mut found = BTreeSet::new();
    for name in types {
        let (_, rest) = source.split_once(&format!("pub struct {name} {{")).expect("the type");
        let (body, _) = rest.split_once("\n}").expect("the type ends");
        let lines = body.lines().filter_map(|line| line.trim().strip_prefix("pub "));
        let fields = lines.filter_map(|line| line.split_once(':'));
        found.extend(fields.map(|(field, _)| format!("{name}.{field}")));
    }
    let structs = source.matches("pub struct ").count();
    assert_eq!(
        structs,
        STARTS.len() + EXECS.len() + TOTALS.len() + 1,
        "a new type in wire.rs: name it here (Envelope is in attacks.rs)"
    );
    found
}

/// A volume with something in it to be mounted, and something not to be.
fn furnish(berth: &Supervisor) {
    let added = berth.call(&json!({"op": "person_add", "person": PERSON + 1, "group": 2}));
    assert_eq!(added["answer"], "person", "{added}");
    let made = berth.call(&json!({"op": "volume_make", "person": PERSON, "volume": id("fields")}));
    assert_eq!(made["answer"], "done", "{made}");
    let script = "cd /v && mkdir sub && ln -s / link && ln -s /../../.. away && mknod pipe p";
    let mut request = berth.start_request(&id("furnisher"), 1, &["sh", "-c", script]);
    request["volumes"] = json!([{"volume": id("fields"), "target": "/v", "read_only": false,
        "sub_path": null, "copy_up": false}]);
    let exit = berth.started(&request).wait_exit();
    assert_eq!(exit["code"], 0, "{exit}");
}

#[test]
fn each_field_of_a_start_has_a_row_and_takes_its_bounds_and_nothing_beyond() {
    requires_root!();
    let berth = Supervisor::with("[runtime.data_sets.fields]\npath = \"/usr/share\"");
    let fields = fields(berth.layer());
    let rows: BTreeSet<String> = fields.iter().map(|field| field.name.to_owned()).collect();
    assert_eq!(rows, in_the_source(&STARTS), "every field has a row in tests/supervisor/fields.rs");
    furnish(&berth);
    let with = |container: &str, field: &Field, value: &Value| {
        let mut request = berth.start_request(container, 1, &["true"]);
        request["tmpfs"] = json!([{"target": "/t", "size_bytes": 4096}]);
        request["process"]["ulimits"] = json!({"nofile": {"soft": 64, "hard": 64}});
        request["ports"] = json!([]);
        request["volumes"] = match field.pointer.starts_with("/volumes/") {
            true => json!([{"volume": id("fields"), "owner": null, "target": "/v",
                "read_only": false, "sub_path": null, "copy_up": false}]),
            false => json!([]),
        };
        request["data_sets"] = match field.pointer.starts_with("/data_sets/") {
            true => json!([{"name": "fields", "target": "/d"}]),
            false => json!([]),
        };
        if field.pointer.starts_with("/ports/") {
            request["network"] = json!("private");
            request["ports"] = json!([{"protocol": "tcp", "host": 20_000, "container": 80}]);
        }
        *request.pointer_mut(field.pointer).expect("a start has it") = value.clone();
        request
    };
    let mut wrong = Vec::new();
    for field in &fields {
        for (number, value) in field.at.iter().enumerate() {
            let container = id(&format!("{} {number}", field.name));
            let answer = berth.call_as_server(&with(&container, field, value));
            if answer["answer"] != "started" {
                wrong.push(format!("{} at {value}: {answer}", field.name));
                continue;
            }
            berth.wait_state(&container, "the end", |state| state["exit"].is_object());
            berth.call(&json!({"op": "container_remove", "container": container}));
        }
        let beyond = field.beyond.iter().map(|value| ("beyond", value.clone()));
        let absurd = absurd().into_iter().filter(|(name, _)| !field.may_be.contains(name));
        let refused: Vec<_> = beyond.chain(absurd).collect();
        for (what, value) in sample(&refused, 6) {
            let container = id("refused");
            let answer = berth.call_as_server(&with(&container, field, &value));
            let said = answer["message"].as_str().is_some_and(|message| !message.is_empty());
            let class = answer["class"].as_str().unwrap_or("none");
            let seen = match answer["answer"] == "failed" && class != "broken" && said {
                true => "refused, and why".to_owned(),
                false => answer.to_string(),
            };
            let shown: String = value.to_string().chars().take(30).collect();
            let variant = format!("the supervisor's {} is {what} {shown}", field.name);
            let control = "the same start with the field at its bound runs";
            if !(Check { id: "A02", variant: &variant, control }.notes("refused, and why", &seen)) {
                wrong.push(format!("{variant}: {}", seen.chars().take(300).collect::<String>()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    let left = berth.state(&id("refused"));
    assert!(!left["live"].is_object(), "something runs: {left}");
    assert_eq!(berth.call(&json!({"op": "hello"}))["answer"], "hello", "{}", berth.log());
}

fn total_fields() -> Vec<Field> {
    let bytes = |name, pointer, least: u64| {
        let mut beyond = vec![json!(u64::MAX), json!((1_u64 << 42) + 1)];
        beyond.extend(least.checked_sub(1).map(|less| json!(less)));
        may(field(name, pointer, [json!(least), json!(1_u64 << 42)], beyond), &["null"])
    };
    let rate = |name, pointer| {
        let (at, beyond) = ([1_u64 << 20, 10_000_000_000], [(1_u64 << 20) - 1, 10_000_000_001]);
        may(
            field(name, pointer, at.map(|rate| json!(rate)), beyond.map(|rate| json!(rate))),
            &["null"],
        )
    };
    vec![
        may(
            field(
                "Total.cpu_millis",
                "/total/cpu_millis",
                [json!(10), json!(1_024_000)],
                [json!(9), json!(1_024_001)],
            ),
            &["null"],
        ),
        field(
            "Total.cpu_weight",
            "/total/cpu_weight",
            [json!(1), json!(10_000)],
            [json!(0), json!(10_001)],
        ),
        bytes("Total.memory_bytes", "/total/memory_bytes", 16 << 20),
        bytes("Total.swap_bytes", "/total/swap_bytes", 0),
        may(field("Total.pids", "/total/pids", [json!(8), json!(u32::MAX)], [json!(7)]), &["null"]),
        may(
            field(
                "Total.io_weight",
                "/total/io_weight",
                [json!(1), json!(10_000)],
                [json!(0), json!(10_001)],
            ),
            &["null"],
        ),
        rate("Total.io_read_bytes_per_sec", "/total/io_read_bytes_per_sec"),
        rate("Total.io_write_bytes_per_sec", "/total/io_write_bytes_per_sec"),
        may(
            field(
                "Total.net_bytes_per_sec",
                "/total/net_bytes_per_sec",
                [json!(16 << 10), json!(10_000_000_000_u64)],
                [json!((16 << 10) - 1), json!(10_000_000_001_u64)],
            ),
            &["null"],
        ),
    ]
}

#[test]
fn each_field_of_a_total_has_a_row_and_takes_its_bounds_and_nothing_beyond() {
    requires_root!();
    let berth = Supervisor::start();
    let fields = total_fields();
    let rows: BTreeSet<String> = fields.iter().map(|field| field.name.to_owned()).collect();
    assert_eq!(rows, in_the_source(&TOTALS), "every field has a row in tests/supervisor/fields.rs");
    let total = json!({"cpu_millis": null, "cpu_weight": 100, "memory_bytes": null,
        "swap_bytes": null, "pids": null, "io_weight": null, "io_read_bytes_per_sec": null,
        "io_write_bytes_per_sec": null, "net_bytes_per_sec": null});
    let with = |op: &str, field: &Field, value: &Value| {
        let mut request = match op {
            "person_total" => json!({"op": op, "person": PERSON, "total": total}),
            _ => json!({"op": op, "group": 2, "total": total}),
        };
        *request.pointer_mut(field.pointer).expect("a total has it") = value.clone();
        request
    };
    let mut wrong = Vec::new();
    let ops = ["person_total", "group_total"];
    for (op, field) in ops.iter().flat_map(|op| fields.iter().map(move |field| (*op, field))) {
        for value in &field.at {
            let answer = berth.call_as_server(&with(op, field, value));
            if answer["answer"] != "limits" {
                wrong.push(format!("{op} {} at {value}: {answer}", field.name));
            }
        }
        let beyond = field.beyond.iter().map(|value| ("beyond", value.clone()));
        let absurd = absurd().into_iter().filter(|(name, _)| !field.may_be.contains(name));
        for (what, value) in beyond.chain(absurd) {
            let answer = berth.call_as_server(&with(op, field, &value));
            let said = answer["message"].as_str().is_some_and(|message| !message.is_empty());
            let seen = match answer["answer"] == "failed" && answer["class"] != "broken" && said {
                true => "refused, and why".to_owned(),
                false => answer.to_string(),
            };
            let shown: String = value.to_string().chars().take(30).collect();
            let variant = format!("the supervisor's {op} {} is {what} {shown}", field.name);
            let control = "the same total with the field at its bound is kept";
            if !(Check { id: "A02", variant: &variant, control }.notes("refused, and why", &seen)) {
                wrong.push(format!("{variant}: {}", seen.chars().take(300).collect::<String>()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
}

fn exec_fields() -> Vec<Field> {
    let cells = [json!(0), json!(1001), json!(65_536)];
    vec![
        field("ExecRequest.container", "/container", [], [json!("../../etc"), json!(id("other"))]),
        field("ExecRequest.exec", "/exec", [json!(1), json!(i64::MAX)], [json!(0)]),
        field("ExecRequest.person", "/person", [json!(PERSON)], [json!(0), json!(4_242)]),
        field("ExecRequest.args", "/args", [json!(["true"])], [json!([]), json!(["a\u{0}"])]),
        field(
            "ExecRequest.env",
            "/env",
            [json!([])],
            [json!(["A"]), json!(["A=\u{0}"]), json!(["=a"])],
        ),
        field(
            "ExecRequest.cwd",
            "/cwd",
            [json!("/"), json!("/a/b")],
            [json!("a"), json!("/\u{0}")],
        ),
        may(
            field(
                "ExecRequest.user",
                "/user",
                [json!("0"), json!("65535:65535")],
                [json!("65536"), json!("-1"), json!("0:")],
            ),
            &["empty"],
        ),
        may(field("ExecRequest.terminal", "/terminal", [json!(null)], [json!({})]), &["null"]),
        field("TerminalSize.columns", "/terminal/columns", [json!(1), json!(1000)], cells.clone()),
        field("TerminalSize.rows", "/terminal/rows", [json!(1), json!(1000)], cells),
    ]
}

#[test]
fn each_field_of_an_exec_has_a_row_and_takes_its_bounds_and_nothing_beyond() {
    requires_root!();
    let berth = Supervisor::start();
    let running = berth.run("exec-fields", &["sleep", "1000"]).container;
    let fields = exec_fields();
    let rows: BTreeSet<String> = fields.iter().map(|field| field.name.to_owned()).collect();
    assert_eq!(rows, in_the_source(&EXECS), "every field has a row in tests/supervisor/fields.rs");
    let with = |number: usize, field: &Field, value: &Value| {
        let number = u64::try_from(number).expect("a count fits");
        let mut request = exec_request(&running, number, &["true"]);
        request["terminal"] = json!({"columns": 80, "rows": 24});
        *request.pointer_mut(field.pointer).expect("an exec has it") = value.clone();
        request
    };
    let mut wrong = Vec::new();
    for (row, field) in fields.iter().enumerate() {
        for (number, value) in field.at.iter().enumerate() {
            let exec = Exec::start(&berth, &with(100 + row * 10 + number, field, value));
            assert_eq!(exec.end()["code"], 0, "{} at {value}", field.name);
        }
        let beyond = field.beyond.iter().map(|value| ("beyond", value.clone()));
        let absurd = absurd().into_iter().filter(|(name, _)| !field.may_be.contains(name));
        let refused: Vec<_> = beyond.chain(absurd).collect();
        for (what, value) in sample(&refused, 6) {
            let answer = berth.call_as_server(&with(99, field, &value));
            let said = answer["message"].as_str().is_some_and(|message| !message.is_empty());
            let class = answer["class"].as_str().unwrap_or("none");
            let seen = match answer["answer"] == "failed" && class != "broken" && said {
                true => "refused, and why".to_owned(),
                false => answer.to_string(),
            };
            let shown: String = value.to_string().chars().take(30).collect();
            let variant = format!("the supervisor's {} is {what} {shown}", field.name);
            let control = "the same exec with the field at its bound runs";
            if !(Check { id: "A02", variant: &variant, control }.notes("refused, and why", &seen)) {
                wrong.push(format!("{variant}: {}", seen.chars().take(300).collect::<String>()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
}
