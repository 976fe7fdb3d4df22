//! Health, the API's description, and facts of this server.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes};
use crate::service::network::{self, NetworkState};
use crate::service::system;

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
    responses((status = 200, content_type = "application/json", body = String)))]
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
