//! `Idempotency-Key`: a create that is sent again answers with the object that the first one made.
//!
//! Checked and written inside the create's own transaction, of which there is one at a time, so two
//! equal requests can't both create.

use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::Write;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::{Error, Result};

/// A key with what it was sent with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The header's value.
    pub key: String,
    /// The hash of method, path and body.
    pub fingerprint: [u8; 32],
}

/// What the key was used for before, as given to [`remember`].
///
/// # Errors
/// When it was sent with another request.
pub async fn recall(
    write: &mut Write,
    caller: &Caller,
    key: Option<&IdempotencyKey>,
) -> Result<Option<String>> {
    let Some(key) = key else { return Ok(None) };
    let row = sqlx::query(
        "select fingerprint, result from idempotency_keys where principal = ? and key = ?",
    )
    .bind(i64::from(caller.principal.0))
    .bind(&key.key)
    .fetch_optional(write.db())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
    if fingerprint != key.fingerprint {
        return Err(Error::invalid(
            "idempotency-key.reused",
            "this Idempotency-Key was sent with another request before",
        ));
    }
    Ok(Some(row.try_get("result")?))
}

/// Remembers what the key made: an object's id, never a secret.
pub async fn remember(
    write: &mut Write,
    caller: &Caller,
    key: Option<&IdempotencyKey>,
    result: &str,
) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    sqlx::query(
        "insert into idempotency_keys (principal, key, fingerprint, result, created_at) \
         values (?, ?, ?, ?, ?)",
    )
    .bind(i64::from(caller.principal.0))
    .bind(&key.key)
    .bind(key.fingerprint.as_slice())
    .bind(result)
    .bind(Time::now())
    .execute(write.db())
    .await?;
    Ok(())
}

/// Forgets old keys.
pub async fn prune(db: &mut SqliteConnection, hours: u32) -> Result<()> {
    sqlx::query("delete from idempotency_keys where created_at < ?")
        .bind(Time::now().before(Duration::from_secs(u64::from(hours) * 3600)))
        .execute(db)
        .await?;
    Ok(())
}
