//! Files and directories of the runtime's own, always by directory descriptor: a name is one path
//! component, no link is ever followed, and a file is replaced whole or not at all.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, fallocate, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};

/// A step on a file that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The kernel refused.
    #[error("{verb} {object}: {source}")]
    Os {
        /// What was being done.
        verb: &'static str,
        /// To what.
        object: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// The file is there and is not what was written.
    #[error("read {object}: {reason}")]
    Content {
        /// The file.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl FileError {
    /// For `map_err`: `verb` on `object`.
    pub(crate) fn os(verb: &'static str, object: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Os { verb, object: object.into(), source }
    }

    /// For `map_err` on what std's I/O answers.
    pub(crate) fn io(
        verb: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |error| {
            let source = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Self::Os { verb, object: object.into(), source }
        }
    }

    /// The same, of something below `place`: names alone don't say on which disk they are.
    pub(crate) fn below(self, place: &str) -> Self {
        match self {
            Self::Os { verb, object, source } => {
                Self::Os { verb, object: format!("{place}/{object}"), source }
            }
            content @ Self::Content { .. } => content,
        }
    }

    /// Whether a disk is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOSPC | Errno::EDQUOT))
    }

    /// The kernel's answer, when there is one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Os { source, .. } => Some(*source),
            Self::Content { .. } => None,
        }
    }
}

/// Owner, group and mode that a directory is to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl Place {
    /// Root's own, closed to all others.
    pub(crate) const ROOT: Self = Self { uid: 0, gid: 0, mode: 0o700 };
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// Opens a directory by its path; the last component may not be a link.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, FileError> {
    open(path, OFlag::O_RDONLY | DIRECTORY, Mode::empty())
        .map_err(FileError::os("open directory", path.display().to_string()))
}

/// Opens the directory `name` in `parent`.
pub(crate) fn open_in(parent: impl AsFd, name: &str) -> Result<OwnedFd, FileError> {
    openat(parent, name, OFlag::O_RDONLY | DIRECTORY, Mode::empty())
        .map_err(FileError::os("open directory", name))
}

/// The directory `name` in `parent`, made if it is not there, with owner and mode as `place` says.
pub(crate) fn make_directory(
    parent: impl AsFd,
    name: &str,
    place: Place,
) -> Result<OwnedFd, FileError> {
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(FileError::os("make directory", name)(errno)),
    }
    let directory = open_in(&parent, name)?;
    settle(&directory, name, place)?;
    Ok(directory)
}

/// Makes the directory `name` in `parent` as [`make_directory`] does, but leaves one alone that has
/// been given away before: its mode is its owner's to change.
pub(crate) fn make_once(parent: impl AsFd, name: &str, place: Place) -> Result<(), FileError> {
    if is_directory(&parent, name) {
        let directory = open_in(&parent, name)?;
        if status(&directory, name)?.st_uid != 0 {
            return Ok(());
        }
    }
    make_directory(parent, name, place).map(drop)
}

/// The directory at `path`, made with its parents (root's, 0755) if it is not there.
pub(crate) fn make_path(path: &Path, place: Place) -> Result<OwnedFd, FileError> {
    let object = || path.display().to_string();
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(FileError::io("make the parents of", object()))?;
    }
    match nix::unistd::mkdir(path, Mode::from_bits_truncate(0o700)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(FileError::os("make directory", object())(errno)),
    }
    let directory = open_directory(path)?;
    settle(&directory, &object(), place)?;
    Ok(directory)
}

/// Gives `directory` its owner and mode; nothing is written when both are right already.
fn settle(directory: &OwnedFd, object: &str, place: Place) -> Result<(), FileError> {
    let stat = status(directory, object)?;
    let (uid, gid) = (Uid::from_raw(place.uid), Gid::from_raw(place.gid));
    if stat.st_uid != place.uid || stat.st_gid != place.gid {
        fchown(directory, Some(uid), Some(gid))
            .map_err(FileError::os("change owner of", object))?;
    }
    if stat.st_mode & 0o7777 != place.mode {
        fchmod(directory, Mode::from_bits_truncate(place.mode))
            .map_err(FileError::os("change mode of", object))?;
    }
    Ok(())
}

/// fstat(2) with a name for its error.
pub(crate) fn status(file: impl AsFd, object: &str) -> Result<FileStat, FileError> {
    fstat(file).map_err(FileError::os("look at", object))
}

/// Whether `name` is in `directory` and is itself a directory.
pub(crate) fn is_directory(directory: impl AsFd, name: &str) -> bool {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
}

/// Whether the file is to be on disk before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// File and directory are fsynced.
    Synced,
    /// The kernel may take its time: the content can be had again, or is for this boot only.
    Later,
}

/// Makes sure that `name` in `directory` can be replaced by up to `bytes` even when the disk is full by
/// then: the file that [`replace`] writes is there already, with blocks of its own.
pub(crate) fn reserve(
    directory: impl AsFd,
    name: &str,
    bytes: u32,
    owner: u32,
) -> Result<(), FileError> {
    let temporary = temporary(name);
    let file = open_temporary(&directory, &temporary)?;
    let uid = Uid::from_raw(owner);
    let kept = fchown(&file, Some(uid), Some(Gid::from_raw(owner)))
        .map_err(FileError::os("change owner of", temporary.as_str()))
        .and_then(|()| {
            let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
            match fallocate(&file, keep, 0, i64::from(bytes)) {
                // A file system that cannot promise blocks; the file itself is there.
                Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
                Err(errno) => Err(FileError::os("set blocks aside for", name)(errno)),
            }
        });
    if kept.is_err() {
        remove_file(&directory, &temporary)?;
    }
    kept
}

fn temporary(name: &str) -> String {
    format!("{name}.new")
}

/// The file that is to become another: the one that is reserved, or a new one.
fn open_temporary(directory: impl AsFd, temporary: &str) -> Result<File, FileError> {
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    if let Ok(file) = openat(&directory, temporary, flags, Mode::empty()) {
        let (found, home) = (status(&file, temporary)?, status(&directory, ".")?);
        let plain = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        let known = found.st_uid == home.st_uid || found.st_uid == Uid::effective().as_raw();
        if plain && known && found.st_nlink == 1 {
            return Ok(File::from(file));
        }
    }
    // Nothing, a link, or something that was put there: not to be written to.
    remove_file(&directory, temporary)?;
    let mode = Mode::from_bits_truncate(0o600);
    let file = openat(&directory, temporary, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode);
    Ok(File::from(file.map_err(FileError::os("create", temporary))?))
}

/// Replaces `name` in `directory` by `bytes`, whole or not at all.
pub(crate) fn replace(
    directory: impl AsFd,
    name: &str,
    bytes: &[u8],
    durability: Durability,
) -> Result<(), FileError> {
    let temporary = temporary(name);
    let mut file = open_temporary(&directory, &temporary)?;
    let written = file
        .write_all(bytes)
        // What was there of an earlier try.
        .and_then(|()| file.set_len(bytes.len() as u64))
        .map_err(FileError::io("write", temporary.as_str()))
        .and_then(|()| match durability {
            Durability::Synced => fsync(&file).map_err(FileError::os("sync", temporary.as_str())),
            Durability::Later => Ok(()),
        })
        .and_then(|()| {
            renameat(&directory, temporary.as_str(), &directory, name)
                .map_err(FileError::os("rename to", name))
        });
    if let Err(error) = written {
        remove_file(&directory, &temporary)?;
        return Err(error);
    }
    match durability {
        Durability::Synced => {
            fsync(directory.as_fd()).map_err(FileError::os("sync the directory of", name))
        }
        Durability::Later => Ok(()),
    }
}

/// What `name` in `directory` holds, `None` when there is no such file; a file larger than
/// `bytes_max`, or one that is not an ordinary file, is an error.
pub(crate) fn read(
    directory: impl AsFd,
    name: &str,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>, FileError> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(FileError::os("open", name)(errno)),
    };
    let content = |reason: &str| FileError::Content { object: name.into(), reason: reason.into() };
    if status(&file, name)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(content("not an ordinary file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(FileError::io("read", name))?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > bytes_max) {
        return Err(content("larger than any that Berth writes"));
    }
    Ok(Some(bytes))
}

/// Unlinks `name`; success when it is gone already.
pub(crate) fn remove_file(directory: impl AsFd, name: &str) -> Result<(), FileError> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(FileError::os("remove", name)(errno)),
    }
}

/// The names in `directory`, without `.` and `..`.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<String>, FileError> {
    let again = openat(directory, ".", OFlag::O_RDONLY | DIRECTORY, Mode::empty())
        .map_err(FileError::os("open directory", "."))?;
    let mut list = nix::dir::Dir::from_fd(again).map_err(FileError::os("list", "a directory"))?;
    let mut names = Vec::new();
    for entry in list.iter() {
        let entry = entry.map_err(FileError::os("list", "a directory"))?;
        match entry.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) => names.push(name.to_owned()),
            // No name of Berth's is outside ASCII, so what bears one is not ours to look at.
            Err(_) => {}
        }
    }
    Ok(names)
}
