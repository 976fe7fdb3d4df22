//! `berth-runtime`: one binary for every privileged process of Berth, and an OCI runtime.
//!
//! The first word of the command line chooses. Each row of [`main`] is one process kind of the
//! process model in ARCHITECTURE.md; whatever is none of them is an OCI command.

#![expect(unreachable_pub, reason = "a binary has no outside: its modules publish to one another")]

// The other half of this crate (types, wire, records) is the library of the same package.
mod accounts;
mod capability;
#[allow(dead_code, reason = "its callers (supervise, monitor, commands) are being written")]
mod cgroup;
mod commands;
mod failure;
mod init;
mod launch;
mod layer;
mod namespace;
#[allow(dead_code, reason = "its callers (supervise, monitor) are being written")]
mod network;
mod plan;
mod profile;
mod rlimit;
mod rootfs;
mod seccomp;
mod spec;
mod sys;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let first = arguments.first().and_then(|word| word.to_str()).unwrap_or_default();
    match first {
        // "supervise" => supervise::main(&arguments[1..]),
        // "monitor" => monitor::main(&arguments[1..]),
        // "holder" => scope::holder_main(&arguments[1..]),
        // "stop-all" => supervise::stop_all_main(&arguments[1..]),
        // "doctor" => doctor::main(&arguments[1..]),
        layer::COMMAND => layer::main(&arguments[1..]),
        _ => commands::main(&arguments),
    }
}
