//! What each system call answers in the default profile, on every instruction set: the golden table for
//! the answers of `tests/runtime/prober.c`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::programs;

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

/// The prober, compiled here for an architecture.
pub fn compile(flags: &[&str]) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/prober.c");
    let flags: Vec<&str> = ["-static", "-O1", "-Wall"].iter().chain(flags).copied().collect();
    programs::compile(&source, &flags)
}

/// Answers by instruction set and call.
pub fn answers(text: &str) -> BTreeMap<(String, String), i64> {
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

/// What the profile answers.
///
/// # Panics
/// When the table has no such row.
pub fn expected(call: &str) -> i64 {
    if WITHOUT_CONTROL.contains(&call) {
        return ENOSYS;
    }
    let found = REFUSED.iter().chain(&ALLOWED).find(|row| row.0 == call);
    found.unwrap_or_else(|| panic!("the golden table has no row for {call}")).1
}

/// Whether the profile refuses a call that the kernel would answer otherwise.
pub fn is_refused(call: &str) -> bool {
    REFUSED.iter().any(|row| row.0 == call)
}
