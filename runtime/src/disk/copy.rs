//! Copying what containers have written to another file system: every kind of file with its owner, mode,
//! times, extended attributes (overlayfs keeps its marks there), hard links and holes; and looking
//! whether a copy is one.
//!
//! The names are the containers': no link is followed, and neither stack nor descriptors grow with the
//! depth. Nobody else may be changing either side.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchownat, getppid, linkat, lseek, symlinkat};

use crate::sys::xattr;

/// Bytes that are copied or compared at once.
const CHUNK_BYTES: usize = 1 << 20;
/// The directory itself, as a name in it.
const ITSELF: &CStr = c".";

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);
const PLAIN: OFlag = OFlag::O_CLOEXEC.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK);

/// What was being done to what when a walk ended.
#[derive(Debug)]
pub(super) struct Stopped {
    /// The file, by its name only.
    pub(super) name: String,
    /// The kernel's answer; `EUCLEAN` where a copy is not like what it was made from, `ECANCELED` when
    /// whoever wanted it is gone.
    pub(super) errno: Errno,
}

/// A pair of open directories on the way, and what is left to do in them.
struct Walk {
    from: OwnedFd,
    to: OwnedFd,
    left: Vec<Vec<CString>>,
    parent: nix::unistd::Pid,
}

/// What comes next on a walk.
enum Next {
    /// A name in both directories.
    Name(CString),
    /// Both directories are done; the walk has them still.
    Leave,
}

impl Walk {
    fn new(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<Self> {
        let (from, to) = (again(from)?, again(to)?);
        let left = vec![names(from.as_fd())?];
        Ok(Self { from, to, left, parent: getppid() })
    }

    fn next(&mut self) -> nix::Result<Option<Next>> {
        if getppid() != self.parent {
            return Err(Errno::ECANCELED);
        }
        let Some(names) = self.left.last_mut() else { return Ok(None) };
        Ok(Some(names.pop().map_or(Next::Leave, Next::Name)))
    }

    fn enter(&mut self, name: &CStr) -> nix::Result<()> {
        let from = openat(&self.from, name, DIRECTORY, Mode::empty())?;
        let to = openat(&self.to, name, DIRECTORY, Mode::empty())?;
        self.left.push(names(from.as_fd())?);
        (self.from, self.to) = (from, to);
        Ok(())
    }

    fn leave(&mut self) -> nix::Result<()> {
        self.left.pop();
        if !self.left.is_empty() {
            self.from = openat(&self.from, c"..", DIRECTORY, Mode::empty())?;
            self.to = openat(&self.to, c"..", DIRECTORY, Mode::empty())?;
        }
        Ok(())
    }
}

/// Copies all that is in `from`, and what it is like itself, to the empty directory `to`; `links` is an
/// empty directory on the same file system for the time of the copy.
pub(super) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    links: BorrowedFd<'_>,
) -> Result<(), Stopped> {
    let mut walk = Walk::new(from, to).map_err(stopped(ITSELF))?;
    // Names that a file has yet to get, by its number.
    let mut linked: HashMap<u64, libc::nlink_t> = HashMap::new();
    loop {
        let Some(next) = walk.next().map_err(stopped(ITSELF))? else { return Ok(()) };
        let name = match next {
            Next::Name(name) => name,
            Next::Leave => {
                status(&walk.from, ITSELF)
                    .and_then(|stat| dress(&walk, ITSELF, &stat))
                    .and_then(|()| walk.leave())
                    .map_err(stopped(ITSELF))?;
                continue;
            }
        };
        copy_one(&mut walk, &name, links, &mut linked).map_err(stopped(&name))?;
    }
}

fn copy_one(
    walk: &mut Walk,
    name: &CStr,
    links: BorrowedFd<'_>,
    linked: &mut HashMap<u64, libc::nlink_t>,
) -> nix::Result<()> {
    let stat = status(&walk.from, name)?;
    if kind(&stat) == SFlag::S_IFDIR {
        mkdirat(&walk.to, name, Mode::S_IRWXU)?;
        return walk.enter(name);
    }
    let number = stat.st_ino.to_string();
    if let Some(left) = linked.get_mut(&stat.st_ino) {
        *left = left.saturating_sub(1);
        if *left > 0 {
            return linkat(links, number.as_str(), &walk.to, name, AtFlags::empty());
        }
        linked.remove(&stat.st_ino);
        return renameat(links, number.as_str(), &walk.to, name);
    }
    match kind(&stat) {
        SFlag::S_IFREG => copy_content(walk, name)?,
        SFlag::S_IFLNK => {
            let target = readlinkat(&walk.from, name)?;
            symlinkat(target.as_os_str(), &walk.to, name)?;
        }
        other => mknodat(&walk.to, name, other, Mode::S_IRUSR, stat.st_rdev)?,
    }
    dress(walk, name, &stat)?;
    if stat.st_nlink > 1 {
        linkat(&walk.to, name, links, number.as_str(), AtFlags::empty())?;
        linked.insert(stat.st_ino, stat.st_nlink - 1);
    }
    Ok(())
}

/// Gives the copy owner, mode, attributes and times, in the order in which none takes another away.
fn dress(walk: &Walk, name: &CStr, stat: &FileStat) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(&walk.to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind(stat) != SFlag::S_IFLNK {
        // It was made as what it is a moment ago, and nobody else is there: following makes no difference.
        fchmodat(&walk.to, name, mode(stat), FchmodatFlags::FollowSymlink)?;
    }
    for (attribute, value) in attributes(&walk.from, name)? {
        xattr::set(&walk.to, name, &attribute, &value)?;
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(&walk.to, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
}

/// Copies a file's bytes; holes stay holes.
fn copy_content(walk: &Walk, name: &CStr) -> nix::Result<()> {
    let mut from = File::from(openat(&walk.from, name, OFlag::O_RDONLY | PLAIN, Mode::empty())?);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | PLAIN;
    let mut to = File::from(openat(&walk.to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let length = from.metadata().map_err(errno)?.len();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while let Some((start, end)) = data(&from, at)? {
        from.seek(SeekFrom::Start(start)).map_err(errno)?;
        to.seek(SeekFrom::Start(start)).map_err(errno)?;
        at = start;
        while at < end {
            let wanted =
                usize::try_from(end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let count = from.read(&mut chunk[..wanted]).map_err(errno)?;
            if count == 0 {
                break;
            }
            to.write_all(&chunk[..count]).map_err(errno)?;
            at += count as u64;
        }
        at = end;
    }
    to.set_len(length).map_err(errno)
}

/// The next stretch of `file` from `at` on that is no hole.
fn data(file: &File, at: u64) -> nix::Result<Option<(u64, u64)>> {
    let from = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
    let start = match lseek(file, from, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let end = lseek(file, start, Whence::SeekHole)?;
    let wide = |offset: i64| u64::try_from(offset).map_err(|_| Errno::EIO);
    Ok(Some((wide(start)?, wide(end)?)))
}

/// Looks whether all in `to` is as in `from`, byte for byte.
pub(super) fn compare(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Stopped> {
    let mut walk = Walk::new(from, to).map_err(stopped(ITSELF))?;
    loop {
        let Some(next) = walk.next().map_err(stopped(ITSELF))? else { return Ok(()) };
        match next {
            Next::Name(name) => compare_one(&mut walk, &name).map_err(stopped(&name))?,
            Next::Leave => {
                same_names(&walk).and_then(|()| walk.leave()).map_err(stopped(ITSELF))?;
            }
        }
    }
}

fn same_names(walk: &Walk) -> nix::Result<()> {
    let (mut theirs, mut ours) = (names(walk.from.as_fd())?, names(walk.to.as_fd())?);
    theirs.sort();
    ours.sort();
    same(theirs == ours)
}

fn compare_one(walk: &mut Walk, name: &CStr) -> nix::Result<()> {
    let (theirs, ours) = (status(&walk.from, name)?, status(&walk.to, name)?);
    let seen = |stat: &FileStat| {
        let time = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, time)
    };
    same(seen(&theirs) == seen(&ours))?;
    same(attributes(&walk.from, name)? == attributes(&walk.to, name)?)?;
    match kind(&theirs) {
        SFlag::S_IFDIR => return walk.enter(name),
        SFlag::S_IFREG => {
            same((theirs.st_size, theirs.st_nlink) == (ours.st_size, ours.st_nlink))?;
            compare_content(walk, name)?;
        }
        SFlag::S_IFLNK => same(readlinkat(&walk.from, name)? == readlinkat(&walk.to, name)?)?,
        _ => {}
    }
    Ok(())
}

/// Holes are not read: a file may pretend to any size.
fn compare_content(walk: &Walk, name: &CStr) -> nix::Result<()> {
    let open = |directory: &OwnedFd| {
        openat(directory, name, OFlag::O_RDONLY | PLAIN, Mode::empty()).map(File::from)
    };
    let (mut theirs, mut ours) = (open(&walk.from)?, open(&walk.to)?);
    let (mut left, mut right) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut at = 0;
    while let Some((start, end)) = data(&theirs, at)? {
        theirs.seek(SeekFrom::Start(start)).map_err(errno)?;
        ours.seek(SeekFrom::Start(start)).map_err(errno)?;
        at = start;
        while at < end {
            let wanted =
                usize::try_from(end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            theirs.read_exact(&mut left[..wanted]).map_err(errno)?;
            ours.read_exact(&mut right[..wanted]).map_err(errno)?;
            same(left[..wanted] == right[..wanted])?;
            at += wanted as u64;
        }
    }
    Ok(())
}

/// What is on record of a file beside its content. What the host's security module has put there is its own
/// to put there again.
fn attributes(directory: &OwnedFd, name: &CStr) -> nix::Result<BTreeMap<CString, Vec<u8>>> {
    let ours = |attribute: &CString| {
        let text = attribute.to_bytes();
        !text.starts_with(b"security.") || text == b"security.capability"
    };
    let names = xattr::names(directory, name)?.into_iter().filter(ours);
    names
        .map(|attribute| Ok((attribute.clone(), xattr::get(directory, name, &attribute)?)))
        .collect()
}

fn again(directory: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    openat(directory, ITSELF, DIRECTORY, Mode::empty())
}

fn names(directory: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(again(directory)?)?.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != ITSELF && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn status(directory: &OwnedFd, name: &CStr) -> nix::Result<FileStat> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

fn same(holds: bool) -> nix::Result<()> {
    if holds { Ok(()) } else { Err(Errno::EUCLEAN) }
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn stopped(name: &CStr) -> impl FnOnce(Errno) -> Stopped {
    let name = name.to_string_lossy().into_owned();
    |errno| Stopped { name, errno }
}
