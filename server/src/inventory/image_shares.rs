//! What of an image's content is its alone and what it shares, and who holds it. Only images of the
//! same owner are ever compared: that a layer is also somebody else's is nowhere to be seen.

use std::collections::HashMap;

use berth_runtime::digest::Digest;
use sqlx::{Row, SqlitePool};

use super::images::{self, ReferenceRow};
use crate::auth::Visibility;
use crate::clock::Time;
use crate::error::Result;

/// Holders that are named at most: of an image, and of each layer.
pub const HOLDERS_MAX: u32 = 100;

/// What of an image is its alone, how it is used, and whose it is.
#[derive(Debug, Clone, Default)]
pub struct Share {
    /// Bytes of layers that no other image of its owner has; each layer once, as unpacked.
    pub unique_bytes: u64,
    /// Bytes of layers that other images of its owner have too.
    pub shared_bytes: u64,
    /// Containers that use it, of those that are visible.
    pub containers: u64,
    /// When one of those was last started.
    pub last_used_at: Option<Time>,
    /// Its owner's name; none for the system's.
    pub owner_name: Option<String>,
}

/// Something that holds an image or a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub id: String,
    /// What it is called; empty when an image has no name.
    pub name: String,
}

/// The shares of images, by their ids.
pub async fn of_images(
    db: &SqlitePool,
    visible: Visibility,
    ids: &[&str],
) -> Result<HashMap<String, Share>> {
    let rows = sqlx::query(
        "with wanted as \
         (select id, owner from images where id in (select value from json_each(?1))), \
         held as (select i.owner, l.blob, count(distinct l.image) as images, \
         max(l.unpacked_bytes) as bytes from images i join image_layers l on l.image = i.id \
         where i.owner in (select owner from wanted) group by i.owner, l.blob), \
         layers as (select distinct w.id, w.owner, l.blob from wanted w \
         join image_layers l on l.image = w.id) \
         select w.id, \
         coalesce(sum(h.bytes) filter (where h.images = 1), 0) as unique_bytes, \
         coalesce(sum(h.bytes) filter (where h.images > 1), 0) as shared_bytes, \
         (select count(*) from containers c where c.image_id = w.id \
         and (?2 is null or c.owner = ?2)) as containers, \
         (select max(c.started_at) from containers c where c.image_id = w.id \
         and (?2 is null or c.owner = ?2)) as last_used_at, \
         (select name from people p where p.id = w.owner) as owner_name \
         from wanted w left join layers l on l.id = w.id \
         left join held h on h.owner = l.owner and h.blob = l.blob group by w.id",
    )
    .bind(json(ids))
    .bind(visible.owner())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let containers: i64 = row.try_get("containers")?;
            let share = Share {
                unique_bytes: images::bytes(row, "unique_bytes")?,
                shared_bytes: images::bytes(row, "shared_bytes")?,
                containers: u64::try_from(containers).unwrap_or(0),
                last_used_at: row.try_get("last_used_at")?,
                owner_name: row.try_get("owner_name")?,
            };
            Ok((row.try_get("id")?, share))
        })
        .collect()
}

/// What images are called, by their ids.
pub async fn references_of(
    db: &SqlitePool,
    ids: &[&str],
) -> Result<HashMap<String, Vec<ReferenceRow>>> {
    let rows = sqlx::query(
        "select image, name, kind, value from image_references \
         where image in (select value from json_each(?)) order by kind desc, name, value",
    )
    .bind(json(ids))
    .fetch_all(db)
    .await?;
    let mut found: HashMap<String, Vec<ReferenceRow>> = HashMap::new();
    for row in &rows {
        found.entry(row.try_get("image")?).or_default().push(images::reference(row)?);
    }
    Ok(found)
}

/// Visible containers that use an image, by name.
pub async fn containers(db: &SqlitePool, visible: Visibility, image: &str) -> Result<Vec<Holder>> {
    let rows = sqlx::query(
        "select id, name from containers where image_id = ?1 and (?2 is null or owner = ?2) \
         order by name limit ?3",
    )
    .bind(image)
    .bind(visible.owner())
    .bind(HOLDERS_MAX)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok(Holder { id: row.try_get("id")?, name: row.try_get("name")? }))
        .collect()
}

/// For each layer of an image that its owner's other images have too: which, newest first.
pub async fn sharers(db: &SqlitePool, image: &str) -> Result<Vec<(Digest, Holder)>> {
    let rows = sqlx::query(
        "with shared as (select distinct l.blob, o.image, i.created_at from image_layers l \
         join image_layers o on o.blob = l.blob and o.image <> l.image \
         join images i on i.id = o.image \
         where l.image = ?1 and i.owner = (select owner from images where id = ?1)), \
         placed as (select blob, image, created_at, row_number() over \
         (partition by blob order by created_at desc, image) as place from shared) \
         select blob, image, coalesce((select r.name || iif(r.kind = 'tag', ':', '@') || r.value \
         from image_references r where r.image = placed.image \
         order by r.kind desc, r.name, r.value limit 1), '') as name \
         from placed where place <= ?2 order by created_at desc, image",
    )
    .bind(image)
    .bind(HOLDERS_MAX)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let holder = Holder { id: row.try_get("image")?, name: row.try_get("name")? };
            Ok((images::digest(row.try_get("blob")?)?, holder))
        })
        .collect()
}

fn json(ids: &[&str]) -> String {
    serde_json::json!(ids).to_string()
}
