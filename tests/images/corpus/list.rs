//! How the corpus is written down: a list of named archives, and what has to come of each.

use super::super::support::{Entry, archive, seal};

/// What has to come of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Unpacked, as every reader reads it.
    Unpacked,
    /// Refused, and nothing of it stays.
    Refused,
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unpacked => "as other readers read it",
            Self::Refused => "refused",
        })
    }
}

/// One archive, named for what it tries.
#[derive(Clone)]
pub(super) struct Case {
    pub row: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
    pub fate: Fate,
}

/// The archives of one family.
pub(super) struct List {
    row: &'static str,
    family: &'static str,
    pub cases: Vec<Case>,
}

impl List {
    pub(super) fn new(row: &'static str, family: &'static str) -> Self {
        Self { row, family, cases: Vec::new() }
    }

    /// One that is unpacked.
    pub(super) fn ok(&mut self, name: impl AsRef<str>, entries: &[Entry]) {
        self.ok_bytes(name, archive(entries));
    }

    /// One that is refused.
    pub(super) fn no(&mut self, name: impl AsRef<str>, entries: &[Entry]) {
        self.no_bytes(name, archive(entries));
    }

    /// One that is unpacked where readers agree.
    pub(super) fn put(&mut self, agreed: bool, name: impl AsRef<str>, entries: &[Entry]) {
        if agreed { self.ok(name, entries) } else { self.no(name, entries) }
    }

    pub(super) fn ok_bytes(&mut self, name: impl AsRef<str>, bytes: Vec<u8>) {
        self.push(name.as_ref(), bytes, Fate::Unpacked);
    }

    pub(super) fn no_bytes(&mut self, name: impl AsRef<str>, bytes: Vec<u8>) {
        self.push(name.as_ref(), bytes, Fate::Refused);
    }

    fn push(&mut self, name: &str, bytes: Vec<u8>, fate: Fate) {
        let name = format!("{}: {name}", self.family);
        self.cases.push(Case { row: self.row, name, bytes, fate });
    }
}

pub(super) fn f(name: impl AsRef<[u8]>, data: &[u8]) -> Entry {
    Entry::file(name, data)
}

pub(super) fn d(name: impl AsRef<[u8]>) -> Entry {
    Entry::dir(name)
}

pub(super) fn s(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry::symlink(name, target)
}

pub(super) fn h(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry::link(name, target)
}

pub(super) fn of_kind(name: impl AsRef<[u8]>, kind: u8) -> Entry {
    Entry::new(name, kind)
}

/// Entries without the archive's end.
pub(super) fn blocks(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = archive(entries);
    bytes.truncate(bytes.len() - 1024);
    bytes
}

/// Pieces of an archive, and its end.
pub(super) fn whole(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = pieces.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// An entry whose header was changed by hand and sealed again.
pub(super) fn edited(entry: Entry, change: impl Fn(&mut [u8; 512])) -> Vec<u8> {
    let mut bytes = blocks(&[entry]);
    let mut block: [u8; 512] = bytes[..512].try_into().expect("a block");
    change(&mut block);
    seal(&mut block);
    bytes[..512].copy_from_slice(&block);
    bytes
}

/// Writes a field, the rest of it zero.
pub(super) fn field(block: &mut [u8; 512], at: std::ops::Range<usize>, text: &[u8]) {
    block[at.clone()].fill(0);
    block[at.start..at.start + text.len()].copy_from_slice(text);
}

pub(super) const NAME: std::ops::Range<usize> = 0..100;
pub(super) const MODE: std::ops::Range<usize> = 100..108;
pub(super) const UID: std::ops::Range<usize> = 108..116;
pub(super) const SIZE: std::ops::Range<usize> = 124..136;
pub(super) const TIME: std::ops::Range<usize> = 136..148;
pub(super) const MAGIC: std::ops::Range<usize> = 257..265;
pub(super) const PREFIX: std::ops::Range<usize> = 345..500;
/// GNU's magic and version.
pub(super) const GNU: &[u8] = b"ustar  \0";
