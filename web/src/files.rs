//! The page of a folder in a volume or container.

use askama::Template;

use crate::containers::{Head, Tab};
use crate::format::Moment;
use crate::parts::Field;
use crate::shell::Shell;

/// A folder.
#[derive(Debug, Clone, Template)]
#[template(path = "files/folder.html")]
pub struct FolderPage {
    /// The frame.
    pub shell: Shell,
    /// The head of a container's pages; a volume has none.
    pub head: Option<Head>,
    /// What the volume is called.
    pub title: String,
    /// The address of the page of the volume or container.
    pub base: String,
    /// Why something was refused; may be empty.
    pub error: String,
    /// The folders on the way, the top first: name and address.
    pub way: Vec<(String, String)>,
    /// The folder's own name.
    pub here: String,
    /// Its path, as a part of a query.
    pub query: String,
    /// Its path, as it is sent by a form.
    pub path: String,
    /// Whether the viewer may change anything.
    pub acts: bool,
    /// Where the folder is had as an archive; empty when it cannot be.
    pub archive: String,
    /// The name of a new folder, as typed.
    pub name: Field,
    /// What is in it.
    pub rows: Vec<FileRow>,
    /// The next page's address.
    pub next: Option<String>,
}

/// A file, folder or link.
#[derive(Debug, Clone)]
pub struct FileRow {
    /// Its name, shown harmlessly.
    pub name: String,
    /// `folder`, `link`, `file` or what else it is.
    pub kind: &'static str,
    /// The folder's page, or where the file is had; empty for what cannot be.
    pub address: String,
    /// Its size in words; empty for folders.
    pub size: String,
    /// Permission bits.
    pub mode: String,
    /// Owner and group, as the container numbers them.
    pub owner: String,
    /// When it was changed.
    pub changed: Moment,
    /// Where a link leads; may be empty.
    pub target: String,
    /// Where its removal is asked for; empty for what cannot be named.
    pub remove: String,
}
