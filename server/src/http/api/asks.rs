//! `/api/v1/asks`: asking operators for more of a limit, and their answers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_runtime::id::PrincipalId;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Items, JsonBody, PageParams, Path, Query, page};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::asks::{AskState, Filter};
use crate::service::asks::{self, ApproveRequest, AskRequest, AskView, DeclineRequest};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    let decide = Access::Operator(TokenScope::Manage);
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(list))
        .add(act, routes!(make))
        .add(Access::SignedIn(TokenScope::Read), routes!(show))
        .add(act, routes!(withdraw))
        .add(decide, routes!(approve))
        .add(decide, routes!(decline))
        .add(decide, routes!(end))
}

/// Which asks.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AskQuery {
    /// Items at most, 1 to 500.
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Only those that stand so.
    #[param(inline)]
    state: Option<AskState>,
    /// Only this person's.
    person: Option<u32>,
}

/// Lists what was asked for, newest first: one's own, or for operators and auditors everybody's.
#[utoipa::path(get, path = "/api/v1/asks", tag = "allowances", operation_id = "list_asks",
    params(AskQuery), responses((status = 200, body = Items<AskView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AskQuery>,
) -> Result<Json<Items<AskView>>> {
    let page = page(&app, &PageParams { limit: query.limit, after: query.after })?;
    let person = query.person.map(PrincipalId);
    let filter = Filter { state: query.state, person, before: None };
    let listed = asks::list(&app, &caller, filter, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Asks operators for more of a limit of one's own. At most five asks of one person are open, one for each limit.
#[utoipa::path(post, path = "/api/v1/asks", tag = "allowances", operation_id = "make_ask",
    request_body = AskRequest,
    responses(
        (status = 201, body = AskView), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 507, body = ProblemBody)))]
async fn make(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<AskRequest>,
) -> Result<(StatusCode, Json<AskView>)> {
    Ok((StatusCode::CREATED, Json(asks::ask(&app, &caller, &body).await?)))
}

/// Shows one.
#[utoipa::path(get, path = "/api/v1/asks/{id}", tag = "allowances", operation_id = "show_ask",
    params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = AskView), (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Json<AskView>> {
    Ok(Json(asks::find(&app, &caller, id).await?))
}

/// Takes back what one has asked for oneself, while it is open.
#[utoipa::path(post, path = "/api/v1/asks/{id}/withdraw", tag = "allowances",
    operation_id = "withdraw_ask", params(("id" = i64, Path, description = "Its number")),
    responses(
        (status = 200, body = AskView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn withdraw(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Json<AskView>> {
    Ok(Json(asks::withdraw(&app, &caller, id).await?))
}

/// Grants it, or less than that, for a time or for good. For a time it holds on top of the person's allowance until
/// then; for good it becomes part of their own. The kernel holds it from now on.
#[utoipa::path(post, path = "/api/v1/asks/{id}/approve", tag = "allowances",
    operation_id = "approve_ask", params(("id" = i64, Path, description = "Its number")),
    request_body = ApproveRequest,
    responses(
        (status = 200, body = AskView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 507, body = ProblemBody)))]
async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    JsonBody(body): JsonBody<ApproveRequest>,
) -> Result<Json<AskView>> {
    Ok(Json(asks::approve(&app, &caller, id, &body).await?))
}

/// Says no. Whoever asked reads why.
#[utoipa::path(post, path = "/api/v1/asks/{id}/decline", tag = "allowances",
    operation_id = "decline_ask", params(("id" = i64, Path, description = "Its number")),
    request_body = DeclineRequest,
    responses(
        (status = 200, body = AskView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn decline(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    JsonBody(body): JsonBody<DeclineRequest>,
) -> Result<Json<AskView>> {
    Ok(Json(asks::decline(&app, &caller, id, &body).await?))
}

/// Ends what was granted for a time before its hour: what the person's allowance says holds again.
#[utoipa::path(post, path = "/api/v1/asks/{id}/end", tag = "allowances", operation_id = "end_ask",
    params(("id" = i64, Path, description = "Its number")),
    responses(
        (status = 200, body = AskView), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn end(State(app): State<App>, caller: Caller, Path(id): Path<i64>) -> Result<Json<AskView>> {
    Ok(Json(asks::end(&app, &caller, id).await?))
}
