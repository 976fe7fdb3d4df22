//! Talking to the kernel over netlink(7), one request and its acknowledgement at a time.
//!
//! A connection belongs for ever to the network namespace that it was opened in, so one process talks
//! to the host's and to a container's namespace side by side.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::Error;

/// The mark of a message that has others after it.
const NLM_F_MULTI: u16 = 2;
const NLMSG_ERROR: u16 = 2;
const NLMSG_HEADER_BYTES: usize = 16;
/// Datagrams read for one answer at most: a dump of 65,536 links fits.
const DATAGRAMS_MAX: u32 = 65_536;

/// An open netlink socket.
pub struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    /// To rtnetlink(7) of the namespace that this process is in now.
    pub fn route() -> Result<Self, Error> {
        Self::open(NETLINK_ROUTE)
    }

    /// To netfilter's side of the same.
    pub fn netfilter() -> Result<Self, Error> {
        Self::open(NETLINK_NETFILTER)
    }

    fn open(protocol: isize) -> Result<Self, Error> {
        let socket =
            Socket::new(protocol).map_err(|source| failed("open a netlink socket", source))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and waits for the kernel's word on it. `action` says in an error what was
    /// attempted: verb and object.
    pub fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: &str,
    ) -> Result<(), Error> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags, action)?;
        self.acknowledged(sequence, action)
    }

    /// Asks for one object; `None` when it is not there.
    pub fn get(
        &mut self,
        message: RouteNetlinkMessage,
        action: &str,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let sequence = self.send(message, NLM_F_REQUEST, action)?;
        match self.collect(sequence, action) {
            Ok(mut found) => Ok(found.pop()),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for every object of a kind.
    pub fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        action: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_DUMP, action)?;
        self.collect(sequence, action)
    }

    /// Sends bytes that are whole netlink messages, and waits for the word on message `sequence`.
    pub fn request_raw(&mut self, bytes: &[u8], sequence: u32, action: &str) -> Result<(), Error> {
        self.send_bytes(bytes, action)?;
        self.acknowledged(sequence, action)
    }

    fn send(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: &str,
    ) -> Result<u32, Error> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send_bytes(&bytes, action)?;
        Ok(self.sequence)
    }

    fn send_bytes(&self, bytes: &[u8], action: &str) -> Result<(), Error> {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0);
        match sent.map_err(|source| failed(action, source))? {
            all if all == bytes.len() => Ok(()),
            _ => Err(failed(action, io::ErrorKind::WriteZero.into())),
        }
    }

    /// Reads until the acknowledgement of `sequence`; a refusal of another part of the same batch
    /// ends it too.
    fn acknowledged(&mut self, sequence: u32, action: &str) -> Result<(), Error> {
        for _ in 0..DATAGRAMS_MAX {
            let bytes = self.receive(action)?;
            for message in split(&bytes) {
                if field_u16(message, 4) != Some(NLMSG_ERROR) {
                    continue;
                }
                match field_i32(message, NLMSG_HEADER_BYTES) {
                    Some(0) if field_u32(message, 8) == Some(sequence) => return Ok(()),
                    Some(0) => {}
                    Some(code) => return Err(failed(action, errno(code))),
                    None => return Err(failed(action, io::ErrorKind::UnexpectedEof.into())),
                }
            }
        }
        Err(failed(action, io::ErrorKind::TimedOut.into()))
    }

    /// Reads the objects of one answer, to its end.
    fn collect(&mut self, sequence: u32, action: &str) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut found = Vec::new();
        for _ in 0..DATAGRAMS_MAX {
            let bytes = self.receive(action)?;
            for message in split(&bytes) {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                    .map_err(|error| failed(action, io::Error::other(error.to_string())))?;
                let (header, payload) = message.into_parts();
                if header.sequence_number != sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        found.push(inner);
                        // Without the mark of a dump it is the only one.
                        if header.flags & NLM_F_MULTI == 0 {
                            return Ok(found);
                        }
                    }
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => match error.code {
                        Some(code) => return Err(failed(action, errno(code.get()))),
                        None => return Ok(found),
                    },
                    _ => {}
                }
            }
        }
        Err(failed(action, io::ErrorKind::TimedOut.into()))
    }

    fn receive(&self, action: &str) -> Result<Vec<u8>, Error> {
        loop {
            match self.socket.recv_from_full() {
                // Nobody but the kernel (port 0) is listened to.
                Ok((bytes, from)) if from.port_number() == 0 => return Ok(bytes),
                Ok(_) => {}
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed(action, source)),
            }
        }
    }
}

/// The messages of one datagram.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while let Some(length) = field_u32(rest, 0).and_then(|length| usize::try_from(length).ok()) {
        if length < NLMSG_HEADER_BYTES || length > rest.len() {
            break;
        }
        messages.push(&rest[..length]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn field_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn field_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn field_i32(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The kernel sends errors as negative numbers.
fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_neg())
}

fn failed(action: &str, source: io::Error) -> Error {
    Error::Kernel { action: action.to_owned(), source }
}
