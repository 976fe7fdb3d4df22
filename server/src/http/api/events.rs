//! `/api/v1/events`: what has happened.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event as SseEvent;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::TokenScope;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::export::{self, Cells, Format};
use crate::http::extract::{Caller, Items, PageParams, Query, page};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::http::stream;
use crate::inventory::events::Event;
use crate::service::Listed;
use crate::service::events::{self, Begin, Filter, Gap};

/// A stream that has nothing to say says so after this.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(list))
        .add(Access::SignedIn(TokenScope::Read), routes!(follow))
        .add(Access::SignedIn(TokenScope::Read), routes!(export))
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
    /// Only those of these kinds, separated by commas; `image.*` stands for all of images.
    kind: Option<String>,
    /// Only those of this person's objects: an id or a name.
    owner: Option<String>,
    /// Nothing older: a time (RFC 3339) or seconds since 1970.
    since: Option<String>,
    /// Only older: a time (RFC 3339) or seconds since 1970.
    until: Option<String>,
}

/// Which events go into a file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventExportQuery {
    /// How the file is written: `csv` (the default) or `json`, one object a line.
    #[serde(default)]
    #[param(inline)]
    format: Format,
    /// Only those of this object.
    subject: Option<String>,
    /// Only those of these kinds, separated by commas; `image.*` stands for all of images.
    kind: Option<String>,
    /// Only those of this person's objects: an id or a name.
    owner: Option<String>,
    /// Nothing older: a time (RFC 3339) or seconds since 1970.
    since: Option<String>,
    /// Only older: a time (RFC 3339) or seconds since 1970.
    until: Option<String>,
}

/// Which events are followed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FollowQuery {
    /// Goes on after the event with this `id`, for those who cannot set `Last-Event-ID`; the header
    /// goes before it.
    after: Option<String>,
    /// Only those of this object.
    subject: Option<String>,
    /// Only those of these kinds, separated by commas; `image.*` stands for all of images.
    kind: Option<String>,
    /// Only those of this person's objects: an id or a name.
    owner: Option<String>,
}

/// An event with its place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventEntry)]
struct EventView {
    /// Its place in the stream: what `Last-Event-ID` and `after` of the stream take.
    id: String,
    /// The event.
    #[serde(flatten)]
    event: Event,
}

/// Why a stream does not go on where it was asked to.
#[derive(Debug, Serialize)]
struct GapBody {
    reason: Gap,
    detail: &'static str,
}

/// Lists events of the objects that one sees, newest first.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventQuery),
    responses((status = 200, body = Items<EventView>), (status = 422, body = ProblemBody)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<EventQuery>,
) -> Result<Json<Items<EventView>>> {
    let page = page(&app, &PageParams { limit: query.limit, after: query.after.clone() })?;
    let listed = events::list(&app, &caller, &filter(query)?, &page).await?;
    let placed = |event: Event| Ok(EventView { id: place(&app, event.number)?, event });
    let items = listed.items.into_iter().map(placed).collect::<Result<_>>()?;
    Ok(Json(Items::seal(&app, Listed { items, next: listed.next })?))
}

/// Follows events: server-sent events named by their kind. Goes on after `Last-Event-ID` or `after`,
/// over restarts of the server too, without a gap and without saying anything twice; else begins now.
/// An event `gap` says that some in between are no longer kept, or that the place is not known. An
/// event `heartbeat` comes after 15 quiet seconds and moves the place on.
#[utoipa::path(get, path = "/api/v1/events/stream", tag = "events",
    params(
        FollowQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The last id received")),
    responses(
        (status = 200, content_type = "text/event-stream", body = EventView),
        (status = 422, body = ProblemBody)))]
async fn follow(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let filter = Filter {
        kinds: query.kind.as_deref().map(events::parse_kinds).transpose()?.unwrap_or_default(),
        subject: query.subject,
        owner: query.owner,
        ..Filter::default()
    };
    let number = |id: &str| -> Option<i64> { app.keys.unseal(id)?.parse().ok() };
    let header = headers.get("last-event-id").map(|id| id.to_str().ok().and_then(number));
    let last = match (header, query.after.as_deref()) {
        (Some(last), _) => Some(last),
        (None, Some(id)) => {
            let wrong = || Error::field("?after", "no event was given this id");
            Some(Some(number(id).ok_or_else(wrong)?))
        }
        (None, None) => None,
    };
    let begin = events::begin(&app, last).await?;
    stream::sse(&app, &caller, None, stream_of(&app, &caller, filter, begin))
}

fn stream_of(
    app: &App,
    caller: &Caller,
    filter: Filter,
    begin: Begin,
) -> impl Stream<Item = Result<SseEvent>> + Send + 'static {
    let mut appended = events::appended(app);
    let (app, caller) = (app.clone(), caller.clone());
    async_stream::try_stream! {
        let mut after = begin.after;
        if let Some(gap) = begin.gap {
            yield gap_event(&app, after, gap)?;
        }
        loop {
            appended.mark_unchanged();
            let batch = events::after(&app, &caller, &filter, after).await?;
            if let Some(gap) = batch.gap {
                yield gap_event(&app, after, gap)?;
            }
            for event in batch.events {
                after = event.number;
                yield SseEvent::default()
                    .id(place(&app, after)?)
                    .event(&event.kind)
                    .json_data(&event)
                    .map_err(|source| Error::broken("write an event", source))?;
            }
            if after < batch.seen {
                after = batch.seen;
                continue;
            }
            match tokio::time::timeout(HEARTBEAT, appended.changed()).await {
                Ok(changed) => {
                    changed.map_err(|source| Error::broken("wait for events", source))?;
                }
                Err(_quiet) => {
                    yield SseEvent::default()
                        .id(place(&app, after)?)
                        .event("heartbeat")
                        .json_data(serde_json::json!({"at": Time::now()}))
                        .map_err(|source| Error::broken("write an event", source))?;
                }
            }
        }
    }
}

fn gap_event(app: &App, after: i64, reason: Gap) -> Result<SseEvent> {
    let body = GapBody { reason, detail: reason.detail() };
    let event = SseEvent::default().id(place(app, after)?).event("gap").json_data(&body);
    event.map_err(|source| Error::broken("write an event", source))
}

/// An event's number as it is given out.
fn place(app: &App, number: i64) -> Result<String> {
    app.keys.seal(&number.to_string())
}

pub(super) fn time(pointer: &'static str, text: &str) -> Result<Time> {
    let wrong = || Error::field(pointer, "is neither a time (RFC 3339) nor seconds since 1970");
    Time::parse(text).ok_or_else(wrong)
}

/// Gives all events that fit as a file; at most 50,000.
#[utoipa::path(get, path = "/api/v1/events/export", tag = "events", params(EventExportQuery),
    responses(
        (status = 200, content((String = "text/csv"), (Event = "application/x-ndjson"))),
        (status = 422, body = ProblemBody)))]
async fn export(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<EventExportQuery>,
) -> Result<Response> {
    let EventExportQuery { format, subject, kind, owner, since, until } = query;
    let query = EventQuery { limit: None, after: None, subject, kind, owner, since, until };
    let events = events::export(&app, &caller, filter(query)?).await?;
    export::file(&app, &caller, ("events", format), events)
}

fn filter(query: EventQuery) -> Result<Filter> {
    Ok(Filter {
        kinds: query.kind.as_deref().map(events::parse_kinds).transpose()?.unwrap_or_default(),
        subject: query.subject,
        owner: query.owner,
        since: query.since.as_deref().map(|text| time("?since", text)).transpose()?,
        until: query.until.as_deref().map(|text| time("?until", text)).transpose()?,
    })
}

impl Cells for Event {
    const NAMES: &'static [&'static str] =
        &["at", "owner", "owner_name", "kind", "subject_kind", "subject", "data"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.at.to_string(),
            self.owner.to_string(),
            self.owner_name.clone().unwrap_or_default(),
            self.kind.clone(),
            self.subject_kind.clone(),
            self.subject.clone(),
            self.data.to_string(),
        ]
    }
}
