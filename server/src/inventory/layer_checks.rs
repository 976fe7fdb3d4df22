//! What was found when stored layers were last compared with the bytes that they came from.

use std::collections::HashSet;

use berth_runtime::digest::Digest;
use berth_runtime::wire::LayerDifference;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::images;
use crate::clock::Time;
use crate::error::{Error, Result};

/// How a layer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// As it was unpacked.
    Whole,
    /// Not so: nothing starts from it.
    Damaged,
    /// The bytes that it came from are not what their digest says: nothing is known of it.
    ArchiveDamaged,
}

/// One finding.
#[derive(Debug, Clone)]
pub struct LayerCheck {
    /// The layer.
    pub blob: Digest,
    /// When it was looked at.
    pub checked_at: Time,
    /// How it was found.
    pub state: LayerState,
    /// All that was different.
    pub differences: u64,
    /// The first of it.
    pub shown: Vec<LayerDifference>,
}

/// Layers that images hold, by how they were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub layers: u64,
    /// As they were unpacked.
    pub whole: u64,
    /// Those that are damaged, or whose bytes are.
    pub harmed: u64,
    /// When that was looked at last of which it is longest ago.
    pub oldest_checked_at: Option<Time>,
}

impl LayerState {
    fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Damaged => "damaged",
            Self::ArchiveDamaged => "archive_damaged",
        }
    }
}

/// Writes down what was found, in place of what was found before.
pub async fn put(db: &mut SqliteConnection, check: &LayerCheck) -> Result<()> {
    let shown = serde_json::to_string(&check.shown)
        .map_err(|source| Error::broken("write down a layer's harm", source))?;
    sqlx::query(
        "insert into layer_checks (blob, checked_at, state, differences, shown) \
         values (?1, ?2, ?3, ?4, ?5) on conflict (blob) do update set checked_at = ?2, \
         state = ?3, differences = ?4, shown = ?5",
    )
    .bind(check.blob.as_str())
    .bind(check.checked_at)
    .bind(check.state.word())
    .bind(i64::try_from(check.differences).unwrap_or(i64::MAX))
    .bind(shown)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets what was found: the layer is gone, or has come anew.
pub async fn delete(db: &mut SqliteConnection, blob: &Digest) -> Result<()> {
    sqlx::query("delete from layer_checks where blob = ?").bind(blob.as_str()).execute(db).await?;
    Ok(())
}

/// What was found of one layer.
pub async fn find(db: &SqlitePool, blob: &Digest) -> Result<Option<LayerCheck>> {
    let row = sqlx::query("select * from layer_checks where blob = ?").bind(blob.as_str());
    row.fetch_optional(db).await?.as_ref().map(check).transpose()
}

/// The first of these layers that is damaged.
pub async fn first_damaged(db: &SqlitePool, blobs: &[Digest]) -> Result<Option<LayerCheck>> {
    let row = sqlx::query(
        "select * from layer_checks where state = 'damaged' \
         and blob in (select value from json_each(?)) order by blob limit 1",
    )
    .bind(serde_json::json!(blobs).to_string());
    row.fetch_optional(db).await?.as_ref().map(check).transpose()
}

/// Those of these images that have a damaged layer.
pub async fn damaged_images(db: &SqlitePool, ids: &[&str]) -> Result<HashSet<String>> {
    let found = sqlx::query_scalar(
        "select distinct l.image from layer_checks c join image_layers l on l.blob = c.blob \
         where c.state = 'damaged' and l.image in (select value from json_each(?))",
    )
    .bind(serde_json::json!(ids).to_string());
    Ok(found.fetch_all(db).await?.into_iter().collect())
}

/// The layers that images hold and that are harmed, by digest.
pub async fn harmed(db: &SqlitePool, limit: u32) -> Result<Vec<LayerCheck>> {
    let rows = sqlx::query(
        "select * from layer_checks c where state <> 'whole' \
         and exists (select 1 from image_layers l where l.blob = c.blob) order by blob limit ?",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(check).collect()
}

/// How many there are of each.
pub async fn tally(db: &SqlitePool) -> Result<Tally> {
    let row = sqlx::query(
        "with held as (select distinct blob from image_layers) \
         select count(*) as layers, coalesce(sum(c.state = 'whole'), 0) as whole, \
         coalesce(sum(c.state <> 'whole'), 0) as harmed, min(c.checked_at) as oldest \
         from held left join layer_checks c on c.blob = held.blob",
    )
    .fetch_one(db)
    .await?;
    Ok(Tally {
        layers: images::bytes(&row, "layers")?,
        whole: images::bytes(&row, "whole")?,
        harmed: images::bytes(&row, "harmed")?,
        oldest_checked_at: row.try_get("oldest")?,
    })
}

fn check(row: &SqliteRow) -> Result<LayerCheck> {
    let (state, shown): (String, String) = (row.try_get("state")?, row.try_get("shown")?);
    Ok(LayerCheck {
        blob: images::digest(row.try_get("blob")?)?,
        checked_at: row.try_get("checked_at")?,
        state: match state.as_str() {
            "whole" => LayerState::Whole,
            "damaged" => LayerState::Damaged,
            _ => LayerState::ArchiveDamaged,
        },
        differences: images::bytes(row, "differences")?,
        shown: serde_json::from_str(&shown)
            .map_err(|source| Error::broken("read a layer's harm", source))?,
    })
}
