//! Rows that are older than the chain: the first start that finds them links them, in one commit, and says
//! so by a row of its own (`audit.begin`). Their hashes show what is done to them from then on, nothing of
//! what was before.

use anyhow::Context as _;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::chain::{BEGIN, Fields, Hash, Link, seal};
use super::prune::missing;
use super::{Row, insert, newest};

/// Rows read at once.
const BATCH: u32 = 1000;

/// Links what has no hash yet.
///
/// # Errors
/// As the database's; then nothing has changed.
pub async fn chain_older(db: &SqlitePool) -> anyhow::Result<()> {
    let mut tx = db.begin_with("begin immediate").await.context("begin to chain the audit")?;
    if !is_older(&mut tx).await? {
        return Ok(());
    }
    let newest = newest(&mut tx).await.context("look for its newest row")?;
    let ids: Vec<i64> = sqlx::query_scalar("select id from audit order by id")
        .fetch_all(&mut *tx)
        .await
        .context("list its rows")?;
    let gaps = missing(ids.iter().copied(), newest);
    for (first, last) in &gaps {
        sqlx::query("insert into audit_gaps (first, last) values (?1, ?2)")
            .bind(first)
            .bind(last)
            .execute(&mut *tx)
            .await
            .context("list what was dropped")?;
    }
    let mut last = Link::default();
    while link_batch(&mut tx, &mut last).await.context("chain its rows")? {}
    let times = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    insert(&mut tx, &Row::mark(BEGIN, seal(&gaps), times)).await.context("say so")?;
    tx.commit().await.context("commit the audit's chain")?;
    tracing::info!(rows = times, "chained the rows of the audit that were there before");
    Ok(())
}

/// Whether the audit is one from before there was a chain. A row that lost its hash later does not make it so.
async fn is_older(db: &mut SqliteConnection) -> anyhow::Result<bool> {
    let older: i64 = sqlx::query_scalar(
        "select exists (select 1 from sqlite_sequence where name = 'audit' and seq > 0) \
         and not exists (select 1 from audit_gaps) \
         and not exists (select 1 from audit where hash is not null)",
    )
    .fetch_one(db)
    .await
    .context("look whether the audit has a chain")?;
    Ok(older == 1)
}

/// Links the next rows after `last`; whether there were any.
async fn link_batch(db: &mut SqliteConnection, last: &mut Link) -> anyhow::Result<bool> {
    let rows = sqlx::query(
        "select id, at, actor, actor_name, via, action, subject_kind, subject, owner, outcome, \
         address, request_id, times from audit where id > ?1 order by id limit ?2",
    )
    .bind(last.id)
    .bind(BATCH)
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        let text = |name| row.try_get::<&str, _>(name);
        let fields = Fields {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            actor: row.try_get("actor")?,
            actor_name: text("actor_name")?,
            via: text("via")?,
            action: text("action")?,
            subject_kind: text("subject_kind")?,
            subject: text("subject")?,
            owner: row.try_get("owner")?,
            outcome: text("outcome")?,
            address: text("address")?,
            request_id: text("request_id")?,
            times: row.try_get("times")?,
        };
        // What a row is linked to that was dropped is not known: to nothing, then.
        let prev = if fields.id == last.id + 1 { last.hash } else { Hash::default() };
        let hash = fields.hash(prev);
        sqlx::query("update audit set prev = ?1, hash = ?2 where id = ?3")
            .bind(&prev.0[..])
            .bind(&hash.0[..])
            .bind(fields.id)
            .execute(&mut *db)
            .await?;
        *last = Link { id: fields.id, hash };
    }
    Ok(!rows.is_empty())
}
