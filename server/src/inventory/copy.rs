//! Copies of the inventory: taken while it is used, and looked at before one is put in its place.
//!
//! A copy is one file without a write-ahead log: what one read transaction sees (VACUUM INTO, SQLite's
//! lang_vacuum, 3). It takes no part in anything until it is renamed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use berth_runtime::id::PrincipalId;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use super::{MIGRATIONS, audit, events, mark};
use crate::auth::{Actor, Via};

/// What is in an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The newest of its migrations.
    pub schema: i64,
    /// People, disabled ones too.
    pub people: i64,
    /// Images.
    pub images: i64,
    /// Containers.
    pub containers: i64,
}

/// What an inventory speaks of that is not on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absent {
    /// Images of which a layer is not unpacked here.
    pub images: Vec<String>,
    /// Containers that were started once, and what they have written is not here.
    pub containers: Vec<(String, PrincipalId)>,
}

/// The newest schema that this program knows.
pub fn newest_schema() -> i64 {
    MIGRATIONS.iter().map(|known| known.version).max().unwrap_or(0)
}

/// The file's name beside the inventory that says how far it had come; a copy has none.
pub const MARK_FILE: &str = mark::FILE;

/// Copies the inventory at `from`, in use or not, to `to`, which is not there yet.
///
/// # Errors
/// When it is damaged or none of ours, or the disk of the copy refuses.
pub async fn take(from: &Path, to: &Path) -> Result<()> {
    super::check_header(from)?;
    let shown = from.display();
    let one = SqlitePoolOptions::new().max_connections(1);
    let db = one
        .connect_with(super::options(from).read_only(true))
        .await
        .with_context(|| format!("open {shown} for reading"))?;
    let name = to.to_str().with_context(|| format!("name {}: it is no UTF-8", to.display()))?;
    sqlx::query("vacuum into ?")
        .bind(name)
        .execute(&db)
        .await
        .with_context(|| format!("copy {shown} to {}", to.display()))?;
    db.close().await;
    Ok(())
}

/// Checks a copy through and through, and says what is in it.
///
/// # Errors
/// When it is damaged, none of ours, or a newer version's.
pub async fn inspect(path: &Path) -> Result<Facts> {
    super::check_header(path)?;
    let db = open(path).await?;
    super::check(&db).await?;
    let count = async |what: &str| -> Result<i64> {
        let sql = sqlx::AssertSqlSafe(format!("select {what}"));
        sqlx::query_scalar(sql).fetch_one(&db).await.with_context(|| format!("look for {what}"))
    };
    let schema = count("coalesce(max(version), 0) from _sqlx_migrations").await?;
    let newest = newest_schema();
    ensure!(
        schema <= newest,
        "it is a newer version's (schema {schema}; this program knows {newest} and older): install \
         that version first"
    );
    let facts = Facts {
        schema,
        people: count("count(*) from people").await?,
        images: count("count(*) from images").await?,
        containers: count("count(*) from containers").await?,
    };
    db.close().await;
    Ok(facts)
}

/// Every blob that an image or container of the copy holds: layers, manifests, configurations.
///
/// # Errors
/// As the database's.
pub async fn blobs(path: &Path) -> Result<BTreeSet<String>> {
    let db = open(path).await?;
    let found: Vec<String> = sqlx::query_scalar(
        "select blob from image_layers union select layer from container_layers \
         union select manifest_digest from images union select config_digest from images",
    )
    .fetch_all(&db)
    .await
    .context("look for the images' blobs")?;
    db.close().await;
    Ok(found.into_iter().collect())
}

/// What the copy speaks of and this machine has not: `layers` are the digests of unpacked layers, and
/// `containers` the ids of containers whose files are here.
///
/// # Errors
/// As the database's.
pub async fn absent(
    path: &Path,
    layers: &BTreeSet<String>,
    containers: &BTreeSet<String>,
) -> Result<Absent> {
    let db = open(path).await?;
    let mut absent = Absent::default();
    let rows = sqlx::query("select image, blob from image_layers order by image")
        .fetch_all(&db)
        .await
        .context("look for the images' layers")?;
    for row in rows {
        let (image, blob): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if !layers.contains(&blob) && absent.images.last() != Some(&image) {
            absent.images.push(image);
        }
    }
    let rows = sqlx::query("select id, owner from containers where run > 0 order by id")
        .fetch_all(&db)
        .await
        .context("look for the containers")?;
    for row in rows {
        let id: String = row.try_get(0)?;
        if !containers.contains(&id) {
            absent.containers.push((id, super::principal(&row, 1)?));
        }
    }
    db.close().await;
    Ok(absent)
}

/// Writes into a copy of this version's schema that it is put in place: for the audit, and for each owner
/// whose container has lost what it had written. One of an older schema is left as it is.
///
/// # Errors
/// As the database's.
pub async fn note_restored(path: &Path, absent: &Absent) -> Result<()> {
    let db = open(path).await?;
    let schema: i64 = sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations")
        .fetch_one(&db)
        .await?;
    if schema == newest_schema() {
        let mut tx = db.begin_with("begin immediate").await.context("begin to write")?;
        for (id, owner) in &absent.containers {
            let event = events::NewEvent {
                owner: *owner,
                kind: "container.files_lost",
                subject_kind: "container",
                subject: id,
                data: json!({}),
            };
            events::insert(&mut tx, event).await?;
        }
        let actor = Actor {
            principal: Some(PrincipalId::SYSTEM),
            name: "system".to_owned(),
            via: Via::Nothing,
            address: None,
            request_id: String::new(),
        };
        let mut row = audit::Row::of(&actor, "inventory.restore");
        row.subject_kind = "inventory";
        audit::insert(&mut tx, &row).await?;
        tx.commit().await.context("write down that it is restored")?;
    }
    db.close().await;
    Ok(())
}

/// A copy alone: whatever is done leaves one file.
async fn open(path: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("cell_size_check", "on")
        .pragma("trusted_schema", "off");
    let one = SqlitePoolOptions::new().max_connections(1);
    one.connect_with(options).await.with_context(|| format!("open {}", path.display()))
}
