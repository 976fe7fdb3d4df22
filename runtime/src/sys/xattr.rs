//! Extended attributes of whatever a name in a directory is, a link itself included (xattr(7)).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Bytes of one value, and of all names, at most (limits.h: XATTR_SIZE_MAX, XATTR_LIST_MAX).
pub(crate) const BYTES_MAX: usize = 64 << 10;

/// `name` in an open directory, as a path that follows no link of anybody's.
fn path(directory: impl AsFd, name: &CStr) -> nix::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).map_err(|_| Errno::EINVAL)
}

/// All names.
pub(crate) fn names(directory: impl AsFd, name: &CStr) -> nix::Result<Vec<CString>> {
    let path = path(directory, name)?;
    let mut bytes = vec![0_u8; BYTES_MAX];
    let place = bytes.as_mut_ptr().cast();
    // SAFETY: the path is NUL-terminated; the buffer is valid for writing for the length given.
    let length = unsafe { libc::llistxattr(path.as_ptr(), place, bytes.len()) };
    let length = match Errno::result(length) {
        Ok(length) => usize::try_from(length).map_err(|_| Errno::EIO)?,
        Err(Errno::EOPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let names = bytes[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| CString::new(name).map_err(|_| Errno::EIO)).collect()
}

/// One value.
pub(crate) fn get(directory: impl AsFd, name: &CStr, attribute: &CStr) -> nix::Result<Vec<u8>> {
    let path = path(directory, name)?;
    let mut bytes = vec![0_u8; BYTES_MAX];
    let place = bytes.as_mut_ptr().cast();
    // SAFETY: both texts are NUL-terminated; the buffer is valid for writing for the length given.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), attribute.as_ptr(), place, bytes.len()) };
    bytes.truncate(usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)?);
    Ok(bytes)
}

/// Sets one.
pub(crate) fn set(
    directory: impl AsFd,
    name: &CStr,
    attribute: &CStr,
    value: &[u8],
) -> nix::Result<()> {
    let path = path(directory, name)?;
    let (data, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: both texts are NUL-terminated, `data` has `length` readable bytes, all outlive the call.
    let answer = unsafe { libc::lsetxattr(path.as_ptr(), attribute.as_ptr(), data, length, 0) };
    Errno::result(answer).map(drop)
}

/// Names of an open file's, NUL after each, in `place`. Does not allocate.
pub(crate) fn names_of(file: impl AsFd, place: &mut [u8]) -> nix::Result<&[u8]> {
    let (fd, data) = (file.as_fd().as_raw_fd(), place.as_mut_ptr().cast());
    // SAFETY: the buffer is valid for writing for the length given.
    let length = unsafe { libc::flistxattr(fd, data, place.len()) };
    match Errno::result(length) {
        Ok(length) => {
            place.get(..usize::try_from(length).map_err(|_| Errno::EIO)?).ok_or(Errno::EIO)
        }
        Err(Errno::EOPNOTSUPP) => Ok(&[]),
        Err(errno) => Err(errno),
    }
}

/// One value of an open file's, in `place`. Does not allocate.
pub(crate) fn get_of<'a>(
    file: impl AsFd,
    attribute: &CStr,
    place: &'a mut [u8],
) -> nix::Result<&'a [u8]> {
    let (fd, data) = (file.as_fd().as_raw_fd(), place.as_mut_ptr().cast());
    // SAFETY: the text is NUL-terminated; the buffer is valid for writing for the length given.
    let length = unsafe { libc::fgetxattr(fd, attribute.as_ptr(), data, place.len()) };
    let length = usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)?;
    place.get(..length).ok_or(Errno::EIO)
}

/// Sets one of an open file. Does not allocate.
pub(crate) fn set_of(file: impl AsFd, attribute: &CStr, value: &[u8]) -> nix::Result<()> {
    let (fd, data) = (file.as_fd().as_raw_fd(), value.as_ptr().cast());
    // SAFETY: the text is NUL-terminated, `data` has as many readable bytes as are told, both outlive it.
    let answer = unsafe { libc::fsetxattr(fd, attribute.as_ptr(), data, value.len(), 0) };
    Errno::result(answer).map(drop)
}
