//! `/api/v1/volumes`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Create, Items, JsonBody, PageParams, PageQuery, Path};
use crate::http::precondition::{Precondition, Tagged};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::volumes::{self, Change, VolumeDetail, VolumeView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let operate = Access::Member(TokenScope::Operate);
    routes
        .add(read, routes!(list))
        .add(operate, routes!(create))
        .add(read, routes!(show))
        .add(operate, routes!(change, remove))
        .add(Access::Operator(TokenScope::Manage), routes!(hand_over))
}

/// A volume to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VolumeCreate)]
struct CreateRequest {
    /// 1 to 63 lower-case letters, digits, '.', '_' or '-', a letter or digit first.
    name: String,
}

/// Whom a volume is given to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VolumeHandOver)]
struct HandOverRequest {
    /// The name that they sign in with.
    to: String,
}

/// A change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VolumeChange)]
struct ChangeRequest {
    /// Another name.
    name: Option<String>,
}

/// Lists volumes by name: one's own and those shared with one; everybody's, for operators and auditors.
#[utoipa::path(get, path = "/api/v1/volumes", tag = "volumes", params(PageParams),
    operation_id = "list_volumes",
    responses((status = 200, body = Items<VolumeView>), (status = 422, body = ProblemBody)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    PageQuery(page): PageQuery,
) -> Result<Json<Items<VolumeView>>> {
    let listed = volumes::list(&app, &caller, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Makes a volume, which begins empty; at its first use it is filled with what the image has at the place.
#[utoipa::path(post, path = "/api/v1/volumes", tag = "volumes", operation_id = "create_volume",
    request_body = CreateRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it once")),
    responses(
        (status = 201, body = VolumeDetail, headers(("ETag" = String))),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 507, body = ProblemBody)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Create(body, key): Create<CreateRequest>,
) -> Result<(StatusCode, Tagged<VolumeDetail>)> {
    let made = volumes::create(&app, &caller, &body.name, key).await?;
    Ok((StatusCode::CREATED, tagged(made)))
}

/// Shows a volume, who has it, and what it holds: looked at now, or less than a minute ago.
#[utoipa::path(get, path = "/api/v1/volumes/{id}", tag = "volumes", operation_id = "show_volume",
    params(("id" = String, Path, description = "Its id, the name of one's own, or `owner/name`")),
    responses(
        (status = 200, body = VolumeDetail, headers(("ETag" = String))),
        (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Tagged<VolumeDetail>> {
    Ok(tagged(volumes::inspect(&app, &caller, &key).await?))
}

/// Changes a volume's name. Containers that have it keep it.
#[utoipa::path(patch, path = "/api/v1/volumes/{id}", tag = "volumes",
    operation_id = "change_volume",
    params(
        ("id" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if its ETag is one of these")),
    request_body = ChangeRequest,
    responses(
        (status = 200, body = VolumeDetail, headers(("ETag" = String))),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 412, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Precondition(expected): Precondition,
    JsonBody(body): JsonBody<ChangeRequest>,
) -> Result<Tagged<VolumeDetail>> {
    let change = Change { name: body.name, expected };
    Ok(tagged(volumes::change(&app, &caller, &key, change).await?))
}

/// Removes a volume that no container of its owner's has and no other runs with, with all that is in it. Answers 202 when it cannot go at once: the
/// supervisor is away, or a run that used it is still being cleared away.
#[utoipa::path(delete, path = "/api/v1/volumes/{id}", tag = "volumes",
    operation_id = "remove_volume",
    params(
        ("id" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if its ETag is one of these")),
    responses(
        (status = 204), (status = 202), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 412, body = ProblemBody)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Precondition(expected): Precondition,
) -> Result<StatusCode> {
    let gone = volumes::remove(&app, &caller, &key, expected).await?;
    Ok(if gone { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}

/// Gives a volume to another person, with all that is in it, which counts to them from then on; what was shared of it ends.
/// Nothing may run with it. It is copied; answers 202 when that goes on.
#[utoipa::path(post, path = "/api/v1/volumes/{id}/hand-over", tag = "volumes",
    operation_id = "hand_over_volume", params(("id" = String, Path, description = "Its id or `owner/name`")),
    request_body = HandOverRequest,
    responses(
        (status = 204), (status = 202), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 507, body = ProblemBody)))]
async fn hand_over(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<HandOverRequest>,
) -> Result<StatusCode> {
    let done = volumes::hand_over(&app, &caller, &key, &body.to).await?;
    Ok(if done { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED })
}

fn tagged(detail: VolumeDetail) -> Tagged<VolumeDetail> {
    Tagged(volumes::version(&detail.volume), detail)
}
