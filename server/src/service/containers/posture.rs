//! What confines a container now, as the supervisor has read it from the kernel.

use berth_runtime::wire::{PostureLine, PostureWord};
use serde::Serialize;
use utoipa::ToSchema;

use super::output::not_running;
use crate::app::App;
use crate::auth::Caller;
use crate::error::Result;
use crate::service::containers::find;

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
}))]
pub struct LineView {
    /// What it is: `seccomp`, `namespace.pid`, `limit.memory`, `mount./proc`.
    pub id: String,
    /// How it stands beside the default profile.
    pub word: Word,
    /// What the kernel shows.
    pub value: String,
    /// What that means, or why it is so and who has made it so.
    pub reason: String,
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
        Err(error) => return Err(error.into()),
    };
    let items: Vec<LineView> = lines.into_iter().map(LineView::from).collect();
    let loosened = items.iter().filter(|line| line.word == Word::Loosened).count();
    Ok(PostureView { items, loosened })
}

impl From<PostureLine> for LineView {
    fn from(line: PostureLine) -> Self {
        let PostureLine { id, word, value, reason } = line;
        let word = match word {
            PostureWord::Holds => Word::Holds,
            PostureWord::Loosened => Word::Loosened,
            PostureWord::Absent => Word::Absent,
        };
        Self { id, word, value, reason }
    }
}
