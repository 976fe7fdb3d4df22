//! A container's terminal: the page; what goes to and fro is the API's WebSocket.

use axum::extract::{Path, State};
use axum::http::Method;
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use axum::response::Response;
use berth_web::containers::Tab;
use berth_web::format::span;
use berth_web::shell::ApiCall;
use berth_web::terminal::{SessionRow, TerminalPage};

use super::container::shell;
use super::frame::Frame;
use super::shown;
use crate::app::App;
use crate::auth::keys::random_text;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::guard;
use crate::http::routes::{Access, Routes};
use crate::service::containers;
use crate::service::execs::{self, SessionView};
use crate::service::lifecycle::Status;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    routes.page(act, Method::GET, "/containers/{id}/terminal", terminal)
}

async fn terminal(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
    let sessions = execs::list(&app, &caller, &id).await?;
    let spec = containers::merged_spec(&app, &caller, &id).await?;
    let path = format!("/api/v1/containers/{}", view.id);
    let body = |text: &str| Some(text.to_owned());
    let calls = vec![
        ApiCall::send(
            "Run a program",
            "POST",
            format!("{path}/exec"),
            body(r#"{"program": {"command": ["uname", "-a"]}}"#),
        ),
        ApiCall::send(
            "Open a session",
            "POST",
            format!("{path}/execs"),
            body(r#"{"program": {"command": ["sh"]}, "terminal": {"columns": 80, "rows": 24}}"#),
        ),
        ApiCall::get("List sessions", format!("{path}/execs")),
    ];
    let nonce = random_text::<18>()?;
    let running = view.status == Status::Running;
    let first = spec.as_ref().filter(|spec| running && spec.console.terminal.is_some());
    let page = TerminalPage {
        shell: shell(&frame, view, calls),
        head: shown::head(&caller, view, Tab::Terminal),
        first: first.map(|spec| spec.process.args.join(" ")),
        user: spec
            .map(|spec| spec.process.user)
            .filter(|user| !user.is_empty())
            .unwrap_or_else(|| "root".to_owned()),
        running,
        sessions: sessions.iter().filter(|session| session.running).map(row).collect(),
        nonce: nonce.clone(),
    };
    let mut response = frame.page(&page)?;
    let policy = HeaderValue::try_from(guard::page_policy_with_styles(&nonce))
        .map_err(|error| Error::broken("write a page's policy", error))?;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

fn row(session: &SessionView) -> SessionRow {
    let age = Time::now().0 - session.started_at.0;
    SessionRow {
        number: session.id,
        program: session.command.join(" "),
        user: session.user.clone(),
        since: format!("for {}", span(u64::try_from(age / 1000).unwrap_or(0))),
        attached: session.attached,
    }
}
