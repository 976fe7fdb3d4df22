//! Compares a stored layer with the same layer as it was unpacked just now, entry by entry.
//!
//! What a layer should be is said by nothing that lies beside it: its name is the digest of the bytes it
//! was unpacked from, and these are unpacked again. So nothing is written down that could be changed with
//! it, and a pull pays for nothing. Compared are names, kinds, modes, owners, device numbers, targets of
//! links, attributes and contents; not times, which a look changes, nor which names are one file.
//!
//! Runs as root and only reads. Neither tree is written to meanwhile; if somebody does all the same, what is
//! said may be wrong, and nothing else. Depth costs neither stack nor descriptors.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::record::Failure;
use berth_runtime::wire::{LayerDifference, LayerHarm};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::read;

use super::fault::{os, shown};
use super::store::FACTS_XATTR;
use super::tree::{stat, type_of};
use crate::sys::xattr;

/// Differences that are named at most; the others are counted.
const SHOWN_MAX: usize = 32;
/// Bytes of two files that are compared at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Permissions, with set-user-ID and the like.
const MODE_BITS: u32 = 0o7777;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Entries that were looked at, on either side.
    pub(super) entries: u64,
    /// All differences.
    pub(super) differences: u64,
    /// The first of them.
    pub(super) shown: Vec<LayerDifference>,
}

/// A directory on both sides.
struct Pair {
    right: OwnedFd,
    stored: OwnedFd,
}

/// What is left to do above the directory that is being looked at.
struct Above {
    /// Directories that are on both sides, in reverse order.
    names: Vec<CString>,
    /// How long the path is down to there.
    path_bytes: usize,
}

/// Compares the tree at `stored` with `right`, which is as it should be. `go_on` is asked now and then.
pub(super) fn compare(
    right: BorrowedFd<'_>,
    stored: BorrowedFd<'_>,
    mut go_on: impl FnMut() -> Result<(), Failure>,
) -> Result<Found, Failure> {
    let failed = |errno| os("open a layer", errno);
    let mut here = Pair {
        right: open_directory(right, c".").map_err(failed)?,
        stored: open_directory(stored, c".").map_err(failed)?,
    };
    let mut walk = Walk { found: Found::default(), path: Vec::new(), buffers: Buffers::new() };
    walk.entry(&here, c".")?;
    let mut above = vec![Above { names: walk.directory(&here, &mut go_on)?, path_bytes: 0 }];
    while let Some(level) = above.last_mut() {
        walk.path.truncate(level.path_bytes);
        if let Some(name) = level.names.pop() {
            walk.step(&name);
            here = walk.enter(&here, &name)?;
            let (names, path_bytes) = (walk.directory(&here, &mut go_on)?, walk.path.len());
            above.push(Above { names, path_bytes });
        } else {
            above.pop();
            if !above.is_empty() {
                here = walk.enter(&here, c"..")?;
            }
        }
    }
    Ok(walk.found)
}

struct Walk {
    found: Found,
    /// Of the directory that is looked at, below the layer's root.
    path: Vec<u8>,
    buffers: Buffers,
}

struct Buffers {
    right: Vec<u8>,
    stored: Vec<u8>,
}

impl Buffers {
    fn new() -> Self {
        Self { right: vec![0; CHUNK_BYTES], stored: vec![0; CHUNK_BYTES] }
    }
}

impl Walk {
    fn step(&mut self, name: &CStr) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
    }

    fn enter(&self, here: &Pair, name: &CStr) -> Result<Pair, Failure> {
        let failed = |errno| os(format!("open the directory {}", shown(&self.path)), errno);
        Ok(Pair {
            right: open_directory(here.right.as_fd(), name).map_err(failed)?,
            stored: open_directory(here.stored.as_fd(), name).map_err(failed)?,
        })
    }

    /// Looks at all that is in a directory; answers the directories that are on both sides.
    fn directory(
        &mut self,
        here: &Pair,
        go_on: &mut impl FnMut() -> Result<(), Failure>,
    ) -> Result<Vec<CString>, Failure> {
        let failed = |errno| os(format!("list {}", shown(&self.path)), errno);
        let right = names(here.right.as_fd()).map_err(failed)?;
        let stored = names(here.stored.as_fd()).map_err(failed)?;
        let mut both = Vec::new();
        for name in right.union(&stored) {
            go_on()?;
            let length = self.path.len();
            match (right.contains(name), stored.contains(name)) {
                (true, true) => {
                    if self.entry(here, name)? {
                        both.push(name.clone());
                    }
                }
                (true, false) => self.lone(name, LayerHarm::Missing),
                (false, _) => self.lone(name, LayerHarm::Added),
            }
            self.path.truncate(length);
        }
        both.reverse();
        Ok(both)
    }

    fn lone(&mut self, name: &CStr, harm: LayerHarm) {
        self.found.entries += 1;
        self.step(name);
        self.differs(harm);
    }

    /// Compares what a name is on both sides; whether it is a directory on both.
    fn entry(&mut self, here: &Pair, name: &CStr) -> Result<bool, Failure> {
        let length = self.path.len();
        if name != c"." {
            self.step(name);
        }
        self.found.entries += 1;
        let failed = |errno| os(format!("look at {}", shown(&self.path)), errno);
        let right = stat(here.right.as_fd(), name).map_err(failed)?;
        let stored = stat(here.stored.as_fd(), name).map_err(failed)?;
        let harms = self.harms(here, name, (&right, &stored))?;
        for harm in harms {
            self.differs(harm);
        }
        self.path.truncate(length);
        Ok(is(&right, SFlag::S_IFDIR) && is(&stored, SFlag::S_IFDIR))
    }

    fn harms(
        &mut self,
        here: &Pair,
        name: &CStr,
        (right, stored): (&FileStat, &FileStat),
    ) -> Result<Vec<LayerHarm>, Failure> {
        let (path, buffers) = (&self.path, &mut self.buffers);
        let failed = |errno| os(format!("read {}", shown(path)), errno);
        if type_of(right) != type_of(stored) {
            return Ok(vec![LayerHarm::Kind]);
        }
        let mut harms = Vec::new();
        if (right.st_mode ^ stored.st_mode) & MODE_BITS != 0 {
            harms.push(LayerHarm::Mode);
        }
        if (right.st_uid, right.st_gid) != (stored.st_uid, stored.st_gid) {
            harms.push(LayerHarm::Owner);
        }
        let attributes = |at: &OwnedFd| attributes(at.as_fd(), name).map_err(failed);
        if attributes(&here.right)? != attributes(&here.stored)? {
            harms.push(LayerHarm::Attributes);
        }
        match type_of(right) {
            SFlag::S_IFREG if right.st_size != stored.st_size => harms.push(LayerHarm::Size),
            SFlag::S_IFREG => match same_content(here, name, buffers) {
                Ok(true) => {}
                Ok(false) => harms.push(LayerHarm::Content),
                // The disk itself says that it is damaged.
                Err(Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG) => {
                    harms.push(LayerHarm::Unreadable);
                }
                Err(errno) => return Err(failed(errno)),
            },
            SFlag::S_IFLNK => {
                let target = |at: &OwnedFd| readlinkat(at, name).map_err(failed);
                if target(&here.right)? != target(&here.stored)? {
                    harms.push(LayerHarm::Target);
                }
            }
            SFlag::S_IFCHR | SFlag::S_IFBLK if right.st_rdev != stored.st_rdev => {
                harms.push(LayerHarm::Device);
            }
            _ => {}
        }
        Ok(harms)
    }

    fn differs(&mut self, harm: LayerHarm) {
        self.found.differences += 1;
        if self.found.shown.len() < SHOWN_MAX {
            let path = if self.path.is_empty() { b"." } else { self.path.as_slice() };
            self.found.shown.push(LayerDifference { path: shown(path), harm });
        }
    }
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    type_of(stat) == kind
}

fn open_directory(at: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn names(directory: BorrowedFd<'_>) -> nix::Result<BTreeSet<CString>> {
    let mut found = BTreeSet::new();
    for entry in Dir::from_fd(open_directory(directory, c".")?)?.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            found.insert(name);
        }
    }
    Ok(found)
}

/// All attributes that a layer may have, with their values, by name. The labels of the host's security
/// module are not the layer's, and the layer's facts are on its root alone.
fn attributes(at: BorrowedFd<'_>, name: &CStr) -> nix::Result<Vec<(CString, Vec<u8>)>> {
    let mut found = Vec::new();
    for attribute in xattr::names(at, name)? {
        let ours = attribute.as_c_str() == FACTS_XATTR && name == c".";
        let label = attribute.to_bytes().starts_with(b"security.")
            && attribute.as_c_str() != c"security.capability";
        if !ours && !label {
            let value = xattr::get(at, name, &attribute)?;
            found.push((attribute, value));
        }
    }
    found.sort();
    Ok(found)
}

fn same_content(here: &Pair, name: &CStr, buffers: &mut Buffers) -> nix::Result<bool> {
    // A file that somebody makes a fifo of just now is not waited for.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let open = |at: &OwnedFd| openat(at, name, flags | OFlag::O_NOATIME, Mode::empty());
    let (right, stored) = (open(&here.right)?, open(&here.stored)?);
    loop {
        let wanted = fill(&right, &mut buffers.right)?;
        let found = fill(&stored, &mut buffers.stored)?;
        if buffers.right[..wanted] != buffers.stored[..found] {
            return Ok(false);
        }
        if wanted == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &OwnedFd, buffer: &mut [u8]) -> nix::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(file, &mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}
