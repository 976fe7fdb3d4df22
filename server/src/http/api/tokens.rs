//! `/api/v1/tokens`: personal API tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Items, JsonBody, Path};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::tokens::Token;
use crate::service::tokens;

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Manage), routes!(list, make))
        .add(Access::SignedIn(TokenScope::Manage), routes!(end))
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// What you call it, 1 to 64 characters.
    name: String,
    /// How much of your rights it carries.
    scope: TokenScope,
    /// Days until it ends by itself.
    days: u32,
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
struct TokenMade {
    /// The token.
    token: Token,
    /// What goes behind `Authorization: Bearer`; shown once.
    secret: String,
}

/// Lists one's own tokens.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, body = Items<Token>)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Items<Token>>> {
    Ok(Json(Items::whole(tokens::list(&app, &caller).await?)))
}

/// Makes a token. Its secret is shown this once; a repeated request is refused by the name.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses(
        (status = 201, body = TokenMade), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn make(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<TokenRequest>,
) -> Result<(StatusCode, Json<TokenMade>)> {
    let made = tokens::make(&app, &caller, &body.name, body.scope, body.days).await?;
    Ok((StatusCode::CREATED, Json(TokenMade { token: made.token, secret: made.secret })))
}

/// Ends a token at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, description = "The token")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn end(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode> {
    tokens::end(&app, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
