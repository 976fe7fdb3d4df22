//! `/api/v1/allowance` and `/api/v1/people/{id}/allowance`.

use axum::Json;
use axum::extract::State;
use berth_runtime::id::PrincipalId;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, JsonBody, Path};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::allowances::Allowance;
use crate::service::allowances::{self, AllowanceSet, AllowanceView, DefaultSet};
use crate::service::data::{self, DataView};
use crate::service::preview::{self, Preview};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(default))
        .add(Access::Operator(TokenScope::Manage), routes!(set_default))
        .add(Access::SignedIn(TokenScope::Read), routes!(show))
        .add(Access::SignedIn(TokenScope::Read), routes!(show_data))
        .add(Access::Operator(TokenScope::Manage), routes!(set))
        .add(Access::Operator(TokenScope::Manage), routes!(reset))
        .add(Access::Operator(TokenScope::Manage), routes!(preview))
        .add(Access::Operator(TokenScope::Manage), routes!(preview_default))
}

/// Shows what everybody may use together who has no allowance of their own.
#[utoipa::path(get, path = "/api/v1/allowance", tag = "allowances",
    responses((status = 200, body = Allowance)))]
async fn default(State(app): State<App>) -> Result<Json<Allowance>> {
    Ok(Json(allowances::default(&app).await?))
}

/// Changes it. Those who use more memory now keep what they had for as long, and are named.
#[utoipa::path(put, path = "/api/v1/allowance", tag = "allowances", request_body = Allowance,
    responses((status = 200, body = DefaultSet), (status = 422, body = ProblemBody)))]
async fn set_default(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<Allowance>,
) -> Result<Json<DefaultSet>> {
    Ok(Json(allowances::set_default(&app, &caller, body).await?))
}

/// Shows what a person may use together: oneself, or for operators and auditors anybody.
#[utoipa::path(get, path = "/api/v1/people/{id}/allowance", tag = "allowances",
    params(("id" = u32, Path, description = "The person")),
    responses((status = 200, body = AllowanceView), (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Json<AllowanceView>> {
    Ok(Json(allowances::of_person(&app, &caller, PrincipalId(id)).await?))
}

/// Shows what a person keeps on disk, and what bounds it: oneself, or for operators and auditors anybody.
#[utoipa::path(get, path = "/api/v1/people/{id}/data", tag = "allowances",
    params(("id" = u32, Path, description = "The person")),
    responses((status = 200, body = DataView), (status = 404, body = ProblemBody)))]
async fn show_data(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Json<DataView>> {
    Ok(Json(data::of_person(&app, &caller, PrincipalId(id)).await?))
}

/// Gives a person an allowance of their own; the kernel holds it from now on.
#[utoipa::path(put, path = "/api/v1/people/{id}/allowance", tag = "allowances",
    params(("id" = u32, Path, description = "The person")), request_body = Allowance,
    responses(
        (status = 200, body = AllowanceSet), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    JsonBody(body): JsonBody<Allowance>,
) -> Result<Json<AllowanceSet>> {
    Ok(Json(allowances::set(&app, &caller, PrincipalId(id), body).await?))
}

/// Takes a person's own allowance away: what applies to everybody applies to them again.
#[utoipa::path(delete, path = "/api/v1/people/{id}/allowance", tag = "allowances",
    params(("id" = u32, Path, description = "The person")),
    responses(
        (status = 200, body = AllowanceSet), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn reset(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Json<AllowanceSet>> {
    Ok(Json(allowances::reset(&app, &caller, PrincipalId(id)).await?))
}

/// Tells who would be over if this were everybody's allowance. Changes nothing.
#[utoipa::path(post, path = "/api/v1/allowance/preview", tag = "allowances",
    request_body = Allowance,
    responses((status = 200, body = Preview), (status = 422, body = ProblemBody)))]
async fn preview_default(
    State(app): State<App>,
    JsonBody(body): JsonBody<Allowance>,
) -> Result<Json<Preview>> {
    Ok(Json(preview::of_default(&app, body).await?))
}

/// Tells what of a person's would be over if this were theirs. Changes nothing.
#[utoipa::path(post, path = "/api/v1/people/{id}/allowance/preview", tag = "allowances",
    params(("id" = u32, Path, description = "The person")), request_body = Allowance,
    responses(
        (status = 200, body = Preview), (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn preview(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    JsonBody(body): JsonBody<Allowance>,
) -> Result<Json<Preview>> {
    Ok(Json(preview::of_person(&app, &caller, PrincipalId(id), body).await?))
}
