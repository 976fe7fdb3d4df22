//! Taking somebody off the machine: what would happen, how far it is, what was done.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_web::format::{Moment, bytes};
use berth_web::parts::{Badge, Field};
use berth_web::people::{OffboardingPage, OffboardingReport, OffboardingRow};
use berth_web::shell::{ApiCall, Section, Tone};

use super::form::Posted;
use super::frame::Frame;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::offboardings::{Act, Kind, Step, Things};
use crate::service::offboard::{self, OffboardingState, OffboardingView};

/// Steps that the page shows; the API has all of them.
const ROWS_MAX: usize = 200;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    let fields = FormFields::once(&["things", "typed"]);
    routes.page(manage, Method::GET, "/people/{id}/offboarding", show).form(
        manage,
        "/people/{id}/offboarding",
        fields,
        begin,
    )
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    page(&app, &frame, &caller, (PrincipalId(id), StatusCode::OK), Field::default()).await
}

async fn begin(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let id = PrincipalId(id);
    let things = match posted.text("things") {
        "keep" => Things::Keep,
        "delete" => Things::Delete,
        other => {
            return Err(Error::field("/things", format!("{other:?} is neither keep nor delete")));
        }
    };
    let typed = posted.text("typed");
    if things == Things::Delete {
        let seen = offboard::look(&app, &caller, id, things).await?;
        if typed != seen.name {
            let said = format!("Type {} to delete all of it.", seen.name);
            frame.note(&Error::field("/typed", said.clone()));
            let typed = Field { value: typed.to_owned(), error: said };
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return page(&app, &frame, &caller, (id, status), typed).await;
        }
    }
    let path = format!("/people/{}/offboarding", id.0);
    let begun = offboard::begin(&app, &caller, id, things).await;
    frame.outcome(begun, &path, "It is under way; this page says how far it is.")
}

async fn page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (id, status): (PrincipalId, StatusCode),
    typed: Field,
) -> Result<Response> {
    let now = Time::now().0;
    let known = match offboard::find(app, id).await {
        Ok(view) => Some(view),
        Err(Error::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let running = known.as_ref().is_some_and(|view| view.state == OffboardingState::Running);
    let gone = known.as_ref().is_some_and(|view| !view.has_account);
    let (name, keep, delete) = if running || gone {
        (known.as_ref().map(|view| view.name.clone()).unwrap_or_default(), Vec::new(), Vec::new())
    } else {
        let keep = offboard::look(app, caller, id, Things::Keep).await?;
        let delete = offboard::look(app, caller, id, Things::Delete).await?;
        (delete.name, keep.steps, delete.steps)
    };
    let mut shell = frame.shell(format!("Take {name} off the machine"), Section::People);
    shell.path = format!("/people/{}/offboarding", id.0);
    shell.live_secs = running.then_some(2);
    let api = format!("/api/v1/people/{}/offboarding", id.0);
    let body = || Some("{\"things\": \"keep\"}".to_owned());
    shell.calls = vec![
        ApiCall::send("Say what would happen", "POST", format!("{api}/preview"), body()),
        ApiCall::send("Begin", "POST", api.clone(), body()),
        ApiCall::get("How it stands", api),
    ];
    let view = OffboardingPage {
        shell,
        id: id.0,
        name,
        person: (!gone).then(|| format!("/people/{}", id.0)),
        may_begin: !running && !gone,
        keep: keep.iter().take(ROWS_MAX).map(|step| row(step, now)).collect(),
        keep_says: says(&keep),
        delete: delete.iter().take(ROWS_MAX).map(|step| row(step, now)).collect(),
        delete_says: says(&delete),
        typed,
        report: known.as_ref().map(|view| report(view, now)),
    };
    frame.page_with(status, &view)
}

fn report(view: &OffboardingView, now: i64) -> OffboardingReport {
    let done = view.steps.iter().filter(|step| step.done_at.is_some()).count();
    let of = format!("{done} of {}", view.steps.len());
    let (tone, icon, word) = match (view.state, view.has_account) {
        (OffboardingState::Ended, true) => (Tone::Good, "check", "stopped and disabled"),
        (OffboardingState::Ended, false) => (Tone::Good, "check", "deleted"),
        _ => (Tone::Busy, "busy", "under way"),
    };
    OffboardingReport {
        state: Badge { tone, icon, word: word.to_owned(), reason: of },
        by: view.asked_by.clone().unwrap_or_default(),
        begun: view.begun_at.map(|at| Moment::new(at.0, now)),
        ended: view.ended_at.map(|at| Moment::new(at.0, now)),
        rows: view.steps.iter().take(ROWS_MAX).map(|step| row(step, now)).collect(),
    }
}

fn row(step: &Step, now: i64) -> OffboardingRow {
    let act = match step.act {
        Act::Stop => "stop",
        Act::Remove => "remove",
    };
    OffboardingRow {
        act,
        kind: word(step.kind),
        name: match step.bytes {
            Some(held) => format!("{}, {}", step.name, bytes(held)),
            None => step.name.clone(),
        },
        done: step.done_at.map(|at| Moment::new(at.0, now)),
        said: step.said.clone(),
        size: step.bytes.map(bytes).unwrap_or_default(),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Container => "container",
        Kind::Volume => "volume",
        Kind::Image => "image",
    }
}

/// What is done, in numbers.
fn says(steps: &[Step]) -> String {
    let of = |kind| {
        let number = steps.iter().filter(|step| step.kind == kind).count();
        let plural = if number == 1 { "" } else { "s" };
        (number > 0).then(|| format!("{number} {}{plural}", word(kind)))
    };
    let all: Vec<_> =
        [Kind::Container, Kind::Volume, Kind::Image].into_iter().filter_map(of).collect();
    match steps.iter().filter_map(|step| step.bytes).sum::<u64>() {
        0 => all.join(", "),
        held => format!("{}; the volumes hold {}", all.join(", "), bytes(held)),
    }
}
