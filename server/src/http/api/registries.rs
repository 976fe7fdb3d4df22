//! `/api/v1/registries`: one's own credentials for registries. Passwords go in and never come out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::TokenScope;
use crate::clock::Time;
use crate::error::Result;
use crate::http::extract::{Caller, Items, JsonBody, Query};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::registry::Credentials;
use crate::service::registries::{self, Login, LoginState};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes.add(Access::Member(TokenScope::Manage), routes!(list, set, remove))
}

/// Credentials for a registry, without the password.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegistryCredentials)]
struct CredentialView {
    /// The registry, as in references.
    registry: String,
    /// The user's name there.
    username: String,
    /// When they were set.
    created_at: Time,
    /// Whether they are of use.
    state: CredentialState,
    /// Since when the registry has refused them.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_at: Option<Time>,
}

/// Whether credentials are of use.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CredentialState {
    /// As far as is known.
    Good,
    /// The registry refuses them.
    Refused,
    /// They can no longer be read, because the server's key is another.
    Lost,
}

/// Credentials to be kept.
#[derive(Deserialize, ToSchema)]
#[schema(as = RegistryCredentialsRequest)]
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
#[utoipa::path(get, path = "/api/v1/registries", tag = "registries",
    responses((status = 200, body = Items<CredentialView>)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Items<CredentialView>>> {
    let rows = registries::list(&app, &caller).await?;
    Ok(Json(Items::whole(rows.into_iter().map(Into::into).collect())))
}

/// Sets or replaces one's credentials for a registry.
#[utoipa::path(put, path = "/api/v1/registries", tag = "registries", request_body = CredentialRequest,
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
#[utoipa::path(delete, path = "/api/v1/registries", tag = "registries", params(CredentialQuery),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<CredentialQuery>,
) -> Result<StatusCode> {
    registries::remove(&app, &caller, &query.registry).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Login> for CredentialView {
    fn from(login: Login) -> Self {
        let (state, refused_at) = match login.state {
            LoginState::Good => (CredentialState::Good, None),
            LoginState::Refused(since) => (CredentialState::Refused, Some(since)),
            LoginState::Lost => (CredentialState::Lost, None),
        };
        let Login { registry, username, created_at, .. } = login;
        Self { registry, username, created_at, state, refused_at }
    }
}
