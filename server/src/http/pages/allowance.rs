//! What people may use together: a person's on their page, everybody's on a page of its own.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_web::format::{self, bytes, cores};
use berth_web::parts::{Fact, Field};
use berth_web::people::{AllowanceForm, AllowancePage};
use berth_web::shell::{ApiCall, Section};

use super::form::{Posted, Wrong};
use super::frame::Frame;
use super::person::{self, Beside};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::allowances::Allowance;
use crate::service::allowances;

pub(super) const FIELDS: FormFields =
    FormFields::once(&["cpu", "cpu_weight", "memory", "swap", "pids", "containers", "ports"]);

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    let path = "/people/allowance";
    routes
        .page(Access::Overseer(TokenScope::Read), Method::GET, path, everybody)
        .form(manage, path, FIELDS, set_everybody)
        .form(manage, "/people/{id}/allowance", FIELDS, set)
        .form(manage, "/people/{id}/allowance-default", FormFields::once(&[]), reset)
}

async fn everybody(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    let allowance = allowances::default(&app).await?;
    let shown = Shown { form: form(&allowance), ..Shown::default() };
    show(&frame, &caller, StatusCode::OK, &allowance, shown)
}

async fn set_everybody(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let done = match read(&posted) {
        Ok(allowance) => allowances::set_default(&app, &caller, allowance).await,
        Err(wrong) => Err(wrong.into_error()),
    };
    match done {
        Ok(set) if set.over.is_empty() => {
            frame.done("/people/allowance", "Everybody’s allowance is saved.")
        }
        Ok(set) => {
            let shown = Shown { form: form(&set.allowance), over: set.over, ..Shown::default() };
            show(&frame, &caller, StatusCode::OK, &set.allowance, shown)
        }
        Err(error) => {
            let now = allowances::default(&app).await?;
            let (status, mut wrong, error) = frame.refusal(error)?;
            let form = typed(&posted, &mut wrong);
            let error = if error.is_empty() { wrong.rest() } else { error };
            show(&frame, &caller, status, &now, Shown { form, error, over: Vec::new() })
        }
    }
}

async fn set(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let done = match read(&posted) {
        Ok(allowance) => allowances::set(&app, &caller, PrincipalId(id), allowance).await,
        Err(wrong) => Err(wrong.into_error()),
    };
    match done {
        Ok(_) => frame.done(&format!("/people/{id}"), "The allowance is saved, and held."),
        Err(error @ (Error::NotFound(_) | Error::Broken { .. })) => Err(error),
        Err(error) => {
            let (status, mut wrong, error) = frame.refusal(error)?;
            let allowance = Some(typed(&posted, &mut wrong));
            let error = if error.is_empty() { wrong.rest() } else { error };
            let beside = Beside { error, allowance, ..Beside::default() };
            person::show(&app, &frame, &caller, (PrincipalId(id), status), beside).await
        }
    }
}

async fn reset(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let result = allowances::reset(&app, &caller, PrincipalId(id)).await;
    frame.outcome(result, &format!("/people/{id}"), "Everybody’s allowance applies again.")
}

/// What the page shows besides what is saved.
#[derive(Default)]
struct Shown {
    form: AllowanceForm,
    error: String,
    over: Vec<String>,
}

fn show(
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    now: &Allowance,
    shown: Shown,
) -> Result<Response> {
    let mut shell = frame.shell("Everybody’s allowance", Section::People);
    shell.path = "/people/allowance".to_owned();
    let body = serde_json::to_string(now)
        .map_err(|source| Error::broken("write an allowance as JSON", source))?;
    shell.calls = vec![
        ApiCall::get("Show it", "/api/v1/allowance"),
        ApiCall::send("Change it", "PUT", "/api/v1/allowance", Some(body)),
    ];
    let Shown { form, error, over } = shown;
    let manages = caller.role == Role::Operator;
    let page = AllowancePage { shell, error, over, manages, allowance: form, facts: facts(now) };
    frame.page_with(status, &page)
}

/// An allowance as facts.
pub(super) fn facts(allowance: &Allowance) -> Vec<Fact> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "no bound".to_owned());
    let configured = |most: Option<u32>| {
        most.map_or_else(|| "as configured".to_owned(), |most| most.to_string())
    };
    vec![
        Fact::text(
            "Processor",
            text(allowance.cpu_millis.map(|most| format!("{} cores", cores(most.into())))),
        ),
        Fact::text("Share", allowance.cpu_weight.to_string()),
        Fact::text("Memory", text(allowance.memory_bytes.map(bytes))),
        Fact::text("Swap", text(allowance.swap_bytes.map(bytes))),
        Fact::text("Processes", text(allowance.pids.map(|most| most.to_string()))),
        Fact::text("Containers", configured(allowance.containers_max)),
        Fact::text("Ports of the host", configured(allowance.ports_max)),
    ]
}

/// An allowance as a form.
pub(super) fn form(allowance: &Allowance) -> AllowanceForm {
    let field = |value: Option<String>| Field::new(value.unwrap_or_default());
    AllowanceForm {
        cpu: field(allowance.cpu_millis.map(|most| cores(most.into()))),
        cpu_weight: Field::new(allowance.cpu_weight.to_string()),
        memory: field(allowance.memory_bytes.map(bytes)),
        swap: field(allowance.swap_bytes.map(bytes)),
        pids: field(allowance.pids.map(|most| most.to_string())),
        containers: field(allowance.containers_max.map(|most| most.to_string())),
        ports: field(allowance.ports_max.map(|most| most.to_string())),
    }
}

/// The form as it was typed, with what is wrong beside each field.
pub(super) fn typed(posted: &Posted, wrong: &mut Wrong) -> AllowanceForm {
    let mut field = |name: &str, pointer: &str| Field {
        value: posted.text(name).to_owned(),
        error: wrong.take(pointer),
    };
    AllowanceForm {
        cpu: field("cpu", "/cpu_millis"),
        cpu_weight: field("cpu_weight", "/cpu_weight"),
        memory: field("memory", "/memory_bytes"),
        swap: field("swap", "/swap_bytes"),
        pids: field("pids", "/pids"),
        containers: field("containers", "/containers_max"),
        ports: field("ports", "/ports_max"),
    }
}

/// The allowance that was typed.
///
/// # Errors
/// What is wrong beside each field.
pub(super) fn read(posted: &Posted) -> std::result::Result<Allowance, Wrong> {
    let mut wrong = Wrong::default();
    let cpu = posted.text("cpu");
    let cpu_millis = format::read_cores(cpu).and_then(|millis| u32::try_from(millis).ok());
    if cpu_millis.is_none() && !cpu.is_empty() {
        wrong.add("/cpu_millis", format!("{cpu:?} is no number of cores, such as 1.5"));
    }
    let weight = wrong.number(posted, "cpu_weight", "/cpu_weight");
    let allowance = Allowance {
        cpu_millis,
        cpu_weight: weight.unwrap_or(Allowance::FREE.cpu_weight),
        memory_bytes: wrong.size(posted, "memory", "/memory_bytes"),
        swap_bytes: wrong.size(posted, "swap", "/swap_bytes"),
        pids: wrong.number(posted, "pids", "/pids"),
        containers_max: wrong.number(posted, "containers", "/containers_max"),
        ports_max: wrong.number(posted, "ports", "/ports_max"),
    };
    if wrong.is_empty() { Ok(allowance) } else { Err(wrong) }
}
