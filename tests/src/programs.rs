//! Where the programs under test are, and what this machine allows.

use std::path::PathBuf;

/// The server: `BERTH_BIN`, else the workspace's debug build.
pub fn berth() -> PathBuf {
    find("BERTH_BIN", "berth")
}

/// The runtime: `BERTH_RUNTIME_BIN`, else the workspace's debug build.
pub fn berth_runtime() -> PathBuf {
    find("BERTH_RUNTIME_BIN", "berth-runtime")
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
