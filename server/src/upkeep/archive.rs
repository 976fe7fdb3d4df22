//! The form of a backup: a tar archive, gzip'd, that any tar can list.
//!
//! `manifest.json` comes first and says of every part its size and SHA-256; the parts follow in its order.
//! Behind the archive stands its seal: an empty member of gzip's with the SHA-256 of all bytes before it in
//! an extra field (RFC 1952, 2.3.1.1), which other readers pass over. A reader is given a part only as bytes
//! to be put aside, and believes none of it before it has seen the seal and that nothing follows: one byte
//! less, more or other is a refusal.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

/// The form that this program writes and reads.
pub(super) const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// The inventory, its files beside it, the supervisor's record, the configuration, and blobs.
const PARTS_MAX: usize = 200_000;
/// gzip's header as it is written here (RFC 1952, 2.3): no name, no time, fastest, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
/// The seal before its hash: a header with an extra field of 36 bytes, of which the subfield `BH` has 32.
const SEAL_HEADER: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 4, 255, 36, 0, b'B', b'H', 32, 0];
/// And behind it: nothing, deflated; its checksum and length.
const SEAL_END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What the archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Its form.
    pub(super) format: u32,
    /// The program that made it.
    pub(super) version: String,
    /// The inventory's newest migration.
    pub(super) schema: i64,
    /// When, RFC 3339.
    pub(super) made_at: String,
    /// The instance's name.
    pub(super) instance: String,
    /// Whether the images' blobs are in it.
    pub(super) with_images: bool,
    /// What is in it, in this order.
    pub(super) parts: Vec<Part>,
}

/// One file in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// Its path from the data directory; the configuration's is [`super::CONFIG`].
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256 in hexadecimal digits.
    pub(super) sha256: String,
}

impl Part {
    /// Of bytes that are read to their end.
    pub(super) fn of(name: impl Into<String>, mut bytes: impl Read) -> io::Result<Self> {
        let mut hash = Hashing::new(io::sink());
        let bytes = io::copy(&mut bytes, &mut hash)?;
        Ok(Self { name: name.into(), bytes, sha256: hex(&hash.finish().1) })
    }
}

/// Writes the archive; `open` gives each part's bytes, which must still be what the manifest says.
pub(super) fn write<W: Write>(
    out: W,
    manifest: &Manifest,
    mut open: impl FnMut(&Part) -> Result<Box<dyn Read>>,
) -> Result<W> {
    let text = serde_json::to_vec_pretty(manifest).context("write the manifest")?;
    let mut tar = Builder::new(GzEncoder::new(Hashing::new(out), Compression::fast()));
    let written = "write the archive";
    tar.append(&header(MANIFEST, text.len() as u64)?, text.as_slice()).context(written)?;
    for part in &manifest.parts {
        let mut bytes = Hashing::new(open(part)?.take(part.bytes));
        tar.append(&header(&part.name, part.bytes)?, &mut bytes).context(written)?;
        let sha256 = hex(&bytes.finish().1);
        ensure!(
            sha256 == part.sha256,
            "{} is damaged, or was changed while it was copied: its SHA-256 is {sha256}, not {}",
            part.name,
            part.sha256
        );
    }
    let gzip = tar.into_inner().context(written)?.finish().context(written)?;
    let (mut out, hash) = gzip.finish();
    out.write_all(&seal(&hash)).context(written)?;
    Ok(out)
}

/// Reads the archive to its end. `look` sees the manifest first and may refuse it; `place` says where each
/// part's bytes go, none of which may be used unless this returns.
pub(super) fn read<W: Write>(
    input: impl BufRead,
    look: impl FnOnce(&Manifest) -> Result<()>,
    mut place: impl FnMut(&Part) -> Result<W>,
) -> Result<Manifest> {
    let mut input = Consumed { inner: input, hash: Sha256::new() };
    let mut start = [0; GZIP_HEADER.len()];
    ensure!(
        input.read_exact(&mut start).is_ok() && start == GZIP_HEADER,
        "it is no backup of Berth's, or its first bytes are damaged"
    );
    let mut archive = Archive::new(GzDecoder::new(start.as_slice().chain(input)));
    let damaged = "it is damaged or cut short";
    let mut entries = archive.entries().context(damaged)?.raw(true);
    let mut next = |name: &str| -> Result<_> {
        let entry = entries.next().with_context(|| format!("it ends before {name}"))?;
        let entry = entry.context(damaged)?;
        let header = entry.header();
        ensure!(
            header.entry_type() == EntryType::Regular && *entry.path_bytes() == *name.as_bytes(),
            "it is damaged: {name} is not where it should be"
        );
        let bytes = header.size().context(damaged)?;
        Ok((entry, bytes))
    };
    let (entry, _) = next(MANIFEST)?;
    let mut text = Vec::new();
    entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).context(damaged)?;
    let manifest = parse(&text)?;
    look(&manifest)?;
    for part in &manifest.parts {
        let (mut entry, bytes) = next(&part.name)?;
        ensure!(bytes == part.bytes, "it is damaged: {} has {bytes} bytes", part.name);
        let mut to = Hashing::new(place(part)?);
        io::copy(&mut entry, &mut to).with_context(|| format!("take {} out of it", part.name))?;
        let (mut to, sha256) = to.finish();
        to.flush().with_context(|| format!("take {} out of it", part.name))?;
        ensure!(hex(&sha256) == part.sha256, "{} in it is damaged", part.name);
    }
    ensure!(entries.next().is_none(), "there is more in it than its manifest says");
    let mut gzip = archive.into_inner();
    // What is left is tar's padding; behind it gzip's own checksum.
    let left = io::copy(&mut (&mut gzip).take(1 << 20), &mut io::sink()).context(damaged)?;
    ensure!(left < 1 << 20, "there is more in it than its manifest says");
    let (_, Consumed { mut inner, hash }) = gzip.into_inner().into_inner();
    let expected = seal(&hash.finalize().into());
    let mut found = vec![0; expected.len()];
    ensure!(inner.read_exact(&mut found).is_ok() && found == expected, "{damaged}");
    ensure!(inner.fill_buf().context(damaged)?.is_empty(), "there is something behind its end");
    Ok(manifest)
}

/// What stands behind an archive whose bytes have this hash.
fn seal(hash: &[u8; 32]) -> Vec<u8> {
    [&SEAL_HEADER[..], hash, &SEAL_END].concat()
}

/// The manifest, if this program can read such an archive.
fn parse(text: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
        version: String,
    }
    let form: Form = serde_json::from_slice(text).context("its manifest is damaged")?;
    if form.format != FORMAT {
        bail!(
            "its form is {}, of version {}; this program reads {FORMAT}: use that version's program",
            form.format,
            form.version
        );
    }
    let manifest: Manifest = serde_json::from_slice(text).context("its manifest is damaged")?;
    ensure!(manifest.parts.len() <= PARTS_MAX, "it has more than {PARTS_MAX} parts");
    let names: BTreeSet<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
    ensure!(names.len() == manifest.parts.len(), "its manifest names a part twice");
    Ok(manifest)
}

fn header(name: &str, bytes: u64) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name).with_context(|| format!("name {name} in the archive"))?;
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// Hashes what passes through, in either direction.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn finish(self) -> (T, [u8; 32]) {
        (self.inner, self.hash.finalize().into())
    }
}

/// Hashes what is consumed of a buffered reader, and not what is only looked at.
struct Consumed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: BufRead> BufRead for Consumed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What is consumed has been looked at: it is in the buffer, and this reads nothing.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hash.update(&bytes[..count.min(bytes.len())]);
        }
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for Consumed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (Vec<u8>, Vec<Vec<u8>>) {
        let bytes = vec![vec![7; 5000], b"short".to_vec(), Vec::new()];
        let part = |(index, bytes): (usize, &Vec<u8>)| {
            Part::of(format!("db/part-{index}"), bytes.as_slice()).expect("in memory")
        };
        let manifest = Manifest {
            format: FORMAT,
            version: "1.2.3".into(),
            schema: 9,
            made_at: "2026-01-01T00:00:00.000Z".into(),
            instance: "berth".into(),
            with_images: false,
            parts: bytes.iter().enumerate().map(part).collect(),
        };
        let mut number = 0;
        let source = bytes.clone();
        let written = write(Vec::new(), &manifest, |_| {
            number += 1;
            Ok(Box::new(io::Cursor::new(source[number - 1].clone())))
        });
        (written.expect("written"), bytes)
    }

    fn read_all(bytes: &[u8]) -> Result<usize> {
        let manifest = read(bytes, |_| Ok(()), |_| Ok(io::sink()))?;
        Ok(manifest.parts.len())
    }

    #[test]
    fn what_was_written_is_read_and_any_other_byte_is_refused() {
        let (good, parts) = made();
        assert_eq!(good[..GZIP_HEADER.len()], GZIP_HEADER);
        assert_eq!(read_all(&good).expect("whole"), parts.len());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read_all(&bad).is_err(), "byte {at} of {}", good.len());
            assert!(read_all(&good[..at]).is_err(), "cut after {at} of {}", good.len());
        }
        assert!(read_all(&[good.as_slice(), b"x"].concat()).is_err(), "something behind it");
        assert!(read_all(&[good.clone(), good].concat()).is_err(), "another behind it");
    }

    #[test]
    fn the_seal_is_nothing_to_whoever_only_inflates() {
        let (mut inflated, whole) = (Vec::new(), made().0);
        let mut members = flate2::read::MultiGzDecoder::new(whole.as_slice());
        members.read_to_end(&mut inflated).expect("two members");
        assert!(inflated.len().is_multiple_of(512), "an archive and no more");
    }

    #[test]
    fn a_part_that_changes_while_it_is_copied_is_refused() {
        let part = Part::of("db/berth.db", b"before".as_slice()).expect("in memory");
        let manifest = Manifest {
            format: FORMAT,
            version: String::new(),
            schema: 1,
            made_at: String::new(),
            instance: String::new(),
            with_images: false,
            parts: vec![part],
        };
        let source = |text: &'static [u8]| move |_: &Part| Ok(Box::new(text) as Box<dyn Read>);
        assert!(write(Vec::new(), &manifest, source(b"before")).is_ok());
        assert!(write(Vec::new(), &manifest, source(b"behind")).is_err());
    }

    #[test]
    fn a_form_that_is_not_known_names_the_version_that_made_it() {
        let text = br#"{"format": 2, "version": "9.0.0", "what": "else"}"#;
        let error = parse(text).expect_err("not this program's").to_string();
        assert!(error.contains("9.0.0"), "{error}");
    }
}
