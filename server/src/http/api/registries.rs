//! `/api/v1/registries`: one's own credentials for registries. Passwords go in and never come out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::TokenScope;
use crate::clock::Time;
use crate::error::Result;
use crate::http::extract::{Caller, Items, JsonBody, Query};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes};
use crate::inventory::registries::CredentialRow;
use crate::registry::Credentials;
use crate::service::registries;

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes.add(Access::Member(TokenScope::Manage), routes!(list, set, remove))
}

/// Credentials for a registry, without the password.
#[derive(Debug, Serialize, ToSchema)]
struct CredentialView {
    /// The registry, as in references.
    registry: String,
    /// The user's name there.
    username: String,
    /// When they were set.
    created_at: Time,
}

/// Credentials to be kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CredentialRequest {
    /// The registry, as in references: `docker.io`, `ghcr.io`, `host:5000`.
    registry: String,
    /// The user's name there.
    username: String,
    /// The password or access token; never shown again.
    password: String,
}

/// Which credentials.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct CredentialQuery {
    /// The registry.
    registry: String,
}

/// Lists the registries that one has credentials for.
#[utoipa::path(get, path = "/api/v1/registries", tag = "images",
    responses((status = 200, body = Items<CredentialView>)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Items<CredentialView>>> {
    let rows = registries::list(&app, &caller).await?;
    Ok(Json(Items::whole(rows.into_iter().map(Into::into).collect())))
}

/// Sets or replaces one's credentials for a registry.
#[utoipa::path(put, path = "/api/v1/registries", tag = "images", request_body = CredentialRequest,
    responses((status = 200, body = CredentialView), (status = 422, body = ProblemBody)))]
async fn set(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<CredentialRequest>,
) -> Result<Json<CredentialView>> {
    let credentials = Credentials { username: body.username, password: body.password };
    let row = registries::set(&app, &caller, &body.registry, &credentials).await?;
    Ok(Json(row.into()))
}

/// Forgets one's credentials for a registry.
#[utoipa::path(delete, path = "/api/v1/registries", tag = "images", params(CredentialQuery),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<CredentialQuery>,
) -> Result<StatusCode> {
    registries::remove(&app, &caller, &query.registry).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<CredentialRow> for CredentialView {
    fn from(row: CredentialRow) -> Self {
        Self { registry: row.registry, username: row.username, created_at: row.created_at }
    }
}
