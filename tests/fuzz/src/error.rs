//! What the parsers need of the server's error: a code and a sentence.

/// As the server's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Error {
    code: &'static str,
    detail: String,
}

impl Error {
    /// The input is wrong.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}
