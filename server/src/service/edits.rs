//! Edits that say what they were made from, so that of two people who change the same thing the
//! second one is told instead of undoing the first.
//!
//! A version is a digest of what can be edited and of nothing else: a container that starts or
//! stops keeps its version, and a change that was taken back gives the old one again.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The bytes of the digest that a version shows.
const VERSION_BYTES: usize = 16;

/// The version of what can be edited of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

/// The versions from which an edit may have been made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// One of these; any when `None`.
    pub any_of: Option<Vec<String>>,
    /// None of these.
    pub none_of: NoneOf,
}

/// The versions that an edit must not meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoneOf {
    /// It may meet every one.
    #[default]
    Nothing,
    /// These.
    Listed(Vec<String>),
    /// Any: the object must not be there.
    Everything,
}

impl Version {
    /// The version of `editable`, which holds all that can be edited.
    pub fn of(editable: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(editable).expect("names, numbers and words are JSON");
        Self(URL_SAFE_NO_PAD.encode(&Sha256::digest(&bytes)[..VERSION_BYTES]))
    }

    /// As text without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Expected {
    /// Made from this version; from any when the text is empty, as of a form without one.
    pub fn of(version: &str) -> Self {
        let any_of = (!version.is_empty()).then(|| vec![version.to_owned()]);
        Self { any_of, none_of: NoneOf::Nothing }
    }

    /// Whether an edit of what is at `now` may be made.
    ///
    /// # Errors
    /// When somebody has changed it in between.
    pub fn check(&self, now: &Version) -> Result<()> {
        let listed = |list: &[String]| list.contains(&now.0);
        let wanted = self.any_of.as_deref().is_none_or(listed);
        let unwanted = match &self.none_of {
            NoneOf::Nothing => false,
            NoneOf::Listed(list) => listed(list),
            NoneOf::Everything => true,
        };
        if wanted && !unwanted {
            return Ok(());
        }
        Err(Error::Stale { version: now.0.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_goes_through_only_from_what_is_there() {
        let (now, before) = (Version::of(&("web", 5)), Version::of(&("web", 4)));
        assert_eq!(now, Version::of(&("web", 5)));
        assert!(Expected::default().check(&now).is_ok());
        assert!(Expected::of("").check(&now).is_ok());
        assert!(Expected::of(now.as_str()).check(&now).is_ok());
        let stale = Expected::of(before.as_str()).check(&now);
        assert!(matches!(stale, Err(Error::Stale { version }) if version == now.as_str()));
        let none_of = |none_of| Expected { any_of: None, none_of };
        assert!(none_of(NoneOf::Everything).check(&now).is_err());
        assert!(none_of(NoneOf::Listed(vec![now.as_str().to_owned()])).check(&now).is_err());
        assert!(none_of(NoneOf::Listed(vec![before.as_str().to_owned()])).check(&now).is_ok());
    }
}
