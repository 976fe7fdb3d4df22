//! Asking for more, and answering: one page, on which people see their own and operators decide in place.

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::asks::{AskForm, AsksPage, LimitChoice, OpenAsk, PastAsk};
use berth_web::format::{Moment, bytes, cores, read_bytes, read_cores};
use berth_web::parts::{Badge, Fact, Field};
use berth_web::shell::{ApiCall, Section, Tone};

use super::form::{Posted, Wrong};
use super::frame::{Frame, leads, sentence};
use super::person::last_day;
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::extract::{Items, PageParams, Path, page};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::allowances::Bounded;
use crate::inventory::asks::{AskState, Filter};
use crate::service::Page;
use crate::service::admission::words;
use crate::service::asks::{self, ApproveRequest, AskRequest, AskView, DeclineRequest};
use crate::service::space::SpaceLimit;

const PATH: &str = "/asks";
/// Asks that wait, on one page; the API lists all.
const OPEN_ROWS: u32 = 100;
/// Asks that were answered, on one page.
const ROWS: u32 = 50;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    let decide = Access::Operator(TokenScope::Manage);
    let fields = FormFields::once(&["limit", "wanted", "until", "reason"]);
    let granted = FormFields::once(&["granted", "until", "answer"]);
    routes
        .page(Access::SignedIn(TokenScope::Read), Method::GET, PATH, look)
        .form(act, PATH, fields, make)
        .form(act, "/asks/{id}/withdraw", FormFields::once(&[]), withdraw)
        .form(decide, "/asks/{id}/approve", granted, approve)
        .form(decide, "/asks/{id}/decline", FormFields::once(&["reason"]), decline)
        .form(decide, "/asks/{id}/end", FormFields::once(&[]), end)
}

/// What was typed, and what is wrong with it.
#[derive(Default)]
struct Typed {
    posted: Posted,
    /// The ask that it is about; none is a new one.
    about: Option<i64>,
    wrong: Wrong,
    error: String,
}

async fn look(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let params = PageParams { limit: Some(ROWS), after: posted.optional("after") };
    let page = page(&app, &params)?;
    let typed = Typed { posted, ..Typed::default() };
    show(&app, &frame, &caller, (StatusCode::OK, page), typed).await
}

async fn make(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let asked = match read(&posted) {
        Ok(request) => asks::ask(&app, &caller, &request).await,
        Err(wrong) => Err(wrong.into_error()),
    };
    match asked {
        Ok(_) => frame.done(PATH, "Your ask is with the operators; the answer will be here."),
        Err(error) => refused(&app, &frame, &caller, (posted, None), error).await,
    }
}

async fn withdraw(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Response> {
    let result = asks::withdraw(&app, &caller, id).await;
    frame.outcome(result, PATH, "You ask for it no more.")
}

async fn approve(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<i64>,
    posted: Posted,
) -> Result<Response> {
    let ask = asks::find(&app, &caller, id).await?;
    let done = match amount(ask.limit, posted.text("granted"), "/granted") {
        Ok(granted) => {
            let typed = posted.text("until");
            // What stands there as it was asked for is meant as it was asked for.
            let as_asked = ask.until.is_some_and(|at| last_day(at) == typed);
            let request = ApproveRequest {
                granted: Some(granted),
                until: (!as_asked && !typed.is_empty()).then(|| typed.to_owned()),
                for_good: typed.is_empty(),
                answer: posted.text("answer").to_owned(),
            };
            asks::approve(&app, &caller, id, &request).await
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(ask) => {
            let text = format!("{} is granted to {}.", granted_words(&ask), ask.person.name);
            frame.done(PATH, &text)
        }
        Err(error) => refused(&app, &frame, &caller, (posted, Some(id)), error).await,
    }
}

async fn decline(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<i64>,
    posted: Posted,
) -> Result<Response> {
    let request = DeclineRequest { reason: posted.text("reason").to_owned() };
    match asks::decline(&app, &caller, id, &request).await {
        Ok(ask) => frame.done(PATH, &format!("{} reads why.", ask.person.name)),
        Err(error) => refused(&app, &frame, &caller, (posted, Some(id)), error).await,
    }
}

async fn end(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Response> {
    let result = asks::end(&app, &caller, id).await;
    frame.outcome(result, PATH, "It is over: what their allowance says holds again.")
}

/// The page with what was typed and what is wrong with it.
async fn refused(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (posted, about): (Posted, Option<i64>),
    error: Error,
) -> Result<Response> {
    if matches!(error, Error::NotFound(_)) {
        return Err(error);
    }
    let (status, wrong, error) = frame.refusal(error)?;
    let page = Page { limit: ROWS, after: None };
    show(app, frame, caller, (status, page), Typed { posted, about, wrong, error }).await
}

async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (status, page): (StatusCode, Page),
    mut typed: Typed,
) -> Result<Response> {
    let waits = Filter { state: Some(AskState::Open), ..Filter::default() };
    let some = Page { limit: OPEN_ROWS, after: None };
    let open = asks::list(app, caller, waits, &some).await?.items;
    let all: Items<AskView> = asks::list(app, caller, Filter::default(), &page)
        .await
        .and_then(|listed| Items::seal(app, listed))?;
    let oversees = caller.sees() == Visibility::Everyone;
    let form = match caller.role {
        Role::User | Role::Operator => {
            let lines = asks::limits(app, caller).await?;
            Some(ask_form(&lines, &mut typed))
        }
        Role::Auditor | Role::System => None,
    };
    let open: Vec<OpenAsk> = open.iter().map(|ask| open_row(ask, caller, &mut typed)).collect();
    let past = all.items.iter().filter(|ask| ask.state != AskState::Open);
    let past = past.map(|ask| past_row(ask, caller)).collect();
    let section = if oversees { Section::People } else { Section::Home };
    let mut shell = frame.shell("Asking for more", section);
    shell.path = PATH.to_owned();
    shell.calls = calls(caller);
    let error = match typed.error.is_empty() {
        true => std::mem::take(&mut typed.wrong).rest(),
        false => typed.error,
    };
    let next = all.next.map(|next| format!("{PATH}?after={}", super::frame::encoded(&next)));
    frame.page_with(status, &AsksPage { shell, error, oversees, form, open, past, next })
}

fn calls(caller: &Caller) -> Vec<ApiCall> {
    let path = "/api/v1/asks";
    let body =
        "{\"limit\": \"memory_bytes\", \"wanted\": 17179869184, \"reason\": \"a larger course\"}";
    let mut calls = vec![ApiCall::get("What was asked for", path)];
    if caller.role != Role::Auditor {
        calls.push(ApiCall::send("Ask for more", "POST", path, Some(body.to_owned())));
    }
    if caller.role == Role::Operator {
        let body = "{\"until\": \"2030-12-31\"}".to_owned();
        calls.push(ApiCall::send("Grant it", "POST", format!("{path}/1/approve"), Some(body)));
    }
    calls
}

fn ask_form(lines: &[SpaceLimit], typed: &mut Typed) -> AskForm {
    let option = |line: &SpaceLimit| {
        let used = line.used.map(|used| format!(", {} in use", plain(line.limit, used)));
        let label = format!("{} now{}", words(line.limit, line.allowed?), used.unwrap_or_default());
        Some(LimitChoice { name: line.limit.name().to_owned(), label })
    };
    let new = typed.about.is_none();
    let mut field = |name: &str| Field {
        value: if new { typed.posted.text(name).to_owned() } else { String::new() },
        error: if new { sentence(&typed.wrong.take(&format!("/{name}"))) } else { String::new() },
    };
    AskForm {
        limits: lines.iter().filter_map(option).collect(),
        limit: field("limit"),
        wanted: field("wanted"),
        until: field("until"),
        reason: field("reason"),
    }
}

fn open_row(ask: &AskView, caller: &Caller, typed: &mut Typed) -> OpenAsk {
    let now = Time::now().0;
    let own = ask.person.id == caller.principal.0;
    let about = typed.about == Some(ask.id);
    let mut field = |name: &str, usual: String| match about {
        true => Field {
            value: typed.posted.text(name).to_owned(),
            error: sentence(&typed.wrong.take(&format!("/{name}"))),
        },
        false => Field::new(usual),
    };
    let until = ask.until.map(last_day).unwrap_or_default();
    OpenAsk {
        id: ask.id,
        person: if own { String::new() } else { ask.person.name.clone() },
        path: leads("/people/{id}", Some(caller)).map(|_| format!("/people/{}", ask.person.id)),
        what: words(ask.limit, ask.wanted),
        reason: ask.reason.clone(),
        asked: Some(Moment::new(ask.asked_at.0, now)),
        facts: ask_facts(ask, now),
        withdraws: own,
        decides: caller.role == Role::Operator,
        granted: field("granted", plain(ask.limit, ask.wanted)),
        until: field("until", until),
        answer: field("answer", String::new()),
        reason_not: field("reason", String::new()),
    }
}

fn ask_facts(ask: &AskView, now: i64) -> Vec<Fact> {
    let moment = |key, at: Time| {
        let at = Moment::new(at.0, now);
        Fact::text(key, at.words).with_exact(at.exact)
    };
    let mut facts = vec![moment("Asked", ask.asked_at)];
    facts.push(match ask.until {
        Some(at) => moment("Until", at),
        None => Fact::text("Until", "for good"),
    });
    let Some(seen) = &ask.now else { return facts };
    let no_bound = || "no bound".to_owned();
    let allowed = seen.allowed.map_or_else(no_bound, |most| plain(ask.limit, most));
    facts.push(Fact::text("Allowed now", allowed));
    if let Some(used) = seen.used {
        facts.push(Fact::text("In use", plain(ask.limit, used)));
    }
    if let Some(whole) = seen.whole {
        let mut text = plain(ask.limit, whole.together);
        if let Some(machine) = whole.machine {
            text = format!("{text}; the machine has {}", plain(ask.limit, machine));
        }
        if whole.unbounded > 0 {
            text = format!("{text}; and {} with no bound", whole.unbounded);
        }
        facts.push(Fact::text("All people’s bounds then", text));
    }
    facts
}

fn past_row(ask: &AskView, caller: &Caller) -> PastAsk {
    let now = Time::now();
    let goes_on = ask.state == AskState::Approved && ask.ends_at.is_some();
    let (tone, icon, word) = match ask.state {
        AskState::Open => (Tone::Attention, "event", "open"),
        AskState::Withdrawn => (Tone::Neutral, "remove", "withdrawn"),
        AskState::Declined => (Tone::Bad, "failed", "declined"),
        AskState::Approved => (Tone::Good, "check", "granted"),
        AskState::Ended => (Tone::Neutral, "stopped", "over"),
    };
    let less = ask.granted.filter(|granted| *granted != ask.wanted);
    let reason = less.map(|granted| plain(ask.limit, granted)).unwrap_or_default();
    let by = ask.decided_by.clone().unwrap_or_default();
    PastAsk {
        id: ask.id,
        person: ask.person.name.clone(),
        what: words(ask.limit, ask.wanted),
        state: Badge { tone, icon, word: word.to_owned(), reason },
        answer: match (by.is_empty(), ask.answer.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!("by {by}"),
            (false, false) => format!("{} ({by})", ask.answer),
        },
        decided: ask.decided_at.map(|at| Moment::new(at.0, now.0)),
        ends: ask.ends_at.map(|at| Moment::new(at.0, now.0)),
        may_end: goes_on && caller.role == Role::Operator,
    }
}

fn granted_words(ask: &AskView) -> String {
    let what = words(ask.limit, ask.granted.unwrap_or(ask.wanted));
    match ask.ends_at {
        Some(at) => format!("{what} through {}", last_day(at)),
        None => what,
    }
}

/// An amount as a form has it and reads it.
pub(super) fn plain(limit: Bounded, value: u64) -> String {
    match kind(limit) {
        Kind::Cores => cores(value),
        Kind::Bytes => bytes(value),
        Kind::Count => value.to_string(),
    }
}

enum Kind {
    Cores,
    Bytes,
    Count,
}

fn kind(limit: Bounded) -> Kind {
    match limit {
        Bounded::CpuMillis => Kind::Cores,
        Bounded::Pids | Bounded::ContainersMax | Bounded::PortsMax | Bounded::ImagesMax => {
            Kind::Count
        }
        Bounded::MemoryBytes
        | Bounded::SwapBytes
        | Bounded::ImagesBytes
        | Bounded::DataBytes
        | Bounded::IoReadBytesPerSec
        | Bounded::IoWriteBytesPerSec
        | Bounded::NetBytesPerSec => Kind::Bytes,
    }
}

fn amount(limit: Bounded, text: &str, pointer: &'static str) -> Result<u64> {
    let (read, such) = match kind(limit) {
        Kind::Cores => (read_cores(text), "number of cores, such as 1.5"),
        Kind::Bytes => (read_bytes(text), "size, such as 512 MiB"),
        Kind::Count => (text.parse().ok(), "whole number"),
    };
    read.ok_or_else(|| Error::field(pointer, format!("{text:?} is no {such}")))
}

/// What somebody asks for, as typed.
fn read(posted: &Posted) -> std::result::Result<AskRequest, Wrong> {
    let mut wrong = Wrong::default();
    let choices = Bounded::ALL.map(|limit| (limit.name(), limit));
    let limit = wrong.choice(posted, "limit", "/limit", &choices);
    let wanted = limit.and_then(|limit| match amount(limit, posted.text("wanted"), "/wanted") {
        Ok(wanted) => Some(wanted),
        Err(error) => {
            let said = Wrong::of(&error).map(|mut said| said.take("/wanted"));
            wrong.add("/wanted", said.unwrap_or_default());
            None
        }
    });
    match (limit, wanted) {
        (Some(limit), Some(wanted)) if wrong.is_empty() => Ok(AskRequest {
            limit,
            wanted,
            until: posted.optional("until"),
            reason: posted.text("reason").to_owned(),
        }),
        _ => Err(wrong),
    }
}
