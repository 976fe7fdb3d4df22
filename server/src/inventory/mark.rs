//! How far the inventory had come when something was last acknowledged, in a file beside it.
//!
//! SQLite takes a write-ahead log that is gone, cut short or overwritten for one that ends there, and goes
//! on with an older inventory as if nothing had been (https://sqlite.org/fileformat.html, 4.2). So the
//! numbers of the newest rows of audit and events, which never fall, are noted after each durable
//! commit; an inventory that ends before them is refused. The note waits for no disk: after a power cut
//! it may be older than the inventory, never newer.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, ensure};
use sqlx::SqlitePool;

/// The file's name; it goes into a backup with the inventory.
pub(super) const FILE: &str = "acknowledged";
/// Its length: less than a sector, so that it is never half written.
const BYTES: usize = 64;

/// The newest rows of something acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) audit: i64,
    pub(super) event: i64,
}

/// The file.
pub(super) struct Mark(File);

impl Mark {
    /// Opens the mark beside the inventory at `path`, and holds the inventory to it; answers how far that
    /// has come, too.
    pub(super) async fn open(path: &Path, db: &SqlitePool) -> anyhow::Result<(Self, Newest)> {
        let place = path.with_file_name(FILE);
        let shown = place.display();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&place)
            .with_context(|| format!("open {shown}"))?;
        let mark = Self(file);
        let noted = mark.read().with_context(|| format!("read {shown}"))?;
        let there = Newest { audit: last(db, "audit").await?, event: last(db, "events").await? };
        ensure!(
            there.audit >= noted.audit && there.event >= noted.event,
            "changes are missing that were acknowledged: it ends with audit row {} and event {}, but \
             there were {} and {}. Its write-ahead log was lost or damaged, or an older inventory was put \
             in its place. Restore a backup with all files of its folder; or remove {shown} to go on with \
             what is there",
            there.audit,
            there.event,
            noted.audit,
            noted.event
        );
        Ok((mark, there))
    }

    /// Notes what is about to be acknowledged.
    pub(super) fn note(&self, newest: Newest) {
        let text = format!("audit {} event {}", newest.audit, newest.event);
        let line = format!("{text:<width$}\n", width = BYTES - 1);
        if let Err(error) = self.0.write_all_at(line.as_bytes(), 0) {
            // The change itself is safe; only its loss would not be noticed.
            tracing::warn!(%error, "how far the inventory has come was not noted");
        }
    }

    fn read(&self) -> std::io::Result<Newest> {
        let mut bytes = [0; BYTES];
        let count = self.0.read_at(&mut bytes, 0)?;
        Ok(parse(&String::from_utf8_lossy(&bytes[..count])).unwrap_or_default())
    }
}

impl Newest {
    /// With a later one's rows, where it has any.
    pub(super) fn max(self, other: Self) -> Self {
        Self { audit: self.audit.max(other.audit), event: self.event.max(other.event) }
    }
}

fn parse(text: &str) -> Option<Newest> {
    let mut words = text.split_whitespace();
    let mut number =
        |name| words.next().filter(|word| *word == name).and(words.next()?.parse().ok());
    Some(Newest { audit: number("audit")?, event: number("event")? })
}

/// The number of a table's newest row, whether or not that is still there.
async fn last(db: &SqlitePool, table: &str) -> anyhow::Result<i64> {
    sqlx::query_scalar("select coalesce(max(seq), 0) from sqlite_sequence where name = ?")
        .bind(table)
        .fetch_one(db)
        .await
        .context("look for its newest rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_anything_else_is_none() {
        let newest = Newest { audit: 12, event: 345 };
        assert_eq!(parse("audit 12 event 345   \n"), Some(newest));
        for text in ["", "audit 12", "audit x event 1", "event 1 audit 2", "\0\0\0"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(newest.max(Newest { audit: 13, event: 0 }), Newest { audit: 13, event: 345 });
    }
}
