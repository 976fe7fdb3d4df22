//! People's credentials for registries, sealed.

use berth_runtime::id::PrincipalId;
use sqlx::{Row, SqliteConnection, SqlitePool};

use crate::clock::Time;
use crate::error::{Error, Result};

/// That somebody has credentials for a registry; the password is never read for showing.
#[derive(Debug, Clone)]
pub struct CredentialRow {
    /// The registry.
    pub registry: String,
    /// The user's name there.
    pub username: String,
    /// When they were set.
    pub created_at: Time,
}

/// Sets or replaces credentials.
pub async fn set(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    registry: &str,
    username: &str,
    sealed: &[u8],
) -> Result<()> {
    sqlx::query(
        "insert into registry_credentials (owner, registry, username, sealed, created_at) \
         values (?, ?, ?, ?, ?) on conflict do update set username = excluded.username, \
         sealed = excluded.sealed, created_at = excluded.created_at",
    )
    .bind(i64::from(owner.0))
    .bind(registry)
    .bind(username)
    .bind(sealed)
    .bind(Time::now())
    .execute(db)
    .await?;
    Ok(())
}

/// The registries that somebody has credentials for.
pub async fn list(db: &SqlitePool, owner: PrincipalId) -> Result<Vec<CredentialRow>> {
    let rows = sqlx::query(
        "select registry, username, created_at from registry_credentials where owner = ? \
         order by registry",
    )
    .bind(i64::from(owner.0))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(CredentialRow {
                registry: row.try_get("registry")?,
                username: row.try_get("username")?,
                created_at: row.try_get("created_at")?,
            })
        })
        .collect()
}

/// Name and sealed password for one registry.
pub async fn find(
    db: &SqlitePool,
    owner: PrincipalId,
    registry: &str,
) -> Result<Option<(String, Vec<u8>)>> {
    let row = sqlx::query(
        "select username, sealed from registry_credentials where owner = ? and registry = ?",
    )
    .bind(i64::from(owner.0))
    .bind(registry)
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok((row.try_get("username")?, row.try_get("sealed")?))).transpose()
}

/// Forgets credentials.
pub async fn delete(db: &mut SqliteConnection, owner: PrincipalId, registry: &str) -> Result<()> {
    let done = sqlx::query("delete from registry_credentials where owner = ? and registry = ?")
        .bind(i64::from(owner.0))
        .bind(registry)
        .execute(db)
        .await?;
    if done.rows_affected() == 0 { Err(Error::NotFound("credentials")) } else { Ok(()) }
}
