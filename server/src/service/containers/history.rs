//! What a container has used in the last hour, with the limits that held then and what happened to
//! it. The figures come from memory ([`crate::service::history`]), everything else from its events.

use std::time::Duration;

use berth_runtime::wire::Limits;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::find;
use super::view::{LimitsView, bytes};
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers::Container;
use crate::inventory::events::{self, Event};
use crate::service::history::{KEPT, POINT_PAUSE, Point};

/// Shown when nothing is said.
const SHOWN: Duration = Duration::from_secs(3600);
/// Seconds that one point may stand for.
const STEP_SECS_MAX: u32 = 3600;
/// Marks in one answer at most; the newest are kept.
const MARKS_MAX: u32 = 200;

/// A container's last hour.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerHistory)]
pub struct HistoryView {
    /// The container.
    pub id: String,
    /// The first moment that was asked for, at most 61 minutes ago.
    pub since: Time,
    /// Now.
    pub until: Time,
    /// Seconds that a point stands for. Points further apart have nothing between them: the
    /// container did not run, or the server did not.
    pub step_secs: u32,
    /// What it used, oldest first.
    pub points: Vec<PointView>,
    /// The limits, each from its time on, oldest first; the first holds at `since`.
    pub limits: Vec<LimitsFrom>,
    /// What happened to it, oldest first.
    pub marks: Vec<Mark>,
    /// Whether there were more marks than can be told; then the oldest are left out.
    pub marks_truncated: bool,
}

/// What it used around one moment: means of processor and traffic, the most of the rest.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ContainerHistoryPoint)]
pub struct PointView {
    /// The end of the time that it stands for.
    pub time: Time,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// All memory that counts to the limit.
    pub memory_used_bytes: u64,
    /// Memory that cannot be taken back easily.
    pub memory_working_set_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes read from block devices in a second.
    pub read_bytes_per_sec: u64,
    /// Bytes written to block devices in a second.
    pub write_bytes_per_sec: u64,
}

/// Limits and since when they hold.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerLimitsFrom)]
pub struct LimitsFrom {
    /// Since when.
    pub from: Time,
    /// The limits.
    pub limits: LimitsView,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerMark)]
pub struct Mark {
    /// When.
    pub time: Time,
    /// What kind of thing.
    pub kind: MarkKind,
    /// In words.
    pub text: String,
}

/// What kind of thing a mark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A run began.
    Start,
    /// A run ended, or could not begin.
    End,
    /// The kernel killed for memory, some of it or all.
    OutOfMemory,
    /// Its limits were changed.
    Limits,
}

/// What an event says of a change of one thing.
#[derive(Debug, Deserialize)]
struct FromTo<T> {
    from: T,
    to: T,
}

/// What a container has used since `since`, a point every `step_secs`.
pub async fn history(
    app: &App,
    caller: &Caller,
    key: &str,
    since: Option<Time>,
    step_secs: Option<u32>,
) -> Result<HistoryView> {
    let least = u32::try_from(POINT_PAUSE.as_secs()).unwrap_or(u32::MAX);
    let step_secs = step_secs.unwrap_or(least);
    if !(least..=STEP_SECS_MAX).contains(&step_secs) {
        let text = format!("{step_secs} is not between {least} and {STEP_SECS_MAX} seconds");
        return Err(Error::field("?step", text));
    }
    let row = find(app, caller, key).await?;
    let until = Time::now();
    let since = since.unwrap_or(until.before(SHOWN)).max(until.before(KEPT)).min(until);
    let told = events::of_subject(
        app.inventory.read(),
        caller.sees(),
        row.id.as_str(),
        since,
        MARKS_MAX + 1,
    )
    .await?;
    let points = stepped(&app.history.points(&row.id, since), step_secs);
    let marks_truncated = told.len() > MARKS_MAX as usize;
    let newest = &told[..told.len().min(MARKS_MAX as usize)];
    let mut marks: Vec<Mark> = newest.iter().filter_map(mark).collect();
    marks.reverse();
    Ok(HistoryView {
        id: row.id.to_string(),
        since,
        until,
        step_secs,
        points,
        limits: limits_over_time(&row, newest, since),
        marks,
        marks_truncated,
    })
}

/// Points of `step_secs` each.
fn stepped(points: &[Point], step_secs: u32) -> Vec<PointView> {
    let step = i64::from(step_secs.max(1));
    let same = |a: &Point, b: &Point| {
        // A point stands for the time before it.
        let slot = |point: &Point| (point.time().secs() - 1).div_euclid(step);
        slot(a) == slot(b)
    };
    points.chunk_by(same).filter_map(together).collect()
}

fn together(points: &[Point]) -> Option<PointView> {
    let last = points.last()?;
    let count = points.len() as u64;
    let mean = |of: fn(&Point) -> u64| points.iter().map(of).sum::<u64>() / count;
    let most = |of: fn(&Point) -> u64| points.iter().map(of).max().unwrap_or(0);
    Some(PointView {
        time: last.time(),
        cpu_millis: u32::try_from(mean(|point| point.cpu_millis.into())).unwrap_or(u32::MAX),
        memory_used_bytes: most(Point::used_bytes),
        memory_working_set_bytes: most(Point::working_set_bytes),
        pids: points.iter().map(|point| point.pids).max().unwrap_or(0),
        read_bytes_per_sec: mean(Point::read_bytes),
        write_bytes_per_sec: mean(Point::write_bytes),
    })
}

/// The limits now, taken back change by change. `told` is newest first.
fn limits_over_time(row: &Container, told: &[Event], since: Time) -> Vec<LimitsFrom> {
    let mut holds: Limits = row.limits;
    let mut out = Vec::new();
    for event in told {
        let Some(change) = change_of::<Limits>(event, "limits") else { continue };
        out.push(LimitsFrom { from: event.at, limits: holds.into() });
        holds = change.from;
    }
    out.push(LimitsFrom { from: since, limits: holds.into() });
    out.reverse();
    out
}

fn change_of<T: serde::de::DeserializeOwned>(event: &Event, name: &str) -> Option<FromTo<T>> {
    if event.kind != "container.changed" {
        return None;
    }
    serde_json::from_value(event.data.get(name)?.clone()).ok()
}

/// What an event is on a chart; most are nothing.
fn mark(event: &Event) -> Option<Mark> {
    let text = |name: &str| event.data.get(name).and_then(|value| value.as_str()).unwrap_or("");
    let number = |name: &str| event.data.get(name).and_then(serde_json::Value::as_u64);
    let run = number("run").unwrap_or(0);
    let (kind, text) = match event.kind.as_str() {
        "container.started" => (MarkKind::Start, format!("started (start {run})")),
        "container.restarted" => {
            (MarkKind::Start, format!("started again by its policy (start {run})"))
        }
        "container.ended" if text("cause") == "out_of_memory" => {
            (MarkKind::OutOfMemory, text("text").to_owned())
        }
        "container.ended" => (MarkKind::End, text("text").to_owned()),
        "container.start_failed" => {
            (MarkKind::End, format!("could not be started: {}", text("reason")))
        }
        "container.oom_killed" => (MarkKind::OutOfMemory, kills_in_words(number("kills")?)),
        "container.changed" => {
            let change = change_of::<Limits>(event, "limits")?;
            (MarkKind::Limits, limits_in_words(&change.from, &change.to))
        }
        _ => return None,
    };
    Some(Mark { time: event.at, kind, text })
}

/// How many processes the kernel has killed for memory.
pub(super) fn kills_in_words(kills: u64) -> String {
    match kills {
        1 => "1 process killed: out of memory".to_owned(),
        kills => format!("{kills} processes killed: out of memory"),
    }
}

/// A change of limits: `memory 64 MiB → 96 MiB, processes 20 → 30`.
pub(super) fn limits_in_words(from: &Limits, to: &Limits) -> String {
    let cores = |millis: u32| {
        let text = format!("{}.{:02}", millis / 1000, millis % 1000 / 10);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let all = [
        ("processor", cores(from.cpu_millis), cores(to.cpu_millis)),
        ("weight", from.cpu_weight.to_string(), to.cpu_weight.to_string()),
        ("memory", bytes(from.memory_bytes), bytes(to.memory_bytes)),
        ("swap", bytes(from.swap_bytes), bytes(to.swap_bytes)),
        ("processes", from.pids.to_string(), to.pids.to_string()),
    ];
    let changed = all.iter().filter(|(_, from, to)| from != to);
    let words: Vec<_> = changed.map(|(name, from, to)| format!("{name} {from} → {to}")).collect();
    match words.is_empty() {
        true => "limits set anew".to_owned(),
        false => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::id::PrincipalId;
    use serde_json::json;

    use super::super::view::tests::row;
    use super::*;
    use crate::inventory::containers::Intent;

    fn event(at: i64, kind: &str, data: serde_json::Value) -> Event {
        Event {
            number: at,
            at: Time(at),
            owner: PrincipalId(5000),
            owner_name: None,
            kind: kind.to_owned(),
            subject_kind: "container".to_owned(),
            subject: String::new(),
            data,
        }
    }

    #[test]
    fn limits_are_those_that_held_then() {
        let row = row(Intent::Running, 1);
        let was = Limits { memory_bytes: 64 << 20, ..row.limits };
        let between = Limits { memory_bytes: 32 << 20, ..row.limits };
        // Newest first, as the inventory answers.
        let told = [
            event(30, "container.changed", json!({"limits": {"from": between, "to": row.limits}})),
            event(25, "container.changed", json!({"renamed": {"from": "a", "to": "b"}})),
            event(20, "container.changed", json!({"limits": {"from": was, "to": between}})),
        ];
        let over_time = limits_over_time(&row, &told, Time(10));
        let seen: Vec<_> =
            over_time.iter().map(|step| (step.from.0, step.limits.memory_bytes)).collect();
        assert_eq!(seen, [(10, 64 << 20), (20, 32 << 20), (30, row.limits.memory_bytes)]);
        assert_eq!(limits_over_time(&row, &[], Time(10)).len(), 1);
    }

    #[test]
    fn marks_say_what_happened() {
        let row = row(Intent::Running, 1);
        let other = Limits { pids: row.limits.pids + 10, cpu_millis: 1500, ..row.limits };
        let said =
            |kind: &str, data| mark(&event(1, kind, data)).map(|mark| (mark.kind, mark.text));
        assert_eq!(
            said("container.ended", json!({"cause": "out_of_memory", "text": "killed: x"})),
            Some((MarkKind::OutOfMemory, "killed: x".to_owned()))
        );
        assert_eq!(
            said("container.oom_killed", json!({"kills": 2})),
            Some((MarkKind::OutOfMemory, "2 processes killed: out of memory".to_owned()))
        );
        let (kind, text) =
            said("container.changed", json!({"limits": {"from": row.limits, "to": other}}))
                .expect("a mark");
        assert_eq!(kind, MarkKind::Limits);
        assert!(text.contains("→ 1.5") && text.contains("processes"), "{text}");
        assert_eq!(said("container.changed", json!({"renamed": {"from": "a", "to": "b"}})), None);
        assert_eq!(said("container.paused", json!({})), None);
    }
}
