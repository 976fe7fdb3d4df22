//! Paths below a ground, and what is found there. In the confined child.
//!
//! Invariants: a path is resolved by one openat2 with the ground as the root, or by one and a last name that
//! is never followed; from there on everything goes by the descriptor, one name at a time.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use nix::sys::statfs::{self, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use berth_runtime::contents::{FILE_ROWS_MAX, FileFacts, FileKind, PATH_BYTES_MAX};
use berth_runtime::record::{Failure, FailureClass};

use crate::sys::directory::Entries;
use crate::sys::fd::{Links, open_in_root};

/// Folders in one another that are walked; each is a descriptor.
pub(super) const DEPTH_MAX: usize = 1000;
/// Names of one folder that are looked at.
const NAMES_MAX: usize = 1 << 16;
/// Bytes of rows in one page at most, so that the message stays within its own bound.
const PAGE_BYTES_MAX: usize = 64 * 1024;
/// How long one removal goes on.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a path that a refusal shows.
const SHOWN_BYTES_MAX: usize = 200;
/// linux/magic.h: file systems that are the kernel's own and hold nobody's files.
const KERNELS_OWN: [statfs::FsType; 6] = [
    statfs::PROC_SUPER_MAGIC,
    statfs::SYSFS_MAGIC,
    statfs::CGROUP_SUPER_MAGIC,
    statfs::CGROUP2_SUPER_MAGIC,
    statfs::DEVPTS_SUPER_MAGIC,
    statfs::FsType(0x1980_0202), // message queues, mq_overview(7)
];

/// A path somebody has sent.
pub(super) struct Path {
    text: String,
    whole: CString,
}

impl Path {
    /// Reads one; `/` and the empty one are the ground itself.
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            let message = format!("the path {}: {why}", shown(text));
            Failure::new(FailureClass::Invalid, "files.path", message)
        };
        if text.len() > PATH_BYTES_MAX {
            return Err(wrong(&format!("it is longer than {PATH_BYTES_MAX} bytes")));
        }
        let slashed = if text.is_empty() { "/" } else { text };
        let whole = CString::new(slashed).map_err(|_| wrong("it holds a NUL"))?;
        Ok(Self { text: slashed.to_owned(), whole })
    }

    /// What a failure of the kernel's means for whoever has sent the path.
    pub(super) fn failure(&self, errno: Errno) -> Failure {
        let path = shown(&self.text);
        match errno {
            Errno::ENOENT => {
                let message = format!("{path}: there is no such file or folder");
                Failure::new(FailureClass::NotFound, "files.none", message)
            }
            Errno::ENOTDIR => {
                let message = format!("{path}: it is not a folder, or something on the way is not");
                Failure::new(FailureClass::Conflict, "files.not-folder", message)
            }
            Errno::EISDIR => {
                let message = format!("{path}: it is a folder");
                Failure::new(FailureClass::Conflict, "files.folder", message)
            }
            Errno::EEXIST | Errno::ENOTEMPTY => {
                let message = format!("{path}: something of that name is there");
                Failure::new(FailureClass::Conflict, "files.exists", message)
            }
            Errno::ENOSPC | Errno::EDQUOT => {
                let message = format!("{path}: no room is left");
                Failure::new(FailureClass::Exhausted, "disk.full", message)
            }
            Errno::EAGAIN | Errno::ETXTBSY | Errno::EBUSY => {
                let message = format!("{path}: it is in use in the container, or a mount");
                Failure::new(FailureClass::Conflict, "files.in-use", message)
            }
            Errno::EINVAL | Errno::ENAMETOOLONG => {
                let message = format!("the path {path}: no file can have that name");
                Failure::new(FailureClass::Invalid, "files.path", message)
            }
            Errno::ELOOP | Errno::EXDEV => denied(&path, "a link on the way leads nowhere"),
            Errno::EACCES | Errno::EPERM => {
                denied(&path, "the container’s own root may not do that")
            }
            Errno::EROFS => denied(&path, "it is read-only there"),
            errno => {
                let message = format!("{path}: {}", errno.desc());
                Failure::new(FailureClass::Broken, "files.act", message)
            }
        }
    }

    /// What lies there, links followed inside the ground.
    pub(super) fn open(&self, root: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Failure> {
        // openat2(2) takes little beside O_PATH.
        let flags = match flags.contains(OFlag::O_PATH) {
            true => flags,
            false => flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        };
        open_in_root(root, &self.whole, flags, Links::InRoot).map_err(|errno| self.failure(errno))
    }

    /// A folder, to be read.
    pub(super) fn folder(&self, root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
        let folder = self.open(root, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        self.admit(root, &folder)?;
        Ok(folder)
    }

    /// The folder that its last name is in, and that name.
    pub(super) fn parent(&self, root: BorrowedFd<'_>) -> Result<(OwnedFd, CString), Failure> {
        let trimmed = self.text.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        if name.is_empty() || name == "." || name == ".." {
            let message = format!("the path {}: its last part is no name", shown(&self.text));
            return Err(Failure::new(FailureClass::Invalid, "files.path", message));
        }
        let name = CString::new(name).map_err(|_| self.failure(Errno::EINVAL))?;
        let parent = CString::new(format!("{parent}/")).map_err(|_| self.failure(Errno::EINVAL))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let folder = open_in_root(root, &parent, flags, Links::InRoot)
            .map_err(|errno| self.failure(errno))?;
        self.admit(root, &folder)?;
        Ok((folder, name))
    }

    /// Refuses what is the kernel's own, or the container's devices.
    pub(super) fn admit(&self, root: BorrowedFd<'_>, found: &OwnedFd) -> Result<(), Failure> {
        let error = |errno| self.failure(errno);
        if is_kernels_own(found).map_err(error)? || is_in_devices(root, found).map_err(error)? {
            let path = shown(&self.text);
            let message = format!("{path}: /proc, /sys and /dev hold no files that are kept");
            return Err(Failure::new(FailureClass::Denied, "files.kernel", message));
        }
        Ok(())
    }

    /// Its last name, for an archive; `.` for the ground.
    pub(super) fn name(&self) -> &str {
        let name = self.text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if name.is_empty() || name == ".." { "." } else { name }
    }
}

fn denied(path: &str, why: &str) -> Failure {
    Failure::new(FailureClass::Denied, "files.refused", format!("{path}: {why}"))
}

fn shown(path: &str) -> String {
    let cut = path.floor_char_boundary(SHOWN_BYTES_MAX);
    let more = if cut < path.len() { "…" } else { "" };
    format!("{:?}{more}", &path[..cut])
}

/// Whether a file or folder is on a file system that holds nobody's files.
pub(super) fn is_kernels_own(found: impl AsFd) -> nix::Result<bool> {
    Ok(KERNELS_OWN.contains(&fstatfs(found.as_fd())?.filesystem_type()))
}

/// Whether it is on what is mounted at `/dev`, if anything is.
fn is_in_devices(root: BorrowedFd<'_>, found: &OwnedFd) -> nix::Result<bool> {
    let devices = match open_in_root(root, c"/dev", OFlag::O_PATH, Links::Refused) {
        Ok(devices) => fstat(&devices)?.st_dev,
        Err(_) => return Ok(false),
    };
    Ok(devices != fstat(root)?.st_dev && fstat(found)?.st_dev == devices)
}

/// What `name` in `folder` is, not followed.
pub(super) fn look(folder: BorrowedFd<'_>, name: &CStr) -> nix::Result<FileFacts> {
    let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mut facts = facts(name, &stat);
    if facts.kind == FileKind::Link {
        // Gone or replaced meanwhile: then it leads nowhere.
        let target = readlinkat(folder, name).ok();
        facts.target = target.map(|target| target.to_string_lossy().into_owned());
    }
    Ok(facts)
}

/// What an open file is.
pub(super) fn facts(name: &CStr, stat: &FileStat) -> FileFacts {
    let seconds = stat.st_mtime.saturating_mul(1000);
    FileFacts {
        name: name.to_string_lossy().into_owned(),
        is_exact: name.to_str().is_ok(),
        kind: match kind(stat) {
            SFlag::S_IFREG => FileKind::File,
            SFlag::S_IFDIR => FileKind::Folder,
            SFlag::S_IFLNK => FileKind::Link,
            _ => FileKind::Special,
        },
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified_ms: seconds.saturating_add(stat.st_mtime_nsec / 1_000_000),
        target: None,
    }
}

/// The file type of a stat.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// A page of a folder: rows, whether there are more, whether all names were looked at.
pub(super) fn list(
    folder: &OwnedFd,
    after: Option<&str>,
) -> nix::Result<(Vec<FileFacts>, bool, bool)> {
    let mut names: Vec<CString> = Vec::new();
    let mut entries = Entries::new();
    let mut is_whole = true;
    while let Some(name) = entries.next(folder)? {
        if name == c"." || name == c".." {
            continue;
        }
        if names.len() >= NAMES_MAX {
            is_whole = false;
            break;
        }
        names.push(name.to_owned());
    }
    // As they are shown, which is what the next page begins after.
    let mut names: Vec<(String, CString)> = names
        .into_iter()
        .map(|name| (name.to_string_lossy().into_owned(), name))
        .filter(|(shown, _)| after.is_none_or(|after| shown.as_str() > after))
        .collect();
    names.sort();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for (_, name) in names {
        let row = match look(folder.as_fd(), &name) {
            Ok(row) => row,
            // Gone meanwhile.
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno),
        };
        bytes += serde_json::to_vec(&row).map_or(0, |text| text.len());
        if rows.len() >= FILE_ROWS_MAX || (bytes > PAGE_BYTES_MAX && !rows.is_empty()) {
            return Ok((rows, true, is_whole));
        }
        rows.push(row);
    }
    Ok((rows, false, is_whole))
}

/// Removes `name` in `folder` and all below it, as long as the time lasts: how much went, and whether all did.
/// No link is followed and no mount entered; what a program adds meanwhile may stay.
pub(super) fn remove(folder: &OwnedFd, name: &CStr) -> nix::Result<(u64, bool)> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => return Ok((1, true)),
        Err(Errno::EISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let deadline = Instant::now() + REMOVE_LIMIT;
    let mut gone = 0;
    let mut way = vec![(open_to_empty(folder.as_fd(), name)?, Entries::new(), name.to_owned())];
    loop {
        if Instant::now() > deadline {
            return Ok((gone, false));
        }
        let depth = way.len();
        let Some((here, entries, _)) = way.last_mut() else { return Ok((gone, true)) };
        let Some(next) = entries.next(&*here)?.map(CStr::to_owned) else {
            let Some((_, _, own)) = way.pop() else { return Ok((gone, true)) };
            let parent = way.last().map_or(folder.as_fd(), |(parent, _, _)| parent.as_fd());
            match unlinkat(parent, own.as_c_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) => gone += 1,
                Err(Errno::ENOENT) => {}
                // Something came to it meanwhile, or the directory was changed under the reading of it.
                Err(Errno::ENOTEMPTY | Errno::EEXIST) if !way.is_empty() => {}
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok((gone, false)),
                Err(errno) => return Err(errno),
            }
            continue;
        };
        if next.as_c_str() == c"." || next.as_c_str() == c".." {
            continue;
        }
        match unlinkat(&*here, next.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {
                gone += 1;
                continue;
            }
            Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
        if depth >= DEPTH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        match open_to_empty(here.as_fd(), &next) {
            Ok(inner) => way.push((inner, Entries::new(), next)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A folder of the same mount.
fn open_to_empty(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    open_in_root(parent, name, flags, Links::RefusedWithMounts).map_err(|errno| match errno {
        Errno::EXDEV => Errno::EBUSY,
        errno => errno,
    })
}
