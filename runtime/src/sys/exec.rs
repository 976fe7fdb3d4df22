//! execve(2) from a cloned child: the arrays are made before the clone.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// A null-terminated array of strings as execve wants it, with room for one more that is only known
/// in the child.
#[derive(Debug)]
pub struct StringArray {
    /// Owns what `pointers` points to; a `CString`'s text does not move with it.
    strings: Vec<CString>,
    /// The strings, then two null pointers: the free place and the end.
    pointers: Vec<*const libc::c_char>,
    /// The text of the free place, NUL-padded.
    late: Vec<u8>,
}

impl StringArray {
    /// An array of `strings`, and room for a late one of `late_bytes_max` bytes.
    pub fn new(strings: Vec<CString>, late_bytes_max: usize) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr()).collect();
        pointers.extend([std::ptr::null(), std::ptr::null()]);
        Self { strings, pointers, late: vec![0; late_bytes_max + 1] }
    }

    /// The strings without the late one.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// Adds (or replaces) the late string, made of `parts`. Does not allocate. `E2BIG` when the room
    /// is too small, `EINVAL` for an inner NUL.
    pub fn set_late(&mut self, parts: [&[u8]; 2]) -> nix::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length + 1 > self.late.len() {
            return Err(Errno::E2BIG);
        }
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(Errno::EINVAL);
        }
        let (first, second) = self.late.split_at_mut(parts[0].len());
        first.copy_from_slice(parts[0]);
        second[..parts[1].len()].copy_from_slice(parts[1]);
        second[parts[1].len()..].fill(0);
        let place = self.strings.len();
        self.pointers[place] = self.late.as_ptr().cast();
        Ok(())
    }
}

/// Replaces the process's program; returns on failure only.
pub fn execute(path: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    let (arguments, environment) = (arguments.pointers.as_ptr(), environment.pointers.as_ptr());
    // SAFETY: both arrays end with a null pointer, and every other pointer in them is to a
    // NUL-terminated string that its StringArray owns and that has not moved.
    unsafe { libc::execve(path.as_ptr(), arguments, environment) };
    Errno::last()
}

/// Makes the three descriptors, none of which may be numbered below 3, standard input, output and error.
pub fn place_stdio(stdio: &[OwnedFd; 3]) -> nix::Result<()> {
    nix::unistd::dup2_stdin(&stdio[0])?;
    nix::unistd::dup2_stdout(&stdio[1])?;
    nix::unistd::dup2_stderr(&stdio[2])
}

/// `EXDEV` unless the working directory has a path from the root: the kernel shows one that lies
/// outside as `(unreachable)/...` (getcwd(2)).
pub fn cwd_is_inside_root() -> nix::Result<()> {
    let mut path = [0u8; 4096];
    // SAFETY: pointer and size are those of one buffer. The call itself is used, since libc's wrapper
    // may allocate.
    let result = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    Errno::result(result)?;
    if path[0] == b'/' { Ok(()) } else { Err(Errno::EXDEV) }
}

/// accept4(2) with close-on-exec.
pub fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    loop {
        let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
        match nix::sys::socket::accept4(listener.as_raw_fd(), flags) {
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => return Err(errno),
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_string_takes_the_free_place() {
        let mut array = StringArray::new(vec![c"A=1".to_owned()], 8);
        array.set_late([b"HOME=", b"/ab"]).expect("eight bytes fit");
        assert_eq!(array.late, b"HOME=/ab\0");
        assert_eq!(array.pointers[1], array.late.as_ptr().cast());
        assert!(array.pointers[2].is_null());
        assert_eq!(array.set_late([b"HOME=", b"/abc"]), Err(Errno::E2BIG));
        assert_eq!(array.set_late([b"A=", b"\0"]), Err(Errno::EINVAL));
    }
}
