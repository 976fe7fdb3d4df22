//! Files in volumes and containers, as server and supervisor speak of them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{ContainerId, UploadId, VolumeId};

/// Bytes of a path inside a volume or container at most (`PATH_MAX`, with its end).
pub const PATH_BYTES_MAX: usize = 4095;
/// Rows in one page of a folder at most.
pub const FILE_ROWS_MAX: usize = 256;
/// Uploads of one person that are not put anywhere yet, at most.
pub const UPLOADS_PER_PERSON_MAX: usize = 64;
/// Bytes of one upload at most (1 TiB); what a person may keep is less, as a rule.
pub const UPLOAD_BYTES_MAX: u64 = 1 << 40;

/// Where a path begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FilesPlace {
    /// A volume's content.
    Volume(VolumeId),
    /// A container's root: of one that runs with all that is mounted there, of another one what it stands on,
    /// lowest layer first.
    Container {
        /// The container.
        container: ContainerId,
        /// Unpacked layers by blob digest.
        layers: Vec<Digest>,
    },
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FilesAct {
    /// Says what is there; a link at the end of the path is not followed.
    Look,
    /// A page of a folder, by ascending name.
    List {
        /// The last name of the page before.
        after: Option<String>,
    },
    /// Opens an ordinary file to be read.
    Open,
    /// Writes a folder as a tar archive in GNU's form: what does not end with two empty blocks is not whole.
    Archive,
    /// Makes a folder, which belongs to whom the one around it does.
    MakeFolder,
    /// Removes a file, or a folder with all that is in it: no link is followed, and nothing behind a mount goes.
    Remove,
    /// Puts what was uploaded in the place of a file, or makes one; the upload is gone then.
    Put {
        /// What.
        upload: UploadId,
        /// Permission bits; without them a file keeps its own, and a new one gets 0644.
        mode: Option<u32>,
    },
}

impl FilesAct {
    /// Whether it changes something.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Look | Self::List { .. } | Self::Open | Self::Archive => false,
            Self::MakeFolder | Self::Remove | Self::Put { .. } => true,
        }
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// An ordinary file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket: nothing to be read.
    Special,
}

/// One file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its name; where it is not UTF-8, an approximation.
    pub name: String,
    /// Whether `name` is its name, so that it can be asked for by it.
    pub is_exact: bool,
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes.
    pub bytes: u64,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Its owner, as the container numbers them.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When its content was last changed, milliseconds since 1970.
    pub modified_ms: i64,
    /// Where a link leads, in an approximation; absent for everything else.
    pub target: Option<String>,
}
