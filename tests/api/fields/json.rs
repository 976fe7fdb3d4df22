//! The bodies of the API, field by field.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Check, Client, Options, TestServer, image, requires_root, sample};

use super::{Field, field, judge};

/// The fields of one route's body.
pub(super) struct Body {
    pub(super) route: &'static str,
    /// A body that is taken; `pointer` of a field is looked up in it.
    pub(super) base: Value,
    pub(super) fields: Vec<Field>,
}

fn text(length: usize) -> Value {
    json!("z".repeat(length))
}

fn list(length: usize) -> Value {
    json!(vec!["a"; length])
}

fn map(length: usize) -> Value {
    (0..length)
        .map(|number| (format!("N{number}"), json!("v")))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What a code may be without a word about it: there is nobody whose it could be.
const CODES: &[&str] = &["null", "empty", "huge text", "NUL", "newline", "turned text"];

/// Where a code proves something: nobody here has a factor.
fn code(route: &'static str) -> Body {
    let fields = vec![field("code").may_be(&CODES[1..])];
    Body { route, base: json!({"code": "123456"}), fields }
}

const TEXTS: &[&str] = &["NUL", "newline", "turned text"];

fn limits(prefix: &[&'static str; 5]) -> Vec<Field> {
    let [cpu, weight, memory, swap, pids] = *prefix;
    vec![
        field(cpu).at([json!(10)]).beyond([json!(9), json!(u32::MAX)]).may_be(&["null"]),
        field(weight)
            .at([json!(1), json!(10_000)])
            .beyond([json!(0), json!(10_001)])
            .may_be(&["null"]),
        field(memory)
            .at([json!(64 << 20)])
            .beyond([json!((6 << 20) - 1), json!(u64::MAX), json!(i64::MAX)])
            .may_be(&["null"]),
        field(swap).at([json!(0)]).beyond([json!(u64::MAX)]).may_be(&["null"]),
        field(pids).at([json!(1)]).beyond([json!(0), json!(u32::MAX)]).may_be(&["null"]),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table, one row per field")]
fn create(image: &str) -> Body {
    let mut fields = vec![
        field("name")
            .at([json!("0"), text(63)])
            .beyond([text(64), json!("-a"), json!("..")])
            .may_be(&["null"]),
        field("image").beyond([json!("a/../b"), json!("A:B:C"), text(1025)]),
        field("entrypoint").at([list(1023)]).beyond([list(1025), json!([""])]).may_be(&["null"]),
        field("entrypoint[]").may_be(&["newline", "turned text"]),
        field("command")
            .at([json!([]), list(1023)])
            .beyond([list(1025), json!([""])])
            .may_be(&["null"]),
        field("command[]").may_be(&["newline", "turned text"]),
        field("env").at([json!({}), map(1000)]).beyond([
            map(1025),
            json!({"A=B": "c"}),
            json!({"": "c"}),
            json!({"A\u{0}": "c"}),
        ]),
        field("env{}").at([json!("=")]).may_be(&["empty", "newline", "turned text"]),
        field("working_dir")
            .at([json!("/"), json!(format!("/{}", "d".repeat(1023)))])
            .beyond([json!("a"), json!("/a/../b"), json!(format!("/{}", "d".repeat(1024)))])
            .may_be(&["null"]),
        field("user")
            .at([json!("65535"), json!("0:0")])
            .beyond([json!("65536"), json!("4294967296"), json!("00"), json!("-1")])
            .may_be(&["null", "empty"]),
        field("hostname")
            .at([json!("h"), text(63)])
            .beyond([text(64), json!("-h"), json!("h.h")])
            .may_be(&["null"]),
        field("labels").at([json!({})]).beyond([map(65), json!({"a b": "c"}), json!({"<": "c"})]),
        field("labels{}").at([text(1024)]).beyond([text(1025)]).may_be(&["empty", "turned text"]),
        field("stop_signal")
            .at([json!("1"), json!("64"), json!("SIGTERM")])
            .beyond([json!("0"), json!("65"), json!("SIGNOPE")])
            .may_be(&["null"]),
        field("stop_grace_secs").at([json!(0), json!(600)]).beyond([json!(601)]).may_be(&["null"]),
        bound("lifetime_secs", 10, 31_536_000),
        field("restart").beyond([
            json!({"name": "always", "max_attempts": 3}),
            json!({"name": "no", "privileged": true}),
        ]),
        field("restart.name").at([json!("on-failure")]).beyond([json!("No"), json!("sometimes")]),
        field("restart.max_attempts")
            .at([json!(1), json!(1000)])
            .beyond([json!(0), json!(1001)])
            .may_be(&["null"]),
        field("read_only_root").at([json!(false), json!(true)]).may_be(&["true"]),
        field("tmpfs").at([json!([])]).beyond([
            json!([{"target": "/a", "size_bytes": 4096}, {"target": "/a/", "size_bytes": 4096}]),
        ]),
        field("tmpfs[].target").at([json!("/a")]).beyond([
            json!("/"),
            json!("/proc/x"),
            json!("//proc"),
            json!("/./dev"),
            json!("/a/../proc"),
            json!("a"),
        ]),
        field("tmpfs[].size_bytes").at([json!(4096)]).beyond([json!(4095), json!(u64::MAX)]),
        field("shm_bytes")
            .at([json!(4096)])
            .beyond([json!(4095), json!(u64::MAX)])
            .may_be(&["null"]),
        field("ulimits").at([json!({})]).beyond([json!({"nope": {"soft": 1, "hard": 1}})]),
        field("ulimits{}.soft").at([json!(0)]).beyond([json!(65)]),
        field("ulimits{}.hard").at([json!(64)]).beyond([json!(63)]),
        field("capabilities_dropped")
            .at([json!([]), json!(["ALL"])])
            .beyond([json!(["CAP_EVERYTHING"]), json!(vec!["x"; 100_000])]),
        field("capabilities_dropped[]").at([json!("CHOWN")]),
        // None there is none of without ports.
        field("network").at([json!("private")]).beyond([
            json!("host"),
            json!("container:1"),
            json!("bridge"),
        ]),
        field("ports").at([json!([])]).beyond([json!(vec![json!({"container_port": 1}); 65])]),
        field("ports[].container_port")
            .at([json!(1), json!(65_535)])
            .beyond([json!(0), json!(65_536)]),
        field("ports[].host_port")
            .at([json!(null)])
            .beyond([json!(0), json!(22), json!(65_535), json!(65_536)])
            .may_be(&["null"]),
        field("ports[].protocol").at([json!("udp")]).beyond([json!("sctp"), json!("TCP")]),
        field("mounts").at([json!([])]).beyond([
            json!(vec![json!({"volume": "kept", "target": "/b"}); 33]),
            json!([{"volume": "kept", "target": "/a"}]),
        ]),
        field("mounts[].volume").at([json!("kept")]).beyond([
            json!("other"),
            json!("../kept"),
            json!("/etc"),
            text(64),
        ]),
        field("mounts[].target").at([json!("/b"), json!("//b/./c/")]).beyond([
            json!("/"),
            json!("/proc/x"),
            json!("//sys"),
            json!("/./dev"),
            json!("/b/../proc"),
            json!("b"),
            json!("/a/"),
        ]),
        field("mounts[].read_only").at([json!(true)]).may_be(&["true"]),
        field("mounts[].sub_path")
            .at([json!(null), json!("d"), json!("./d//e/")])
            .beyond([json!("/d"), json!("d/.."), json!("../x"), json!("."), text(1025)])
            .may_be(&["null", "newline", "turned text"]),
        field("data_sets").at([json!([])]).beyond([
            json!(vec![json!({"name": "kept", "target": "/c"}); 17]),
            json!([{"name": "kept", "target": "/a"}]),
            json!([{"name": "kept", "target": "/b"}]),
        ]),
        field("data_sets[].name").at([json!("kept")]).beyond([
            json!("other"),
            json!("others"),
            json!("../kept"),
            json!("/usr/share"),
            json!("Kept"),
            text(64),
        ]),
        field("data_sets[].target").at([json!("/c"), json!("//c/./d/")]).beyond([
            json!("/"),
            json!("/proc/x"),
            json!("//sys"),
            json!("/c/../proc"),
            json!("c"),
            json!("/b/"),
        ]),
        field("terminal").at([json!(false), json!(true)]).may_be(&["true"]),
        field("stdin").at([json!(false), json!(true)]).may_be(&["true"]),
        field("limits"),
        field("start").at([json!(false)]).may_be(&["true"]),
    ];
    fields.extend(limits(&[
        "limits.cpu_millis",
        "limits.cpu_weight",
        "limits.memory_bytes",
        "limits.swap_bytes",
        "limits.pids",
    ]));
    Body {
        route: "POST /api/v1/containers",
        base: json!({
            "name": "driven", "image": image, "entrypoint": ["a"], "command": ["a"],
            "env": {"A": "b"}, "working_dir": "/", "user": "0", "hostname": "h",
            "labels": {"a": "b"}, "stop_signal": "TERM", "stop_grace_secs": 1,
            "lifetime_secs": 3600,
            "restart": {"name": "on-failure", "max_attempts": 3}, "read_only_root": false,
            "tmpfs": [{"target": "/a", "size_bytes": 4096}], "shm_bytes": 4096,
            "ulimits": {"nofile": {"soft": 64, "hard": 64}}, "capabilities_dropped": ["CHOWN"],
            "network": "private",
            "ports": [{"container_port": 8080, "host_port": null, "protocol": "tcp"}],
            "mounts": [{"volume": "kept", "target": "/b", "read_only": false, "sub_path": null}],
            "data_sets": [{"name": "kept", "target": "/c"}],
            "terminal": false, "stdin": false, "start": false,
            "limits": {"cpu_millis": 100, "cpu_weight": 100, "memory_bytes": 64 << 20,
                       "swap_bytes": 0, "pids": 8},
        }),
        fields,
    }
}

fn change() -> Body {
    let mut fields = vec![
        field("name")
            .at([json!("driven")])
            .beyond([text(64), json!("-a"), json!("..")])
            .may_be(&["null"]),
        field("limits").may_be(&["null"]),
        field("restart").beyond([json!({"name": "no", "privileged": true})]).may_be(&["null"]),
        field("restart.name").at([json!("on-failure")]).beyond([json!("No")]),
        field("restart.max_attempts")
            .at([json!(1), json!(1000)])
            .beyond([json!(0), json!(1001)])
            .may_be(&["null"]),
    ];
    fields.extend(limits(&[
        "limits.cpu_millis",
        "limits.cpu_weight",
        "limits.memory_bytes",
        "limits.swap_bytes",
        "limits.pids",
    ]));
    Body {
        route: "PATCH /api/v1/containers/{id}",
        base: json!({
            "name": "driven", "restart": {"name": "on-failure", "max_attempts": 3},
            "limits": {"cpu_millis": 100, "cpu_weight": 100, "memory_bytes": 64 << 20,
                       "swap_bytes": 0, "pids": 8},
        }),
        fields,
    }
}

/// What is run beside a container's first program; the container in the path does not run, so that no
/// body is taken, and what is wrong with one is said before that.
fn programs() -> Vec<Body> {
    let program = || {
        vec![
            field("program"),
            field("program.command").beyond([json!([]), list(1025), json!([""])]),
            field("program.command[]").may_be(&["newline", "turned text"]),
            field("program.env").beyond([map(1025), json!({"A=B": "c"}), json!({"": "c"})]),
            field("program.env{}").may_be(&["empty", "newline", "turned text"]),
            field("program.working_dir").beyond([json!("a"), json!("/a/../b")]).may_be(&["null"]),
            field("program.user")
                .beyond([json!("65536"), json!("00"), json!("-1")])
                .may_be(&["null", "empty"]),
        ]
    };
    let base = json!({"command": ["a"], "env": {"A": "b"}, "working_dir": "/", "user": "0"});
    let mut once = program();
    once.extend([
        field("stdin").may_be(&["empty", "huge text", "NUL", "newline", "turned text"]),
        field("encoding").beyond([json!("hex"), json!("Text")]),
        field("timeout_secs").beyond([json!(0), json!(51)]).may_be(&["null"]),
    ]);
    let mut session = program();
    session.extend([
        field("terminal").may_be(&["null"]),
        field("terminal.columns").beyond([json!(0), json!(1001)]),
        field("terminal.rows").beyond([json!(0), json!(1001)]),
    ]);
    vec![
        Body {
            route: "POST /api/v1/containers/{id}/exec",
            base: json!({"program": base, "stdin": "", "encoding": "text", "timeout_secs": 1}),
            fields: once,
        },
        Body {
            route: "POST /api/v1/containers/{id}/execs",
            base: json!({"program": base, "terminal": {"columns": 80, "rows": 24}}),
            fields: session,
        },
    ]
}

#[expect(clippy::too_many_lines, reason = "a table, one row per field")]
fn people() -> Vec<Body> {
    let role = || {
        field("role").at([json!("user")]).beyond([
            json!("system"),
            json!("Operator"),
            json!("root"),
        ])
    };
    let expires = || {
        field("expires_at")
            .at([json!("2090-12-31"), json!("2090-12-31T18:00:00+01:00"), json!("")])
            .beyond([json!("2020-01-01"), json!("2090-13-01"), json!("a"), json!("9999-12-31")])
            .may_be(&["null", "empty"])
    };
    let password = || field("password").beyond([text(9), json!("aaaaaaaaaaaa"), text(513)]);
    vec![
        Body {
            route: "POST /api/v1/people",
            base: json!({"name": "driven", "role": "user", "expires_at": "2090-01-01"}),
            fields: vec![
                // What is taken makes somebody, and of each name there is one.
                expires().at(Vec::new()),
                field("name").beyond([
                    json!("0a"),
                    text(33),
                    json!("system"),
                    json!("Anna"),
                    json!("а"),
                ]),
                role(),
            ],
        },
        Body {
            route: "POST /api/v1/people/{id}/offboarding",
            base: json!({"things": "keep"}),
            fields: vec![field("things").at([json!("keep")]).beyond([json!("Keep"), json!("all")])],
        },
        Body {
            route: "POST /api/v1/people/{id}/offboarding/preview",
            base: json!({"things": "delete"}),
            fields: vec![field("things").at([json!("keep")]).beyond([json!("Keep"), json!("all")])],
        },
        Body {
            route: "POST /api/v1/people/import",
            base: json!({"csv": "name,role\ndriven,user\n", "dry_run": true}),
            fields: vec![
                field("csv")
                    .at([
                        json!("name\ndriven"),
                        json!("name\r\n\"driven\"\r\n"),
                        json!("name\nNo Name"),
                    ])
                    .beyond([
                        json!("name"),
                        json!("name,name\na,b"),
                        json!("name\n\"a"),
                        json!("nme\na"),
                    ]),
                field("dry_run").at([json!(true)]).may_be(&["false", "true"]),
            ],
        },
        Body {
            route: "PATCH /api/v1/people/{id}",
            base: json!({"role": "user", "disabled": false, "local_user": "driven", "group": 2,
                         "expires_at": "2090-01-01"}),
            fields: vec![
                expires(),
                role().may_be(&["null"]),
                field("disabled").at([json!(false)]).may_be(&["null", "true"]),
                field("group").at([json!(2)]).beyond([json!(3), json!(0)]).may_be(&["null"]),
                field("local_user")
                    .at([text(64), json!("")])
                    .beyond([text(65), json!("root"), json!("-x"), json!("a:b"), json!("a b")])
                    .may_be(&["null", "empty"]),
            ],
        },
        Body {
            route: "POST /api/v1/tokens",
            base: json!({"name": "driven", "scope": "read", "days": 1}),
            fields: vec![
                field("name")
                    .at([text(64)])
                    .beyond([text(65), json!(" a")])
                    .may_be(&["turned text"]),
                field("scope").at([json!("manage")]).beyond([json!("root"), json!("Manage")]),
                field("days").at([json!(1), json!(366)]).beyond([
                    json!(0),
                    json!(367),
                    json!(u32::MAX),
                ]),
            ],
        },
        Body {
            route: "POST /api/v1/sessions",
            base: json!({"name": "nobody", "password": "wrong wrong", "code": "123456"}),
            fields: vec![
                field("name").may_be(&["empty", "huge text", "NUL", "newline", "turned text"]),
                field("password").may_be(&["empty", "huge text", "NUL", "newline", "turned text"]),
                field("code").may_be(CODES),
            ],
        },
        code("POST /api/v1/me/second-factor/confirm"),
        code("POST /api/v1/me/second-factor/codes"),
        code("POST /api/v1/me/second-factor/remove"),
        Body {
            route: "POST /api/v1/me/second-factor",
            base: json!({"present_password": "wrong wrong"}),
            fields: vec![field("present_password")],
        },
        Body {
            route: "PUT /api/v1/me/password",
            base: json!({"present_password": "wrong wrong", "password": "another one"}),
            fields: vec![
                field("present_password").may_be(&[
                    "empty",
                    "huge text",
                    "NUL",
                    "newline",
                    "turned text",
                ]),
                password().may_be(TEXTS),
            ],
        },
        Body {
            route: "POST /api/v1/invitations/look",
            base: json!({"secret": "x"}),
            fields: vec![field("secret").may_be(&[
                "empty",
                "huge text",
                "NUL",
                "newline",
                "turned text",
            ])],
        },
        Body {
            route: "POST /api/v1/invitations/accept",
            base: json!({"secret": "x", "password": "another one", "code": "123456"}),
            fields: vec![
                field("code").may_be(CODES),
                field("secret").may_be(&["empty", "huge text", "NUL", "newline", "turned text"]),
                field("password").may_be(&["empty", "huge text", "NUL", "newline", "turned text"]),
            ],
        },
        Body {
            route: "POST /api/v1/setup",
            base: json!({"secret": "x", "name": "eve", "password": "another one"}),
            fields: ["secret", "name", "password"]
                .map(|name| {
                    field(name).may_be(&["empty", "huge text", "NUL", "newline", "turned text"])
                })
                .into(),
        },
    ]
}

fn registries() -> Vec<Body> {
    let bad =
        || [json!("a b"), json!("../x"), json!("host/path"), json!("user@host"), json!("http://a")];
    vec![
        Body {
            route: "PUT /api/v1/registries",
            base: json!({"registry": "driven.lab", "username": "a", "password": "b"}),
            fields: vec![
                field("registry").at([json!("a.lab:65535")]).beyond(bad()),
                field("username")
                    .at([text(256)])
                    .beyond([text(257), json!("a:b")])
                    .may_be(&["turned text"]),
                field("password").at([text(8192)]).beyond([text(8193)]).may_be(&["turned text"]),
            ],
        },
        Body {
            route: "POST /api/v1/system/registries/check",
            base: json!({"registry": "not.configured"}),
            fields: vec![field("registry").beyond(bad())],
        },
        Body {
            route: "POST /api/v1/images/pull",
            base: json!({"reference": "127.0.0.1:1/a:b"}),
            fields: vec![field("reference").at([json!("127.0.0.1:1/driven:b")]).beyond([
                json!("A b"),
                json!("a/../b"),
                json!("a@sha256:x"),
                json!("a@md5:00"),
                text(513),
            ])],
        },
        Body {
            route: "POST /api/v1/images/{id}/tags",
            base: json!({"reference": "lab/a:b"}),
            fields: vec![field("reference").at([json!("lab/driven:b")]).beyond([
                json!("A b"),
                json!("a/../b"),
                json!("a@sha256:x"),
                text(513),
            ])],
        },
    ]
}

/// What may be bounded or not: from the least to the most, and what lies beyond both.
fn bound(name: &'static str, least: u64, most: u64) -> Field {
    let below = least.checked_sub(1).into_iter().map(|below| json!(below));
    let beyond: Vec<Value> = below.chain([json!(most + 1)]).collect();
    field(name).at([json!(least), json!(most)]).beyond(beyond).may_be(&["null"])
}

/// A person's own first: everybody's is for the others then.
fn allowances() -> Vec<Body> {
    let rate = |name, least| bound(name, least, 10_000_000_000);
    let of = |route: &'static str| Body {
        route,
        base: json!({
            "cpu_millis": null, "cpu_weight": 100, "memory_bytes": null, "swap_bytes": null,
            "pids": null, "containers_max": null, "ports_max": null,
            "images_max": null, "images_bytes": null, "data_bytes": null, "io_weight": null,
            "io_read_bytes_per_sec": null, "io_write_bytes_per_sec": null,
            "net_bytes_per_sec": null, "lifetime_secs": null, "lifetime_default_secs": null,
            "idle_secs": null,
        }),
        fields: vec![
            bound("cpu_millis", 10, 1_024_000),
            field("cpu_weight").at([json!(1), json!(10_000)]).beyond([json!(0), json!(10_001)]),
            bound("memory_bytes", 16 << 20, 1 << 42),
            bound("swap_bytes", 0, 1 << 42),
            bound("pids", 8, 4_194_304),
            bound("containers_max", 0, 100_000),
            bound("ports_max", 0, 65_535),
            bound("images_max", 0, 100_000),
            bound("images_bytes", 1 << 20, 1 << 42),
            // The most is what the disk has; groups have none.
            field("data_bytes")
                .at(if route.contains("/groups/") { vec![] } else { vec![json!(32 << 20)] })
                .beyond([json!((32 << 20) - 1), json!((1_u64 << 42) + 1)])
                .may_be(&["null"]),
            bound("io_weight", 1, 10_000),
            rate("io_read_bytes_per_sec", 1 << 20),
            rate("io_write_bytes_per_sec", 1 << 20),
            rate("net_bytes_per_sec", 16 << 10),
            bound("lifetime_secs", 10, 31_536_000),
            bound("lifetime_default_secs", 10, 31_536_000),
            bound("idle_secs", 30, 31_536_000),
        ],
    };
    vec![
        of("PUT /api/v1/people/{id}/allowance"),
        of("PUT /api/v1/allowance"),
        of("PUT /api/v1/groups/{id}/allowance"),
        of("POST /api/v1/people/{id}/allowance/preview"),
        of("POST /api/v1/allowance/preview"),
        of("POST /api/v1/groups/{id}/allowance/preview"),
    ]
}

fn groups() -> Vec<Body> {
    let name = || field("name").beyond([json!("0a"), text(33), json!("system"), json!("Anna")]);
    let note = || {
        field("note").at([text(1), text(500)]).beyond([text(501)]).may_be(&["empty", "turned text"])
    };
    let base = json!({"name": "course", "note": ""});
    vec![
        Body {
            route: "PUT /api/v1/groups/{id}/members",
            base: json!({"name": "tried", "role": "member"}),
            fields: vec![
                field("name").at([json!("tried")]).beyond([json!("nobody"), json!("Tried")]),
                field("role")
                    .at([json!("member"), json!("manager")])
                    .beyond([json!("owner"), json!("Member")]),
            ],
        },
        Body { route: "POST /api/v1/groups", base, fields: vec![name(), note().at([text(500)])] },
        Body {
            route: "PATCH /api/v1/groups/{id}",
            base: json!({"name": "everybody", "note": ""}),
            fields: vec![
                name().may_be(&["null"]),
                note().may_be(&["null", "empty", "turned text"]),
            ],
        },
    ]
}

fn asks() -> Vec<Body> {
    let reason = || {
        field("reason")
            .at(Vec::new())
            .beyond([text(501), json!(""), json!(" "), json!("a\nb")])
            .may_be(&["turned text"])
    };
    let until = || {
        let beyond = [json!("2020-01-01"), json!("2090-01-01"), json!("tomorrow")];
        field("until").beyond(beyond).may_be(&["null", "empty"])
    };
    vec![
        Body {
            route: "POST /api/v1/asks",
            base: json!({
                "limit": "containers_max", "wanted": 99_000, "until": null, "reason": "driven",
            }),
            fields: vec![
                field("limit").beyond([json!("cpu_weight"), json!("Memory")]),
                field("wanted").beyond([json!(0), json!(100_001), json!(u64::MAX)]),
                until(),
                reason(),
            ],
        },
        Body {
            route: "POST /api/v1/asks/{id}/decline",
            base: json!({"reason": "driven"}),
            fields: vec![reason()],
        },
        Body {
            route: "POST /api/v1/asks/{id}/approve",
            base: json!({"granted": 99_000, "until": null, "for_good": false, "answer": ""}),
            fields: vec![
                field("granted")
                    .beyond([json!(0), json!(100_001), json!(u64::MAX)])
                    .may_be(&["null"]),
                until(),
                field("for_good").may_be(&["true"]),
                field("answer")
                    .beyond([text(501), json!("a\nb")])
                    .may_be(&["empty", "turned text"]),
            ],
        },
    ]
}

fn looks() -> Body {
    Body {
        route: "POST /api/v1/containers/{id}/looks",
        base: json!({"reason": "to see"}),
        fields: vec![
            // The owner of what is tried has no need to; tests/containers has somebody else.
            field("reason")
                .at(Vec::new())
                .beyond([text(501), json!(""), json!(" "), json!("a\nb")])
                .may_be(&["turned text"]),
        ],
    }
}

fn grants() -> Vec<Body> {
    let kind = || field("kind").at([json!("person")]).beyond([json!("Person"), json!("everybody")]);
    let name = || {
        let beyond = [json!("olga"), json!("nobody"), json!("Tried"), text(33)];
        field("name").at([json!("tried")]).beyond(beyond)
    };
    vec![
        Body {
            route: "PUT /api/v1/containers/{id}/grants",
            base: json!({"kind": "person", "name": "tried", "rights": ["state"]}),
            fields: vec![
                kind(),
                name(),
                field("rights")
                    .at([json!(["state"]), json!(["logs", "files"])])
                    .beyond([json!([]), json!("state")]),
                field("rights[]")
                    .at(["state", "logs", "terminal", "files", "manage"].map(|right| json!(right)))
                    .beyond([json!("remove"), json!("share"), json!("State"), json!("write")]),
            ],
        },
        Body {
            route: "PUT /api/v1/volumes/{id}/grants",
            base: json!({"kind": "person", "name": "tried", "rights": ["files"]}),
            fields: vec![
                kind(),
                name(),
                field("rights").at([json!(["files"]), json!(["state", "write"])]).beyond([
                    json!([]),
                    json!(["state"]),
                    json!("files"),
                ]),
                field("rights[]").at(["files", "write"].map(|right| json!(right))).beyond([
                    json!("state"),
                    json!("logs"),
                    json!("remove"),
                    json!("Write"),
                ]),
            ],
        },
        Body {
            route: "PUT /api/v1/images/{id}/grants",
            base: json!({"kind": "person", "name": "tried", "rights": ["files"]}),
            fields: vec![
                kind(),
                name(),
                field("rights").at([json!(["files"]), json!(["state", "files"])]).beyond([
                    json!([]),
                    json!(["state"]),
                    json!("files"),
                ]),
                field("rights[]").at([json!("files")]).beyond([
                    json!("state"),
                    json!("write"),
                    json!("logs"),
                    json!("Files"),
                ]),
            ],
        },
        Body {
            route: "POST /api/v1/images/{id}/keep",
            base: json!({"reference": "lab/kept:v1"}),
            fields: vec![
                field("reference")
                    .at([json!(null), json!("lab/kept:v1")])
                    .beyond([json!("A b"), json!("a@sha256:00"), text(400)])
                    .may_be(&["null", "empty"]),
            ],
        },
    ]
}

fn volumes() -> Vec<Body> {
    let name =
        || field("name").beyond([text(64), json!("-a"), json!(".."), json!("0123456789abcdef")]);
    vec![
        Body {
            route: "POST /api/v1/volumes",
            base: json!({"name": "driven"}),
            fields: vec![name().at([json!("0"), text(63)])],
        },
        Body {
            route: "POST /api/v1/volumes/{id}/hand-over",
            base: json!({"to": "tried"}),
            // Taken, it is somebody else's; that is in tests/containers.
            fields: vec![field("to").beyond([
                json!("nobody"),
                json!("olga"),
                json!("Tried"),
                text(33),
            ])],
        },
        Body {
            route: "PATCH /api/v1/volumes/{id}",
            base: json!({"name": "kept"}),
            fields: vec![name().at([json!("kept"), json!(null)]).may_be(&["null"])],
        },
    ]
}

fn folders() -> Vec<Body> {
    let path = || {
        let odd = &["newline", "turned text"];
        field("path").beyond([json!("/"), json!("/.."), text(300)]).may_be(odd)
    };
    vec![
        Body {
            route: "POST /api/v1/volumes/{id}/files/folder",
            base: json!({"path": "/driven"}),
            fields: vec![path().at([json!("/driven"), json!(format!("/{}", "z".repeat(255)))])],
        },
        Body {
            route: "POST /api/v1/containers/{id}/files/folder",
            base: json!({"path": "/driven"}),
            fields: vec![path().at([json!("/driven")])],
        },
    ]
}

pub(super) fn bodies(image: &str) -> Vec<Body> {
    let mut all = vec![create(image), change()];
    all.extend(programs());
    all.extend(people());
    all.extend(registries());
    all.extend(allowances());
    all.extend(groups());
    all.extend(volumes());
    all.extend(grants());
    all.push(looks());
    all.extend(asks());
    all.extend(folders());
    all.push(Body {
        route: "POST /api/v1/gc",
        base: json!({"unneeded_days": 3650, "tagged": false, "everyone": false}),
        fields: vec![
            field("unneeded_days").at([json!(1), json!(3650)]).beyond([json!(3651)]),
            field("tagged").at([json!(true), json!(false)]).may_be(&["true"]),
            field("everyone").at([json!(true), json!(false)]).may_be(&["true"]),
        ],
    });
    // Last: others are refused what is new from here on.
    all.push(Body {
        route: "PUT /api/v1/maintenance",
        base: json!({"message": "driven"}),
        fields: vec![
            field("message").at([text(1), text(300)]).beyond([text(301)]).may_be(&["turned text"]),
        ],
    });
    all
}

/// The fields of every body, from the document: `a`, `a.b`, `a[].b`, `a{}`.
fn in_the_document(document: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let mut fields = BTreeSet::new();
            collect(document, schema, "", &mut fields);
            let route = format!("{} {path}", method.to_uppercase());
            found.extend(fields.into_iter().map(|field| (route.clone(), field)));
        }
    }
    found
}

fn collect(document: &Value, schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return collect(document, &document["components"]["schemas"][name], at, found);
    }
    for one in schema["oneOf"].as_array().into_iter().flatten() {
        collect(document, one, at, found);
    }
    for (name, one) in schema["properties"].as_object().into_iter().flatten() {
        let field = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        collect(document, one, &field, found);
        found.insert(field);
    }
    for (inner, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        let Some(one) = schema.get(inner).filter(|one| one.is_object()) else { continue };
        let field = format!("{at}{sign}");
        let before = found.len();
        collect(document, one, &field, found);
        // A scalar is a field of its own; an object's fields stand for it.
        if found.len() == before {
            found.insert(field);
        }
    }
}

/// Where a field is in a body: `/a/b`, the first of a list or map.
pub(super) fn pointer(base: &Value, name: &str) -> String {
    let mut pointer = String::new();
    for part in name.split('.') {
        let plain = part.trim_end_matches("[]").trim_end_matches("{}");
        pointer = format!("{pointer}/{plain}");
        if part.ends_with("[]") {
            pointer.push_str("/0");
        } else if part.ends_with("{}") {
            let map = base.pointer(&pointer).and_then(Value::as_object);
            let key = map.and_then(|map| map.keys().next()).expect("the base has an entry");
            pointer = format!("{pointer}/{key}");
        }
    }
    pointer
}

#[tokio::test]
async fn every_field_of_a_body_has_a_row_and_every_row_a_field() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let document = server.anonymous().get("/api/v1/openapi.json").await.json();
    let known = in_the_document(&document);
    let mut rows = BTreeSet::new();
    for body in bodies("x") {
        rows.extend(body.fields.iter().map(|field| (body.route.to_owned(), field.name.to_owned())));
    }
    let lacking: Vec<_> = known.difference(&rows).collect();
    assert!(lacking.is_empty(), "fields without a row in tests/api/fields/json.rs: {lacking:#?}");
    let idle: Vec<_> = rows.difference(&known).collect();
    assert!(idle.is_empty(), "rows without a field: {idle:#?}");
    assert!(known.len() > 60, "the control: the document names {} fields", known.len());
}

/// What the routes need in their path.
async fn ids(owner: &Client, image: &str) -> (String, String) {
    let body = json!({"name": "driven", "image": image, "command": ["a"]});
    let made = owner.post("/api/v1/containers", &body).await.expect_status(201).json();
    owner.post("/api/v1/volumes", &json!({"name": "kept"})).await.expect_status(201);
    let more = json!({"limit": "containers_max", "wanted": 99_000, "reason": "driven"});
    owner.post("/api/v1/asks", &more).await.expect_status(201);
    let person = json!({"name": "tried", "role": "user"});
    let person = owner.post("/api/v1/people", &person).await.expect_status(201).json();
    (made["id"].as_str().expect("an id").to_owned(), person["person"]["id"].to_string())
}

#[tokio::test]
async fn each_field_takes_its_bounds_and_nothing_beyond() {
    requires_root!();
    let server = TestServer::with(super::generous()).await;
    let olga = server.operator();
    let archive = image::archive("lab/app:v1", &[("a", 0o755, b"a")]);
    let image = image::import(&olga, archive).await;
    let (container, person) = ids(&olga, &image).await;
    let mut wrong = Vec::new();
    for body in bodies(&image) {
        let (method, path) = body.route.split_once(' ').expect("a method and a path");
        let id = match path {
            path if path.contains("/people/") => &person,
            path if path.contains("/asks/") => "1",
            path if path.contains("/groups/") => "2",
            path if path.contains("/volumes/") => "kept",
            path if path.contains("/images/") => &image,
            _ => &container,
        };
        let path = path.replace("{id}", id);
        for field in &body.fields {
            let pointer = pointer(&body.base, field.name);
            let with = |value: &Value| {
                let mut sent = body.base.clone();
                *sent.pointer_mut(&pointer).expect("the base has the field") = value.clone();
                // A container beside the one that is changed.
                if body.route == "POST /api/v1/containers" && field.name != "name" {
                    sent["name"] = json!("other");
                }
                sent
            };
            for value in &field.at {
                let answer = olga.send(method, &path, &with(value)).await;
                if !(200..300).contains(&answer.status) {
                    wrong.push(format!(
                        "{} {} at {}: {answer:?}",
                        body.route,
                        field.name,
                        super::cut(&value.to_string())
                    ));
                }
                undo(&olga, &body, &answer).await;
            }
            for (what, value) in sample(&field.refused(), 6) {
                let answer = olga.send(method, &path, &with(&value)).await;
                let why = judge(&pointer, &answer).unwrap_or_else(|| "refused".to_owned());
                let variant = format!("{} {} is {what}", body.route, field.name);
                let control = "the same request with the field at its bound is taken";
                if !(Check { id: "A02", variant: &variant, control }.notes("refused", &why)) {
                    wrong.push(format!("{variant}: {why}"));
                }
                undo(&olga, &body, &answer).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    let left = olga.get("/api/v1/containers").await.json();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "something was made: {left}");
}

/// Takes away what a request has made, so that the next is judged by itself.
async fn undo(client: &Client, body: &Body, answer: &system_tests::Answer) {
    if !(200..300).contains(&answer.status) {
        return;
    }
    let made = serde_json::from_str::<Value>(&answer.text).unwrap_or_default();
    match body.route {
        "POST /api/v1/containers" => {
            let id = made["id"].as_str().expect("an id");
            client.delete(&format!("/api/v1/containers/{id}?force=true")).await;
        }
        "POST /api/v1/volumes" => {
            let id = made["id"].as_str().expect("an id");
            client.delete(&format!("/api/v1/volumes/{id}")).await;
        }
        "POST /api/v1/tokens" => {
            let id = made["token"]["id"].as_str().expect("an id");
            client.delete(&format!("/api/v1/tokens/{id}")).await;
        }
        "PUT /api/v1/registries" => {
            let name = made["registry"].as_str().expect("a name");
            send(client.request("DELETE", &format!("/api/v1/registries?registry={name}"))).await;
        }
        _ => {}
    }
}
