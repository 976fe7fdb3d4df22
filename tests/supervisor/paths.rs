//! R02, R04, R05: images whose paths are links to the host, or to what holds a way to it: working
//! directories by descriptor, `/dev` and what is in it, `/proc` and `/sys`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use system_tests::programs::{copy, unguarded};
use system_tests::supervisor::Supervisor;
use system_tests::{Check, requires_root, sample};

use crate::hostile::{Host, Layer, Outcome, TOKEN, attempt, request};

/// A directory with busybox in it, for [`unguarded`].
pub(crate) fn bare_root(berth: &Supervisor) -> std::path::PathBuf {
    let root = berth.dir.join("bare");
    for name in ["bin", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(name)).expect("make a directory");
    }
    copy(Path::new("/bin/busybox"), &root.join("bin/busybox"));
    root
}

#[test]
fn working_directories_that_are_descriptors_are_refused() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let root = bare_root(&berth);
    let script = format!(
        "exec 7<{canary}; mount -t proc proc {root}/proc; \
         chroot {root} /bin/busybox sh -c 'cd /proc/self/fd/7 && cat token'",
        canary = host.canary.display(),
        root = root.display()
    );
    let control = unguarded(&script);
    assert_eq!(control, TOKEN, "the control reads the canary");
    let control = format!("chroot(8) with an open descriptor read {control}");

    let mut layer = Layer::new().link("plain", "/etc");
    let mut places = Vec::new();
    for number in 3..=64 {
        layer = layer.link(&format!("w{number}"), &format!("/proc/self/fd/{number}"));
        places.push(format!("/proc/self/fd/{number}"));
        places.push(format!("/w{number}"));
        places.push(format!("/proc/1/fd/{number}/sub"));
    }
    for (name, target) in
        [("c", "/proc/self/cwd"), ("r", "/proc/1/root"), ("t", "/proc/thread-self/cwd")]
    {
        layer = layer.link(name, target);
        places.push(format!("/{name}"));
    }
    let layer = berth.unpack(&layer.bytes());
    for place in sample(&places, 10) {
        let mut request = request(&berth, &[&layer], &["sh", "-c", "pwd; cat token"]);
        request["process"]["cwd"] = json!(place);
        let outcome = attempt(&berth, &request);
        assert!(!outcome.text().contains(TOKEN), "{place}: {outcome:?}");
        Check { id: "R02", variant: &place, control: &control }.sees("refused", outcome.word());
    }
    // An ordinary link is followed, and the program has its three descriptors alone: 3 is that of ls.
    let mut request =
        request(&berth, &[&layer], &["sh", "-c", "readlink /proc/self/cwd; ls /proc/self/fd"]);
    request["process"]["cwd"] = json!("/plain");
    request["process"]["args"] = json!(["sh", "-c", "cd -P .; echo $PWD; ls /proc/self/fd"]);
    let output = attempt(&berth, &request).output();
    Check { id: "R02", variant: "an ordinary link; descriptors", control: &control }
        .sees("/etc 0 1 2 3", output.split_whitespace().collect::<Vec<_>>().join(" "));
    Check { id: "R02", variant: "the host", control: &control }.finds_nothing(&host.changes());
}

/// Paths of devices that images ship as links.
const DEVICES: [&str; 12] = [
    "dev",
    "dev/console",
    "dev/ptmx",
    "dev/pts",
    "dev/pts/0",
    "dev/shm",
    "dev/mqueue",
    "dev/null",
    "dev/fd",
    "dev/tty",
    "dev/zero",
    "dev/stdin",
];

/// A layer in which `path` is a link to `target`, whatever was there.
fn with_link(berth: &Supervisor, path: &str, target: &str) -> String {
    let mut layer = Layer::new();
    let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
    for parent in parents.iter().rev().filter(|parent| **parent != Path::new("")) {
        layer = layer.directory(&format!("{}/", parent.display()), 0o755);
    }
    berth.unpack(&layer.link(path, target).bytes())
}

#[test]
fn devices_of_an_image_that_are_links_lead_nowhere() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let root = bare_root(&berth);
    // By joined strings the link is followed: the host's file is covered, as far as mounts can be seen.
    symlink(host.canary.join("token"), root.join("dev/console")).expect("link");
    let control = unguarded(&format!(
        "mount --bind /dev/null {}/dev/console && wc -c <{}/token",
        root.display(),
        host.canary.display()
    ));
    assert_eq!(control.trim(), "0", "the control covers the canary");
    let control =
        format!("mount(8) through the link covers the host's file ({} bytes left)", control.trim());
    let canary = host.canary.to_str().expect("it is UTF-8").to_owned();
    let targets = [
        canary.clone(),
        format!("{canary}/null"),
        format!("{canary}/new"),
        "../../../../..".to_owned(),
        "/proc/sys/kernel/core_pattern".to_owned(),
    ];
    let all: Vec<(&str, &String)> =
        DEVICES.iter().flat_map(|path| targets.iter().map(move |target| (*path, target))).collect();
    let script = "stat -c %t:%T /dev/null; echo x >/dev/null; cat /dev/zero | dd bs=1 count=1 2>/dev/null | wc -c; ls -d /dev/pts/ptmx /dev/shm /dev/mqueue";
    let script = &script.replace("| wc -c", ">/dev/null");
    for (path, target) in sample(&all, 8) {
        let layer = with_link(&berth, path, target);
        let outcome = attempt(&berth, &request(&berth, &[&layer], &["sh", "-c", script]));
        let variant = format!("{path} -> {}", target.replace(&canary, "CANARY"));
        let check = Check { id: "R04", variant: &variant, control: &control };
        match (&outcome, path) {
            // A link in place of the directory itself is refused.
            (Outcome::Refused { message, .. }, "dev") => {
                check.sees(true, message.contains("ordinary directory"));
            }
            (Outcome::Ran { output, .. }, _) => {
                check.sees("/dev/mqueue /dev/pts/ptmx /dev/shm 1:3", words(output));
            }
            (Outcome::Refused { .. }, _) => panic!("{variant}: {outcome:?}"),
        }
        let changes = host.changes();
        Check { id: "R04", variant: &format!("{variant}: the host"), control: &control }
            .finds_nothing(&changes);
    }
}

fn words(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words.join(" ")
}

/// What an image has in place of a special directory.
const SPECIAL: [(&str, &str); 12] = [
    ("proc", "/etc"),
    ("proc", "CANARY"),
    ("proc", "../../../.."),
    ("proc", "tmp"),
    ("proc", "nowhere"),
    ("proc", "proc"),
    ("sys", "/etc"),
    ("sys", "CANARY"),
    ("sys", "/proc"),
    ("sys", "proc/self"),
    ("proc", "file"),
    ("sys", "fifo"),
];

#[test]
fn proc_and_sys_of_an_image_that_are_no_directories_are_refused() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let root = bare_root(&berth);
    fs::remove_dir(root.join("proc")).expect("remove a directory");
    symlink(&host.canary, root.join("proc")).expect("link");
    let control = unguarded(&format!(
        "mount -t tmpfs none {}/proc && ls {} | wc -l",
        root.display(),
        host.canary.display()
    ));
    assert_eq!(control.trim(), "0", "the control covers the canary");
    let control = "mount(8) through the link covers the host's directory";
    let canary = host.canary.to_str().expect("it is UTF-8").to_owned();
    for (name, target) in sample(&SPECIAL, 5) {
        let layer = match target {
            "file" => Layer::new().file(name, 0o644, b"x"),
            "fifo" => Layer::new().fifo(name),
            target => Layer::new().link(name, &target.replace("CANARY", &canary)),
        };
        let layer = berth.unpack(&layer.bytes());
        let outcome = attempt(&berth, &request(&berth, &[&layer], &["true"]));
        let refused = matches!(&outcome, Outcome::Refused { message, .. } if message.contains("must be an ordinary directory"));
        assert!(refused, "{name} -> {target}: {outcome:?}");
        let variant = format!("{name} -> {target}");
        Check { id: "R05", variant: &variant, control }.sees("refused", outcome.word());
        Check { id: "R05", variant: &format!("{variant}: the host"), control }
            .finds_nothing(&host.changes());
    }
    // The control of the refusal: the same image with a directory starts.
    let layer = berth.unpack(&Layer::new().directory("proc/", 0o755).bytes());
    attempt(&berth, &request(&berth, &[&layer], &["true"])).output();
}
