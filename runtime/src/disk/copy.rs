//! Copying what containers have written to another place: every kind of file with its owner, mode,
//! times, extended attributes (overlayfs keeps its marks there), hard links and holes; and looking
//! whether a copy is one. A copy for somebody else has their ids in the place of the others ([`Shift`]).
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

use berth_runtime::config::RANGE_IDS;

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

/// Ids of one person's range, as the same of another's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shift {
    /// The first of those that there are.
    pub(crate) from: u32,
    /// What that becomes.
    pub(crate) to: u32,
}

/// What linux/capability.h calls the revision with an owner (`VFS_CAP_REVISION_3`), in the last byte of the first word.
const CAPABILITY_WITH_OWNER: u8 = 3;
/// Bytes of such a value; its last word is the id.
const CAPABILITY_BYTES: usize = 24;
/// Of an access control list (linux/posix_acl_xattr.h): its head, each entry, where in that its id is.
const ACL_HEAD_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;
const ACL_ID_AT: usize = 4;
/// Entries that name a user or a group; of the others the id means nothing.
const ACL_NAMED: [u16; 2] = [0x02, 0x08];

impl Shift {
    /// All ids as they are.
    pub(crate) const NONE: Self = Self { from: 0, to: 0 };

    /// One that is none of the range stays what it is.
    fn id(self, id: u32) -> u32 {
        match id.checked_sub(self.from) {
            Some(inside) if self.from != self.to && inside < RANGE_IDS => self.to + inside,
            _ => id,
        }
    }

    /// The same of what an extended attribute says of ids: of whose containers a file's capabilities hold in, and of
    /// access control lists.
    fn attribute(self, name: &CStr, mut value: Vec<u8>) -> Vec<u8> {
        match name.to_bytes() {
            b"security.capability"
                if value.len() == CAPABILITY_BYTES && value[3] == CAPABILITY_WITH_OWNER =>
            {
                self.word(&mut value[CAPABILITY_BYTES - 4..]);
            }
            b"system.posix_acl_access" | b"system.posix_acl_default" => {
                let entries = value.get_mut(ACL_HEAD_BYTES..).unwrap_or_default();
                for entry in entries.chunks_exact_mut(ACL_ENTRY_BYTES) {
                    if ACL_NAMED.contains(&u16::from_le_bytes([entry[0], entry[1]])) {
                        self.word(&mut entry[ACL_ID_AT..]);
                    }
                }
            }
            _ => {}
        }
        value
    }

    /// An id of four bytes, the least first.
    fn word(self, bytes: &mut [u8]) {
        if let Ok(word) = <[u8; 4]>::try_from(&*bytes) {
            bytes.copy_from_slice(&self.id(u32::from_le_bytes(word)).to_le_bytes());
        }
    }
}

/// A pair of open directories on the way, and what is left to do in them.
struct Walk {
    from: OwnedFd,
    to: OwnedFd,
    left: Vec<Vec<CString>>,
    parent: nix::unistd::Pid,
    shift: Shift,
}

/// What comes next on a walk.
enum Next {
    /// A name in both directories.
    Name(CString),
    /// Both directories are done; the walk has them still.
    Leave,
}

impl Walk {
    fn new(from: BorrowedFd<'_>, to: BorrowedFd<'_>, shift: Shift) -> nix::Result<Self> {
        let (from, to) = (again(from)?, again(to)?);
        let left = vec![names(from.as_fd())?];
        Ok(Self { from, to, left, parent: getppid(), shift })
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
    shift: Shift,
) -> Result<(), Stopped> {
    let mut walk = Walk::new(from, to, shift).map_err(stopped(ITSELF))?;
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
    let shift = walk.shift;
    let (uid, gid) = (shift.id(stat.st_uid), shift.id(stat.st_gid));
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchownat(&walk.to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind(stat) != SFlag::S_IFLNK {
        // It was made as what it is a moment ago, and nobody else is there: following makes no difference.
        fchmodat(&walk.to, name, mode(stat), FchmodatFlags::FollowSymlink)?;
    }
    for (attribute, value) in attributes(&walk.from, name)? {
        xattr::set(&walk.to, name, &attribute, &shift.attribute(&attribute, value))?;
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
pub(super) fn compare(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    shift: Shift,
) -> Result<(), Stopped> {
    let mut walk = Walk::new(from, to, shift).map_err(stopped(ITSELF))?;
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
    let seen = |stat: &FileStat, shift: Shift| {
        let time = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_mode, shift.id(stat.st_uid), shift.id(stat.st_gid), stat.st_rdev, time)
    };
    same(seen(&theirs, walk.shift) == seen(&ours, Shift::NONE))?;
    let shifted = |(name, value): (CString, Vec<u8>)| {
        let value = walk.shift.attribute(&name, value);
        (name, value)
    };
    let wanted: BTreeMap<_, _> = attributes(&walk.from, name)?.into_iter().map(shifted).collect();
    same(wanted == attributes(&walk.to, name)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_range_become_those_of_another_wherever_they_are_said() {
        let shift = Shift { from: 200_000, to: 400_000 };
        let ids = [0, 199_999, 200_000, 265_535, 265_536, 400_000].map(|id| shift.id(id));
        assert_eq!(ids, [0, 199_999, 400_000, 465_535, 265_536, 400_000]);
        assert_eq!(Shift::NONE.id(5), 5);
        let word = |id: u32| id.to_le_bytes();
        let mut capability = vec![0, 0, 0, 3];
        capability.extend([7; 16]);
        let with = |id| [capability.clone(), word(id).to_vec()].concat();
        assert_eq!(shift.attribute(c"security.capability", with(200_000)), with(400_000));
        // An older one has no owner.
        let older = vec![0, 0, 0, 2, 1, 2, 3, 4];
        assert_eq!(shift.attribute(c"security.capability", older.clone()), older);
        let list = |user: u32, group: u32| {
            let entry = |tag: u8, id: u32| [vec![tag, 0, 7, 0], word(id).to_vec()].concat();
            [
                vec![2, 0, 0, 0],
                entry(0x01, 200_001),
                entry(0x02, user),
                entry(0x08, group),
                entry(0x20, u32::MAX),
            ]
            .concat()
        };
        let before = list(200_005, 200_006);
        assert_eq!(
            shift.attribute(c"system.posix_acl_access", before.clone()),
            list(400_005, 400_006)
        );
        assert_eq!(shift.attribute(c"user.posix_acl_access", before.clone()), before);
        for odd in [vec![], vec![2], vec![2, 0, 0, 0, 2, 0, 7]] {
            assert_eq!(shift.attribute(c"system.posix_acl_default", odd.clone()), odd);
        }
    }
}
