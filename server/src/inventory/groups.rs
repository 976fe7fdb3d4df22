//! Groups that people's resources count to.

use std::collections::HashMap;

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use super::people::free_id;
use crate::clock::Time;
use crate::error::{Error, Result};

/// A group.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Group {
    /// Its principal id.
    #[schema(value_type = u32)]
    pub id: PrincipalId,
    /// Its name, unique among groups.
    pub name: String,
    /// What it is for, in its operators' words.
    pub note: String,
    /// How many people count to it.
    pub members: u32,
    /// How many containers they have, running or not.
    pub containers: u32,
    /// When it was made.
    pub created_at: Time,
}

const COLUMNS: &str = "select g.id, g.name, g.note, g.created_at, \
     (select count(*) from people p where p.group_id = g.id) as members, \
     (select count(*) from containers c join people p on p.id = c.owner where p.group_id = g.id) \
     as containers from groups g ";

/// Writes a new group; the name must be free.
pub async fn insert(db: &mut SqliteConnection, name: &str, note: &str) -> Result<PrincipalId> {
    let now = Time::now();
    let id = free_id(&mut *db).await?;
    sqlx::query("insert into principals (id, kind, created_at) values (?, 'group', ?)")
        .bind(i64::from(id.0))
        .bind(now)
        .execute(&mut *db)
        .await?;
    sqlx::query("insert into groups (id, name, note, created_at) values (?, ?, ?, ?)")
        .bind(i64::from(id.0))
        .bind(name)
        .bind(note)
        .bind(now)
        .execute(db)
        .await
        .map_err(|error| taken(error, name))?;
    Ok(id)
}

/// One group.
pub async fn find(db: &SqlitePool, id: PrincipalId) -> Result<Group> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where g.id = ?")))
        .bind(i64::from(id.0))
        .fetch_optional(db)
        .await?;
    group(&row.ok_or(Error::NotFound("group"))?)
}

/// Groups by name, after `after`.
pub async fn list(db: &SqlitePool, after: Option<&str>, limit: u32) -> Result<Vec<Group>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where (?1 is null or g.name > ?1) order by g.name limit ?2"
    )))
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(group).collect()
}

/// Those who count to a group, by name; at most `limit`.
pub async fn members(
    db: &SqlitePool,
    id: PrincipalId,
    limit: u32,
) -> Result<Vec<(PrincipalId, String)>> {
    let rows = sqlx::query("select id, name from people where group_id = ? order by name limit ?")
        .bind(i64::from(id.0))
        .bind(limit)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((super::principal(row, "id")?, row.try_get("name")?))).collect()
}

/// Which group each person counts to.
pub async fn of_people(db: &SqlitePool) -> Result<HashMap<PrincipalId, PrincipalId>> {
    let rows = sqlx::query("select id, group_id from people").fetch_all(db).await?;
    let pair = |row| Ok((super::principal(row, "id")?, super::principal(row, "group_id")?));
    rows.iter().map(pair).collect()
}

/// Whether there is a group of this id.
pub async fn exists(db: &mut SqliteConnection, id: PrincipalId) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select 1 from groups where id = ?)")
        .bind(i64::from(id.0))
        .fetch_one(db)
        .await?)
}

/// Sets name and note.
pub async fn update(
    db: &mut SqliteConnection,
    id: PrincipalId,
    name: &str,
    note: &str,
) -> Result<()> {
    sqlx::query("update groups set name = ?, note = ? where id = ?")
        .bind(name)
        .bind(note)
        .bind(i64::from(id.0))
        .execute(db)
        .await
        .map_err(|error| taken(error, name))?;
    Ok(())
}

/// Removes a group that nobody counts to, with its allowance; whether it was so.
pub async fn delete(db: &mut SqliteConnection, id: PrincipalId) -> Result<bool> {
    let done = sqlx::query(
        "delete from groups where id = ?1 and not exists (select 1 from people where group_id = ?1)",
    )
    .bind(i64::from(id.0))
    .execute(&mut *db)
    .await?;
    super::allowances::remove(db, id).await?;
    Ok(done.rows_affected() > 0)
}

fn taken(error: sqlx::Error, name: &str) -> Error {
    match error.as_database_error() {
        Some(inner) if inner.is_unique_violation() => {
            Error::conflict("group.name-taken", format!("there is a group named {name} already"))
        }
        _ => error.into(),
    }
}

fn group(row: &SqliteRow) -> Result<Group> {
    Ok(Group {
        id: super::principal(row, "id")?,
        name: row.try_get("name")?,
        note: row.try_get("note")?,
        members: row.try_get("members")?,
        containers: row.try_get("containers")?,
        created_at: row.try_get("created_at")?,
    })
}
