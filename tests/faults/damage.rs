//! Ways to damage an inventory's files, by the dice.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use system_tests::Dice;

const PAGE: usize = 4096;

/// What is done to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// 1 to 64 pages: a bit, a byte, a stretch or all of each.
    Pages,
    /// Bytes of the header, or all of it.
    Header,
    /// The file ends early, or is empty.
    Short,
    LogShort,
    LogPages,
    LogGone,
    Index,
    Newer,
    Owner,
    Mode,
}

/// What has to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Refused,
    Whole,
    /// Refused, or whole, or errors where the damage lies: nothing that is missing in silence.
    Either,
}

impl Damage {
    pub(crate) const ALL: [Self; 10] = [
        Self::Pages,
        Self::Header,
        Self::Short,
        Self::LogShort,
        Self::LogPages,
        Self::LogGone,
        Self::Index,
        Self::Newer,
        Self::Owner,
        Self::Mode,
    ];

    pub(crate) fn due(self) -> Due {
        match self {
            Self::Pages | Self::Header | Self::LogShort | Self::LogPages => Due::Either,
            Self::Short | Self::LogGone | Self::Newer | Self::Owner => Due::Refused,
            Self::Index | Self::Mode => Due::Whole,
        }
    }

    /// Does it, and says what was done.
    pub(crate) fn strike(self, folder: &Path, dice: &mut Dice) -> String {
        let file = folder.join("berth.db");
        let log = folder.join("berth.db-wal");
        match self {
            Self::Pages => flip(&file, dice, 1 + dice.clone().below(64)),
            Self::LogPages => flip(&log, dice, 1 + dice.clone().below(16)),
            Self::Header => {
                let count = [100, 1 + dice.below(100)][dice.below(2)];
                change(&file, |bytes| bytes[..count].fill(0));
                format!("{count} bytes of the header zeroed")
            }
            Self::Short => cut(&file, dice),
            Self::LogShort => cut(&log, dice),
            Self::LogGone => {
                fs::remove_file(&log).expect("there is a log");
                "the log is gone".to_owned()
            }
            Self::Index => {
                change(&folder.join("berth.db-shm"), |bytes| {
                    bytes.iter_mut().for_each(|byte| *byte = low_byte(dice.roll()));
                });
                "the log's index is noise".to_owned()
            }
            Self::Newer => {
                sqlite(
                    &file,
                    "insert into _sqlx_migrations select 9999, description, \
                    installed_on, success, checksum, execution_time from _sqlx_migrations limit 1",
                );
                "a newer version's".to_owned()
            }
            Self::Owner => {
                chown(&file, Some(0), Some(0)).expect("take it away");
                "root's, 0600".to_owned()
            }
            Self::Mode => {
                let mode = fs::Permissions::from_mode(0o666);
                fs::set_permissions(&file, mode).expect("open it");
                "mode 0666".to_owned()
            }
        }
    }
}

/// The inventory's folder as it was, to be put back as often as one likes.
pub(crate) struct Snapshot {
    folder: PathBuf,
    files: Vec<(String, Vec<u8>, u32, u32)>,
}

impl Snapshot {
    pub(crate) fn of(folder: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let entries = fs::read_dir(folder).expect("the folder").flatten();
        let files = entries
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                let found = entry.metadata().expect("a file");
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read(entry.path()).expect("read it"), found.uid(), found.mode())
            })
            .collect();
        Self { folder: folder.to_owned(), files }
    }

    /// Whether the folder is still as it was, in each file's bytes, owner and mode.
    pub(crate) fn is_there(&self) -> bool {
        let mut now = Self::of(&self.folder).files;
        let mut then = self.files.clone();
        now.sort();
        then.sort();
        now == then
    }

    pub(crate) fn put_back(&self) {
        for entry in fs::read_dir(&self.folder).expect("the folder").flatten() {
            if entry.path().is_file() {
                fs::remove_file(entry.path()).expect("clear the folder");
            }
        }
        for (name, bytes, owner, mode) in &self.files {
            let path = self.folder.join(name);
            fs::write(&path, bytes).expect("put a file back");
            chown(&path, Some(*owner), Some(*owner)).expect("give it back");
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("its mode");
        }
    }
}

/// Runs SQL beside whoever has the file open.
pub(crate) fn sqlite(file: &Path, statement: &str) -> String {
    let output = Command::new("sqlite3").arg(file).arg(statement).output().expect("sqlite3");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{statement}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn flip(file: &Path, dice: &mut Dice, pages: usize) -> String {
    let mut where_ = Vec::new();
    change(file, |bytes| {
        for _ in 0..pages {
            let page = dice.below(bytes.len() / PAGE);
            let at = page * PAGE + dice.below(PAGE);
            let end = match dice.below(4) {
                0 => {
                    bytes[at] ^= 1 << dice.below(8);
                    at + 1
                }
                1 => at + 1,
                2 => (at + 1 + dice.below(64)).min(bytes.len()),
                _ => ((page + 1) * PAGE).min(bytes.len()),
            };
            if end > at + 1 || dice.below(2) == 0 {
                bytes[at..end].iter_mut().for_each(|byte| *byte = low_byte(dice.roll()));
            }
            where_.push(at);
        }
    });
    format!("{pages} pages from byte {:?}", where_.first())
}

fn cut(file: &Path, dice: &mut Dice) -> String {
    let length = fs::metadata(file).expect("it is there").len();
    let left = dice.below(usize::try_from(length).expect("a length")) as u64;
    let left = if dice.below(4) == 0 { 0 } else { left };
    let opened = fs::File::options().write(true).open(file).expect("open it");
    opened.set_len(left).expect("cut it");
    format!("{left} of {length} bytes are left")
}

fn change(file: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("read it");
    how(&mut bytes);
    // In place: its owner stays.
    fs::write(file, bytes).expect("write it");
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}
