//! What has happened to objects, readable by those who may see the object's owner's things.

use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use super::grants;
use crate::auth::Visibility;
use crate::clock::Time;
use crate::error::{Error, Result};

/// An event to be appended.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// Whose object.
    pub owner: PrincipalId,
    /// What, such as `container.started`.
    pub kind: &'static str,
    /// What kind of object.
    pub subject_kind: &'static str,
    /// Which.
    pub subject: &'a str,
    /// A few facts more; never a secret, nor what is in the object.
    pub data: Value,
}

/// An event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Event {
    /// Its place; sealed before it is given out.
    #[serde(skip)]
    pub number: i64,
    /// When.
    pub at: Time,
    /// Whose object.
    #[schema(value_type = u32)]
    pub owner: PrincipalId,
    /// Their name; null for the system.
    pub owner_name: Option<String>,
    /// What, such as `container.started`.
    pub kind: String,
    /// What kind of object.
    pub subject_kind: String,
    /// Which.
    pub subject: String,
    /// A few facts more.
    pub data: Value,
}

/// Appends an event; its number.
pub async fn insert(db: &mut SqliteConnection, event: NewEvent<'_>) -> Result<i64> {
    let done = sqlx::query(
        "insert into events (at, owner, kind, subject_kind, subject, data) \
         values (?, ?, ?, ?, ?, ?)",
    )
    .bind(Time::now())
    .bind(i64::from(event.owner.0))
    .bind(event.kind)
    .bind(event.subject_kind)
    .bind(event.subject)
    .bind(event.data.to_string())
    .execute(db)
    .await?;
    Ok(done.last_insert_rowid())
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these kinds; one that ends in `.*` stands for all that begin so. All when empty.
    pub kinds: Vec<String>,
    /// About this object.
    pub subject: Option<String>,
    /// About this principal's objects: an id or a name.
    pub owner: Option<String>,
    /// Not before.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
}

/// The numbers between which events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The oldest event that is still there; the next one's number when none is.
    pub first: i64,
    /// The newest event that ever was.
    pub last: i64,
}

/// Between which numbers events, of anybody's, are kept.
pub async fn kept(db: &SqlitePool) -> Result<Kept> {
    let row = sqlx::query(
        "select (select min(id) from events) as first, \
         coalesce((select seq from sqlite_sequence where name = 'events'), 0) as last",
    )
    .fetch_one(db)
    .await?;
    let last: i64 = row.try_get("last")?;
    let first: Option<i64> = row.try_get("first")?;
    Ok(Kept { first: first.unwrap_or(last + 1), last })
}

/// What every list of events is narrowed by; the numbers are those of [`bind_filter`].
const FILTERED: &str = "\
     (?2 is null or exists (select 1 from json_each(?2) as wanted where kind = wanted.value \
     or (substr(wanted.value, -2) = '.*' \
     and substr(kind, 1, length(wanted.value) - 1) = substr(wanted.value, 1, length(wanted.value) - 1)))) \
     and (?3 is null or subject = ?3) and (?4 is null or cast(owner as text) = ?4 \
     or owner = (select id from people where people.name = ?4)) \
     and (?5 is null or at >= ?5) and (?6 is null or at < ?6) ";

const COLUMNS: &str = "select id, at, owner, \
     (select name from people where people.id = owner) as owner_name, \
     kind, subject_kind, subject, data from events where ";

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_filter<'q>(query: Query<'q>, visible: Visibility, filter: &'q Filter) -> Result<Query<'q>> {
    let kinds = match filter.kinds.is_empty() {
        true => None,
        false => Some(
            serde_json::to_string(&filter.kinds)
                .map_err(|source| Error::broken("ask for kinds of events", source))?,
        ),
    };
    Ok(query
        .bind(visible.owner())
        .bind(kinds)
        .bind(filter.subject.as_deref())
        .bind(filter.owner.as_deref())
        .bind(filter.since)
        .bind(filter.until))
}

/// Events after `after`, oldest first.
pub async fn list_after(
    db: &SqlitePool,
    visible: Visibility,
    filter: &Filter,
    after: i64,
    limit: u32,
) -> Result<Vec<Event>> {
    let seen = grants::seen(1);
    let query = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} {seen} and {FILTERED} and id > ?7 order by id limit ?8"
    )));
    let query = bind_filter(query, visible, filter)?;
    let rows = query.bind(after).bind(limit).fetch_all(db).await?;
    rows.iter().map(event).collect()
}

/// How many events fit, counted to `most` and no further.
pub async fn count(
    db: &SqlitePool,
    visible: Visibility,
    filter: &Filter,
    most: u32,
) -> Result<u32> {
    let seen = grants::seen(1);
    let query = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select count(*) as count from (select 1 from events where {seen} and {FILTERED} limit ?7)"
    )));
    let row = bind_filter(query, visible, filter)?.bind(most).fetch_one(db).await?;
    Ok(row.try_get("count")?)
}

/// Events before `before` (the newest without it), newest first.
pub async fn list_before(
    db: &SqlitePool,
    visible: Visibility,
    filter: &Filter,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Event>> {
    let seen = grants::seen(1);
    let query = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} {seen} and {FILTERED} and (?7 is null or id < ?7) order by id desc limit ?8"
    )));
    let query = bind_filter(query, visible, filter)?;
    let rows = query.bind(before).bind(limit).fetch_all(db).await?;
    rows.iter().map(event).collect()
}

/// Events of one object since `since`, newest first.
pub async fn of_subject(
    db: &SqlitePool,
    visible: Visibility,
    subject: &str,
    since: Time,
    limit: u32,
) -> Result<Vec<Event>> {
    let seen = grants::seen(2);
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} subject = ?1 and {seen} and at >= ?3 \
         order by id desc limit ?4"
    )))
    .bind(subject)
    .bind(visible.owner())
    .bind(since)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(event).collect()
}

/// Events of one container before `before` that its audit rows don't tell, newest first.
pub async fn story_of(
    db: &SqlitePool,
    visible: Visibility,
    subject: &str,
    before: i64,
    limit: u32,
) -> Result<Vec<Event>> {
    let seen = grants::seen(2);
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} subject = ?1 and {seen} and id < ?3 \
         and kind not in ('container.created', 'container.started', 'container.stopping', \
         'container.paused', 'container.resumed') order by id desc limit ?4"
    )))
    .bind(subject)
    .bind(visible.owner())
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(event).collect()
}

/// Drops what is older than `days` or more than `rows_max`.
pub async fn prune(db: &mut SqliteConnection, days: u32, rows_max: u32) -> Result<()> {
    let oldest = Time::now().before(Duration::from_secs(u64::from(days) * 86_400));
    sqlx::query("delete from events where at < ?1 or id <= (select max(id) from events) - ?2")
        .bind(oldest)
        .bind(rows_max)
        .execute(db)
        .await?;
    Ok(())
}

fn event(row: &sqlx::sqlite::SqliteRow) -> Result<Event> {
    let data: String = row.try_get("data")?;
    Ok(Event {
        number: row.try_get("id")?,
        at: row.try_get("at")?,
        owner: super::principal(row, "owner")?,
        owner_name: row.try_get("owner_name")?,
        kind: row.try_get("kind")?,
        subject_kind: row.try_get("subject_kind")?,
        subject: row.try_get("subject")?,
        data: serde_json::from_str(&data)
            .map_err(|source| Error::broken("read an event's data", source))?,
    })
}
