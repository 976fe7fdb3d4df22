//! What a tmpfs begins with of what the image has at its place: with `tmpcopyup` all of it (config.md, "Linux
//! mount options"); and what a volume that was never used does.
//! In the child: nothing here allocates, locks or panics.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchownat, ftruncate, lseek, read, symlinkat, write};

use crate::rootfs::options::Options;
use crate::sys::directory::{Entries, read_link};
use crate::sys::xattr;

/// Directories in one another that are copied at most: each takes some room on the stack.
const DEPTH_MAX: usize = 64;
/// Files and directories that are copied at most.
const ENTRIES_MAX: usize = 1 << 18;
/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes of a link's content at most, and its end (symlink(7), `PATH_MAX`).
const LINK_BYTES: usize = 4096;

/// What a tmpfs, or a volume, takes over from the directory at its place, if there was one.
#[derive(Debug, Clone, Copy)]
pub struct TakenOver {
    contents: bool,
    mode: bool,
    owner: bool,
    attributes: bool,
}

impl TakenOver {
    /// Everything, extended attributes as well.
    pub const ALL: Self = Self { contents: true, mode: true, owner: true, attributes: true };

    /// By the options of the mount: the mode unless one is given, as other runtimes have it, and with
    /// `tmpcopyup` the rest.
    pub fn of(options: &Options) -> Self {
        let has = |name: &str| options.data.iter().any(|(key, _)| key == name);
        let contents = options.copy_up;
        let owner = contents && !has("uid") && !has("gid");
        Self { contents, mode: !has("mode"), owner, attributes: false }
    }

    /// Brings it from `from` to `to`, the root of another file system: contents with owners, modes and
    /// times, and attributes where all is brought. What is mounted below `from` stays away, and so do sockets.
    ///
    /// # Errors
    /// The kernel's; `E2BIG` beyond the limits of depth and number.
    pub fn bring(self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<()> {
        let facts = fstat(from)?;
        let to = open_directory(to, c".")?;
        if self.contents {
            let from = open_directory(from, c".")?;
            let mut copy = Copy { device: facts.st_dev, entries: 0, attributes: self.attributes };
            copy.directory(from.as_fd(), to.as_fd(), 0)?;
            if self.attributes {
                copy_attributes(from.as_fd(), to.as_fd())?;
            }
        }
        if self.owner {
            set_owner(to.as_fd(), c"", &facts)?;
        }
        if self.mode {
            fchmod(&to, mode(&facts))?;
        }
        match self.attributes {
            true => set_times(to.as_fd(), c".", &facts),
            false => Ok(()),
        }
    }
}

struct Copy {
    device: nix::libc::dev_t,
    entries: usize,
    attributes: bool,
}

impl Copy {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        depth: usize,
    ) -> nix::Result<()> {
        if depth > DEPTH_MAX {
            return Err(Errno::E2BIG);
        }
        let mut entries = Entries::new();
        while let Some(name) = entries.next(from)? {
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(Errno::E2BIG);
            }
            self.entry((from, to), name, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
        name: &CStr,
        depth: usize,
    ) -> nix::Result<()> {
        let facts = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFDIR if facts.st_dev != self.device => return Ok(()),
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU)?;
                let (from, to) = (open_directory(from, name)?, open_directory(to, name)?);
                self.directory(from.as_fd(), to.as_fd(), depth + 1)?;
                self.dress(&from, &to, &facts)?;
            }
            SFlag::S_IFREG => {
                let (source, made) = file(from, to, name)?;
                self.dress(&source, &made, &facts)?;
            }
            SFlag::S_IFLNK => {
                let mut buffer = [0; LINK_BYTES];
                symlinkat(read_link(from, name, &mut buffer)?, to, name)?;
                set_owner(to, name, &facts)?;
            }
            SFlag::S_IFSOCK => return Ok(()),
            _ => {
                mknodat(to, name, kind, mode(&facts), facts.st_rdev)?;
                set_owner(to, name, &facts)?;
            }
        }
        set_times(to, name, &facts)
    }

    /// Owner, mode and attributes, in the order in which none takes another away.
    fn dress(&self, from: &OwnedFd, to: &OwnedFd, facts: &FileStat) -> nix::Result<()> {
        set_owner(to.as_fd(), c"", facts)?;
        fchmod(to, mode(facts))?;
        match self.attributes {
            true => copy_attributes(from.as_fd(), to.as_fd()),
            false => Ok(()),
        }
    }
}

fn set_times(place: BorrowedFd<'_>, name: &CStr, facts: &FileStat) -> nix::Result<()> {
    let accessed = TimeSpec::new(facts.st_atime, facts.st_atime_nsec);
    let modified = TimeSpec::new(facts.st_mtime, facts.st_mtime_nsec);
    utimensat(place, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
}

/// Attributes that are the files' own: what programs have written there, access lists, file capabilities.
#[inline(never)]
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<()> {
    let (mut names, mut value) = ([0; xattr::BYTES_MAX], [0; xattr::BYTES_MAX]);
    for name in xattr::names_of(from, &mut names)?.split_inclusive(|byte| *byte == 0) {
        let own = name.starts_with(b"user.")
            || name.starts_with(b"system.posix_acl_")
            || name == c"security.capability".to_bytes_with_nul();
        if own {
            let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EIO)?;
            xattr::set_of(to, name, xattr::get_of(from, name, &mut value)?)?;
        }
    }
    Ok(())
}

/// Copies a file's bytes; holes stay holes. Both open files.
fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let source = openat(from, name, flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
    let made = flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let made = openat(to, name, made, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut at = 0;
    loop {
        let start = match lseek(&source, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno),
        };
        let end = lseek(&source, start, Whence::SeekHole)?;
        for file in [&source, &made] {
            lseek(file, start, Whence::SeekSet)?;
        }
        stretch(&source, &made, usize::try_from(end - start).map_err(|_| Errno::EIO)?)?;
        at = end;
    }
    ftruncate(&made, fstat(&source)?.st_size)?;
    Ok((source, made))
}

fn stretch(source: &OwnedFd, made: &OwnedFd, length: usize) -> nix::Result<()> {
    let mut buffer = [0; CHUNK_BYTES];
    let mut left = length;
    while left > 0 {
        let room = buffer.get_mut(..left.min(CHUNK_BYTES)).ok_or(Errno::EIO)?;
        let length = match read(source, room) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut rest = room.get(..length).ok_or(Errno::EIO)?;
        if rest.is_empty() {
            return Ok(());
        }
        left -= length;
        while !rest.is_empty() {
            let written = write(made, rest)?;
            rest = rest.get(written..).ok_or(Errno::EIO)?;
        }
    }
    Ok(())
}

/// An owner that has no id in the container is nobody there, and cannot be had: root is in its place.
fn set_owner(place: BorrowedFd<'_>, name: &CStr, facts: &FileStat) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(facts.st_uid), Gid::from_raw(facts.st_gid));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    match fchownat(place, name, Some(user), Some(group), flags) {
        Err(Errno::EINVAL) => Ok(()),
        other => other,
    }
}

fn mode(facts: &FileStat) -> Mode {
    Mode::from_bits_truncate(facts.st_mode)
}

fn open_directory(place: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    openat(place, name, flags, Mode::empty())
}
