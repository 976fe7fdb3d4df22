//! Sessions: of the cookie's token only the hash of its id is kept.

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use crate::auth::Role;
use crate::auth::keys::SecretHash;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::people::is_open;

/// A browser that a person has signed in with.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Session {
    /// 32 hexadecimal digits; not the cookie.
    pub id: String,
    /// When they signed in.
    pub created_at: Time,
    /// When it ends by itself.
    pub expires_at: Time,
    /// When it was last used, within a minute or so.
    pub seen_at: Time,
    /// Where they signed in from.
    pub address: String,
    /// What the browser said it was.
    pub agent: String,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// A session to be written.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// 32 hexadecimal digits.
    pub id: &'a str,
    /// The hash of the token's id.
    pub jti_hash: SecretHash,
    /// The key that signed it.
    pub key_id: &'a str,
    /// Whose.
    pub person: PrincipalId,
    /// When it ends.
    pub expires_at: Time,
    /// Where they signed in from.
    pub address: &'a str,
    /// What the browser said it was.
    pub agent: &'a str,
}

/// Who is behind a session or token.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The session's or token's id.
    pub id: String,
    /// Who.
    pub person: PrincipalId,
    /// Their name.
    pub name: String,
    /// Their role now.
    pub role: Role,
    /// When it ends.
    pub expires_at: Time,
    /// When their account ends by itself.
    pub account_expires_at: Option<Time>,
    /// Whether they have a second factor.
    pub has_factor: bool,
}

/// What [`holder_of`] reads of a person `p`.
macro_rules! of_person {
    () => {
        "p.id as person, p.name, p.role, p.expires_at as account_expires_at, exists (select 1 from second_factors f \
         where f.person = p.id and f.confirmed_at is not null) as has_factor "
    };
}
pub(super) use of_person;

/// Writes a session, and ends the person's oldest ones above `sessions_max`.
pub async fn insert(
    db: &mut SqliteConnection,
    new: &NewSession<'_>,
    sessions_max: u32,
) -> Result<()> {
    let now = Time::now();
    sqlx::query(
        "insert into sessions (id, jti_hash, person, created_at, expires_at, seen_at, address, \
         agent, key_id) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id)
    .bind(new.jti_hash.as_slice())
    .bind(i64::from(new.person.0))
    .bind(now)
    .bind(new.expires_at)
    .bind(now)
    .bind(new.address)
    .bind(new.agent)
    .bind(new.key_id)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "delete from sessions where person = ?1 and id in (select id from sessions \
         where person = ?1 order by created_at desc, rowid desc limit -1 offset ?2)",
    )
    .bind(i64::from(new.person.0))
    .bind(sessions_max)
    .execute(db)
    .await?;
    Ok(())
}

/// Who is behind the cookie, if the session is good and the person may be here.
pub async fn holder(db: &SqlitePool, jti_hash: &SecretHash) -> Result<Option<Holder>> {
    let row = sqlx::query(concat!(
        "select s.id, s.expires_at, ",
        of_person!(),
        "from sessions s join people p on p.id = s.person \
             where s.jti_hash = ?1 and s.expires_at > ?2 and",
        is_open!(),
    ))
    .bind(jti_hash.as_slice())
    .bind(Time::now())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(holder_of).transpose()
}

pub(super) fn holder_of(row: &sqlx::sqlite::SqliteRow) -> Result<Holder> {
    Ok(Holder {
        id: row.try_get("id")?,
        person: super::principal(row, "person")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        expires_at: row.try_get("expires_at")?,
        account_expires_at: row.try_get("account_expires_at")?,
        has_factor: row.try_get("has_factor")?,
    })
}

/// Who a user of this host is, if they are somebody who may be here. It ends when the person's account says
/// otherwise, at no time of its own.
pub async fn local_holder(db: &SqlitePool, user: &str) -> Result<Option<Holder>> {
    let row = sqlx::query(concat!(
        "select p.local_user as id, ?3 as expires_at, ",
        of_person!(),
        "from people p where p.local_user = ?1 and",
        is_open!(),
    ))
    .bind(user)
    .bind(Time::now())
    .bind(Time(i64::MAX))
    .fetch_optional(db)
    .await?;
    row.as_ref().map(holder_of).transpose()
}

/// A person's sessions, newest first; `current` is marked.
pub async fn list(
    db: &SqlitePool,
    person: PrincipalId,
    current: Option<&str>,
) -> Result<Vec<Session>> {
    let rows = sqlx::query(
        "select id, created_at, expires_at, seen_at, address, agent from sessions \
         where person = ? and expires_at > ? order by created_at desc, id",
    )
    .bind(i64::from(person.0))
    .bind(Time::now())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let id: String = row.try_get("id")?;
            Ok(Session {
                current: Some(id.as_str()) == current,
                id,
                created_at: row.try_get("created_at")?,
                expires_at: row.try_get("expires_at")?,
                seen_at: row.try_get("seen_at")?,
                address: row.try_get("address")?,
                agent: row.try_get("agent")?,
            })
        })
        .collect()
}

/// Ends one session of the person's.
pub async fn delete(db: &mut SqliteConnection, person: PrincipalId, id: &str) -> Result<()> {
    let done = sqlx::query("delete from sessions where id = ? and person = ?")
        .bind(id)
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    if done.rows_affected() == 0 {
        return Err(Error::NotFound("session"));
    }
    Ok(())
}

/// Ends all sessions of the person's, but for `keep`.
pub async fn delete_all(
    db: &mut SqliteConnection,
    person: PrincipalId,
    keep: Option<&str>,
) -> Result<()> {
    sqlx::query("delete from sessions where person = ?1 and (?2 is null or id <> ?2)")
        .bind(i64::from(person.0))
        .bind(keep)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes when a session was last used.
pub async fn touch(db: &mut SqliteConnection, id: &str, at: Time) -> Result<()> {
    sqlx::query("update sessions set seen_at = ? where id = ?")
        .bind(at)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Drops what has ended.
pub async fn prune(db: &mut SqliteConnection) -> Result<()> {
    let now = Time::now();
    sqlx::query("delete from sessions where expires_at <= ?").bind(now).execute(&mut *db).await?;
    sqlx::query("delete from invitations where expires_at <= ?").bind(now).execute(db).await?;
    Ok(())
}

/// The same as [`holder`], by the session's own id.
pub async fn holder_by_id(db: &SqlitePool, id: &str) -> Result<Option<Holder>> {
    let row = sqlx::query(concat!(
        "select s.id, s.expires_at, ",
        of_person!(),
        "from sessions s join people p on p.id = s.person \
             where s.id = ?1 and s.expires_at > ?2 and",
        is_open!(),
    ))
    .bind(id)
    .bind(Time::now())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(holder_of).transpose()
}
