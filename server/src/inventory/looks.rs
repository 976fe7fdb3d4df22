//! What operators have looked into that is somebody else's.

use berth_runtime::id::PrincipalId;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::grants::Object;
use crate::clock::Time;
use crate::error::Result;

/// A row.
#[derive(Debug, Clone)]
pub struct Look {
    /// Who.
    pub operator: String,
    /// Why, as they have said it.
    pub reason: String,
    /// Since when.
    pub began_at: Time,
    /// Until when.
    pub ends_at: Time,
}

/// The newest of an object, newest first.
pub async fn list(db: &SqlitePool, object: Object<'_>, limit: u32) -> Result<Vec<Look>> {
    let rows = sqlx::query(
        "select operator_name, reason, began_at, ends_at from looks \
         where object_kind = ? and object = ? order by id desc limit ?",
    )
    .bind(object.kind)
    .bind(object.id)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let look = |row: &sqlx::sqlite::SqliteRow| -> Result<Look> {
        Ok(Look {
            operator: row.try_get("operator_name")?,
            reason: row.try_get("reason")?,
            began_at: row.try_get("began_at")?,
            ends_at: row.try_get("ends_at")?,
        })
    };
    rows.iter().map(look).collect()
}

/// Begins one. Of many of one object the newest `keep` stay.
pub async fn begin(
    db: &mut SqliteConnection,
    object: Object<'_>,
    operator: PrincipalId,
    look: &Look,
    keep: u32,
) -> Result<()> {
    end(&mut *db, object, operator, look.began_at).await?;
    sqlx::query(
        "insert into looks (object_kind, object, operator, operator_name, reason, began_at, ends_at) \
         values (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(object.kind)
    .bind(object.id)
    .bind(i64::from(operator.0))
    .bind(&look.operator)
    .bind(&look.reason)
    .bind(look.began_at)
    .bind(look.ends_at)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "delete from looks where object_kind = ?1 and object = ?2 and ends_at <= ?3 and id not in \
         (select id from looks where object_kind = ?1 and object = ?2 order by id desc limit ?4)",
    )
    .bind(object.kind)
    .bind(object.id)
    .bind(look.began_at)
    .bind(keep)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends those of an operator's into an object that go on; whether there was one.
pub async fn end(
    db: &mut SqliteConnection,
    object: Object<'_>,
    operator: PrincipalId,
    at: Time,
) -> Result<bool> {
    let done = sqlx::query(
        "update looks set ends_at = ?4 where object_kind = ?1 and object = ?2 and operator = ?3 \
         and ends_at > ?4",
    )
    .bind(object.kind)
    .bind(object.id)
    .bind(i64::from(operator.0))
    .bind(at)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Those that go on into somebody's containers: the container's name and until when.
pub async fn of_owner(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    now: Time,
    limit: u32,
) -> Result<Vec<(String, Time)>> {
    let query = "select c.name, l.ends_at from looks l join containers c on c.id = l.object \
         where l.object_kind = 'container' and c.owner = ? and l.ends_at > ? order by l.ends_at limit ?";
    let rows = sqlx::query_as(query).bind(i64::from(owner.0)).bind(now).bind(limit);
    Ok(rows.fetch_all(db).await?)
}

/// Whether one has ended between the two.
pub async fn any_ended(db: &SqlitePool, from: Time, to: Time) -> Result<bool> {
    let query = sqlx::query_scalar(
        "select exists (select 1 from looks where ends_at > ? and ends_at <= ?)",
    );
    Ok(query.bind(from).bind(to).fetch_one(db).await?)
}
