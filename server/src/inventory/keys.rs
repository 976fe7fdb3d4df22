//! What keys have signed: sessions and tokens, by the key's name.

use sqlx::SqliteConnection;

use crate::clock::Time;
use crate::error::Result;

/// When the last session or token of a key's ends, if it has any.
pub async fn last_end(db: &mut SqliteConnection, key_id: &str) -> Result<Option<Time>> {
    let end = sqlx::query_scalar(
        "select max(expires_at) from (select expires_at from sessions where key_id = ?1 \
         union all select expires_at from tokens where key_id = ?1)",
    )
    .bind(key_id)
    .fetch_one(db)
    .await?;
    Ok(end)
}

/// How many sessions and tokens of a key's there are.
pub async fn count(db: &mut SqliteConnection, key_id: &str) -> Result<u32> {
    let count = sqlx::query_scalar(
        "select (select count(*) from sessions where key_id = ?1) + \
         (select count(*) from tokens where key_id = ?1)",
    )
    .bind(key_id)
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Ends all sessions and tokens of a key's.
pub async fn end_all(db: &mut SqliteConnection, key_id: &str) -> Result<()> {
    for sql in ["delete from sessions where key_id = ?", "delete from tokens where key_id = ?"] {
        sqlx::query(sql).bind(key_id).execute(&mut *db).await?;
    }
    Ok(())
}
