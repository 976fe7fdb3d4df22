//! Reads tar archives (ustar, PAX, GNU), entry by entry, from untrusted bytes.
//!
//! One rule decides the odd cases: where readers in use disagree on what an archive says (which size
//! counts, whose name wins), it is refused, so that no two tools can be shown different contents.
//! Ours because sparse files in all four forms are kept sparse, and because the header rules are a
//! security boundary. Nothing here touches the disk.

use std::io::Read;

use berth_runtime::digest::Digest;
use berth_runtime::record::Failure;

use super::fault::{invalid, shown, too_large};
use super::header::{BLOCK_BYTES, Block, Header};
use super::pax::Extensions;
use super::source::Source;

/// One PAX header or GNU long name at most.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Zeros after the end marker at most (tar pads to its record size).
const TRAILER_BYTES_MAX: u64 = 16 << 20;
/// Data segments of a sparse file at most.
pub(super) const SEGMENTS_MAX: usize = 65_536;
/// Bytes of a path at most (`PATH_MAX`).
const PATH_BYTES_MAX: usize = 4_096;

/// One entry, its headers merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits, setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, i64),
    /// The file's size, holes included.
    pub(super) size: u64,
    /// Where the stored bytes belong; `None` for a file without holes.
    pub(super) segments: Option<Vec<Segment>>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    Device,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The archive, positioned at an entry's data or between entries.
pub(super) struct Archive<R> {
    source: Source<R>,
    /// Bytes of the current entry's data not yet taken.
    stored: u64,
    /// Zeros that fill its last block.
    padding: u64,
    entries_seen: bool,
    /// What the newest global header gives every entry after it.
    mtime: Option<(i64, i64)>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(source: Source<R>) -> Self {
        Self { source, stored: 0, padding: 0, entries_seen: false, mtime: None }
    }

    /// The next entry, or `None` at the end, which has then been read to the last byte.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        self.source.skip(self.stored)?;
        self.source.skip(self.padding)?;
        (self.stored, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        loop {
            let mut block: Block = [0; BLOCK_BYTES];
            let more = self.source.read_exact(&mut block)?;
            if !more && !self.entries_seen {
                return Err(invalid("the layer is empty: not even an archive's end marker"));
            }
            if !more || block.iter().all(|&byte| byte == 0) {
                extensions.must_be_unused()?;
                self.read_trailer()?;
                return Ok(None);
            }
            self.entries_seen = true;
            let header = Header::parse(&block)?;
            match header.type_byte {
                b'x' => extensions.add_pax(&self.extension(&header)?)?,
                b'g' => {
                    let said = Extensions::global_time(&self.extension(&header)?)?;
                    self.mtime = said.or(self.mtime);
                }
                b'L' => extensions.set_long_path(self.extension(&header)?)?,
                b'K' => extensions.set_long_link(self.extension(&header)?)?,
                _ => return self.entry(&block, &header, extensions).map(Some),
            }
        }
    }

    /// The next bytes of the current entry's data, as many as are at hand, `count` at most.
    pub(super) fn data(&mut self, count: u64) -> Result<&[u8], Failure> {
        let count = usize::try_from(count.min(self.stored)).unwrap_or(usize::MAX);
        let at_hand = self.source.fill()?;
        if at_hand.is_empty() {
            return Err(invalid("the archive ends in the middle of a file"));
        }
        Ok(&at_hand[..count.min(at_hand.len())])
    }

    /// Drops `count` bytes of what [`Archive::data`] has shown.
    pub(super) fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.stored = self.stored.saturating_sub(count as u64);
    }

    /// The digest of the whole stream; called after [`Archive::next`] has said `None`.
    pub(super) fn finish(self) -> Digest {
        self.source.finish()
    }

    /// After the end marker only zeros may come: other readers would go on, or stop, there.
    fn read_trailer(&mut self) -> Result<(), Failure> {
        let mut read: u64 = 0;
        loop {
            let at_hand = self.source.fill()?;
            if at_hand.is_empty() {
                return Ok(());
            }
            if at_hand.iter().any(|&byte| byte != 0) {
                return Err(invalid("there are bytes after the archive's end marker"));
            }
            let count = at_hand.len();
            read += count as u64;
            if read > TRAILER_BYTES_MAX {
                return Err(too_large("there are too many zeros after the archive's end marker"));
            }
            self.source.consume(count);
        }
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Failure> {
        if header.size > EXTENSION_BYTES_MAX {
            return Err(too_large("an extended header is larger than 1 MiB"));
        }
        let mut bytes = vec![0; usize::try_from(header.size).unwrap_or(0)];
        if !bytes.is_empty() && !self.source.read_exact(&mut bytes)? {
            return Err(invalid("the archive ends in the middle of an extended header"));
        }
        self.source.skip(padding_of(header.size))?;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        block: &Block,
        header: &Header,
        extensions: Extensions,
    ) -> Result<Entry, Failure> {
        let path = extensions.path(&header.path)?;
        let link = extensions.link(&header.link)?;
        check_name(&path, "name")?;
        check_name(&link, "link target")?;
        let kind = kind_of(header, &path)?;
        let has_data = kind == Kind::File;
        check_size(header, &extensions, kind, &path)?;
        self.stored = if has_data { extensions.size.unwrap_or(header.size) } else { 0 };
        self.padding = padding_of(self.stored);
        let mut entry = Entry {
            path,
            link,
            kind,
            mode: header.mode,
            uid: extensions.uid.unwrap_or(header.uid),
            gid: extensions.gid.unwrap_or(header.gid),
            mtime: extensions.mtime.or(self.mtime).unwrap_or((header.mtime, 0)),
            size: self.stored,
            segments: None,
            xattrs: extensions.xattrs,
        };
        if header.type_byte == b'S' {
            self.old_sparse_map(block, &mut entry)?;
        } else if let Some(sparse) = extensions.sparse {
            if !has_data {
                return Err(invalid(format!("{} is sparse but no file", shown(&entry.path))));
            }
            entry.size = sparse.size()?;
            entry.segments = Some(match sparse.inline_map()? {
                Some(map) => map,
                None => self.stored_sparse_map()?,
            });
        }
        check_segments(&entry, self.stored)?;
        Ok(entry)
    }

    /// GNU's old form: four descriptors in the header, then blocks of 21.
    fn old_sparse_map(&mut self, block: &Block, entry: &mut Entry) -> Result<(), Failure> {
        let mut map = Vec::new();
        super::header::old_sparse_descriptors(&block[386..482], &mut map)?;
        entry.size = super::header::unsigned(&block[483..495], "the real size")?;
        let mut extended = block[482] != 0;
        while extended {
            let mut more: Block = [0; BLOCK_BYTES];
            if !self.source.read_exact(&mut more)? {
                return Err(invalid("the archive ends in the middle of a sparse map"));
            }
            super::header::old_sparse_descriptors(&more[..504], &mut map)?;
            extended = more[504] != 0;
        }
        entry.segments = Some(map);
        Ok(())
    }

    /// PAX sparse 1.0: the map is decimal lines at the start of the data, padded to a block.
    fn stored_sparse_map(&mut self) -> Result<Vec<Segment>, Failure> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = None;
        let mut line: Vec<u8> = Vec::new();
        loop {
            let mut block: Block = [0; BLOCK_BYTES];
            if self.stored < BLOCK_BYTES as u64 || !self.source.read_exact(&mut block)? {
                return Err(invalid("a sparse map is cut off"));
            }
            self.stored -= BLOCK_BYTES as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(invalid("a sparse map holds a line that is no number"));
                    }
                    continue;
                }
                let number = super::pax::decimal(&line)?;
                line.clear();
                match wanted {
                    None if number > SEGMENTS_MAX as u64 => {
                        return Err(too_large("a sparse file has too many segments"));
                    }
                    None => wanted = Some(number * 2),
                    Some(_) => numbers.push(number),
                }
                if wanted.is_some_and(|wanted| numbers.len() as u64 >= wanted) {
                    return Ok(numbers
                        .chunks_exact(2)
                        .map(|pair| Segment { offset: pair[0], length: pair[1] })
                        .collect());
                }
            }
        }
    }
}

fn padding_of(size: u64) -> u64 {
    (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64
}

fn check_name(name: &[u8], what: &str) -> Result<(), Failure> {
    if name.len() >= PATH_BYTES_MAX {
        return Err(invalid(format!("an entry's {what} is longer than {PATH_BYTES_MAX} bytes")));
    }
    if name.contains(&0) {
        return Err(invalid(format!("an entry's {what} holds a NUL byte")));
    }
    Ok(())
}

fn kind_of(header: &Header, path: &[u8]) -> Result<Kind, Failure> {
    Ok(match header.type_byte {
        // V7 marks a directory by its name's last slash. With a longer name in an extension, some
        // readers look at the one and some at the other.
        0 if header.path.ends_with(b"/") != path.ends_with(b"/") => {
            return Err(invalid(format!("{} may be a file or a directory", shown(path))));
        }
        0 if path.ends_with(b"/") => Kind::Directory,
        // GNU tar makes a directory of it, others a file.
        b'0' | b'7' | b'S' if path.ends_with(b"/") => {
            return Err(invalid(format!("{} may be a file or a directory", shown(path))));
        }
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            let kind = char::from(other);
            return Err(invalid(format!("{} has the unknown type {kind:?}", shown(path))));
        }
    })
}

/// Of what has no data some readers skip as much as its size says, and others nothing. All take a
/// directory to have none, and a hard link whose header says otherwise.
fn check_size(
    header: &Header,
    extensions: &Extensions,
    kind: Kind,
    path: &[u8],
) -> Result<(), Failure> {
    let said = match kind {
        Kind::File | Kind::Directory => 0,
        Kind::HardLink => extensions.size.unwrap_or(0),
        Kind::Symlink | Kind::Fifo | Kind::Device => extensions.size.unwrap_or(header.size),
    };
    if said == 0 {
        return Ok(());
    }
    Err(invalid(format!("{} has a size, but is no file", shown(path))))
}

/// Segments ascend without overlap, end within the file, and account for every stored byte.
fn check_segments(entry: &Entry, stored: u64) -> Result<(), Failure> {
    let Some(segments) = &entry.segments else { return Ok(()) };
    let mut end: u64 = 0;
    let mut sum: u64 = 0;
    for segment in segments {
        let next = segment.offset.checked_add(segment.length);
        match next {
            Some(next) if segment.offset >= end && next <= entry.size => end = next,
            _ => return Err(invalid(format!("{}: bad sparse map", shown(&entry.path)))),
        }
        sum = sum.saturating_add(segment.length);
    }
    if sum != stored {
        return Err(invalid(format!("{}: sparse map and data differ", shown(&entry.path))));
    }
    Ok(())
}
