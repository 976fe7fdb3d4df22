//! Connections: one request each, one answer each, a time limit and a cap.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{Answer, Envelope, MESSAGE_BYTES_MAX, Request};
use berth_runtime::{receive_message, send_message};

use crate::sys::socket;

/// Connections at once; beyond them the backlog waits.
pub(super) const CONNECTIONS_MAX: usize = 512;
/// How long a connection may be without its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Messages that are looked for in a connection that is turned away.
const QUEUE_MAX: u32 = 1024;

/// Names a connection for as long as it lasts; never used again.
pub(super) type Token = u64;

/// A connection.
pub(super) struct Connection {
    socket: OwnedFd,
    /// Set until the request has come.
    pub(super) deadline: Option<Instant>,
}

/// An answer with the descriptors that go with it.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) fds: Vec<OwnedFd>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, fds: Vec::new() }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Answer::Failed(failure).into()
    }
}

/// What came on a connection.
pub(super) enum Received {
    /// A request, with its descriptors.
    Request(Box<Request>, Vec<OwnedFd>),
    /// Something that is none; the connection is answered and closed.
    Refused(Failure),
    /// Nothing yet.
    Nothing,
    /// The other end is gone.
    HungUp,
}

impl Connection {
    /// Takes a waiting connection if its peer is root or `server_uid`; others are turned away.
    pub(super) fn accept(listener: BorrowedFd<'_>, server_uid: u32) -> Option<Self> {
        let socket = socket::accept(listener).ok()?;
        let uid = socket::peer_uid(socket.as_fd()).ok()?;
        let deadline = Some(Instant::now() + REQUEST_LIMIT);
        let connection = Self { socket, deadline };
        if uid == 0 || uid == server_uid {
            return Some(connection);
        }
        let message = "only root and the server's user may ask the supervisor";
        // A socket that is closed with something unread in it loses what was sent to the other end
        // (unix(7)): nothing more is taken, and what has come is dropped.
        connection.take_no_more();
        connection.send(Failure::new(FailureClass::Denied, "peer.denied", message).into());
        None
    }

    /// Lets the other end send nothing more, and drops what it has sent.
    fn take_no_more(&self) {
        if shutdown(self.socket.as_raw_fd(), Shutdown::Read).is_err() {
            return;
        }
        // The queue is short, and now nobody adds to it; a message that is too long goes, too.
        for _ in 0..QUEUE_MAX {
            match receive_message(&self.socket) {
                Ok((bytes, _)) if bytes.is_empty() => return,
                Ok(_) | Err(Errno::EINTR | Errno::EMSGSIZE) => {}
                Err(_) => return,
            }
        }
    }

    /// Its descriptor, for poll(2).
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what has come. After the request, any further message counts as a hang-up.
    pub(super) fn receive(&mut self) -> Received {
        let (bytes, fds) = match receive_message(&self.socket) {
            Ok((bytes, _)) if bytes.is_empty() => return Received::HungUp,
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Received::Nothing,
            Err(Errno::EMSGSIZE) => {
                let message = "the message is longer than the protocol allows";
                return Received::Refused(invalid("wire.length", message));
            }
            Err(_) => return Received::HungUp,
        };
        if self.deadline.take().is_none() {
            return Received::HungUp;
        }
        match Envelope::read(&bytes) {
            Ok(envelope) => Received::Request(Box::new(envelope.request), fds),
            Err(failure) => Received::Refused(failure),
        }
    }

    /// Sends the answer. One that cannot be sent has nobody to read it.
    pub(super) fn send(&self, reply: Reply) {
        let mut bytes = encode(&reply.answer);
        if bytes.len() > MESSAGE_BYTES_MAX {
            let message = "the answer is longer than the protocol allows";
            let failure = Failure::new(FailureClass::Broken, "wire.answer", message);
            bytes = encode(&Answer::Failed(failure));
        }
        let fds: Vec<BorrowedFd<'_>> = reply.fds.iter().map(AsFd::as_fd).collect();
        match send_message(&self.socket, &bytes, &fds) {
            Ok(()) | Err(_) => {}
        }
    }
}

/// How many bytes an answer takes.
pub(super) fn encode(answer: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("answers are plain data with text for keys")
}

fn invalid(code: &str, message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Invalid, code, message)
}
