//! Pages of volumes: the list, and one in detail.

use askama::Template;

use crate::containers::ShareRow;
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
    /// The data sets that the viewer sees.
    pub data_sets: Vec<DataSetRow>,
}

/// A data set.
#[derive(Debug, Clone)]
pub struct DataSetRow {
    /// What it is called.
    pub name: String,
    /// What it is; may be empty.
    pub description: String,
    /// Whom it is for and where it is, in words, to those who oversee the machine; else empty.
    pub about: String,
    /// In how many places it is, in words; empty for none.
    pub used_by: String,
    /// The first containers that have it: address, name and the rest in words.
    pub users: Vec<(String, String, String)>,
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
    /// Whether it is somebody else's that was shared with the viewer.
    pub shared: bool,
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
    /// Whether they see with whom it is shared.
    pub sees_shares: bool,
    /// What it is called in a container's request of the viewer's.
    pub mount: String,
    /// What the viewer may do with it, in words, where it was shared with them; else empty.
    pub shared: &'static str,
    /// Its name, as typed.
    pub name: Field,
    /// Whom it is to be given to, as typed; none for who may not give it.
    pub heir: Option<Field>,
    /// What the form was made from.
    pub etag: String,
    /// Whose it is, what it holds.
    pub facts: Vec<Fact>,
    /// The containers that have it.
    pub users: Vec<UserRow>,
    /// Whether there are more than are shown.
    pub more: bool,
    /// Who else has it in containers of theirs, in words.
    pub others: Vec<String>,
}

/// With whom a volume or an image is shared.
#[derive(Debug, Clone, Template)]
#[template(path = "volumes/sharing.html")]
pub struct SharingPage {
    /// The frame.
    pub shell: Shell,
    /// Whether it is an image.
    pub is_image: bool,
    /// The page's own address.
    pub path: String,
    /// What it is called.
    pub title: String,
    /// Why it was not shared; may be empty.
    pub error: String,
    /// With whom it is.
    pub rows: Vec<ShareRow>,
    /// Whether the viewer may share it.
    pub shares: bool,
    /// Whether they may end what was shared.
    pub ends: bool,
    /// `person` or `group`, as chosen.
    pub kind: String,
    /// With whom, as typed.
    pub grantee: Field,
    /// How much, as chosen.
    pub level: String,
    /// Groups that the viewer is in.
    pub groups: Vec<String>,
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
