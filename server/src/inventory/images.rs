//! Images, what they are called, their layers, and where stored layers came from.

use std::collections::HashMap;

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use berth_runtime::wire::Compression;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool};

use crate::auth::{Granted, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};

/// An image.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Whose.
    pub owner: PrincipalId,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The digest of its config.
    pub config_digest: Digest,
    /// Such as `linux/amd64`.
    pub platform: String,
    /// Its layers as stored.
    pub compressed_bytes: u64,
    /// Its layers as unpacked.
    pub unpacked_bytes: u64,
    /// The config (JSON); empty in lists.
    pub config: String,
    /// `pull` or `import`.
    pub source: String,
    /// When it came.
    pub created_at: Time,
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct LayerRow {
    /// The digest of its bytes as stored, which is also the unpacked layer's name.
    pub blob: Digest,
    /// The digest of its uncompressed bytes.
    pub diff_id: Digest,
    /// How it is compressed.
    pub compression: Compression,
    /// Its size as stored.
    pub compressed_bytes: u64,
    /// Its files' size.
    pub unpacked_bytes: u64,
}

/// What an image is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceRow {
    /// Registry and repository.
    pub name: String,
    /// A tag, or a digest.
    pub value: ReferenceValue,
}

/// The end of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceValue {
    /// A tag.
    Tag(String),
    /// The digest of a manifest or an index.
    Digest(Digest),
}

/// Which images are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Part of a name or tag.
    pub reference: Option<String>,
    /// Whose.
    pub owner: Option<PrincipalId>,
    /// This person's, by name.
    pub owner_name: Option<String>,
    /// Only those before (`created_at`, `id`), newest first.
    pub before: Option<(Time, String)>,
}

const COLUMNS: &str = "select id, owner, manifest_digest, config_digest, platform, \
    compressed_bytes, unpacked_bytes, config, source, created_at from images ";

/// The same without the config, which nobody reads in a list, and which is as large as its image's maker
/// liked.
const LISTED: &str = "select id, owner, manifest_digest, config_digest, platform, \
    compressed_bytes, unpacked_bytes, '' as config, source, created_at from images ";

/// Writes an image down, or finds the same one of the same owner; answers its id.
pub async fn insert(
    db: &mut SqliteConnection,
    row: &ImageRow,
    layers: &[LayerRow],
) -> Result<String> {
    let known: Option<String> =
        sqlx::query_scalar("select id from images where owner = ? and manifest_digest = ?")
            .bind(i64::from(row.owner.0))
            .bind(row.manifest.as_str())
            .fetch_optional(&mut *db)
            .await?;
    if let Some(id) = known {
        return Ok(id);
    }
    sqlx::query(
        "insert into images (id, owner, manifest_digest, config_digest, platform, \
         compressed_bytes, unpacked_bytes, config, source, created_at) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(i64::from(row.owner.0))
    .bind(row.manifest.as_str())
    .bind(row.config_digest.as_str())
    .bind(&row.platform)
    .bind(stored(row.compressed_bytes))
    .bind(stored(row.unpacked_bytes))
    .bind(&row.config)
    .bind(&row.source)
    .bind(row.created_at)
    .execute(&mut *db)
    .await?;
    for (position, layer) in (0i64..).zip(layers) {
        sqlx::query(
            "insert into image_layers (image, position, blob, diff_id, compression, \
             compressed_bytes, unpacked_bytes) values (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&row.id)
        .bind(position)
        .bind(layer.blob.as_str())
        .bind(layer.diff_id.as_str())
        .bind(compression_word(layer.compression))
        .bind(stored(layer.compressed_bytes))
        .bind(stored(layer.unpacked_bytes))
        .execute(&mut *db)
        .await?;
    }
    Ok(row.id.clone())
}

/// Gives an image a name; a tag moves from the image that bore it.
pub async fn insert_reference(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    image: &str,
    reference: &ReferenceRow,
) -> Result<()> {
    let (kind, value) = reference.value.parts();
    sqlx::query(
        "insert into image_references (owner, name, kind, value, image) values (?, ?, ?, ?, ?) \
         on conflict do update set image = excluded.image",
    )
    .bind(i64::from(owner.0))
    .bind(&reference.name)
    .bind(kind)
    .bind(value)
    .bind(image)
    .execute(db)
    .await?;
    Ok(())
}

/// How many names an image has.
pub async fn count_references(db: &mut SqliteConnection, image: &str) -> Result<usize> {
    let query = sqlx::query_scalar("select count(*) from image_references where image = ?");
    let count: u32 = query.bind(image).fetch_one(db).await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Takes a name from whatever bears it.
pub async fn delete_reference(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    image: &str,
    reference: &ReferenceRow,
) -> Result<()> {
    let (kind, value) = reference.value.parts();
    let done = sqlx::query(
        "delete from image_references where owner = ? and name = ? and kind = ? and value = ? \
         and image = ?",
    )
    .bind(i64::from(owner.0))
    .bind(&reference.name)
    .bind(kind)
    .bind(value)
    .bind(image)
    .execute(db)
    .await?;
    if done.rows_affected() == 0 { Err(Error::NotFound("reference")) } else { Ok(()) }
}

/// Notes that a blob has come whole from a repository.
pub async fn insert_origin(
    db: &mut SqliteConnection,
    blob: &Digest,
    registry: &str,
    repository: &str,
) -> Result<()> {
    sqlx::query("insert or ignore into blob_origins (blob, registry, repository) values (?, ?, ?)")
        .bind(blob.as_str())
        .bind(registry)
        .bind(repository)
        .execute(db)
        .await?;
    Ok(())
}

/// Whether a blob has come whole from this repository before.
pub async fn has_origin(
    db: &SqlitePool,
    blob: &Digest,
    registry: &str,
    repository: &str,
) -> Result<bool> {
    let found: Option<i64> = sqlx::query_scalar(
        "select 1 from blob_origins where blob = ? and registry = ? and repository = ?",
    )
    .bind(blob.as_str())
    .bind(registry)
    .bind(repository)
    .fetch_optional(db)
    .await?;
    Ok(found.is_some())
}

/// Whether `owner` has the image of this manifest.
pub async fn holds_manifest(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    manifest: &Digest,
) -> Result<bool> {
    let query = "select exists (select 1 from images where owner = ? and manifest_digest = ?)";
    let found = sqlx::query_scalar(query).bind(i64::from(owner.0)).bind(manifest.as_str());
    Ok(found.fetch_one(db).await?)
}

/// Whether `owner` has an image with this layer.
pub async fn holds_layer(db: &SqlitePool, owner: PrincipalId, blob: &Digest) -> Result<bool> {
    let found: Option<i64> = sqlx::query_scalar(
        "select 1 from image_layers l join images i on i.id = l.image \
         where l.blob = ? and i.owner = ? limit 1",
    )
    .bind(blob.as_str())
    .bind(i64::from(owner.0))
    .fetch_optional(db)
    .await?;
    Ok(found.is_some())
}

/// An image that is visible: the caller's own, the system's or one that is shared with them, or anybody's to those who
/// see all.
pub async fn find(db: impl SqliteExecutor<'_>, visible: Visibility, id: &str) -> Result<ImageRow> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where id = ?1 and (?2 is null or owner = ?2 or owner = 1 or exists \
         (select 1 from granted where object_kind = 'image' and object = images.id and person = ?2))"
    )))
    .bind(id)
    .bind(visible.owner())
    .fetch_optional(db)
    .await?;
    image(&row.ok_or(Error::NotFound("image"))?)
}

/// The image that `owner` calls by this name: their own before the system's.
pub async fn find_by_reference(
    db: &SqlitePool,
    owner: PrincipalId,
    name: &str,
    value: &ReferenceValue,
) -> Result<ImageRow> {
    let (kind, value) = value.parts();
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where id = (select image from image_references where name = ?1 and kind = ?2 \
         and value = ?3 and owner in (?4, 1) order by owner = ?4 desc limit 1)"
    )))
    .bind(name)
    .bind(kind)
    .bind(value)
    .bind(i64::from(owner.0))
    .fetch_optional(db)
    .await?;
    image(&row.ok_or(Error::NotFound("image"))?)
}

/// The image that `owner` means by an id, the beginning of one (12 digits or more), or a digest.
pub async fn find_by_id(db: &SqlitePool, owner: PrincipalId, text: &str) -> Result<ImageRow> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where owner in (?1, 1) and (substr(id, 1, length(?2)) = ?2 \
         or manifest_digest = ?2 or config_digest = ?2) order by owner = ?1 desc limit 2"
    )))
    .bind(i64::from(owner.0))
    .bind(text)
    .fetch_all(db)
    .await?;
    image(rows.first().ok_or(Error::NotFound("image"))?)
}

/// The image of somebody else's that is meant by an id, or the beginning of one (12 digits or more), of those that
/// are shared with `person`; its id.
pub async fn find_shared(
    db: &SqlitePool,
    person: PrincipalId,
    text: &str,
) -> Result<Option<String>> {
    let query = sqlx::query_scalar(
        "select i.id from granted g join images i on i.id = g.object where g.object_kind = 'image' \
         and g.person = ?1 and g.files and i.owner <> ?1 and substr(i.id, 1, length(?2)) = ?2 limit 1",
    );
    Ok(query.bind(i64::from(person.0)).bind(text).fetch_optional(db).await?)
}

/// What of images is shared with `person`, by their ids.
pub async fn granted(
    db: impl SqliteExecutor<'_>,
    person: PrincipalId,
    ids: &[&str],
) -> Result<HashMap<String, Granted>> {
    let rows = sqlx::query(
        "select object, max(files) as files from granted where object_kind = 'image' \
         and person = ?1 and object in (select value from json_each(?2)) group by object",
    )
    .bind(i64::from(person.0))
    .bind(serde_json::json!(ids).to_string())
    .fetch_all(db)
    .await?;
    let one = |row: &SqliteRow| {
        let granted = Granted { files: row.try_get("files")?, ..Granted::default() };
        Ok((row.try_get("object")?, granted))
    };
    rows.iter().map(one).collect()
}

/// Whether there is such an image, for the server's own work.
pub async fn is_there(db: &SqlitePool, id: &str) -> Result<bool> {
    let query = sqlx::query_scalar("select exists (select 1 from images where id = ?)");
    Ok(query.bind(id).fetch_one(db).await?)
}

/// Images, newest first.
pub async fn list(
    db: &SqlitePool,
    visible: Visibility,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<ImageRow>> {
    let (before, before_id) = match &filter.before {
        Some((at, id)) => (Some(*at), Some(id.as_str())),
        None => (None, None),
    };
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{LISTED} where (?1 is null or owner = ?1 or owner = 1 or exists \
         (select 1 from granted where object_kind = 'image' and object = images.id and person = ?1)) \
         and (?2 is null or exists (select 1 from image_references r where r.image = images.id \
         and instr(r.name || ':' || r.value, ?2) > 0)) \
         and (?3 is null or (created_at, id) < (?3, ?4)) and (?6 is null or owner = ?6) \
         and (?7 is null or owner = (select p.id from people p where p.name = ?7)) \
         order by created_at desc, id desc limit ?5"
    )))
    .bind(visible.owner())
    .bind(filter.reference.as_deref())
    .bind(before)
    .bind(before_id)
    .bind(limit)
    .bind(filter.owner.map(|id| i64::from(id.0)))
    .bind(filter.owner_name.as_deref())
    .fetch_all(db)
    .await?;
    rows.iter().map(image).collect()
}

/// What an image is called.
pub async fn references(db: &SqlitePool, image: &str) -> Result<Vec<ReferenceRow>> {
    let rows = sqlx::query(
        "select name, kind, value from image_references where image = ? order by kind desc, name, value",
    )
    .bind(image)
    .fetch_all(db)
    .await?;
    rows.iter().map(reference).collect()
}

/// An image's layers, lowest first.
pub async fn layers(db: impl SqliteExecutor<'_>, image: &str) -> Result<Vec<LayerRow>> {
    let rows = sqlx::query(
        "select blob, diff_id, compression, compressed_bytes, unpacked_bytes from image_layers \
         where image = ? order by position",
    )
    .bind(image)
    .fetch_all(db)
    .await?;
    rows.iter().map(layer).collect()
}

/// Every layer that an image holds, once each.
pub async fn held_layers(db: &SqlitePool) -> Result<Vec<LayerRow>> {
    let rows = sqlx::query(
        "select blob, diff_id, compression, compressed_bytes, unpacked_bytes from image_layers \
         group by blob order by blob",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(layer).collect()
}

/// The images that have the layer.
pub async fn of_layer(db: &SqlitePool, blob: &Digest) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select distinct image from image_layers where blob = ?")
        .bind(blob.as_str())
        .fetch_all(db)
        .await?)
}

fn layer(row: &SqliteRow) -> Result<LayerRow> {
    let compression: String = row.try_get("compression")?;
    Ok(LayerRow {
        blob: digest(row.try_get("blob")?)?,
        diff_id: digest(row.try_get("diff_id")?)?,
        compression: match compression.as_str() {
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        },
        compressed_bytes: bytes(row, "compressed_bytes")?,
        unpacked_bytes: bytes(row, "unpacked_bytes")?,
    })
}

/// Pulls and imports of `owner` that are going on.
pub async fn operations_running(db: &mut SqliteConnection, owner: PrincipalId) -> Result<i64> {
    let count = sqlx::query_scalar(
        "select count(*) from operations where owner = ? and state = 'running' \
         and kind in ('image.pull', 'image.import')",
    );
    Ok(count.bind(i64::from(owner.0)).fetch_one(db).await?)
}

/// Containers that use an image.
pub async fn containers_of(db: &mut SqliteConnection, image: &str) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select name from containers where image_id = ? order by name limit 5")
        .bind(image)
        .fetch_all(db)
        .await?)
}

/// Removes an image's row with its names and layers; the content goes when nobody holds it.
pub async fn delete(db: &mut SqliteConnection, id: &str) -> Result<()> {
    sqlx::query("delete from images where id = ?").bind(id).execute(db).await?;
    Ok(())
}

/// Whether any image or container holds this blob: as a layer, a config or a manifest.
pub async fn is_held(db: &SqlitePool, blob: &Digest) -> Result<bool> {
    let found: Option<i64> = sqlx::query_scalar(
        "select 1 where exists (select 1 from image_layers where blob = ?1) \
         or exists (select 1 from container_layers where layer = ?1) \
         or exists (select 1 from images where manifest_digest = ?1 or config_digest = ?1)",
    )
    .bind(blob.as_str())
    .fetch_optional(db)
    .await?;
    Ok(found.is_some())
}

/// Forgets where a blob that is gone came from.
pub async fn delete_origins(db: &mut SqliteConnection, blob: &Digest) -> Result<()> {
    sqlx::query("delete from blob_origins where blob = ?").bind(blob.as_str()).execute(db).await?;
    Ok(())
}

impl ReferenceValue {
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Tag(tag) => ("tag", tag),
            Self::Digest(digest) => ("digest", digest.as_str()),
        }
    }
}

impl std::fmt::Display for ReferenceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            ReferenceValue::Tag(tag) => write!(f, "{}:{tag}", self.name),
            ReferenceValue::Digest(digest) => write!(f, "{}@{digest}", self.name),
        }
    }
}

fn image(row: &SqliteRow) -> Result<ImageRow> {
    Ok(ImageRow {
        id: row.try_get("id")?,
        owner: super::principal(row, "owner")?,
        manifest: digest(row.try_get("manifest_digest")?)?,
        config_digest: digest(row.try_get("config_digest")?)?,
        platform: row.try_get("platform")?,
        compressed_bytes: bytes(row, "compressed_bytes")?,
        unpacked_bytes: bytes(row, "unpacked_bytes")?,
        config: row.try_get("config")?,
        source: row.try_get("source")?,
        created_at: row.try_get("created_at")?,
    })
}

/// A reference out of `name`, `kind` and `value`.
pub(super) fn reference(row: &SqliteRow) -> Result<ReferenceRow> {
    let (kind, value): (String, String) = (row.try_get("kind")?, row.try_get("value")?);
    let value = match kind.as_str() {
        "digest" => ReferenceValue::Digest(digest(&value)?),
        _ => ReferenceValue::Tag(value),
    };
    Ok(ReferenceRow { name: row.try_get("name")?, value })
}

pub(super) fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|source: berth_runtime::id::BadId| Error::broken("read a digest", source))
}

pub(super) fn bytes(row: &SqliteRow, column: &str) -> Result<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|source| Error::broken("read a size", source))
}

fn stored(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn compression_word(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}
