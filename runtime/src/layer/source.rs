//! The inflated byte stream of a layer: hashed (its diff_id) and counted as it passes.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::time::Instant;

use berth_runtime::digest::Digest;
use berth_runtime::record::Failure;
use berth_runtime::wire::Compression;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::fault::{invalid, too_large};

/// Bytes read from the pipe, and handed on, at a time.
const BUFFER_BYTES: usize = 256 * 1024;
/// zstd's window is at most 1 << 27 bytes = 128 MiB (RFC 8878, 3.1.1.1.2, as other engines allow).
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The inflated stream.
pub(super) struct Source<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hash: Sha256,
    read_bytes: u64,
    bytes_max: u64,
    meter: Meter,
}

/// Where the time of a stream goes, when that is asked for; for a line in the journal only.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Times {
    /// Waiting for the next bytes, which others fetch and hash.
    pub(super) wait_micros: u64,
    /// Inflating.
    pub(super) inflate_micros: u64,
    /// Hashing what was inflated.
    pub(super) hash_micros: u64,
}

/// Adds up the parts of [`Times`]; shared by the two ends of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    on: bool,
    times: Rc<Cell<Times>>,
}

impl Meter {
    pub(super) fn new(on: bool) -> Self {
        Self { on, times: Rc::default() }
    }

    pub(super) fn times(&self) -> Times {
        self.times.get()
    }

    fn measure<T>(&self, work: impl FnOnce() -> T, add: impl FnOnce(&mut Times, u64)) -> T {
        if !self.on {
            return work();
        }
        let begun = Instant::now();
        let result = work();
        let mut times = self.times.get();
        add(&mut times, u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        self.times.set(times);
        result
    }
}

/// The input, with the waiting for it measured.
struct Metered<R> {
    input: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let input = &mut self.input;
        self.meter.measure(|| input.read(buffer), |times, took| times.wait_micros += took)
    }
}

/// Undoes `compression`. Several gzip members or zstd frames are one stream (RFC 1952, 2.2); bytes
/// after the last that are neither are an error of the returned reader.
pub(super) fn inflate<'a>(
    input: impl Read + 'a,
    compression: Compression,
    meter: &Meter,
) -> io::Result<Box<dyn Read + 'a>> {
    let input = Metered { input, meter: meter.clone() };
    let input = BufReader::with_capacity(BUFFER_BYTES, input);
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd_decoder(input)?),
    })
}

fn zstd_decoder<B: BufRead>(input: B) -> io::Result<zstd::stream::read::Decoder<'static, B>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

impl<R: Read> Source<R> {
    /// A stream that fails after `bytes_max` bytes.
    pub(super) fn new(inner: R, bytes_max: u64, meter: Meter) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let hash = Sha256::new();
        Self { inner, buffer, start: 0, end: 0, hash, read_bytes: 0, bytes_max, meter }
    }

    /// What is at hand, at least one byte; empty at the end.
    pub(super) fn fill(&mut self) -> Result<&[u8], Failure> {
        while self.start == self.end {
            let (inner, buffer) = (&mut self.inner, &mut self.buffer);
            let read = || inner.read(buffer);
            // The waiting is measured inside of this.
            let count = match self.meter.measure(read, |times, took| times.inflate_micros += took) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(invalid(format!("inflate the layer: {error}"))),
            };
            if count == 0 {
                return Ok(&[]);
            }
            let (hash, bytes) = (&mut self.hash, &self.buffer[..count]);
            self.meter.measure(|| hash.update(bytes), |times, took| times.hash_micros += took);
            self.read_bytes = self.read_bytes.saturating_add(count as u64);
            if self.read_bytes > self.bytes_max {
                let max = self.bytes_max;
                return Err(too_large(format!("the layer inflates to more than {max} bytes")));
            }
            (self.start, self.end) = (0, count);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Drops `count` bytes of what [`Source::fill`] has shown.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Fills `out`; `false` when the stream has ended before its first byte.
    pub(super) fn read_exact(&mut self, out: &mut [u8]) -> Result<bool, Failure> {
        let mut done = 0;
        while done < out.len() {
            let at_hand = self.fill()?;
            if at_hand.is_empty() {
                if done == 0 {
                    return Ok(false);
                }
                return Err(invalid("the archive ends in the middle of an entry"));
            }
            let count = at_hand.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&at_hand[..count]);
            self.consume(count);
            done += count;
        }
        Ok(true)
    }

    /// Skips exactly `count` bytes.
    pub(super) fn skip(&mut self, mut count: u64) -> Result<(), Failure> {
        while count > 0 {
            let at_hand = self.fill()?.len();
            if at_hand == 0 {
                return Err(invalid("the archive ends in the middle of an entry"));
            }
            let step = count.min(at_hand as u64);
            self.consume(usize::try_from(step).unwrap_or(at_hand));
            count -= step;
        }
        Ok(())
    }

    /// The digest of everything that was read; called at the end of the stream.
    pub(super) fn finish(self) -> Digest {
        Digest::from_hash(&self.hash.finalize().into())
    }
}
