//! A container's log, read from the descriptors that the supervisor hands out.
//!
//! The format is the CRI's (kubernetes design-proposals, "CRI Logging"): one record a line,
//! `<RFC 3339 with nanoseconds> <stdout|stderr> <P|F> <content>`, in numbered segments. A cursor
//! names a byte of a segment and stays valid over restarts of server and supervisor, because
//! segments are only ever appended to, and numbers are never used twice.
//!
//! Reading blocks, so callers use a blocking thread. Followers look at the size of the file that
//! they hold: inotify(7) would ask for read permission on an inode that is not the server's.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::runtime_client::LogSegments;

/// Bytes read at once, and about what one [`LogReader::read`] gives.
const CHUNK_BYTES: usize = 64 * 1024;
/// A record's bytes at most; the monitor splits lines at 16 KiB. More without an end is no record.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a log that one search looks through.
pub const SEARCH_BYTES_MAX: u64 = 64 << 20;
/// The greatest `tail`.
pub(crate) const TAIL_MAX: usize = 100_000;

/// Which of a program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// A place in a log: the segment's number and the offset of a byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The segment.
    pub segment: u64,
    /// The byte.
    pub offset: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where the next one begins.
    pub next: Cursor,
    /// When it was written, as the monitor wrote it.
    pub time: String,
    /// Which output.
    pub stream: LogStream,
    /// The program's bytes without the line's end.
    pub content: Vec<u8>,
    /// The line goes on in the stream's next record.
    pub partial: bool,
}

/// What of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogSelection {
    /// One output only.
    pub stream: Option<LogStream>,
    /// Nothing older than this RFC 3339 time (UTC, with `Z`).
    pub since: Option<String>,
    /// The last so many lines only.
    pub tail: Option<usize>,
    /// From this place on; wins over `tail`.
    pub from: Option<Cursor>,
    /// Only records with this text, in small or capital letters; looked for in the newest
    /// [`SEARCH_BYTES_MAX`] alone, unless `from` is given.
    pub contains: Option<String>,
}

/// A reader at a place in a log.
#[derive(Debug)]
pub struct LogReader {
    /// Being read: the first; newer ones behind it.
    segments: VecDeque<(u64, File)>,
    /// Where `pending` begins in the first segment.
    offset: u64,
    /// The beginning of a record whose end is not read yet.
    pending: Vec<u8>,
    stream: Option<LogStream>,
    since: Option<String>,
    /// Set when segments that should have been read were rotated away.
    gap: bool,
    /// What is looked for, in small letters.
    needle: Option<Vec<u8>>,
    /// Set when there are older records that were not looked through.
    cut: bool,
}

impl LogReader {
    /// A reader of `segments` (oldest first) at the place that `selection` names.
    pub fn open(segments: LogSegments, selection: LogSelection) -> io::Result<Self> {
        let LogSelection { stream, since, tail, from, contains } = selection;
        let segments = segments.into_iter().map(|(number, fd)| (number, File::from(fd))).collect();
        let since = since.map(|time| time.trim_end_matches('Z').to_owned());
        let needle = contains.map(|text| text.to_ascii_lowercase().into_bytes());
        let mut reader = Self {
            segments,
            offset: 0,
            pending: Vec::new(),
            stream,
            since,
            gap: false,
            needle: needle.filter(|needle| !needle.is_empty()),
            cut: false,
        };
        if reader.is_search() && from.is_none() {
            reader.keep_newest(SEARCH_BYTES_MAX)?;
        }
        match (from, tail) {
            (Some(from), _) => reader.seek(from),
            (None, Some(tail)) => reader.seek_tail(tail.min(TAIL_MAX))?,
            (None, None) => {}
        }
        Ok(reader)
    }

    /// The next records; none when the end is reached for now.
    pub fn read(&mut self) -> io::Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        while entries.is_empty() {
            let Some((number, file)) = self.segments.front() else { return Ok(entries) };
            let number = *number;
            let at = self.offset + self.pending.len() as u64;
            let length = file.read_at(&mut chunk, at)?;
            if length == 0 {
                // The writer opens the next segment only when it is done with this one.
                if self.segments.len() < 2 {
                    return Ok(entries);
                }
                self.segments.pop_front();
                self.offset = 0;
                self.pending.clear();
                continue;
            }
            self.pending.extend_from_slice(&chunk[..length]);
            self.take_records(number, &mut entries);
        }
        Ok(entries)
    }

    /// Takes over segments that are newer than those it knows; the file being read stays open, even
    /// when it has been unlinked since.
    pub fn refresh(&mut self, segments: LogSegments) {
        let newest = self.segments.back().map(|(number, _)| *number);
        let mut expected = newest.map(|number| number + 1);
        for (number, fd) in segments {
            if newest.is_some_and(|newest| number <= newest) {
                continue;
            }
            self.gap |= expected.is_some_and(|expected| number > expected);
            expected = Some(number + 1);
            self.segments.push_back((number, File::from(fd)));
        }
    }

    /// Whether nothing is to be read now, by the size of the file being read.
    pub fn at_end(&self) -> io::Result<bool> {
        match self.segments.front() {
            None => Ok(true),
            Some((_, file)) => {
                let end = self.offset + self.pending.len() as u64;
                Ok(self.segments.len() < 2 && file.metadata()?.len() <= end)
            }
        }
    }

    /// Where the next record begins.
    pub fn cursor(&self) -> Option<Cursor> {
        let (segment, _) = self.segments.front()?;
        Some(Cursor { segment: *segment, offset: self.offset })
    }

    /// Whether records were rotated away before they could be read; tells it once.
    pub fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.gap)
    }

    /// Whether it looks for a text, which costs more than reading.
    pub fn is_search(&self) -> bool {
        self.needle.is_some()
    }

    /// Whether older records were left out of the search; tells it once.
    pub fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    /// Leaves all but about the newest `bytes_max` out.
    fn keep_newest(&mut self, bytes_max: u64) -> io::Result<()> {
        let mut left = bytes_max;
        for index in (0..self.segments.len()).rev() {
            let length = self.segments[index].1.metadata()?.len();
            if length <= left {
                left -= length;
                continue;
            }
            self.cut = true;
            self.segments.drain(..index);
            let from = length - left;
            // Records begin after a line's end.
            let mut chunk = vec![0; RECORD_BYTES_MAX];
            let read = self.segments[0].1.read_at(&mut chunk, from)?;
            let end = chunk[..read].iter().position(|byte| *byte == b'\n');
            self.offset = from + end.map_or(read as u64, |end| end as u64 + 1);
            return Ok(());
        }
        Ok(())
    }

    fn seek(&mut self, from: Cursor) {
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|(number, _)| *number < from.segment)
        {
            self.segments.pop_front();
        }
        match self.segments.front() {
            Some((number, _)) if *number == from.segment => self.offset = from.offset,
            Some((number, _)) => self.gap = *number > from.segment,
            None => {}
        }
    }

    /// Goes to where the last `tail` lines begin, reading segments from the newest backwards.
    fn seek_tail(&mut self, tail: usize) -> io::Result<()> {
        let mut wanted = tail;
        let mut keep_from = self.segments.len();
        let mut offset = 0;
        for index in (0..self.segments.len()).rev() {
            keep_from = index;
            let (_, file) = &self.segments[index];
            let first = if index == 0 { self.offset } else { 0 };
            let (starts, end) = self.line_starts(file, first, wanted)?;
            if wanted == 0 {
                offset = end;
                break;
            }
            wanted -= starts.len();
            offset = if wanted == 0 { starts.first().copied().unwrap_or(end) } else { first };
            if wanted == 0 {
                break;
            }
        }
        self.segments.drain(..keep_from);
        self.offset = offset;
        Ok(())
    }

    /// Where the last lines of `file` from `first` on begin, at most `wanted`, and where its last
    /// record ends.
    fn line_starts(&self, file: &File, first: u64, wanted: usize) -> io::Result<(Vec<u64>, u64)> {
        let mut starts = VecDeque::new();
        let mut open: [Option<u64>; 2] = [None, None];
        let mut end = first;
        each_record(file, first, |at, line| {
            end = at + line.len() as u64 + 1;
            let Some(record) = parse(line).filter(|record| self.wants(record)) else { return };
            let begun = &mut open[record.stream as usize];
            if begun.is_none() {
                *begun = Some(at);
                starts.push_back(at);
                if starts.len() > wanted {
                    starts.pop_front();
                }
            }
            if !record.partial {
                *begun = None;
            }
        })?;
        Ok((starts.into(), end))
    }

    /// Moves the whole records of `pending` to `entries`.
    fn take_records(&mut self, segment: u64, entries: &mut Vec<LogEntry>) {
        let mut taken = 0;
        while let Some(length) = self.pending[taken..].iter().position(|byte| *byte == b'\n') {
            let line = &self.pending[taken..taken + length];
            taken += length + 1;
            // What cannot be parsed was torn when its writer died.
            if let Some(record) = parse(line).filter(|record| self.wants(record)) {
                let next = Cursor { segment, offset: self.offset + taken as u64 };
                let time = record.time.to_owned();
                let content = record.content.to_vec();
                let Record { stream, partial, .. } = record;
                entries.push(LogEntry { next, time, stream, content, partial });
            }
        }
        if taken == 0 && self.pending.len() > RECORD_BYTES_MAX {
            taken = self.pending.len();
        }
        self.pending.drain(..taken);
        self.offset += taken as u64;
    }

    fn wants(&self, record: &Record<'_>) -> bool {
        // Same format, same zone: the texts compare as the times do, without the closing `Z`.
        let new_enough = |since: &String| record.time.trim_end_matches('Z') >= since.as_str();
        self.stream.is_none_or(|stream| stream == record.stream)
            && self.since.as_ref().is_none_or(new_enough)
            && self.needle.as_ref().is_none_or(|needle| holds(record.content, needle))
    }
}

/// A record's parts, borrowed from its line.
#[derive(Debug, PartialEq, Eq)]
struct Record<'a> {
    time: &'a str,
    stream: LogStream,
    partial: bool,
    content: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok().filter(|time| time.ends_with('Z'))?;
    let stream = match parts.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let partial = match parts.next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Record { time, stream, partial, content: parts.next()? })
}

/// Whether `text` holds `needle`, which is in small letters.
fn holds(text: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    text.windows(needle.len())
        .any(|window| window[0].eq_ignore_ascii_case(first) && window.eq_ignore_ascii_case(needle))
}

/// Calls `visit` with the offset and the bytes of each whole line of `file` from `first` on.
fn each_record(file: &File, first: u64, mut visit: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut pending: Vec<u8> = Vec::new();
    let mut offset = first;
    loop {
        let length = file.read_at(&mut chunk, offset + pending.len() as u64)?;
        if length == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&chunk[..length]);
        let mut taken = 0;
        while let Some(length) = pending[taken..].iter().position(|byte| *byte == b'\n') {
            visit(offset + taken as u64, &pending[taken..taken + length]);
            taken += length + 1;
        }
        if taken == 0 && pending.len() > RECORD_BYTES_MAX {
            taken = pending.len();
        }
        pending.drain(..taken);
        offset += taken as u64;
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (segment, offset) = text.split_once('-').ok_or(())?;
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(segment) || !digits(offset) {
            return Err(());
        }
        let number = |part: &str| part.parse().map_err(|_| ());
        Ok(Self { segment: number(segment)?, offset: number(offset)? })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;

    use super::*;

    /// A log on disk that rotates when told.
    struct Log {
        directory: PathBuf,
        numbers: Vec<u64>,
        second: u32,
    }

    impl Log {
        fn new(name: &str) -> Self {
            let name = format!("berth-logs-{name}-{}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).expect("mkdir");
            let log = Self { directory, numbers: vec![1], second: 0 };
            log.append("");
            log
        }

        fn append(&self, text: &str) {
            let name = format!("{}.log", self.numbers.last().expect("a segment"));
            let mut options = File::options();
            let mut file =
                options.append(true).create(true).open(self.directory.join(name)).expect("open");
            file.write_all(text.as_bytes()).expect("write");
        }

        fn line(&mut self, stream: &str, flag: &str, content: &str) {
            self.second += 1;
            let time = format!("2026-11-21T01:00:{:02}.000000000Z", self.second);
            self.append(&format!("{time} {stream} {flag} {content}\n"));
        }

        fn rotate(&mut self, keep: usize) {
            self.numbers.push(self.numbers.last().expect("a segment") + 1);
            self.append("");
            while self.numbers.len() > keep {
                let oldest = self.numbers.remove(0);
                std::fs::remove_file(self.directory.join(format!("{oldest}.log"))).expect("rm");
            }
        }

        fn segments(&self) -> LogSegments {
            let open = |number: &u64| {
                let path = self.directory.join(format!("{number}.log"));
                (*number, OwnedFd::from(File::open(path).expect("open")))
            };
            self.numbers.iter().map(open).collect()
        }

        fn reader(&self, selection: LogSelection) -> LogReader {
            LogReader::open(self.segments(), selection).expect("reader")
        }
    }

    impl Drop for Log {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.directory).expect("remove");
        }
    }

    fn texts(reader: &mut LogReader) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let entries = reader.read().expect("read");
            if entries.is_empty() {
                return all;
            }
            all.extend(entries.iter().map(|e| String::from_utf8_lossy(&e.content).into_owned()));
        }
    }

    #[test]
    fn a_search_finds_what_fits_and_looks_no_further_back_than_it_may() {
        let mut log = Log::new("search");
        log.line("stdout", "F", "Loss=3");
        log.line("stdout", "F", "accuracy=1");
        log.rotate(9);
        log.line("stderr", "F", "loss=2");
        let contains = |text: &str| LogSelection {
            contains: Some(text.to_owned()),
            ..LogSelection::default()
        };
        assert_eq!(texts(&mut log.reader(contains("LOSS"))), ["Loss=3", "loss=2"]);
        let tail = LogSelection { tail: Some(1), ..contains("loss") };
        assert_eq!(texts(&mut log.reader(tail)), ["loss=2"]);
        assert_eq!(texts(&mut log.reader(contains("nothing"))), Vec::<String>::new());
        assert_eq!(texts(&mut log.reader(contains(""))).len(), 3, "no text is no search");
        // Two lines and a piece of the first: that piece is not taken for a line.
        let mut short = log.reader(contains("="));
        short.keep_newest(100).expect("sizes are known");
        assert!(short.take_cut() && !short.take_cut());
        assert_eq!(texts(&mut short), ["accuracy=1", "loss=2"]);
        let mut whole = log.reader(contains("="));
        assert!(!whole.take_cut());
        assert_eq!(texts(&mut whole).len(), 3);
    }

    #[test]
    fn records_are_parsed_strictly() {
        let record = parse(b"2026-11-21T01:00:00.1Z stderr P a b ").expect("record");
        assert_eq!((record.stream, record.partial), (LogStream::Stderr, true));
        assert_eq!(record.content, b"a b ");
        assert!(parse(b"2026Z stdout F ").is_some());
        for bad in ["", "x", "2026 stdout F a", "2026Z stdin F a", "2026Z stdout X a", "Z stdout F"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn both_outputs_come_in_order_over_segments_and_each_alone() {
        let mut log = Log::new("order");
        log.line("stdout", "F", "a");
        log.line("stderr", "F", "b");
        log.rotate(9);
        log.line("stdout", "F", "c");
        assert_eq!(texts(&mut log.reader(LogSelection::default())), ["a", "b", "c"]);
        let stderr = LogSelection { stream: Some(LogStream::Stderr), ..LogSelection::default() };
        assert_eq!(texts(&mut log.reader(stderr)), ["b"]);
        let since = Some("2026-11-21T01:00:02.000Z".to_owned());
        let since = LogSelection { since, ..LogSelection::default() };
        assert_eq!(texts(&mut log.reader(since)), ["b", "c"]);
    }

    #[test]
    fn tail_counts_lines_not_records_and_crosses_segments() {
        let mut log = Log::new("tail");
        log.line("stdout", "F", "a");
        log.line("stdout", "F", "b");
        log.rotate(9);
        log.line("stdout", "P", "c1");
        log.line("stdout", "F", "c2");
        let tail = |n| LogSelection { tail: Some(n), ..LogSelection::default() };
        assert_eq!(texts(&mut log.reader(tail(0))), Vec::<String>::new());
        assert_eq!(texts(&mut log.reader(tail(1))), ["c1", "c2"]);
        assert_eq!(texts(&mut log.reader(tail(2))), ["b", "c1", "c2"]);
        assert_eq!(texts(&mut log.reader(tail(50))), ["a", "b", "c1", "c2"]);
    }

    #[test]
    fn a_follower_loses_nothing_over_rotation_and_goes_on_at_its_cursor() {
        let mut log = Log::new("follow");
        let mut reader = log.reader(LogSelection::default());
        let mut seen = Vec::new();
        let mut expected = Vec::new();
        for round in 0..20 {
            let text = format!("line {round}");
            log.line("stdout", "F", &text);
            expected.push(text);
            if round % 3 == 2 {
                log.rotate(2);
                reader.refresh(log.segments());
            }
            if round % 2 == 0 {
                seen.extend(texts(&mut reader));
            }
            if round == 11 {
                // As after a restart of the server: only the cursor is left.
                let from = reader.cursor();
                reader = log.reader(LogSelection { from, ..LogSelection::default() });
            }
        }
        seen.extend(texts(&mut reader));
        assert_eq!(seen, expected);
        assert!(!reader.take_gap());
        assert!(reader.at_end().expect("size"));
        log.line("stdout", "F", "more");
        assert!(!reader.at_end().expect("size"));
    }

    #[test]
    fn what_was_rotated_away_unread_is_said() {
        let mut log = Log::new("gap");
        log.line("stdout", "F", "a");
        let mut reader = log.reader(LogSelection::default());
        for text in ["b", "c", "d"] {
            log.rotate(1);
            log.line("stdout", "F", text);
        }
        reader.refresh(log.segments());
        assert_eq!(texts(&mut reader), ["a", "d"]);
        assert!(reader.take_gap());
        assert!(!reader.take_gap());
        let from = Some(Cursor { segment: 1, offset: 0 });
        let mut late = log.reader(LogSelection { from, ..LogSelection::default() });
        assert_eq!(texts(&mut late), ["d"]);
        assert!(late.take_gap());
    }

    #[test]
    fn a_record_is_given_only_when_its_end_is_there() {
        let log = Log::new("torn");
        let mut reader = log.reader(LogSelection::default());
        log.append("2026-11-21T01:00:00.0Z stdout F hal");
        assert_eq!(texts(&mut reader), Vec::<String>::new());
        log.append("f\n");
        assert_eq!(texts(&mut reader), ["half"]);
    }

    #[test]
    fn cursors_have_one_form() {
        let cursor = Cursor { segment: 3, offset: 4096 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "-", "1-", "-1", "+1-2", "1-+2", "1-2-3", "99999999999999999999-1"] {
            assert_eq!(bad.parse::<Cursor>(), Err(()), "{bad}");
        }
    }
}
