//! What is behind a container: who did what to it, and how the API and the supervisor have it.

use axum::extract::{Path, Query, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::containers::{ActivityPage, ActivityRow, RawBlock, RawPage, Tab};
use berth_web::format::Moment;
use berth_web::shell::ApiCall;
use serde::Deserialize;

use super::container::shell;
use super::frame::{Frame, encoded};
use super::shown;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::extract::{Items, PageParams, page};
use crate::http::routes::{Access, Routes};
use crate::service::containers;
use crate::service::containers::activity::{self, ActivityView};

/// Lines on one page.
const ROWS: u32 = 50;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    routes.page(read, Method::GET, "/containers/{id}/activity", show_activity).page(
        read,
        Method::GET,
        "/containers/{id}/raw",
        show_raw,
    )
}

#[derive(Debug, Default, Deserialize)]
struct After {
    after: Option<String>,
}

async fn show_activity(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<After>,
) -> Result<Response> {
    let view = containers::inspect(&app, &caller, &id).await?.container;
    let wanted = page(&app, &PageParams { limit: Some(ROWS), after: query.after })?;
    let listed = activity::activity(&app, &caller, &id, &wanted).await?;
    let listed = Items::seal(&app, listed)?;
    let path = format!("/api/v1/containers/{}/activity", view.id);
    let next = listed
        .next
        .map(|next| format!("/containers/{}/activity?after={}", view.id, encoded(&next)));
    let now = Time::now().0;
    let view = ActivityPage {
        shell: shell(&frame, &view, vec![ApiCall::get("List what happened to it", path)]),
        head: shown::head(&caller, &view, Tab::Activity),
        rows: listed.items.into_iter().map(|line| row(line, now)).collect(),
        next,
    };
    frame.page(&view)
}

fn row(line: ActivityView, now: i64) -> ActivityRow {
    let bad = matches!(
        line.kind.as_str(),
        "container.start_failed"
            | "container.pull_failed"
            | "container.oom_killed"
            | "container.files_lost"
    );
    ActivityRow {
        at: Moment::new(line.time.0, now),
        by: line.by.unwrap_or_default(),
        via: match line.via.as_deref() {
            Some("session") => "in the browser or by a session",
            Some("token") => "by a token",
            Some("root_socket") => "as the machine's root",
            _ => "",
        },
        text: match line.outcome.as_str() {
            "done" => line.text,
            refused => format!("{}: refused, {refused}", line.text),
        },
        bad,
    }
}

async fn show_raw(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let spec = containers::merged_spec(&app, &caller, &id).await?;
    let mut blocks = vec![RawBlock {
        title: "As the API gives it",
        hint: "The answer to GET /api/v1/containers/{id}, with the kernel's files of each limit \
               while it runs.",
        text: pretty(&detail)?,
    }];
    if let Some(spec) = spec {
        blocks.push(RawBlock {
            title: "As the supervisor gets it",
            hint: "Your request and the image made into one; the supervisor adds the fixed \
                   profile, which nobody can loosen.",
            text: pretty(&spec)?,
        });
    }
    let view = &detail.container;
    let path = format!("/api/v1/containers/{}", view.id);
    let page = RawPage {
        shell: shell(&frame, view, vec![ApiCall::get("Show this container", path)]),
        head: shown::head(&caller, view, Tab::Raw),
        blocks,
    };
    frame.page(&page)
}

fn pretty(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::broken("write JSON", error))
}
