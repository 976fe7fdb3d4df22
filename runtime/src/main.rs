//! `berth-runtime`: one binary for every privileged process of Berth, and an OCI runtime.
//!
//! The first word of the command line chooses. Each row of [`main`] is one process kind of the
//! process model in ARCHITECTURE.md; whatever is none of them is an OCI command.

#![expect(unreachable_pub, reason = "a binary has no outside: its modules publish to one another")]
// tests/fuzz builds this file as its own program, which is the search instead.
#![cfg_attr(fuzzing, no_main, allow(dead_code, unused_imports, reason = "parsers alone are used"))]

// The other half of this crate (types, wire, records) is the library of the same package.
mod accounts;
mod apparmor;
mod attributes;
mod capability;
mod cgroup;
mod commands;
mod confined;
mod data_set;
mod dbus;
mod disk;
mod doctor;
mod exec;
mod failure;
mod files;
#[cfg(any(test, fuzzing))]
mod foreign;
mod hooks;
mod init;
mod inspect;
mod joined;
mod kept;
mod launch;
mod layer;
mod ledger;
mod log;
mod monitor;
mod namespace;
mod network;
mod owner;
mod people;
mod places;
mod plan;
mod posture;
mod process;
mod profile;
mod ranges;
mod resctrl;
mod rlimit;
mod rootfs;
mod scheduling;
mod scope;
mod seccomp;
mod spec;
mod spelling;
mod state;
mod stored;
mod supervise;
mod sys;
mod systemd;
mod time_offsets;
mod timing;
mod undo;
mod unknown;
mod volume;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let first = arguments.first().and_then(|word| word.to_str()).unwrap_or_default();
    match first {
        "supervise" => supervise::main(&arguments[1..]),
        "stop-all" => supervise::stop_all_main(&arguments[1..]),
        // Started by the supervisor only, with a channel instead of arguments.
        "monitor" => monitor::main(),
        "monitor-exec" => monitor::exec_main(),
        "task" => supervise::task_main(),
        "holder" => scope::holder_main(&arguments[1..]),
        "placeholder" => systemd::placeholder_main(),
        "doctor" => doctor::main(&arguments[1..]),
        layer::COMMAND => layer::main(&arguments[1..]),
        _ => commands::main(&arguments),
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreign::try_one(bytes));
