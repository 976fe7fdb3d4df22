//! `/api/v1/containers`: made, run, limited, looked into, removed.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use berth_runtime::id::PrincipalId;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::{Error, Result};
use crate::http::extract::{
    Caller, Create, Items, JsonBody, PageParams, PageQuery, Path, Query, page,
};
use crate::http::precondition::{Precondition, Tagged};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::http::stream;
use crate::inventory::containers::{Filter, Whose};
use crate::service::containers::actions::{self, Change, Force};
use crate::service::containers::activity::{self, ActivityView};
use crate::service::containers::history::{self, HistoryView};
use crate::service::containers::output::{self, LogPart, ProcessesView, StatsView};
use crate::service::containers::posture::{self, PostureView};
use crate::service::containers::spec::{CreateRequest, LimitsRequest, parse_signal};
use crate::service::containers::{self, ContainerView, DetailView, ListFilter, create};
use crate::service::lifecycle::Status;
use crate::service::logs::{LogEntry, LogSelection, LogStream};
use crate::service::looks::{self, LookRequest, LookView};
use crate::service::restart::RestartPolicy;

/// Seconds that a wait takes when nothing is said.
const WAIT_SECS: u64 = 30;

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let operate = Access::Member(TokenScope::Operate);
    routes
        .add(read, routes!(list))
        .add(operate, routes!(make))
        .add(read, routes!(show))
        .add(operate, routes!(change, remove))
        .add(operate, routes!(start))
        .add(operate, routes!(stop))
        .add(operate, routes!(restart))
        .add(operate, routes!(kill))
        .add(operate, routes!(pause))
        .add(operate, routes!(resume))
        .add(operate, routes!(extend))
        .add(read, routes!(wait))
        .add(read, routes!(logs))
        .add(read, routes!(follow_logs))
        .add(read, routes!(processes))
        .add(read, routes!(show_posture))
        .add(read, routes!(stats))
        .add(read, routes!(follow_stats))
        .add(read, routes!(stats_history))
        .add(read, routes!(activity))
        .add(read, routes!(list_looks))
        .add(Access::Operator(TokenScope::Manage), routes!(begin_look, end_look))
}

/// Which containers.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ContainerQuery {
    /// Items at most, 1 to 500.
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Only those in one of these states, separated by commas.
    state: Option<String>,
    /// Only those with this in their name.
    name: Option<String>,
    /// Only those with this in their image's reference.
    image: Option<String>,
    /// Only this person's.
    owner: Option<u32>,
    /// Only one's own (`mine`), or only what others have shared with one (`shared`).
    #[param(inline)]
    whose: Option<WhoseWord>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WhoseWord {
    Mine,
    Shared,
}

/// A change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ContainerChange)]
struct ChangeRequest {
    /// Another name.
    name: Option<String>,
    /// Other limits; those left out stay.
    limits: Option<LimitsRequest>,
    /// Another restart policy.
    restart: Option<RestartPolicy>,
}

/// How to stop.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct StopQuery {
    /// Seconds until it is killed, in place of its own.
    grace_secs: Option<u32>,
}

/// How long.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ExtendQuery {
    /// Seconds from now, 10 to 31536000; when left out, as long as is usual for it, or as its owner's allowance lets it.
    secs: Option<u32>,
}

/// Which signal.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct KillQuery {
    /// By name or number; `KILL` when left out.
    signal: Option<String>,
}

/// Whether to end what runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// Also when it runs.
    #[serde(default)]
    force: bool,
}

/// How long.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    /// Seconds at most, up to 50.
    timeout_secs: Option<u64>,
}

/// What of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// One output only.
    stream: Option<LogStream>,
    /// Nothing older: a time (RFC 3339) or seconds since 1970.
    since: Option<String>,
    /// The last so many lines only.
    tail: Option<usize>,
    /// From this place on: the `next` or the event id of a record.
    from: Option<String>,
    /// Only records with this text (up to 256 bytes), in small or capital letters. The newest 64 MiB
    /// are looked through; that older ones were not is said by a record `{"cut":true}`.
    contains: Option<String>,
    /// As an attachment, for a browser to save.
    #[serde(default)]
    download: bool,
    /// Go on until the container rests.
    #[serde(default)]
    follow: bool,
    /// Begin each line with its time (plain text only).
    #[serde(default)]
    timestamps: bool,
    /// `text` (the default), or `json` for one record a line.
    #[serde(default)]
    #[param(inline)]
    format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A record of a log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogRecord)]
struct LogBody {
    /// When it was written.
    time: String,
    /// Which output.
    stream: LogStream,
    /// The text; bytes that are no UTF-8 are replaced.
    text: String,
    /// Whether the line goes on in the next record of the same output.
    partial: bool,
    /// Where the next record begins.
    next: String,
}

/// Lists containers, newest first.
#[utoipa::path(get, path = "/api/v1/containers", tag = "containers", params(ContainerQuery),
    responses((status = 200, body = Items<ContainerView>), (status = 422, body = ProblemBody)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ContainerQuery>,
) -> Result<Json<Items<ContainerView>>> {
    let page = page(&app, &PageParams { limit: query.limit, after: query.after })?;
    let word = |word: &str| {
        Status::parse(word).ok_or_else(|| Error::field("?state", format!("{word:?} is no state")))
    };
    let states = query.state.as_deref().map(|words| words.split(',').map(word).collect());
    let owner = query.owner.map(PrincipalId);
    let whose = query.whose.map(|whose| match whose {
        WhoseWord::Mine => Whose::Mine,
        WhoseWord::Shared => Whose::Shared,
    });
    let rows = Filter { name: query.name, image: query.image, owner, whose, before: None };
    let filter = ListFilter { states: states.transpose()?.unwrap_or_default(), rows };
    let listed = containers::list(&app, &caller, &filter, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Makes a container, and starts it if asked to. Answers 202 when its image is pulled first.
#[utoipa::path(post, path = "/api/v1/containers", tag = "containers",
    request_body = CreateRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it once")),
    responses(
        (status = 201, body = DetailView, headers(("ETag" = String))),
        (status = 202, body = DetailView, headers(("ETag" = String))),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn make(
    State(app): State<App>,
    caller: Caller,
    Create(body, key): Create<CreateRequest>,
) -> Result<(StatusCode, Tagged<DetailView>)> {
    let made = create::create(&app, &caller, body, key).await?;
    let waits = made.container.status == Status::Pulling;
    let status = if waits { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    Ok((status, tagged(made)))
}

/// Shows a container with all that is known of it.
#[utoipa::path(get, path = "/api/v1/containers/{id}", tag = "containers",
    params(("id" = String, Path, description = "Its id, or the name of one's own")),
    responses(
        (status = 200, body = DetailView, headers(("ETag" = String))),
        (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Tagged<DetailView>> {
    Ok(tagged(containers::inspect(&app, &caller, &key).await?))
}

/// Changes name, limits (at once, if it runs) or restart policy.
#[utoipa::path(patch, path = "/api/v1/containers/{id}", tag = "containers",
    params(
        ("id" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if its ETag is one of these")),
    request_body = ChangeRequest,
    responses(
        (status = 200, body = DetailView, headers(("ETag" = String))),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 412, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Precondition(expected): Precondition,
    JsonBody(body): JsonBody<ChangeRequest>,
) -> Result<Tagged<DetailView>> {
    let ChangeRequest { name, limits, restart } = body;
    let change = Change { limits, restart, name, expected };
    Ok(tagged(actions::change(&app, &caller, &key, change).await?))
}

fn tagged(view: DetailView) -> Tagged<DetailView> {
    Tagged(view.container.version(), view)
}

/// Removes a container with all that was written in it. Answers 202 when the supervisor is away:
/// then it goes when that is back.
#[utoipa::path(delete, path = "/api/v1/containers/{id}", tag = "containers",
    params(
        ("id" = String, Path, description = "Its id or name"), RemoveQuery,
        ("If-Match" = Option<String>, Header, description = "Only if its ETag is one of these")),
    responses(
        (status = 204), (status = 202), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 412, body = ProblemBody)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Precondition(expected): Precondition,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode> {
    let force = if query.force { Force::Yes } else { Force::No };
    let gone = actions::remove_if(&app, &caller, &key, force, expected).await?;
    Ok(if gone { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}

/// Starts a container.
#[utoipa::path(post, path = "/api/v1/containers/{id}/start", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = DetailView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn start(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<DetailView>> {
    Ok(Json(actions::start(&app, &caller, &key).await?))
}

/// Asks a container to end by its stop signal, and kills it when its grace is over.
#[utoipa::path(post, path = "/api/v1/containers/{id}/stop", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), StopQuery),
    responses(
        (status = 200, body = DetailView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn stop(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<StopQuery>,
) -> Result<Json<DetailView>> {
    Ok(Json(actions::stop(&app, &caller, &key, query.grace_secs).await?))
}

/// Stops a container, if it runs, and starts it.
#[utoipa::path(post, path = "/api/v1/containers/{id}/restart", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), StopQuery),
    responses(
        (status = 200, body = DetailView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn restart(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<StopQuery>,
) -> Result<Json<DetailView>> {
    Ok(Json(actions::restart(&app, &caller, &key, query.grace_secs).await?))
}

/// Sends a signal to the first process; `KILL` ends every process.
#[utoipa::path(post, path = "/api/v1/containers/{id}/kill", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), KillQuery),
    responses(
        (status = 200, body = DetailView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn kill(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<KillQuery>,
) -> Result<Json<DetailView>> {
    let name = query.signal.as_deref().unwrap_or("KILL");
    let wrong = || Error::field("?signal", format!("{name:?} is no signal, such as TERM or 15"));
    let signal = parse_signal(name).ok_or_else(wrong)?;
    Ok(Json(actions::kill(&app, &caller, &key, signal).await?))
}

/// Freezes every process.
#[utoipa::path(post, path = "/api/v1/containers/{id}/pause", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = DetailView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn pause(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<DetailView>> {
    Ok(Json(actions::pause(&app, &caller, &key).await?))
}

/// Thaws what was frozen.
#[utoipa::path(post, path = "/api/v1/containers/{id}/resume", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = DetailView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<DetailView>> {
    Ok(Json(actions::resume(&app, &caller, &key).await?))
}

/// Puts off the time at which a running container is stopped, within its owner's allowance.
#[utoipa::path(post, path = "/api/v1/containers/{id}/extend", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), ExtendQuery),
    responses(
        (status = 200, body = DetailView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn extend(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<ExtendQuery>,
) -> Result<Json<DetailView>> {
    Ok(Json(actions::extend(&app, &caller, &key, query.secs).await?))
}

/// Waits until the container rests, or the time is over; `status` tells which.
#[utoipa::path(get, path = "/api/v1/containers/{id}/wait", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), WaitQuery),
    responses((status = 200, body = DetailView), (status = 404, body = ProblemBody)))]
async fn wait(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<DetailView>> {
    let limit = Duration::from_secs(query.timeout_secs.unwrap_or(WAIT_SECS));
    if limit > containers::WAIT_MAX {
        return Err(Error::field("?timeout_secs", "is more than 50"));
    }
    Ok(Json(containers::wait(&app, &caller, &key, limit).await?))
}

/// Gives the log, as plain text or one JSON record a line, to its owner and
/// those with whom its log is shared.
#[utoipa::path(get, path = "/api/v1/containers/{id}/logs", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), LogQuery),
    responses(
        (status = 200, content(
            (String = "text/plain"), (LogBody = "application/x-ndjson"))),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
async fn logs(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response> {
    let selection = selection(&query, None)?;
    let (format, timestamps) = (query.format, query.timestamps);
    let (at, parts) = if query.follow {
        let (at, parts) = output::follow_logs(&app, &caller, &key, selection).await?;
        (at, parts.boxed())
    } else {
        let (at, parts) = output::logs(&app, &caller, &key, selection).await?;
        (at, parts.boxed())
    };
    let chunks = parts.map(move |part| part.map(|part| chunk(part, format, timestamps)));
    let media_type = match format {
        LogFormat::Text => "text/plain; charset=utf-8",
        LogFormat::Json => "application/x-ndjson",
    };
    let headers = [(CONTENT_TYPE, media_type), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let body = Body::from_stream(stream::guarded(&app, &caller, Some(at), chunks)?);
    let name =
        query.download.then_some([(CONTENT_DISPOSITION, "attachment; filename=\"log.txt\"")]);
    Ok(match name {
        Some(name) => (headers, name, body).into_response(),
        None => (headers, body).into_response(),
    })
}

/// Follows the log: server-sent events `stdout` and `stderr`, `gap` when older records were rotated
/// away unread, `end` when the container rests. Goes on after `Last-Event-ID`; for its
/// owner and those with whom its log is shared.
#[utoipa::path(get, path = "/api/v1/containers/{id}/logs/events", tag = "containers",
    params(
        ("id" = String, Path, description = "Its id or name"), LogQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The last id received")),
    responses(
        (status = 200, content_type = "text/event-stream", body = LogBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
async fn follow_logs(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let (at, parts) = output::follow_logs(&app, &caller, &key, selection(&query, last)?).await?;
    stream::sse(&app, &caller, Some(at), log_events(parts))
}

/// Lists the processes; command lines are for its owner and those with whom its files are shared.
#[utoipa::path(get, path = "/api/v1/containers/{id}/processes", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = ProcessesView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn processes(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<ProcessesView>> {
    Ok(Json(output::processes(&app, &caller, &key).await?))
}

/// Shows what confines it now, as the kernel shows it of its first process, beside the default profile.
#[utoipa::path(get, path = "/api/v1/containers/{id}/posture", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = PostureView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 503, body = ProblemBody)))]
async fn show_posture(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<PostureView>> {
    Ok(Json(posture::look(&app, &caller, &key).await?))
}

/// Lists which operators have looked into it and why, newest first; for its owner, operators and auditors.
#[utoipa::path(get, path = "/api/v1/containers/{id}/looks", tag = "containers",
    operation_id = "list_container_looks",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = Items<LookView>), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
async fn list_looks(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<Items<LookView>>> {
    Ok(Json(Items::whole(looks::list(&app, &caller, &key).await?)))
}

/// Looks into somebody else's: for an hour the operator reads its log, environment and files. The owner is told, with the
/// reason.
#[utoipa::path(post, path = "/api/v1/containers/{id}/looks", tag = "containers",
    operation_id = "begin_container_look",
    params(("id" = String, Path, description = "Its id or name")), request_body = LookRequest,
    responses(
        (status = 201, body = LookView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn begin_look(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<LookRequest>,
) -> Result<(StatusCode, Json<LookView>)> {
    Ok((StatusCode::CREATED, Json(looks::begin(&app, &caller, &key, &body).await?)))
}

/// Ends the operator's own look before its hour is over.
#[utoipa::path(delete, path = "/api/v1/containers/{id}/looks", tag = "containers",
    operation_id = "end_container_look",
    params(("id" = String, Path, description = "Its id or name")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn end_look(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<StatusCode> {
    looks::end(&app, &caller, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads once what it uses.
#[utoipa::path(get, path = "/api/v1/containers/{id}/stats", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = StatsView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn stats(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<StatsView>> {
    Ok(Json(output::stats(&app, &caller, &key).await?))
}

/// Follows what it uses: a server-sent event `stats` a second, until it ends.
#[utoipa::path(get, path = "/api/v1/containers/{id}/stats/events", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, content_type = "text/event-stream", body = StatsView),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn follow_stats(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Response> {
    let (at, samples) = output::follow_stats(&app, &caller, &key).await?;
    let events = samples.map(|sample| {
        let event = Event::default().event("stats").json_data(&sample?);
        event.map_err(|source| Error::broken("write figures", source))
    });
    stream::sse(&app, &caller, Some(at), events)
}

/// Which part of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    /// Nothing older: a time (RFC 3339) or seconds since 1970; an hour ago when left out, 61 minutes
    /// ago at most.
    since: Option<String>,
    /// Seconds that one point stands for, 10 (the default) to 3600.
    step: Option<u32>,
    /// `json` (the default), or `csv` for the points alone, as an attachment.
    #[serde(default)]
    #[param(inline)]
    format: HistoryFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum HistoryFormat {
    #[default]
    Json,
    Csv,
}

/// Shows what it has used in the last hour, with the limits that held then, its starts, its ends and
/// what the kernel killed for memory. There are no points for times in which it, or the server, did
/// not run.
#[utoipa::path(get, path = "/api/v1/containers/{id}/stats/history", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), HistoryQuery),
    responses(
        (status = 200, content((HistoryView = "application/json"), (String = "text/csv"))),
        (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn stats_history(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response> {
    let since = query.since.as_deref().map(output::parse_time).transpose()?;
    let view = history::history(&app, &caller, &key, since, query.step).await?;
    Ok(match query.format {
        HistoryFormat::Json => Json(view).into_response(),
        HistoryFormat::Csv => history_csv(&view).into_response(),
    })
}

/// One line a point (RFC 4180), with the limits that held then.
fn history_csv(view: &HistoryView) -> impl IntoResponse + use<> {
    let mut text = String::from(
        "time,cpu_millis,cpu_limit_millis,memory_used_bytes,memory_working_set_bytes,\
         memory_limit_bytes,pids,pids_limit,read_bytes_per_sec,write_bytes_per_sec\r\n",
    );
    for point in &view.points {
        let held = view.limits.iter().rfind(|step| step.from <= point.time);
        let Some(held) = held.or(view.limits.first()).map(|step| &step.limits) else { continue };
        text.push_str(&format!(
            "{},{},{},{},{},{},{},{},{},{}\r\n",
            point.time,
            point.cpu_millis,
            held.cpu_millis,
            point.memory_used_bytes,
            point.memory_working_set_bytes,
            held.memory_bytes,
            point.pids,
            held.pids,
            point.read_bytes_per_sec,
            point.write_bytes_per_sec,
        ));
    }
    let name = format!("attachment; filename=\"{}-last-hour.csv\"", view.id);
    ([(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)], text)
}

/// Lists who did what to it and what happened to it, newest first.
#[utoipa::path(get, path = "/api/v1/containers/{id}/activity", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), PageParams),
    responses((status = 200, body = Items<ActivityView>), (status = 404, body = ProblemBody)))]
async fn activity(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    PageQuery(page): PageQuery,
) -> Result<Json<Items<ActivityView>>> {
    let listed = activity::activity(&app, &caller, &key, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

fn selection(query: &LogQuery, last_event: Option<&str>) -> Result<LogSelection> {
    let wrong = || Error::field("?from", "is no place in a log");
    let from = match (last_event, query.from.as_deref()) {
        // A header that is not ours is a new reader's.
        (Some(id), _) if id.parse::<crate::service::logs::Cursor>().is_ok() => id.parse().ok(),
        (_, Some(text)) => Some(text.parse().map_err(|()| wrong())?),
        (_, None) => None,
    };
    let since = query.since.as_deref().map(output::parse_since).transpose()?;
    let contains = query.contains.clone().filter(|text| !text.is_empty());
    let most = output::SEARCH_TEXT_BYTES_MAX;
    if contains.as_ref().is_some_and(|text| text.len() > most) {
        return Err(Error::field("?contains", format!("is longer than {most} bytes")));
    }
    Ok(LogSelection { stream: query.stream, since, tail: query.tail, from, contains })
}

fn chunk(part: LogPart, format: LogFormat, timestamps: bool) -> Bytes {
    let entries = match (part, format) {
        (LogPart::Entries(entries), _) => entries,
        (LogPart::Gap, LogFormat::Json) => return Bytes::from_static(b"{\"gap\":true}\n"),
        (LogPart::Cut, LogFormat::Json) => return Bytes::from_static(b"{\"cut\":true}\n"),
        (LogPart::Gap | LogPart::Cut, LogFormat::Text) => return Bytes::new(),
    };
    let mut bytes = Vec::new();
    for entry in entries {
        if format == LogFormat::Json {
            let line = serde_json::to_vec(&LogBody::from(&entry));
            bytes.extend(line.expect("a record has string keys only"));
            bytes.push(b'\n');
            continue;
        }
        if timestamps {
            bytes.extend_from_slice(entry.time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&entry.content);
        if !entry.partial || timestamps {
            bytes.push(b'\n');
        }
    }
    bytes.into()
}

fn log_events(
    parts: impl Stream<Item = Result<LogPart>> + Send + 'static,
) -> impl Stream<Item = Result<Event>> + Send + 'static {
    async_stream::try_stream! {
        for await part in parts {
            let entries = match part? {
                LogPart::Entries(entries) => entries,
                LogPart::Gap => {
                    yield Event::default().event("gap").data("{}");
                    continue;
                }
                LogPart::Cut => {
                    yield Event::default().event("cut").data("{}");
                    continue;
                }
            };
            for entry in entries {
                let body = LogBody::from(&entry);
                let name = match entry.stream {
                    LogStream::Stdout => "stdout",
                    LogStream::Stderr => "stderr",
                };
                yield Event::default()
                    .id(&body.next)
                    .event(name)
                    .json_data(&body)
                    .map_err(|source| Error::broken("write a log record", source))?;
            }
        }
        yield Event::default().event("end").data("{}");
    }
}

impl From<&LogEntry> for LogBody {
    fn from(entry: &LogEntry) -> Self {
        Self {
            time: entry.time.clone(),
            stream: entry.stream,
            text: String::from_utf8_lossy(&entry.content).into_owned(),
            partial: entry.partial,
            next: entry.next.to_string(),
        }
    }
}
