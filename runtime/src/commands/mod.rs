//! The OCI command line (runtime-spec, runtime.md; and what runc's users expect of it).

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs one OCI command. Its errors are one line on standard error and exit status 1.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let word = arguments.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    // Nobody is left to tell when standard error is closed.
    if writeln!(std::io::stderr(), "berth-runtime: unknown command {word:?}").is_err() {
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}
