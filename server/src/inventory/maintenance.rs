//! Whether the machine is in maintenance, and what people are told.

use berth_runtime::id::PrincipalId;
use sqlx::{Row, SqliteConnection, SqlitePool};

use crate::clock::Time;
use crate::error::Result;

/// What people are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The operator's own words.
    pub message: String,
    /// Since when.
    pub since: Time,
    /// Who has begun it: a name, or `system`.
    pub by: String,
}

/// The notice, while there is one.
pub async fn find(db: &SqlitePool) -> Result<Option<Notice>> {
    let row = sqlx::query(
        "select m.message, m.since, coalesce(p.name, 'system') as name from maintenance m \
         left join people p on p.id = m.begun_by",
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (message, since, by) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(Some(Notice { message, since, by }))
}

/// Writes the notice, in the place of one that was there.
pub async fn set(
    db: &mut SqliteConnection,
    message: &str,
    by: PrincipalId,
    since: Time,
) -> Result<()> {
    sqlx::query(
        "insert or replace into maintenance (id, message, begun_by, since) values (1, ?, ?, ?)",
    )
    .bind(message)
    .bind(i64::from(by.0))
    .bind(since)
    .execute(db)
    .await?;
    Ok(())
}

/// Removes the notice, if there is one.
pub async fn remove(db: &mut SqliteConnection) -> Result<()> {
    sqlx::query("delete from maintenance").execute(db).await?;
    Ok(())
}
