//! Names inside the directory that a layer is extracted into.
//!
//! Every name from the archive is cleaned as text first (`..` may not lead out), then walked
//! component by component from the root's descriptor; no component is ever followed by the kernel.
//! Symbolic links among the parents are followed here, relative to this root only, because images
//! do put files below them (`var/run/x` with `var/run -> /run`).

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::fault::{invalid, os, shown};
use crate::sys;

/// Symbolic links followed on the way to one entry at most (as the kernel's own limit).
const LINKS_MAX: u32 = 40;
/// The mark of a directory that hides what lies below it in lower layers.
const OPAQUE_XATTR: &std::ffi::CStr = c"user.overlay.opaque";

/// The root, and the parent that was used last: archives name siblings one after another.
pub(super) struct Tree {
    root: OwnedFd,
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Directories made because a name needed them.
    made: Cell<u64>,
}

/// A cleaned name: the parent's components joined by `/`, and the last component. Both empty for
/// the root itself.
pub(super) struct Place {
    pub(super) parent: Vec<u8>,
    pub(super) name: CString,
}

impl Place {
    /// Cleans `path` as text; a leading `/` means this root.
    pub(super) fn of(path: &[u8]) -> Result<Self, Failure> {
        let absolute = path.starts_with(b"/");
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if parts.pop().is_none() && !absolute {
                        let path = shown(path);
                        return Err(invalid(format!("{path} leads out of the layer")));
                    }
                }
                part => parts.push(part),
            }
        }
        let name = parts.pop().unwrap_or_default();
        let name = CString::new(name).map_err(|_| invalid("a name holds a NUL byte"))?;
        Ok(Self { parent: parts.join(&b'/'), name })
    }

    /// Whether this is the root itself.
    pub(super) fn is_root(&self) -> bool {
        self.name.is_empty()
    }

    /// The whole cleaned path.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut path = self.parent.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.name.as_bytes());
        path
    }
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, cached: None, made: Cell::new(0) }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Directories that no entry has named, made until now.
    pub(super) fn made(&self) -> u64 {
        self.made.get()
    }

    /// The directory `path`, made (0755, owner 0:0) where it is missing.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Failure> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        let hit = matches!(&self.cached, Some((known, _)) if known == path);
        if !hit {
            let fd = match open_beneath(self.root.as_fd(), path) {
                Ok(fd) => fd,
                Err(_) => self.walk(path, Missing::Make)?,
            };
            self.cached = Some((path.to_vec(), fd));
        }
        match &self.cached {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// The directory `path`, which must be there (a hard link's target, a directory's times).
    pub(super) fn existing(&self, path: &[u8]) -> Result<OwnedFd, Failure> {
        if path.is_empty() {
            return self
                .root
                .try_clone()
                .map_err(|error| os("copy a descriptor", errno_of(&error)));
        }
        open_beneath(self.root.as_fd(), path).or_else(|_| self.walk(path, Missing::Fail))
    }

    /// Called when something that may be a directory was replaced.
    pub(super) fn forget(&mut self) {
        self.cached = None;
    }

    fn walk(&self, path: &[u8], missing: Missing) -> Result<OwnedFd, Failure> {
        let error = |errno| os(format!("open the directory {}", shown(path)), errno);
        let mut todo: VecDeque<Vec<u8>> = split(path);
        let root = || open_directory(self.root.as_fd(), c".").map_err(error);
        let mut here = root()?;
        // How far below the root: every step down was into a real directory, so `..` is where it
        // came from, and is never taken at the root.
        let mut depth: usize = 0;
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == b".." {
                if depth > 0 {
                    here = open_directory(here.as_fd(), c"..").map_err(error)?;
                    depth -= 1;
                }
                continue;
            }
            let name = CString::new(part).map_err(|_| invalid("a name holds a NUL byte"))?;
            let down = match open_directory(here.as_fd(), &name) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) if missing == Missing::Make => {
                    self.made.set(self.made.get() + 1);
                    make_parent(here.as_fd(), &name).map_err(error)?
                }
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let Some(target) = Self::link_target(here.as_fd(), &name, missing)? else {
                        // A whiteout was replaced by a directory.
                        todo.push_front(name.into_bytes());
                        continue;
                    };
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(error(Errno::ELOOP));
                    }
                    if target.starts_with(b"/") {
                        (here, depth) = (root()?, 0);
                    }
                    for part in split(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                    continue;
                }
                Err(errno) => return Err(error(errno)),
            };
            (here, depth) = (down, depth + 1);
        }
        Ok(here)
    }

    /// Where a symbolic link on the way leads. A whiteout, below which the layer puts something anew,
    /// becomes an opaque directory; then there is no target.
    fn link_target(
        here: BorrowedFd<'_>,
        name: &CString,
        missing: Missing,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let error = |errno| os(format!("open the directory {}", shown(name.as_bytes())), errno);
        match readlinkat(here, name.as_c_str()) {
            Ok(target) => Ok(Some(target.into_vec())),
            Err(Errno::EINVAL) if missing == Missing::Make && is_whiteout(here, name) => {
                unlinkat(here, name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(error)?;
                drop(make_parent(here, name).map_err(error)?);
                mark_opaque(here, name).map_err(error)?;
                Ok(None)
            }
            Err(Errno::EINVAL) => Err(error(Errno::ENOTDIR)),
            Err(errno) => Err(error(errno)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Fail,
}

fn split(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

/// The fast way: the whole path in one call, refusing every symbolic link on it.
fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, path, how)
}

fn open_directory(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn make_parent(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    mkdirat(at, name, Mode::from_bits_truncate(0o755))?;
    open_directory(at, name)
}

/// What `name` is, not following it.
pub(super) fn stat(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<FileStat> {
    fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The file type of a stat.
pub(super) fn type_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether `name` is an overlay whiteout: a character device 0:0.
pub(super) fn is_whiteout(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> bool {
    stat(at, name).is_ok_and(|stat| type_of(&stat) == SFlag::S_IFCHR && stat.st_rdev == 0)
}

/// Marks the directory `name` as hiding all that lies below it.
pub(super) fn mark_opaque(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let name = if name.is_empty() { c"." } else { name };
    let fd = openat(at, name, flags, Mode::empty())?;
    sys::layer::set_xattr(fd.as_fd(), OPAQUE_XATTR, b"y")
}

/// The errno of an `io::Error` made by a system call.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn names_are_cleaned_and_never_lead_out() {
        let check = |path: &str, expected: Option<&str>| {
            let found = Place::of(path.as_bytes()).ok().map(|place| place.path());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
        };
        check("./usr//bin/../lib/x", Some("usr/lib/x"));
        check("/etc/passwd", Some("etc/passwd"));
        check("/../etc/passwd", Some("etc/passwd"));
        check("./", Some(""));
        check("a/..", Some(""));
        check("../x", None);
        check("a/../../x", None);
    }
}
