//! What confines a container now, as the supervisor has read it from the kernel; and of limits that
//! were changed since it was made, by whom, as its events know.

use berth_runtime::wire::{Limits, PostureLine, PostureWord};
use serde::Serialize;
use utoipa::ToSchema;

use super::history::limits_in_words;
use super::output::not_running;
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::events::{self, Event, Filter};
use crate::service::containers::find;

/// Changes that are looked through for who has set a limit; of older ones nothing is said.
const CHANGES_MAX: u32 = 200;

/// What confines a container.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerPosture)]
pub struct PostureView {
    /// Its first process's user and group ids, capabilities, filter, namespaces, paths, limits, mounts.
    pub items: Vec<LineView>,
    /// How many of them are loosened.
    pub loosened: usize,
}

/// One thing that confines it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = PostureLine, example = json!({
    "id": "no_new_privileges", "word": "holds", "value": "on",
    "reason": "no program gains privileges by its file (set-user-ID, file capabilities)",
    "changed": null,
}))]
pub struct LineView {
    /// What it is: `seccomp`, `namespace.pid`, `limit.memory`, `mount./proc`.
    pub id: String,
    /// How it stands beside the default profile.
    pub word: Word,
    /// What the kernel shows.
    pub value: String,
    /// What that means, or why it is so.
    pub reason: String,
    /// Who has changed it last, of a limit that holds; null when it is as it was when the container was
    /// made, or was changed too long ago to be known.
    pub changed: Option<ChangedView>,
}

/// A change of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PostureChange)]
pub struct ChangedView {
    /// Whose act it was.
    pub by: String,
    /// When.
    pub at: Time,
    /// From what to what: `memory 64 MiB → 96 MiB`.
    pub text: String,
}

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PostureWord)]
pub enum Word {
    /// As the default profile has it, or stricter.
    Holds,
    /// Wider than that.
    Loosened,
    /// This host does not have it.
    Absent,
}

/// Looks at it now.
pub async fn look(app: &App, caller: &Caller, key: &str) -> Result<PostureView> {
    let row = find(app, caller, key).await?;
    let lines = match app.runtime.container_posture(&row.id).await {
        Ok(lines) => lines,
        Err(error) if error.is_not_found() || error.is_not_running() => return Err(not_running()),
        // All that the request holds is an id that both sides know.
        Err(error) if error.is_not_understood() => return Err(older()),
        Err(error) => return Err(error.into()),
    };
    let mut items: Vec<LineView> = lines.into_iter().map(LineView::from).collect();
    let wanted = Filter {
        kinds: vec!["container.changed".to_owned()],
        subject: Some(row.id.to_string()),
        ..Filter::default()
    };
    let db = app.inventory.read();
    let told = events::list_before(db, caller.sees(), &wanted, None, CHANGES_MAX).await?;
    for item in items.iter_mut().filter(|item| item.word == Word::Holds) {
        let limit = item.id.strip_prefix("limit.");
        item.changed = limit.and_then(|limit| last_change(&told, limit));
    }
    let loosened = items.iter().filter(|line| line.word == Word::Loosened).count();
    Ok(PostureView { items, loosened })
}

fn older() -> Error {
    Error::unavailable(
        "supervisor.version",
        "the supervisor is older than the server and cannot look at what confines a container; an \
         operator restarts it (systemctl restart berth-supervisor), and containers live on",
    )
}

/// The newest change of one limit that the kernel has taken. `told` is newest first.
fn last_change(told: &[Event], limit: &str) -> Option<ChangedView> {
    let mut taken_back: Option<Limits> = None;
    for event in told {
        let end = |end| serde_json::from_value(event.data.get("limits")?.get(end)?.clone()).ok();
        let (Some(from), Some(to)): (Option<Limits>, Option<Limits>) = (end("from"), end("to"))
        else {
            continue;
        };
        if event.data.get("refused").is_some() {
            taken_back = Some(from);
            continue;
        }
        if taken_back.take_if(|refused| *refused == to).is_some() {
            continue;
        }
        let alone = only(limit, &from, &to);
        if alone != from {
            return Some(ChangedView {
                by: event.data.get("by")?.as_str()?.to_owned(),
                at: event.at,
                text: limits_in_words(&from, &alone),
            });
        }
    }
    None
}

/// `from` with the one limit as it is in `to`.
fn only(limit: &str, from: &Limits, to: &Limits) -> Limits {
    match limit {
        "cpu" => Limits { cpu_millis: to.cpu_millis, ..*from },
        "cpu_weight" => Limits { cpu_weight: to.cpu_weight, ..*from },
        "memory" => Limits { memory_bytes: to.memory_bytes, ..*from },
        "swap" => Limits { swap_bytes: to.swap_bytes, ..*from },
        "pids" => Limits { pids: to.pids, ..*from },
        _ => *from,
    }
}

impl From<PostureLine> for LineView {
    fn from(line: PostureLine) -> Self {
        let PostureLine { id, word, value, reason } = line;
        let word = match word {
            PostureWord::Holds => Word::Holds,
            PostureWord::Loosened => Word::Loosened,
            PostureWord::Absent => Word::Absent,
        };
        Self { id, word, value, reason, changed: None }
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::id::PrincipalId;
    use serde_json::{Value, json};

    use super::*;

    const MADE: Limits = Limits {
        cpu_millis: 500,
        cpu_weight: 100,
        memory_bytes: 64 << 20,
        swap_bytes: 0,
        pids: 20,
    };

    fn changed(at: i64, data: Value) -> Event {
        Event {
            number: at,
            at: Time(at),
            owner: PrincipalId(5000),
            owner_name: None,
            kind: "container.changed".to_owned(),
            subject_kind: "container".to_owned(),
            subject: String::new(),
            data,
        }
    }

    #[test]
    fn the_newest_change_of_each_limit_counts() {
        let more = Limits { memory_bytes: 96 << 20, ..MADE };
        let both = Limits { pids: 30, ..more };
        let told = [
            changed(4, json!({"by": "tom", "renamed": {"from": "a", "to": "b"}})),
            changed(3, json!({"by": "olga", "limits": {"from": more, "to": both}})),
            changed(2, json!({"by": "anna", "limits": {"from": MADE, "to": more}})),
        ];
        let said = |limit| {
            let change = last_change(&told, limit)?;
            Some((change.by, change.at.0, change.text))
        };
        let memory = ("anna".to_owned(), 2, "memory 64 MiB → 96 MiB".to_owned());
        assert_eq!(said("memory"), Some(memory));
        assert_eq!(said("pids"), Some(("olga".to_owned(), 3, "processes 20 → 30".to_owned())));
        assert_eq!(said("cpu"), None);
    }

    #[test]
    fn what_the_kernel_refused_was_no_change() {
        let more = Limits { memory_bytes: 96 << 20, ..MADE };
        let most = Limits { memory_bytes: 1 << 40, ..more };
        let told = [
            changed(4, json!({"refused": "no", "limits": {"from": most, "to": more}})),
            changed(3, json!({"by": "olga", "limits": {"from": more, "to": most}})),
            changed(2, json!({"by": "anna", "limits": {"from": MADE, "to": more}})),
        ];
        assert_eq!(last_change(&told, "memory").map(|change| change.by), Some("anna".to_owned()));
    }
}
