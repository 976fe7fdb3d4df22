//! Reading directories and links without allocating.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Bytes of entries that are read at once.
const ENTRIES_BYTES: usize = 4096;

/// Entries of an open directory, some at a time.
pub struct Entries {
    records: Records,
    filled: usize,
    next: usize,
}

/// `struct linux_dirent64` after another, aligned as they want it.
#[repr(align(8))]
struct Records([u8; ENTRIES_BYTES]);

impl Entries {
    /// None yet.
    pub fn new() -> Self {
        Self { records: Records([0; ENTRIES_BYTES]), filled: 0, next: 0 }
    }

    /// The next name of `directory` (getdents64(2)), `.` and `..` among them; `None` at the end.
    pub fn next(&mut self, directory: impl AsFd) -> nix::Result<Option<&CStr>> {
        if self.next >= self.filled {
            let fd = directory.as_fd().as_raw_fd();
            let place = self.records.0.as_mut_ptr();
            // SAFETY: the buffer is valid for writing for all of its length, which is given.
            let result = unsafe { libc::syscall(libc::SYS_getdents64, fd, place, ENTRIES_BYTES) };
            self.filled = usize::try_from(Errno::result(result)?).map_err(|_| Errno::EIO)?;
            self.next = 0;
            if self.filled == 0 {
                return Ok(None);
            }
        }
        let left = self.records.0.get(self.next..self.filled).ok_or(Errno::EIO)?;
        let [low, high] = *left.get(16..18).ok_or(Errno::EIO)? else { return Err(Errno::EIO) };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let name = left.get(NAME_OFFSET..length).ok_or(Errno::EIO)?;
        self.next += length;
        CStr::from_bytes_until_nul(name).map(Some).map_err(|_| Errno::EIO)
    }
}

/// Of `d_name` in `struct linux_dirent64`, behind inode, offset, record length and type.
const NAME_OFFSET: usize = 19;

/// readlinkat(2): the link's content, NUL-terminated in `buffer`. `ENAMETOOLONG` when it is too small.
pub fn read_link<'a>(
    directory: impl AsFd,
    name: &CStr,
    buffer: &'a mut [u8],
) -> nix::Result<&'a CStr> {
    let fd = directory.as_fd().as_raw_fd();
    let place = buffer.as_mut_ptr().cast();
    // SAFETY: the name is NUL-terminated; the buffer is valid for writing for the length given.
    let result = unsafe { libc::readlinkat(fd, name.as_ptr(), place, buffer.len()) };
    let length = usize::try_from(Errno::result(result)?).map_err(|_| Errno::EIO)?;
    *buffer.get_mut(length).ok_or(Errno::ENAMETOOLONG)? = 0;
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::EIO)
}
