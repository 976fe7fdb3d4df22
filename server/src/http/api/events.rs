//! `/api/v1/events` and `/api/v1/audit`: what has happened, and who did what.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event as SseEvent;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::{Error, Result};
use crate::http::extract::{Caller, Items, PageParams, PageQuery, Query, page};
use crate::http::routes::{Access, Routes};
use crate::http::stream;
use crate::inventory::audit::AuditEntry;
use crate::inventory::events::Event;
use crate::service::events;

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(list))
        .add(Access::SignedIn(TokenScope::Read), routes!(follow))
        .add(Access::Overseer(TokenScope::Read), routes!(audit))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    /// Items at most, 1 to 500.
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Only those of this object.
    subject: Option<String>,
}

/// Lists events of the objects that one sees, newest first.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventQuery),
    responses((status = 200, body = Items<Event>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<EventQuery>,
) -> Result<Json<Items<Event>>> {
    let page = page(&app, &PageParams { limit: query.limit, after: query.after })?;
    let listed = events::list(&app, &caller, query.subject.as_deref(), &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Follows events: server-sent events named by their kind. Goes on after `Last-Event-ID`, else
/// begins now.
#[utoipa::path(get, path = "/api/v1/events/stream", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last id received")),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn follow(State(app): State<App>, caller: Caller, headers: HeaderMap) -> Result<Response> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let after = last.and_then(|id| app.keys.unseal(id)?.parse().ok());
    let mut appended = events::appended(&app);
    let mut after = match after {
        Some(after) => after,
        None => events::newest(&app).await?,
    };
    let (reader, who) = (app.clone(), caller.clone());
    let events = async_stream::try_stream! {
        loop {
            appended.mark_unchanged();
            let batch = events::after(&reader, &who, after).await?;
            if batch.is_empty() {
                appended
                    .changed()
                    .await
                    .map_err(|source| Error::broken("wait for events", source))?;
                continue;
            }
            for event in batch {
                after = event.number;
                yield SseEvent::default()
                    .id(reader.keys.seal(&after.to_string())?)
                    .event(&event.kind)
                    .json_data(&event)
                    .map_err(|source| Error::broken("write an event", source))?;
            }
        }
    };
    stream::sse(&app, &caller, events)
}

/// Lists who did what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "events", params(PageParams),
    responses((status = 200, body = Items<AuditEntry>)))]
async fn audit(
    State(app): State<App>,
    PageQuery(page): PageQuery,
) -> Result<Json<Items<AuditEntry>>> {
    Ok(Json(Items::seal(&app, events::audit(&app, &page).await?)?))
}
