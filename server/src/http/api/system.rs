//! Health, the API's description, and facts of this server.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Items, JsonBody, Query};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::network::{self, NetworkState};
use crate::service::system::{self, Facts, Fresh, RegistryCheck, RegistryPolicy, Report};
use crate::warnings::Warning;

static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| crate::http::describe().1.to_json().unwrap_or_default());

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::Public, routes!(alive))
        .add(Access::Public, routes!(ready))
        .add(Access::Public, routes!(document))
        .add(Access::SignedIn(TokenScope::Read), routes!(info))
        .add(Access::Overseer(TokenScope::Read), routes!(reached))
        .add(Access::Overseer(TokenScope::Read), routes!(facts))
        .add(Access::Overseer(TokenScope::Read), routes!(doctor))
        .add(Access::Operator(TokenScope::Read), routes!(warnings))
        .add(Access::Overseer(TokenScope::Read), routes!(registries))
        .add(Access::Operator(TokenScope::Operate), routes!(check_registry))
}

/// A word.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
}

/// Facts of this server.
#[derive(Debug, Serialize, ToSchema)]
struct SystemInfo {
    /// The server's version.
    version: &'static str,
    /// The supervisor's version.
    supervisor: String,
    /// The instance's name.
    instance: String,
    /// The host's logical processors.
    cpus: u32,
    /// The host's memory.
    memory_bytes: u64,
}

/// Tells that the server answers.
#[utoipa::path(get, path = "/healthz", tag = "system", responses((status = 200, body = Health)))]
async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Tells whether the inventory can be written and the supervisor answers.
#[utoipa::path(get, path = "/readyz", tag = "system",
    responses((status = 200, body = Health), (status = 503, body = ProblemBody)))]
async fn ready(State(app): State<App>) -> Result<Json<Health>> {
    system::ready(&app).await?;
    Ok(Json(Health { status: "ok" }))
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "system",
    responses((status = 200, content_type = "application/json", body = serde_json::Value)))]
async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// Tells how this server can be reached, its certificate, and which settings are risky.
#[utoipa::path(get, path = "/api/v1/system/network", tag = "system",
    responses((status = 200, body = NetworkState)))]
async fn reached(State(app): State<App>) -> Json<NetworkState> {
    Json(network::state(&app))
}

/// Tells facts of this server.
#[utoipa::path(get, path = "/api/v1/system", tag = "system",
    responses((status = 200, body = SystemInfo)))]
async fn info(State(app): State<App>) -> Result<Json<SystemInfo>> {
    let hello = system::hello(&app).await?;
    Ok(Json(SystemInfo {
        version: env!("CARGO_PKG_VERSION"),
        supervisor: hello.build,
        instance: app.config.runtime.instance.clone(),
        cpus: hello.cpus,
        memory_bytes: hello.memory_bytes,
    }))
}

/// Whether a new report is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DoctorQuery {
    /// Look again, though the last look is less than a minute old.
    #[serde(default)]
    fresh: bool,
}

/// Which registry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RegistryCheckRequest {
    /// One that the configuration names, as in references.
    registry: String,
}

/// Tells how this server and its host are set up.
#[utoipa::path(get, path = "/api/v1/system/facts", tag = "system",
    responses((status = 200, body = Facts)))]
async fn facts(State(app): State<App>) -> Result<Json<Facts>> {
    Ok(Json(system::facts(&app).await?))
}

/// Tells what the host has and lacks, what a lack costs and how to mend it. The supervisor looks; a
/// report less than a minute old is given again.
#[utoipa::path(get, path = "/api/v1/system/doctor", tag = "system", params(DoctorQuery),
    responses((status = 200, body = Report), (status = 503, body = ProblemBody)))]
async fn doctor(State(app): State<App>, Query(query): Query<DoctorQuery>) -> Result<Json<Report>> {
    let fresh = if query.fresh { Fresh::Yes } else { Fresh::No };
    Ok(Json(system::doctor(&app, fresh).await?))
}

/// Lists the server's own newest warnings and errors, 200 at most, newest first.
#[utoipa::path(get, path = "/api/v1/system/warnings", tag = "system",
    responses((status = 200, body = Items<Warning>)))]
async fn warnings() -> Json<Items<Warning>> {
    Json(Items::whole(system::warnings()))
}

/// Tells where images may come from, as configured.
#[utoipa::path(get, path = "/api/v1/system/registries", tag = "system",
    responses((status = 200, body = RegistryPolicy)))]
async fn registries(State(app): State<App>) -> Json<RegistryPolicy> {
    Json(system::registries(&app))
}

/// Asks one configured registry whether it answers, without credentials; for ten seconds at most.
#[utoipa::path(post, path = "/api/v1/system/registries/check", tag = "system",
    request_body = RegistryCheckRequest,
    responses(
        (status = 200, body = RegistryCheck), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody)))]
async fn check_registry(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<RegistryCheckRequest>,
) -> Result<Json<RegistryCheck>> {
    Ok(Json(system::check_registry(&app, &caller, &body.registry).await?))
}
