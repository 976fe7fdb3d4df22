//! `/api/v1/layers`: whether what is stored is what it was.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::Caller;
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::operations::Operation;
use crate::service::images::{self, LayersView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::Overseer(TokenScope::Read), routes!(layers))
        .add(Access::Operator(TokenScope::Operate), routes!(verify_layers))
}

/// How the stored layers were found when they were last verified, and which are harmed. A container whose image
/// has a damaged layer is not started; a pull or an import of the image replaces it.
#[utoipa::path(get, path = "/api/v1/layers", tag = "images",
    responses((status = 200, body = LayersView), (status = 403, body = ProblemBody)))]
async fn layers(State(app): State<App>) -> Result<Json<LayersView>> {
    Ok(Json(images::layers_found(&app).await?))
}

/// Begins to verify every stored layer: each is unpacked once more from the bytes that it came from, at the lowest
/// priority, and compared name by name and byte by byte. The operation's progress has `whole`, `harmed` and
/// `skipped`; so has its result, with `skipped_layers`.
#[utoipa::path(post, path = "/api/v1/layers/verify", tag = "images",
    responses((status = 202, body = Operation), (status = 403, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn verify_layers(
    State(app): State<App>,
    caller: Caller,
) -> Result<(StatusCode, Json<Operation>)> {
    Ok((StatusCode::ACCEPTED, Json(images::verify_layers(&app, &caller).await?)))
}
