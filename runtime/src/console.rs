//! What goes over a connection to a container's first program ([`crate::wire::Request::ContainerAttach`]):
//! one thing in a message, whose first byte says what it is; numbers are little-endian.

use crate::wire::{TERMINAL_CELLS_MAX, TerminalSize};

/// Bytes of input or output in one message at most.
pub const PIECE_BYTES_MAX: usize = 16 << 10;
/// A message's size, in bytes, at most.
pub const MESSAGE_BYTES_MAX: usize = 1 + PIECE_BYTES_MAX;

/// What the program's monitor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleOrder<'a> {
    /// For standard input; at least one byte. The monitor takes no more while the program reads none.
    Input(&'a [u8]),
    /// There will be no more input. A terminal has no such end.
    End,
    /// Another size of the terminal.
    Resize(TerminalSize),
}

/// What it says. Output that was written shortly before one came is said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleEvent<'a> {
    /// Of standard output, or the terminal.
    Stdout(&'a [u8]),
    /// Of standard error.
    Stderr(&'a [u8]),
    /// So many bytes are left out here: the connection was full. The log has them.
    Lost(u64),
    /// The program has ended, by an exit code or by a signal, and that is recorded. The last message.
    Exited {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that has ended it.
        signal: Option<i32>,
    },
}

impl<'a> ConsoleOrder<'a> {
    /// Puts the message in the place of what `buffer` holds.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        match self {
            Self::Input(bytes) => mark(buffer, b'i', bytes),
            Self::End => mark(buffer, b'e', &[]),
            Self::Resize(TerminalSize { columns, rows }) => {
                mark(buffer, b'r', &columns.to_le_bytes());
                buffer.extend_from_slice(&rows.to_le_bytes());
            }
        }
    }

    /// Reads a message; nothing for one that is none.
    #[must_use]
    pub fn read(message: &'a [u8]) -> Option<Self> {
        match message {
            [b'i', bytes @ ..] if !bytes.is_empty() => Some(Self::Input(bytes)),
            [b'e'] => Some(Self::End),
            [b'r', c0, c1, r0, r1] => {
                let columns = u16::from_le_bytes([*c0, *c1]);
                let rows = u16::from_le_bytes([*r0, *r1]);
                let possible = |cells: u16| (1..=TERMINAL_CELLS_MAX).contains(&cells);
                (possible(columns) && possible(rows))
                    .then_some(Self::Resize(TerminalSize { columns, rows }))
            }
            _ => None,
        }
    }
}

impl<'a> ConsoleEvent<'a> {
    /// Puts the message in the place of what `buffer` holds.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        match self {
            Self::Stdout(bytes) => mark(buffer, b'o', bytes),
            Self::Stderr(bytes) => mark(buffer, b'e', bytes),
            Self::Lost(bytes) => mark(buffer, b'l', &bytes.to_le_bytes()),
            Self::Exited { code: Some(code), .. } => mark(buffer, b'c', &code.to_le_bytes()),
            Self::Exited { signal: Some(signal), .. } => mark(buffer, b's', &signal.to_le_bytes()),
            Self::Exited { .. } => mark(buffer, b'x', &[]),
        }
    }

    /// Reads a message; nothing for one that is none.
    #[must_use]
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let (kind, rest) = message.split_first()?;
        let number = || rest.try_into().ok().map(i32::from_le_bytes);
        match kind {
            b'o' => Some(Self::Stdout(rest)),
            b'e' => Some(Self::Stderr(rest)),
            b'l' => rest.try_into().ok().map(u64::from_le_bytes).map(Self::Lost),
            b'c' => number().map(|code| Self::Exited { code: Some(code), signal: None }),
            b's' => number().map(|signal| Self::Exited { code: None, signal: Some(signal) }),
            b'x' if rest.is_empty() => Some(Self::Exited { code: None, signal: None }),
            _ => None,
        }
    }
}

fn mark(buffer: &mut Vec<u8>, kind: u8, rest: &[u8]) {
    buffer.push(kind);
    buffer.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_is_read_again() {
        let mut buffer = Vec::new();
        let size = TerminalSize { columns: 1000, rows: 1 };
        for order in [ConsoleOrder::Input(b"ls\n"), ConsoleOrder::End, ConsoleOrder::Resize(size)] {
            order.write(&mut buffer);
            assert_eq!(ConsoleOrder::read(&buffer), Some(order));
        }
        let exited = |code, signal| ConsoleEvent::Exited { code, signal };
        for event in [
            ConsoleEvent::Stdout(b"out"),
            ConsoleEvent::Stderr(b""),
            ConsoleEvent::Lost(u64::MAX),
            exited(Some(-1), None),
            exited(None, Some(9)),
            exited(None, None),
        ] {
            event.write(&mut buffer);
            assert_eq!(ConsoleEvent::read(&buffer), Some(event));
        }
    }

    #[test]
    fn what_is_no_message_is_nothing() {
        let orders: [&[u8]; 8] =
            [b"", b"i", b"e1", b"r", b"r\0\0\x01\0", b"r\xe9\x03\x01\0", b"r\x01\0\x01\0\0", b"q"];
        for order in orders {
            assert_eq!(ConsoleOrder::read(order), None, "{order:?}");
        }
        let events: [&[u8]; 6] = [b"", b"l1", b"c123", b"s12345", b"x1", b"q"];
        for event in events {
            assert_eq!(ConsoleEvent::read(event), None, "{event:?}");
        }
    }
}
