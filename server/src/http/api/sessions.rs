//! `/api/v1/sessions` and `/api/v1/me`: signing in and out, one's own account.

use axum::Json;
use axum::extract::State;
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::extract::{Caller, Items, JsonBody, Path, Visitor};
use crate::http::guard::{device_cookie_name, session_cookie_name};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::sessions::Session;
use crate::service::sessions::{self, SignedIn};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::Public, routes!(sign_in))
        .add(Access::SignedIn(TokenScope::Manage), routes!(list))
        .add(Access::SignedIn(TokenScope::Manage), routes!(end))
        .add(Access::SignedIn(TokenScope::Read), routes!(sign_out))
        .add(Access::SignedIn(TokenScope::Read), routes!(me))
        .add(Access::SignedIn(TokenScope::Manage), routes!(change_password))
}

/// Name, password, and perhaps a code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignInRequest {
    /// The name.
    name: String,
    /// The password.
    password: String,
    /// A code of the second factor, or a recovery code, of those who have one.
    #[serde(default)]
    code: Option<String>,
}

/// The present and the new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordRequest {
    /// The present password.
    present_password: String,
    /// The new one, at least 10 characters.
    password: String,
}

/// A new session; its cookie is in `Set-Cookie`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignedIn)]
pub struct SignedInBody {
    /// Who.
    #[schema(value_type = u32)]
    pub person: PrincipalId,
    /// The session's id (not the cookie).
    pub session: String,
    /// When it ends.
    pub expires_at: Time,
}

/// Who is asking.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// Their principal id.
    #[schema(value_type = u32)]
    id: PrincipalId,
    /// Their name.
    name: String,
    /// What they may do.
    role: Role,
    /// How much of it this request could use.
    scope: TokenScope,
    /// What proved it: `session`, `token` or `root_socket`.
    via: &'static str,
    /// When that ends.
    expires_at: Option<Time>,
    /// When their account ends by itself.
    account_expires_at: Option<Time>,
}

/// Signs in: answers with a session cookie.
#[utoipa::path(post, path = "/api/v1/sessions", tag = "sessions", request_body = SignInRequest,
    responses(
        (status = 201, body = SignedInBody), (status = 403, body = ProblemBody),
        (status = 429, body = ProblemBody)))]
async fn sign_in(
    State(app): State<App>,
    visitor: Visitor,
    JsonBody(body): JsonBody<SignInRequest>,
) -> Result<Response> {
    let code = body.code.as_deref().unwrap_or_default();
    let done = sessions::sign_in(&app, &visitor, (&body.name, &body.password, code)).await?;
    signed_in(&app, &done)
}

/// Lists one's own sessions.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "sessions",
    responses((status = 200, body = Items<Session>)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Items<Session>>> {
    Ok(Json(Items::whole(sessions::list(&app, &caller).await?)))
}

/// Ends one of one's own sessions.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn end(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode> {
    sessions::end(&app, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signs out: ends the session, or the token, that asks.
#[utoipa::path(delete, path = "/api/v1/me/session", tag = "sessions",
    responses((status = 204), (status = 409, body = ProblemBody)))]
async fn sign_out(State(app): State<App>, caller: Caller) -> Result<Response> {
    sessions::sign_out(&app, &caller).await?;
    Ok((StatusCode::NO_CONTENT, forget_cookie(&app)?).into_response())
}

/// Tells who is asking.
#[utoipa::path(get, path = "/api/v1/me", tag = "sessions",
    responses((status = 200, body = Me)))]
async fn me(caller: Caller) -> Json<Me> {
    Json(Me {
        id: caller.principal,
        role: caller.role,
        scope: caller.scope,
        via: caller.actor.via.as_str(),
        expires_at: caller.expires_at,
        account_expires_at: caller.account_expires_at,
        name: caller.name,
    })
}

/// Changes one's own password and ends one's other sessions.
#[utoipa::path(put, path = "/api/v1/me/password", tag = "sessions",
    request_body = PasswordRequest,
    responses((status = 204), (status = 422, body = ProblemBody)))]
async fn change_password(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    JsonBody(body): JsonBody<PasswordRequest>,
) -> Result<StatusCode> {
    let (present, new) = (&body.present_password, &body.password);
    sessions::change_password(&app, &caller, &visitor, present, new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer to whoever has just signed in.
///
/// # Errors
/// When a cookie cannot be written.
pub fn signed_in(app: &App, done: &SignedIn) -> Result<Response> {
    let body = SignedInBody {
        person: done.person,
        session: done.session.clone(),
        expires_at: done.expires_at,
    };
    Ok((StatusCode::CREATED, cookies(app, done)?, Json(body)).into_response())
}

/// The cookies of a new session, for pages too.
///
/// # Errors
/// When a cookie cannot be written.
pub fn cookies(app: &App, done: &SignedIn) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let https = done.https;
    let name = session_cookie_name(app, https);
    let session = cookie(&name, &done.cookie, done.expires_at, https)?;
    let name = device_cookie_name(app, https);
    let device = cookie(&name, &done.device, done.device_expires_at, https)?;
    headers.append(SET_COOKIE, session);
    headers.append(SET_COOKIE, device);
    Ok(headers)
}

/// The headers that make a browser forget its session cookie, of either kind.
///
/// # Errors
/// When it cannot be written.
pub fn forget_cookie(app: &App) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for https in [false, true] {
        let name = session_cookie_name(app, https);
        headers.append(SET_COOKIE, cookie(&name, "", Time(0), https)?);
    }
    Ok(headers)
}

/// `Lax`, not `Strict`: a link to a container from a chat must not show the sign-in page. What Lax
/// lets through is reading a page by a link; the guard refuses all else from other sites.
fn cookie(name: &str, value: &str, expires_at: Time, https: bool) -> Result<HeaderValue> {
    let age = expires_at.until().as_secs();
    let secure = if https { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).map_err(|source| Error::broken("write a cookie", source))
}
