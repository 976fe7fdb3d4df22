//! `/api/v1/groups`, and who is in one.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use berth_runtime::id::PrincipalId;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Items, JsonBody, PageParams, PageQuery, Path, Query};
use crate::http::precondition::{Precondition, Tagged};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::allowances::Allowance;
use crate::inventory::groups::{Group, Member, MemberRole};
use crate::service::allowances::{AllowanceSet, AllowanceView};
use crate::service::groups::{self, Change};
use crate::service::preview::{self, Preview};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(list))
        .add(Access::Operator(TokenScope::Manage), routes!(add))
        .add(Access::SignedIn(TokenScope::Read), routes!(show))
        .add(Access::Operator(TokenScope::Manage), routes!(change))
        .add(Access::Operator(TokenScope::Manage), routes!(delete))
        .add(Access::SignedIn(TokenScope::Read), routes!(members))
        .add(Access::Member(TokenScope::Manage), routes!(set_member, remove_member))
        .add(Access::Overseer(TokenScope::Read), routes!(show_allowance))
        .add(Access::Operator(TokenScope::Manage), routes!(set_allowance))
        .add(Access::Operator(TokenScope::Manage), routes!(preview_allowance))
}

/// A group to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GroupRequest {
    /// 1 to 32 lower-case letters, digits, `.`, `_`, `-`, a letter first.
    name: String,
    /// What it is for, at most 500 characters.
    #[serde(default)]
    note: String,
}

/// A change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GroupChange {
    /// The new name.
    name: Option<String>,
    /// The new note.
    note: Option<String>,
}

/// Somebody who is to be in a group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GroupMemberRequest {
    /// The name that they sign in with.
    name: String,
    /// What they are to be in it; only operators make managers.
    role: MemberRole,
}

/// Who in a group.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct MemberQuery {
    /// Their name.
    name: String,
}

/// Lists groups by name: those that one is in; all for operators and auditors.
#[utoipa::path(get, path = "/api/v1/groups", tag = "groups", params(PageParams),
    operation_id = "list_groups", responses((status = 200, body = Items<Group>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    PageQuery(page): PageQuery,
) -> Result<Json<Items<Group>>> {
    let listed = groups::list(&app, &caller, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Makes a group.
#[utoipa::path(post, path = "/api/v1/groups", tag = "groups", request_body = GroupRequest,
    operation_id = "add_group",
    responses(
        (status = 201, body = Group), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn add(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<GroupRequest>,
) -> Result<(StatusCode, Json<Group>)> {
    let group = groups::add(&app, &caller, &body.name, &body.note).await?;
    Ok((StatusCode::CREATED, Json(group)))
}

/// Shows a group that one is in; any to operators and auditors.
#[utoipa::path(get, path = "/api/v1/groups/{id}", tag = "groups", operation_id = "show_group",
    params(("id" = u32, Path, description = "The group")),
    responses(
        (status = 200, body = Group, headers(("ETag" = String))),
        (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Tagged<Group>> {
    Ok(tagged(groups::find(&app, &caller, PrincipalId(id)).await?))
}

/// Lists everybody who is in a group, by name; only for its managers, operators and auditors.
#[utoipa::path(get, path = "/api/v1/groups/{id}/members", tag = "groups",
    operation_id = "list_group_members",
    params(("id" = u32, Path, description = "The group"), PageParams),
    responses(
        (status = 200, body = Items<Member>), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
async fn members(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    PageQuery(page): PageQuery,
) -> Result<Json<Items<Member>>> {
    let listed = groups::members(&app, &caller, PrincipalId(id), &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Makes somebody a member of a group; only its managers and operators may, and only operators make managers.
/// Members have what is shared with the group; their resources count where they did.
#[utoipa::path(put, path = "/api/v1/groups/{id}/members", tag = "groups",
    operation_id = "set_group_member",
    params(("id" = u32, Path, description = "The group")), request_body = GroupMemberRequest,
    responses(
        (status = 200, body = Member), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 507, body = ProblemBody)))]
async fn set_member(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    JsonBody(body): JsonBody<GroupMemberRequest>,
) -> Result<Json<Member>> {
    let wanted = (body.name.as_str(), body.role);
    Ok(Json(groups::set_member(&app, &caller, PrincipalId(id), wanted).await?))
}

/// Takes somebody out of a group: its managers may take out members, operators everybody, and everybody
/// themselves. What is shared with the group ends for them at once, open terminals included.
#[utoipa::path(delete, path = "/api/v1/groups/{id}/members", tag = "groups",
    operation_id = "remove_group_member",
    params(("id" = u32, Path, description = "The group"), MemberQuery),
    responses(
        (status = 204), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn remove_member(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    Query(query): Query<MemberQuery>,
) -> Result<StatusCode> {
    groups::remove_member(&app, &caller, PrincipalId(id), &query.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a group's name or note.
#[utoipa::path(patch, path = "/api/v1/groups/{id}", tag = "groups", operation_id = "change_group",
    params(
        ("id" = u32, Path, description = "The group"),
        ("If-Match" = Option<String>, Header, description = "Only if the ETag is one of these")),
    request_body = GroupChange,
    responses(
        (status = 200, body = Group, headers(("ETag" = String))),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 412, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    Precondition(expected): Precondition,
    JsonBody(body): JsonBody<GroupChange>,
) -> Result<Tagged<Group>> {
    let change = Change { name: body.name, note: body.note, expected };
    Ok(tagged(groups::change(&app, &caller, PrincipalId(id), change).await?))
}

fn tagged(group: Group) -> Tagged<Group> {
    Tagged(groups::version(&group), group)
}

/// Removes a group that nobody counts to. Its id is never given again.
#[utoipa::path(delete, path = "/api/v1/groups/{id}", tag = "groups",
    operation_id = "delete_group",
    params(("id" = u32, Path, description = "The group")),
    responses(
        (status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<u32>) -> Result<StatusCode> {
    groups::delete(&app, &caller, PrincipalId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows what all that runs for a group may use together.
#[utoipa::path(get, path = "/api/v1/groups/{id}/allowance", tag = "groups",
    operation_id = "show_group_allowance",
    params(("id" = u32, Path, description = "The group")),
    responses((status = 200, body = AllowanceView), (status = 404, body = ProblemBody)))]
async fn show_allowance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Json<AllowanceView>> {
    Ok(Json(groups::allowance(&app, &caller, PrincipalId(id)).await?))
}

/// Changes it; the kernel holds it from now on. Each of the group's people may have less.
#[utoipa::path(put, path = "/api/v1/groups/{id}/allowance", tag = "groups",
    operation_id = "set_group_allowance",
    params(("id" = u32, Path, description = "The group")), request_body = Allowance,
    responses(
        (status = 200, body = AllowanceSet), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn set_allowance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    JsonBody(body): JsonBody<Allowance>,
) -> Result<Json<AllowanceSet>> {
    Ok(Json(groups::set_allowance(&app, &caller, PrincipalId(id), body).await?))
}

/// Tells what of a group would be over if this were its allowance: the sum, and those of its people who are
/// alone. Changes nothing.
#[utoipa::path(post, path = "/api/v1/groups/{id}/allowance/preview", tag = "groups",
    operation_id = "preview_group_allowance",
    params(("id" = u32, Path, description = "The group")), request_body = Allowance,
    responses(
        (status = 200, body = Preview), (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn preview_allowance(
    State(app): State<App>,
    Path(id): Path<u32>,
    JsonBody(body): JsonBody<Allowance>,
) -> Result<Json<Preview>> {
    Ok(Json(preview::of_group(&app, PrincipalId(id), body).await?))
}
