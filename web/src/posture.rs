//! What confines a container.

use askama::Template;

use crate::containers::{Head, Tab};
use crate::shell::Shell;

/// What confines a container now.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/posture.html")]
pub struct PosturePage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// How many lines are loosened; `None` when it does not run.
    pub loosened: Option<usize>,
    /// The lines.
    pub groups: Vec<PostureGroup>,
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
}
