//! The little of D-Bus that asking systemd for a scope needs (dbus.freedesktop.org, "D-Bus Specification"):
//! one connection to a peer, without a bus between; method calls and their answers; signals by name.
//!
//! Every wait has one limit, set when connecting; a message is at most 1 MiB. Deliberately absent: buses,
//! objects of our own, descriptors in messages, byte orders other than little-endian.

mod wire;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub use wire::{Body, Message};

/// Bytes of a message at most.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a line of the handshake at most.
const LINE_BYTES_MAX: usize = 1024;
/// Signals kept for [`Bus::signal`] at most; older ones go.
const SIGNALS_MAX: usize = 1024;

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket's.
    #[error("{verb}")]
    Socket {
        /// What was done.
        verb: String,
        #[source]
        source: io::Error,
    },
    /// The peer says something that this client does not understand.
    #[error("understand what it says: {0}")]
    Malformed(&'static str),
    /// The peer's refusal.
    #[error("{name}: {text}")]
    Refused {
        /// Such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// For people.
        text: String,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// One method.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    /// The object's path.
    pub object: &'a str,
    /// Its interface.
    pub interface: &'a str,
    /// The method's name.
    pub member: &'a str,
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was awaited.
    signals: VecDeque<Message>,
    limit: Duration,
    deadline: Instant,
}

impl Bus {
    /// Connects, and says who we are: the peer sees it by the socket. All that follows has to be done
    /// within the limit.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self, Error> {
        let failed =
            |source| Error::Socket { verb: format!("connect to {}", path.display()), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        let deadline = Instant::now() + limit;
        let mut bus = Self { stream, serial: 0, signals: VecDeque::new(), limit, deadline };
        // The uid in decimal digits, each as two hexadecimal ones ("EXTERNAL").
        let uid: String = nix::unistd::geteuid()
            .to_string()
            .bytes()
            .map(|digit| format!("{digit:02x}"))
            .collect();
        // Both lines at once, and no call before the answer: what comes with the second line stays in the
        // buffer of systemd's side until more comes.
        bus.send(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
        if !bus.line()?.starts_with("OK ") {
            return Err(Error::Malformed("it does not take who we are"));
        }
        Ok(bus)
    }

    /// Calls a method and awaits its answer.
    pub fn call(&mut self, method: Method<'_>, body: &Body) -> Result<Message, Error> {
        self.serial += 1;
        let message = wire::call(self.serial, method, body);
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Error::Malformed("the call is too long"));
        }
        self.send(&message)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                wire::Kind::Answer if message.answers == Some(self.serial) => return Ok(message),
                wire::Kind::Error if message.answers == Some(self.serial) => {
                    let text = message.reader().text().unwrap_or_default().to_owned();
                    return Err(Error::Refused { name: message.error, text });
                }
                wire::Kind::Signal => {
                    if self.signals.len() == SIGNALS_MAX {
                        self.signals.pop_front();
                    }
                    self.signals.push_back(message);
                }
                _ => {}
            }
        }
    }

    /// The next signal of this name, whether it has come already or not.
    pub fn signal(&mut self, member: &str) -> Result<Message, Error> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.kind == wire::Kind::Signal && message.member == member {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message, Error> {
        let mut bytes = vec![0; wire::FIXED_BYTES];
        self.fill(&mut bytes)?;
        let length = wire::length(&bytes)?;
        if length > MESSAGE_BYTES_MAX {
            return Err(Error::Malformed("a message is longer than 1 MiB"));
        }
        bytes.resize(length, 0);
        self.fill(&mut bytes[wire::FIXED_BYTES..])?;
        wire::message(&bytes)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() == LINE_BYTES_MAX {
                return Err(Error::Malformed("a line of the handshake has no end"));
            }
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.push(byte[0]);
        }
        String::from_utf8(line).map_err(|_| Error::Malformed("the handshake is not text"))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let left = self.left()?;
        let sent =
            self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|source| self.failed("send", source))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let mut at = 0;
        while at < bytes.len() {
            let left = self.left()?;
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut bytes[at..]));
            match read {
                Ok(0) => {
                    let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(self.failed("receive", source));
                }
                Ok(count) => at += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("receive", error)),
            }
        }
        Ok(())
    }

    fn left(&self) -> Result<Duration, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Error::Timeout(self.limit)) } else { Ok(left) }
    }

    fn failed(&self, verb: &str, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(self.limit),
            _ => Error::Socket { verb: verb.to_owned(), source },
        }
    }
}

#[cfg(test)]
mod tests;
