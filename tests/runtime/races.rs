//! R01, R03: containers that are started while another, on the same root, swaps what the start looks at
//! or writes to every binary that it sees.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::programs::{attacker, install, unguarded};
use system_tests::{Check, is_long, times};

use crate::bundle::{Bundle, LIMIT, give, is_root, runtime, said};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// A bundle without a `/dev` of its own, so that devices are put on the root's files.
fn without_dev(name: &str) -> Bundle {
    let bundle = Bundle::new(name);
    bundle.change(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| !mount["destination"].as_str().unwrap_or("").starts_with("/dev"));
        config["root"]["readonly"] = false.into();
    });
    fs::create_dir(bundle.root("dev")).expect("make /dev");
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        fs::write(bundle.root("dev").join(name), "").expect("make a file");
    }
    bundle
}

/// What masking by the root's own `/dev/null` shows where that is a link.
fn unmasked(bundle: &Bundle) -> String {
    let root = bundle.root("");
    fs::create_dir_all(root.join("proc")).expect("make /proc");
    let script = format!(
        "mount -t proc proc {root}/proc; chroot {root} /bin/mount -o bind /dev/link /proc/keys; \
         chroot {root} /bin/cat /proc/keys",
        root = root.display()
    );
    unguarded(&script).trim().to_owned()
}

#[test]
fn a_null_device_that_another_swaps_masks_or_the_start_fails() {
    if !is_root() {
        return;
    }
    let bundle = without_dev("swap");
    symlink(PATTERN, bundle.root("dev/link")).expect("link");
    install(attacker(), &bundle.root("attacker"));
    bundle.own();
    let pattern = fs::read_to_string(PATTERN).expect("read the host's");
    let seen = unmasked(&bundle);
    assert_eq!(seen, pattern.trim(), "the control shows the parameter in the masked file");
    let control = format!("bound from the root's own /dev/null the masked file says {seen:?}");
    let starts = times(500, 12);
    // The other container, which has the same directory.
    let racer = Bundle::new("swapper");
    install(attacker(), &racer.root("attacker"));
    racer.own();
    racer.change(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({ "destination": "/swap", "type": "bind", "source": bundle.root("dev"),
            "options": ["bind"] }));
    });
    racer.program(&["/attacker", "exchange", "/swap/null", "/swap/link", "3600000"]);
    racer.succeed(racer.create());
    let name = racer.name().to_owned();
    racer.succeed(racer.command(&["start", &name]));
    let begin = Instant::now();
    while !fs::read_to_string(racer.outside("output")).expect("read its output").contains("swaps") {
        assert!(begin.elapsed() < LIMIT, "the racer swaps nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut ran, mut failed) = (0, 0);
    for start in 0..starts {
        let output = bundle.run(
            "cat /proc/keys /proc/timer_list /proc/interrupts; \
             for f in /proc/keys /proc/timer_list; do { echo owned >$f; } 2>/dev/null; done; \
             { echo owned >/proc/sys/kernel/core_pattern; } 2>/dev/null; true",
        );
        let variant = format!("start {start}");
        let check = || Check { id: "R03", variant: &variant, control: &control };
        if output.status.success() {
            ran += 1;
            check().sees("", String::from_utf8_lossy(&output.stdout));
        } else {
            failed += 1;
            assert!(said(&output).contains("/dev/null"), "{}", said(&output));
        }
        check().sees(&pattern, fs::read_to_string(PATTERN).expect("read the host's"));
    }
    racer.command(&["kill", &name, "KILL"]);
    racer.wait_for("stopped");
    assert!(ran + failed == starts && (ran > 0 || !is_long()), "{ran} ran, {failed} failed");
    eprintln!("R03: {ran} starts ran, {failed} failed");
}

/// Every way in which the root's `/dev/null` is no device, without a race.
#[test]
fn a_null_device_of_the_root_is_never_the_mask() {
    if !is_root() {
        return;
    }
    let pattern = fs::read_to_string(PATTERN).expect("read the host's");
    for target in [PATTERN, "/etc/passwd", "../proc/sys/kernel/core_pattern", "nowhere"] {
        let bundle = without_dev(&format!("null-{}", target.len()));
        symlink(PATTERN, bundle.root("dev/link")).expect("link");
        let control = unmasked(&bundle);
        assert_eq!(control, pattern.trim(), "the control shows the parameter in the masked file");
        fs::remove_file(bundle.root("dev/null")).expect("remove the file");
        symlink(target, bundle.root("dev/null")).expect("link");
        give(&bundle.root(""));
        let output = bundle.run("cat /proc/keys");
        let check = |variant: &str| {
            let variant = format!("/dev/null -> {target}: {variant}");
            Check {
                id: "R03",
                variant: &variant,
                control: "masking by that file shows the parameter",
            }
            .sees(true, !output.status.success() && said(&output).contains("ordinary directory"));
        };
        check("refused");
        let now = fs::read_to_string(PATTERN).expect("read the host's");
        Check { id: "R03", variant: "the host's", control: &control }.sees(&pattern, now);
    }
}

/// R01: a program of the container that writes to whatever binary it sees, while later processes come in.
#[test]
fn no_binary_of_the_hosts_is_writable_while_processes_come_in() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("exe-race");
    install(attacker(), &bundle.root("attacker"));
    symlink("/proc/self/exe", bundle.root("bin/again")).expect("link");
    let libraries = Command::new("ldd").arg(runtime()).output().expect("run ldd");
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = bundle.root(&path[1..]);
        fs::create_dir_all(inside.parent().expect("a directory")).expect("make a directory");
        fs::copy(path, inside).expect("copy a library");
    }
    bundle.own();
    let before = fs::read(runtime()).expect("read the runtime");
    let starts = times(200, 10);
    bundle.program(&["/attacker", "race-exe"]);
    bundle.succeed(bundle.create());
    let name = bundle.name().to_owned();
    bundle.succeed(bundle.command(&["start", &name]));
    for _ in 0..starts {
        let output = bundle.command(&["exec", &name, "again", "nonsense"]);
        assert!(said(&output).contains("nonsense"), "{}", said(&output));
    }
    fs::write(bundle.root("stop"), "").expect("write a file");
    bundle.wait_for("stopped");
    let said = fs::read_to_string(bundle.outside("output")).expect("read its output");
    let count = |word: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix(word)).expect("a count");
        line.trim().parse().expect("a number")
    };
    // The binary was in front of it: that it was tried is the control of "none was written".
    let tried = count("tried");
    assert!(tried > 0, "the racer has seen no binary: {said}");
    let control = format!("{tried} tries met a binary that is not the image's");
    let variant = format!("{starts} processes");
    Check { id: "R01", variant: &variant, control: &control }.sees(0, count("wrote"));
    let unchanged = before == fs::read(runtime()).expect("read the runtime");
    Check { id: "R01", variant: "the host's binary, raced", control: &control }
        .sees(true, unchanged);
}
