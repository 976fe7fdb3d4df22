//! Taking somebody off the machine: what was asked for, and how far it is. It outlives the account, whose name and id it
//! keeps: an id is never given again.

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use crate::clock::Time;
use crate::error::Result;

/// What becomes of containers, volumes and images of somebody who leaves, and of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
#[schema(as = OffboardingThings)]
pub enum Things {
    /// They are stopped and stay, and so does the account, disabled.
    Keep,
    /// They are removed, and then the account is.
    Delete,
}

/// What is done to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
#[schema(as = OffboardingAct)]
pub enum Act {
    /// It is stopped.
    Stop,
    /// It is removed with all that is in it.
    Remove,
}

/// What it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
#[schema(as = OffboardingKind)]
pub enum Kind {
    /// A container.
    Container,
    /// A volume.
    Volume,
    /// An image.
    Image,
}

/// One step.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OffboardingStep)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// What it is done to.
    pub kind: Kind,
    /// Its id.
    pub object: String,
    /// What it was called when it was looked at.
    pub name: String,
    /// When it was done.
    pub done_at: Option<Time>,
    /// What stood in the way when it was last tried; empty for nothing.
    pub said: String,
    /// Of a volume in a preview, what it held on disk when it was last looked at; else null.
    pub bytes: Option<u64>,
}

/// Somebody's leaving.
#[derive(Debug, Clone)]
pub struct Offboarding {
    /// Who leaves.
    pub person: PrincipalId,
    /// Their name.
    pub name: String,
    /// What becomes of what is theirs.
    pub things: Things,
    /// The operation that does it, or has.
    pub operation: String,
    /// Who asked for it.
    pub asked_by: PrincipalId,
    /// Their name.
    pub asked_by_name: String,
    /// When.
    pub begun_at: Time,
    /// When all of it was done.
    pub ended_at: Option<Time>,
}

const COLUMNS: &str = "select person, name, things, operation, asked_by, asked_by_name, begun_at, \
     ended_at from offboardings ";
/// What is somebody's, in the order in which it can be removed.
const THINGS: &str = "select 1 as rank, 'container' as kind, id, name from containers \
     where owner = ?1 and intent <> 'removed' and (?2 = 'remove' or intent = 'running') \
     union all select 2, 'volume', id, name from volumes where owner = ?1 and removed = 0 and ?2 = 'remove' \
     union all select 3, 'image', i.id, coalesce((select r.name || ':' || r.value from image_references r \
     where r.image = i.id and r.kind = 'tag' limit 1), i.manifest_digest) from images i \
     where i.owner = ?1 and ?2 = 'remove' ";

/// Somebody's leaving, if it was ever asked for.
pub async fn find(db: &SqlitePool, person: PrincipalId) -> Result<Option<Offboarding>> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where person = ?")))
        .bind(i64::from(person.0))
        .fetch_optional(db)
        .await?;
    row.as_ref().map(offboarding).transpose()
}

/// Those that go on.
pub async fn open(db: &SqlitePool) -> Result<Vec<Offboarding>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where ended_at is null order by person"
    )))
    .fetch_all(db)
    .await?;
    rows.iter().map(offboarding).collect()
}

/// Whether somebody's goes on.
pub async fn is_open(db: &mut SqliteConnection, person: PrincipalId) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from offboardings where person = ? and ended_at is null)",
    )
    .bind(i64::from(person.0))
    .fetch_one(db)
    .await?)
}

/// Writes one down, in place of an older one of the same person's.
pub async fn insert(db: &mut SqliteConnection, new: &Offboarding) -> Result<()> {
    sqlx::query("delete from offboardings where person = ?")
        .bind(i64::from(new.person.0))
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "insert into offboardings (person, name, things, operation, asked_by, asked_by_name, begun_at) \
         values (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(i64::from(new.person.0))
    .bind(&new.name)
    .bind(new.things)
    .bind(&new.operation)
    .bind(i64::from(new.asked_by.0))
    .bind(&new.asked_by_name)
    .bind(new.begun_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Which operation does it from now on.
pub async fn set_operation(
    db: &mut SqliteConnection,
    person: PrincipalId,
    operation: &str,
) -> Result<()> {
    sqlx::query("update offboardings set operation = ? where person = ?")
        .bind(operation)
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(())
}

/// All of it is done.
pub async fn end(db: &mut SqliteConnection, person: PrincipalId) -> Result<()> {
    sqlx::query("update offboardings set ended_at = ? where person = ?")
        .bind(Time::now())
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(())
}

/// What is to be done, as long as nothing more comes to be.
pub async fn planned(
    db: &mut SqliteConnection,
    person: PrincipalId,
    act: Act,
) -> Result<Vec<Step>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{THINGS} order by rank, name, id")))
        .bind(i64::from(person.0))
        .bind(act)
        .fetch_all(db)
        .await?;
    let step = |row: &SqliteRow| -> Result<Step> {
        Ok(Step {
            act,
            kind: row.try_get("kind")?,
            object: row.try_get("id")?,
            name: row.try_get("name")?,
            done_at: None,
            said: String::new(),
            bytes: None,
        })
    };
    rows.iter().map(step).collect()
}

/// Writes down what is to be done and is not among the steps yet, or has come to be again.
pub async fn add_steps(db: &mut SqliteConnection, person: PrincipalId, act: Act) -> Result<()> {
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "insert into offboarding_steps (person, position, act, kind, object, name) \
         select ?1, (select count(*) from offboarding_steps where person = ?1) \
         + row_number() over (order by t.rank, t.name, t.id), ?2, t.kind, t.id, t.name from ({THINGS}) t \
         where not exists (select 1 from offboarding_steps s where s.person = ?1 and s.kind = t.kind \
         and s.object = t.id and s.done_at is null)"
    )))
    .bind(i64::from(person.0))
    .bind(act)
    .execute(db)
    .await?;
    Ok(())
}

/// All steps, in order.
pub async fn steps(db: &SqlitePool, person: PrincipalId) -> Result<Vec<(i64, Step)>> {
    let rows = sqlx::query(
        "select position, act, kind, object, name, done_at, said from offboarding_steps \
         where person = ? order by position",
    )
    .bind(i64::from(person.0))
    .fetch_all(db)
    .await?;
    let step = |row: &SqliteRow| -> Result<(i64, Step)> {
        let step = Step {
            act: row.try_get("act")?,
            kind: row.try_get("kind")?,
            object: row.try_get("object")?,
            name: row.try_get("name")?,
            done_at: row.try_get("done_at")?,
            said: row.try_get("said")?,
            bytes: None,
        };
        Ok((row.try_get("position")?, step))
    };
    rows.iter().map(step).collect()
}

/// A step is done, or what stands in its way.
pub async fn note_step(
    db: &mut SqliteConnection,
    (person, position): (PrincipalId, i64),
    outcome: Result<(), &str>,
) -> Result<()> {
    let done_at = outcome.is_ok().then(Time::now);
    sqlx::query(
        "update offboarding_steps set done_at = ?, said = ? where person = ? and position = ?",
    )
    .bind(done_at)
    .bind(outcome.err().unwrap_or_default())
    .bind(i64::from(person.0))
    .bind(position)
    .execute(db)
    .await?;
    Ok(())
}

/// Whether anything is somebody's still: objects, also those that are going, and work that makes some.
pub async fn has_things(db: &mut SqliteConnection, person: PrincipalId) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from containers where owner = ?1) \
         or exists (select 1 from volumes where owner = ?1) \
         or exists (select 1 from images where owner = ?1) \
         or exists (select 1 from operations where owner = ?1 and state = 'running' \
         and kind <> 'person.offboard')",
    )
    .bind(i64::from(person.0))
    .fetch_one(db)
    .await?)
}

/// Long work of somebody's that goes on and makes something of theirs.
pub async fn running_operations(db: &SqlitePool, person: PrincipalId) -> Result<Vec<String>> {
    let query = sqlx::query_scalar(
        "select id from operations where owner = ? and state = 'running' and kind <> 'person.offboard'",
    );
    Ok(query.bind(i64::from(person.0)).fetch_all(db).await?)
}

/// Deletes an account of which nothing is left. Its id stays taken; audit and events keep what they say.
pub async fn delete_account(db: &mut SqliteConnection, person: PrincipalId) -> Result<()> {
    for statement in [
        "delete from invitations where person = ?",
        "delete from sessions where person = ?",
        "delete from tokens where person = ?",
        "delete from group_members where person = ?",
        "delete from grants where grantee_kind = 'person' and grantee = ?",
        "delete from allowances where principal = ?",
        "delete from registry_credentials where owner = ?",
        "delete from idempotency_keys where principal = ?",
        "delete from recovery_codes where person = ?",
        "delete from second_factors where person = ?",
        "delete from people where id = ?",
    ] {
        sqlx::query(statement).bind(i64::from(person.0)).execute(&mut *db).await?;
    }
    Ok(())
}

fn offboarding(row: &SqliteRow) -> Result<Offboarding> {
    Ok(Offboarding {
        person: super::principal(row, "person")?,
        name: row.try_get("name")?,
        things: row.try_get("things")?,
        operation: row.try_get("operation")?,
        asked_by: super::principal(row, "asked_by")?,
        asked_by_name: row.try_get("asked_by_name")?,
        begun_at: row.try_get("begun_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}
