//! What is shared with whom.
//!
//! A grant to a name that nobody had is a row like others and leads nowhere, so that who gives it cannot learn
//! from it whether there is such a person.

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use crate::auth::Granted;
use crate::clock::Time;
use crate::error::Result;

/// With what kind of principal something is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum GranteeKind {
    /// One person.
    Person,
    /// Everybody who is in a group, as long as they are.
    Group,
}

/// What is shared.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// `container`, `volume` or `image`.
    pub kind: &'static str,
    /// Its id.
    pub id: &'a str,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Grant {
    /// With a person or a group.
    pub kind: GranteeKind,
    /// Their name; a group's as it is now.
    pub name: String,
    /// With whom; nobody when there was nobody of this name.
    pub grantee: Option<PrincipalId>,
    /// What of it.
    pub granted: Granted,
    /// Since when.
    pub given_at: Time,
}

/// The condition that an event or audit row is about what somebody sees: their own, or a container that is shared
/// with them. `n` is the number of what [`Visibility::owner`] binds.
///
/// [`Visibility::owner`]: crate::auth::Visibility::owner
pub(super) fn seen(n: u32) -> String {
    format!(
        "(?{n} is null or owner = ?{n} or (subject_kind = 'container' and subject in \
         (select object from granted where object_kind = 'container' and person = ?{n})))"
    )
}

const COLUMNS: &str = "select r.grantee_kind, coalesce(g.name, r.grantee_name) as name, r.grantee, \
     r.logs, r.terminal, r.files, r.manage, r.write, r.given_at from grants r \
     left join groups g on r.grantee_kind = 'group' and g.id = r.grantee \
     where r.object_kind = ?1 and r.object = ?2 ";

/// With whom an object is shared, groups first, by name.
pub async fn list(db: &SqlitePool, object: Object<'_>) -> Result<Vec<Grant>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} order by r.grantee_kind, name")))
        .bind(object.kind)
        .bind(object.id)
        .fetch_all(db)
        .await?;
    rows.iter().map(grant).collect()
}

/// How many grants of an object there are.
pub async fn count(db: &mut SqliteConnection, object: Object<'_>) -> Result<u32> {
    let query =
        sqlx::query_scalar("select count(*) from grants where object_kind = ? and object = ?");
    Ok(query.bind(object.kind).bind(object.id).fetch_one(db).await?)
}

/// Writes a grant over whatever the grantee, or somebody of this name, had.
pub async fn set(
    db: &mut SqliteConnection,
    object: Object<'_>,
    grant: &Grant,
    by: PrincipalId,
) -> Result<()> {
    remove(&mut *db, object, grant.kind, &grant.name).await?;
    let Granted { logs, terminal, files, manage, write } = grant.granted;
    let name = match (grant.kind, grant.grantee) {
        (GranteeKind::Group, Some(id)) => id.to_string(),
        _ => grant.name.clone(),
    };
    sqlx::query(
        "insert into grants (object_kind, object, grantee_kind, grantee_name, grantee, logs, \
         terminal, files, manage, write, given_by, given_at) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(object.kind)
    .bind(object.id)
    .bind(grant.kind)
    .bind(name)
    .bind(grant.grantee.map(|id| i64::from(id.0)))
    .bind(logs)
    .bind(terminal)
    .bind(files)
    .bind(manage)
    .bind(write)
    .bind(i64::from(by.0))
    .bind(grant.given_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a grant; whether there was one. A group is known by its name of now.
pub async fn remove(
    db: &mut SqliteConnection,
    object: Object<'_>,
    kind: GranteeKind,
    name: &str,
) -> Result<bool> {
    let done = sqlx::query(
        "delete from grants where object_kind = ?1 and object = ?2 and grantee_kind = ?3 \
         and iif(?3 = 'group', grantee = (select id from groups where name = ?4), \
         grantee_name = ?4)",
    )
    .bind(object.kind)
    .bind(object.id)
    .bind(kind)
    .bind(name)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Whether `manager` manages a group that `person` is in: then they see that.
pub async fn is_managed_by(
    db: &SqlitePool,
    person: PrincipalId,
    manager: PrincipalId,
) -> Result<bool> {
    let query = sqlx::query_scalar(
        "select exists (select 1 from group_members g join memberships m on m.group_id = g.group_id \
         where g.person = ?2 and g.role = 'manager' and m.person = ?1)",
    );
    Ok(query.bind(i64::from(person.0)).bind(i64::from(manager.0)).fetch_one(db).await?)
}

fn grant(row: &SqliteRow) -> Result<Grant> {
    let grantee: Option<i64> = row.try_get("grantee")?;
    Ok(Grant {
        kind: row.try_get("grantee_kind")?,
        name: row.try_get("name")?,
        grantee: grantee.map(super::principal_from).transpose()?,
        granted: Granted {
            logs: row.try_get("logs")?,
            terminal: row.try_get("terminal")?,
            files: row.try_get("files")?,
            manage: row.try_get("manage")?,
            write: row.try_get("write")?,
        },
        given_at: row.try_get("given_at")?,
    })
}
