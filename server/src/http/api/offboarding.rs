//! `/api/v1/people/{id}/offboarding`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_runtime::id::PrincipalId;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, JsonBody, Path};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::offboardings::Things;
use crate::service::offboard::{self, OffboardingView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::Overseer(TokenScope::Read), routes!(show))
        .add(Access::Operator(TokenScope::Manage), routes!(begin))
        .add(Access::Operator(TokenScope::Manage), routes!(preview))
}

/// What is to become of somebody who leaves.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OffboardingRequest {
    /// What becomes of their containers, volumes and images, and of the account.
    things: Things,
}

/// Shows how somebody's leaving stands, also when the account is gone.
#[utoipa::path(get, path = "/api/v1/people/{id}/offboarding", tag = "people",
    operation_id = "show_offboarding", params(("id" = u32, Path, description = "The person")),
    responses((status = 200, body = OffboardingView), (status = 404, body = ProblemBody)))]
async fn show(State(app): State<App>, Path(id): Path<u32>) -> Result<Json<OffboardingView>> {
    Ok(Json(offboard::find(&app, PrincipalId(id)).await?))
}

/// Takes somebody off the machine: they are signed out and disabled at once; an operation stops all that runs of theirs,
/// and with `delete` removes their containers, volumes and images and then the account. It goes on after a stop of the
/// server. Asked again, it is what it was.
#[utoipa::path(post, path = "/api/v1/people/{id}/offboarding", tag = "people",
    operation_id = "begin_offboarding", params(("id" = u32, Path, description = "The person")),
    request_body = OffboardingRequest,
    responses(
        (status = 202, body = OffboardingView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn begin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    JsonBody(body): JsonBody<OffboardingRequest>,
) -> Result<(StatusCode, Json<OffboardingView>)> {
    let view = offboard::begin(&app, &caller, PrincipalId(id), body.things).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// Says what would happen, and changes nothing.
#[utoipa::path(post, path = "/api/v1/people/{id}/offboarding/preview", tag = "people",
    operation_id = "preview_offboarding", params(("id" = u32, Path, description = "The person")),
    request_body = OffboardingRequest,
    responses((status = 200, body = OffboardingView), (status = 404, body = ProblemBody)))]
async fn preview(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    JsonBody(body): JsonBody<OffboardingRequest>,
) -> Result<Json<OffboardingView>> {
    Ok(Json(offboard::look(&app, &caller, PrincipalId(id), body.things).await?))
}
