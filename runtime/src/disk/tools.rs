//! The two programs of e2fsprogs that make a file system and mend one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_runtime::record::{Failure, FailureClass};

use super::failure;

/// Makes a file system (mke2fs(8)).
pub(crate) const MAKE: &str = "mkfs.ext4";
/// Mends one (e2fsck(8)).
pub(crate) const CHECK: &str = "e2fsck";
/// Where they are looked for.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Exit codes of e2fsck(8) below this one: the file system is as it should be, perhaps since it was mended.
const UNMENDED: i32 = 4;
/// Characters of a program's own words in a failure.
const WORDS_MAX: usize = 500;

/// Where a program is, if it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// Makes a file system as large as the file. Nothing of it is written that is zero in a new file anyway.
pub(super) fn make(file: &Path) -> Result<(), Failure> {
    let later = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";
    let options = ["-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro", "-E", later];
    match run(MAKE, &options, file)? {
        (0, _) => Ok(()),
        (_, words) => Err(failure(FailureClass::Broken, "data.make", words)),
    }
}

/// Mends a file system that was not left clean, as far as that needs no decision.
pub(super) fn check(device: &Path) -> Result<(), Failure> {
    match run(CHECK, &["-p"], device)? {
        (code, _) if code < UNMENDED => Ok(()),
        (_, words) => {
            let message = format!("it is damaged beyond what e2fsck -p mends: {words}");
            Err(failure(FailureClass::Broken, "data.damaged", message))
        }
    }
}

fn run(name: &str, options: &[&str], object: &Path) -> Result<(i32, String), Failure> {
    let path = program(name).ok_or_else(|| {
        let message = format!("{name} is not installed (package e2fsprogs)");
        failure(FailureClass::Unavailable, "data.tool", message)
    })?;
    let mut command = Command::new(path);
    command.args(options).arg(object).env_clear().stdin(Stdio::null());
    let output = command.output().map_err(|error| {
        failure(FailureClass::Broken, "data.tool", format!("run {name}: {error}"))
    })?;
    let words = [output.stdout, output.stderr].concat();
    let words: String = String::from_utf8_lossy(&words).trim().chars().take(WORDS_MAX).collect();
    // One that a signal has ended has done nothing that counts.
    Ok((output.status.code().unwrap_or(i32::MAX), format!("{name}: {words}")))
}
