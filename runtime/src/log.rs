//! A container's log: what it wrote to stdout and stderr, in the CRI logging format
//! (`<RFC 3339 time> <stream> <F|P> <content>`), in numbered segments of bounded size.
//!
//! Invariants: memory is fixed whatever the container writes; no link is followed and no file opened
//! that was not made here; a segment on disk ends with a whole line as long as the disk takes writes;
//! what the disk refuses is counted, never waited for. A line longer than [`CONTENT_BYTES_MAX`] is
//! split in parts marked `P`, the last one `F`.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Whence, ftruncate, lseek, read, write};

use berth_runtime::wire::LogOptions;

use crate::files;

/// A line's content in one record at most.
pub(crate) const CONTENT_BYTES_MAX: usize = 16 * 1024;
/// What is read from a pipe at once.
const READ_BYTES: usize = 64 * 1024;
/// Records gathered for one write.
const OUTPUT_BYTES: usize = 128 * 1024;
/// Time, stream, mark, spaces and newline, with room.
const FRAME_BYTES_MAX: usize = 64;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Why a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// So many bytes were there.
    Some(usize),
    /// Nothing is there now.
    Nothing,
    /// Every writer is gone.
    End,
}

/// The writer.
#[derive(Debug)]
pub(crate) struct Log {
    directory: OwnedFd,
    options: LogOptions,
    segment: Option<OwnedFd>,
    number: u64,
    /// Bytes in the segment that form whole records.
    length: u64,
    lost: u64,
    input: Box<[u8]>,
    output: Vec<u8>,
    /// Bytes of content in `output`, for the count of what is lost.
    gathered: u64,
    rests: [Vec<u8>; 2],
    stamp: String,
    returns_stripped: bool,
}

impl Log {
    /// Continues the newest segment in `directory`, or starts the first. A disk that refuses is no
    /// error here: what comes is counted as lost until it takes writes again.
    pub(crate) fn open(directory: OwnedFd, options: LogOptions) -> Self {
        let number = segment_numbers(&directory).last().copied().unwrap_or(0);
        let mut log = Self {
            directory,
            options,
            segment: None,
            number,
            length: 0,
            lost: 0,
            input: vec![0; READ_BYTES].into_boxed_slice(),
            output: Vec::with_capacity(OUTPUT_BYTES),
            gathered: 0,
            rests: [Vec::new(), Vec::new()],
            stamp: String::with_capacity(40),
            returns_stripped: false,
        };
        if number > 0 {
            log.reopen();
        }
        if log.segment.is_none() {
            log.rotate();
        }
        log
    }

    /// Bytes of output that the disk did not take.
    pub(crate) fn bytes_lost(&self) -> u64 {
        self.lost
    }

    /// Leaves out the carriage return that a terminal puts before each newline (termios(3), `ONLCR`).
    pub(crate) fn strip_returns(&mut self) {
        self.returns_stripped = true;
    }

    /// The bytes of the latest [`Taken::Some`].
    pub(crate) fn newest(&self, count: usize) -> &[u8] {
        &self.input[..count]
    }

    /// Reads what `pipe` has, once, and keeps it.
    pub(crate) fn take(&mut self, stream: Stream, pipe: BorrowedFd<'_>) -> Taken {
        match read(pipe, &mut self.input) {
            Ok(0) => {
                self.finish(stream);
                Taken::End
            }
            Ok(count) => {
                self.keep(stream, count);
                Taken::Some(count)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Taken::Nothing,
            // A pipe has no other error; if one comes, there is nothing more to be had from it.
            Err(_) => Taken::End,
        }
    }

    /// Writes the last line of `stream` although it has no newline.
    pub(crate) fn finish(&mut self, stream: Stream) {
        let rest = std::mem::take(&mut self.rests[stream as usize]);
        if !rest.is_empty() {
            self.mark_time();
            self.record(stream, 'F', &rest);
            self.flush();
        }
    }

    fn keep(&mut self, stream: Stream, count: usize) {
        self.mark_time();
        let input = std::mem::take(&mut self.input);
        for piece in input[..count].split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) => self.line_part(stream, line, true),
                None => self.line_part(stream, piece, false),
            }
        }
        self.input = input;
        self.flush();
    }

    /// Adds `part` to the line begun on `stream`; `ended` when a newline followed it.
    fn line_part(&mut self, stream: Stream, mut part: &[u8], ended: bool) {
        let mut rest = std::mem::take(&mut self.rests[stream as usize]);
        while rest.len() + part.len() > CONTENT_BYTES_MAX {
            let (head, tail) = part.split_at(CONTENT_BYTES_MAX - rest.len());
            if rest.is_empty() {
                self.record(stream, 'P', head);
            } else {
                rest.extend_from_slice(head);
                self.record(stream, 'P', &rest);
                rest.clear();
            }
            part = tail;
        }
        match (ended, rest.is_empty()) {
            (true, true) => self.record(stream, 'F', part),
            (true, false) => {
                rest.extend_from_slice(part);
                self.record(stream, 'F', &rest);
                rest.clear();
            }
            (false, _) => {
                rest.reserve_exact(CONTENT_BYTES_MAX.saturating_sub(rest.len()));
                rest.extend_from_slice(part);
            }
        }
        self.rests[stream as usize] = rest;
    }

    fn record(&mut self, stream: Stream, mark: char, mut content: &[u8]) {
        if self.returns_stripped && mark == 'F' {
            content = content.strip_suffix(b"\r").unwrap_or(content);
        }
        let size = content.len() + FRAME_BYTES_MAX;
        if self.output.len() + size > OUTPUT_BYTES {
            self.flush();
        }
        let after = self.length + (self.output.len() + size) as u64;
        if after > self.options.file_bytes_max && self.length + self.output.len() as u64 > 0 {
            self.flush();
            self.rotate();
        }
        // Writing to memory cannot fail.
        let framed = write!(self.output, "{} {} {mark} ", self.stamp, stream.name());
        debug_assert!(framed.is_ok());
        self.output.extend_from_slice(content);
        self.output.push(b'\n');
        self.gathered += content.len() as u64 + 1;
    }

    /// Writes what is gathered. A write cut short is taken back, so that the segment keeps ending
    /// with a whole record.
    fn flush(&mut self) {
        let mut done = 0;
        let room = self.length < self.options.file_bytes_max;
        if self.segment.is_none() || (!room && !self.output.is_empty()) {
            self.rotate();
        }
        if let Some(segment) = &self.segment {
            while done < self.output.len() {
                match write(segment, &self.output[done..]) {
                    Ok(count) if count > 0 => done += count,
                    Err(Errno::EINTR) => {}
                    Ok(_) | Err(_) => break,
                }
            }
        }
        if done == self.output.len() {
            self.length += done as u64;
        } else {
            self.lost += self.gathered;
            self.take_back();
        }
        self.output.clear();
        self.gathered = 0;
    }

    /// Cuts the segment back to its whole records; a segment that cannot be cut is left for a new one.
    fn take_back(&mut self) {
        if let Some(segment) = &self.segment {
            let length = i64::try_from(self.length).unwrap_or(i64::MAX);
            if ftruncate(segment, length).is_err() {
                self.segment = None;
            }
        }
    }

    fn reopen(&mut self) {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let name = segment_name(self.number);
        let Ok(file) = openat(&self.directory, name.as_str(), flags, Mode::empty()) else { return };
        let Ok(stat) = fstat(&file) else { return };
        let plain = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if !plain || stat.st_nlink != 1 || length >= self.options.file_bytes_max {
            return;
        }
        // After a power cut the last record may lack its end; the next one starts on a line of its own.
        let mut last = [b'\n'];
        if length > 0 {
            let at_end = lseek(&file, -1, Whence::SeekEnd).and_then(|_| read(&file, &mut last));
            let ended = at_end == Ok(1) && (last[0] == b'\n' || write(&file, b"\n") == Ok(1));
            if !ended {
                return;
            }
        }
        self.length = length + u64::from(last[0] != b'\n');
        self.segment = Some(file);
    }

    /// Starts the next segment and drops the oldest above the count. On failure the present one is
    /// given up all the same: its size is a promise.
    fn rotate(&mut self) {
        let keep = u64::from(self.options.files_max.max(1));
        let next = self.number + 1;
        let name = segment_name(next);
        let flags = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let mut made = openat(&self.directory, name.as_str(), flags, mode);
        let oldest_kept = (next + 1).saturating_sub(keep);
        let full = matches!(made, Err(Errno::ENOSPC | Errno::EDQUOT));
        if full && self.drop_segments(oldest_kept) {
            made = openat(&self.directory, name.as_str(), flags, mode);
        }
        match made {
            Ok(segment) => {
                self.segment = Some(segment);
                self.number = next;
                self.length = 0;
                self.drop_segments(oldest_kept);
            }
            Err(Errno::EEXIST) => {
                // Something of that name is there which no writer of this log made: pass it by.
                self.segment = None;
                self.number = next;
            }
            Err(_) => self.segment = None,
        }
    }

    /// Unlinks the segments numbered below `first`; true when one went.
    fn drop_segments(&self, first: u64) -> bool {
        let old = segment_numbers(&self.directory).into_iter().filter(|number| *number < first);
        let mut dropped = false;
        for number in old {
            dropped |= files::remove_file(&self.directory, &segment_name(number)).is_ok();
        }
        dropped
    }

    fn mark_time(&mut self) {
        let now = clock_gettime(ClockId::CLOCK_REALTIME);
        let (seconds, nanoseconds) = now.map_or((0, 0), |now| (now.tv_sec(), now.tv_nsec()));
        self.stamp.clear();
        time_text(&mut self.stamp, seconds, nanoseconds);
    }
}

/// The segment's file name.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number}.log")
}

/// The numbers of the segments in `directory`, ascending.
pub(crate) fn segment_numbers(directory: impl AsFd) -> Vec<u64> {
    let names = files::names(directory).unwrap_or_default();
    let number = |name: &String| {
        let number: u64 = name.strip_suffix(".log")?.parse().ok()?;
        (segment_name(number) == *name).then_some(number)
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// A moment as RFC 3339 writes it, with nanoseconds.
pub(crate) fn time_of(moment: std::time::SystemTime) -> String {
    let since = moment.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut text = String::new();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    time_text(&mut text, seconds, since.subsec_nanos().into());
    text
}

/// Appends `1970-01-01T00:00:00.000000000Z` and its like: proleptic Gregorian, UTC, no leap seconds
/// (the algorithm is the usual one with eras of 400 years that start on 1 March).
fn time_text(text: &mut String, seconds: i64, nanoseconds: i64) {
    use std::fmt::Write as _;
    let days = seconds.div_euclid(86_400) + 719_468;
    let second = seconds.rem_euclid(86_400);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let written = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z"
    );
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn directory() -> (tempdir::Scratch, OwnedFd) {
        let scratch = tempdir::Scratch::new();
        let fd = files::open_directory(scratch.path()).expect("the directory was just made");
        (scratch, fd)
    }

    /// A directory that goes with its value.
    mod tempdir {
        use std::path::{Path, PathBuf};
        use std::sync::atomic::{AtomicU32, Ordering};

        pub(super) struct Scratch(PathBuf);

        impl Scratch {
            pub(super) fn new() -> Self {
                static NEXT: AtomicU32 = AtomicU32::new(0);
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let name = format!("berth-log-{}-{number}", std::process::id());
                let path = std::env::temp_dir().join(name);
                std::fs::create_dir(&path).expect("the name is this process's own");
                Self(path)
            }

            pub(super) fn path(&self) -> &Path {
                &self.0
            }
        }

        impl Drop for Scratch {
            fn drop(&mut self) {
                std::fs::remove_dir_all(&self.0).expect("the directory is this test's own");
            }
        }
    }

    fn feed(log: &mut Log, stream: Stream, bytes: &[u8]) {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe can be had");
        for chunk in bytes.chunks(READ_BYTES) {
            write(&writer, chunk).expect("the pipe takes 64 KiB");
            assert_eq!(log.take(stream, reader.as_fd()), Taken::Some(chunk.len()));
        }
    }

    fn contents(scratch: &tempdir::Scratch, number: u64) -> Vec<(String, String, String)> {
        let text = std::fs::read_to_string(scratch.path().join(segment_name(number)))
            .expect("the segment is there");
        assert!(text.is_empty() || text.ends_with('\n'));
        let fields = |line: &str| {
            let mut parts = line.splitn(4, ' ').skip(1).map(str::to_owned);
            let mut next = || parts.next().expect("a record has four fields");
            (next(), next(), next())
        };
        text.lines().map(fields).collect()
    }

    const OPTIONS: LogOptions = LogOptions { file_bytes_max: 64 * 1024, files_max: 3 };

    #[test]
    fn lines_keep_their_stream_and_a_last_one_needs_no_newline() {
        let (scratch, fd) = directory();
        let mut log = Log::open(fd, OPTIONS);
        feed(&mut log, Stream::Stdout, b"one\n\ntw");
        feed(&mut log, Stream::Stderr, b"err\n");
        feed(&mut log, Stream::Stdout, b"o\nrest");
        log.finish(Stream::Stdout);
        let seen = contents(&scratch, 1);
        let seen: Vec<_> =
            seen.iter().map(|r| (r.0.as_str(), r.1.as_str(), r.2.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("stdout", "F", "one"),
                ("stdout", "F", ""),
                ("stderr", "F", "err"),
                ("stdout", "F", "two"),
                ("stdout", "F", "rest"),
            ]
        );
    }

    #[test]
    fn a_long_line_is_split_and_can_be_joined_again() {
        let (scratch, fd) = directory();
        let options = LogOptions { file_bytes_max: 1 << 20, files_max: 1 };
        let mut log = Log::open(fd, options);
        let line: String = (0..40_000_u32).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
        feed(&mut log, Stream::Stdout, format!("{line}\n").as_bytes());
        let seen = contents(&scratch, 1);
        let marks: String = seen.iter().map(|record| record.1.as_str()).collect();
        assert_eq!(marks, "PPF");
        assert!(seen.iter().all(|record| record.2.len() <= CONTENT_BYTES_MAX));
        assert_eq!(seen.into_iter().map(|record| record.2).collect::<String>(), line);
    }

    #[test]
    fn segments_are_bounded_in_size_and_number_and_nothing_is_lost_between() {
        let (scratch, fd) = directory();
        let again = fd.try_clone().expect("a descriptor can be had");
        let mut log = Log::open(fd, OPTIONS);
        let mut text = String::new();
        for number in 0..20_000 {
            text.push_str(&format!("line {number}\n"));
        }
        feed(&mut log, Stream::Stdout, text.as_bytes());
        let numbers = segment_numbers(&again);
        assert_eq!(numbers.len(), 3);
        let mut lines = Vec::new();
        for number in &numbers {
            let path = scratch.path().join(segment_name(*number));
            let size = std::fs::metadata(path).expect("the segment is there").len();
            assert!(size <= OPTIONS.file_bytes_max, "{size}");
            lines.extend(contents(&scratch, *number).into_iter().map(|record| record.2));
        }
        let first: usize = lines[0]["line ".len()..].parse().expect("a number was written");
        let expected: Vec<_> = (first..20_000).map(|number| format!("line {number}")).collect();
        assert_eq!(lines, expected);
        assert_eq!(log.bytes_lost(), 0);
        drop(log);
        let mut log = Log::open(again, OPTIONS);
        feed(&mut log, Stream::Stdout, b"after\n");
        let last = *numbers.last().expect("three were seen");
        assert_eq!(contents(&scratch, last).last().map(|r| r.2.clone()), Some("after".into()));
    }

    #[test]
    fn a_link_in_the_place_of_a_segment_is_passed_by() {
        let (scratch, fd) = directory();
        let victim = scratch.path().join("victim");
        std::fs::write(&victim, "untouched").expect("the directory takes files");
        std::os::unix::fs::symlink(&victim, scratch.path().join("1.log"))
            .expect("the directory takes links");
        let mut log = Log::open(fd, OPTIONS);
        feed(&mut log, Stream::Stdout, b"secret\n");
        assert_eq!(std::fs::read_to_string(&victim).expect("still there"), "untouched");
        assert_eq!(contents(&scratch, 2)[0].2, "secret");
    }

    #[test]
    fn times_are_written_as_rfc_3339_says() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_795_225_332, "2026-11-21T01:42:12.000000007Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000007Z"),
        ] {
            let mut text = String::new();
            time_text(&mut text, seconds, 7);
            assert_eq!(text, expected);
        }
    }
}
