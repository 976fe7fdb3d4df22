//! What has happened to objects, readable by those who may see the object's owner's things.

use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

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
    /// What, such as `container.started`.
    pub kind: String,
    /// What kind of object.
    pub subject_kind: String,
    /// Which.
    pub subject: String,
    /// A few facts more.
    pub data: Value,
}

/// Appends an event.
pub async fn insert(db: &mut SqliteConnection, event: NewEvent<'_>) -> Result<()> {
    sqlx::query(
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
    Ok(())
}

/// The number of the newest event, of anybody's.
pub async fn newest(db: &SqlitePool) -> Result<i64> {
    Ok(sqlx::query_scalar("select coalesce(max(id), 0) from events").fetch_one(db).await?)
}

/// Events after `after`, oldest first.
pub async fn list_after(
    db: &SqlitePool,
    visible: Visibility,
    after: i64,
    limit: u32,
) -> Result<Vec<Event>> {
    let rows = sqlx::query(
        "select id, at, owner, kind, subject_kind, subject, data from events \
         where id > ?1 and (?2 is null or owner = ?2) order by id limit ?3",
    )
    .bind(after)
    .bind(visible.owner())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(event).collect()
}

/// Events before `before` (the newest without it), newest first; of one object with `subject`.
pub async fn list_before(
    db: &SqlitePool,
    visible: Visibility,
    subject: Option<&str>,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Event>> {
    let rows = sqlx::query(
        "select id, at, owner, kind, subject_kind, subject, data from events \
         where (?1 is null or id < ?1) and (?2 is null or owner = ?2) \
         and (?3 is null or subject = ?3) order by id desc limit ?4",
    )
    .bind(before)
    .bind(visible.owner())
    .bind(subject)
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
        kind: row.try_get("kind")?,
        subject_kind: row.try_get("subject_kind")?,
        subject: row.try_get("subject")?,
        data: serde_json::from_str(&data)
            .map_err(|source| Error::broken("read an event's data", source))?,
    })
}
