//! `/api/v1/audit`: who did what, and whether anything was done to that.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::events::time;
use crate::app::App;
use crate::auth::TokenScope;
use crate::error::Result;
use crate::http::export::{self as file, Cells, Format};
use crate::http::extract::{Caller, Items, PageParams, Query, page};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::inventory::audit::AuditEntry;
use crate::inventory::audit::chain::Hash;
use crate::inventory::audit::verify::AuditCheck;
use crate::service::audit::{self, Filter};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::Overseer(TokenScope::Read), routes!(audit))
        .add(Access::Overseer(TokenScope::Read), routes!(audit_export))
        .add(Access::Overseer(TokenScope::Read), routes!(audit_verify))
}

/// Which rows of the audit.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Items at most, 1 to 500.
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Only what this person did: an id or a name.
    actor: Option<String>,
    /// Only what was done to this person's objects: an id or a name.
    owner: Option<String>,
    /// Only this action; `container.*` stands for all of containers.
    action: Option<String>,
    /// Only what was done to this object.
    subject: Option<String>,
    /// `done`, `refused`, or a problem's code.
    outcome: Option<String>,
    /// Nothing older: a time (RFC 3339) or seconds since 1970.
    since: Option<String>,
    /// Only older: a time (RFC 3339) or seconds since 1970.
    until: Option<String>,
}

/// Which rows of the audit go into a file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditExportQuery {
    /// How the file is written: `csv` (the default) or `json`, one object a line.
    #[serde(default)]
    #[param(inline)]
    format: Format,
    /// Only what this person did: an id or a name.
    actor: Option<String>,
    /// Only what was done to this person's objects: an id or a name.
    owner: Option<String>,
    /// Only this action; `container.*` stands for all of containers.
    action: Option<String>,
    /// Only what was done to this object.
    subject: Option<String>,
    /// `done`, `refused`, or a problem's code.
    outcome: Option<String>,
    /// Nothing older: a time (RFC 3339) or seconds since 1970.
    since: Option<String>,
    /// Only older: a time (RFC 3339) or seconds since 1970.
    until: Option<String>,
}

/// Lists who did what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "events", params(AuditQuery),
    responses((status = 200, body = Items<AuditEntry>), (status = 422, body = ProblemBody)))]
async fn audit(
    State(app): State<App>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Items<AuditEntry>>> {
    let page = page(&app, &PageParams { limit: query.limit, after: query.after.clone() })?;
    let listed = audit::list(&app, &filter(query)?, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Gives all rows that fit as a file; at most 50,000. Lines of JSON can be verified by themselves
/// (`berth audit verify --file`).
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "events", params(AuditExportQuery),
    responses(
        (status = 200, content((String = "text/csv"), (AuditEntry = "application/x-ndjson"))),
        (status = 422, body = ProblemBody)))]
async fn audit_export(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AuditExportQuery>,
) -> Result<Response> {
    let AuditExportQuery { format, actor, owner, action, subject, outcome, since, until } = query;
    let (limit, after) = (None, None);
    let query = AuditQuery { limit, after, actor, owner, action, subject, outcome, since, until };
    let rows = audit::export(&app, filter(query)?).await?;
    file::file(&app, &caller, ("audit", format), rows)
}

/// Says whether every row that is kept holds what was written, in its place, and the chain's head. Takes up
/// to 20 seconds; an answer is good for ten.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "events",
    responses((status = 200, body = AuditCheck)))]
async fn audit_verify(State(app): State<App>) -> Result<Json<AuditCheck>> {
    Ok(Json(audit::check(&app, audit::CHECK_LIMIT).await?))
}

fn filter(query: AuditQuery) -> Result<Filter> {
    Ok(Filter {
        actor: query.actor,
        owner: query.owner,
        action: query.action,
        subject: query.subject,
        outcome: query.outcome,
        since: query.since.as_deref().map(|text| time("?since", text)).transpose()?,
        until: query.until.as_deref().map(|text| time("?until", text)).transpose()?,
    })
}

impl Cells for AuditEntry {
    const NAMES: &'static [&'static str] = &[
        "at",
        "actor",
        "actor_name",
        "via",
        "action",
        "subject_kind",
        "subject",
        "owner",
        "owner_name",
        "outcome",
        "address",
        "request_id",
        "id",
        "times",
        "prev",
        "hash",
    ];

    fn cells(&self) -> Vec<String> {
        let id = |id: Option<PrincipalId>| id.map(|id| id.to_string()).unwrap_or_default();
        let hash = |hash: Option<Hash>| hash.map(|hash| hash.to_string()).unwrap_or_default();
        vec![
            self.at.to_string(),
            id(self.actor),
            self.actor_name.clone(),
            self.via.clone(),
            self.action.clone(),
            self.subject_kind.clone(),
            self.subject.clone(),
            id(self.owner),
            self.owner_name.clone().unwrap_or_default(),
            self.outcome.clone(),
            self.address.clone(),
            self.request_id.clone(),
            self.id.to_string(),
            self.times.to_string(),
            hash(self.prev),
            hash(self.hash),
        ]
    }
}
