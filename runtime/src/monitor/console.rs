//! Being with a container's first program: its input, its terminal's size, and its output as it comes,
//! over connections that come and go.
//!
//! Invariants: memory is fixed; the program waits for nobody: a connection that is full for long loses
//! output (the log has it), never the newest, and is told how much; no connection is read while earlier
//! input waits for the program.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::write;

use berth_runtime::console::{ConsoleEvent, ConsoleOrder, MESSAGE_BYTES_MAX, PIECE_BYTES_MAX};
use berth_runtime::send_message;

use crate::log::Stream;
use crate::sys::{socket, terminal};

/// Connections at once; for one more the oldest goes.
const ATTACHED_MAX: usize = 8;
/// Output kept for whoever comes: more than a full screen.
const RECENT_BYTES: usize = 32 << 10;
/// Pieces of it at most; small ones are put together.
const RECENT_PIECES: usize = 64;
/// How long the program's end waits for connections that are full.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// The program's ends that people reach.
pub(super) struct Console {
    listener: OwnedFd,
    /// Standard input or the terminal's master; none once the input has ended.
    input: Option<OwnedFd>,
    terminal: Option<Terminal>,
    attached: Vec<Attached>,
    /// Input that the program has not taken yet, and where in it that begins.
    waiting: Vec<u8>,
    taken: usize,
    recent: Recent,
    message: Vec<u8>,
}

/// A terminal, held at both ends: so it does not hang up while no program has it open.
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    #[expect(dead_code, reason = "it is only to stay open")]
    pub(super) slave: OwnedFd,
}

struct Attached {
    socket: OwnedFd,
    /// Up to where it has the output, or knows that it is lost.
    at: u64,
}

/// Who has something to say, or room for something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Listener,
    Input,
    Attached(usize),
}

impl Console {
    pub(super) fn new(listener: OwnedFd, input: OwnedFd, terminal: Option<Terminal>) -> Self {
        Self {
            listener,
            input: Some(input),
            terminal,
            attached: Vec::new(),
            waiting: Vec::with_capacity(PIECE_BYTES_MAX),
            taken: 0,
            recent: Recent::default(),
            message: Vec::with_capacity(MESSAGE_BYTES_MAX),
        }
    }

    /// Whether the program has a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// What to wait for.
    pub(super) fn sources(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let listener = (Source::Listener, self.listener.as_fd(), PollFlags::POLLIN);
        let input = self.input.as_ref().filter(|_| self.has_input_waiting());
        let input = input.map(|input| (Source::Input, input.as_fd(), PollFlags::POLLOUT));
        let attached = self.attached.iter().enumerate().filter_map(|(index, one)| {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, !self.has_input_waiting());
            wanted.set(PollFlags::POLLOUT, one.at < self.recent.end());
            // One that is asked for nothing would still be told as hung up, again and again.
            (!wanted.is_empty()).then_some((Source::Attached(index), one.socket.as_fd(), wanted))
        });
        std::iter::once(listener).chain(input).chain(attached)
    }

    pub(super) fn serve(&mut self, source: Source) {
        match source {
            Source::Listener => {
                self.admit();
            }
            Source::Input => self.feed(),
            Source::Attached(index) => self.hear(index),
        }
    }

    /// Output, which the log has.
    pub(super) fn tell(&mut self, stream: Stream, output: &[u8]) {
        for piece in output.chunks(PIECE_BYTES_MAX) {
            self.recent.keep(stream, piece);
            let (recent, message) = (&self.recent, &mut self.message);
            self.attached.retain_mut(|one| one.bring_up(recent, message));
        }
    }

    /// The program's end, which is recorded. Whoever has just come, or is behind, gets the output first.
    pub(super) fn end(mut self, code: Option<i32>, signal: Option<i32>) {
        while self.admit() {}
        self.bring_all_up();
        ConsoleEvent::Exited { code, signal }.write(&mut self.message);
        for one in &self.attached {
            // Whoever does not hear it hears the hang-up, and asks.
            match send_message(&one.socket, &self.message, &[]) {
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Waits a while for connections that are full. Who reads is soon up; who does not hears the hang-up.
    fn bring_all_up(&mut self) {
        let deadline = Instant::now() + LINGER_MAX;
        loop {
            let (recent, message) = (&self.recent, &mut self.message);
            self.attached.retain_mut(|one| one.bring_up(recent, message));
            let behind = self.attached.iter().filter(|one| one.at < self.recent.end());
            let mut behind: Vec<PollFd<'_>> =
                behind.map(|one| PollFd::new(one.socket.as_fd(), PollFlags::POLLOUT)).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if behind.is_empty() || left.is_zero() {
                return;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut behind, timeout) {
                Ok(0) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn has_input_waiting(&self) -> bool {
        self.taken < self.waiting.len()
    }

    /// Takes in who waits at the socket, if anybody does.
    fn admit(&mut self) -> bool {
        let Ok(socket) = socket::accept(self.listener.as_fd()) else { return false };
        if self.attached.len() >= ATTACHED_MAX {
            self.attached.remove(0);
        }
        let mut one = Attached { socket, at: self.recent.start };
        if one.bring_up(&self.recent, &mut self.message) {
            self.attached.push(one);
        }
        true
    }

    fn hear(&mut self, index: usize) {
        let Some(one) = self.attached.get_mut(index) else { return };
        let there = one.bring_up(&self.recent, &mut self.message);
        if !there || (!self.has_input_waiting() && !self.obey(index)) {
            self.attached.remove(index);
        }
    }

    /// Takes an order; false when the other end has hung up, or says what is no order.
    fn obey(&mut self, index: usize) -> bool {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let socket = self.attached[index].socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let length = match recv(socket, &mut bytes, flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            Ok(0) | Err(_) => return false,
            Ok(length) => length,
        };
        let Some(message) = bytes.get(..length) else { return false };
        match ConsoleOrder::read(message) {
            None => return false,
            Some(ConsoleOrder::Input(input)) => {
                self.waiting.clear();
                self.waiting.extend_from_slice(input);
                self.taken = 0;
                self.feed();
            }
            Some(ConsoleOrder::End) if self.terminal.is_none() => self.input = None,
            Some(ConsoleOrder::End) => {}
            Some(ConsoleOrder::Resize(size)) => {
                if let Some(Terminal { master, .. }) = &self.terminal {
                    // A possible size is set, as long as there is the terminal.
                    let set = terminal::set_size(master, size.columns, size.rows);
                    debug_assert!(set.is_ok());
                }
            }
        }
        true
    }

    /// Gives the program what waits for it.
    fn feed(&mut self) {
        while self.has_input_waiting() {
            let written = match &self.input {
                // What comes when nobody reads any more has nowhere to go.
                None => Ok(self.waiting.len() - self.taken),
                Some(input) => write(input, &self.waiting[self.taken..]),
            };
            match written {
                Ok(written) => self.taken += written,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.input = None,
            }
        }
    }
}

impl Attached {
    /// Sends what it has not got yet, as far as there is room; false when the other end has hung up.
    fn bring_up(&mut self, recent: &Recent, message: &mut Vec<u8>) -> bool {
        while self.at < recent.end() {
            let (event, next) = recent.after(self.at);
            event.write(message);
            match send_message(&self.socket, message, &[]) {
                Ok(()) => self.at = next,
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

/// The newest output. Every byte has a number: how many came before it.
#[derive(Default)]
struct Recent {
    pieces: VecDeque<(Stream, Vec<u8>)>,
    start: u64,
    bytes: usize,
}

impl Recent {
    fn keep(&mut self, stream: Stream, output: &[u8]) {
        self.bytes += output.len();
        for part in output.chunks(RECENT_BYTES / RECENT_PIECES) {
            match self.pieces.back_mut() {
                Some((last, bytes))
                    if *last == stream && bytes.len() + part.len() <= bytes.capacity() =>
                {
                    bytes.extend_from_slice(part);
                }
                _ => {
                    let mut piece = Vec::with_capacity(RECENT_BYTES / RECENT_PIECES);
                    piece.extend_from_slice(part);
                    self.pieces.push_back((stream, piece));
                }
            }
        }
        while self.bytes > RECENT_BYTES || self.pieces.len() > RECENT_PIECES {
            let Some((_, oldest)) = self.pieces.pop_front() else { break };
            self.bytes -= oldest.len();
            self.start += oldest.len() as u64;
        }
    }

    fn end(&self) -> u64 {
        self.start + self.bytes as u64
    }

    /// What follows `at`, which is before the end, and where it ends itself.
    fn after(&self, at: u64) -> (ConsoleEvent<'_>, u64) {
        let mut begin = self.start;
        for (stream, bytes) in &self.pieces {
            let end = begin + bytes.len() as u64;
            if (begin..end).contains(&at) {
                // Less than a piece's length, which is a usize.
                let from = usize::try_from(at - begin).unwrap_or(0);
                let event = match stream {
                    Stream::Stdout => ConsoleEvent::Stdout(&bytes[from..]),
                    Stream::Stderr => ConsoleEvent::Stderr(&bytes[from..]),
                };
                return (event, end);
            }
            begin = end;
        }
        (ConsoleEvent::Lost(self.start.saturating_sub(at)), self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that follows `at`: what was lost, and the bytes.
    fn rest(recent: &Recent, mut at: u64) -> (u64, Vec<u8>) {
        let (mut lost, mut all) = (0, Vec::new());
        while at < recent.end() {
            let (event, next) = recent.after(at);
            assert!(next > at, "it goes on");
            match event {
                ConsoleEvent::Stdout(bytes) | ConsoleEvent::Stderr(bytes) => all.extend(bytes),
                ConsoleEvent::Lost(bytes) => lost += bytes,
                ConsoleEvent::Exited { .. } => panic!("no output"),
            }
            at = next;
        }
        (lost, all)
    }

    #[test]
    fn the_newest_output_is_kept_and_no_more() {
        let mut recent = Recent::default();
        let all: Vec<u8> = (0..200_000u32).map(|number| number.to_le_bytes()[0]).collect();
        for (index, piece) in all.chunks(777).enumerate() {
            let stream = if index % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
            recent.keep(stream, piece);
            assert!(recent.bytes <= RECENT_BYTES && recent.pieces.len() <= RECENT_PIECES);
        }
        let (lost, kept) = rest(&recent, 0);
        assert_eq!((lost, lost + kept.len() as u64), (recent.start, all.len() as u64));
        assert!(kept.len() > RECENT_BYTES / 2, "{}", kept.len());
        assert!(all.ends_with(&kept));
        let at = recent.end() - 1000;
        assert_eq!(rest(&recent, at), (0, all[all.len() - 1000..].to_vec()));
    }

    #[test]
    fn small_pieces_are_put_together() {
        let mut recent = Recent::default();
        for _ in 0..100 {
            recent.keep(Stream::Stdout, b"ab");
        }
        assert_eq!((recent.pieces.len(), recent.bytes), (1, 200));
        recent.keep(Stream::Stderr, b"c");
        assert_eq!(recent.pieces.len(), 2);
    }
}
