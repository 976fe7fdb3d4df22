//! A04, W03, W05, W06: what no honest client sends, byte by byte over a socket of our own.

mod bodies;
mod crowd;
mod framing;
mod paths;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The first answer to some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// A status, and the head with what came of the body.
    Status(u16, String),
    /// The connection was ended without a word.
    Closed,
    /// Nothing came in time, and the connection is open.
    Nothing,
}

impl Said {
    /// The status; 0 when there is none.
    fn status(&self) -> u16 {
        match self {
            Self::Status(status, _) => *status,
            Self::Closed | Self::Nothing => 0,
        }
    }

    /// In words, for a check.
    fn words(&self) -> String {
        match self {
            Self::Status(status, _) => status.to_string(),
            Self::Closed => "closed".to_owned(),
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("send at once");
    stream
}

/// Sends bytes on a connection of their own; the first answer.
fn say(address: SocketAddr, bytes: &[u8], limit: Duration) -> Said {
    let mut stream = connect(address);
    // A refusal may come, and the connection end, before everything is sent.
    stream.set_write_timeout(Some(limit)).expect("limit the sending");
    drop(stream.write_all(bytes));
    hear(&mut stream, limit)
}

/// The next answer: its head and as much of its body as its length says.
fn hear(stream: &mut TcpStream, limit: Duration) -> Said {
    let deadline = Instant::now() + limit;
    let (mut heard, mut part) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
            if body.len() >= length || heard.len() > 1 << 20 {
                let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
                return Said::Status(status.unwrap_or(0), text);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Said::Nothing;
        }
        stream.set_read_timeout(Some(left)).expect("limit the wait");
        match stream.read(&mut part) {
            Ok(0) => return Said::Closed,
            Ok(read) => heard.extend_from_slice(&part[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Said::Nothing;
            }
            Err(_) => return Said::Closed,
        }
    }
}

/// `Authorization` of a client with a token.
fn bearer(token: &system_tests::Client) -> String {
    let request = token.raw("GET", "/").build().expect("a request");
    request.headers()["authorization"].to_str().expect("ASCII").to_owned()
}
