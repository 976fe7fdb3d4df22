//! People's credentials for registries, sealed.

use berth_runtime::id::PrincipalId;
use sqlx::{Row, SqliteConnection, SqlitePool};

use crate::clock::Time;
use crate::error::{Error, Result};

/// That somebody has credentials for a registry.
pub struct CredentialRow {
    /// The registry.
    pub registry: String,
    /// The user's name there.
    pub username: String,
    /// The sealed password.
    pub sealed: Vec<u8>,
    /// When they were set.
    pub created_at: Time,
    /// Since when the registry has refused them.
    pub refused_at: Option<Time>,
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
         sealed = excluded.sealed, created_at = excluded.created_at, refused_at = null",
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
        "select registry, username, sealed, created_at, refused_at from registry_credentials where owner = ? \
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
                sealed: row.try_get("sealed")?,
                created_at: row.try_get("created_at")?,
                refused_at: row.try_get("refused_at")?,
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

/// Notes that the registry refuses these credentials, or that it takes them again. The first refusal
/// stays; answers whether anything changed.
pub async fn set_refused(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    registry: &str,
    refused_at: Option<Time>,
) -> Result<bool> {
    let done = sqlx::query(
        "update registry_credentials set refused_at = ?1 where owner = ?2 and registry = ?3 \
         and (refused_at is null) <> (?1 is null)",
    )
    .bind(refused_at)
    .bind(i64::from(owner.0))
    .bind(registry)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Whose, for which registry, and the sealed password.
pub type Sealed = (PrincipalId, String, Vec<u8>);

/// Everybody's sealed passwords, to be sealed with another key.
pub async fn all_sealed(db: &mut SqliteConnection) -> Result<Vec<Sealed>> {
    let rows = sqlx::query("select owner, registry, sealed from registry_credentials")
        .fetch_all(db)
        .await?;
    let sealed = |row: &sqlx::sqlite::SqliteRow| {
        Ok((super::principal(row, "owner")?, row.try_get("registry")?, row.try_get("sealed")?))
    };
    rows.iter().map(sealed).collect()
}

/// The same password, sealed with another key.
pub async fn reseal(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    registry: &str,
    sealed: &[u8],
) -> Result<()> {
    sqlx::query("update registry_credentials set sealed = ? where owner = ? and registry = ?")
        .bind(sealed)
        .bind(i64::from(owner.0))
        .bind(registry)
        .execute(db)
        .await?;
    Ok(())
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
