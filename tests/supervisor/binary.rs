//! R01: images whose program is a link to what runs it, with a library in them that opens the running
//! binary and writes to it once it is not busy (CVE-2019-5736).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use system_tests::programs::{attacker, berth_runtime, compile, copy, install, unguarded};
use system_tests::supervisor::Supervisor;
use system_tests::{Check, requires_root, times};

use crate::execs::{Exec, exec_request};
use crate::hostile::{Layer, attempt, request};
use crate::paths::bare_root;

/// Ways in which an image names the binary that starts it: what its arguments are.
const ENTRIES: [(&str, &[&str]); 7] = [
    ("/bin/sh is the link", &["/bin/sh", "-c", "true"]),
    ("sh by PATH", &["sh", "-c", "true"]),
    ("a link of its own", &["/again", "--version"]),
    ("a link to a link", &["/once-more"]),
    ("a script that it interprets", &["/script"]),
    ("/proc/self/exe", &["/proc/self/exe"]),
    ("/proc/1/exe", &["/proc/1/exe", "supervise"]),
];

/// What a dynamic program needs to run in an image, by the host's paths.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().expect("run ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn preload() -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("supervisor/preload.c");
    compile(&source, &["-shared", "-fPIC", "-O1", "-Wall"])
}

fn layer(preload: &[u8]) -> Vec<u8> {
    let mut layer = Layer::new()
        .file("attacker", 0o755, attacker())
        .file("preload.so", 0o755, preload)
        .link("bin/sh", "/proc/self/exe")
        .link("again", "/proc/self/exe")
        .link("once-more", "again")
        .file("script", 0o755, b"#!/proc/self/exe\n");
    for path in libraries(&berth_runtime()) {
        layer = layer.file(&path[1..], 0o755, &fs::read(&path).expect("read a library"));
    }
    layer.bytes()
}

/// The same attack on a runtime that takes no care: a copy of chroot(8).
fn control(berth: &Supervisor, preload: &[u8]) -> String {
    let root = bare_root(berth);
    let program = berth.dir.join("naive");
    copy(Path::new("/usr/sbin/chroot"), &program);
    for path in libraries(&program) {
        let inside = root.join(&path[1..]);
        fs::create_dir_all(inside.parent().expect("a directory")).expect("make a directory");
        fs::copy(&path, inside).expect("copy a library");
    }
    for (name, content) in [("attacker", attacker()), ("preload.so", preload)] {
        install(content, &root.join(name));
    }
    std::os::unix::fs::symlink("/proc/self/exe", root.join("again")).expect("link");
    let before = fs::read(&program).expect("read it");
    let said = unguarded(&format!(
        "mount -t proc proc {root}/proc; LD_PRELOAD=/preload.so {program} {root} /again 2>/dev/null",
        root = root.display(),
        program = program.display()
    ));
    let after = fs::read(&program).expect("read it");
    assert_ne!(before, after, "the control overwrites its runtime: {said}");
    format!("a runtime without the guard was overwritten ({} bytes of it left)", after.len())
}

#[test]
fn an_image_that_runs_its_runtime_does_not_write_to_it() {
    requires_root!();
    let berth = Supervisor::start();
    let preload = preload();
    let control = control(&berth, &preload);
    let layer = berth.unpack(&layer(&preload));
    let binary = fs::read(berth_runtime()).expect("read the runtime");
    let facts = fs::metadata(berth_runtime()).expect("inspect the runtime");
    let host = format!("file {}:{}", facts.dev(), facts.ino());
    for round in 0..times(200, 7) {
        let (name, args) = ENTRIES[round % ENTRIES.len()];
        let mut request = request(&berth, &[&layer], args);
        request["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/preload.so"]);
        let output = attempt(&berth, &request).output();
        let (file, wrote) = output.trim().split_once('\n').unwrap_or((&output, ""));
        let variant = format!("{name}, start {round}");
        let check = || Check { id: "R01", variant: &variant, control: &control };
        check().sees("not written", wrote);
        assert!(file.starts_with("file "), "{variant}: {output}");
        check().sees(true, file != host);
    }
    let now = fs::read(berth_runtime()).expect("read the runtime");
    Check { id: "R01", variant: "the host's binary", control: &control }.sees(true, binary == now);
}

/// The same by later programs of a container: each is started by a process that joins it.
#[test]
fn a_later_program_that_is_its_runtime_does_not_write_to_it() {
    requires_root!();
    let berth = Supervisor::start();
    let preload = preload();
    let control = control(&berth, &preload);
    let layer = berth.unpack(&layer(&preload));
    let binary = fs::read(berth_runtime()).expect("read the runtime");
    let facts = fs::metadata(berth_runtime()).expect("inspect the runtime");
    let host = format!("file {}:{}", facts.dev(), facts.ino());
    let run = berth.started(&request(&berth, &[&layer], &["sleep", "1000"]));
    let entries = ENTRIES.iter().filter(|(_, args)| !args[0].contains("/proc/1/"));
    let entries: Vec<_> = entries.collect();
    for round in 0..times(100, 6) {
        let (name, args) = entries[round % entries.len()];
        let number = u64::try_from(round + 1).expect("a count fits");
        let mut request = exec_request(&run.container, number, args);
        request["env"] = json!(["PATH=/bin", "LD_PRELOAD=/preload.so"]);
        let mut exec = Exec::start(&berth, &request);
        let output = exec.read_until(1, "");
        let (file, wrote) = output.trim().split_once('\n').unwrap_or((&output, ""));
        let variant = format!("a later program, {name}, {round}");
        let check = || Check { id: "R01", variant: &variant, control: &control };
        check().sees("not written", wrote);
        assert!(file.starts_with("file "), "{variant}: {output}");
        check().sees(true, file != host);
    }
    let now = fs::read(berth_runtime()).expect("read the runtime");
    let check = Check { id: "R01", variant: "the host's binary after them", control: &control };
    check.sees(true, binary == now);
}
