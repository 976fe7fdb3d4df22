//! One 512-byte tar header block (POSIX.1-1988 ustar and GNU), fields checked.

use berth_runtime::record::Failure;

use super::archive::{SEGMENTS_MAX, Segment};
use super::fault::{invalid, too_large};

pub(super) const BLOCK_BYTES: usize = 512;
pub(super) type Block = [u8; BLOCK_BYTES];

/// The fields of a header that matter.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) type_byte: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
}

impl Header {
    pub(super) fn parse(block: &Block) -> Result<Self, Failure> {
        check_sum(block)?;
        let type_byte = block[156];
        let mut path = text(&block[..100]).to_vec();
        let prefix = text(&block[345..500]);
        let posix = &block[257..263] == b"ustar\0";
        if posix && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        } else if !posix && type_byte != b'S' && !prefix.is_empty() {
            // GNU's incremental dumps keep times here; some readers take them for a name.
            return Err(invalid("a header that is not POSIX has bytes in the prefix field"));
        }
        // Some readers take extensions for files where the format is not one that has them.
        let known = match &block[257..265] {
            b"ustar\x0000" => !matches!(type_byte, b'S'),
            b"ustar  \0" => true,
            _ => !matches!(type_byte, b'x' | b'g' | b'L' | b'K' | b'S'),
        };
        if !known {
            let kind = char::from(type_byte);
            return Err(invalid(format!("a header of the type {kind:?} is not in its own format")));
        }
        let mode = unsigned(&block[100..108], "the mode")? & 0o7777;
        Ok(Self {
            path,
            link: text(&block[157..257]).to_vec(),
            type_byte,
            mode: u32::try_from(mode).unwrap_or(0),
            uid: unsigned(&block[108..116], "the user id")?,
            gid: unsigned(&block[116..124], "the group id")?,
            size: unsigned(&block[124..136], "the size")?,
            mtime: number(&block[136..148], "the time")?,
        })
    }
}

/// The header's sum, taken with blanks for its own field; some writers sum signed bytes.
fn check_sum(block: &Block) -> Result<(), Failure> {
    let said = number(&block[148..156], "the checksum")?;
    let (mut unsigned_sum, mut signed_sum) = (0i64, 0i64);
    for (position, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&position) { b' ' } else { byte };
        unsigned_sum += i64::from(byte);
        signed_sum += i64::from(byte.cast_signed());
    }
    if said == unsigned_sum || said == signed_sum {
        return Ok(());
    }
    Err(invalid("a header's checksum is wrong, or this is no tar archive"))
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number that cannot be negative.
pub(super) fn unsigned(field: &[u8], what: &str) -> Result<u64, Failure> {
    u64::try_from(number(field, what)?).map_err(|_| invalid(format!("{what} is negative")))
}

/// Octal digits, or base 256 when the first byte is 0x80 (positive) or 0xff (negative).
fn number(field: &[u8], what: &str) -> Result<i64, Failure> {
    if matches!(field.first(), Some(0x80 | 0xff)) {
        let mut value: i128 = if field[0] == 0xff { -1 } else { 0 };
        for &byte in &field[1..] {
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| invalid(format!("{what} is out of range")));
    }
    let digits = text(field);
    let rest = &field[digits.len()..];
    let digits = digits.trim_ascii();
    let clean = rest.iter().all(|&byte| byte == 0 || byte == b' ');
    if !clean || !digits.iter().all(|byte| (b'0'..=b'7').contains(byte)) {
        return Err(invalid(format!("{what} of an entry is no number")));
    }
    Ok(digits.iter().fold(0, |value, &digit| value * 8 + i64::from(digit - b'0')))
}

/// Old GNU sparse descriptors of 24 bytes, up to the first empty one.
pub(super) fn old_sparse_descriptors(bytes: &[u8], map: &mut Vec<Segment>) -> Result<(), Failure> {
    for descriptor in bytes.chunks_exact(24) {
        if descriptor[0] == 0 {
            break;
        }
        if map.len() >= SEGMENTS_MAX {
            return Err(too_large("a sparse file has too many segments"));
        }
        let offset = unsigned(&descriptor[..12], "a sparse offset")?;
        let length = unsigned(&descriptor[12..], "a sparse length")?;
        map.push(Segment { offset, length });
    }
    Ok(())
}
