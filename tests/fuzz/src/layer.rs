//! The unpacker's reader of archives, and the listing that a run of it comes to.

#[path = "../../../runtime/src/layer/archive.rs"]
mod archive;
#[path = "../../../runtime/src/layer/fault.rs"]
mod fault;
#[path = "../../../runtime/src/layer/header.rs"]
mod header;
#[path = "../../../runtime/src/layer/pax.rs"]
mod pax;
#[path = "../../../runtime/src/layer/source.rs"]
mod source;

use std::io::Read;

use berth_runtime::digest::Digest;
use berth_runtime::record::Failure;
use berth_runtime::wire::Compression;

use self::archive::{Archive, Kind};
use self::source::{Meter, Source, inflate};

/// A regular file of an archive without holes, or another entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// Its type as a tar header has it, files all as `0`.
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub is_sparse: bool,
    pub content: Vec<u8>,
}

/// All entries, and the digest of the inflated stream.
pub(crate) fn list(
    bytes: impl Read,
    compression: Compression,
    bytes_max: u64,
) -> Result<(Vec<Listed>, Digest), Failure> {
    let meter = Meter::new(false);
    let inflated =
        inflate(bytes, compression, &meter).map_err(|error| fault::broken(error.to_string()))?;
    let mut archive = Archive::new(Source::new(inflated, bytes_max, meter));
    let mut listed = Vec::new();
    while let Some(entry) = archive.next()? {
        let mut wanted = match &entry.segments {
            None => entry.size,
            Some(segments) => segments.iter().map(|segment| segment.length).sum(),
        };
        let mut content = Vec::new();
        while entry.kind == Kind::File && wanted > 0 {
            let piece = archive.data(wanted)?;
            let count = piece.len();
            assert!(count > 0 && count as u64 <= wanted, "a piece of what was asked for");
            content.extend_from_slice(piece);
            archive.consume(count);
            wanted -= count as u64;
        }
        let kind = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Device => b'3',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        let is_sparse = entry.segments.is_some();
        let (path, link) = (entry.path, entry.link);
        let (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
        listed.push(Listed { path, link, kind, mode, uid, gid, is_sparse, content });
    }
    Ok((listed, archive.finish()))
}
