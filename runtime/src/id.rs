//! Identifiers: parsed once, they cannot hold a bad value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no identifier, with the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {what}")]
pub struct BadId {
    /// The text as given, cut to 80 characters.
    pub value: String,
    /// What was expected, as a noun phrase.
    pub what: &'static str,
}

/// An identifier of 32 lower-case hexadecimal digits.
macro_rules! hexadecimal_id {
    ($(#[$about:meta])* $name:ident, $what:literal) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve digits, for people.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }

            /// An id from 16 random bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                let mut text = String::with_capacity(32);
                for byte in bytes {
                    text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
                    text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
                }
                Self(text)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                if text.len() == 32 && text.bytes().all(digits) {
                    return Ok(Self(text.to_owned()));
                }
                let value = text.chars().take(80).collect();
                Err(BadId { value, what: $what })
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

hexadecimal_id! {
    /// A container of Berth's: 32 lower-case hexadecimal digits.
    ContainerId, "a container id (32 lower-case hexadecimal digits)"
}

hexadecimal_id! {
    /// A volume of a person's: 32 lower-case hexadecimal digits.
    VolumeId, "a volume id (32 lower-case hexadecimal digits)"
}

hexadecimal_id! {
    /// A file of a person's that is being uploaded: 32 lower-case hexadecimal digits.
    UploadId, "an upload's id (32 lower-case hexadecimal digits)"
}

/// A program that was run beside a container's first one, as the inventory numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecId(pub u64);

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A principal (person, group or the system), as the inventory numbers them. The supervisor keeps
/// its own record of which ids exist and what range each holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalId(pub u32);

impl PrincipalId {
    /// The system itself: owner of the starter image and of the installer's proof.
    pub const SYSTEM: Self = Self(1);
    /// The one group that everybody's resources are accounted to until groups are made.
    pub const DEFAULT_GROUP: Self = Self(2);
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
