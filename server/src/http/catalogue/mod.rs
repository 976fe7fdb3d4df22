//! Every code that an answer's problem `type` can end with: its status, what it means, why it comes
//! and what to do. `http::problem` takes title and status from here, `GET /api/v1/problems` and the
//! help pages show it, and a test compares it with the codes that the source can answer.
//!
//! Codes are stable: a released one is neither renamed nor given another meaning.

mod containers;
mod data_sets;
mod files;
mod images;
mod machine;
mod people;
mod requests;
mod sharing;
mod volumes;

use serde::Serialize;
use utoipa::ToSchema;

/// What is known of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ProblemKind)]
pub struct Known {
    /// The end of a problem's `type`; stable.
    pub code: &'static str,
    /// The status that it comes with.
    pub status: u16,
    /// What it means, in a few words; the `title` of its problems.
    pub title: &'static str,
    /// Why it comes.
    pub cause: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

/// A group of codes.
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// The codes, in the order in which they are shown.
    pub known: &'static [Known],
}

/// All codes.
pub const GROUPS: &[Group] = &[
    Group { title: "The request", known: requests::KNOWN },
    Group { title: "Signing in, people, tokens", known: people::KNOWN },
    Group { title: "Images and registries", known: images::KNOWN },
    Group { title: "Containers", known: containers::KNOWN },
    Group { title: "Volumes", known: volumes::KNOWN },
    Group { title: "Data sets", known: data_sets::KNOWN },
    Group { title: "Sharing", known: sharing::KNOWN },
    Group { title: "Files", known: files::KNOWN },
    Group { title: "The machine", known: machine::KNOWN },
];

const fn known(
    code: &'static str,
    status: u16,
    title: &'static str,
    cause: &'static str,
    cure: &'static str,
) -> Known {
    Known { code, status, title, cause, cure }
}

/// All codes, in the order of their groups.
pub fn all() -> impl Iterator<Item = &'static Known> {
    GROUPS.iter().flat_map(|group| group.known)
}

/// What is known of `code`.
pub fn find(code: &str) -> Option<&'static Known> {
    all().find(|known| known.code == code)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_code_is_there_once_and_says_cause_and_cure_in_sentences() {
        let mut seen = HashSet::new();
        for known in all() {
            let code = known.code;
            assert!(seen.insert(code), "{code} is there twice");
            let letters = |letter: u8| letter.is_ascii_lowercase() || b".-".contains(&letter);
            assert!(code.bytes().all(letters), "{code} is no word of a URL");
            assert!((400..=599).contains(&known.status), "{code}");
            assert!(!known.title.is_empty() && !known.title.ends_with('.'), "{code}");
            for text in [known.cause, known.cure] {
                let begins =
                    text.starts_with(|letter: char| letter.is_uppercase() || letter == '`');
                assert!(begins && text.ends_with('.'), "{code}: {text:?}");
            }
        }
        assert_eq!(find("not-found").map(|known| known.status), Some(404));
        assert_eq!(find("none"), None);
    }
}
