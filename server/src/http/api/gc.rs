//! `/api/v1/gc`: what nothing needs any more.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, JsonBody, Query};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::gc::{self, GcRequest, GcView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(unneeded))
        .add(Access::Member(TokenScope::Operate), routes!(remove_unneeded))
}

/// What may go.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct GcQuery {
    /// For how many days nothing has needed it, 0 to 3,650; 7 if nothing is said.
    unneeded_days: Option<u32>,
    /// Images that have a tag, too.
    tagged: Option<bool>,
    /// Everybody's and the system's, and the inventory's old copies; for operators and auditors.
    everyone: Option<bool>,
}

/// Tells what nothing needs any more, and of what stays, why. Nothing is changed.
#[utoipa::path(get, path = "/api/v1/gc", tag = "images", params(GcQuery),
    responses(
        (status = 200, body = GcView), (status = 403, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn unneeded(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<GcQuery>,
) -> Result<Json<GcView>> {
    let usual = GcRequest::default();
    let request = GcRequest {
        unneeded_days: query.unneeded_days.unwrap_or(usual.unneeded_days),
        tagged: query.tagged.unwrap_or(usual.tagged),
        everyone: query.everyone.unwrap_or(usual.everyone),
    };
    Ok(Json(gc::look(&app, &caller, &request).await?))
}

/// Removes what nothing needs any more, at most 200 things at once; answers what has gone, what stays, and
/// why.
#[utoipa::path(post, path = "/api/v1/gc", tag = "images", request_body = GcRequest,
    responses(
        (status = 200, body = GcView), (status = 403, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn remove_unneeded(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<GcRequest>,
) -> Result<Json<GcView>> {
    Ok(Json(gc::remove(&app, &caller, &body).await?))
}
