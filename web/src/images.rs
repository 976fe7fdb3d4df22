//! Pages of images: the list with pulls under way, and one in detail.

use askama::Template;

use crate::format::Moment;
use crate::operations::Work;
use crate::parts::{Act, Badge, Fact, FactKind, Field, Scope};
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
    pub pulls: Vec<Work>,
    /// Narrower lists.
    pub scopes: Vec<Scope>,
    /// The filter as typed.
    pub query: String,
    /// Whether the viewer sees other people's.
    pub oversees: bool,
    /// The images.
    pub rows: Vec<Row>,
    /// The next page's address.
    pub next: Option<String>,
    /// Whether there is no image at all.
    pub first_use: bool,
}

/// One image.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The id that its page is found by.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What else it is called, in one line; may be empty.
    pub also: String,
    /// The whole digest.
    pub digest: String,
    /// Whether it is the system's, visible to all.
    pub system: bool,
    /// Who has shared it with the viewer; else empty.
    pub shared_by: String,
    /// The owner's name, to those who see other people's.
    pub owner: String,
    /// Bytes that no other image of its owner has.
    pub unique: String,
    /// Bytes that others have too; empty when there are none.
    pub shared: String,
    /// Containers that use it, in words; empty when there are none.
    pub used_by: String,
    /// When one was last started.
    pub used: Option<Moment>,
    /// When it came.
    pub pulled: Option<Moment>,
    /// Where it is launched from; none for those who may not.
    pub launch: Option<String>,
    /// The other things to do with it.
    pub more: Vec<Act>,
}

/// What nothing needs any more, and what stays.
#[derive(Debug, Clone, Template)]
#[template(path = "images/unneeded.html")]
pub struct UnneededPage {
    /// The frame.
    pub shell: Shell,
    /// Why nothing was done; may be empty.
    pub error: String,
    /// The days, as typed.
    pub days: Field,
    /// Whether tagged images may go, too.
    pub tagged: bool,
    /// Whether everybody's may.
    pub everyone: bool,
    /// Whether the viewer sees other people's.
    pub oversees: bool,
    /// Whether the viewer may remove anything.
    pub acts: bool,
    /// How many things go.
    pub going: usize,
    /// What that frees at most, in words.
    pub frees: String,
    /// What was looked at.
    pub rows: Vec<UnneededRow>,
    /// Whether there is more.
    pub more: bool,
}

/// One thing, and what becomes of it.
#[derive(Debug, Clone)]
pub struct UnneededRow {
    /// What it is called.
    pub name: String,
    /// Its page; none for what has none.
    pub path: Option<String>,
    /// The owner's name.
    pub owner: String,
    /// Its size, in words.
    pub size: String,
    /// When something needed it last.
    pub needed: Moment,
    /// Whether it goes.
    pub verdict: Badge,
    /// Why, in a sentence.
    pub why: String,
}

/// One image in detail.
#[derive(Debug, Clone, Template)]
#[template(path = "images/detail.html")]
pub struct DetailPage {
    /// The frame.
    pub shell: Shell,
    /// The id.
    pub id: String,
    /// What it is called first.
    pub name: String,
    /// Whether it is the system's, visible to all.
    pub system: bool,
    /// The owner's name, when that is not the viewer.
    pub owner: String,
    /// Where it is launched from.
    pub launch: Option<String>,
    /// Where it is downloaded from; none for those who may not.
    pub download: Option<String>,
    /// How large that is at least, in words.
    pub download_size: String,
    /// The other things to do with it.
    pub acts: Vec<Act>,
    /// Where it is seen with whom it is shared; none for those who do not see that.
    pub sharing: Option<String>,
    /// The name to keep it under, as typed, where it was shared with the viewer.
    pub keep: Option<Field>,
    /// What is known of it.
    pub facts: Vec<Fact>,
    /// How a container of it runs.
    pub config: Vec<Fact>,
    /// Whether that is the viewer's to see.
    pub content: bool,
    /// The environment it sets.
    pub env: Vec<String>,
    /// Its names.
    pub names: Vec<NameRow>,
    /// A further name, as typed; none for those who may not give one.
    pub tag: Option<Field>,
    /// Containers that use it.
    pub containers: Vec<Link>,
    /// Other images of its owner with a layer of it.
    pub images: Vec<Link>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRow>,
    /// How it was made, oldest first.
    pub history: Vec<HistoryRow>,
}

/// One name of an image.
#[derive(Debug, Clone)]
pub struct NameRow {
    /// In full.
    pub name: String,
    /// Where it is taken away; none for digests and for those who may not.
    pub untag: Option<String>,
}

/// Something with a page.
#[derive(Debug, Clone)]
pub struct Link {
    /// What it is called.
    pub label: String,
    /// Its page.
    pub path: String,
}

/// One layer.
#[derive(Debug, Clone)]
pub struct LayerRow {
    /// The whole digest of the blob.
    pub digest: String,
    /// Its size as unpacked.
    pub size: String,
    /// Its kind with its size as stored.
    pub media_type: String,
    /// The first of the other images that have it too.
    pub shared_with: Option<Link>,
    /// How many more have it.
    pub more: usize,
}

/// One step of an image's history.
#[derive(Debug, Clone)]
pub struct HistoryRow {
    /// What was done.
    pub created_by: String,
    /// Whether it made no layer.
    pub empty: bool,
}
