//! Writes an archive's entries below a root directory, as a layer of an overlay file system.
//!
//! Runs in the confined child only. Later entries replace earlier ones of the same name; whiteouts
//! become overlay's own form (overlayfs.rst, "whiteouts and opaque directories", with `userxattr`).

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::digest::Digest;
use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::stat::{fchmod, fchmodat, fstat, futimens, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, ftruncate, linkat, symlinkat};

use super::archive::{Archive, Entry, Kind, Segment};
use super::fault::{above_given, invalid, os, shown, too_large};
use super::source::{Meter, Source, Times};
use super::store::remove_tree;
use super::tree::{Place, Tree, is_whiteout, mark_opaque, stat, type_of};
use crate::sys;

/// Ids that a container has (its user namespace maps 0 to 65,535).
const IDS: u64 = 65_536;
/// Memory for the directories whose times are set at the end, in bytes at most.
const DIRECTORIES_BYTES_MAX: usize = 64 << 20;
/// Files from this size are handed to the disk while the rest is still coming.
const EARLY_WRITE_BYTES: u64 = 1 << 20;

/// What one archive may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) bytes_max: u64,
    pub(super) entries_max: u64,
    /// Whether `bytes_max` is what one request was given, and not the configuration's.
    pub(super) given: bool,
}

/// What was written.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extracted {
    pub(super) diff_id: Digest,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) devices_skipped: u64,
    /// For the journal; all zero unless asked for.
    pub(super) times: Times,
}

/// Extracts the archive in `source` below `root`.
pub(super) fn extract(
    source: Source<impl Read>,
    root: OwnedFd,
    caps: Caps,
    meter: &Meter,
) -> Result<Extracted, Failure> {
    let mut archive = Archive::new(source);
    let mut writer = Writer {
        tree: Tree::new(root),
        caps,
        entries: 0,
        bytes: 0,
        devices_skipped: 0,
        directories: Vec::new(),
        directories_bytes: 0,
    };
    while let Some(entry) = archive.next()? {
        writer.write(&entry, &mut archive)?;
    }
    writer.set_directory_times()?;
    Ok(Extracted {
        diff_id: archive.finish(),
        entries: writer.entries,
        bytes: writer.bytes,
        devices_skipped: writer.devices_skipped,
        times: meter.times(),
    })
}

/// A directory's time, to be set at the end if it is still that directory.
struct DirectoryTime {
    path: Vec<u8>,
    inode: u64,
    time: TimeSpec,
}

struct Writer {
    tree: Tree,
    caps: Caps,
    entries: u64,
    bytes: u64,
    devices_skipped: u64,
    /// Writing into a directory changes its time, so these are set last.
    directories: Vec<DirectoryTime>,
    directories_bytes: usize,
}

impl Writer {
    fn write(&mut self, entry: &Entry, archive: &mut Archive<impl Read>) -> Result<(), Failure> {
        self.entries += 1;
        // A short name of many parts makes as many directories.
        if self.entries.saturating_add(self.tree.made()) > self.caps.entries_max {
            let max = self.caps.entries_max;
            return Err(too_large(format!("the layer has more than {max} entries")));
        }
        let place = Place::of(&entry.path)?;
        if entry.path.is_empty() {
            return Err(invalid("an entry has no name"));
        }
        if entry.uid >= IDS || entry.gid >= IDS {
            let (path, uid, gid) = (shown(&entry.path), entry.uid, entry.gid);
            return Err(invalid(format!(
                "{path} belongs to {uid}:{gid}; containers have the ids 0 to 65535"
            )));
        }
        if place.is_root() {
            return self.root_entry(entry);
        }
        if place.parent.starts_with(b".wh..wh.") {
            // Below aufs's own bookkeeping (hard-link farms of images made with it).
            return Ok(());
        }
        if place.parent.split(|&byte| byte == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(invalid(format!("{} lies below a whiteout", shown(&entry.path))));
        }
        if let Some(hidden) = place.name.as_bytes().strip_prefix(b".wh.") {
            let hidden = hidden.to_vec();
            return self.whiteout(&place, &hidden);
        }
        match entry.kind {
            Kind::Device => {
                self.devices_skipped += 1;
                Ok(())
            }
            Kind::Directory => self.directory(&place, entry),
            Kind::File => self.file(&place, entry, archive),
            Kind::Symlink => self.symlink(&place, entry),
            Kind::HardLink => self.hard_link(&place, entry),
            Kind::Fifo => self.fifo(&place, entry),
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        if entry.kind != Kind::Directory {
            return Err(invalid("the layer's root is not a directory"));
        }
        let fd = open_read(self.tree.root(), c".").map_err(failed("open", entry))?;
        finish_inode(&fd, entry)?;
        self.remember_time(&fd, Vec::new(), entry)
    }

    fn directory(&mut self, place: &Place, entry: &Entry) -> Result<(), Failure> {
        let parent = self.tree.parent(&place.parent)?;
        let name = place.name.as_c_str();
        let mut replaced = false;
        if let Err(errno) = mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
            let stat = match errno {
                Errno::EEXIST => stat(parent, name).map_err(failed("look at", entry))?,
                errno => return Err(failed("create", entry)(errno)),
            };
            if type_of(&stat) != SFlag::S_IFDIR {
                let hides = is_whiteout(parent, name);
                remove_tree(parent, name).map_err(failed("replace", entry))?;
                mkdirat(parent, name, Mode::from_bits_truncate(0o700))
                    .map_err(failed("create", entry))?;
                if hides {
                    mark_opaque(parent, name).map_err(failed("mark", entry))?;
                }
                replaced = true;
            }
        }
        let fd = open_read(parent, name).map_err(failed("open", entry))?;
        if replaced {
            self.tree.forget();
        }
        finish_inode(&fd, entry)?;
        self.remember_time(&fd, place.path(), entry)
    }

    fn file(
        &mut self,
        place: &Place,
        entry: &Entry,
        archive: &mut Archive<impl Read>,
    ) -> Result<(), Failure> {
        let create = |parent: BorrowedFd<'_>, name: &CStr| {
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_EXCL
                | OFlag::O_NOFOLLOW
                | OFlag::O_CLOEXEC;
            openat(parent, name, flags, Mode::from_bits_truncate(entry.mode & 0o777))
        };
        let fd = self.create(place, entry, create)?;
        match &entry.segments {
            None => self.copy(&fd, entry, archive, Segment { offset: 0, length: entry.size })?,
            Some(segments) => {
                for segment in segments {
                    self.copy(&fd, entry, archive, *segment)?;
                }
                let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
                ftruncate(&fd, size).map_err(failed("extend", entry))?;
            }
        }
        if entry.uid != 0 || entry.gid != 0 || entry.mode & !0o777 != 0 || !entry.xattrs.is_empty()
        {
            finish_inode(&fd, entry)?;
        }
        let time = time_of(entry);
        futimens(&fd, &time, &time).map_err(failed("set the time of", entry))?;
        if entry.size >= EARLY_WRITE_BYTES {
            // Only a hint: the layer is synced as a whole before it gets its name.
            sys::layer::start_writing(fd.as_fd());
        }
        Ok(())
    }

    /// Copies one run of data to its place in the file.
    fn copy(
        &mut self,
        fd: &OwnedFd,
        entry: &Entry,
        archive: &mut Archive<impl Read>,
        segment: Segment,
    ) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(segment.length);
        if self.bytes > self.caps.bytes_max {
            let max = self.caps.bytes_max;
            let message = format!("the layer holds more than {max} bytes of files");
            return Err(if self.caps.given { above_given(message) } else { too_large(message) });
        }
        let mut done: u64 = 0;
        while done < segment.length {
            let bytes = archive.data(segment.length - done)?;
            let at = i64::try_from(segment.offset + done).unwrap_or(i64::MAX);
            let count = nix::sys::uio::pwrite(fd, bytes, at).map_err(failed("write", entry))?;
            archive.consume(count);
            done += count as u64;
        }
        Ok(())
    }

    fn symlink(&mut self, place: &Place, entry: &Entry) -> Result<(), Failure> {
        let target = CString::new(entry.link.as_slice())
            .map_err(|_| invalid("a link's target holds a NUL byte"))?;
        self.create(place, entry, |parent, name| symlinkat(target.as_c_str(), parent, name))?;
        self.finish_name(place, entry)
    }

    fn fifo(&mut self, place: &Place, entry: &Entry) -> Result<(), Failure> {
        let mode = Mode::from_bits_truncate(entry.mode & 0o777);
        self.create(place, entry, |parent, name| mknodat(parent, name, SFlag::S_IFIFO, mode, 0))?;
        self.finish_name(place, entry)?;
        let parent = self.tree.parent(&place.parent)?;
        let mode = Mode::from_bits_truncate(entry.mode);
        // The name was made a line above and nobody else writes here, so it is no symbolic link.
        fchmodat(parent, place.name.as_c_str(), mode, FchmodatFlags::FollowSymlink)
            .map_err(failed("set the mode of", entry))
    }

    /// Another name of an inode of this layer; that inode's own entry has set its properties.
    fn hard_link(&mut self, place: &Place, entry: &Entry) -> Result<(), Failure> {
        let target = Place::of(&entry.link)?;
        if target.is_root() || target.name.as_bytes().starts_with(b".wh.") {
            return Err(invalid(format!("{} links to no file", shown(&entry.path))));
        }
        if target.path() == place.path() {
            return Err(invalid(format!("{} links to itself", shown(&entry.path))));
        }
        let from = self.tree.existing(&target.parent)?;
        let old = target.name.as_c_str();
        let found = stat(from.as_fd(), old).map_err(failed("link", entry))?;
        if is_whiteout(from.as_fd(), old) || type_of(&found) == SFlag::S_IFDIR {
            return Err(invalid(format!("{} links to no file", shown(&entry.path))));
        }
        self.create(place, entry, |parent, name| {
            linkat(from.as_fd(), old, parent, name, AtFlags::empty())
        })
    }

    /// `.wh.<hidden>`: the name is gone from here up (OCI image-spec, layer.md, "Whiteouts").
    fn whiteout(&mut self, place: &Place, hidden: &[u8]) -> Result<(), Failure> {
        let failed = |errno| os(format!("hide {}", shown(&place.path())), errno);
        let parent = self.tree.parent(&place.parent)?;
        if hidden == b".wh..opq" {
            return mark_opaque(parent, c".").map_err(failed);
        }
        if hidden.starts_with(b".wh.") {
            // aufs's own bookkeeping; not content.
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(invalid(format!("{} is no whiteout of a name", shown(&place.path()))));
        }
        let name = CString::new(hidden).map_err(|_| invalid("a name holds a NUL byte"))?;
        match mknodat(parent, name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // What this layer itself has put there stays: only lower layers are hidden.
            Err(Errno::EEXIST) => {
                let found = stat(parent, &name).map_err(failed)?;
                if type_of(&found) == SFlag::S_IFDIR {
                    mark_opaque(parent, &name).map_err(failed)?;
                }
                Ok(())
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Makes a name by `make`, replacing what bore it before.
    fn create<T>(
        &mut self,
        place: &Place,
        entry: &Entry,
        make: impl Fn(BorrowedFd<'_>, &CStr) -> nix::Result<T>,
    ) -> Result<T, Failure> {
        let parent = self.tree.parent(&place.parent)?;
        match make(parent, &place.name) {
            Ok(made) => return Ok(made),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed("create", entry)(errno)),
        }
        remove_tree(parent, &place.name).map_err(failed("replace", entry))?;
        let made = make(parent, &place.name).map_err(failed("create", entry));
        self.tree.forget();
        made
    }

    /// Owner and time of what has no descriptor to set them by.
    fn finish_name(&mut self, place: &Place, entry: &Entry) -> Result<(), Failure> {
        let parent = self.tree.parent(&place.parent)?;
        let name = place.name.as_c_str();
        if entry.uid != 0 || entry.gid != 0 {
            let (uid, gid) = ids_of(entry);
            fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(failed("set the owner of", entry))?;
        }
        let time = time_of(entry);
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of", entry))
    }

    fn remember_time(&mut self, fd: &OwnedFd, path: Vec<u8>, entry: &Entry) -> Result<(), Failure> {
        self.directories_bytes += path.len() + 64;
        if self.directories_bytes > DIRECTORIES_BYTES_MAX {
            return Err(too_large("the layer's directories have too long names"));
        }
        let inode = fstat(fd).map_err(failed("look at", entry))?.st_ino;
        self.directories.push(DirectoryTime { path, inode, time: time_of(entry) });
        Ok(())
    }

    fn set_directory_times(&mut self) -> Result<(), Failure> {
        for DirectoryTime { path, inode, time } in std::mem::take(&mut self.directories) {
            let place = Place::of(&path)?;
            let failed = |errno| os(format!("set the time of {}", shown(&path)), errno);
            let name = if place.is_root() { c"." } else { place.name.as_c_str() };
            // Its name may lead elsewhere by now: a later entry has replaced it, or a parent of it.
            let Ok(parent) = self.tree.existing(&place.parent) else { continue };
            let same = |found: FileStat| found.st_ino == inode && type_of(&found) == SFlag::S_IFDIR;
            if !stat(parent.as_fd(), name).is_ok_and(same) {
                continue;
            }
            utimensat(&parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
                .map_err(failed)?;
        }
        Ok(())
    }
}

fn open_read(at: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Owner, mode and attributes, in this order: a change of owner clears setuid bits and file
/// capabilities (chown(2), capabilities(7)).
fn finish_inode(fd: &OwnedFd, entry: &Entry) -> Result<(), Failure> {
    let (uid, gid) = ids_of(entry);
    fchown(fd, Some(uid), Some(gid)).map_err(failed("set the owner of", entry))?;
    let mode = Mode::from_bits_truncate(entry.mode);
    fchmod(fd, mode).map_err(failed("set the mode of", entry))?;
    for (name, value) in &entry.xattrs {
        let Some(value) = kept_xattr(name, value) else { continue };
        let name = CString::new(name.as_slice()).map_err(|_| invalid("a NUL in an attribute"))?;
        match sys::layer::set_xattr(fd.as_fd(), &name, &value) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(failed("set an extended attribute of", entry)(errno)),
        }
    }
    Ok(())
}

/// What an image may set: `user.*` except overlay's own marks, POSIX ACLs, and file capabilities,
/// which the kernel binds to this user namespace's root (user_namespaces(7)). `trusted.*` and the
/// labels of security modules are the host's.
fn kept_xattr<'a>(name: &[u8], value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if name == b"security.capability" {
        // Version 3 (24 bytes, the last four an id) names somebody else's root: what version 2 has
        // of it is kept, and the kernel adds this user namespace's root.
        return match (value.len(), value.get(3)) {
            (20, Some(2)) => Some(Cow::Borrowed(value)),
            (24, Some(3)) => {
                let mut value = value[..20].to_vec();
                value[3] = 2;
                Some(Cow::Owned(value))
            }
            _ => None,
        };
    }
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    let acl = name.starts_with(b"system.posix_acl_");
    (user || acl).then_some(Cow::Borrowed(value))
}

fn ids_of(entry: &Entry) -> (Uid, Gid) {
    // Both were checked to be below IDS.
    let uid = u32::try_from(entry.uid).unwrap_or(u32::MAX);
    let gid = u32::try_from(entry.gid).unwrap_or(u32::MAX);
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

fn time_of(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime.0, entry.mtime.1)
}

fn failed(verb: &'static str, entry: &Entry) -> impl Fn(Errno) -> Failure {
    move |errno| os(format!("{verb} {}", shown(&entry.path)), errno)
}
