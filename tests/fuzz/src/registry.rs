//! The server's readers of what registries send.

#[path = "../../../server/src/registry/challenge.rs"]
pub(crate) mod challenge;
#[path = "../../../server/src/registry/manifest.rs"]
pub(crate) mod manifest;
#[path = "../../../server/src/registry/range.rs"]
pub(crate) mod range;
#[path = "../../../server/src/registry/reference.rs"]
pub(crate) mod reference;

/// What the reader of saved images needs of the client.
pub(crate) mod client {
    use crate::error::Error;

    pub(crate) fn mismatch(what: &str) -> Error {
        Error::invalid("image.digest-mismatch", format!("{what} is not what its digest says"))
    }
}
