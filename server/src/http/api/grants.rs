//! `/api/v1/…/{id}/grants`: with whom a container, a volume or an image is shared; the same handlers for all.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;
use crate::auth::{Kind, TokenScope};
use crate::error::Result;
use crate::http::extract::{Caller, GrantQuery, Items, JsonBody, Path, Query};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::service::sharing::{self, GrantRequest, GrantView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let operate = Access::Member(TokenScope::Operate);
    routes
        .add(read, routes!(of_container::list))
        .add(operate, routes!(of_container::set, of_container::remove))
        .add(read, routes!(of_volume::list))
        .add(operate, routes!(of_volume::set, of_volume::remove))
        .add(read, routes!(of_image::list))
        .add(operate, routes!(of_image::set, of_image::remove))
}

macro_rules! handlers {
    ($module:ident, $kind:expr, $tag:literal, $path:literal, $list:literal, $set:literal, $remove:literal) => {
        mod $module {
            use super::*;

            /// Lists with whom it is shared; for its owner, operators and auditors.
            #[utoipa::path(get, path = $path, tag = $tag, operation_id = $list,
                params(("id" = String, Path, description = "Its id, or the name of one's own; of an image its id")),
                responses((status = 200, body = Items<GrantView>), (status = 403, body = ProblemBody),
                    (status = 404, body = ProblemBody)))]
            pub(super) async fn list(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
            ) -> Result<Json<Items<GrantView>>> {
                Ok(Json(Items::whole(sharing::list(&app, &caller, ($kind, &key)).await?)))
            }

            /// Shares it with a person or a group, in place of what was shared with them before; only its owner may.
            /// Whether there is a person of this name is not said, unless one sees that anyway (`known`).
            #[utoipa::path(put, path = $path, tag = $tag, operation_id = $set, request_body = GrantRequest,
                params(("id" = String, Path, description = "Its id, or the name of one's own; of an image its id")),
                responses((status = 200, body = GrantView), (status = 403, body = ProblemBody),
                    (status = 404, body = ProblemBody), (status = 422, body = ProblemBody),
                    (status = 507, body = ProblemBody)))]
            pub(super) async fn set(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                JsonBody(body): JsonBody<GrantRequest>,
            ) -> Result<Json<GrantView>> {
                Ok(Json(sharing::set(&app, &caller, ($kind, &key), &body).await?))
            }

            /// Shares it with a person or a group no more; its owner and operators may. Of a container, logs that they
            /// follow, their terminals and programs end at once. Containers of theirs that run keep a volume until they
            /// end, and do not start with it again. An image that they have kept is their own.
            #[utoipa::path(delete, path = $path, tag = $tag, operation_id = $remove,
                params(("id" = String, Path, description = "Its id, or the name of one's own; of an image its id"),
                    GrantQuery),
                responses((status = 204), (status = 403, body = ProblemBody),
                    (status = 404, body = ProblemBody)))]
            pub(super) async fn remove(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                Query(query): Query<GrantQuery>,
            ) -> Result<StatusCode> {
                sharing::remove(&app, &caller, ($kind, &key), query.whom()).await?;
                Ok(StatusCode::NO_CONTENT)
            }
        }
    };
}

handlers!(
    of_container,
    Kind::Container,
    "containers",
    "/api/v1/containers/{id}/grants",
    "list_container_grants",
    "set_container_grant",
    "remove_container_grant"
);
handlers!(
    of_volume,
    Kind::Volume,
    "volumes",
    "/api/v1/volumes/{id}/grants",
    "list_volume_grants",
    "set_volume_grant",
    "remove_volume_grant"
);
handlers!(
    of_image,
    Kind::Image,
    "images",
    "/api/v1/images/{id}/grants",
    "list_image_grants",
    "set_image_grant",
    "remove_image_grant"
);
