//! The page of what nothing needs any more: looking by its address, removing by its form.

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::format::{Moment, bytes, short};
use berth_web::images::{UnneededPage, UnneededRow};
use berth_web::parts::{Badge, Field};
use berth_web::shell::{ApiCall, Section, Tone};
use serde::Deserialize;

use super::form::{Posted, Wrong};
use super::frame::Frame;
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope, Visibility};
use crate::clock::Time;
use crate::error::Result;
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::gc::{self, GcItem, GcKind, GcRequest, GcVerdict, GcView};

const PATH: &str = "/images/unneeded";
const FIELDS: [&str; 3] = ["unneeded_days", "tagged", "everyone"];

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.page(Access::SignedIn(TokenScope::Read), Method::GET, PATH, look).form(
        Access::Member(TokenScope::Operate),
        PATH,
        FormFields::once(&FIELDS),
        remove,
    )
}

/// What may go, as the page's address says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LookQuery {
    unneeded_days: String,
    tagged: String,
    everyone: String,
}

async fn look(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<LookQuery>,
) -> Result<Response> {
    let LookQuery { unneeded_days, tagged, everyone } = query;
    let typed = FIELDS.into_iter().zip([unneeded_days, tagged, everyone]);
    let posted = Posted::new(typed.map(|(name, value)| (name.to_owned(), value)).collect());
    let found = match read(&posted) {
        Ok(request) => gc::look(&app, &caller, &request).await.map(|view| (request, view)),
        Err(wrong) => Err(wrong.into_error()),
    };
    match found {
        Ok(found) => {
            show(&frame, &caller, StatusCode::OK, &posted, (Some(found), Wrong::default(), ""))
        }
        Err(error) => {
            let (status, wrong, error) = frame.refusal(error)?;
            show(&frame, &caller, status, &posted, (None, wrong, &error))
        }
    }
}

async fn remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let done = match read(&posted) {
        Ok(request) => gc::remove(&app, &caller, &request).await,
        Err(wrong) => Err(wrong.into_error()),
    };
    match done {
        Ok(view) => frame.done(PATH, &said(&view)),
        Err(error) => {
            let (status, wrong, error) = frame.refusal(error)?;
            show(&frame, &caller, status, &posted, (None, wrong, &error))
        }
    }
}

fn read(posted: &Posted) -> Result<GcRequest, Wrong> {
    let mut wrong = Wrong::default();
    let usual = GcRequest::default();
    let days = wrong.number(posted, "unneeded_days", "/unneeded_days");
    let request = GcRequest {
        unneeded_days: days.unwrap_or(usual.unneeded_days),
        tagged: wrong.flag(posted, "tagged", "/tagged"),
        everyone: wrong.flag(posted, "everyone", "/everyone"),
    };
    if wrong.is_empty() { Ok(request) } else { Err(wrong) }
}

/// What has gone, in a sentence.
fn said(view: &GcView) -> String {
    let gone = view.items.iter().filter(|item| item.verdict == GcVerdict::Removed).count();
    let freed = bytes(view.frees_bytes);
    match (gone, view.more) {
        (0, _) => "There was nothing to remove.".to_owned(),
        (1, false) => format!("One thing is removed, which frees {freed} at most."),
        (gone, false) => format!("{gone} things are removed, which frees {freed} at most."),
        (gone, true) => format!("{gone} things are removed; there may be more."),
    }
}

fn show(
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    posted: &Posted,
    (found, mut wrong, error): (Option<(GcRequest, GcView)>, Wrong, &str),
) -> Result<Response> {
    let now = Time::now();
    let mut shell = frame.shell("What nothing needs", Section::Images);
    shell.path = PATH.to_owned();
    let body = r#"{"unneeded_days": 30, "tagged": true}"#.to_owned();
    shell.calls = vec![
        ApiCall::get("Look", "/api/v1/gc?unneeded_days=30&tagged=true"),
        ApiCall::send("Remove it", "POST", "/api/v1/gc", Some(body)),
    ];
    let (request, view) = found.unzip();
    let days = match posted.text("unneeded_days") {
        "" => request.clone().unwrap_or_default().unneeded_days.to_string(),
        typed => typed.to_owned(),
    };
    let items = view.as_ref().map(|view| view.items.as_slice()).unwrap_or_default();
    let going = items.iter().filter(|item| item.verdict == GcVerdict::Remove).count();
    let days_wrong = wrong.take("/unneeded_days");
    let page = UnneededPage {
        shell,
        error: if error.is_empty() { wrong.rest() } else { error.to_owned() },
        days: Field { value: days, error: days_wrong },
        tagged: posted.text("tagged") == "true",
        everyone: posted.text("everyone") == "true",
        oversees: caller.sees() == Visibility::Everyone,
        acts: caller.role != Role::Auditor,
        going,
        frees: view.as_ref().map(|view| bytes(view.frees_bytes)).unwrap_or_default(),
        rows: items.iter().map(|item| row(item, now)).collect(),
        more: view.is_some_and(|view| view.more),
    };
    frame.page_with(status, &page)
}

fn row(item: &GcItem, now: Time) -> UnneededRow {
    let (tone, icon, word) = match item.verdict {
        GcVerdict::Remove | GcVerdict::Removed => (Tone::Attention, "remove", "goes"),
        GcVerdict::Keep => (Tone::Neutral, "check", "stays"),
    };
    let name = item.name.clone();
    UnneededRow {
        name: name.unwrap_or_else(|| format!("no name {}", short(&item.id))),
        path: (item.kind == GcKind::Image).then(|| format!("/images/{}", item.id)),
        owner: item.owner_name.clone().unwrap_or_else(|| "system".to_owned()),
        size: bytes(item.bytes),
        needed: Moment::new(item.needed_at.0, now.0),
        verdict: Badge { tone, icon, word: word.into(), reason: String::new() },
        why: item.why.clone(),
    }
}
