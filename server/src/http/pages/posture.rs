//! What confines a container now, line by line.

use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::containers::Tab;
use berth_web::format::Moment;
use berth_web::posture::{Look, PostureChange, PostureGroup, PosturePage, PostureRow};
use berth_web::shell::ApiCall;

use super::container::shell;
use super::frame::{Frame, sentence};
use super::log::visible;
use super::shown;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::service::containers::{self, posture};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.page(Access::SignedIn(TokenScope::Read), Method::GET, "/containers/{id}/posture", show)
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
    let (look, items) = match posture::look(&app, &caller, &id).await {
        Ok(found) => (Look::Seen { loosened: found.loosened }, found.items),
        Err(Error::Conflict(_)) => (Look::AtRest, Vec::new()),
        Err(error @ Error::Unavailable(_)) => {
            (Look::Failed { why: sentence(&error.to_string()) }, Vec::new())
        }
        Err(error) => return Err(error),
    };
    let path = format!("/api/v1/containers/{}/posture", view.id);
    let page = PosturePage {
        shell: shell(&frame, view, vec![ApiCall::get("What confines it", path)]),
        head: shown::head(&caller, view, Tab::Posture),
        look,
        groups: groups(items, Time::now().0),
    };
    frame.page(&page)
}

/// The lines under headings, in their order.
fn groups(items: Vec<posture::LineView>, now: i64) -> Vec<PostureGroup> {
    let mut groups: Vec<PostureGroup> = Vec::new();
    for item in items {
        let (kind, rest) = item.id.split_once('.').unwrap_or((&item.id, ""));
        let (title, name) = match kind {
            "user_map" => ("Who it is", "User ids"),
            "group_map" => ("Who it is", "Group ids"),
            "capabilities" => ("What it may do", rest),
            "no_new_privileges" => ("What it may do", "no new privileges"),
            "seccomp" => ("What it may do", "seccomp filter"),
            "apparmor" => ("What it may do", "AppArmor"),
            "oom_score_adj" => ("What it may do", "spared when memory lacks"),
            "namespace" => ("Namespaces", rest),
            "masked" => ("Files that cannot be read", rest),
            "read_only" => ("Files that cannot be written", rest),
            "limit" => ("Limits", rest),
            _ => ("Mounts", rest),
        };
        let row = PostureRow {
            name: visible(name),
            word: match item.word {
                posture::Word::Holds => "holds",
                posture::Word::Loosened => "loosened",
                posture::Word::Absent => "not here",
            },
            loosened: item.word == posture::Word::Loosened,
            value: visible(&item.value),
            reason: visible(&item.reason),
            changed: item.changed.map(|change| PostureChange {
                text: change.text,
                by: change.by,
                at: Moment::new(change.at.0, now),
            }),
        };
        match groups.last_mut() {
            Some(group) if group.title == title => group.rows.push(row),
            _ => groups.push(PostureGroup { title, rows: vec![row] }),
        }
    }
    groups
}
