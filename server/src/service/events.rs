//! What has happened to the objects that a caller sees.

use futures_util::Stream;
use serde::Serialize;

use super::{Listed, Page};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::inventory::events::{self, Event};

pub use crate::inventory::events::Filter;

/// Events that one read of a stream takes at most.
const BATCH: u32 = 256;
/// Rows in one export at most, and read at once.
pub const EXPORT_ROWS_MAX: u32 = 50_000;
pub(super) const EXPORT_BATCH: u32 = 1000;
/// Kinds in one filter at most, and their length.
const KINDS_MAX: usize = 32;
const KIND_BYTES_MAX: usize = 64;

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// After this event's number.
    pub after: i64,
    /// Why that is not where it was asked to begin.
    pub gap: Option<Gap>,
}

/// Why events may be missing in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// They have been dropped for their age or their number; the stream goes on with the oldest kept.
    NoLongerKept,
    /// The place is not one of this server's, or its inventory has been set back; the stream begins
    /// now.
    Unknown,
}

/// A part of a stream.
#[derive(Debug)]
pub struct Batch {
    /// The events, oldest first; may be none.
    pub events: Vec<Event>,
    /// All up to this number have been looked at, those that the filter leaves out too.
    pub seen: i64,
    /// Set when some were dropped before they could be read.
    pub gap: Option<Gap>,
}

/// Events, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: &Filter,
    page: &Page,
) -> Result<Listed<Event>> {
    let before = number(page.after.as_deref())?;
    let db = app.inventory.read();
    let rows = events::list_before(db, caller.sees(), filter, before, page.rows()).await?;
    Ok(page.cut(rows, |event| event.number.to_string()))
}

/// The kinds that a filter names, separated by commas: `container.started`, `image.*`.
///
/// # Errors
/// Points at `?kind`.
pub fn parse_kinds(text: &str) -> Result<Vec<String>> {
    let good = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    let kinds: Vec<String> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    let all_good = kinds.iter().all(|kind| {
        let bare = kind.strip_suffix(".*").unwrap_or(kind);
        !bare.is_empty() && kind.len() <= KIND_BYTES_MAX && bare.chars().all(good)
    });
    if !all_good || kinds.len() > KINDS_MAX {
        let rule = format!("use up to {KINDS_MAX} kinds such as container.started or image.*");
        return Err(Error::field("?kind", rule));
    }
    Ok(kinds)
}

/// Where a stream that was last seen at `last` goes on; one without begins after what is there now.
/// `last` is a number, or `None` in it when it is none of ours.
pub async fn begin(app: &App, last: Option<Option<i64>>) -> Result<Begin> {
    let kept = events::kept(app.inventory.read()).await?;
    Ok(match last {
        None => Begin { after: kept.last, gap: None },
        Some(Some(last)) if last < kept.first - 1 => {
            Begin { after: kept.first - 1, gap: Some(Gap::NoLongerKept) }
        }
        Some(Some(last)) if last <= kept.last => Begin { after: last, gap: None },
        Some(_) => Begin { after: kept.last, gap: Some(Gap::Unknown) },
    })
}

/// The next events after `after`, oldest first.
pub async fn after(app: &App, caller: &Caller, filter: &Filter, after: i64) -> Result<Batch> {
    let db = app.inventory.read();
    // Asked before reading: numbers are given in the order of commits, so that whatever the reading
    // finds no more of is not below it.
    let kept = events::kept(db).await?;
    let lost = after < kept.first - 1;
    let after = if lost { kept.first - 1 } else { after };
    let events = events::list_after(db, caller.sees(), filter, after, BATCH).await?;
    let last = events.last().map(|event| event.number);
    let seen = match last {
        Some(last) if events.len() >= BATCH as usize => last,
        last => kept.last.max(last.unwrap_or(after)).max(after),
    };
    Ok(Batch { events, seen, gap: lost.then_some(Gap::NoLongerKept) })
}

/// Changes whenever an event is added.
pub fn appended(app: &App) -> tokio::sync::watch::Receiver<u64> {
    app.inventory.appended()
}

/// All events that fit, newest first, in batches.
///
/// # Errors
/// When more fit than are given out at once.
pub async fn export(
    app: &App,
    caller: &Caller,
    filter: Filter,
) -> Result<impl Stream<Item = Result<Vec<Event>>> + Send + 'static + use<>> {
    let db = app.inventory.read();
    if events::count(db, caller.sees(), &filter, EXPORT_ROWS_MAX + 1).await? > EXPORT_ROWS_MAX {
        return Err(too_many());
    }
    let (app, sees) = (app.clone(), caller.sees());
    Ok(async_stream::try_stream! {
        let mut before = None;
        loop {
            let db = app.inventory.read();
            let rows = events::list_before(db, sees, &filter, before, EXPORT_BATCH).await?;
            let Some(last) = rows.last() else { break };
            before = Some(last.number);
            yield rows;
        }
    })
}

pub(super) fn too_many() -> Error {
    Error::invalid(
        "export.too-large",
        format!("more than {EXPORT_ROWS_MAX} rows fit; narrow it by time or by a filter"),
    )
}

pub(super) fn number(text: Option<&str>) -> Result<Option<i64>> {
    let parse = |text: &str| text.parse().map_err(|_| Error::field("?after", "no such page"));
    text.map(parse).transpose()
}

impl Gap {
    /// In words, for whoever reads the stream.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoLongerKept => {
                "events between the last one you received and the next one here are no longer kept; \
                 read again whatever you derive from them"
            }
            Self::Unknown => {
                "this server does not know the event that you received last, so the stream begins \
                 now; read again whatever you derive from it"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_words_with_dots_and_a_star_at_the_end() {
        assert_eq!(
            parse_kinds("container.started, image.*").expect("good"),
            ["container.started", "image.*"]
        );
        for wrong in ["", ",", "*", ".*x", "a'b", "Container.started", "a.*.b", &"a,".repeat(40)] {
            assert!(parse_kinds(wrong).is_err(), "{wrong}");
        }
    }
}
