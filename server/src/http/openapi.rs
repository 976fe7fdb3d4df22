//! The API's description (OpenAPI 3.1), made from the route table.

use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::problem::ProblemBody;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Berth",
        description = "Containers on one machine, shared by many people. Errors are problem \
                       details (RFC 9457). Lists take `limit` and `after` and answer \
                       `{\"items\", \"next\"}`. Creates take an `Idempotency-Key`. \
                       `x-access` on each operation says who may use it."
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// The document without routes.
pub fn base() -> OpenApi {
    Document::openapi()
}

/// The document with what no route can say.
pub fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_with(Default::default);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::new("berth_session"));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    document
}
