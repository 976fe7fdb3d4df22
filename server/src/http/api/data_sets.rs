//! `/api/v1/data-sets`: directories of the host's that containers can be given to read.

use axum::Json;
use axum::extract::State;

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::extract::{Caller, Items};
use crate::http::routes::{Access, Routes, routes};
use crate::service::data_sets::{self, DataSetView};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes.add(Access::SignedIn(TokenScope::Read), routes!(list))
}

/// Lists data sets by name: those that one’s containers may have (`data_sets` of a new one); all, with where they are
/// and who has them, for operators and auditors.
#[utoipa::path(get, path = "/api/v1/data-sets", tag = "volumes", operation_id = "list_data_sets",
    responses((status = 200, body = Items<DataSetView>)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Items<DataSetView>>> {
    Ok(Json(Items::whole(data_sets::list(&app, &caller).await?)))
}
