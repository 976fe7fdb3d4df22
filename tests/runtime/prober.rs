//! R15: what each system call answers in the default profile, on every instruction set, compared with
//! a golden table; the same program unconfined is the control.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use system_tests::prober::{answers, expected, is_refused};
use system_tests::programs::companion;

use crate::bundle::{Bundle, is_root};

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

fn check(name: &str, flags: &[&str], rows_min: usize) {
    if !is_root() {
        return;
    }
    let program = prober(name, flags);
    let bundle = Bundle::new(name);
    // By another process: what this one has open for writing while another test forks cannot be run.
    let copied = Command::new("cp").args([&program, &bundle.root("prober")]).status();
    assert!(copied.expect("run cp").success(), "copy the prober");
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
        let refused = is_refused(call);
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
