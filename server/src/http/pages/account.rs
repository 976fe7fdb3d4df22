//! One's own account: tokens, sessions, password.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::format::Moment;
use berth_web::parts::Field;
use berth_web::people::{AccountPage, SessionRow, TokenRow};
use berth_web::shell::{ApiCall, Section};

use super::entry::refusal;
use super::form::Posted;
use super::frame::{Frame, sentence};
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::Result;
use crate::http::extract::Visitor;
use crate::http::routes::{Access, Routes};
use crate::service::{sessions, tokens};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let own = Access::SignedIn(TokenScope::Manage);
    routes
        .page(own, Method::GET, "/account", show)
        .page(own, Method::POST, "/account/tokens", make_token)
        .page(own, Method::POST, "/account/tokens/{id}/revoke", revoke_token)
        .page(own, Method::POST, "/account/sessions/{id}/end", end_session)
        .page(own, Method::POST, "/account/password", change_password)
}

/// What the page shows besides what there is.
#[derive(Default)]
struct Shown {
    password_error: String,
    token_error: String,
    token_name: String,
    fresh_token: Option<String>,
}

async fn show(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    page(&app, &frame, &caller, StatusCode::OK, Shown::default()).await
}

async fn make_token(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let scope = match posted.text("scope") {
        "manage" => TokenScope::Manage,
        "operate" => TokenScope::Operate,
        _ => TokenScope::Read,
    };
    let days = posted.text("days").parse().unwrap_or(0);
    let (status, shown) =
        match tokens::make(&app, &caller, posted.text("token_name"), scope, days).await {
            Ok(made) => {
                (StatusCode::CREATED, Shown { fresh_token: Some(made.secret), ..Shown::default() })
            }
            Err(error) => {
                let (status, wrong, text) = refusal(error)?;
                let token_error = if text.is_empty() { sentence(&wrong.rest()) } else { text };
                let token_name = posted.text("token_name").to_owned();
                (status, Shown { token_error, token_name, ..Shown::default() })
            }
        };
    page(&app, &frame, &caller, status, shown).await
}

async fn revoke_token(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let result = tokens::end(&app, &caller, &id).await;
    frame.outcome(result, "/account", "The token is revoked.")
}

async fn end_session(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let result = sessions::end(&app, &caller, &id).await;
    frame.outcome(result, "/account", "That browser is signed out.")
}

async fn change_password(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    visitor: Visitor,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let (present, new) = (posted.exact("current"), posted.exact("password"));
    match sessions::change_password(&app, &caller, &visitor, present, new).await {
        Ok(()) => frame.done("/account", "Your password is changed; other sessions have ended."),
        Err(error) => {
            let (status, mut wrong, text) = refusal(error)?;
            let said = [wrong.take("/present_password"), wrong.take("/password")].join(" ");
            let password_error = if text.is_empty() { sentence(said.trim()) } else { text };
            let shown = Shown { password_error, ..Shown::default() };
            page(&app, &frame, &caller, status, shown).await
        }
    }
}

async fn page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    shown: Shown,
) -> Result<Response> {
    let now = Time::now().0;
    let tokens = tokens::list(app, caller).await?.into_iter().map(|token| TokenRow {
        revoke: format!("/account/tokens/{}/revoke", token.id),
        name: token.name,
        scopes: match token.scope {
            TokenScope::Read => "read".to_owned(),
            TokenScope::Operate => "read, operate".to_owned(),
            TokenScope::Manage => "everything you may".to_owned(),
        },
        expires: Some(Moment::new(token.expires_at.0, now)),
        used: token.used_at.map(|at| Moment::new(at.0, now)),
    });
    let sessions = sessions::list(app, caller).await?.into_iter().map(|session| SessionRow {
        revoke: format!("/account/sessions/{}/end", session.id),
        agent: browser(&session.agent),
        address: session.address,
        since: Moment::new(session.created_at.0, now),
        own: session.current,
    });
    let mut shell = frame.shell("Account", Section::Account);
    shell.path = "/account".to_owned();
    shell.calls = vec![
        ApiCall::get("List your tokens", "/api/v1/tokens"),
        ApiCall::get("List your sessions", "/api/v1/sessions"),
    ];
    let view = AccountPage {
        tokens: tokens.collect(),
        sessions: sessions.collect(),
        shell,
        password_error: shown.password_error,
        token_error: shown.token_error,
        token_name: Field::new(shown.token_name),
        fresh_token: shown.fresh_token,
    };
    frame.page_with(status, &view)
}

/// A browser's name out of what it says of itself, in two words.
fn browser(agent: &str) -> String {
    let name = ["Firefox", "Edg", "Chrome", "Safari", "curl"];
    let name = name.into_iter().find(|name| agent.contains(name)).map(|name| match name {
        "Edg" => "Edge",
        name => name,
    });
    let system = ["Android", "iPhone", "iPad", "Windows", "Mac OS X", "Linux"];
    let system = system.into_iter().find(|system| agent.contains(system));
    match (name, system) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => agent.chars().take(40).collect(),
    }
}
