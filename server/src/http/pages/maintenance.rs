//! The page on which operators begin and end maintenance.

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::format::Moment;
use berth_web::parts::Field;
use berth_web::shell::{ApiCall, Section};
use berth_web::system::MaintenancePage;

use super::form::Posted;
use super::frame::Frame;
use super::system::tabs;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::Result;
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::maintenance::{self, MaintenanceRequest};

const PATH: &str = "/system/maintenance";

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    routes
        .page(manage, Method::GET, PATH, page)
        .form(manage, PATH, FormFields::once(&["message"]), begin)
        .form(manage, "/system/maintenance/end", FormFields::once(&[]), end)
}

async fn page(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    let message = maintenance::show(&app, &caller).message.unwrap_or_default();
    show(&app, &frame, &caller, StatusCode::OK, (Field::new(message), String::new()))
}

async fn begin(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let request = MaintenanceRequest { message: posted.text("message").to_owned() };
    match maintenance::begin(&app, &caller, &request).await {
        Ok(_) => frame.done(PATH, "Everybody is told, and nothing new is begun but by operators."),
        Err(error) => {
            let (status, mut wrong, error) = frame.refusal(error)?;
            let field = Field { value: request.message, error: wrong.take("/message") };
            let error = if error.is_empty() { wrong.rest() } else { error };
            show(&app, &frame, &caller, status, (field, error))
        }
    }
}

async fn end(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    let result = maintenance::end(&app, &caller).await;
    frame.outcome(result, PATH, "Maintenance is over.")
}

fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    (message, error): (Field, String),
) -> Result<Response> {
    let now = maintenance::show(app, caller);
    let mut shell = frame.shell("Maintenance", Section::System);
    shell.path = PATH.to_owned();
    let body = r#"{"message": "A new kernel, back at 18:00"}"#.to_owned();
    shell.calls = vec![
        ApiCall::get("Show it", "/api/v1/maintenance"),
        ApiCall::send("Begin it", "PUT", "/api/v1/maintenance", Some(body)),
        ApiCall::send("End it", "DELETE", "/api/v1/maintenance", None),
    ];
    let view = MaintenancePage {
        shell,
        tabs: tabs(caller, PATH),
        error,
        message,
        since: now.since.map(|at| Moment::new(at.0, Time::now().0)),
        by: now.by.unwrap_or_default(),
    };
    frame.page_with(status, &view)
}
