//! Where the programs under test are, and what this machine allows.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The server: `BERTH_BIN`, else the workspace's debug build.
pub fn berth() -> PathBuf {
    find("BERTH_BIN", "berth")
}

/// The runtime: `BERTH_RUNTIME_BIN`, else the workspace's debug build.
pub fn berth_runtime() -> PathBuf {
    find("BERTH_RUNTIME_BIN", "berth-runtime")
}

/// The program that makes system calls fail: `BERTH_INJECT_BIN`, else the workspace's debug build.
pub fn inject() -> PathBuf {
    find("BERTH_INJECT_BIN", "inject")
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test is skipped.
///
/// # Panics
/// With `NO_SKIPS=1`: then nothing may be left out.
#[expect(clippy::print_stderr, reason = "a skip must be seen in the test's output")]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("NO_SKIPS").is_none(), "must not be skipped: {reason}");
    eprintln!("SKIPPED: {reason}");
}

fn find(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| top.join("../target"));
    let path = target.join("debug").join(name);
    assert!(path.exists(), "{} is not there: run cargo build first", path.display());
    path
}

/// A program or library, compiled from this by gcc.
///
/// # Panics
/// When it cannot be.
pub fn compile(source: &Path, flags: &[&str]) -> Vec<u8> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("berth-compiled-{}-{number}", std::process::id());
    let target = std::env::temp_dir().join(name);
    let mut gcc = Command::new("gcc");
    let status = gcc.arg("-o").arg(&target).args(flags).arg(source).status().expect("run gcc");
    assert!(status.success(), "compile {} (gcc, libc6-dev)", source.display());
    let bytes = std::fs::read(&target).expect("gcc has written it");
    std::fs::remove_file(&target).expect("remove what gcc has written");
    bytes
}

/// A program that was brought along beside the runtime (to a machine without a compiler).
pub fn companion(name: &str) -> Option<PathBuf> {
    let path = berth_runtime().parent()?.join(name);
    path.exists().then_some(path)
}

/// The program that attacks from inside an image, see its source: brought along, or compiled here.
///
/// # Panics
/// When it cannot be compiled.
pub fn attacker() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = companion("attacker") {
            return std::fs::read(path).expect("it was brought along");
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("supervisor/attacker.c");
        compile(&source, &["-static", "-O1", "-Wall"])
    })
}

/// Writes a program to be run, by another process: a fork of another test's thread would hold a
/// descriptor of this one open for writing, and execve(2) fail with ETXTBSY.
///
/// # Panics
/// When it cannot be written.
pub fn install(program: &[u8], path: &Path) {
    let mut copy = Command::new("install");
    let copy = copy.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut copy = copy.spawn().expect("run install");
    let mut input = copy.stdin.take().expect("it is a pipe");
    input.write_all(program).expect("write a program");
    drop(input);
    assert!(copy.wait().expect("wait for install").success(), "write {}", path.display());
}

/// The same of a program that is there.
///
/// # Panics
/// When it cannot be written.
pub fn copy(program: &Path, path: &Path) {
    let status = Command::new("install").args(["-m", "755"]).arg(program).arg(path).status();
    assert!(status.expect("run install").success(), "write {}", path.display());
}

/// What a script prints without any runtime: as the host's root, in a mount namespace of its own.
///
/// # Panics
/// When unshare(1) cannot be run.
pub fn unguarded(script: &str) -> String {
    let mut shell = Command::new("unshare");
    let shell = shell.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    let output = shell.output().expect("run unshare");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// What a program prints as root of user, mount, network and cgroup namespaces of its own, on the host.
///
/// # Panics
/// When unshare(1) cannot be run.
pub fn in_own_namespaces(program: &Path, words: &[&str]) -> String {
    let mut command = Command::new("unshare");
    let command = command.args(["--user", "--map-root-user", "--mount", "--net", "--cgroup"]);
    let output = command.arg(program).args(words).output().expect("run unshare");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
