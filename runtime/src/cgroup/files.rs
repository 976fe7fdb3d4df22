//! Reading and writing the files of cgroupfs, and removing its directories. Every error names the
//! file; writes are one write(2) each, because the kernel takes each as one command.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Error;

/// Bytes read of one file at most: `cgroup.procs` of a container with 32,768 processes fits.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Cgroups that are removed inside one container's at most, and how deep.
const NESTED_DEPTH_MAX: u32 = 32;

/// The file's text without the line end.
pub fn read(path: &Path) -> Result<String, Error> {
    let text = File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    });
    match text {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// Writes a value to a file that exists.
pub fn write(path: &Path, value: &str) -> Result<(), Error> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Whether a file could not be used because its cgroup is no more: not to be found, or removed while it
/// was open.
pub fn is_gone(error: &Error) -> bool {
    let (Error::Read { source, .. } | Error::Write { source, .. } | Error::Create { source, .. }) =
        error
    else {
        return false;
    };
    matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// The number that is all of the file; `max` is the largest.
pub fn read_number(path: &Path) -> Result<u64, Error> {
    let text = read(path)?;
    if text == "max" {
        return Ok(u64::MAX);
    }
    text.parse().map_err(|_| Error::Malformed { path: path.to_owned(), value: text })
}

/// The number after `key` in a file of `key value` lines; 0 when there is no such line.
pub fn read_keyed(path: &Path, key: &str) -> Result<u64, Error> {
    let text = read(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    match value {
        None => Ok(0),
        Some(value) => value
            .trim()
            .parse()
            .map_err(|_| Error::Malformed { path: path.to_owned(), value: value.to_owned() }),
    }
}

/// Makes a directory; success when it is there.
pub fn make_directory(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Create { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// A descriptor of the directory, for clone3(2) and bpf(2).
pub fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    let options = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    options.map(OwnedFd::from).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The directories below `path` whose names begin with `first`, as (rest of the name, path); none when
/// `path` is not there.
pub fn children(path: &Path, first: char) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let (true, Some(rest)) =
            (directory, entry.file_name().to_str().and_then(|name| name.strip_prefix(first)))
        {
            found.push((rest.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

/// A descriptor of a file to be written by somebody else.
pub fn open_for_writing(path: &Path) -> Result<OwnedFd, Error> {
    let file = OpenOptions::new().write(true).open(path);
    file.map(OwnedFd::from).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Removes the directory and all below it, deepest first, trying each at most `tries` times.
pub fn remove_tree(path: &Path, tries: u32) -> Result<(), Error> {
    remove_level(path, tries, 0)
}

fn remove_level(path: &Path, tries: u32, depth: u32) -> Result<(), Error> {
    if remove_if_empty(path)? {
        return Ok(());
    }
    if depth < NESTED_DEPTH_MAX {
        let entries = match fs::read_dir(path) {
            // Somebody else was faster.
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|source| Error::Read { path: path.to_owned(), source })?,
        };
        for entry in entries {
            let entry = entry.map_err(|source| Error::Read { path: path.to_owned(), source })?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_level(&entry.path(), tries, depth + 1)?;
            }
        }
    }
    for attempt in 1..=tries {
        if remove_if_empty(path)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(u64::from(attempt.min(25))));
    }
    let source = io::Error::from_raw_os_error(libc::EBUSY);
    Err(Error::Remove { path: path.to_owned(), source })
}

/// Removes one directory if nothing is in it; says whether it is gone.
pub fn remove_if_empty(path: &Path) -> Result<bool, Error> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(source) => match source.raw_os_error() {
            Some(libc::ENOENT) => Ok(true),
            Some(libc::EBUSY | libc::ENOTEMPTY) => Ok(false),
            _ => Err(Error::Remove { path: path.to_owned(), source }),
        },
    }
}

/// Waits until `cgroup.events` has the line (`populated 0`, `frozen 1`); the kernel wakes pollers of
/// that file at every change.
pub fn wait_event(events: &Path, line: &'static str, limit: Duration) -> Result<(), Error> {
    let failed = |source| Error::Read { path: events.to_owned(), source };
    let deadline = Instant::now() + limit;
    loop {
        // Opened anew each time: reading it and then polling the same open file is what arms it.
        let mut file = File::open(events).map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        if text.lines().any(|found| found == line) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::Timeout { path: events.to_owned(), what: line, millis });
        }
        let timeout = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}
