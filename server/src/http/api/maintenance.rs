//! `/api/v1/maintenance`.

use axum::Json;
use axum::extract::State;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::maintenance::{self, MaintenanceRequest, MaintenanceView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(show))
        .add(Access::Operator(TokenScope::Manage), routes!(begin, end))
}

/// Tells whether the machine is in maintenance, and why.
#[utoipa::path(get, path = "/api/v1/maintenance", tag = "maintenance",
    responses((status = 200, body = MaintenanceView)))]
async fn show(State(app): State<App>, caller: Caller) -> Json<MaintenanceView> {
    Json(maintenance::show(&app, &caller))
}

/// Begins maintenance, or changes what people are told. Creating, starting, pulling and importing answer
/// everybody but operators with 503 and these words; what runs goes on.
#[utoipa::path(put, path = "/api/v1/maintenance", tag = "maintenance",
    request_body = MaintenanceRequest,
    responses((status = 200, body = MaintenanceView), (status = 422, body = ProblemBody)))]
async fn begin(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<MaintenanceRequest>,
) -> Result<Json<MaintenanceView>> {
    Ok(Json(maintenance::begin(&app, &caller, &body).await?))
}

/// Ends maintenance.
#[utoipa::path(delete, path = "/api/v1/maintenance", tag = "maintenance",
    responses((status = 200, body = MaintenanceView)))]
async fn end(State(app): State<App>, caller: Caller) -> Result<Json<MaintenanceView>> {
    Ok(Json(maintenance::end(&app, &caller).await?))
}
