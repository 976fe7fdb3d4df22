//! Who did what to a container, and what happened to it: its audit rows and its events as one list.
//!
//! An act's audit row says who and by which way; the event that goes with it says the same again, so
//! only events that nobody asked for, and changes (whose event knows what was changed), are taken.

use serde::Serialize;
use utoipa::ToSchema;

use super::find;
use super::history::{kills_in_words, limits_in_words};
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::audit::{self, AuditEntry};
use crate::inventory::events::{self, Event};
use crate::service::{Listed, Page};

/// One line of a container's story.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerActivity)]
pub struct ActivityView {
    /// When.
    pub time: Time,
    /// What, such as `container.stop` (somebody's act) or `container.ended` (an event).
    pub kind: String,
    /// In words.
    pub text: String,
    /// Who asked for it; null when nobody did.
    pub by: Option<String>,
    /// How they had signed in: `session`, `token` or `root_socket`.
    pub via: Option<String>,
    /// `done`, or the refusal's code.
    pub outcome: String,
}

/// A line and its place in its table, to go on after.
struct Line {
    view: ActivityView,
    event: Option<i64>,
    audit: Option<i64>,
}

/// The story, newest first.
pub async fn activity(
    app: &App,
    caller: &Caller,
    key: &str,
    page: &Page,
) -> Result<Listed<ActivityView>> {
    let row = find(app, caller, key).await?;
    let (event_before, audit_before) = match &page.after {
        Some(text) => position(text)?,
        None => (i64::MAX, i64::MAX),
    };
    let (db, id, sees) = (app.inventory.read(), row.id.as_str(), caller.sees());
    let told = events::story_of(db, sees, id, event_before, page.rows()).await?;
    let done = audit::list_of(db, sees, id, audit_before, page.rows()).await?;
    let mut lines: Vec<Line> =
        told.into_iter().map(happened).chain(done.into_iter().map(acted)).collect();
    // Both are newest first already; of equal times what happened comes after what was asked for.
    lines.sort_by_key(|line| std::cmp::Reverse((line.view.time, line.event.is_some())));
    let (mut event_last, mut audit_last) = (event_before, audit_before);
    let mut rows = Vec::new();
    for line in lines {
        event_last = line.event.unwrap_or(event_last);
        audit_last = line.audit.unwrap_or(audit_last);
        rows.push((line.view, event_last, audit_last));
    }
    let listed = page.cut(rows, |(_, event, audit)| format!("{event} {audit}"));
    let items = listed.items.into_iter().map(|(view, ..)| view).collect();
    Ok(Listed { items, next: listed.next })
}

fn position(text: &str) -> Result<(i64, i64)> {
    let parsed = text
        .split_once(' ')
        .and_then(|(event, audit)| Some((event.parse().ok()?, audit.parse().ok()?)));
    parsed.ok_or_else(|| Error::field("?after", "no such page"))
}

fn acted(entry: AuditEntry) -> Line {
    let text = match entry.action.as_str() {
        "container.create" => "made it",
        "container.start" => "started it",
        "container.stop" => "stopped it",
        "container.kill" => "killed it",
        "container.signal" => "sent it a signal",
        "container.pause" => "paused it",
        "container.resume" => "resumed it",
        "container.extend" => "put off its end",
        "container.remove" => "removes it",
        "container.exec" => "ran a program in it",
        other => other,
    };
    let view = ActivityView {
        time: entry.at,
        text: text.to_owned(),
        kind: entry.action.clone(),
        by: Some(entry.actor_name),
        via: Some(entry.via),
        outcome: entry.outcome,
    };
    Line { view, event: None, audit: Some(entry.id) }
}

fn happened(event: Event) -> Line {
    let text = |name: &str| event.data.get(name).and_then(|value| value.as_str());
    let number = |name: &str| event.data.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let said = match event.kind.as_str() {
        "container.ended" => text("text").unwrap_or("ended").to_owned(),
        "container.restarted" => format!("started again by its policy (start {})", number("run")),
        "container.start_failed" => {
            format!("could not be started: {}", text("reason").unwrap_or("unknown"))
        }
        "container.files_lost" => {
            "restored from a backup, without what it had written: its next start begins anew"
                .to_owned()
        }
        "container.pulled" => "its image was pulled".to_owned(),
        "container.pull_failed" => {
            format!("its image was not pulled: {}", text("reason").unwrap_or("unknown"))
        }
        "container.oom_killed" => kills_in_words(number("kills")),
        "container.changed" => changes_in_words(&event),
        "container.shared" => format!("shared it: {}", text("text").unwrap_or_default()),
        "container.look" => {
            format!("looks into it for an hour: {}", text("text").unwrap_or_default())
        }
        "container.ends_soon" => {
            let why = text("why").unwrap_or("its time is nearly over");
            format!("{why}: it is stopped at {}", text("ends_at").unwrap_or("its end"))
        }
        "container.extended" => match text("to") {
            Some(at) => format!("runs until {at} now"),
            None => "says that it is used".to_owned(),
        },
        "container.look_ended" => "looks into it no more".to_owned(),
        "container.unshared" => format!("shares it no more: {}", text("text").unwrap_or_default()),
        other => other.to_owned(),
    };
    let view = ActivityView {
        time: event.at,
        by: text("by").map(str::to_owned),
        text: said,
        via: None,
        outcome: "done".to_owned(),
        kind: event.kind,
    };
    Line { view, event: Some(event.number), audit: None }
}

fn changes_in_words(event: &Event) -> String {
    let part = |name: &str, end: &str| event.data.get(name)?.get(end).cloned();
    let word = |name: &str, end: &str| {
        let value = part(name, end)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let limits = |end| serde_json::from_value(part("limits", end)?).ok();
    let mut said = Vec::new();
    if let (Some(from), Some(to)) = (limits("from"), limits("to")) {
        said.push(format!("changed limits: {}", limits_in_words(&from, &to)));
    }
    if let (Some(from), Some(to)) = (word("renamed", "from"), word("renamed", "to")) {
        said.push(format!("renamed it from {from} to {to}"));
    }
    if let (Some(from), Some(to)) = (word("restart", "from"), word("restart", "to")) {
        said.push(format!("changed its restart policy from {from} to {to}"));
    }
    if let Some(why) = event.data.get("refused").and_then(|why| why.as_str()) {
        said.push(format!("taken back, the kernel refused it: {why}"));
    }
    if said.is_empty() { "saved its settings as they were".to_owned() } else { said.join("; ") }
}
