//! `/api/v1/problems`: every type of problem that answers can have.

use axum::Json;

use crate::http::catalogue::{self, Known};
use crate::http::extract::Items;
use crate::http::routes::{Access, Routes, routes};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes.add(Access::Public, routes!(list))
}

/// Lists the types of problems, with cause and cure. A problem's `type` is `/problems/<code>`, which
/// is also a page.
#[utoipa::path(get, path = "/api/v1/problems", tag = "system",
    responses((status = 200, body = Items<Known>)))]
async fn list() -> Json<Items<Known>> {
    Json(Items::whole(catalogue::all().copied().collect()))
}
