//! `/api/v1/people` and `/api/v1/invitations`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sessions::signed_in;
use crate::app::App;
use crate::auth::{Role, TokenScope};
use crate::clock::Time;
use crate::error::Result;
use crate::http::extract::{Caller, Items, JsonBody, PageParams, PageQuery, Path, Visitor};
use crate::http::precondition::{Precondition, Tagged};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::people::{Access as PersonAccess, Person};
use crate::service::enrol::{self, Added, Line, Verdict};
use crate::service::invitations;
use crate::service::people::{self, Invitation, NewPerson};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::Overseer(TokenScope::Read), routes!(list))
        .add(Access::Operator(TokenScope::Manage), routes!(add))
        .add(Access::Operator(TokenScope::Manage), routes!(import))
        .add(Access::SignedIn(TokenScope::Read), routes!(show))
        .add(Access::Operator(TokenScope::Manage), routes!(change))
        .add(Access::Operator(TokenScope::Manage), routes!(invite))
        .add(Access::SignedIn(TokenScope::Read), routes!(access))
        .add(Access::Operator(TokenScope::Manage), routes!(end_access))
        .add(Access::Public, routes!(look))
        .add(Access::Public, routes!(accept))
}

/// A person to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PersonRequest {
    /// 1 to 32 lower-case letters, digits, `.`, `_`, `-`, a letter first.
    name: String,
    /// What they may do.
    role: Role,
    /// When the account ends by itself: a day, through which it is good (in UTC), or a time; left out or empty for
    /// never.
    #[serde(default)]
    expires_at: Option<String>,
}

/// A change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PersonChange {
    /// The new role.
    role: Option<Role>,
    /// Whether they may not sign in.
    disabled: Option<bool>,
    /// The user of this host that they are on the socket for local users: at most 64 characters; empty for none.
    local_user: Option<String>,
    /// The group that their resources are to count to; refused while something of theirs runs.
    group: Option<u32>,
    /// When the account ends by itself: a day, through which it is good (in UTC), or a time; empty for never.
    expires_at: Option<String>,
}

/// People to be added from a table.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PeopleImport)]
#[serde(deny_unknown_fields)]
struct ImportRequest {
    /// The table as CSV (RFC 4180): at most 1000 lines below the first one, which names the columns: `name`, and
    /// of `role` (`user` where it is empty), `group` and `expires` those that are needed.
    csv: String,
    /// Whether only to say what would become of each line. Nothing is changed then.
    dry_run: bool,
}

/// What became of a table, or would.
#[derive(Debug, Serialize, ToSchema)]
struct Imported {
    /// Whether nothing was changed.
    dry_run: bool,
    /// How many people were added, or would be if no line were wrong.
    people: u32,
    /// Of a dry run, each line with what would become of it.
    lines: Vec<Line>,
    /// Of those who were added, each with their link, which is shown once.
    added: Vec<ImportedPerson>,
}

/// Somebody who was added from a table.
#[derive(Debug, Serialize, ToSchema)]
struct ImportedPerson {
    /// Who.
    #[schema(value_type = u32)]
    id: PrincipalId,
    /// Their name.
    name: String,
    /// How they set their password.
    invitation: InvitationBody,
}

/// A one-time link.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invitation)]
struct InvitationBody {
    /// What `POST /api/v1/invitations/accept` takes; shown once.
    secret: String,
    /// The page to send to the person, below this server's address.
    path: String,
    /// When the link ends.
    expires_at: Time,
}

/// A new person and their link.
#[derive(Debug, Serialize, ToSchema)]
struct PersonAdded {
    /// The person.
    person: Person,
    /// How they set their password.
    invitation: InvitationBody,
}

/// An invitation's secret.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = InvitationLook)]
#[serde(deny_unknown_fields)]
struct LookRequest {
    /// From the link.
    secret: String,
}

/// Whose link it is.
#[derive(Debug, Serialize, ToSchema)]
struct Invited {
    /// The name to sign in with.
    name: String,
    /// When the link ends.
    expires_at: Time,
}

/// An invitation's secret and the new password.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = InvitationAccept)]
#[serde(deny_unknown_fields)]
struct AcceptRequest {
    /// From the link.
    secret: String,
    /// At least 10 characters.
    password: String,
    /// A code of the second factor, or a recovery code, of those who have one.
    #[serde(default)]
    code: Option<String>,
}

impl From<Invitation> for InvitationBody {
    fn from(invitation: Invitation) -> Self {
        let path = format!("/invitation/{}", invitation.secret);
        Self { secret: invitation.secret, path, expires_at: invitation.expires_at }
    }
}

/// Lists people by name.
#[utoipa::path(get, path = "/api/v1/people", tag = "people", params(PageParams),
    responses((status = 200, body = Items<Person>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    PageQuery(page): PageQuery,
) -> Result<Json<Items<Person>>> {
    let listed = people::list(&app, &caller, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Adds a person, who sets their password by a one-time link.
#[utoipa::path(post, path = "/api/v1/people", tag = "people", request_body = PersonRequest,
    responses(
        (status = 201, body = PersonAdded), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn add(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<PersonRequest>,
) -> Result<(StatusCode, Json<PersonAdded>)> {
    let expires_at = people::end_of_account(body.expires_at.as_deref().unwrap_or_default())?;
    let new = NewPerson { name: &body.name, role: body.role, expires_at };
    let (person, invitation) = people::add(&app, &caller, &new).await?;
    Ok((StatusCode::CREATED, Json(PersonAdded { person, invitation: invitation.into() })))
}

/// Adds everybody in a table, each with a one-time link, or nobody: a line that is not somebody new refuses all of it.
/// A dry run says line by line what would happen.
#[utoipa::path(post, path = "/api/v1/people/import", tag = "people", operation_id = "import_people",
    request_body = ImportRequest,
    responses(
        (status = 200, body = Imported, description = "A dry run"),
        (status = 201, body = Imported), (status = 422, body = ProblemBody)))]
async fn import(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<ImportRequest>,
) -> Result<(StatusCode, Json<Imported>)> {
    let (status, lines, added) = match body.dry_run {
        true => (StatusCode::OK, enrol::look(&app, &body.csv).await?, Vec::new()),
        false => (StatusCode::CREATED, Vec::new(), enrol::add(&app, &caller, &body.csv).await?),
    };
    let new = lines.iter().filter(|line| line.verdict == Verdict::New).count() + added.len();
    let added = added.into_iter().map(|Added { id, name, invitation }| ImportedPerson {
        id,
        name,
        invitation: invitation.into(),
    });
    let people = u32::try_from(new).unwrap_or(u32::MAX);
    let added = added.collect();
    Ok((status, Json(Imported { dry_run: body.dry_run, people, lines, added })))
}

/// Shows a person: oneself, or for operators and auditors anybody.
#[utoipa::path(get, path = "/api/v1/people/{id}", tag = "people",
    params(("id" = u32, Path, description = "The person")),
    responses(
        (status = 200, body = Person, headers(("ETag" = String))),
        (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Tagged<Person>> {
    Ok(tagged(people::find(&app, &caller, PrincipalId(id)).await?))
}

/// Changes a person's role, group, host user or the end of their account, or disables or enables them. When an account
/// has ended, its sessions, tokens and streams end, and its containers are stopped; a later end gives it back.
#[utoipa::path(patch, path = "/api/v1/people/{id}", tag = "people",
    params(
        ("id" = u32, Path, description = "The person"),
        ("If-Match" = Option<String>, Header, description = "Only if the ETag is one of these")),
    request_body = PersonChange,
    responses(
        (status = 200, body = Person, headers(("ETag" = String))),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 412, body = ProblemBody)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
    Precondition(expected): Precondition,
    JsonBody(body): JsonBody<PersonChange>,
) -> Result<Tagged<Person>> {
    let PersonChange { role, disabled, local_user, group, expires_at } = body;
    let expires_at = expires_at.as_deref().map(people::end_of_account).transpose()?;
    let group = group.map(PrincipalId);
    let change = people::Change { role, disabled, local_user, group, expires_at, expected };
    Ok(tagged(people::change(&app, &caller, PrincipalId(id), change).await?))
}

fn tagged(person: Person) -> Tagged<Person> {
    Tagged(people::version(&person), person)
}

/// Makes a new one-time link; an older one ends.
#[utoipa::path(post, path = "/api/v1/people/{id}/invitation", tag = "people",
    params(("id" = u32, Path, description = "The person")),
    responses((status = 201, body = InvitationBody), (status = 404, body = ProblemBody)))]
async fn invite(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<(StatusCode, Json<InvitationBody>)> {
    let invitation = people::invite(&app, &caller, PrincipalId(id)).await?;
    Ok((StatusCode::CREATED, Json(invitation.into())))
}

/// Counts a person's sessions, tokens and registry logins, oneself's or for operators and auditors
/// anybody's.
#[utoipa::path(get, path = "/api/v1/people/{id}/access", tag = "people",
    params(("id" = u32, Path, description = "The person")),
    responses((status = 200, body = PersonAccess), (status = 404, body = ProblemBody)))]
async fn access(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Json<PersonAccess>> {
    Ok(Json(people::access(&app, &caller, PrincipalId(id)).await?))
}

/// Ends all sessions and tokens of a person.
#[utoipa::path(delete, path = "/api/v1/people/{id}/access", tag = "people",
    params(("id" = u32, Path, description = "The person")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn end_access(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<StatusCode> {
    people::end_access(&app, &caller, PrincipalId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells whose link this is, without using it up.
#[utoipa::path(post, path = "/api/v1/invitations/look", tag = "people",
    request_body = LookRequest,
    responses((status = 200, body = Invited), (status = 404, body = ProblemBody)))]
async fn look(
    State(app): State<App>,
    visitor: Visitor,
    JsonBody(body): JsonBody<LookRequest>,
) -> Result<Json<Invited>> {
    let (name, expires_at) = invitations::look(&app, &visitor, &body.secret).await?;
    Ok(Json(Invited { name, expires_at }))
}

/// Sets the password and signs in.
#[utoipa::path(post, path = "/api/v1/invitations/accept", tag = "people",
    request_body = AcceptRequest,
    responses(
        (status = 201, body = super::sessions::SignedInBody), (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn accept(
    State(app): State<App>,
    visitor: Visitor,
    JsonBody(body): JsonBody<AcceptRequest>,
) -> Result<Response> {
    let code = body.code.as_deref().unwrap_or_default();
    let proofs = (&*body.secret, &*body.password, code);
    let done = invitations::accept(&app, &visitor, proofs).await?;
    signed_in(&app, &done)
}
