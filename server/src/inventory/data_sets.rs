//! Data sets: which containers have them, and in which groups somebody is. Which there are is in the configuration.

use std::collections::BTreeSet;

use berth_runtime::id::{ContainerId, PrincipalId};
use serde::Deserialize;
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool};

use crate::auth::Visibility;
use crate::error::{Error, Result};

/// A data set at a place in a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// As the configuration calls it.
    pub name: String,
    /// Absolute path inside.
    pub target: String,
}

/// A container that has a data set.
#[derive(Debug, Clone)]
pub struct User {
    /// The data set.
    pub name: String,
    /// The container's id.
    pub container: ContainerId,
    /// Its name.
    pub container_name: String,
    /// Whose it is.
    pub owner: PrincipalId,
    /// Their name.
    pub owner_name: String,
    /// Where it has it.
    pub target: String,
    /// How many places there are in all for this data set, of those that are seen.
    pub places: u32,
}

/// Gives a new container a data set.
pub async fn attach(
    db: &mut SqliteConnection,
    container: &ContainerId,
    position: u32,
    mount: &Mount,
) -> Result<()> {
    let query = "insert into container_data_sets (container, position, name, target) \
                 values (?, ?, ?, ?)";
    sqlx::query(query)
        .bind(container.as_str())
        .bind(position)
        .bind(&mount.name)
        .bind(&mount.target)
        .execute(db)
        .await?;
    Ok(())
}

/// The names of the groups that somebody is in.
pub async fn groups_of(
    db: impl SqliteExecutor<'_>,
    person: PrincipalId,
) -> Result<BTreeSet<String>> {
    let query = "select distinct g.name from memberships m join groups g on g.id = m.group_id \
                 where m.person = ?";
    let names: Vec<String> =
        sqlx::query_scalar(query).bind(i64::from(person.0)).fetch_all(db).await?;
    Ok(names.into_iter().collect())
}

/// The containers that have data sets, of those that are seen: by name, `each` of one data set at most.
pub async fn users(db: &SqlitePool, visible: Visibility, each: u32) -> Result<Vec<User>> {
    let rows = sqlx::query(
        "select * from (select d.name, d.target, c.id, c.name as container_name, c.owner, \
         coalesce(p.name, 'system') as owner_name, \
         row_number() over (partition by d.name order by c.name, c.id, d.position) as place, \
         count(*) over (partition by d.name) as places \
         from container_data_sets d join containers c on c.id = d.container \
         left join people p on p.id = c.owner where ?1 is null or c.owner = ?1) \
         where place <= ?2 order by name, place",
    )
    .bind(visible.owner())
    .bind(each)
    .fetch_all(db)
    .await?;
    let bad = |source| Error::broken("read what has a data set", source);
    let user = |row: &sqlx::sqlite::SqliteRow| -> Result<User> {
        let container: String = row.try_get("id")?;
        Ok(User {
            name: row.try_get("name")?,
            container: container.parse().map_err(bad)?,
            container_name: row.try_get("container_name")?,
            owner: super::principal(row, "owner")?,
            owner_name: row.try_get("owner_name")?,
            target: row.try_get("target")?,
            places: row.try_get("places")?,
        })
    };
    rows.iter().map(user).collect()
}
