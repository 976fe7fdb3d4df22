//! Asking for more, and the answers.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Badge, Fact, FactKind, Field};
use crate::shell::Shell;

/// What was asked for: one's own, and for those who oversee people everybody's.
#[derive(Debug, Clone, Default, Template)]
#[template(path = "people/asks.html")]
pub struct AsksPage {
    /// The frame.
    pub shell: Shell,
    /// What is wrong beyond single fields; may be empty.
    pub error: String,
    /// Whether the viewer sees everybody's.
    pub oversees: bool,
    /// The form of those who may ask; none where nothing bounds them.
    pub form: Option<AskForm>,
    /// What waits for an answer.
    pub open: Vec<OpenAsk>,
    /// What was decided or taken back, newest first.
    pub past: Vec<PastAsk>,
    /// The next page's address.
    pub next: Option<String>,
}

/// Asking.
#[derive(Debug, Clone, Default)]
pub struct AskForm {
    /// The limits that bound the viewer.
    pub limits: Vec<LimitChoice>,
    /// Which, as chosen.
    pub limit: Field,
    /// How much in all, as typed.
    pub wanted: Field,
    /// The last day, as typed.
    pub until: Field,
    /// Why, as typed.
    pub reason: Field,
}

/// A limit that can be chosen.
#[derive(Debug, Clone, Default)]
pub struct LimitChoice {
    /// Its name in the API.
    pub name: String,
    /// In words, with what is allowed.
    pub label: String,
}

/// One that waits.
#[derive(Debug, Clone, Default)]
pub struct OpenAsk {
    /// Its number.
    pub id: i64,
    /// Who asks; empty where it can be nobody else.
    pub person: String,
    /// Their page, for those who may see it.
    pub path: Option<String>,
    /// How much of what, in words.
    pub what: String,
    /// Why.
    pub reason: String,
    /// When.
    pub asked: Option<Moment>,
    /// How it is now, and would be.
    pub facts: Vec<Fact>,
    /// Whether the viewer may take it back.
    pub withdraws: bool,
    /// Whether the viewer decides.
    pub decides: bool,
    /// How much is granted, as typed.
    pub granted: Field,
    /// The last day of that, as typed.
    pub until: Field,
    /// A word to a yes, as typed.
    pub answer: Field,
    /// Why not, as typed.
    pub reason_not: Field,
}

/// One that was decided or taken back.
#[derive(Debug, Clone, Default)]
pub struct PastAsk {
    /// Its number.
    pub id: i64,
    /// Who asked; empty where it can be nobody else.
    pub person: String,
    /// How much of what, in words.
    pub what: String,
    /// How it stands, with what was granted.
    pub state: Badge,
    /// By whom, and what they said; may be empty.
    pub answer: String,
    /// When it was decided.
    pub decided: Option<Moment>,
    /// Until when it holds.
    pub ends: Option<Moment>,
    /// Whether the viewer may end it now.
    pub may_end: bool,
}
