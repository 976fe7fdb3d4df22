//! The pages of long actions: all of them with their state, one in detail, cancel.

use axum::extract::{Path, Query, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::format::{Moment, bytes, bytes_of, percent, short, span};
use berth_web::operations::{DetailPage, Failure, ListPage, Row, Work, WorkLayer};
use berth_web::parts::{Badge, Fact, Scope};
use berth_web::shell::{ApiCall, Mark, Section, Tone};
use serde::Deserialize;
use serde_json::Value;

use super::form::Posted;
use super::frame::{Frame, encoded, sentence};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope, Visibility};
use crate::clock::Time;
use crate::error::Result;
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::operations::{Filter, Operation, OperationState};
use crate::service::{Page, operations};

/// Rows on one page.
const ROWS: u32 = 100;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    routes
        .page(read, Method::GET, "/operations", list)
        .page(read, Method::GET, "/operations/{id}", detail)
        .form(act, "/operations/{id}/cancel", FormFields::once(&["back"]), cancel)
}

#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    #[serde(default)]
    q: String,
    after: Option<String>,
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let text = query.q.trim();
    let (filter, api) = read(text, &caller.name);
    let after = query.after.as_deref().and_then(|after| app.keys.unseal(after));
    let first = text.is_empty() && after.is_none();
    let listed = operations::list(&app, &caller, filter, &Page { limit: ROWS, after }).await?;
    let next = listed.next.map(|next| app.keys.seal(&next)).transpose()?;
    let now = Time::now().0;
    let going = listed.items.iter().any(|row| row.state == OperationState::Running);
    let mut shell = frame.shell("Operations", Section::Operations);
    shell.live_secs = Some(if going { 1 } else { 5 });
    shell.mark = if going { Mark::Running } else { Mark::Idle };
    shell.calls = vec![
        ApiCall::get("List operations", format!("/api/v1/operations{api}")),
        ApiCall::send("Cancel one", "POST", "/api/v1/operations/ID/cancel", None),
    ];
    let scopes = [("All", ""), ("Under way", "state:running"), ("Failed", "state:failed")];
    let view = ListPage {
        shell,
        scopes: scopes.into_iter().map(|(label, q)| scope(label, q, text)).collect(),
        query: query.q.clone(),
        oversees: caller.sees() == Visibility::Everyone,
        first_use: first && listed.items.is_empty(),
        rows: listed.items.iter().map(|operation| row(operation, &caller, now)).collect(),
        next: next.map(|next| format!("/operations?q={}&after={}", encoded(text), encoded(&next))),
    };
    frame.page(&view)
}

fn scope(label: &'static str, q: &str, now: &str) -> Scope {
    let path = match q {
        "" => "/operations".to_owned(),
        q => format!("/operations?q={}", encoded(q)),
    };
    Scope { label, count: None, path, current: q == now }
}

/// A filter as typed, and the same as the API's query; `me` stands for the one who types.
fn read(text: &str, me: &str) -> (Filter, String) {
    let (mut filter, mut words) = (Filter::default(), Vec::new());
    for word in text.split_whitespace() {
        match word.split_once(':') {
            Some(("state", state)) if state_of(state).is_some() => filter.state = state_of(state),
            Some(("kind", kind)) => filter.kind = Some(kind.to_owned()),
            Some(("owner", "me")) => filter.owner = Some(me.to_owned()),
            Some(("owner", name)) => filter.owner = Some(name.to_owned()),
            _ => words.push(word),
        }
    }
    filter.words = Some(words.join(" ")).filter(|words| !words.is_empty());
    let state = filter.state.map(|state| state_word(state).to_owned());
    let pairs = [
        ("state", state.as_ref()),
        ("kind", filter.kind.as_ref()),
        ("owner", filter.owner.as_ref()),
        ("q", filter.words.as_ref()),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    (filter, query)
}

fn state_of(word: &str) -> Option<OperationState> {
    use OperationState::{Cancelled, Failed, Interrupted, Running, Succeeded};
    let all = [Running, Succeeded, Failed, Cancelled, Interrupted];
    all.into_iter().find(|state| state_word(*state) == word)
}

fn state_word(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Succeeded => "succeeded",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
        OperationState::Interrupted => "interrupted",
    }
}

fn row(operation: &Operation, caller: &Caller, now: i64) -> Row {
    Row {
        work: work(operation, caller),
        owner: owner(operation),
        began: Some(Moment::new(operation.created_at.0, now)),
        took: took(operation, now),
    }
}

fn owner(operation: &Operation) -> String {
    operation.owner_name.clone().unwrap_or_else(|| "system".to_owned())
}

fn took(operation: &Operation, now: i64) -> String {
    let until = operation.ended_at.map_or(now, |at| at.0);
    span(u64::try_from(until - operation.created_at.0).unwrap_or(0) / 1000)
}

async fn detail(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let operation = operations::find(&app, &caller, &id).await?;
    let mut work = work(&operation, &caller);
    let failure = failure(&operation);
    if failure.is_some() {
        // It has a place of its own on this page.
        work.state.reason.clear();
    }
    let now = Time::now().0;
    let running = operation.state == OperationState::Running;
    let mut shell =
        frame.shell(format!("{} {}", work.what, operation.subject), Section::Operations);
    shell.live_secs = running.then_some(1);
    shell.reload_secs = running.then_some(5);
    shell.mark = match operation.state {
        OperationState::Running => Mark::Running,
        OperationState::Failed | OperationState::Interrupted => Mark::Attention,
        _ => Mark::Idle,
    };
    let path = format!("/api/v1/operations/{id}");
    shell.calls = vec![
        ApiCall::get("Show this operation", path.clone()),
        ApiCall::get("Follow it", format!("{path}/events")),
        ApiCall::send("Cancel it", "POST", format!("{path}/cancel"), None),
    ];
    let began = Moment::new(operation.created_at.0, now);
    let mut facts = vec![
        Fact::code("Kind", operation.kind.clone()),
        Fact::text("Begun by", owner(&operation)),
        Fact::text("Began", began.words).with_exact(began.exact),
    ];
    if let Some(at) = operation.ended_at {
        let ended = Moment::new(at.0, now);
        facts.push(Fact::text("Ended", ended.words).with_exact(ended.exact));
    }
    facts.push(Fact::text(if running { "So far" } else { "Took" }, took(&operation, now)));
    facts.push(Fact::copy("Id", short(&id), id.clone()));
    let view = DetailPage { shell, work, facts, made: made(&operation), failure };
    frame.page(&view)
}

/// What an operation made, as names and paths.
fn made(operation: &Operation) -> Vec<(String, String)> {
    let Some(result) = &operation.result else { return Vec::new() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let one = result.get("image").and_then(text);
    let many = result.get("images").and_then(Value::as_array).into_iter().flatten();
    let named = result.get("reference").and_then(text);
    one.into_iter()
        .chain(many.filter_map(text))
        .map(|id| {
            let name = named.clone().unwrap_or_else(|| format!("image {}", short(&id)));
            (name, format!("/images/{}", encoded(&id)))
        })
        .collect()
}

fn failure(operation: &Operation) -> Option<Failure> {
    let failure = operation.failure.as_ref()?;
    let text = |key| failure.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    Some(Failure { message: sentence(&text("message")), code: text("code") })
}

async fn cancel(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let back = posted.optional("back").unwrap_or_else(|| format!("/operations/{id}"));
    let result = operations::cancel(&app, &caller, &id).await;
    frame.outcome(result, &back, "Cancelling.")
}

/// What a kind of operation is called, and what is said while it goes on.
pub(super) fn words(kind: &str) -> (&str, &str) {
    match kind {
        "image.pull" => ("Pull", "pulling"),
        "image.import" => ("Import", "importing"),
        "layers.verify" => ("Verify layers", "verifying"),
        "person.offboard" => ("Take off the machine", "under way"),
        other => (other, "under way"),
    }
}

/// How far an operation is.
pub(super) fn work(operation: &Operation, caller: &Caller) -> Work {
    let progress = &operation.progress;
    let (done, total) = (number(progress, "downloaded_bytes"), number(progress, "total_bytes"));
    let empty = Vec::new();
    let layers = progress.get("layers").and_then(Value::as_array).unwrap_or(&empty);
    let finished = operation.state == OperationState::Succeeded;
    let mine = caller.changes() == Visibility::Everyone || operation.owner == caller.principal;
    let acts = mine && caller.role != Role::Auditor;
    Work {
        id: operation.id.clone(),
        what: words(&operation.kind).0.to_owned(),
        subject: operation.subject.clone(),
        state: badge(operation, layers),
        text: if total > 0 { bytes_of(done, total) } else { String::new() },
        percent: if finished { 100 } else { percent(done, total) },
        layers: layers.iter().map(layer).collect(),
        cancel: (acts && operation.state == OperationState::Running)
            .then(|| format!("/operations/{}/cancel", operation.id)),
    }
}

fn badge(operation: &Operation, layers: &[Value]) -> Badge {
    let failure = operation.failure.as_ref().and_then(|failure| failure.get("message"));
    let ready = layers.iter().filter(|layer| is_ready(layer)).count();
    let (tone, icon, word, reason) = match operation.state {
        OperationState::Running => {
            let reason = match layers.len() {
                0 if operation.subject_kind == "image" => "looking what there is".to_owned(),
                0 => String::new(),
                all => format!("{ready} of {all} layers here"),
            };
            (Tone::Busy, "busy", words(&operation.kind).1, reason)
        }
        OperationState::Succeeded => (Tone::Good, "check", "done", String::new()),
        OperationState::Cancelled => (Tone::Neutral, "cancel", "cancelled", String::new()),
        OperationState::Interrupted => {
            let reason = "the server stopped; try again".to_owned();
            (Tone::Attention, "attention", "interrupted", reason)
        }
        OperationState::Failed => {
            let why = failure.and_then(Value::as_str).unwrap_or("for no known reason");
            (Tone::Bad, "failed", "failed", why.to_owned())
        }
    };
    Badge { tone, icon, word: word.to_owned(), reason }
}

fn layer(layer: &Value) -> WorkLayer {
    let text = |key| layer.get(key).and_then(Value::as_str).unwrap_or("");
    let (done, total) = (number(layer, "downloaded_bytes"), number(layer, "total_bytes"));
    let ready = is_ready(layer);
    WorkLayer {
        digest: short(text("digest")).to_owned(),
        phase: match text("state") {
            "present" => "was here".to_owned(),
            "done" => "here".to_owned(),
            state => state.to_owned(),
        },
        text: if ready { bytes(total) } else { bytes_of(done, total) },
        percent: if ready { 100 } else { percent(done, total) },
        done: ready,
    }
}

fn is_ready(layer: &Value) -> bool {
    matches!(layer.get("state").and_then(Value::as_str), Some("done" | "present"))
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_words_and_keys_and_the_api_takes_them_too() {
        let (filter, api) = read("state:failed kind:image.pull owner:me alpine:3 x", "kim");
        assert_eq!(filter.state, Some(OperationState::Failed));
        assert_eq!(filter.kind.as_deref(), Some("image.pull"));
        assert_eq!(filter.owner.as_deref(), Some("kim"));
        assert_eq!(filter.words.as_deref(), Some("alpine:3 x"));
        assert_eq!(api, "?state=failed&kind=image.pull&owner=kim&q=alpine%3A3+x");
        let (filter, api) = read(" state:nonsense ", "kim");
        assert_eq!((filter.state, filter.words.as_deref()), (None, Some("state:nonsense")));
        assert_eq!(api, "?q=state%3Anonsense");
        assert_eq!(read("", "kim").1, "");
    }
}
