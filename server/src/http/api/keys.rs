//! `/api/v1/keys`: the keys that sign sessions and tokens. Root socket only.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;
use crate::error::Result;
use crate::http::extract::{Caller, Items, Path};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::keys::{self, SigningKey};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes.add(Access::Root, routes!(list, rotate)).add(Access::Root, routes!(retire))
}

/// Lists the signing keys, the one that signs first. Root socket only.
#[utoipa::path(get, path = "/api/v1/keys", tag = "keys",
    responses((status = 200, body = Items<SigningKey>)))]
async fn list(State(app): State<App>) -> Result<Json<Items<SigningKey>>> {
    Ok(Json(Items::whole(keys::list(&app).await?)))
}

/// Makes a new key that signs; old ones verify until what they signed has ended. Root socket only.
#[utoipa::path(post, path = "/api/v1/keys", tag = "keys",
    responses((status = 201, body = Items<SigningKey>), (status = 507, body = ProblemBody)))]
async fn rotate(
    State(app): State<App>,
    caller: Caller,
) -> Result<(StatusCode, Json<Items<SigningKey>>)> {
    let keys = keys::rotate(&app, &caller).await?;
    Ok((StatusCode::CREATED, Json(Items::whole(keys))))
}

/// Forgets an old key at once: its sessions and tokens end. Root socket only.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "keys",
    params(("id" = String, Path, description = "The key")),
    responses((status = 204), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn retire(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    keys::retire(&app, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
