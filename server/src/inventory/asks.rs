//! What people have asked operators for, and what was granted for a time.

use std::collections::HashMap;

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use super::allowances::Bounded;
use crate::auth::Visibility;
use crate::clock::Time;
use crate::error::{Error, Result};

/// How an ask stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum AskState {
    /// It waits for an operator.
    Open,
    /// Whoever asked has taken it back.
    Withdrawn,
    /// An operator has said no.
    Declined,
    /// It was granted, in part or in full, and holds.
    Approved,
    /// What was granted for a time is over.
    Ended,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its number.
    pub id: i64,
    /// Who asks.
    pub person: PrincipalId,
    /// Their name.
    pub name: String,
    /// Of what they ask for more.
    pub limit: Bounded,
    /// How much they would have in all, in its unit.
    pub wanted: u64,
    /// Until when; none is for good.
    pub until: Option<Time>,
    /// Why, in their words.
    pub reason: String,
    /// When they asked.
    pub asked_at: Time,
    /// How it stands.
    pub state: AskState,
    /// Which operator has decided.
    pub decided_by: Option<String>,
    /// When.
    pub decided_at: Option<Time>,
    /// What they said to it; may be empty.
    pub answer: String,
    /// How much was granted in all.
    pub granted: Option<u64>,
    /// Until when; none is for good.
    pub ends_at: Option<Time>,
}

/// What somebody asks for.
#[derive(Debug)]
pub struct NewAsk<'a> {
    /// Who.
    pub person: PrincipalId,
    /// Of what.
    pub limit: Bounded,
    /// How much in all.
    pub wanted: u64,
    /// Until when; none is for good.
    pub until: Option<Time>,
    /// Why.
    pub reason: &'a str,
}

/// What becomes of an ask that was open.
#[derive(Debug)]
pub struct Decision<'a> {
    /// How it stands from now on.
    pub state: AskState,
    /// Who has decided; none is whoever asked.
    pub by: Option<&'a str>,
    /// What they say to it.
    pub answer: &'a str,
    /// How much is granted in all.
    pub granted: Option<u64>,
    /// Until when; none is for good.
    pub ends_at: Option<Time>,
}

/// Which asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only those that stand so.
    pub state: Option<AskState>,
    /// Only this person's.
    pub person: Option<PrincipalId>,
    /// Only those before this one.
    pub before: Option<i64>,
}

/// What was granted for a time, and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Extra {
    /// The ask that it was granted to.
    pub ask: i64,
    /// Of what.
    pub limit: Bounded,
    /// How much in all.
    pub granted: u64,
    /// Until when.
    pub ends_at: Time,
}

const COLUMNS: &str = "select a.*, coalesce((select name from people p where p.id = a.person), '') as name \
     from asks a ";

/// Writes one down; its number.
pub async fn insert(db: &mut SqliteConnection, new: &NewAsk<'_>) -> Result<i64> {
    let done = sqlx::query(
        "insert into asks (person, bound, wanted, until, reason, asked_at, state) \
         values (?, ?, ?, ?, ?, ?, 'open')",
    )
    .bind(i64::from(new.person.0))
    .bind(new.limit)
    .bind(whole(new.wanted))
    .bind(new.until)
    .bind(new.reason)
    .bind(Time::now())
    .execute(db)
    .await?;
    Ok(done.last_insert_rowid())
}

/// Those of one person that wait, by what they are for.
pub async fn open_of(db: &mut SqliteConnection, person: PrincipalId) -> Result<Vec<Bounded>> {
    let query = "select bound from asks where person = ? and state = 'open'";
    Ok(sqlx::query_scalar(query).bind(i64::from(person.0)).fetch_all(db).await?)
}

/// How many wait.
pub async fn count_open(db: &SqlitePool) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from asks where state = 'open'").fetch_one(db).await?)
}

/// One of those that are visible.
///
/// # Errors
/// There is none of this number.
pub async fn find(db: &mut SqliteConnection, visible: Visibility, id: i64) -> Result<Ask> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where a.id = ?1 and (?2 is null or a.person = ?2)"
    )))
    .bind(id)
    .bind(visible.owner())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(read).transpose()?.ok_or(Error::NotFound("ask"))
}

/// Those that are visible, newest first.
pub async fn list(
    db: &SqlitePool,
    visible: Visibility,
    filter: Filter,
    limit: u32,
) -> Result<Vec<Ask>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where (?1 is null or a.person = ?1) and (?2 is null or a.person = ?2) \
         and (?3 is null or a.state = ?3) and (?4 is null or a.id < ?4) order by a.id desc limit ?5"
    )))
    .bind(visible.owner())
    .bind(filter.person.map(|person| i64::from(person.0)))
    .bind(filter.state)
    .bind(filter.before)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

/// Decides one that is open; whether it was.
pub async fn decide(db: &mut SqliteConnection, id: i64, decision: &Decision<'_>) -> Result<bool> {
    let done = sqlx::query(
        "update asks set state = ?, decided_by = ?, decided_at = ?, answer = ?, granted = ?, ends_at = ? \
         where id = ? and state = 'open'",
    )
    .bind(decision.state)
    .bind(decision.by)
    .bind(Time::now())
    .bind(decision.answer)
    .bind(decision.granted.map(whole))
    .bind(decision.ends_at)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends what was granted for a time; whether it went on.
pub async fn end(db: &mut SqliteConnection, id: i64, at: Time) -> Result<bool> {
    let done = sqlx::query(
        "update asks set state = 'ended', ends_at = min(ends_at, ?2) \
         where id = ?1 and state = 'approved' and ends_at is not null",
    )
    .bind(id)
    .bind(at)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Those granted for a time that is over, and without which the kernel does not hold yet what holds now.
pub async fn due(db: &SqlitePool, now: Time, limit: u32) -> Result<Vec<Ask>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where a.ends_at is not null and a.settled_at is null and a.ends_at <= ? \
         order by a.ends_at limit ?"
    )))
    .bind(now)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

/// Notes that the kernel holds what holds without it.
pub async fn settle(db: &mut SqliteConnection, id: i64) -> Result<()> {
    let query = sqlx::query("update asks set settled_at = ? where id = ?");
    query.bind(Time::now()).bind(id).execute(db).await?;
    Ok(())
}

/// When the next of those that go on ends.
pub async fn next_end(db: &SqlitePool) -> Result<Option<Time>> {
    let query = "select min(ends_at) from asks where state = 'approved' and ends_at is not null";
    Ok(sqlx::query_scalar(query).fetch_one(db).await?)
}

/// What was granted to everybody for a time and goes on.
pub async fn extras(db: &SqlitePool, now: Time) -> Result<HashMap<PrincipalId, Vec<Extra>>> {
    let query = "select * from asks where state = 'approved' and ends_at > ?";
    let rows = sqlx::query(query).bind(now).fetch_all(db).await?;
    let mut found: HashMap<PrincipalId, Vec<Extra>> = HashMap::new();
    for row in &rows {
        found.entry(super::principal(row, "person")?).or_default().push(extra(row)?);
    }
    Ok(found)
}

/// What was granted to one person.
pub async fn extras_of(
    db: &mut SqliteConnection,
    person: PrincipalId,
    now: Time,
) -> Result<Vec<Extra>> {
    let query =
        "select * from asks where person = ? and state = 'approved' and ends_at > ? order by id";
    let rows = sqlx::query(query).bind(i64::from(person.0)).bind(now).fetch_all(db).await?;
    rows.iter().map(extra).collect()
}

/// Drops the oldest of a person's that are over and beyond the newest `keep`.
pub async fn prune(db: &mut SqliteConnection, person: PrincipalId, keep: u32) -> Result<()> {
    sqlx::query(
        "delete from asks where person = ?1 and state <> 'open' and (ends_at is null or settled_at is not null) \
         and id not in (select id from asks where person = ?1 order by id desc limit ?2)",
    )
    .bind(i64::from(person.0))
    .bind(keep)
    .execute(db)
    .await?;
    Ok(())
}

fn extra(row: &SqliteRow) -> Result<Extra> {
    Ok(Extra {
        ask: row.try_get("id")?,
        limit: row.try_get("bound")?,
        granted: number(row.try_get("granted")?)?,
        ends_at: row.try_get("ends_at")?,
    })
}

fn read(row: &SqliteRow) -> Result<Ask> {
    let granted: Option<i64> = row.try_get("granted")?;
    Ok(Ask {
        id: row.try_get("id")?,
        person: super::principal(row, "person")?,
        name: row.try_get("name")?,
        limit: row.try_get("bound")?,
        wanted: number(row.try_get("wanted")?)?,
        until: row.try_get("until")?,
        reason: row.try_get("reason")?,
        asked_at: row.try_get("asked_at")?,
        state: row.try_get("state")?,
        decided_by: row.try_get("decided_by")?,
        decided_at: row.try_get("decided_at")?,
        answer: row.try_get("answer")?,
        granted: granted.map(number).transpose()?,
        ends_at: row.try_get("ends_at")?,
    })
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn number(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|source| Error::broken("read an ask", source))
}
