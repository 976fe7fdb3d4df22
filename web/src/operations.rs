//! Pages of long actions: all of them, and one; and how far one is, wherever it is shown.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Badge, Fact, FactKind, Scope};
use crate::shell::Shell;

/// The long actions that the viewer sees.
#[derive(Debug, Clone, Template)]
#[template(path = "operations/list.html")]
pub struct ListPage {
    /// The frame.
    pub shell: Shell,
    /// Narrower lists.
    pub scopes: Vec<Scope>,
    /// The filter as typed.
    pub query: String,
    /// Whether the viewer sees other people's.
    pub oversees: bool,
    /// The actions, newest first.
    pub rows: Vec<Row>,
    /// The next page's address.
    pub next: Option<String>,
    /// Whether there is none at all.
    pub first_use: bool,
}

/// One action in the list.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// How far it is.
    pub work: Work,
    /// Whose.
    pub owner: String,
    /// When it began.
    pub began: Option<Moment>,
    /// How long it took, or has taken.
    pub took: String,
}

/// One action.
#[derive(Debug, Clone, Template)]
#[template(path = "operations/detail.html")]
pub struct DetailPage {
    /// The frame.
    pub shell: Shell,
    /// How far it is.
    pub work: Work,
    /// What is known of it.
    pub facts: Vec<Fact>,
    /// What it made, as name and path.
    pub made: Vec<(String, String)>,
    /// Why it failed; none when it did not.
    pub failure: Option<Failure>,
}

/// Why an action failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// In a sentence.
    pub message: String,
    /// The code that its explanation is found by.
    pub code: String,
}

/// How far a long action is.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// The operation's id.
    pub id: String,
    /// What is done, `Pull`.
    pub what: String,
    /// To what.
    pub subject: String,
    /// How it stands.
    pub state: Badge,
    /// `38 of 120 MiB`; may be empty.
    pub text: String,
    /// 0 to 100.
    pub percent: u8,
    /// Its layers, if it has any.
    pub layers: Vec<WorkLayer>,
    /// Where it is cancelled; none for those who may not, and when it has ended.
    pub cancel: Option<String>,
}

/// One layer of a pull or an import.
#[derive(Debug, Clone, Default)]
pub struct WorkLayer {
    /// The first digits of its digest.
    pub digest: String,
    /// What is done with it, `unpacking`.
    pub phase: String,
    /// `12.1 of 30 MiB`.
    pub text: String,
    /// 0 to 100.
    pub percent: u8,
    /// Whether it is there.
    pub done: bool,
}
