//! Pseudo terminals (pty(7)), and handing one over a socket from a cloned child.
//!
//! Nothing here allocates, so that a child may call it between clone3 and execve.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};

/// The multiplexer of the devpts that a process sees. Not `/dev/ptmx`: that is a name like any other.
const MULTIPLEXER: &CStr = c"/dev/pts/ptmx";

/// A terminal's two ends.
pub struct Terminal {
    /// The end that a person's terminal is behind.
    pub master: OwnedFd,
    /// The end that a program has.
    pub slave: OwnedFd,
}

/// Makes a terminal in the devpts at `/dev/pts`. The slave is opened from the master, by no path.
///
/// # Errors
/// `ENOTTY` when what is there is no devpts; else open(2)'s and ioctl_tty(2)'s.
pub fn open() -> nix::Result<Terminal> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let master = openat2(AT_FDCWD, MULTIPLEXER, how)?;
    if fstatfs(&master)?.filesystem_type() != DEVPTS_SUPER_MAGIC {
        return Err(Errno::ENOTTY);
    }
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    let result =
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, std::ptr::from_ref(&unlocked)) };
    Errno::result(result)?;
    let slave = slave_of(master.as_fd())?;
    Ok(Terminal { master, slave })
}

/// The other end of a master, opened by no path. It becomes nobody's controlling terminal.
pub fn slave_of(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags by value and gives a new descriptor.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let slave = Errno::result(slave)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(slave) })
}

/// Makes `slave` the controlling terminal of the calling session leader, which has none.
pub fn make_controlling(slave: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an int by value: 0, take it from nobody.
    let result = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) };
    Errno::result(result).map(drop)
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH when it is another than before.
pub fn set_size(terminal: impl AsFd, columns: u16, rows: u16) -> nix::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, std::ptr::from_ref(&size)) };
    Errno::result(result).map(drop)
}

/// Bytes of the control message for one descriptor: more than `CMSG_SPACE(sizeof(int))` on any
/// machine, in words for its alignment.
const CONTROL_WORDS: usize = 4;

/// Sends `bytes` and one descriptor over a socket (unix(7), `SCM_RIGHTS`).
pub fn send_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: BorrowedFd<'_>,
) -> nix::Result<()> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is a valid one (null pointers and lengths of 0).
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic on a constant.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(FD_BYTES) } as usize;
    // SAFETY: the message's control buffer is `control`, large enough for one header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: not null, since the buffer holds a header, and aligned as the words are.
    let header = unsafe { header.as_mut() }.ok_or(Errno::EINVAL)?;
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: arithmetic on a constant.
    header.cmsg_len = unsafe { libc::CMSG_LEN(FD_BYTES) } as usize;
    // SAFETY: the header is in the buffer, which has room for an int behind it.
    let place = unsafe { libc::CMSG_DATA(header) }.cast::<libc::c_int>();
    // SAFETY: `place` is inside the buffer, with room for an int of any alignment.
    unsafe { place.write_unaligned(fd.as_raw_fd()) };
    // SAFETY: the message and all it points to outlive the call, which only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    Errno::result(sent).map(drop)
}

/// Bytes of a descriptor's number.
const FD_BYTES: u32 = 4;

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_bytes() {
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .expect("a socket pair");
        send_descriptor(theirs.as_fd(), b"terminal", ours.as_fd()).expect("a small message");
        let (bytes, fds) = berth_runtime::receive_message(&ours).expect("it has come");
        assert_eq!((bytes.as_slice(), fds.len()), (&b"terminal"[..], 1));
    }
}
