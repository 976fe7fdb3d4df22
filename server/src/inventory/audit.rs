//! Who did what: one row per change that a caller asked for, refused ones included.

use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::{Row as _, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use crate::auth::{Actor, Visibility};
use crate::clock::Time;
use crate::error::Result;

/// A row to be written.
#[derive(Debug, Clone)]
pub struct Row {
    at: Time,
    actor: Option<PrincipalId>,
    actor_name: String,
    via: &'static str,
    action: String,
    /// What kind of object it was about.
    pub subject_kind: &'static str,
    /// Which.
    pub subject: String,
    /// Whose.
    pub owner: Option<PrincipalId>,
    outcome: String,
    address: String,
    request_id: String,
}

/// A row as operators and auditors read it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditEntry {
    /// When.
    pub at: Time,
    /// Who; null when nobody had signed in.
    #[schema(value_type = Option<u32>)]
    pub actor: Option<PrincipalId>,
    /// Their name as it was then.
    pub actor_name: String,
    /// What proved it: `session`, `token`, `root_socket` or `nothing`.
    pub via: String,
    /// What, such as `container.stop`; of refused requests method and route.
    pub action: String,
    /// What kind of object.
    pub subject_kind: String,
    /// Which.
    pub subject: String,
    /// Whose; null when it is nobody's or not known.
    #[schema(value_type = Option<u32>)]
    pub owner: Option<PrincipalId>,
    /// Their name, if they are still known.
    pub owner_name: Option<String>,
    /// `done`, or the problem's code.
    pub outcome: String,
    /// Where the request came from; empty for Unix sockets.
    pub address: String,
    /// The request's id.
    pub request_id: String,
    /// Its place in the list.
    #[serde(skip)]
    pub id: i64,
}

impl Row {
    /// A row for a change that will be made.
    pub fn of(actor: &Actor, action: &str) -> Self {
        Self {
            at: Time::now(),
            actor: actor.principal,
            actor_name: actor.name.clone(),
            via: actor.via.as_str(),
            action: action.to_owned(),
            subject_kind: "",
            subject: String::new(),
            owner: None,
            outcome: "done".to_owned(),
            address: actor.address.map(|address| address.to_string()).unwrap_or_default(),
            request_id: actor.request_id.clone(),
        }
    }

    /// A row for a request that was refused.
    pub fn refused(actor: &Actor, action: &str, code: &str) -> Self {
        Self { outcome: code.to_owned(), ..Self::of(actor, action) }
    }
}

/// Writes a row; its number.
pub async fn insert(db: &mut SqliteConnection, row: &Row) -> Result<i64> {
    let done = sqlx::query(
        "insert into audit (at, actor, actor_name, via, action, subject_kind, subject, owner, \
         outcome, address, request_id) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row.at)
    .bind(row.actor.map(|id| i64::from(id.0)))
    .bind(&row.actor_name)
    .bind(row.via)
    .bind(&row.action)
    .bind(row.subject_kind)
    .bind(&row.subject)
    .bind(row.owner.map(|id| i64::from(id.0)))
    .bind(&row.outcome)
    .bind(&row.address)
    .bind(&row.request_id)
    .execute(db)
    .await?;
    Ok(done.last_insert_rowid())
}

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// By this person: an id or a name.
    pub actor: Option<String>,
    /// About this person's objects: an id or a name.
    pub owner: Option<String>,
    /// This action; one that ends in `*` stands for all that begin so.
    pub action: Option<String>,
    /// About this object.
    pub subject: Option<String>,
    /// `done`, `refused` for all others, or a problem's code.
    pub outcome: Option<String>,
    /// Not before.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
}

/// What every list is narrowed by; the numbers are those of [`bind_filter`].
const FILTERED: &str = "(?1 is null or actor_name = ?1 or cast(actor as text) = ?1) \
     and (?2 is null or cast(owner as text) = ?2 \
     or owner = (select id from people where people.name = ?2)) \
     and (?3 is null or action = ?3 or (substr(?3, -1) = '*' \
     and substr(action, 1, length(?3) - 1) = substr(?3, 1, length(?3) - 1))) \
     and (?4 is null or subject = ?4) \
     and (?5 is null or outcome = ?5 or (?5 = 'refused' and outcome <> 'done')) \
     and (?6 is null or at >= ?6) and (?7 is null or at < ?7) ";

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_filter<'q>(query: Query<'q>, filter: &'q Filter) -> Query<'q> {
    query
        .bind(filter.actor.as_deref())
        .bind(filter.owner.as_deref())
        .bind(filter.action.as_deref())
        .bind(filter.subject.as_deref())
        .bind(filter.outcome.as_deref())
        .bind(filter.since)
        .bind(filter.until)
}

/// How many rows fit, counted to `most` and no further.
pub async fn count(db: &SqlitePool, filter: &Filter, most: u32) -> Result<u32> {
    let query = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select count(*) as count from (select 1 from audit where {FILTERED} limit ?8)"
    )));
    let row = bind_filter(query, filter).bind(most).fetch_one(db).await?;
    Ok(row.try_get("count")?)
}

/// The newest rows before `before`.
pub async fn list(
    db: &SqlitePool,
    filter: &Filter,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<AuditEntry>> {
    let query = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select id, at, actor, actor_name, via, action, subject_kind, subject, owner, \
         (select name from people where people.id = owner) as owner_name, outcome, address, \
         request_id from audit where {FILTERED} and (?8 is null or id < ?8) order by id desc limit ?9"
    )));
    let rows = bind_filter(query, filter).bind(before).bind(limit).fetch_all(db).await?;
    rows.iter().map(entry).collect()
}

/// The newest rows about one container before `before`. Changes are left out: their events know
/// what was changed.
pub async fn list_of(
    db: &SqlitePool,
    visible: Visibility,
    subject: &str,
    before: i64,
    limit: u32,
) -> Result<Vec<AuditEntry>> {
    let rows = sqlx::query(
        "select id, at, actor, actor_name, via, action, subject_kind, subject, owner, \
         (select name from people where people.id = owner) as owner_name, outcome, address, \
         request_id from audit where subject = ?1 and (?2 is null or owner = ?2) and id < ?3 \
         and action <> 'container.change' order by id desc limit ?4",
    )
    .bind(subject)
    .bind(visible.owner())
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &sqlx::sqlite::SqliteRow) -> Result<AuditEntry> {
    let actor: Option<i64> = row.try_get("actor")?;
    let owner: Option<i64> = row.try_get("owner")?;
    Ok(AuditEntry {
        at: row.try_get("at")?,
        actor: actor.map(super::principal_from).transpose()?,
        actor_name: row.try_get("actor_name")?,
        via: row.try_get("via")?,
        action: row.try_get("action")?,
        subject_kind: row.try_get("subject_kind")?,
        subject: row.try_get("subject")?,
        owner: owner.map(super::principal_from).transpose()?,
        owner_name: row.try_get("owner_name")?,
        outcome: row.try_get("outcome")?,
        address: row.try_get("address")?,
        request_id: row.try_get("request_id")?,
        id: row.try_get("id")?,
    })
}

/// Drops what is older than `days` or more than `rows_max`.
pub async fn prune(db: &mut SqliteConnection, days: u32, rows_max: u32) -> Result<()> {
    let oldest = Time::now().before(Duration::from_secs(u64::from(days) * 86_400));
    sqlx::query("delete from audit where at < ?1 or id <= (select max(id) from audit) - ?2")
        .bind(oldest)
        .bind(rows_max)
        .execute(db)
        .await?;
    Ok(())
}
