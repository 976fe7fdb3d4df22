//! What confines a container.

use askama::Template;

use crate::containers::{Head, Tab};
use crate::format::Moment;
use crate::shell::Shell;

/// What confines a container now.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/posture.html")]
pub struct PosturePage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// What came of looking.
    pub look: Look,
    /// The lines.
    pub groups: Vec<PostureGroup>,
}

/// What came of looking.
#[derive(Debug, Clone)]
pub enum Look {
    /// It does not run.
    AtRest,
    /// It could not be looked at.
    Failed {
        /// Why, as a sentence.
        why: String,
    },
    /// The lines are what the kernel shows.
    Seen {
        /// How many of them are loosened.
        loosened: usize,
    },
}

/// Lines that belong together.
#[derive(Debug, Clone)]
pub struct PostureGroup {
    /// Their heading.
    pub title: &'static str,
    /// The lines.
    pub rows: Vec<PostureRow>,
}

/// One line.
#[derive(Debug, Clone)]
pub struct PostureRow {
    /// What it is.
    pub name: String,
    /// How it stands: `holds`, `loosened`, `not here`.
    pub word: &'static str,
    /// Whether it is loosened.
    pub loosened: bool,
    /// What the kernel shows.
    pub value: String,
    /// What that means.
    pub reason: String,
    /// Who has changed it since the container was made.
    pub changed: Option<PostureChange>,
}

/// A change.
#[derive(Debug, Clone)]
pub struct PostureChange {
    /// From what to what.
    pub text: String,
    /// Whose act it was.
    pub by: String,
    /// When.
    pub at: Moment,
}
