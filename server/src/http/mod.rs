//! The HTTP surface: a thin adapter over `service`. Handlers unpack, call one service function and
//! wrap what comes back. Nothing here touches SQL, the supervisor or files.
//!
//! # How to add a route
//! 1. In `api/<resource>.rs` write a handler of 10 to 20 lines with `#[utoipa::path(…)]` above it
//!    (full path, `tag`, `responses`; `params(…)`/`request_body = T` for what it takes).
//!    Extractors: [`extract::Caller`], [`extract::Visitor`], [`extract::JsonBody`] (bodies),
//!    [`extract::Create`] (bodies of creates, with `Idempotency-Key`), [`extract::Path`],
//!    [`extract::Query`], [`extract::PageQuery`] (lists), `State<App>`. It returns
//!    `Result<Json<T>, Error>`, or `Result<(StatusCode, Json<T>), Error>`. Request types derive
//!    `Deserialize` with `#[serde(deny_unknown_fields)]`; a test refuses them without.
//! 2. In the same file's `pub fn routes(routes: Routes) -> Routes` add
//!    `.add(Access::Member(TokenScope::Operate), routes!(create, list))`: handlers of one path and
//!    the same rule together, another rule in another `.add`. There is no other way to add a route,
//!    so none can lack its rule: the guard enforces it before the handler runs, the OpenAPI document
//!    shows it, and the test matrix is made from it.
//! 3. Call `routes` in [`routes`] below. Pages: [`Routes::page`]; their forms, with the fields
//!    that they may hold: [`Routes::form`]; uploads: [`Routes::upload`].
//! 4. Give the route a row in `tests/api/matrix.rs` (its header says how); the suite fails without.
//!
//! # How to add a service
//! A file under `service/` with free functions `(app: &App, caller: &Caller, …) -> Result<T>`. State
//! of its own goes into [`crate::app::Parts`]. Writes: `app.inventory.change(&caller.actor,
//! "thing.verb")`, then `write.subject(kind, id, owner)`, `write.event(…)`, `write.commit()`: the
//! audit row is in the same commit. Queries bind `caller.sees()` or `.changes()` as
//! `(?n is null or owner = ?n)`, so that another's object is [`Error::NotFound`].
//! Creates: `idempotency::recall` first and `remember` before the commit. Long work:
//! `service::operations`. Streams: [`stream::sse`], which ends them when the caller may not go on.
//!
//! # How to add a migration
//! `migrations/000N_name.sql`, forward only, `STRICT` tables with an `owner` that references
//! `principals (id)`; queries go into `inventory/<resource>.rs`. Touch `inventory/mod.rs` to have the
//! new file embedded.

pub mod api;
pub mod catalogue;
pub mod export;
pub mod extract;
pub mod guard;
pub mod host;
pub mod openapi;
pub mod pages;
pub mod precondition;
pub mod problem;
pub mod rate;
pub mod reached;
pub mod routes;
pub mod stream;
mod waiting;

use axum::Router;
use utoipa::openapi::OpenApi;

use crate::app::App;
use routes::{RouteRow, Routes};

/// Every route, with its rule.
pub fn routes() -> Routes {
    let routes = Routes::new();
    let routes = api::setup::routes(routes);
    let routes = api::sessions::routes(routes);
    let routes = api::people::routes(routes);
    let routes = api::offboarding::routes(routes);
    let routes = api::allowances::routes(routes);
    let routes = api::asks::routes(routes);
    let routes = api::groups::routes(routes);
    let routes = api::tokens::routes(routes);
    let routes = api::images::routes(routes);
    let routes = api::registries::routes(routes);
    let routes = api::containers::routes(routes);
    let routes = api::execs::routes(routes);
    let routes = api::operations::routes(routes);
    let routes = api::usage::routes(routes);
    let routes = api::events::routes(routes);
    let routes = api::audit::routes(routes);
    let routes = api::keys::routes(routes);
    let routes = api::system::routes(routes);
    let routes = api::maintenance::routes(routes);
    let routes = api::gc::routes(routes);
    let routes = api::layers::routes(routes);
    let routes = api::factor::routes(routes);
    let routes = api::ports::routes(routes);
    let routes = api::volumes::routes(routes);
    let routes = api::data_sets::routes(routes);
    let routes = api::grants::routes(routes);
    let routes = api::files::routes(routes);
    let routes = api::problems::routes(routes);
    pages::routes(routes)
}

/// The table of all routes and the API's description.
pub fn describe() -> (Vec<RouteRow>, OpenApi) {
    let (_, table, document) = routes().into_parts();
    (table, openapi::complete(document))
}

/// The service that answers every request.
pub fn router(app: &App) -> Router {
    let (router, _, _) = routes().into_parts();
    let router = router
        .fallback(guard::nowhere)
        .method_not_allowed_fallback(|| async { problem::MethodNotAllowed })
        .with_state(app.clone());
    guard::around(app, router)
}
