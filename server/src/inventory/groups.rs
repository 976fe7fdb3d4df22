//! Groups: whose resources count to one, and who else is in it.

use std::collections::HashMap;

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use super::people::free_id;
use crate::auth::Visibility;
use crate::clock::Time;
use crate::error::{Error, Result};

/// A group.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Group {
    /// Its principal id.
    #[schema(value_type = u32)]
    pub id: PrincipalId,
    /// Its name, unique among groups.
    pub name: String,
    /// What it is for, in its operators' words.
    pub note: String,
    /// How many people count to it; only its managers, operators and auditors see that.
    pub members: Option<u32>,
    /// How many others are in it; the same.
    pub joined: Option<u32>,
    /// How many containers those who count to it have, running or not; only operators and auditors see that.
    pub containers: Option<u32>,
    /// What the caller is in it; null when they are not.
    pub role: Option<MemberRole>,
    /// When it was made.
    pub created_at: Time,
}

/// What somebody is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum MemberRole {
    /// Has what is shared with it.
    Member,
    /// Also sees who is in it, adds members and removes them.
    Manager,
}

/// Somebody who is in a group.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = GroupMember)]
pub struct Member {
    /// Who.
    #[schema(value_type = u32)]
    pub person: PrincipalId,
    /// Their name.
    pub name: String,
    /// What they are in it.
    pub role: MemberRole,
    /// Whether their resources count to it: then they are in it as long as they do.
    pub counts: bool,
    /// When they were added, or made what they are; null for who only counts to it.
    pub added_at: Option<Time>,
}

/// ?1 is the caller.
const COLUMNS: &str = "select g.id, g.name, g.note, g.created_at, \
     (select count(*) from people p where p.group_id = g.id) as members, \
     (select count(*) from group_members m join people p on p.id = m.person \
     where m.group_id = g.id and p.group_id <> g.id) as joined, \
     (select count(*) from containers c join people p on p.id = c.owner where p.group_id = g.id) \
     as containers, \
     coalesce((select m.role from group_members m where m.group_id = g.id and m.person = ?1), \
     (select 'member' from people p where p.group_id = g.id and p.id = ?1)) as role from groups g ";

/// ?2 is whose.
const VISIBLE: &str = "(?2 is null or exists (select 1 from memberships m \
     where m.group_id = g.id and m.person = ?2))";

/// Writes a new group; the name must be free.
pub async fn insert(db: &mut SqliteConnection, name: &str, note: &str) -> Result<PrincipalId> {
    let now = Time::now();
    let id = free_id(&mut *db).await?;
    sqlx::query("insert into principals (id, kind, created_at) values (?, 'group', ?)")
        .bind(i64::from(id.0))
        .bind(now)
        .execute(&mut *db)
        .await?;
    sqlx::query("insert into groups (id, name, note, created_at) values (?, ?, ?, ?)")
        .bind(i64::from(id.0))
        .bind(name)
        .bind(note)
        .bind(now)
        .execute(db)
        .await
        .map_err(|error| taken(error, name))?;
    Ok(id)
}

/// One group, if visible: people see those that they are in, operators and auditors all.
pub async fn find(
    db: &SqlitePool,
    visible: Visibility,
    caller: PrincipalId,
    id: PrincipalId,
) -> Result<Group> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where {VISIBLE} and g.id = ?3")))
        .bind(i64::from(caller.0))
        .bind(visible.owner())
        .bind(i64::from(id.0))
        .fetch_optional(db)
        .await?;
    group(&row.ok_or(Error::NotFound("group"))?)
}

/// A group by name, if visible.
pub async fn find_named(
    db: &SqlitePool,
    visible: Visibility,
    name: &str,
) -> Result<Option<PrincipalId>> {
    let found: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "select g.id from groups g where g.name = ?1 and {VISIBLE}"
    )))
    .bind(name)
    .bind(visible.owner())
    .fetch_optional(db)
    .await?;
    found.map(super::principal_from).transpose()
}

/// A group by name, for whoever sees all of them.
pub async fn named(db: &mut SqliteConnection, name: &str) -> Result<Option<PrincipalId>> {
    let found: Option<i64> = sqlx::query_scalar("select id from groups where name = ?")
        .bind(name)
        .fetch_optional(db)
        .await?;
    found.map(super::principal_from).transpose()
}

/// Groups by name, after `after`.
pub async fn list(
    db: &SqlitePool,
    visible: Visibility,
    caller: PrincipalId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Group>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where {VISIBLE} and (?3 is null or g.name > ?3) order by g.name limit ?4"
    )))
    .bind(i64::from(caller.0))
    .bind(visible.owner())
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(group).collect()
}

/// Those who count to a group, by name; at most `limit`.
pub async fn counting(
    db: &SqlitePool,
    id: PrincipalId,
    limit: u32,
) -> Result<Vec<(PrincipalId, String)>> {
    let rows = sqlx::query("select id, name from people where group_id = ? order by name limit ?")
        .bind(i64::from(id.0))
        .bind(limit)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((super::principal(row, "id")?, row.try_get("name")?))).collect()
}

const MEMBERS: &str = "select p.id, p.name, coalesce(m.role, 'member') as role, \
     p.group_id = ?1 as counts, m.added_at from people p \
     left join group_members m on m.person = p.id and m.group_id = ?1 \
     where (p.group_id = ?1 or m.person is not null) ";

/// Everybody who is in a group, by name, after `after`.
pub async fn members(
    db: &SqlitePool,
    id: PrincipalId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Member>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{MEMBERS} and (?2 is null or p.name > ?2) order by p.name limit ?3"
    )))
    .bind(i64::from(id.0))
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(member).collect()
}

/// Somebody by name, if they are in a group.
pub async fn find_member(
    db: &mut SqliteConnection,
    id: PrincipalId,
    name: &str,
) -> Result<Option<Member>> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{MEMBERS} and p.name = ?2")))
        .bind(i64::from(id.0))
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(member).transpose()
}

/// How many are in a group without counting to it, or manage it.
pub async fn count_members(db: &mut SqliteConnection, id: PrincipalId) -> Result<u32> {
    let query = sqlx::query_scalar("select count(*) from group_members where group_id = ?");
    Ok(query.bind(i64::from(id.0)).fetch_one(db).await?)
}

/// Makes somebody a member or manager.
pub async fn set_member(
    db: &mut SqliteConnection,
    id: PrincipalId,
    person: PrincipalId,
    role: MemberRole,
) -> Result<()> {
    sqlx::query(
        "insert into group_members (group_id, person, role, added_at) values (?, ?, ?, ?) \
         on conflict (group_id, person) do update set role = excluded.role, added_at = excluded.added_at",
    )
    .bind(i64::from(id.0))
    .bind(i64::from(person.0))
    .bind(role)
    .bind(Time::now())
    .execute(db)
    .await?;
    Ok(())
}

/// Takes away what [`set_member`] has made somebody. Whoever counts to the group stays in it.
pub async fn remove_member(
    db: &mut SqliteConnection,
    id: PrincipalId,
    person: PrincipalId,
) -> Result<()> {
    sqlx::query("delete from group_members where group_id = ? and person = ?")
        .bind(i64::from(id.0))
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Which group each person counts to.
pub async fn of_people(db: &SqlitePool) -> Result<HashMap<PrincipalId, PrincipalId>> {
    let rows = sqlx::query("select id, group_id from people").fetch_all(db).await?;
    let pair = |row| Ok((super::principal(row, "id")?, super::principal(row, "group_id")?));
    rows.iter().map(pair).collect()
}

/// Whether there is a group of this id.
pub async fn exists(db: &mut SqliteConnection, id: PrincipalId) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select 1 from groups where id = ?)")
        .bind(i64::from(id.0))
        .fetch_one(db)
        .await?)
}

/// Sets name and note.
pub async fn update(
    db: &mut SqliteConnection,
    id: PrincipalId,
    name: &str,
    note: &str,
) -> Result<()> {
    sqlx::query("update groups set name = ?, note = ? where id = ?")
        .bind(name)
        .bind(note)
        .bind(i64::from(id.0))
        .execute(db)
        .await
        .map_err(|error| taken(error, name))?;
    Ok(())
}

/// Removes a group that nobody counts to, with its allowance; whether it was so.
pub async fn delete(db: &mut SqliteConnection, id: PrincipalId) -> Result<bool> {
    let done = sqlx::query(
        "delete from groups where id = ?1 and not exists (select 1 from people where group_id = ?1)",
    )
    .bind(i64::from(id.0))
    .execute(&mut *db)
    .await?;
    super::allowances::remove(db, id).await?;
    Ok(done.rows_affected() > 0)
}

fn taken(error: sqlx::Error, name: &str) -> Error {
    match error.as_database_error() {
        Some(inner) if inner.is_unique_violation() => {
            Error::conflict("group.name-taken", format!("there is a group named {name} already"))
        }
        _ => error.into(),
    }
}

fn group(row: &SqliteRow) -> Result<Group> {
    Ok(Group {
        id: super::principal(row, "id")?,
        name: row.try_get("name")?,
        note: row.try_get("note")?,
        members: row.try_get("members")?,
        joined: row.try_get("joined")?,
        containers: row.try_get("containers")?,
        role: row.try_get("role")?,
        created_at: row.try_get("created_at")?,
    })
}

fn member(row: &SqliteRow) -> Result<Member> {
    Ok(Member {
        person: super::principal(row, "id")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        counts: row.try_get("counts")?,
        added_at: row.try_get("added_at")?,
    })
}
