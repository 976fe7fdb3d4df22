//! `/api/v1/me/second-factor`: one's own; `/api/v1/people/{id}/second-factor`: taken away by an operator.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, JsonBody, Path, Visitor};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::factor::{self, Begun, FactorView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Manage), routes!(show, begin))
        .add(Access::SignedIn(TokenScope::Manage), routes!(confirm))
        .add(Access::SignedIn(TokenScope::Manage), routes!(renew_codes))
        .add(Access::SignedIn(TokenScope::Manage), routes!(remove))
        .add(Access::Operator(TokenScope::Manage), routes!(reset))
}

/// Who begins has to show their password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BeginFactor {
    /// The present password.
    present_password: String,
}

/// A code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FactorCode {
    /// Six digits of the program on the phone, or a recovery code where that is taken.
    code: String,
}

/// Recovery codes, shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct RecoveryCodes {
    /// Each good once, in the place of a code.
    recovery_codes: Vec<String>,
}

/// Tells whether one has a second factor, and whether one must.
#[utoipa::path(get, path = "/api/v1/me/second-factor", tag = "sessions",
    responses((status = 200, body = FactorView)))]
async fn show(State(app): State<App>, caller: Caller) -> Result<Json<FactorView>> {
    Ok(Json(factor::show(&app, &caller).await?))
}

/// Begins to set up a second factor: answers its secret, which counts once a code of it was shown.
#[utoipa::path(post, path = "/api/v1/me/second-factor", tag = "sessions",
    request_body = BeginFactor,
    responses(
        (status = 201, body = Begun), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 429, body = ProblemBody)))]
async fn begin(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    JsonBody(body): JsonBody<BeginFactor>,
) -> Result<(StatusCode, Json<Begun>)> {
    let begun = factor::begin(&app, &caller, &visitor, &body.present_password).await?;
    Ok((StatusCode::CREATED, Json(begun)))
}

/// Sets it up with a code of it: from now on one is asked for at each sign-in. One's other sessions end.
#[utoipa::path(post, path = "/api/v1/me/second-factor/confirm", tag = "sessions",
    request_body = FactorCode,
    responses(
        (status = 200, body = RecoveryCodes), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn confirm(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<FactorCode>,
) -> Result<Json<RecoveryCodes>> {
    let recovery_codes = factor::confirm(&app, &caller, &body.code).await?;
    Ok(Json(RecoveryCodes { recovery_codes }))
}

/// Makes new recovery codes; all before are good no more.
#[utoipa::path(post, path = "/api/v1/me/second-factor/codes", tag = "sessions",
    request_body = FactorCode,
    responses(
        (status = 200, body = RecoveryCodes), (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 429, body = ProblemBody)))]
async fn renew_codes(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    JsonBody(body): JsonBody<FactorCode>,
) -> Result<Json<RecoveryCodes>> {
    let recovery_codes = factor::renew_codes(&app, &caller, &visitor, &body.code).await?;
    Ok(Json(RecoveryCodes { recovery_codes }))
}

/// Gives one's second factor up.
#[utoipa::path(post, path = "/api/v1/me/second-factor/remove", tag = "sessions",
    request_body = FactorCode,
    responses(
        (status = 204), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 429, body = ProblemBody)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    visitor: Visitor,
    JsonBody(body): JsonBody<FactorCode>,
) -> Result<StatusCode> {
    factor::remove(&app, &caller, &visitor, &body.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the second factor of somebody away who has lost it. Their sessions end, and they are told.
#[utoipa::path(delete, path = "/api/v1/people/{id}/second-factor", tag = "people",
    params(("id" = u32, Path, description = "The person")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn reset(State(app): State<App>, caller: Caller, Path(id): Path<u32>) -> Result<StatusCode> {
    factor::reset(&app, &caller, PrincipalId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
