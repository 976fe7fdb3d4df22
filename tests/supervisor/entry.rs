//! Images whose program, environment, directories or root are hostile: the start fails with a clear
//! reason or works, nothing of the host changes, and nothing is left when the container is removed.
//! (R00: what attacks the start and is no row of the bar.)

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::until;
use system_tests::programs::attacker;
use system_tests::supervisor::{Supervisor, busybox_layer};
use system_tests::{Check, Client, TestServer, image, requires_root, sample, times};

use crate::hostile::{
    Host, Layer, Outcome, archive, attacker_layer, attempt, once, remove, request,
};

/// What is at `/run-me`, and how the start's answer begins, or what the program prints.
struct Program {
    what: &'static str,
    make: fn(Layer) -> Layer,
    expected: &'static str,
}

const PROGRAM: &str = "run-me";

/// An ELF header for a machine that this is not (e_machine 0x28, ARM), and its start alone.
fn elf(layer: Layer, machine: u8, length: usize) -> Layer {
    let mut bytes = vec![0_u8; 4096];
    bytes[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    (bytes[16], bytes[18], bytes[20]) = (2, machine, 1);
    bytes.truncate(length);
    layer.file(PROGRAM, 0o755, &bytes)
}

const PROGRAMS: [Program; 24] = [
    Program { what: "a FIFO", make: |layer| layer.fifo(PROGRAM), expected: "container.program-" },
    Program {
        what: "a directory",
        make: |layer| layer.directory(PROGRAM, 0o755),
        expected: "container.program-",
    },
    Program {
        what: "a link to itself",
        make: |layer| layer.link(PROGRAM, PROGRAM),
        expected: "container.",
    },
    Program {
        what: "a link out",
        make: |layer| layer.link(PROGRAM, "../../../../../../usr/bin/id"),
        expected: "container.program-",
    },
    Program {
        what: "a link to nothing",
        make: |layer| layer.link(PROGRAM, "/nowhere"),
        expected: "container.program-",
    },
    Program {
        what: "a link to a device",
        make: |layer| layer.link(PROGRAM, "/dev/zero"),
        expected: "container.program-",
    },
    Program {
        what: "a link to proc",
        make: |layer| layer.link(PROGRAM, "/proc/self/maps"),
        expected: "container.program-",
    },
    Program {
        what: "a link to memory",
        make: |layer| layer.link(PROGRAM, "/proc/self/mem"),
        expected: "container.program-",
    },
    Program {
        what: "no byte",
        make: |layer| layer.file(PROGRAM, 0o755, b""),
        expected: "container.program-",
    },
    Program {
        what: "not executable",
        make: |layer| layer.file(PROGRAM, 0o644, b"#!/bin/sh\n"),
        expected: "container.program-",
    },
    Program {
        what: "zeros",
        make: |layer| layer.file(PROGRAM, 0o755, &[0; 8192]),
        expected: "container.program-",
    },
    Program {
        what: "another machine's",
        make: |layer| elf(layer, 0x28, 4096),
        expected: "container.program-",
    },
    Program {
        what: "a cut header",
        make: |layer| elf(layer, 0x3e, 20),
        expected: "container.program-",
    },
    Program {
        what: "an empty ELF",
        make: |layer| elf(layer, 0x3e, 4096),
        expected: "container.program-",
    },
    Program {
        what: "10 KiB of interpreter",
        make: |layer| layer.file(PROGRAM, 0o755, format!("#!/{}\n", "x".repeat(10_240)).as_bytes()),
        expected: "container.program-",
    },
    Program {
        what: "an interpreter that is not there",
        make: |layer| layer.file(PROGRAM, 0o755, b"#!/no/such\n"),
        expected: "container.program-",
    },
    Program {
        what: "its own interpreter",
        make: |layer| layer.file(PROGRAM, 0o755, b"#!/run-me\n"),
        expected: "container.",
    },
    Program {
        what: "an interpreter by link",
        make: |layer| layer.file(PROGRAM, 0o755, b"#!/sh -\necho fine\n").link("sh", "bin/sh"),
        expected: "fine",
    },
    Program {
        what: "no line end",
        make: |layer| layer.file(PROGRAM, 0o755, b"#!/bin/sh"),
        expected: "",
    },
    Program {
        what: "set-user-id",
        make: |layer| layer.file(PROGRAM, 0o6755, attacker()),
        expected: "",
    },
    Program {
        what: "no right but set-user-id",
        make: |layer| layer.file(PROGRAM, 0o6000, attacker()),
        expected: "container.program-",
    },
    Program {
        what: "below a file",
        make: |layer| layer.file(PROGRAM, 0o755, b"x").link("bin/x", "/run-me/x"),
        expected: "container.program-",
    },
    Program {
        what: "absent",
        make: |layer| layer.file("other", 0o755, b"x"),
        expected: "container.program-not-found",
    },
    Program {
        what: "a plain script",
        make: |layer| layer.file(PROGRAM, 0o755, b"#!/bin/sh\necho fine\n"),
        expected: "fine",
    },
];

#[test]
fn programs_that_are_none_fail_with_a_reason() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    // The control is the last of them.
    let last = &PROGRAMS[PROGRAMS.len() - 1];
    let all: Vec<usize> = (0..PROGRAMS.len() - 1).collect();
    let chosen = sample(&all, 8).into_iter().map(|index| &PROGRAMS[index]);
    for program in std::iter::once(last).chain(chosen) {
        let layer = berth.unpack(&(program.make)(Layer::new()).bytes());
        for user in ["", "user"] {
            let mut request = request(&berth, &[&layer], &["/run-me"]);
            request["process"]["user"] = json!(user);
            let outcome = attempt(&berth, &request);
            let observed = match &outcome {
                Outcome::Refused { code, .. } => code.as_str(),
                Outcome::Ran { output, .. } => output.trim(),
            };
            let observed =
                if observed.starts_with(program.expected) { program.expected } else { observed };
            let variant = format!("program is {}, user {user:?}", program.what);
            Check { id: "R00", variant: &variant, control: "a plain script runs" }
                .sees(program.expected, observed);
        }
    }
    Check { id: "R00", variant: "programs: the host", control: Host::CONTROL }
        .finds_nothing(&host.changes());
}

/// A layer that is hostile as a whole, and what a start on it is to do: run, or be refused.
struct Tree {
    what: &'static str,
    make: fn() -> Layer,
    runs: bool,
}

fn deep(depth: usize) -> String {
    "d/".repeat(depth)
}

// An opaque mark on the root itself hides nothing: overlayfs merges roots, in every engine.
const TREES: [Tree; 12] = [
    Tree { what: "root mode 000", make: || Layer::new().directory("./", 0o000), runs: true },
    Tree { what: "root mode 7777", make: || Layer::new().directory("./", 0o7777), runs: true },
    Tree { what: "/dev mode 000", make: || Layer::new().directory("dev/", 0o000), runs: true },
    Tree { what: "/proc mode 000", make: || Layer::new().directory("proc/", 0o000), runs: true },
    Tree { what: "/etc mode 000", make: || Layer::new().directory("etc/", 0o000), runs: true },
    Tree {
        what: "root marked opaque",
        make: || Layer::new().file(".wh..wh..opq", 0o644, b""),
        runs: true,
    },
    Tree {
        what: "/bin whited out",
        make: || Layer::new().file(".wh.bin", 0o644, b""),
        runs: false,
    },
    Tree {
        what: "/proc, /sys, /dev, /etc whited out",
        make: || {
            ["proc", "sys", "dev", "etc"]
                .iter()
                .fold(Layer::new(), |layer, name| layer.file(&format!(".wh.{name}"), 0o644, b""))
        },
        runs: true,
    },
    Tree { what: "/etc is a file", make: || Layer::new().file("etc", 0o644, b"x"), runs: false },
    Tree {
        what: "/etc is opaque",
        make: || Layer::new().directory("etc/", 0o755).file("etc/.wh..wh..opq", 0o644, b""),
        runs: true,
    },
    Tree {
        what: "100 directories deep",
        make: || Layer::new().file(&format!("{}f", deep(40)), 0o644, b"x"),
        runs: true,
    },
    Tree {
        what: "1000 links in a row",
        make: || {
            (0..1000)
                .fold(Layer::new(), |layer, n| layer.link(&format!("l{n}"), &format!("l{}", n + 1)))
        },
        runs: true,
    },
];

#[test]
fn roots_that_are_hostile_start_or_fail_and_leave_nothing() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let all: Vec<usize> = (0..TREES.len()).collect();
    for tree in sample(&all, 5).into_iter().map(|index| &TREES[index]) {
        let layer = berth.unpack(&(tree.make)().bytes());
        let mut request =
            request(&berth, &[&layer], &["sh", "-c", "echo x >/dev/null && cat /etc/hostname"]);
        request["network"] = json!("private");
        let outcome = attempt(&berth, &request);
        let wanted = if tree.runs { "ran" } else { "refused" };
        let check = Check { id: "R00", variant: tree.what, control: "without the layer it runs" };
        assert!(outcome.word() == wanted, "{}: {outcome:?}", tree.what);
        check.sees(wanted, outcome.word());
        if let Outcome::Ran { exit, output } = &outcome {
            assert_eq!(
                (exit["code"].as_i64(), output.as_str()),
                (Some(0), "box\n"),
                "{}",
                tree.what
            );
        }
    }
    Check { id: "R00", variant: "roots: the host", control: Host::CONTROL }
        .finds_nothing(&host.changes());
}

/// Working directories of 10^4 links and as many levels, made by the container itself at its first run.
#[test]
fn paths_without_end_end() {
    requires_root!();
    let berth = Supervisor::start();
    let mut layer = Layer::new();
    for n in 0..10_000 {
        layer = layer.link(&format!("links/{n}"), &format!("/links/{}", n + 1));
    }
    let layer = berth.unpack(&layer.bytes());
    let long = format!("/{}", deep(2000).trim_end_matches('/'));
    for (what, cwd) in [("10^4 links", "/links/0"), ("2000 levels", long.as_str())] {
        let mut request = request(&berth, &[&layer], &["sh", "-c", "cd ..; echo fine"]);
        request["process"]["cwd"] = json!(cwd);
        // It has to end at all: a path that is followed for ever ends by the wait for the answer.
        let outcome = attempt(&berth, &request);
        let wanted = if what == "10^4 links" { "refused" } else { "ran" };
        let control = "an ordinary link is followed";
        Check { id: "R02", variant: what, control }.sees(wanted, outcome.word());
    }
}

/// What a container leaves is removed however deep it is, and nobody waits for that.
#[test]
fn a_tree_without_end_is_removed_and_holds_up_nobody() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = attacker_layer(&berth);
    let levels = times(20_000, 3_000).to_string();
    let mut deep = request(&berth, &[&layer], &["/attacker", "deep", &levels]);
    // Each directory costs the container some of the kernel's memory.
    deep["limits"]["memory_bytes"] = json!(256 << 20);
    let output = once(&berth, &deep).output();
    let control = format!("{levels} directories in each other");
    let container = deep["container"].as_str().expect("it has a name");
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| remove(&berth, container));
        // Until it is removed, and at least once: others are answered.
        loop {
            let begun = Instant::now();
            assert_eq!(berth.call(&json!({"op": "hello"}))["answer"], "hello");
            assert!(begun.elapsed() < Duration::from_secs(5), "others wait {:?}", begun.elapsed());
            if removal.is_finished() {
                break;
            }
        }
        let removed = removal.join().is_ok();
        Check { id: "R00", variant: "a deep tree is removed", control: &control }
            .sees(true, removed);
    });
    // Last: what is as deep must not be left behind by a failure.
    assert_eq!(output, format!("made {levels}\n"), "the control makes them");
}

/// What the importing of an image ends as when it is refused, in place of a status.
const IMPORT: &str = "the import is refused";

/// Configurations of images that are too much, or no sense, and what making a container of them is
/// answered; those that are no document of an image any more do not get so far.
fn configurations() -> Vec<(&'static str, Value, &'static str)> {
    let many = |count: usize| -> Vec<String> { (0..count).map(|n| format!("V{n}=x")).collect() };
    let long = |kib: usize| "x".repeat(kib << 10);
    let program = json!(["sh", "-c", "echo fine"]);
    vec![
        ("10^5 variables", json!({"Cmd": program, "Env": many(100_000)}), IMPORT),
        ("5 * 10^4 variables", json!({"Cmd": program, "Env": many(50_000)}), "422"),
        ("1 MiB of an argument", json!({"Cmd": ["echo", long(1024)]}), IMPORT),
        ("900 KiB of an argument", json!({"Cmd": ["echo", long(900)]}), "422"),
        (
            "1 MiB of a variable",
            json!({"Cmd": program, "Env": [format!("A={}", long(1024))]}),
            IMPORT,
        ),
        (
            "900 KiB of a variable",
            json!({"Cmd": program, "Env": [format!("A={}", long(900))]}),
            "422",
        ),
        ("10^5 arguments", json!({"Cmd": vec!["echo"; 100_000]}), "422"),
        ("a NUL in an argument", json!({"Cmd": ["sh", "-c", "a\0b"]}), "422"),
        ("a NUL in a variable", json!({"Cmd": program, "Env": ["A=b\0c", "PATH=/bin"]}), "201"),
        (
            "variables without names",
            json!({"Cmd": program, "Env": ["=", "=x", "x", "", "PATH=/bin"]}),
            "201",
        ),
        ("no program", json!({}), "422"),
        ("an empty program", json!({"Cmd": [""]}), "422"),
        ("a directory that climbs", json!({"Cmd": program, "WorkingDir": "/../../etc"}), "422"),
        ("a descriptor", json!({"Cmd": program, "WorkingDir": "/proc/self/fd/7"}), "422"),
        (
            "a relative directory",
            json!({"Cmd": program, "Env": ["PATH=/bin"], "WorkingDir": "tmp"}),
            "201",
        ),
        ("LD_PRELOAD", json!({"Cmd": program, "Env": ["PATH=/bin", "LD_PRELOAD=/x.so"]}), "201"),
        (
            "a signal that is none",
            json!({"Cmd": program, "Env": ["PATH=/bin"], "StopSignal": "SIGNOPE\n"}),
            "201",
        ),
        (
            "volumes that climb",
            json!({"Cmd": program, "Env": ["PATH=/bin"], "Volumes": {"/../../etc": {}, "": {}, "/proc": {}}}),
            "201",
        ),
    ]
}

#[tokio::test]
async fn configurations_that_are_too_much_are_refused_before_the_start() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await.token("operate").await;
    let layer = busybox_layer();
    let control = "the same image with a plain configuration runs";
    let plain = json!({"Cmd": ["sh", "-c", "echo fine"], "Env": ["PATH=/bin"]});
    image::import(&anna, archive("berth/plain:1", &plain, &[&layer])).await;
    assert_eq!(made(&anna, "berth/plain:1").await, 201, "the control");
    for (number, (what, config, wanted)) in sample(&configurations(), 6).into_iter().enumerate() {
        let reference = format!("berth/odd-{number}:1");
        let observed = match imported(&anna, archive(&reference, &config, &[&layer])).await {
            true => made(&anna, &reference).await.to_string(),
            false => IMPORT.to_owned(),
        };
        Check { id: "R00", variant: what, control }.sees(wanted, observed);
    }
    let runs = fs::read_dir(server.run_dir().join("containers")).expect("list the runs").count();
    assert_eq!(runs, 0, "nothing is left");
}

/// Imports an archive; whether it has become an image.
async fn imported(owner: &Client, archive: Vec<u8>) -> bool {
    let request = owner.request("POST", "/api/v1/images/import");
    let request = request.header("content-type", "application/x-tar").body(archive);
    let begun = send(request).await.expect_status(202).json();
    let path = format!("/api/v1/operations/{}", begun["id"].as_str().expect("an operation"));
    let ended = until(owner, &path, |value| value["state"] != "running").await;
    if ended["state"] != "succeeded" {
        assert_eq!(ended["failure"]["code"], "image.archive", "{ended}");
    }
    ended["state"] == "succeeded"
}

/// Makes a container of an image, starts it, waits for its end, removes it; what the start was answered.
async fn made(owner: &Client, reference: &str) -> u16 {
    let body = json!({"image": reference, "network": "none", "start": true});
    let answer = owner.post("/api/v1/containers", &body).await;
    if answer.status == 201 {
        let made = answer.json();
        let path = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
        let over = |value: &Value| {
            !["running", "starting"].contains(&value["status"].as_str().unwrap_or(""))
        };
        until(owner, &path, over).await;
        owner.delete(&path).await.expect_status(204);
    }
    answer.status
}
