//! Places inside a root on which something is mounted, and making them when the image lacks them.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::spec::{SpecError, invalid};
use crate::sys::fd::{Links, open_in_root};

/// What a target has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory; made if absent.
    Directory,
    /// Anything but a directory; an empty file is made if absent.
    File,
    /// Whatever is there; nothing is made.
    Any,
    /// As `File`; a link that leads nowhere is replaced by an empty file.
    FileOrDeadLink,
}

/// A place inside a root.
#[derive(Debug)]
pub struct Target {
    /// For each component: the path up to and including it, and its name.
    parts: Vec<(CString, CString)>,
    kind: Kind,
    links: Links,
}

impl Target {
    /// The place at `path`, absolute, without `..`. `field` names it in errors.
    pub fn new(path: &str, kind: Kind, field: &str) -> Result<Self, SpecError> {
        if !path.starts_with('/') {
            return Err(invalid(field, format!("{path:?} is not an absolute path")));
        }
        let mut prefix = String::new();
        let mut parts = Vec::new();
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            if name == ".." {
                return Err(invalid(field, format!("{path:?} has a .. component")));
            }
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(name);
            let text = |text: &str| {
                CString::new(text).map_err(|_| invalid(field, format!("{text:?} has a NUL byte")))
            };
            parts.push((text(&prefix)?, text(name)?));
        }
        let links = match parts.first().map(|(first, _)| first.as_bytes()) {
            Some(b"proc" | b"sys" | b"dev") => Links::Refused,
            _ => Links::InRoot,
        };
        if parts.is_empty() {
            return Err(invalid(field, "the root itself cannot be a target"));
        }
        Ok(Self { parts, kind, links })
    }

    /// The first component.
    pub fn first(&self) -> &[u8] {
        self.parts[0].0.as_bytes()
    }

    /// The whole, for people.
    pub fn shown(&self) -> String {
        format!("/{}", self.parts[self.parts.len() - 1].0.to_string_lossy())
    }

    /// Whether it is below another by its name.
    pub fn is_below(&self, other: &Self) -> bool {
        let deep = other.parts.len();
        self.parts.len() > deep && self.parts[deep - 1].0 == other.parts[deep - 1].0
    }

    /// How many components there are.
    pub fn depth(&self) -> usize {
        self.parts.len()
    }

    /// Opens the place (`O_PATH`), making what is absent. `EXDEV` when a link leads into what is mounted
    /// on [`OWN`]. For the child: does not allocate.
    pub fn open(&self, root: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
        let place = match self.open_existing(root) {
            Err(Errno::ENOENT) if self.kind != Kind::Any => {
                for index in 0..self.parts.len() {
                    self.make_part(root, index)?;
                }
                self.open_existing(root)?
            }
            other => other?,
        };
        self.refuse_own(root, place.as_fd())?;
        Ok(place)
    }

    /// Opens the place only if it is there; else as [`Target::open`]. For the child: does not allocate.
    pub fn open_if_there(&self, root: BorrowedFd<'_>) -> nix::Result<Option<OwnedFd>> {
        let place = match self.open_existing(root) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        };
        self.refuse_own(root, place.as_fd())?;
        Ok(Some(place))
    }

    /// Opens the directory that the place is in, making what is absent, and gives the place's name there.
    /// For the child: does not allocate.
    pub fn open_parent(&self, root: BorrowedFd<'_>) -> nix::Result<(OwnedFd, &CStr)> {
        let last = self.parts.len() - 1;
        for index in 0..last {
            self.make_part(root, index)?;
        }
        let path = last.checked_sub(1).map_or(c".", |above| self.parts[above].0.as_c_str());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = open_in_root(root, path, flags, self.links)?;
        self.refuse_own(root, directory.as_fd())?;
        Ok((directory, &self.parts[last].1))
    }

    fn refuse_own(&self, root: BorrowedFd<'_>, place: BorrowedFd<'_>) -> nix::Result<()> {
        match self.links {
            Links::InRoot if is_on_own(root, place)? => Err(Errno::EXDEV),
            _ => Ok(()),
        }
    }

    fn open_existing(&self, root: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
        let flags = match self.kind {
            Kind::Directory => OFlag::O_PATH | OFlag::O_DIRECTORY,
            Kind::File | Kind::FileOrDeadLink | Kind::Any => OFlag::O_PATH,
        };
        let place = open_in_root(root, &self.parts[self.parts.len() - 1].0, flags, self.links)?;
        let file = matches!(self.kind, Kind::File | Kind::FileOrDeadLink);
        if file && is(fstat(&place)?.st_mode, SFlag::S_IFDIR) {
            return Err(Errno::EISDIR);
        }
        Ok(place)
    }

    /// Makes one component unless it is there.
    fn make_part(&self, root: BorrowedFd<'_>, index: usize) -> nix::Result<()> {
        let (path, name) = &self.parts[index];
        match open_in_root(root, path, OFlag::O_PATH, self.links) {
            Err(Errno::ENOENT) => {}
            other => return other.map(drop),
        }
        let above;
        let parent = match index.checked_sub(1) {
            None => root,
            Some(above_index) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                above = open_in_root(root, &self.parts[above_index].0, flags, self.links)?;
                self.refuse_own(root, above.as_fd())?;
                above.as_fd()
            }
        };
        if index + 1 < self.parts.len() || self.kind == Kind::Directory {
            return mkdirat(parent, name.as_c_str(), Mode::from_bits_truncate(0o755));
        }
        if self.kind == Kind::FileOrDeadLink {
            let seen = fstatat(parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            if seen.is_ok_and(|facts| is(facts.st_mode, SFlag::S_IFLNK)) {
                unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            }
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(parent, name.as_c_str(), flags | OFlag::O_RDONLY, Mode::from_bits_truncate(0o644))
            .map(drop)
    }
}

fn is(mode: nix::libc::mode_t, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == kind
}

/// Mounts of the runtime's own. A place that is not named as one of theirs is in none of them: a mount
/// there would lie between the runtime and what it writes to, protects or masks (CVE-2025-52881). One
/// device stands for all: they come from one file system of the host's.
const OWN: [&CStr; 7] =
    [c"proc", c"sys", c"dev", c"dev/pts", c"dev/shm", c"dev/mqueue", c"dev/null"];

fn is_on_own(root: BorrowedFd<'_>, place: BorrowedFd<'_>) -> nix::Result<bool> {
    let device = fstat(place)?.st_dev;
    if device == fstat(root)?.st_dev {
        return Ok(false);
    }
    for path in OWN {
        // What is not there, or is no mount yet, has nothing to protect.
        let own = open_in_root(root, path, OFlag::O_PATH, Links::Refused).and_then(fstat);
        if own.is_ok_and(|facts| facts.st_dev == device) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cleaned_and_bounded() {
        let target = Target::new("//proc/./sys/", Kind::Directory, "t").expect("a fair path");
        assert_eq!(
            (target.first(), target.depth(), target.links),
            (&b"proc"[..], 2, Links::Refused)
        );
        for path in ["", "a", "/", "/../etc", "/a/../b", "/a\0b"] {
            assert!(Target::new(path, Kind::Directory, "t").is_err(), "{path:?}");
        }
    }
}
