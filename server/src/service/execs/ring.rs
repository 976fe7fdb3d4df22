//! The newest output of a program, so that whoever comes back is given what they have missed.
//!
//! Every byte has a number: how many came before it. A reader asks for what follows a number. Room is
//! what a program may be ahead of its reader: a program whose reader is slow, or away, waits.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes that a program may be ahead of its reader.
pub const WINDOW_BYTES: u64 = 128 << 10;
/// Bytes that are kept, what the reader was given already included.
const KEPT_BYTES_MAX: u64 = 2 * WINDOW_BYTES;

/// Which of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output, kept.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pieces: VecDeque<(Output, Bytes)>,
    start: u64,
    end: u64,
    /// Up to where the reader has it.
    taken: u64,
}

/// What follows a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These bytes, of one output.
    Bytes(Output, Bytes),
    /// So many are not kept any more.
    Lost(u64),
    /// Nothing yet.
    Nothing,
}

impl Ring {
    /// Bytes that may be added now.
    pub(super) fn room(&self) -> usize {
        usize::try_from(WINDOW_BYTES.saturating_sub(self.end - self.taken)).unwrap_or(0)
    }

    /// All bytes that there ever were.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn push(&mut self, output: Output, bytes: Bytes) {
        self.end += bytes.len() as u64;
        self.pieces.push_back((output, bytes));
        while self.end - self.start > KEPT_BYTES_MAX {
            let Some((_, oldest)) = self.pieces.pop_front() else { break };
            self.start += oldest.len() as u64;
        }
    }

    /// So many bytes were lost before they came here; what is kept goes with them.
    pub(super) fn lose(&mut self, bytes: u64) {
        self.pieces.clear();
        self.end = self.end.saturating_add(bytes);
        self.start = self.end;
    }

    /// The reader has everything before `at`.
    pub(super) fn take(&mut self, at: u64) {
        self.taken = self.taken.max(at.min(self.end));
    }

    /// Another reader begins at `at`.
    pub(super) fn rewind(&mut self, at: u64) {
        self.taken = at.clamp(self.start, self.end);
    }

    /// At most `most` bytes that follow `at`.
    pub(super) fn after(&self, at: u64, most: usize) -> Next {
        if at < self.start {
            return Next::Lost(self.start - at);
        }
        let mut begin = self.start;
        for (output, bytes) in &self.pieces {
            let end = begin + bytes.len() as u64;
            if at < end {
                // Less than a piece's length, which is a usize.
                let from = usize::try_from(at - begin).unwrap_or(0);
                let to = bytes.len().min(from.saturating_add(most));
                return Next::Bytes(*output, bytes.slice(from..to));
            }
            begin = end;
        }
        Next::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ring: &Ring, mut at: u64) -> (u64, Vec<u8>) {
        let (mut lost, mut all) = (0, Vec::new());
        loop {
            match ring.after(at, 7) {
                Next::Bytes(_, bytes) => {
                    at += bytes.len() as u64;
                    all.extend_from_slice(&bytes);
                }
                Next::Lost(bytes) => {
                    at += bytes;
                    lost += bytes;
                }
                Next::Nothing => return (lost, all),
            }
        }
    }

    #[test]
    fn every_place_of_it_can_be_gone_on_from() {
        let mut ring = Ring::default();
        let whole = b"one, two, three, four, five, six";
        for piece in whole.chunks(5) {
            ring.push(Output::Stdout, Bytes::copy_from_slice(piece));
        }
        for at in 0..=whole.len() {
            assert_eq!(text(&ring, at as u64), (0, whole[at..].to_vec()), "{at}");
        }
        assert_eq!(text(&ring, 1000), (0, Vec::new()), "what is not written yet");
    }

    #[test]
    fn a_reader_who_takes_nothing_leaves_no_room_and_loses_nothing() {
        let mut ring = Ring::default();
        while ring.room() > 0 {
            ring.push(Output::Stderr, Bytes::from(vec![7; ring.room().min(4096)]));
        }
        assert_eq!(ring.end(), WINDOW_BYTES);
        let whole = text(&ring, 0);
        assert_eq!((whole.0, whole.1.len() as u64), (0, WINDOW_BYTES));
        ring.take(1000);
        assert_eq!(ring.room(), 1000);
        ring.rewind(0);
        assert_eq!(ring.room(), 0, "whoever comes anew has none of it");
    }

    #[test]
    fn what_was_lost_on_the_way_is_told_as_lost() {
        let mut ring = Ring::default();
        ring.push(Output::Stdout, Bytes::from_static(b"before"));
        ring.lose(1000);
        ring.push(Output::Stdout, Bytes::from_static(b"after"));
        assert_eq!(text(&ring, 0), (1006, b"after".to_vec()));
        assert_eq!(text(&ring, 1006), (0, b"after".to_vec()));
    }

    #[test]
    fn what_is_too_old_is_told_as_lost_and_memory_is_bounded() {
        let mut ring = Ring::default();
        for _ in 0..100 {
            ring.push(Output::Stdout, Bytes::from(vec![1; 16 << 10]));
            ring.take(ring.end());
        }
        let (lost, kept) = text(&ring, 0);
        assert_eq!(lost + kept.len() as u64, ring.end());
        assert!(kept.len() as u64 <= KEPT_BYTES_MAX && kept.len() as u64 > WINDOW_BYTES);
    }
}
