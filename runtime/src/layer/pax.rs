//! What PAX headers and GNU long names say of the entry that follows them (POSIX.1-2001, pax).

use berth_runtime::record::Failure;

use super::archive::{SEGMENTS_MAX, Segment};
use super::fault::{invalid, too_large};
use super::header::text;

/// Extended attributes of one entry at most.
const XATTRS_MAX: usize = 256;

/// Everything that overrides the next header.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pax_seen: bool,
    pax_path: Option<Vec<u8>>,
    pax_link: Option<Vec<u8>>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, i64)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
}

/// GNU's sparse keys (tar manual, "Storing Sparse Files").
#[derive(Debug, Default)]
pub(super) struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    name: Option<Vec<u8>>,
    offsets: Vec<u64>,
    lengths: Vec<u64>,
    listed: bool,
}

impl Extensions {
    /// Merges the records of one `x` header.
    pub(super) fn add_pax(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.pax_seen {
            return Err(invalid("an entry has two PAX headers"));
        }
        self.pax_seen = true;
        for record in records(bytes) {
            let (key, value) = record?;
            self.set(key, value)?;
        }
        Ok(())
    }

    /// The time that a `g` header gives every entry after it. Readers disagree on all else that it
    /// could say of entries.
    pub(super) fn global_time(bytes: &[u8]) -> Result<Option<(i64, i64)>, Failure> {
        let mut mtime = None;
        for record in records(bytes) {
            match record? {
                (b"mtime", value) => mtime = Some(time(value)?),
                (b"comment" | b"charset" | b"atime" | b"ctime", _) => {}
                (key, _) => {
                    let key = super::fault::shown(key);
                    return Err(invalid(format!("a global PAX header sets {key} for every entry")));
                }
            }
        }
        Ok(mtime)
    }

    pub(super) fn set_long_path(&mut self, bytes: Vec<u8>) -> Result<(), Failure> {
        set_once(&mut self.long_path, ended(&bytes)?, "two long names")
    }

    pub(super) fn set_long_link(&mut self, bytes: Vec<u8>) -> Result<(), Failure> {
        set_once(&mut self.long_link, ended(&bytes)?, "two long link targets")
    }

    /// The entry's name; `header` is the short one.
    pub(super) fn path(&self, header: &[u8]) -> Result<Vec<u8>, Failure> {
        let sparse_name = self.sparse.as_ref().and_then(|sparse| sparse.name.clone());
        if sparse_name.is_some() && self.long_path.is_some() {
            return Err(invalid("an entry's PAX header and GNU long name differ"));
        }
        let pax = sparse_name.or_else(|| self.pax_path.clone());
        one_of(pax, self.long_path.clone(), header)
    }

    /// The entry's link target.
    pub(super) fn link(&self, header: &[u8]) -> Result<Vec<u8>, Failure> {
        one_of(self.pax_link.clone(), self.long_link.clone(), header)
    }

    /// At the end of the archive nothing may be waiting for its entry.
    pub(super) fn must_be_unused(&self) -> Result<(), Failure> {
        if self.pax_seen || self.long_path.is_some() || self.long_link.is_some() {
            return Err(invalid("the archive ends after an extended header"));
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        match key {
            b"path" => self.pax_path = Some(filled(value, "path")?.to_vec()),
            b"linkpath" => self.pax_link = Some(filled(value, "linkpath")?.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.add_xattr(name, value)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().set(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn add_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failure> {
        if name.is_empty() || name.contains(&0) || self.xattrs.len() >= XATTRS_MAX {
            return Err(invalid("an entry has a bad or too many extended attributes"));
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"name" => self.name = Some(filled(value, "GNU.sparse.name")?.to_vec()),
            b"offset" => self.push(true, decimal(value)?)?,
            b"numbytes" => self.push(false, decimal(value)?)?,
            b"map" => {
                for (position, part) in value.split(|&byte| byte == b',').enumerate() {
                    self.push(position % 2 == 0, decimal(part)?)?;
                }
            }
            b"numblocks" => self.listed = true,
            _ => return Err(invalid("an entry has an unknown GNU.sparse key")),
        }
        Ok(())
    }

    fn push(&mut self, is_offset: bool, number: u64) -> Result<(), Failure> {
        self.listed = true;
        let list = if is_offset { &mut self.offsets } else { &mut self.lengths };
        if list.len() >= SEGMENTS_MAX {
            return Err(too_large("a sparse file has too many segments"));
        }
        list.push(number);
        Ok(())
    }

    /// The file's size, holes included.
    pub(super) fn size(&self) -> Result<u64, Failure> {
        self.size.ok_or_else(|| invalid("a sparse file has no size"))
    }

    /// The map of forms 0.0 and 0.1, or `None` for 1.0, whose map is stored before the data.
    pub(super) fn inline_map(&self) -> Result<Option<Vec<Segment>>, Failure> {
        match (self.major, self.minor, self.listed) {
            (Some(1), Some(0), false) => return Ok(None),
            (None | Some(0), _, true) if self.offsets.len() == self.lengths.len() => {}
            _ => return Err(invalid("a sparse file has a form that is not known")),
        }
        let pairs = self.offsets.iter().zip(&self.lengths);
        Ok(Some(pairs.map(|(&offset, &length)| Segment { offset, length }).collect()))
    }
}

/// The records of a PAX header: `length key=value\n`, the length counting itself.
fn records(bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Failure>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = record(rest);
        rest = found.as_ref().map_or(&[], |(_, _, length)| &rest[*length..]);
        Some(found.map(|(key, value, _)| (key, value)))
    })
}

fn record(bytes: &[u8]) -> Result<(&[u8], &[u8], usize), Failure> {
    let bad = || invalid("a PAX header has a malformed record");
    let blank = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or_else(bad)?;
    let length = usize::try_from(decimal(&bytes[..blank])?).map_err(|_| bad())?;
    let body = bytes.get(blank + 1..length).ok_or_else(bad)?;
    let body = body.strip_suffix(b"\n").ok_or_else(bad)?;
    let equals = body.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
    // GNU tar drops blanks before a key, others take them for a part of it.
    if equals == 0 || body[0].is_ascii_whitespace() {
        return Err(bad());
    }
    Ok((&body[..equals], &body[equals + 1..], length))
}

/// A GNU long name up to its NUL. Some readers end it at the first, and some at the last.
fn ended(bytes: &[u8]) -> Result<&[u8], Failure> {
    let name = filled(text(bytes), "long name")?;
    match bytes[name.len()..].iter().all(|&byte| byte == 0) {
        true => Ok(name),
        false => Err(invalid("a long name goes on behind its end")),
    }
}

fn set_once(place: &mut Option<Vec<u8>>, value: &[u8], what: &str) -> Result<(), Failure> {
    if place.is_some() {
        return Err(invalid(format!("an entry has {what}")));
    }
    *place = Some(value.to_vec());
    Ok(())
}

/// PAX and GNU extensions may say the same; when they differ, readers do too.
fn one_of(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, header: &[u8]) -> Result<Vec<u8>, Failure> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(invalid("an entry's PAX header and GNU long name differ"))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Ok(header.to_vec()),
    }
}

/// An empty value would delete the key for some readers and be the value for others.
fn filled<'a>(value: &'a [u8], key: &str) -> Result<&'a [u8], Failure> {
    if value.is_empty() {
        return Err(invalid(format!("an extended header has an empty {key:?}")));
    }
    Ok(value)
}

/// Decimal digits only: no sign, blank or underscore.
pub(super) fn decimal(value: &[u8]) -> Result<u64, Failure> {
    let bad = || invalid("a PAX header holds a number that is none");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    match text.parse::<u64>() {
        Ok(number) if i64::try_from(number).is_ok() => Ok(number),
        _ => Err(bad()),
    }
}

/// `[-]seconds[.fraction]`.
fn time(value: &[u8]) -> Result<(i64, i64), Failure> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let whole = decimal(parts.next().unwrap_or_default())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(invalid("a PAX header holds a time that is none"));
    }
    let mut nanos: i64 = 0;
    for position in 0..9 {
        let digit = fraction.get(position).map_or(0, |digit| i64::from(digit - b'0'));
        nanos = nanos * 10 + digit;
    }
    let whole = i64::try_from(whole).map_err(|_| invalid("a time is out of range"))?;
    Ok(match (negative, nanos) {
        (false, nanos) => (whole, nanos),
        (true, 0) => (-whole, 0),
        (true, nanos) => (-whole - 1, 1_000_000_000 - nanos),
    })
}
