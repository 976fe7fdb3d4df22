//! Pages of images: the list with pulls under way, and one in detail.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Act, Badge, Fact, FactKind, Field};
use crate::shell::Shell;

/// The images that the viewer has.
#[derive(Debug, Clone, Template)]
#[template(path = "images/list.html")]
pub struct ListPage {
    /// The frame.
    pub shell: Shell,
    /// The reference to pull, as typed.
    pub reference: Field,
    /// What is wrong with an uploaded archive; may be empty.
    pub import_error: String,
    /// The most bytes an upload may have, in words; may be empty.
    pub import_limit: String,
    /// Pulls and imports under way or just ended.
    pub pulls: Vec<Pull>,
    /// The filter as typed.
    pub query: String,
    /// The images.
    pub rows: Vec<Row>,
    /// The next page's address.
    pub next: Option<String>,
    /// Whether there is no image at all.
    pub first_use: bool,
}

/// A pull or an import.
#[derive(Debug, Clone, Default)]
pub struct Pull {
    /// The operation's id.
    pub id: String,
    /// What is pulled.
    pub reference: String,
    /// How it stands.
    pub state: Badge,
    /// `38 of 120 MiB`.
    pub text: String,
    /// 0 to 100.
    pub percent: u8,
    /// Its layers.
    pub layers: Vec<PullLayer>,
    /// Where it is cancelled; none when it has ended.
    pub cancel: Option<String>,
}

/// One layer of a pull.
#[derive(Debug, Clone, Default)]
pub struct PullLayer {
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

/// One image.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The id that its page is found by.
    pub id: String,
    /// Registry and repository.
    pub repository: String,
    /// The tag; may be empty.
    pub tag: String,
    /// The whole digest.
    pub digest: String,
    /// Whether it is the system's, visible to all.
    pub system: bool,
    /// The owner's name, to those who see other people's.
    pub owner: Option<String>,
    /// Its size.
    pub size: String,
    /// Its platform.
    pub platform: String,
    /// When it came.
    pub pulled: Option<Moment>,
    /// Where it is launched from; none for those who may not.
    pub launch: Option<String>,
    /// The other things to do with it.
    pub more: Vec<Act>,
}

/// One image in detail.
#[derive(Debug, Clone, Template)]
#[template(path = "images/detail.html")]
pub struct DetailPage {
    /// The frame.
    pub shell: Shell,
    /// Its reference.
    pub reference: String,
    /// Where it is launched from.
    pub launch: Option<String>,
    /// The other things to do with it.
    pub acts: Vec<Act>,
    /// What is known of it.
    pub facts: Vec<Fact>,
    /// The environment it sets.
    pub env: Vec<String>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRow>,
    /// How it was made, oldest first.
    pub history: Vec<HistoryRow>,
}

/// One layer.
#[derive(Debug, Clone)]
pub struct LayerRow {
    /// The whole digest of the blob.
    pub digest: String,
    /// Its size as stored.
    pub size: String,
    /// Its media type, shortened.
    pub media_type: String,
}

/// One step of an image's history.
#[derive(Debug, Clone)]
pub struct HistoryRow {
    /// What was done.
    pub created_by: String,
    /// Whether it made no layer.
    pub empty: bool,
}
