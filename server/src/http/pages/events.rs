//! Events and audit, for those who oversee the machine; filters live in the address.

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::events::{AuditPage, AuditRow, Chain, EventRow, EventsPage, Exports, Object};
use berth_web::format::Moment;
use berth_web::parts::{Badge, Field, Scope};
use berth_web::shell::{ApiCall, Section, Tone};
use serde_json::Value;

use super::form::Posted;
use super::frame::{Frame, encoded, sentence};
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::Result;
use crate::http::extract::{PageParams, page};
use crate::http::routes::{Access, Routes};
use crate::inventory::audit::AuditEntry;
use crate::inventory::audit::verify::{AuditCheck, CheckState};
use crate::inventory::events::Event;
use crate::service::Listed;
use crate::service::audit::{self, Filter as AuditFilter};
use crate::service::events::{self, EXPORT_ROWS_MAX, Filter};

/// Rows on one page.
const ROWS: u32 = 100;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let oversee = Access::Overseer(TokenScope::Read);
    routes.page(oversee, Method::GET, "/events", list).page(oversee, Method::GET, "/audit", acts)
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let names = ["kind", "owner", "subject", "since", "until"];
    let (query, api_query) = queries(&posted, &names);
    let mut fields = names.map(|name| Field::new(posted.text(name)));
    let (listed, next, error) = match wanted_events(&app, &caller, &posted, &mut fields).await? {
        Ok((listed, next)) => (listed, next, String::new()),
        Err(error) => (Vec::new(), None, error),
    };
    let [kind, owner, subject, since, until] = fields;
    let mut shell = frame.shell("Events", Section::Events);
    shell.calls = vec![
        ApiCall::get("List events", with("/api/v1/events", &api_query)),
        ApiCall::get("Follow them", "/api/v1/events/stream"),
    ];
    let now = Time::now().0;
    let failed = !error.is_empty();
    let view = EventsPage {
        shell,
        tabs: tabs("/events"),
        error,
        kind,
        owner,
        subject,
        since,
        until,
        rows: listed.iter().map(|event| event_row(event, now)).collect(),
        exports: exports("/api/v1/events/export", &api_query),
        next: next.map(|next| following("/events", &query, &next)),
        filtered: !query.is_empty(),
    };
    let status = if failed { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    frame.page_with(status, &view)
}

type Found<T> = Result<(Vec<T>, Option<String>), String>;

async fn wanted_events(
    app: &App,
    caller: &Caller,
    posted: &Posted,
    fields: &mut [Field; 5],
) -> Result<Found<Event>> {
    let kinds = match posted.optional("kind").as_deref().map(events::parse_kinds).transpose() {
        Ok(kinds) => kinds.unwrap_or_default(),
        Err(error) => {
            fields[0].error = sentence(&error.to_string());
            return Ok(Err("This filter cannot be read.".to_owned()));
        }
    };
    let filter = Filter {
        kinds,
        subject: posted.optional("subject"),
        owner: posted.optional("owner"),
        since: moment(posted, "since"),
        until: moment(posted, "until"),
    };
    let page = page(app, &PageParams { limit: Some(ROWS), after: posted.optional("after") })?;
    let Listed { items, next } = events::list(app, caller, &filter, &page).await?;
    let next = next.map(|next| app.keys.seal(&next)).transpose()?;
    Ok(Ok((items, next)))
}

async fn acts(
    State(app): State<App>,
    frame: Frame,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let names = ["actor", "action", "owner", "subject", "outcome", "since", "until"];
    let (query, api_query) = queries(&posted, &names);
    let [actor, action, owner, subject, outcome, since, until] =
        names.map(|name| Field::new(posted.text(name)));
    let filter = AuditFilter {
        actor: posted.optional("actor"),
        owner: posted.optional("owner"),
        action: posted.optional("action"),
        subject: posted.optional("subject"),
        outcome: posted.optional("outcome"),
        since: moment(&posted, "since"),
        until: moment(&posted, "until"),
    };
    let page = page(&app, &PageParams { limit: Some(ROWS), after: posted.optional("after") })?;
    let listed = audit::list(&app, &filter, &page).await?;
    let next = listed.next.map(|next| app.keys.seal(&next)).transpose()?;
    let mut shell = frame.shell("Audit", Section::Events);
    shell.calls = vec![
        ApiCall::get("List who did what", with("/api/v1/audit", &api_query)),
        ApiCall::get("The same as a file", with("/api/v1/audit/export", &api_query)),
        ApiCall::get("Check the chain now", "/api/v1/audit/verify"),
    ];
    let now = Time::now().0;
    let view = AuditPage {
        shell,
        tabs: tabs("/audit"),
        chain: app.audit_checks.newest().map(|check| chain(&check, now)),
        error: String::new(),
        actor,
        owner,
        action,
        subject,
        outcome,
        since,
        until,
        rows: listed.items.iter().map(|entry| audit_row(entry, now)).collect(),
        exports: exports("/api/v1/audit/export", &api_query),
        next: next.map(|next| following("/audit", &query, &next)),
        filtered: !query.is_empty(),
    };
    frame.page(&view)
}

fn event_row(event: &Event, now: i64) -> EventRow {
    EventRow {
        at: Moment::new(event.at.0, now),
        kind: event.kind.clone(),
        object: object(&event.subject_kind, &event.subject),
        owner: event.owner_name.clone().unwrap_or_else(|| "system".to_owned()),
        facts: in_words(&event.data),
    }
}

fn audit_row(entry: &AuditEntry, now: i64) -> AuditRow {
    AuditRow {
        at: Moment::new(entry.at.0, now),
        actor: entry.actor_name.clone(),
        via: match entry.via.as_str() {
            "root_socket" => "root on the machine".to_owned(),
            "nothing" => "not signed in".to_owned(),
            "kernel" => "the kernel".to_owned(),
            "policy" => "by its restart policy".to_owned(),
            "server" => "by itself".to_owned(),
            via => format!("by {via}"),
        },
        action: entry.action.clone(),
        object: object(&entry.subject_kind, &entry.subject),
        owner: entry.owner_name.clone().unwrap_or_default(),
        outcome: outcome(&entry.outcome),
        address: entry.address.clone(),
        request_id: entry.request_id.clone(),
        times: entry.times,
    }
}

/// What the newest check of the chain has found.
fn chain(check: &AuditCheck, now: i64) -> Chain {
    let (tone, icon, word) = match check.state {
        CheckState::Whole => (Tone::Good, "check", "whole"),
        CheckState::Broken => (Tone::Bad, "failed", "broken"),
        CheckState::Unfinished => (Tone::Attention, "attention", "not all checked"),
    };
    Chain {
        state: Badge { tone, icon, word: word.to_owned(), ..Badge::default() },
        rows: check.rows,
        fault: check.fault.as_ref().map(|fault| format!("Row {}: {}", fault.id, fault.text)),
        head: check.head.clone(),
        at: Moment::new(check.at.0, now),
    }
}

/// The result of an act: done, or refused with the code.
pub(super) fn outcome(code: &str) -> Badge {
    match code {
        "done" => {
            Badge { tone: Tone::Good, icon: "check", word: "done".into(), ..Badge::default() }
        }
        code => Badge {
            tone: Tone::Attention,
            icon: "failed",
            word: "refused".to_owned(),
            reason: code.to_owned(),
        },
    }
}

/// An object with its page, if its kind has one. It may be gone by now.
fn object(kind: &str, id: &str) -> Object {
    let place = match kind {
        "container" => "containers",
        "image" => "images",
        "person" => "people",
        _ => "",
    };
    let path = match place {
        "" => String::new(),
        place => format!("/{place}/{}", encoded(id)),
    };
    Object { kind: kind.to_owned(), id: id.to_owned(), path }
}

/// An event's facts, one after the other.
fn in_words(data: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pairs = data.as_object().into_iter().flatten();
    pairs.map(|(key, value)| format!("{key} {}", word(value))).collect::<Vec<_>>().join(", ")
}

/// A time as the browser's own field sends it (without a zone: UTC), or as the API takes it.
fn moment(posted: &Posted, name: &str) -> Option<Time> {
    let text = posted.text(name);
    let with_zone = || [format!("{text}:00Z"), format!("{text}Z")];
    Time::parse(text).or_else(|| with_zone().iter().find_map(|text| Time::parse(text)))
}

/// What of the filter is set, for this page's addresses and for the API's, which take times in full.
fn queries(posted: &Posted, names: &[&str]) -> (String, String) {
    let (mut own, mut api) = (Vec::new(), Vec::new());
    for name in names {
        let Some(text) = posted.optional(name) else { continue };
        own.push(format!("{name}={}", encoded(&text)));
        let text = match *name {
            "since" | "until" => moment(posted, name).map(|at| at.to_string()),
            _ => Some(text),
        };
        api.extend(text.map(|text| format!("{name}={}", encoded(&text))));
    }
    (own.join("&"), api.join("&"))
}

fn with(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn following(path: &str, query: &str, next: &str) -> String {
    let and = if query.is_empty() { "" } else { "&" };
    format!("{path}?{query}{and}after={}", encoded(next))
}

fn exports(path: &str, query: &str) -> Exports {
    let and = if query.is_empty() { "" } else { "&" };
    Exports {
        csv: format!("{path}?{query}{and}format=csv"),
        json: format!("{path}?{query}{and}format=json"),
        most: EXPORT_ROWS_MAX,
    }
}

fn tabs(here: &str) -> Vec<Scope> {
    let tab = |label, path: &str| Scope {
        label,
        count: None,
        path: path.to_owned(),
        current: path == here,
    };
    vec![tab("What happened", "/events"), tab("Who did what", "/audit")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_browsers_field_are_utc_and_filters_go_into_addresses() {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let pairs = [("since", "2026-11-25T19:05"), ("actor", "a&b"), ("until", "soon")];
        let posted = Posted::new(pairs.map(own).into());
        assert_eq!(moment(&posted, "since"), Time::parse("2026-11-25T19:05:00Z"));
        assert_eq!(moment(&posted, "until"), None);
        let (own, api) = queries(&posted, &["actor", "since", "until"]);
        assert_eq!(own, "actor=a%26b&since=2026-11-25T19%3A05&until=soon");
        assert_eq!(api, "actor=a%26b&since=2026-11-25T19%3A05%3A00.000Z");
        assert_eq!(following("/audit", "", "x"), "/audit?after=x");
        assert_eq!(in_words(&serde_json::json!({"by": "olga", "run": 2})), "by olga, run 2");
    }
}
