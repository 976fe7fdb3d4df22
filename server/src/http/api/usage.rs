//! `/api/v1/me/usage`, `/api/v1/people/{id}/usage`, `/api/v1/system/usage`, `/api/v1/metrics`: what is used of
//! what may be.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use berth_runtime::id::PrincipalId;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Path};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes};
use crate::service::metrics;
use crate::service::usage::{self, PersonUsage, SystemUsage, Usage};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(mine))
        .add(Access::SignedIn(TokenScope::Read), routes!(of_person))
        .add(Access::Overseer(TokenScope::Read), routes!(system))
        .add(Access::SignedIn(TokenScope::Read), routes!(scrape))
}

/// Tells what one's own containers and images use now, beside the sums of their limits.
#[utoipa::path(get, path = "/api/v1/me/usage", tag = "usage",
    responses((status = 200, body = Usage)))]
async fn mine(State(app): State<App>, caller: Caller) -> Result<Json<Usage>> {
    Ok(Json(usage::mine(&app, &caller).await?))
}

/// Tells the same of a person: oneself, or for operators and auditors anybody.
#[utoipa::path(get, path = "/api/v1/people/{id}/usage", tag = "usage",
    params(("id" = u32, Path, description = "The person")),
    responses((status = 200, body = PersonUsage), (status = 404, body = ProblemBody)))]
async fn of_person(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Json<PersonUsage>> {
    Ok(Json(usage::of_person(&app, &caller, PrincipalId(id)).await?))
}

/// Tells what the whole machine uses, and who of it how much.
#[utoipa::path(get, path = "/api/v1/system/usage", tag = "usage",
    responses((status = 200, body = SystemUsage)))]
async fn system(State(app): State<App>) -> Result<Json<SystemUsage>> {
    Ok(Json(usage::system(&app).await?))
}

/// Tells what is used as Prometheus scrapes it (text format 0.0.4): of one's own things; for operators and
/// auditors of the machine and everybody. At most 1,000 running containers have series of their own.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "usage",
    responses((status = 200, content_type = "text/plain", body = String)))]
async fn scrape(State(app): State<App>, caller: Caller) -> Result<impl IntoResponse> {
    let text = metrics::text(&app, &caller).await?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}
