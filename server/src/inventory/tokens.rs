//! Personal API tokens: of each only the hash of its id is kept.

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use super::people::is_open;
use super::sessions::{Holder, holder_of, of_person};
use crate::auth::TokenScope;
use crate::auth::keys::SecretHash;
use crate::clock::Time;
use crate::error::{Error, Result};

/// A personal token, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Token {
    /// 32 hexadecimal digits; not the secret.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// How much of its owner's rights it carries.
    pub scope: TokenScope,
    /// When it was made.
    pub created_at: Time,
    /// When it ends by itself.
    pub expires_at: Time,
    /// When it was last used, within a minute or so.
    pub used_at: Option<Time>,
}

/// A token to be written.
#[derive(Debug)]
pub struct NewToken<'a> {
    /// 32 hexadecimal digits.
    pub id: &'a str,
    /// The hash of the token's id.
    pub jti_hash: SecretHash,
    /// The key that signed it.
    pub key_id: &'a str,
    /// Whose.
    pub person: PrincipalId,
    /// What its owner calls it.
    pub name: &'a str,
    /// How much it carries.
    pub scope: TokenScope,
    /// When it ends.
    pub expires_at: Time,
}

/// Writes a token; the person may have `tokens_max` of them, each with a name of its own.
pub async fn insert(db: &mut SqliteConnection, new: &NewToken<'_>, tokens_max: u32) -> Result<()> {
    let person = i64::from(new.person.0);
    let now = Time::now();
    sqlx::query("delete from tokens where person = ? and expires_at <= ?")
        .bind(person)
        .bind(now)
        .execute(&mut *db)
        .await?;
    let count: u32 = sqlx::query_scalar("select count(*) from tokens where person = ?")
        .bind(person)
        .fetch_one(&mut *db)
        .await?;
    if count >= tokens_max {
        return Err(Error::exhausted(
            "token.too-many",
            format!("you have {count} tokens, the most that is allowed; remove one first"),
        ));
    }
    sqlx::query(
        "insert into tokens (id, jti_hash, person, name, scope, created_at, expires_at, key_id) \
         values (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id)
    .bind(new.jti_hash.as_slice())
    .bind(person)
    .bind(new.name)
    .bind(new.scope)
    .bind(now)
    .bind(new.expires_at)
    .bind(new.key_id)
    .execute(db)
    .await
    .map_err(|error| match error.as_database_error() {
        Some(inner) if inner.is_unique_violation() => {
            Error::conflict("token.name-taken", "you have a token of this name already")
        }
        _ => error.into(),
    })?;
    Ok(())
}

/// Who is behind a token and how much it carries, if it is good and the person may be here.
pub async fn holder(
    db: &SqlitePool,
    jti_hash: &SecretHash,
) -> Result<Option<(Holder, TokenScope)>> {
    let row = sqlx::query(concat!(
        "select t.id, t.expires_at, t.scope, ",
        of_person!(),
        "from tokens t join people p on p.id = t.person \
         where t.jti_hash = ?1 and t.expires_at > ?2 and",
        is_open!(),
    ))
    .bind(jti_hash.as_slice())
    .bind(Time::now())
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok((holder_of(&row)?, row.try_get("scope")?))).transpose()
}

/// A person's tokens by name.
pub async fn list(db: &SqlitePool, person: PrincipalId) -> Result<Vec<Token>> {
    let rows = sqlx::query(
        "select id, name, scope, created_at, expires_at, used_at from tokens \
         where person = ? order by name",
    )
    .bind(i64::from(person.0))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Token {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                scope: row.try_get("scope")?,
                created_at: row.try_get("created_at")?,
                expires_at: row.try_get("expires_at")?,
                used_at: row.try_get("used_at")?,
            })
        })
        .collect()
}

/// Ends one token of the person's.
pub async fn delete(db: &mut SqliteConnection, person: PrincipalId, id: &str) -> Result<()> {
    let done = sqlx::query("delete from tokens where id = ? and person = ?")
        .bind(id)
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    if done.rows_affected() == 0 {
        return Err(Error::NotFound("token"));
    }
    Ok(())
}

/// Ends all tokens of the person's.
pub async fn delete_all(db: &mut SqliteConnection, person: PrincipalId) -> Result<()> {
    sqlx::query("delete from tokens where person = ?")
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Notes when a token was last used.
pub async fn touch(db: &mut SqliteConnection, id: &str, at: Time) -> Result<()> {
    sqlx::query("update tokens set used_at = ? where id = ?").bind(at).bind(id).execute(db).await?;
    Ok(())
}

/// Who is behind a token, by the token's own id.
pub async fn holder_by_id(db: &SqlitePool, id: &str) -> Result<Option<Holder>> {
    let row = sqlx::query(concat!(
        "select t.id, t.expires_at, ",
        of_person!(),
        "from tokens t join people p on p.id = t.person \
         where t.id = ?1 and t.expires_at > ?2 and",
        is_open!(),
    ))
    .bind(id)
    .bind(Time::now())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(holder_of).transpose()
}
