//! `/api/v1/me/usage`, `/api/v1/me/space`, `/api/v1/people/{id}/usage`, `/api/v1/system/usage`, `/api/v1/metrics`: what is used of
//! what may be; `/api/v1/usage/days`: what was used.

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use berth_runtime::id::PrincipalId;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Path, Query};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::days::{self, UsageDay, UsageDays};
use crate::service::metrics;
use crate::service::space::{self, SpaceView, Span};
use crate::service::usage::{self, PersonUsage, SystemUsage, Usage};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(mine))
        .add(Access::SignedIn(TokenScope::Read), routes!(my_space))
        .add(Access::SignedIn(TokenScope::Read), routes!(of_person))
        .add(Access::Overseer(TokenScope::Read), routes!(system))
        .add(Access::SignedIn(TokenScope::Read), routes!(scrape))
        .add(Access::SignedIn(TokenScope::Read), routes!(list_days))
}

/// Tells what one's own containers and images use now, beside the sums of their limits.
#[utoipa::path(get, path = "/api/v1/me/usage", tag = "usage",
    responses((status = 200, body = Usage)))]
async fn mine(State(app): State<App>, caller: Caller) -> Result<Json<Usage>> {
    Ok(Json(usage::mine(&app, &caller).await?))
}

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SpaceQuery {
    /// `day` (the default), or `week`.
    #[serde(default)]
    #[param(inline)]
    span: Span,
}

/// Tells what one uses of each limit of one's own, what one used lately, what ends by itself, and what takes the disk.
#[utoipa::path(get, path = "/api/v1/me/space", tag = "usage", operation_id = "show_my_space",
    params(SpaceQuery), responses((status = 200, body = SpaceView)))]
async fn my_space(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SpaceQuery>,
) -> Result<Json<SpaceView>> {
    Ok(Json(space::mine(&app, &caller, query.span).await?))
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

/// Which days, of whom.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DaysQuery {
    /// The first day in UTC, such as `2026-11-01`; 30 days up to the last one when left out.
    from: Option<String>,
    /// The last day; today when left out. At most 400 days.
    to: Option<String>,
    /// One person's; everybody's whom one sees when left out.
    person: Option<u32>,
    /// `json` (the default), or `csv` as an attachment.
    #[serde(default)]
    #[param(inline)]
    format: DaysFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DaysFormat {
    #[default]
    Json,
    Csv,
}

/// Tells what was used, by person and day: one's own, or for operators and auditors everybody's. A day that has not
/// ended is as far as it was written down, up to five minutes ago.
#[utoipa::path(get, path = "/api/v1/usage/days", tag = "usage", params(DaysQuery),
    responses(
        (status = 200, content((UsageDays = "application/json"), (String = "text/csv"))),
        (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn list_days(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<DaysQuery>,
) -> Result<Response> {
    let DaysQuery { from, to, person, format } = query;
    let wanted = days::Wanted { from, to, person: person.map(PrincipalId) };
    let found = days::list(&app, &caller, &wanted).await?;
    Ok(match format {
        DaysFormat::Json => Json(found).into_response(),
        DaysFormat::Csv => csv(&found).into_response(),
    })
}

/// One line a person and day (RFC 4180); names are letters, digits, dots, dashes and underscores.
fn csv(found: &UsageDays) -> impl IntoResponse + use<> {
    let mut text = String::from(
        "day,person,name,cpu_hours,memory_gib_hours,image_gib_hours,container_hours\r\n",
    );
    for row in &found.items {
        let UsageDay { day, person, .. } = row;
        text.push_str(&format!(
            "{day},{},{},{},{},{},{}\r\n",
            person.id,
            person.name,
            row.cpu_hours,
            row.memory_gib_hours,
            row.image_gib_hours,
            row.container_hours,
        ));
    }
    let name = format!("attachment; filename=\"usage-{}-{}.csv\"", found.from, found.to);
    ([(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)], text)
}

/// Tells what is used as Prometheus scrapes it (text format 0.0.4): of one's own things; for operators and
/// auditors of the machine and everybody. At most 1,000 running containers have series of their own.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "usage",
    responses((status = 200, content_type = "text/plain", body = String)))]
async fn scrape(State(app): State<App>, caller: Caller) -> Result<impl IntoResponse> {
    let text = metrics::text(&app, &caller).await?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}
