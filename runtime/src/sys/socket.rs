//! `SOCK_SEQPACKET` Unix sockets in directories that are held open: the name on the socket's path is
//! `/proc/self/fd/<n>/<name>`, so neither length nor links of the real path matter.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt,
    listen, socket, socketpair, sockopt,
};

use crate::files;

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// Listens on `name` in `directory`; what was there before goes. The caller sees to the mode.
pub(crate) fn listen_in(
    directory: BorrowedFd<'_>,
    name: &str,
    backlog: i32,
) -> nix::Result<OwnedFd> {
    files::remove_file(directory, name).map_err(|error| error.errno().unwrap_or(Errno::EIO))?;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
    bind(listener.as_raw_fd(), &address(directory, name)?)?;
    listen(&listener, Backlog::new(backlog)?)?;
    Ok(listener)
}

/// Connects to `name` in `directory` without waiting.
pub(crate) fn connect_in(directory: BorrowedFd<'_>, name: &str) -> nix::Result<OwnedFd> {
    let stream = socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
    connect(stream.as_raw_fd(), &address(directory, name)?)?;
    Ok(stream)
}

fn address(directory: BorrowedFd<'_>, name: &str) -> nix::Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).as_str())
}

/// Takes a waiting connection, not blocking.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let raw = accept4(listener.as_raw_fd(), FLAGS)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Two connected ends: the first, which the caller keeps, does not block; the second, for a child, does.
pub(crate) fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}

/// Who connected, as the kernel recorded it at that moment (unix(7), `SO_PEERCRED`).
pub(crate) fn peer_uid(connection: BorrowedFd<'_>) -> nix::Result<u32> {
    Ok(getsockopt(&connection, sockopt::PeerCredentials)?.uid())
}
