//! Pages of volumes: the list, and one in detail.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Fact, FactKind, Field};
use crate::shell::Shell;

/// The volumes that the viewer sees.
#[derive(Debug, Clone, Template)]
#[template(path = "volumes/list.html")]
pub struct ListPage {
    /// The frame.
    pub shell: Shell,
    /// Why none was made; may be empty.
    pub error: String,
    /// The name of a new one, as typed.
    pub name: Field,
    /// Whether the viewer may make one.
    pub acts: bool,
    /// Whether the viewer sees other people's.
    pub oversees: bool,
    /// The volumes.
    pub rows: Vec<Row>,
    /// The next page's address.
    pub next: Option<String>,
}

/// One volume.
#[derive(Debug, Clone)]
pub struct Row {
    /// The id that its page is found by.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// The owner's name, to those who see other people's.
    pub owner: String,
    /// How many containers have it, in words; empty for none.
    pub used_by: String,
    /// What it held, in words; empty when nobody has looked.
    pub size: String,
    /// When it was made.
    pub made: Moment,
}

/// One volume with who has it.
#[derive(Debug, Clone, Template)]
#[template(path = "volumes/detail.html")]
pub struct DetailPage {
    /// The frame.
    pub shell: Shell,
    /// Why a change was refused; may be empty.
    pub error: String,
    /// The id.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// Whether the viewer may change and remove it.
    pub acts: bool,
    /// Whether the viewer may look at the files in it.
    pub reads: bool,
    /// Its name, as typed.
    pub name: Field,
    /// What the form was made from.
    pub etag: String,
    /// Whose it is, what it holds.
    pub facts: Vec<Fact>,
    /// The containers that have it.
    pub users: Vec<UserRow>,
    /// Whether there are more than are shown.
    pub more: bool,
}

/// A container that has a volume.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it has it.
    pub target: String,
    /// The part that it has, and whether it may write, in words; may be empty.
    pub how: String,
}
