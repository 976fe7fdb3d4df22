//! R15: what each system call answers in the default profile, on every instruction set, compared with
//! a golden table; the same program unconfined is the control.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bundle::{Bundle, companion, is_root};

const EPERM: i64 = 1;
const ENOSYS: i64 = 38;

/// Refused calls on x86-64 and i386 alike, and what they answer.
const REFUSED: [(&str, i64); 40] = [
    ("clone_newuser", EPERM),
    ("clone_newnet", EPERM),
    ("clone3", ENOSYS),
    ("unshare", EPERM),
    ("setns", EPERM),
    ("mount", EPERM),
    ("umount2", EPERM),
    ("pivot_root", EPERM),
    ("open_tree", EPERM),
    ("move_mount", EPERM),
    ("fsopen", EPERM),
    ("fsconfig", EPERM),
    ("fsmount", EPERM),
    ("mount_setattr", EPERM),
    ("keyctl", EPERM),
    ("add_key", EPERM),
    ("request_key", EPERM),
    ("bpf", EPERM),
    ("io_uring_setup", EPERM),
    ("io_uring_enter", EPERM),
    ("io_uring_register", EPERM),
    ("userfaultfd", EPERM),
    ("perf_event_open", EPERM),
    ("open_by_handle_at", EPERM),
    ("reboot", EPERM),
    ("swapon", EPERM),
    ("sethostname", EPERM),
    ("settimeofday", EPERM),
    ("syslog", EPERM),
    ("pidfd_getfd", EPERM),
    ("fanotify_init", EPERM),
    ("personality_no_random", EPERM),
    ("socket_alg", EPERM),
    ("socket_vsock", EPERM),
    ("socket_alg_high", EPERM),
    ("socketcall_socket", EPERM),
    ("socketcall_socketpair", EPERM),
    ("getpid_x32", EPERM),
    ("unshare_x32", EPERM),
    ("execve_x32", EPERM),
];

/// Calls that have to work, or to get past the filter (`EBADF` of a socket that is none).
const ALLOWED: [(&str, i64); 5] = [
    ("getpid", 0),
    ("clone_plain", 0),
    ("socket_unix", 0),
    ("socket_inet", 0),
    ("socketcall_listen", 9),
];

/// Calls that the kernel itself may answer as the filter does where it lacks the feature, so that the
/// control shows nothing: number 900 is in no kernel.
const WITHOUT_CONTROL: [&str; 1] = ["newer_than_known"];

/// The prober for an architecture: brought along, or compiled here.
pub fn prober(name: &str, flags: &[&str]) -> PathBuf {
    if let Some(path) = companion(name) {
        return path;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/prober.c");
    let thread = std::thread::current().id();
    let target =
        std::env::temp_dir().join(format!("berth-{name}-{}-{thread:?}", std::process::id()));
    let status = Command::new("gcc")
        .args(["-static", "-O1", "-Wall"])
        .args(flags)
        .arg("-o")
        .arg(&target)
        .arg(source)
        .status()
        .expect("run gcc");
    assert!(status.success(), "compile the prober {name} (gcc, libc6-dev, gcc-multilib)");
    target
}

/// Removes what [`prober`] has compiled.
pub fn remove(name: &str, program: &Path) {
    if companion(name).is_none() {
        fs::remove_file(program).expect("remove the prober");
    }
}

/// Answers by call and instruction set.
fn answers(text: &str) -> BTreeMap<(String, String), i64> {
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a line of the prober is JSON");
        let field = |name: &str| row[name].as_str().expect("a text").to_owned();
        let mut call = field("call");
        let abi = field("abi");
        if abi == "x32" {
            call.push_str("_x32");
        }
        ((abi, call), row["errno"].as_i64().expect("a number"))
    };
    text.lines().map(row).collect()
}

fn expected(call: &str) -> i64 {
    if WITHOUT_CONTROL.contains(&call) {
        return ENOSYS;
    }
    let found = REFUSED.iter().chain(&ALLOWED).find(|row| row.0 == call);
    found.unwrap_or_else(|| panic!("the golden table has no row for {call}")).1
}

fn check(name: &str, flags: &[&str], rows_min: usize) {
    if !is_root() {
        return;
    }
    let program = prober(name, flags);
    let bundle = Bundle::new(name);
    fs::copy(&program, bundle.root("prober")).expect("copy the prober");
    bundle.own();
    let output = bundle.run("/prober");
    let confined = answers(&bundle.succeed(output));
    let free = Command::new(&program).output().expect("run the prober unconfined");
    let free = answers(&String::from_utf8(free.stdout).expect("output is UTF-8"));
    remove(name, &program);
    assert!(confined.len() >= rows_min, "{} rows", confined.len());
    let mut wrong = Vec::new();
    for ((abi, call), errno) in &confined {
        let wanted = expected(call);
        if *errno != wanted {
            wrong.push(format!("{abi} {call}: errno {errno}, not {wanted}"));
        }
        let control = free[&(abi.clone(), call.clone())];
        let refused = REFUSED.iter().any(|row| row.0 == call);
        if refused && control == wanted {
            wrong.push(format!("{abi} {call}: errno {control} without the filter as well"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn x86_64_int80_and_x32_answer_as_the_golden_table_says() {
    check("prober-64", &[], 55);
}

#[test]
fn i386_answers_as_the_golden_table_says() {
    check("prober-32", &["-m32"], 40);
}
