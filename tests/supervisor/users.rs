//! R13, R14: who runs a program, when the image and the request say so by number or name, and when the
//! image's account files are traps.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::supervisor::{Supervisor, busybox_layer};
use system_tests::{Check, TestServer, image, requires_root, sample};

use crate::hostile::{Host, Layer, Outcome, archive, attempt, once, remove, request};

/// What a container that runs as each of these must be: its ids, or nothing at all.
const USERS: [(&str, Option<&str>); 34] = [
    ("", Some("0 0 0")),
    ("0", Some("0 0 0")),
    ("root", Some("0 0 0")),
    ("user", Some("1000 1000 1000")),
    ("1000", Some("1000 1000 1000")),
    ("77", Some("77 0 0")),
    ("77:99", Some("77 99 99")),
    ("user:0", Some("1000 0 0")),
    ("user:77", Some("1000 77 77")),
    ("65535:65535", Some("65535 65535 65535")),
    ("65536", None),
    ("2147483647", None),
    ("2147483648", None),
    ("4294967294", None),
    ("4294967295", None),
    ("4294967296", None),
    ("18446744073709551616", None),
    ("-1", None),
    ("-0", None),
    ("00", None),
    ("007", None),
    ("+5", None),
    ("1e3", None),
    ("0x0", None),
    ("0 ", None),
    (" 0", None),
    ("٠", None),
    (":0", None),
    ("root:", None),
    ("root:99999999999", None),
    ("root:-1", None),
    ("nobodyhere", None),
    ("user:nogroup", None),
    ("root\n", None),
];

const IDS: &str = "echo $(id -u) $(id -g) $(id -G)";

/// What the naive reading makes of a number: the kernel's 32 bits of it.
fn naive(user: &str) -> String {
    let number = user.trim().parse::<i128>();
    number.map_or_else(
        |_| "a runtime that reads names only would look for it".to_owned(),
        |number| format!("cut to 32 bits it would be {}", number.rem_euclid(1 << 32)),
    )
}

#[test]
fn users_become_exactly_that_or_nothing() {
    requires_root!();
    let berth = Supervisor::start();
    for (user, wanted) in sample(&USERS, 16) {
        let mut request = request(&berth, &[], &["sh", "-c", IDS]);
        request["process"]["user"] = json!(user);
        let outcome = attempt(&berth, &request);
        let observed = match &outcome {
            Outcome::Ran { output, .. } => output.trim(),
            Outcome::Refused { .. } => "refused",
        };
        let variant = format!("{user:?} to the supervisor");
        Check { id: "R13", variant: &variant, control: &naive(user) }
            .sees(wanted.unwrap_or("refused"), observed);
    }
}

#[tokio::test]
async fn users_of_requests_and_of_images_are_checked_by_the_api() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await.token("operate").await;
    let layer = busybox_layer();
    image::import(&anna, archive("berth/plain:1", &json!({"Cmd": ["true"]}), &[&layer])).await;
    for (number, (user, wanted)) in sample(&USERS, 12).into_iter().enumerate() {
        // The image's own first: it is only known to be wrong when a container is made of it.
        let reference = format!("berth/user-{number}:1");
        let config = json!({"Cmd": ["sh", "-c", IDS], "User": user, "Env": ["PATH=/bin"]});
        image::import(&anna, archive(&reference, &config, &[&layer])).await;
        for (way, body) in [
            ("image", json!({"image": reference})),
            ("request", json!({"image": "berth/plain:1", "user": user})),
        ] {
            let mut body = body;
            body["command"] = json!(["sh", "-c", IDS]);
            body["network"] = json!("none");
            body["start"] = json!(true);
            let answer = anna.post("/api/v1/containers", &body).await;
            let observed = match answer.status {
                201 => ran(&anna, &answer.json()).await,
                400 | 409 | 422 => "refused".to_owned(),
                status => panic!("{user:?} by {way}: {status} {}", answer.text),
            };
            let variant = format!("{user:?} by {way}");
            Check { id: "R13", variant: &variant, control: &naive(user) }
                .sees(wanted.unwrap_or("refused"), observed);
        }
    }
}

/// The ids that a container said, or that it was not started.
async fn ran(owner: &system_tests::Client, made: &Value) -> String {
    let id = made["id"].as_str().expect("a container has an id");
    let path = format!("/api/v1/containers/{id}");
    let over = |value: &Value| value["status"] != "running" && value["status"] != "starting";
    let ended = system_tests::containers::until(owner, &path, over).await;
    let log = system_tests::containers::log(owner, id, "").await;
    owner.delete(&path).await.expect_status(204);
    let ids: Vec<&str> =
        log.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    if ids.is_empty() { format!("refused: {ended}")[..7].to_owned() } else { ids.join(" ") }
}

/// What an image has in place of an account file, and what the container itself can make of it.
#[derive(Debug, Clone, Copy)]
enum Trap {
    Link(&'static str),
    Fifo,
    Directory,
    Device,
    /// Bytes, repeated.
    Bytes(&'static [u8], usize),
    /// Made by the container's own root at its first run, in its writable layer.
    Script(&'static str),
}

const LINE: &[u8] = b"x:x:1:1::/:/bin/sh\n";

const TRAPS: [Trap; 13] = [
    Trap::Link("CANARY/passwd"),
    Trap::Link("../../../../../../CANARY/passwd"),
    Trap::Link("/proc/self/fd/0"),
    Trap::Link("/proc/1/root/CANARY/passwd"),
    Trap::Link("/proc/kmsg"),
    Trap::Link("/dev/zero"),
    Trap::Fifo,
    Trap::Directory,
    Trap::Device,
    Trap::Bytes(b"\0", 1 << 20),
    Trap::Bytes(LINE, 1_000_000),
    Trap::Bytes(b"trap:x", 1 << 19),
    Trap::Script("dd if=/dev/zero of=/etc/FILE bs=1 count=1 seek=2147483647 2>/dev/null"),
];

/// What the start may take, and the supervisor may grow by.
const LIMIT: Duration = Duration::from_secs(5);
const GROWTH_KIB_MAX: u64 = 32 << 10;

#[test]
fn account_files_that_are_traps_neither_lead_out_nor_hold_up() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let line = "trap:x:12:12::/:/bin/sh\n";
    // Not part of the canary's state: it is what a link out would find.
    let outside = berth.dir.join("outside");
    fs::create_dir(&outside).expect("make a directory");
    fs::write(outside.join("passwd"), line).expect("write a host file");
    let place = outside.to_str().expect("it is UTF-8").trim_start_matches('/').to_owned();
    let layer = berth.unpack(&Layer::new().file("etc/passwd", 0o644, line.as_bytes()).bytes());
    let mut plain = request(&berth, &[&layer], &["id", "-u"]);
    plain["process"]["user"] = json!("trap");
    let control = attempt(&berth, &plain).output();
    assert_eq!(control, "12\n", "the control becomes that user");
    let control = format!("the same line in an ordinary file makes user {}", control.trim());
    let all: Vec<(Trap, &str)> =
        TRAPS.iter().flat_map(|trap| ["passwd", "group"].map(|file| (*trap, file))).collect();
    for (trap, file) in sample(&all, 8) {
        let before = resident_kib(berth.pid());
        let (outcome, took) = with_trap(&berth, trap, file, &place);
        let grown = resident_kib(berth.pid()).saturating_sub(before);
        let variant = format!("{file}: {trap:?}");
        let variant = &variant[..variant.len().min(120)];
        let check = || Check { id: "R14", variant, control: &control };
        check().sees("refused", outcome.word());
        check().sees(true, took < LIMIT);
        check().sees(true, grown < GROWTH_KIB_MAX);
    }
    Check { id: "R14", variant: "the host", control: &control }.finds_nothing(&host.changes());
}

fn with_trap(berth: &Supervisor, trap: Trap, file: &str, outside: &str) -> (Outcome, Duration) {
    let path = format!("etc/{file}");
    // By name in both files: a user of that name, or a group.
    let user = if file == "passwd" { "trap" } else { "user:trap" };
    let layer = match trap {
        Trap::Link(target) => {
            let target = target.replace("CANARY", outside);
            let target = if target.starts_with(outside) { format!("/{target}") } else { target };
            Layer::new().link(&path, &target)
        }
        Trap::Fifo => Layer::new().fifo(&path),
        Trap::Directory => Layer::new().directory(&format!("{path}/"), 0o755),
        Trap::Device => Layer::new().device(&path, tar::EntryType::Char, 1, 5),
        Trap::Bytes(bytes, times) => Layer::new().file(&path, 0o644, &bytes.repeat(times)),
        Trap::Script(_) => Layer::new(),
    };
    let layer = berth.unpack(&layer.directory("empty/", 0o755).bytes());
    let mut request = request(berth, &[&layer], &["id"]);
    let container = request["container"].as_str().expect("it has a name").to_owned();
    if let Trap::Script(script) = trap {
        request["process"]["args"] = json!(["sh", "-c", script.replace("FILE", file)]);
        once(berth, &request).output();
        request["run"] = json!(2);
    }
    request["process"]["user"] = json!(user);
    let begun = Instant::now();
    let outcome = once(berth, &request);
    let took = begun.elapsed();
    remove(berth, &container);
    (outcome, took)
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
