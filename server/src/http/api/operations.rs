//! `/api/v1/operations`: long work, followed and cancelled.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::{Error, Result};
use crate::http::extract::{Caller, Items, PageParams, Path, Query, page};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::http::stream;
use crate::inventory::operations::{Filter, Operation, OperationState};
use crate::service::operations;

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(list))
        .add(Access::SignedIn(TokenScope::Read), routes!(show))
        .add(Access::SignedIn(TokenScope::Read), routes!(follow))
        .add(Access::Member(TokenScope::Operate), routes!(cancel))
}

/// Which operations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct OperationQuery {
    /// Items at most, 1 to 500.
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Only those in this state.
    state: Option<OperationState>,
    /// Only those of this kind, such as `image.pull`.
    kind: Option<String>,
    /// Only those about this object.
    subject: Option<String>,
    /// Only this person's, by name.
    owner: Option<String>,
    /// Only those with this in what they are about.
    q: Option<String>,
}

/// Lists operations, newest first.
#[utoipa::path(get, path = "/api/v1/operations", tag = "operations", params(OperationQuery),
    responses((status = 200, body = Items<Operation>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<OperationQuery>,
) -> Result<Json<Items<Operation>>> {
    let page = page(&app, &PageParams { limit: query.limit, after: query.after })?;
    let OperationQuery { state, kind, subject, owner, q: words, .. } = query;
    let filter = Filter { state, kind, subject, owner, words, before: None };
    let listed = operations::list(&app, &caller, filter, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Shows an operation with its progress now.
#[utoipa::path(get, path = "/api/v1/operations/{id}", tag = "operations",
    params(("id" = String, Path, description = "The operation")),
    responses((status = 200, body = Operation), (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Operation>> {
    Ok(Json(operations::find(&app, &caller, &id).await?))
}

/// Follows an operation: server-sent events named `operation`, the last one after its end.
#[utoipa::path(get, path = "/api/v1/operations/{id}/events", tag = "operations",
    params(("id" = String, Path, description = "The operation")),
    responses(
        (status = 200, content_type = "text/event-stream", body = Operation),
        (status = 404, body = ProblemBody)))]
async fn follow(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let mut follow = operations::follow(&app, &caller, &id).await?;
    let (reader, who) = (app.clone(), caller.clone());
    let events = async_stream::try_stream! {
        while let Some(operation) = follow.next(&reader, &who).await? {
            yield Event::default()
                .event("operation")
                .json_data(&operation)
                .map_err(|source| Error::broken("write an operation", source))?;
        }
    };
    stream::sse(&app, &caller, None, events)
}

/// Asks an operation to end.
#[utoipa::path(post, path = "/api/v1/operations/{id}/cancel", tag = "operations",
    params(("id" = String, Path, description = "The operation")),
    responses(
        (status = 202, body = Operation), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody)))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Operation>)> {
    Ok((StatusCode::ACCEPTED, Json(operations::cancel(&app, &caller, &id).await?)))
}
