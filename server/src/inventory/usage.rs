//! What people hold by the inventory: containers with their limits, images with their layers.

use std::collections::HashMap;

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use berth_runtime::wire::Limits;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::allowances::Whose;
use crate::auth::Visibility;
use crate::clock::Time;
use crate::error::{Error, Result};

/// A container with as much as a sum needs.
#[derive(Debug, Clone)]
pub struct Limited {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Whose.
    pub owner: PrincipalId,
    /// What it may use.
    pub limits: Limits,
    /// Whether it is to run.
    pub runs: bool,
    /// When it is stopped.
    pub ends_at: Option<Time>,
}

/// Somebody's images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub count: u64,
    /// Their layers, stored and unpacked, each counted once.
    pub bytes: u64,
}

/// The containers of those who are visible.
pub async fn containers(db: &SqlitePool, visible: Visibility) -> Result<Vec<Limited>> {
    let rows = sqlx::query(
        "select id, name, owner, cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids, \
         intent = 'running' as runs, ends_at from containers where (?1 is null or owner = ?1)",
    )
    .bind(visible.owner())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Limited {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                owner: super::principal(row, "owner")?,
                runs: row.try_get("runs")?,
                ends_at: row.try_get("ends_at")?,
                limits: Limits {
                    cpu_millis: row.try_get("cpu_millis")?,
                    cpu_weight: row.try_get("cpu_weight")?,
                    memory_bytes: number(row, "memory_bytes")?,
                    swap_bytes: number(row, "swap_bytes")?,
                    pids: row.try_get("pids")?,
                },
            })
        })
        .collect()
}

/// The images of those who are visible, by owner. A layer in two images of one owner counts once.
pub async fn images(db: &SqlitePool, visible: Visibility) -> Result<HashMap<PrincipalId, Held>> {
    let rows = sqlx::query(
        "select i.owner, count(distinct i.id) as count, coalesce((select sum(bytes) from \
         (select max(l.compressed_bytes + l.unpacked_bytes) as bytes from image_layers l \
         join images mine on mine.id = l.image where mine.owner = i.owner group by l.blob)), 0) \
         as bytes from images i where (?1 is null or i.owner = ?1) group by i.owner",
    )
    .bind(visible.owner())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let held = Held { count: number(row, "count")?, bytes: number(row, "bytes")? };
            Ok((super::principal(row, "owner")?, held))
        })
        .collect()
}

/// Everybody's images together: what the disk holds, each layer once.
pub async fn all_images(db: &SqlitePool) -> Result<Held> {
    let row = sqlx::query(
        "select (select count(*) from images) as count, coalesce(sum(bytes), 0) as bytes from \
         (select max(compressed_bytes + unpacked_bytes) as bytes from image_layers group by blob)",
    )
    .fetch_one(db)
    .await?;
    Ok(Held { count: number(&row, "count")?, bytes: number(&row, "bytes")? })
}

/// How much of what is counted somebody has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Containers, running or not.
    pub containers: u64,
    /// Ports of the host.
    pub ports: u64,
    /// Images.
    pub images: u64,
    /// Their layers, stored and unpacked, once for each person who holds them.
    pub image_bytes: u64,
}

/// What a person has of what is counted, or all who count to a group together.
pub async fn counts(db: &mut SqliteConnection, of: Whose, id: PrincipalId) -> Result<Counts> {
    let group = of == Whose::Group;
    let row = sqlx::query(
        "with owners as (select ?1 as id where not ?2 \
         union all select id from people where ?2 and group_id = ?1) \
         select (select count(*) from containers where owner in owners) as containers, \
         (select count(*) from port_leases l join containers c on c.id = l.container \
         where c.owner in owners) as ports, \
         (select count(*) from images where owner in owners) as images, \
         (select coalesce(sum(bytes), 0) from \
         (select max(l.compressed_bytes + l.unpacked_bytes) as bytes from image_layers l \
         join images i on i.id = l.image where i.owner in owners group by i.owner, l.blob)) \
         as image_bytes",
    )
    .bind(i64::from(id.0))
    .bind(group)
    .fetch_one(db)
    .await?;
    Ok(Counts {
        containers: number(&row, "containers")?,
        ports: number(&row, "ports")?,
        images: number(&row, "images")?,
        image_bytes: number(&row, "image_bytes")?,
    })
}

/// What those of `layers` take that a person's images hold.
pub async fn layer_bytes(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    layers: &[&Digest],
) -> Result<HashMap<Digest, u64>> {
    let names: Vec<&str> = layers.iter().map(|digest| digest.as_str()).collect();
    let names = serde_json::to_string(&names)
        .map_err(|source| Error::broken("write a list of layers", source))?;
    let rows = sqlx::query(
        "select l.blob, max(l.compressed_bytes + l.unpacked_bytes) as bytes from image_layers l \
         join images i on i.id = l.image where i.owner = ? \
         and l.blob in (select value from json_each(?)) group by l.blob",
    )
    .bind(i64::from(owner.0))
    .bind(names)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((super::images::digest(row.try_get("blob")?)?, number(row, "bytes")?)))
        .collect()
}

/// The names of people, by id.
pub async fn names(db: &SqlitePool) -> Result<HashMap<PrincipalId, String>> {
    let rows = sqlx::query("select id, name from people").fetch_all(db).await?;
    rows.iter().map(|row| Ok((super::principal(row, "id")?, row.try_get("name")?))).collect()
}

fn number(row: &sqlx::sqlite::SqliteRow, column: &str) -> Result<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|source| Error::broken("read a sum", source))
}
