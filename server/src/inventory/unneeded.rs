//! Images with what says whether anything needs them, and what their removal would free.

use sqlx::{Row, SqlitePool};

use super::images;
use crate::auth::Visibility;
use crate::clock::Time;
use crate::error::Result;

/// Names of containers that are said of one image.
const CONTAINERS_SHOWN: u32 = 5;

/// An image, and what keeps it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// Its owner's name; none for the system's.
    pub owner_name: Option<String>,
    /// Its first tag.
    pub tag: Option<String>,
    /// The digest by which it was pulled.
    pub digest: Option<String>,
    /// Containers that use it.
    pub containers: u64,
    /// Some of them, by name.
    pub container_names: Vec<String>,
    /// Its layers, as stored and as unpacked.
    pub bytes: u64,
    /// When the last container of it went; when it came, if none has been.
    pub needed_at: Time,
}

/// The images of whom the caller means, those first that nothing has needed for longest.
pub async fn candidates(db: &SqlitePool, whose: Visibility, limit: u32) -> Result<Vec<Candidate>> {
    let rows = sqlx::query(
        "select i.id, i.compressed_bytes + i.unpacked_bytes as bytes, \
         coalesce(i.last_needed_at, i.created_at) as needed_at, \
         (select name from people p where p.id = i.owner) as owner_name, \
         (select min(r.name || ':' || r.value) from image_references r \
         where r.image = i.id and r.kind = 'tag') as tag, \
         (select min(r.name || '@' || r.value) from image_references r \
         where r.image = i.id and r.kind = 'digest') as digest, \
         (select count(*) from containers c where c.image_id = i.id) as containers, \
         (select json_group_array(name) from (select name from containers c \
         where c.image_id = i.id order by name limit ?3)) as container_names \
         from images i where (?1 is null or i.owner = ?1) \
         order by needed_at, i.id limit ?2",
    )
    .bind(whose.owner())
    .bind(limit)
    .bind(CONTAINERS_SHOWN)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let (containers, names): (i64, String) =
                (row.try_get("containers")?, row.try_get("container_names")?);
            Ok(Candidate {
                id: row.try_get("id")?,
                owner_name: row.try_get("owner_name")?,
                tag: row.try_get("tag")?,
                digest: row.try_get("digest")?,
                containers: u64::try_from(containers).unwrap_or(0),
                container_names: serde_json::from_str(&names).unwrap_or_default(),
                bytes: images::bytes(row, "bytes")?,
                needed_at: row.try_get("needed_at")?,
            })
        })
        .collect()
}

/// Bytes of layers, as stored and as unpacked, that no image but these has: of all images, or of those of one
/// owner, to whom nothing of others' is told.
pub async fn freed_by(db: &SqlitePool, among: Visibility, ids: &[&str]) -> Result<u64> {
    let row = sqlx::query(
        "with going as (select value as id from json_each(?1)), \
         layers as (select blob, max(compressed_bytes) + max(unpacked_bytes) as bytes \
         from image_layers where image in (select id from going) group by blob) \
         select coalesce(sum(bytes), 0) as bytes from layers where not exists \
         (select 1 from image_layers l join images i on i.id = l.image where l.blob = layers.blob \
         and l.image not in (select id from going) and (?2 is null or i.owner = ?2))",
    )
    .bind(serde_json::json!(ids).to_string())
    .bind(among.owner())
    .fetch_one(db)
    .await?;
    images::bytes(&row, "bytes")
}
