//! `/api/v1/setup`: the first operator.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sessions::signed_in;
use crate::app::App;
use crate::error::Result;
use crate::http::extract::{Caller, JsonBody, Visitor};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::setup;

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes.add(Access::Public, routes!(show, complete)).add(Access::Root, routes!(make_secret))
}

/// Whether the appliance is to be set up.
#[derive(Debug, Serialize, ToSchema)]
struct SetupState {
    /// True until the first operator has been made.
    needed: bool,
}

/// The first operator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetupRequest {
    /// What the installer has printed.
    secret: String,
    /// The name to sign in with: 1 to 32 lower-case letters, digits, `.`, `_`, `-`.
    name: String,
    /// At least 10 characters.
    password: String,
}

/// The one-time secret.
#[derive(Debug, Serialize, ToSchema)]
struct SetupSecret {
    /// Shown once; an older one ends.
    secret: String,
}

/// Tells whether the first operator is still to be made.
#[utoipa::path(get, path = "/api/v1/setup", tag = "setup",
    responses((status = 200, body = SetupState)))]
async fn show(State(app): State<App>) -> Result<Json<SetupState>> {
    Ok(Json(SetupState { needed: setup::needed(&app).await? }))
}

/// Makes the first operator and signs them in.
#[utoipa::path(post, path = "/api/v1/setup", tag = "setup", request_body = SetupRequest,
    responses(
        (status = 201, body = super::sessions::SignedInBody),
        (status = 403, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn complete(
    State(app): State<App>,
    visitor: Visitor,
    JsonBody(body): JsonBody<SetupRequest>,
) -> Result<Response> {
    let done = setup::complete(&app, &visitor, &body.secret, &body.name, &body.password).await?;
    signed_in(&app, &done)
}

/// Makes a new one-time setup secret. Root socket only.
#[utoipa::path(post, path = "/api/v1/setup/secret", tag = "setup",
    responses((status = 201, body = SetupSecret), (status = 409, body = ProblemBody)))]
async fn make_secret(
    State(app): State<App>,
    caller: Caller,
) -> Result<(StatusCode, Json<SetupSecret>)> {
    let secret = setup::make_secret(&app, &caller).await?;
    Ok((StatusCode::CREATED, Json(SetupSecret { secret })))
}
