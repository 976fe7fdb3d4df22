//! `/api/v1/ports`: ports of the host that lead to containers.

use axum::Json;
use axum::extract::State;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Items, PageParams, PageQuery};
use crate::http::routes::{Access, Routes, routes};
use crate::service::ports::{self, LeaseView, PortPolicy};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(list))
        .add(Access::SignedIn(TokenScope::Read), routes!(policy))
}

/// Lists ports of the host that are leased to one's containers; to everybody's, for operators and auditors.
#[utoipa::path(get, path = "/api/v1/ports", tag = "ports", params(PageParams),
    responses((status = 200, body = Items<LeaseView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    PageQuery(page): PageQuery,
) -> Result<Json<Items<LeaseView>>> {
    let listed = ports::list(&app, &caller, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Tells which ports can be leased, on which of the host's addresses.
#[utoipa::path(get, path = "/api/v1/ports/policy", tag = "ports",
    responses((status = 200, body = PortPolicy)))]
async fn policy(State(app): State<App>) -> Json<PortPolicy> {
    Json(ports::policy(&app))
}
