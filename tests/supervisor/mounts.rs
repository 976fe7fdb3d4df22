//! R07: mounts that are asked for, and files that Berth lays into every root, where an image's links
//! lead them to `/proc`, `/sys`, `/dev` or out of the root: refused, and nothing lands elsewhere.

use std::fs;

use serde_json::{Value, json};
use system_tests::containers::import;
use system_tests::programs::unguarded;
use system_tests::supervisor::Supervisor;
use system_tests::{Check, TestServer, requires_root, sample};

use crate::hostile::{Host, Layer, Outcome, TOKEN, attempt, request};
use crate::paths::bare_root;

/// Targets that the API refuses by their text.
const TARGETS: [&str; 32] = [
    "/",
    "",
    "//",
    "/.",
    "/..",
    "tmp",
    "./tmp",
    "/proc",
    "/proc/",
    "//proc",
    "/./proc",
    "/proc/self",
    "/proc/self/attr",
    "/proc/sys",
    "//proc/./sys",
    "/proc/sys/kernel",
    "/proc/1/root",
    "/proc/../proc/sys",
    "/tmp/../proc",
    "/tmp/../../../etc",
    "/sys",
    "/sys/",
    "/sys/fs/cgroup",
    "/sys/kernel",
    "//sys//./kernel",
    "/dev",
    "/dev/",
    "/dev/null",
    "/dev/pts",
    "/dev/shm",
    "/dev/../dev/shm",
    "/a\0b",
];

/// What a container with this file system in memory is answered.
async fn asked(owner: &system_tests::Client, target: &str) -> u16 {
    let body = json!({"image": system_tests::containers::IMAGE, "command": ["true"],
        "network": "none", "tmpfs": [{"target": target, "size_bytes": 65_536}]});
    owner.post("/api/v1/containers", &body).await.status
}

#[tokio::test]
async fn mounts_on_what_is_the_profiles_are_refused_by_the_api() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await.token("operate").await;
    import(&anna).await;
    let fine = asked(&anna, "/tmp").await;
    assert_eq!(fine, 201, "the control is made");
    for target in sample(&TARGETS, TARGETS.len()) {
        let check = Check { id: "R07", variant: target, control: "the same request for /tmp: 201" };
        check.sees(422, asked(&anna, target).await);
    }
}

/// Links of an image and a target that goes by them: what it would cover.
const LINKED: [(&str, &str, &str); 16] = [
    ("x", "/proc", "/x"),
    ("x", "/proc", "/x/sys"),
    ("x", "/proc", "/x/self"),
    ("x", "/proc", "/x/1/attr"),
    ("x", "/proc/sys", "/x/net/ipv4"),
    ("x", "proc/sys/kernel", "/x"),
    ("x", "/proc/irq", "/x"),
    ("x", "../../../proc/self/task", "/x"),
    ("x", "/proc/self/fd", "/x"),
    ("x", "/sys", "/x"),
    ("x", "/sys/kernel", "/x"),
    ("x", "/sys/fs", "/x/cgroup"),
    ("x", "/dev", "/x"),
    ("x", "/dev", "/x/pts"),
    ("x", "/dev/shm", "/x/inner"),
    ("x", "/dev/mqueue", "/x"),
];

#[test]
fn links_of_an_image_lead_no_mount_into_the_profiles_own() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let root = bare_root(&berth);
    std::os::unix::fs::symlink("proc", root.join("x")).expect("link");
    let control = unguarded(&format!(
        "mount -t proc proc {root}/proc; mount -t tmpfs none {root}/x/sys && ls {root}/proc/sys | wc -l",
        root = root.display()
    ));
    assert_eq!(control.trim(), "0", "the control covers /proc/sys");
    let control = "mount(8) through the link covers /proc/sys";
    for (name, target, place) in sample(&LINKED, 6) {
        let layer = berth.unpack(&Layer::new().link(name, target).bytes());
        let mut request = request(&berth, &[&layer], &["sh", "-c", "cat /proc/self/mountinfo"]);
        request["tmpfs"] = json!([{"target": place, "size_bytes": 65_536}]);
        let outcome = attempt(&berth, &request);
        let variant = format!("{name} -> {target}, tmpfs on {place}");
        let clear =
            matches!(&outcome, Outcome::Refused { code, .. } if code == "container.mount-target");
        assert!(clear || matches!(outcome, Outcome::Ran { .. }), "{variant}: {outcome:?}");
        Check { id: "R07", variant: &variant, control }.sees("refused", outcome.word());
    }
    // Links that stay in the root are followed: absolute, relative, and one that climbs.
    for target in ["/tmp", "tmp", "../../../../tmp", "/tmp/new"] {
        let layer = berth.unpack(&Layer::new().link("x", target).bytes());
        let mut request = request(&berth, &[&layer], &["cat", "/proc/self/mountinfo"]);
        request["tmpfs"] = json!([{"target": "/x/inner", "size_bytes": 65_536}]);
        let outcome = attempt(&berth, &request);
        let place = target.trim_start_matches("../").trim_start_matches('/');
        let seen = outcome.text().contains(&format!(" /{place}/inner "));
        let variant = format!("x -> {target}, tmpfs on /x/inner");
        // A link that leads nowhere is an error: nothing is made behind it.
        let wanted = target != "/tmp/new";
        Check { id: "R07", variant: &variant, control }.sees(wanted, seen);
    }
    Check { id: "R07", variant: "the host", control }.finds_nothing(&host.changes());
}

/// What an image has where Berth lays its own file: `/etc/hostname`, `hosts`, `resolv.conf`.
#[derive(Debug, Clone, Copy)]
enum Trap {
    Link(&'static str),
    Directory,
    Fifo,
    /// `/etc` itself is this link.
    Etc(&'static str),
}

const TRAPS: [Trap; 16] = [
    Trap::Link("CANARY/token"),
    Trap::Link("CANARY/made"),
    Trap::Link("../../../../../CANARY/token"),
    Trap::Link("/proc/sys/kernel/core_pattern"),
    Trap::Link("/proc/sys/net/ipv4/ping_group_range"),
    Trap::Link("/proc/self/mem"),
    Trap::Link("/proc/1/exe"),
    Trap::Link("/dev/null"),
    Trap::Link("/dev/full"),
    Trap::Link("hosts-loop"),
    Trap::Link("/run/nowhere/file"),
    Trap::Directory,
    Trap::Fifo,
    Trap::Etc("/proc/sys/kernel"),
    Trap::Etc("CANARY"),
    Trap::Etc("/sys/kernel"),
];

const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

#[test]
fn files_that_berth_lays_into_a_root_go_nowhere_else() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let root = bare_root(&berth);
    fs::create_dir(root.join("etc")).expect("make a directory");
    let token = host.canary.join("token");
    std::os::unix::fs::symlink(&token, root.join("etc/hosts")).expect("link");
    let control = unguarded(&format!(
        "mount --bind /dev/null {}/etc/hosts && wc -c <{}",
        root.display(),
        token.display()
    ));
    assert_eq!(control.trim(), "0", "the control covers the canary");
    let control = "mount(8) through the link covers the canary";
    let all: Vec<(Trap, &str)> =
        TRAPS.iter().flat_map(|trap| FILES.map(|file| (*trap, file))).collect();
    for (trap, file) in sample(&all, 8) {
        let mut request = with_trap(&berth, &host, trap, file);
        request["network"] = json!("private");
        let outcome = attempt(&berth, &request);
        let variant = format!("{file}: {trap:?}");
        let fine = match &outcome {
            Outcome::Refused { code, .. } => code == "container.mount-target",
            Outcome::Ran { output, .. } => !output.contains(TOKEN) && output.contains("null 1:3"),
        };
        assert!(fine, "{variant}: {outcome:?}");
        let check = Check { id: "R07", variant: &variant, control };
        check.finds_nothing(&host.changes());
    }
}

fn with_trap(berth: &Supervisor, host: &Host, trap: Trap, file: &str) -> Value {
    let canary = host.canary.to_str().expect("it is UTF-8");
    let path = format!("etc/{file}");
    let layer = match trap {
        Trap::Link(target) => Layer::new()
            .link("etc/hosts-loop", "hosts-loop")
            .link(&path, &target.replace("CANARY", canary)),
        Trap::Directory => Layer::new().directory(&format!("{path}/"), 0o755),
        Trap::Fifo => Layer::new().fifo(&path),
        Trap::Etc(target) => Layer::new().link("etc", &target.replace("CANARY", canary)),
    };
    let layer = berth.unpack(&layer.bytes());
    let script = format!(
        "stat -c 'null %t:%T' /dev/null; cat /etc/{file} /proc/sys/kernel/core_pattern; \
         echo lost >/etc/{file}; true"
    );
    request(berth, &[&layer], &["sh", "-c", &script])
}
