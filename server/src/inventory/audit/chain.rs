//! The chain of the audit: what a row's hash is made of, and what is wrong with rows that do not hold
//! together. Pure.
//!
//! - A row's hash is SHA-256 over a word for the version, the hash of the row before, and each field in a
//!   fixed order, with its kind and its length in front: two rows that differ never have the same bytes,
//!   whatever is in a name.
//! - Whoever can write the file can make the whole chain anew. Only a head (number and hash of a row) that
//!   was kept elsewhere shows that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::clock::Time;

/// What a chain begins with: how its rows are written as bytes.
const VERSION: &[u8] = b"berth audit 1\n";
/// A row that was moved is looked for at so many places before and after its own.
const MOVED_MAX: i64 = 1000;
/// The action of the row that seals what was dropped.
pub const PRUNE: &str = "audit.prune";
/// The action of the row after those that were there before there was a chain.
pub const BEGIN: &str = "audit.begin";

/// A row's hash.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

/// A row's number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number.
    pub id: i64,
    /// Its hash.
    pub hash: Hash,
}

/// What a row's hash is made of, besides the hash before it.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub id: i64,
    pub at: Time,
    pub actor: Option<i64>,
    pub actor_name: &'a str,
    pub via: &'a str,
    pub action: &'a str,
    pub subject_kind: &'a str,
    pub subject: &'a str,
    pub owner: Option<i64>,
    pub outcome: &'a str,
    pub address: &'a str,
    pub request_id: &'a str,
    pub times: i64,
}

/// A row as it is found, in the inventory or in a file.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    pub id: i64,
    #[serde(deserialize_with = "time")]
    pub at: Time,
    pub actor: Option<i64>,
    pub actor_name: String,
    pub via: String,
    pub action: String,
    pub subject_kind: String,
    pub subject: String,
    pub owner: Option<i64>,
    pub outcome: String,
    pub address: String,
    pub request_id: String,
    pub times: i64,
    /// The hash of the row before it; none when it never was part of a chain.
    pub prev: Option<Hash>,
    /// Its own.
    pub hash: Option<Hash>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Something else is in it than was written.
    Changed,
    /// It was taken out.
    Removed,
    /// It was put in.
    Inserted,
    /// It stands where another stood.
    Moved,
    /// It is not the one whose hash was kept elsewhere.
    Head,
}

/// The first row that does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AuditFault)]
pub struct Fault {
    /// Its number.
    pub id: i64,
    /// When it says that it was written; of one that is not there, when the row before it was.
    pub at: Option<Time>,
    /// What is wrong.
    pub kind: FaultKind,
    /// The same in words.
    pub text: String,
}

impl Fields<'_> {
    /// The hash of a row with these fields after one with the hash `prev`.
    pub fn hash(&self, prev: Hash) -> Hash {
        let mut sha = Sha256::new();
        sha.update(VERSION);
        sha.update(prev.0);
        for number in [Some(self.id), Some(self.at.0), self.actor, self.owner, Some(self.times)] {
            match number {
                Some(number) => {
                    sha.update(b"i");
                    sha.update(number.to_be_bytes());
                }
                None => sha.update(b"n"),
            }
        }
        for text in [
            self.actor_name,
            self.via,
            self.action,
            self.subject_kind,
            self.subject,
            self.outcome,
            self.address,
            self.request_id,
        ] {
            sha.update(b"t");
            sha.update((text.len() as u64).to_be_bytes());
            sha.update(text.as_bytes());
        }
        Hash(sha.finalize().into())
    }
}

impl Found {
    fn fields(&self) -> Fields<'_> {
        Fields {
            id: self.id,
            at: self.at,
            actor: self.actor,
            actor_name: &self.actor_name,
            via: &self.via,
            action: &self.action,
            subject_kind: &self.subject_kind,
            subject: &self.subject,
            owner: self.owner,
            outcome: &self.outcome,
            address: &self.address,
            request_id: &self.request_id,
            times: self.times,
        }
    }

    /// Whether the server itself wrote it, to say this.
    pub fn is_mark(&self, action: &str) -> bool {
        self.action == action && self.via == super::By::Server.as_str()
    }

    /// The hashes of the row before and of this one, when this one holds what was written.
    ///
    /// # Errors
    /// What is wrong with it by itself.
    pub fn intact(&self) -> Result<(Hash, Hash), Fault> {
        let (Some(prev), Some(hash)) = (self.prev, self.hash) else {
            return Err(self.fault(FaultKind::Inserted, "it was never linked to the row before it"));
        };
        if self.fields().hash(prev) == hash {
            return Ok((prev, hash));
        }
        let near = (self.id - MOVED_MAX)..=(self.id + MOVED_MAX);
        let is = |id: &i64| Fields { id: *id, ..self.fields() }.hash(prev) == hash;
        Err(match near.into_iter().find(is) {
            Some(id) => self.fault(
                FaultKind::Moved,
                format!(
                    "this is row {id} in another's place: rows were exchanged, or put in or taken \
                     out and numbered anew"
                ),
            ),
            None => self.fault(FaultKind::Changed, "it does not hold what was written"),
        })
    }

    /// What is wrong with this row.
    pub fn fault(&self, kind: FaultKind, text: impl Into<String>) -> Fault {
        Fault { id: self.id, at: Some(self.at), kind, text: text.into() }
    }
}

/// The digest of ranges that were dropped, which the row of the pruning holds.
pub fn seal(gaps: &[(i64, i64)]) -> String {
    let mut sha = Sha256::new();
    sha.update(VERSION);
    for (first, last) in gaps {
        sha.update(first.to_be_bytes());
        sha.update(last.to_be_bytes());
    }
    Hash(sha.finalize().into()).to_string()
}

impl Hash {
    /// The hash in these bytes, if they are one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no hash: 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.hash)
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no head: a row's number, a colon and its hash");
        let (id, hash) = text.split_once(':').ok_or_else(wrong)?;
        let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
        Ok(Self { id, hash: hash.parse()? })
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    Time::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no time")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A good row after `last`.
    pub(in crate::inventory::audit) fn after(last: Link, actor_name: &str, action: &str) -> Found {
        let mut found = Found {
            id: last.id + 1,
            at: Time(1_000 + last.id),
            actor: Some(1001),
            actor_name: actor_name.into(),
            via: "session".into(),
            action: action.into(),
            subject_kind: "container".into(),
            subject: "x".into(),
            owner: None,
            outcome: "done".into(),
            address: "192.0.2.1".into(),
            request_id: "r".into(),
            times: 1,
            prev: Some(last.hash),
            hash: None,
        };
        found.hash = Some(found.fields().hash(last.hash));
        found
    }

    #[test]
    fn no_text_reaches_into_the_next_field() {
        let hash = |name: &str, action: &str| after(Link::default(), name, action).hash;
        let pairs = [
            ("a", "b"),
            ("ab", ""),
            ("", "ab"),
            ("a\n", "b"),
            ("a", "\nb"),
            ("a\0", "b"),
            ("a\",\"action\":\"b", ""),
            ("at\0\0\0\0\0\0\0\u{1}b", ""),
        ];
        let hashes: Vec<_> = pairs.iter().map(|(name, action)| hash(name, action)).collect();
        for (at, one) in hashes.iter().enumerate() {
            assert!(hashes[..at].iter().all(|other| other != one), "{:?}", pairs[at]);
        }
        // Nobody is not somebody with the number 0.
        let nobody = Found { actor: None, ..after(Link::default(), "", "") };
        let zero = Found { actor: Some(0), ..nobody.clone() };
        assert_ne!(nobody.fields().hash(Hash::default()), zero.fields().hash(Hash::default()));
    }

    #[test]
    fn the_bytes_of_a_row_stay_as_they_are() {
        // What inventories hold: another value here is another version, with a word of its own.
        let known = after(Link::default(), "olga", "container.stop").hash.expect("a hash");
        assert_eq!(
            known.to_string(),
            "882d80ac5b8a34d503525e3142539c7713c470c4280db63a7471be02cbbdbc3c"
        );
    }

    #[test]
    fn each_field_counts_and_a_moved_row_is_known() {
        let good = after(Link { id: 7, hash: Hash([3; 32]) }, "olga", "container.stop");
        good.intact().expect("as it was written");
        let kind = |found: &Found| found.intact().expect_err("changed").kind;
        for changed in [
            Found { at: Time(0), ..good.clone() },
            Found { actor: None, ..good.clone() },
            Found { actor_name: "anna".into(), ..good.clone() },
            Found { via: "token".into(), ..good.clone() },
            Found { action: "container.start".into(), ..good.clone() },
            Found { subject_kind: "image".into(), ..good.clone() },
            Found { subject: "y".into(), ..good.clone() },
            Found { owner: Some(1), ..good.clone() },
            Found { outcome: "denied".into(), ..good.clone() },
            Found { address: String::new(), ..good.clone() },
            Found { request_id: "s".into(), ..good.clone() },
            Found { times: 2, ..good.clone() },
            Found { prev: Some(Hash::default()), ..good.clone() },
        ] {
            assert_eq!(kind(&changed), FaultKind::Changed, "{changed:?}");
        }
        assert_eq!(kind(&Found { id: 9, ..good.clone() }), FaultKind::Moved);
        assert_eq!(kind(&Found { hash: None, ..good }), FaultKind::Inserted);
    }

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = Link { id: 12, hash: Hash([0xab; 32]) };
        assert_eq!(head.to_string().parse(), Ok(head));
        for wrong in ["", "12", "12:", "x:ab", "0:00", "12:zz", &format!("-1:{}", head.hash)] {
            assert!(wrong.parse::<Link>().is_err(), "{wrong}");
        }
    }
}
