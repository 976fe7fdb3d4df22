//! A container's terminal.

use askama::Template;

use crate::containers::{Head, Tab};
use crate::shell::Shell;

/// The page on which people open terminals. Its policy allows style sheets with [`TerminalPage::nonce`].
#[derive(Debug, Clone, Template)]
#[template(path = "containers/terminal.html")]
pub struct TerminalPage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// What the terminal's own style sheets are known by, new with each answer.
    pub nonce: String,
    /// As whom the container's first program runs.
    pub user: String,
    /// Whether a program can be run in it now.
    pub running: bool,
    /// The container's own program, while it runs and has a terminal.
    pub first: Option<String>,
    /// Those that run beside it, oldest first.
    pub sessions: Vec<SessionRow>,
}

/// One session.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Its number.
    pub number: u64,
    /// The command line.
    pub program: String,
    /// As whom it runs; empty for the container's first user.
    pub user: String,
    /// For how long: `for 5 min`.
    pub since: String,
    /// Whether somebody is attached.
    pub attached: bool,
}
