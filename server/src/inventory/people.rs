//! People, the setup secret and invitations.

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use crate::auth::keys::{SecretHash, random_bytes};
use crate::auth::{Role, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};

/// People's ids are from here to [`PERSON_ID_MAX`], drawn at random: an id that counted up would
/// tell everyone how many people there are.
const PERSON_ID_MIN: u32 = 1000;
const PERSON_ID_MAX: u32 = (1 << 31) - 1;

/// A person.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Person {
    /// Their principal id.
    #[schema(value_type = u32)]
    pub id: PrincipalId,
    /// The name that they sign in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whose resources theirs count to.
    #[schema(value_type = u32)]
    pub group: PrincipalId,
    /// Whether they have set a password yet.
    pub has_password: bool,
    /// Whether they have a second factor.
    pub has_second_factor: bool,
    /// The user of this host that they are on the socket for local users.
    pub local_user: Option<String>,
    /// Set while they may not sign in.
    pub disabled_at: Option<Time>,
    /// When the account ends by itself: from then on they may not sign in, and nothing of theirs runs.
    pub expires_at: Option<Time>,
    /// When they were added.
    pub created_at: Time,
    /// The end of their unused invitation link.
    pub invitation_expires_at: Option<Time>,
}

/// What signing in needs to know.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who.
    pub id: PrincipalId,
    /// Their name.
    pub name: String,
    /// What is stored of their password.
    pub password_hash: Option<String>,
    /// Whether they may not sign in: disabled, or their account has ended.
    pub disabled: bool,
}

/// Whether a person `p` may be here at the time `?2`.
macro_rules! is_open {
    () => {
        " p.disabled_at is null and (p.expires_at is null or p.expires_at > ?2) "
    };
}
pub(super) use is_open;

const COLUMNS: &str = "select p.id, p.name, p.role, p.group_id, \
     p.password_hash is not null as has_password, exists (select 1 from second_factors f \
     where f.person = p.id and f.confirmed_at is not null) as has_second_factor, p.local_user, p.disabled_at, p.expires_at, p.created_at, \
     i.expires_at as invitation_expires_at \
     from people p left join invitations i on i.person = p.id ";

/// Whether the first operator has been made.
pub async fn any(db: &mut SqliteConnection) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select 1 from people)").fetch_one(db).await?)
}

/// Whether there is a person of this name.
pub async fn is_named(db: &mut SqliteConnection, name: &str) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select 1 from people where name = ?)")
        .bind(name)
        .fetch_one(db)
        .await?)
}

/// Writes a new person; the name must be free.
pub async fn insert(
    db: &mut SqliteConnection,
    name: &str,
    role: Role,
    password_hash: Option<&str>,
) -> Result<PrincipalId> {
    let now = Time::now();
    let id = free_id(&mut *db).await?;
    sqlx::query("insert into principals (id, kind, created_at) values (?, 'person', ?)")
        .bind(i64::from(id.0))
        .bind(now)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "insert into people (id, name, role, password_hash, password_changed_at, created_at) \
         values (?1, ?2, ?3, ?4, iif(?4 is null, null, ?5), ?5)",
    )
    .bind(i64::from(id.0))
    .bind(name)
    .bind(role)
    .bind(password_hash)
    .bind(now)
    .execute(db)
    .await
    .map_err(|error| match error.as_database_error() {
        Some(inner) if inner.is_unique_violation() => {
            Error::conflict("person.name-taken", format!("there is a person named {name} already"))
        }
        _ => error.into(),
    })?;
    Ok(id)
}

pub(super) async fn free_id(db: &mut SqliteConnection) -> Result<PrincipalId> {
    for _ in 0..100 {
        let drawn = u32::from_le_bytes(random_bytes()?);
        let id = PERSON_ID_MIN + drawn % (PERSON_ID_MAX - PERSON_ID_MIN);
        let taken: bool =
            sqlx::query_scalar("select exists (select 1 from principals where id = ?)")
                .bind(i64::from(id))
                .fetch_one(&mut *db)
                .await?;
        if !taken {
            return Ok(PrincipalId(id));
        }
    }
    Err(Error::defect("find a free principal id"))
}

/// One person, if visible: people see themselves, operators and auditors everybody.
pub async fn find(db: &SqlitePool, visible: Visibility, id: PrincipalId) -> Result<Person> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where p.id = ?1 and (?2 is null or p.id = ?2)"
    )))
    .bind(i64::from(id.0))
    .bind(visible.owner())
    .fetch_optional(db)
    .await?;
    person(&row.ok_or(Error::NotFound("person"))?)
}

/// People by name, after `after`.
pub async fn list(
    db: &SqlitePool,
    visible: Visibility,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Person>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where (?1 is null or p.name > ?1) and (?2 is null or p.id = ?2) \
         order by p.name limit ?3"
    )))
    .bind(after)
    .bind(visible.owner())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(person).collect()
}

/// What signing in by `name` needs.
pub async fn account(db: &SqlitePool, name: &str) -> Result<Option<Account>> {
    let row = sqlx::query(
        "select id, name, password_hash, disabled_at is not null \
         or coalesce(expires_at <= ?2, 0) as disabled from people where name = ?1",
    )
    .bind(name)
    .bind(Time::now())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(account_of).transpose()
}

/// The same by id, inside a write.
pub async fn account_by_id(db: &mut SqliteConnection, id: PrincipalId) -> Result<Option<Account>> {
    let row = sqlx::query(
        "select id, name, password_hash, disabled_at is not null \
         or coalesce(expires_at <= ?2, 0) as disabled from people where id = ?1",
    )
    .bind(i64::from(id.0))
    .bind(Time::now())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(account_of).transpose()
}

/// Sets the stored password.
pub async fn update_password(db: &mut SqliteConnection, id: PrincipalId, hash: &str) -> Result<()> {
    sqlx::query("update people set password_hash = ?, password_changed_at = ? where id = ?")
        .bind(hash)
        .bind(Time::now())
        .bind(i64::from(id.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Sets the role.
pub async fn update_role(db: &mut SqliteConnection, id: PrincipalId, role: Role) -> Result<()> {
    sqlx::query("update people set role = ? where id = ?")
        .bind(role)
        .bind(i64::from(id.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Sets whose resources theirs count to.
pub async fn update_group(
    db: &mut SqliteConnection,
    id: PrincipalId,
    group: PrincipalId,
) -> Result<()> {
    sqlx::query("update people set group_id = ? where id = ?")
        .bind(i64::from(group.0))
        .bind(i64::from(id.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Disables or enables.
pub async fn update_disabled(
    db: &mut SqliteConnection,
    id: PrincipalId,
    at: Option<Time>,
) -> Result<()> {
    sqlx::query("update people set disabled_at = ? where id = ?")
        .bind(at)
        .bind(i64::from(id.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Says when an account ends by itself, or that it does not. What follows from an end is to be done again.
pub async fn update_expiry(
    db: &mut SqliteConnection,
    id: PrincipalId,
    at: Option<Time>,
) -> Result<()> {
    sqlx::query("update people set expires_at = ?, ended_at = null where id = ?")
        .bind(at)
        .bind(i64::from(id.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Whose accounts have ended without what follows from that being done, at most `limit`.
pub async fn ended(db: &mut SqliteConnection, limit: u32) -> Result<Vec<PrincipalId>> {
    let rows = sqlx::query(
        "select id from people where expires_at <= ? and ended_at is null order by expires_at limit ?",
    )
    .bind(Time::now())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| super::principal(row, "id")).collect()
}

/// Notes that what follows from an account's end is done, unless it has been given back. Whether it was noted.
pub async fn set_ended(db: &mut SqliteConnection, id: PrincipalId) -> Result<bool> {
    let done = sqlx::query(
        "update people set ended_at = ?1 where id = ?2 and expires_at <= ?1 and ended_at is null",
    )
    .bind(Time::now())
    .bind(i64::from(id.0))
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// When the next account ends.
pub async fn next_end(db: &SqlitePool) -> Result<Option<Time>> {
    Ok(sqlx::query_scalar("select min(expires_at) from people where expires_at > ?")
        .bind(Time::now())
        .fetch_one(db)
        .await?)
}

/// Whether somebody's account has ended.
pub async fn has_ended(db: &mut SqliteConnection, id: PrincipalId) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select 1 from people where id = ? and expires_at <= ?)")
        .bind(i64::from(id.0))
        .bind(Time::now())
        .fetch_one(db)
        .await?)
}

/// Says which user of this host somebody is, or that they are none.
pub async fn update_local_user(
    db: &mut SqliteConnection,
    id: PrincipalId,
    user: Option<&str>,
) -> Result<()> {
    sqlx::query("update people set local_user = ? where id = ?")
        .bind(user)
        .bind(i64::from(id.0))
        .execute(db)
        .await
        .map(drop)
        .map_err(|error| match error.as_database_error() {
            Some(inner) if inner.is_unique_violation() => Error::conflict(
                "person.local-user-taken",
                format!("{} is another person here already", user.unwrap_or_default()),
            ),
            _ => error.into(),
        })
}

/// How many ways in a person has now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PersonAccess)]
pub struct Access {
    /// Browsers that they are signed in with.
    pub sessions: u32,
    /// Personal tokens that are good.
    pub tokens: u32,
    /// When any of them was last used; within half a minute.
    pub used_at: Option<Time>,
    /// Registries that they have credentials for; which, and what they are, is theirs alone.
    pub registry_logins: u32,
}

/// How many ways in a person has.
pub async fn access(db: &SqlitePool, id: PrincipalId) -> Result<Access> {
    let row = sqlx::query(
        "select (select count(*) from sessions where person = ?1 and expires_at > ?2) as sessions, \
         (select count(*) from tokens where person = ?1 and expires_at > ?2) as tokens, \
         (select max(at) from (select max(seen_at) as at from sessions where person = ?1 \
         union all select max(used_at) from tokens where person = ?1)) as used_at, \
         (select count(*) from registry_credentials where owner = ?1) as registry_logins",
    )
    .bind(i64::from(id.0))
    .bind(Time::now())
    .fetch_one(db)
    .await?;
    Ok(Access {
        sessions: row.try_get("sessions")?,
        tokens: row.try_get("tokens")?,
        used_at: row.try_get("used_at")?,
        registry_logins: row.try_get("registry_logins")?,
    })
}

/// How many operators may sign in, and go on to.
pub async fn count_operators(db: &mut SqliteConnection) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select count(*) from people where role = 'operator' and disabled_at is null \
         and expires_at is null and password_hash is not null",
    )
    .fetch_one(db)
    .await?)
}

/// Every person's id with their group's, for the supervisor.
pub async fn all_ids(db: &SqlitePool) -> Result<Vec<(PrincipalId, PrincipalId)>> {
    let rows = sqlx::query("select id, group_id from people order by id").fetch_all(db).await?;
    rows.iter()
        .map(|row| Ok((super::principal(row, "id")?, super::principal(row, "group_id")?)))
        .collect()
}

/// Replaces the setup secret.
pub async fn set_setup_secret(db: &mut SqliteConnection, hash: &SecretHash) -> Result<()> {
    sqlx::query("insert or replace into setup (id, secret_hash, created_at) values (1, ?, ?)")
        .bind(hash.as_slice())
        .bind(Time::now())
        .execute(db)
        .await?;
    Ok(())
}

/// What is stored of the setup secret.
pub async fn setup_secret(db: &SqlitePool) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar("select secret_hash from setup where id = 1").fetch_optional(db).await?)
}

/// Uses the setup secret up: whether it was this one and nobody has used it before.
pub async fn take_setup_secret(db: &mut SqliteConnection, hash: &SecretHash) -> Result<bool> {
    let done = sqlx::query("delete from setup where secret_hash = ?")
        .bind(hash.as_slice())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a person a new invitation; an older one ends.
pub async fn set_invitation(
    db: &mut SqliteConnection,
    person: PrincipalId,
    by: PrincipalId,
    hash: &SecretHash,
    expires_at: Time,
) -> Result<()> {
    delete_invitation(&mut *db, person).await?;
    sqlx::query(
        "insert into invitations (secret_hash, person, created_by, created_at, expires_at) \
         values (?, ?, ?, ?, ?)",
    )
    .bind(hash.as_slice())
    .bind(i64::from(person.0))
    .bind(i64::from(by.0))
    .bind(Time::now())
    .bind(expires_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a person's invitation, if there is one.
pub async fn delete_invitation(db: &mut SqliteConnection, person: PrincipalId) -> Result<()> {
    sqlx::query("delete from invitations where person = ?")
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Whose invitation this is, while it is good and the person may sign in.
pub async fn find_invitation(
    db: &mut SqliteConnection,
    hash: &SecretHash,
) -> Result<Option<(Account, Time)>> {
    let row = sqlx::query(concat!(
        "select p.id, p.name, p.password_hash, 0 as disabled, i.expires_at \
         from invitations i join people p on p.id = i.person \
         where i.secret_hash = ?1 and i.expires_at > ?2 and",
        is_open!(),
    ))
    .bind(hash.as_slice())
    .bind(Time::now())
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok((account_of(&row)?, row.try_get("expires_at")?))).transpose()
}

fn person(row: &sqlx::sqlite::SqliteRow) -> Result<Person> {
    Ok(Person {
        id: super::principal(row, "id")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        group: super::principal(row, "group_id")?,
        has_password: row.try_get("has_password")?,
        has_second_factor: row.try_get("has_second_factor")?,
        local_user: row.try_get("local_user")?,
        disabled_at: row.try_get("disabled_at")?,
        expires_at: row.try_get("expires_at")?,
        created_at: row.try_get("created_at")?,
        invitation_expires_at: row.try_get("invitation_expires_at")?,
    })
}

fn account_of(row: &sqlx::sqlite::SqliteRow) -> Result<Account> {
    Ok(Account {
        id: super::principal(row, "id")?,
        name: row.try_get("name")?,
        password_hash: row.try_get("password_hash")?,
        disabled: row.try_get("disabled")?,
    })
}
