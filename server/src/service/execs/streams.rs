//! A program's streams: pipes, or a terminal's master, under the reactor. The supervisor has made them
//! non-blocking.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use nix::libc;
use tokio::net::unix::pipe;

/// Bytes read at once.
pub(super) const PIECE_BYTES: usize = 16 << 10;
/// Bytes read of an output after the program's end; another process may go on writing there.
pub(super) const REST_BYTES_MAX: usize = 1 << 20;

/// Where a program's output comes out.
#[derive(Debug)]
pub(super) struct Outlet(pipe::Receiver);

/// Where its input goes in.
#[derive(Debug)]
pub(super) struct Inlet(pipe::Sender);

/// Whether there may be more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// These bytes.
    Bytes(Bytes),
    /// The other end is closed everywhere.
    End,
    /// Nothing now.
    Nothing,
}

impl Outlet {
    /// A terminal is no pipe, but is read as one.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        pipe::Receiver::from_owned_fd_unchecked(fd).map(Self)
    }

    /// Waits for bytes, of which at most `most` (not 0) are taken.
    pub(super) async fn read(&self, most: usize) -> io::Result<Read> {
        loop {
            self.0.readable().await?;
            match self.read_now(most)? {
                Read::Nothing => {}
                read => return Ok(read),
            }
        }
    }

    /// What is there now.
    pub(super) fn read_now(&self, most: usize) -> io::Result<Read> {
        let mut buffer = vec![0; most.min(PIECE_BYTES)];
        loop {
            match self.0.try_read(&mut buffer) {
                Ok(0) => return Ok(Read::End),
                Ok(length) => {
                    buffer.truncate(length);
                    buffer.shrink_to_fit();
                    return Ok(Read::Bytes(buffer.into()));
                }
                // pty(7): nobody has the terminal open any more.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(Read::End),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Read::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Inlet {
    /// See [`Outlet::new`].
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        pipe::Sender::from_owned_fd_unchecked(fd).map(Self)
    }

    /// Writes all of it; the reader of the other end decides how long that takes.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
