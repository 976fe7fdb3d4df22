//! Writes a folder as a tar archive in GNU's form, whose names are bytes. In the confined child; programs may
//! be changing what is read.
//!
//! Invariants: no link is followed; a file is written with the size that its header says, cut off or filled up
//! with zeros if it has another one by then; an archive that ends with two empty blocks is whole, and one that
//! could not be is left without. Deliberately absent: sockets, devices, extended attributes, parts of seconds.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::walk::{DEPTH_MAX, is_kernels_own, kind};
use crate::sys::directory::Entries;
use crate::sys::fd::{Links, open_in_root};

const BLOCK_BYTES: u64 = 512;
/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Entries of one archive at most.
const ENTRIES_MAX: u64 = 1 << 22;
/// Names of files with several that are remembered; what comes later is written as files of their own.
const LINKED_MAX: usize = 1 << 16;
/// Bytes of a name, or of a link's target, that the header itself holds.
const NAME_BYTES: usize = 100;

/// A folder on the way.
struct Level {
    folder: OwnedFd,
    entries: Entries,
    /// Its name in the archive, with a `/` at the end.
    name: Vec<u8>,
}

struct Archive<W: Write> {
    out: BufWriter<W>,
    entries: u64,
    /// The first name of a file that has several, by device and number.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

/// Writes `folder` under `name` to `out`.
///
/// # Errors
/// When `out` takes no more, or the folder is deeper or larger than an archive may be: what was written is not
/// whole then.
pub(super) fn write(folder: OwnedFd, name: &str, out: impl Write) -> io::Result<()> {
    let out = BufWriter::with_capacity(CHUNK_BYTES, out);
    let mut archive = Archive { out, entries: 0, linked: HashMap::new() };
    archive.walk(folder, name)?;
    archive.out.write_all(&[0; 2 * 512])?;
    archive.out.flush()
}

impl<W: Write> Archive<W> {
    fn walk(&mut self, top: OwnedFd, name: &str) -> io::Result<()> {
        let name = format!("{name}/").into_bytes();
        let stat = fstat(&top)?;
        self.header(&name, b'5', &stat, 0, b"")?;
        let mut way = vec![Level { folder: top, entries: Entries::new(), name }];
        loop {
            let depth = way.len();
            let Some(level) = way.last_mut() else { return Ok(()) };
            let Some(own) = level.entries.next(&level.folder)?.map(CStr::to_owned) else {
                way.pop();
                continue;
            };
            if own.as_c_str() == c"." || own.as_c_str() == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX || depth > DEPTH_MAX {
                return Err(Errno::E2BIG.into());
            }
            let mut full = level.name.clone();
            full.extend_from_slice(own.as_bytes());
            match self.entry(level.folder.as_fd(), &own, full) {
                Ok(Some(inner)) => way.push(inner),
                Ok(None) => {}
                // Gone, or something else, meanwhile; or nothing that the container's root may read.
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes one entry; a folder is to be walked next.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        own: &CString,
        mut name: Vec<u8>,
    ) -> io::Result<Option<Level>> {
        let stat = fstatat(parent, own.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match kind(&stat) {
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                let folder = open_in_root(parent, own, flags, Links::Refused)?;
                let inner = fstat(&folder)?;
                name.push(b'/');
                let kernels_own = stat.st_dev != fstat(parent)?.st_dev && is_kernels_own(&folder)?;
                self.header(&name, b'5', &inner, 0, b"")?;
                let entries = Entries::new();
                Ok((!kernels_own).then_some(Level { folder, entries, name }))
            }
            SFlag::S_IFREG => self.file(parent, own, &name).map(|()| None),
            SFlag::S_IFLNK => {
                let target = readlinkat(parent, own.as_c_str())?.into_vec();
                self.header(&name, b'2', &stat, 0, &target).map(|()| None)
            }
            SFlag::S_IFIFO => self.header(&name, b'6', &stat, 0, b"").map(|()| None),
            _ => Ok(None),
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, own: &CString, name: &[u8]) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = open_in_root(parent, own, flags, Links::Refused)?;
        let stat = fstat(&file)?;
        if kind(&stat) != SFlag::S_IFREG || is_kernels_own(&file)? {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let number = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&number) {
                let first = first.clone();
                return self.header(name, b'1', &stat, 0, &first);
            }
            if self.linked.len() < LINKED_MAX {
                self.linked.insert(number, name.to_owned());
            }
        }
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        self.header(name, b'0', &stat, bytes, b"")?;
        self.content(File::from(file), bytes)
    }

    fn content(&mut self, mut file: File, bytes: u64) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = bytes;
        while left > 0 {
            let wanted = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let count = match file.read(&mut chunk[..wanted]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io::Error::other(error)),
            };
            if count == 0 {
                // Shorter than it was: what is missing is zeros.
                self.zeros(left)?;
                break;
            }
            self.write_all(&chunk[..count])?;
            left -= count as u64;
        }
        self.zeros(bytes.next_multiple_of(BLOCK_BYTES) - bytes)
    }

    fn zeros(&mut self, mut bytes: u64) -> io::Result<()> {
        let zeros = [0; 4096];
        while bytes > 0 {
            let part = usize::try_from(bytes).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.write_all(&zeros[..part])?;
            bytes -= part as u64;
        }
        Ok(())
    }

    /// Not to be taken for a fault of what is read.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).map_err(io::Error::other)
    }

    fn header(
        &mut self,
        name: &[u8],
        kind: u8,
        stat: &FileStat,
        bytes: u64,
        target: &[u8],
    ) -> io::Result<()> {
        self.long(name, b'L')?;
        self.long(target, b'K')?;
        let block = block(&Header {
            name,
            kind,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            modified: u64::try_from(stat.st_mtime).unwrap_or(0),
            bytes,
            target,
        });
        self.write_all(&block)
    }

    /// What the next header cannot hold.
    fn long(&mut self, text: &[u8], kind: u8) -> io::Result<()> {
        if text.len() < NAME_BYTES {
            return Ok(());
        }
        let bytes = text.len() as u64 + 1;
        let name = b"././@LongLink";
        let header = Header { name, kind, mode: 0, owner: (0, 0), modified: 0, bytes, target: b"" };
        self.write_all(&block(&header))?;
        self.write_all(text)?;
        self.zeros(1 + bytes.next_multiple_of(BLOCK_BYTES) - bytes)
    }
}

/// Whether the reader of one entry alone is concerned.
fn is_passing(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::ELOOP
                | Errno::EXDEV
                | Errno::EACCES
                | Errno::EPERM
                | Errno::ENXIO
                | Errno::EAGAIN
                | Errno::EINVAL
        )
    )
}

struct Header<'a> {
    name: &'a [u8],
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    modified: u64,
    bytes: u64,
    target: &'a [u8],
}

/// One header block (GNU tar's manual, "Basic Tar Format").
fn block(header: &Header<'_>) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
    let cut = |text: &[u8]| text[..text.len().min(NAME_BYTES)].to_owned();
    let small = |value: u32| format!("{value:07o}\0").into_bytes();
    put(0, &cut(header.name));
    put(100, &small(header.mode));
    put(108, &small(header.owner.0.min(0o7_777_777)));
    put(116, &small(header.owner.1.min(0o7_777_777)));
    put(124, &number(header.bytes));
    put(136, &number(header.modified));
    put(148, b"        ");
    put(156, &[header.kind]);
    put(157, &cut(header.target));
    put(257, b"ustar  \0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Twelve bytes: octal digits, or what is too large for them as a number in base 256.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value < 1 << 33 {
        field.copy_from_slice(format!("{value:011o}\0").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sums_are_as_tar_reads_them() {
        assert_eq!(&number(8), b"00000000010\0");
        assert_eq!(&number((1 << 33) - 1), b"77777777777\0");
        assert_eq!(number(1 << 33), [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        let header = Header {
            name: b"a/\xff",
            kind: b'0',
            mode: 0o4755,
            owner: (1000, u32::MAX),
            modified: 0,
            bytes: 3,
            target: b"",
        };
        let block = block(&header);
        assert_eq!(&block[..4], b"a/\xff\0");
        assert_eq!(&block[100..108], b"0004755\0");
        assert_eq!(&block[116..124], b"7777777\0");
        let mut blank = block;
        blank[148..156].copy_from_slice(b"        ");
        let sum: u32 = blank.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(block[148..156], *format!("{sum:06o}\0 ").as_bytes());
    }
}
