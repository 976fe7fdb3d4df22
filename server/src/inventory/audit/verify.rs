//! The walk along the audit's chain as it is in the file: one snapshot, read while others write.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{Row as _, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use super::chain::{Fault, FaultKind, Found, Link};
use super::walk::Walk;
use super::{COLUMNS, hash};
use crate::clock::Time;
use crate::error::Result;

/// How often the time is looked at.
const ROWS_BETWEEN_LOOKS: u64 = 256;

/// What a check is to look for, and how long it may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// A head that was kept elsewhere, to be found in the chain.
    pub head: Option<Link>,
    /// It ends unfinished then.
    pub until: Option<Instant>,
}

/// Whether the chain holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Every row that is kept holds what was written, in its place.
    Whole,
    /// At least one does not.
    Broken,
    /// There was no time for all rows; those up to `head` hold.
    Unfinished,
}

/// What a check of the chain has found.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditCheck {
    /// When it was made.
    pub at: Time,
    /// Whether the chain holds.
    pub state: CheckState,
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows that the pruning has dropped.
    pub dropped: u64,
    /// The newest row that was looked at: its number, a colon, its hash. Kept elsewhere, it shows later
    /// whether the chain was cut or made anew.
    #[schema(value_type = Option<String>)]
    pub head: Option<String>,
    /// Rows up to this one were there before there was a chain; what was done to them before then is not
    /// shown by it.
    pub chained_later_to: Option<i64>,
    /// The first row that does not hold.
    pub fault: Option<Fault>,
}

/// Walks along the chain.
///
/// # Errors
/// When the file cannot be read; a row that cannot be is a fault of the chain.
pub async fn check(db: &SqlitePool, limits: Limits) -> Result<AuditCheck> {
    let mut tx = db.begin().await?;
    let gaps = super::prune::gaps(&mut tx).await?;
    let newest = super::newest(&mut tx).await?;
    let mut walk = Walk::new(gaps, limits.head);
    let walked = follow(&mut tx, &mut walk, limits.until).await?;
    let outcome = match walked {
        Walked::All => walk.end(newest).map(|()| CheckState::Whole),
        Walked::OutOfTime => Ok(CheckState::Unfinished),
        Walked::Against(fault) => Err(fault),
    };
    let (state, fault) = match outcome {
        Ok(state) => (state, None),
        Err(fault) => (CheckState::Broken, Some(fault)),
    };
    Ok(AuditCheck {
        at: Time::now(),
        state,
        rows: walk.rows,
        dropped: walk.dropped,
        head: walk.head().map(|head| head.to_string()),
        chained_later_to: walk.chained_later_to,
        fault,
    })
}

enum Walked {
    All,
    OutOfTime,
    Against(Fault),
}

async fn follow(
    db: &mut SqliteConnection,
    walk: &mut Walk,
    until: Option<Instant>,
) -> Result<Walked> {
    let sql = sqlx::AssertSqlSafe(format!("select {COLUMNS} from audit order by id"));
    let mut rows = sqlx::query(sql).fetch(db);
    while let Some(row) = rows.try_next().await? {
        let late = walk.rows.is_multiple_of(ROWS_BETWEEN_LOOKS)
            && until.is_some_and(|until| Instant::now() >= until);
        if late {
            return Ok(Walked::OutOfTime);
        }
        if let Err(fault) = found(&row).and_then(|row| walk.take(&row)) {
            return Ok(Walked::Against(fault));
        }
    }
    Ok(Walked::All)
}

/// A row, or that it holds what no row can.
fn found(row: &SqliteRow) -> Result<Found, Fault> {
    decode(row).map_err(|error| Fault {
        id: row.try_get("id").unwrap_or_default(),
        at: row.try_get("at").ok(),
        kind: FaultKind::Changed,
        text: format!("it cannot be read: {error}"),
    })
}

fn decode(row: &SqliteRow) -> Result<Found, sqlx::Error> {
    Ok(Found {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        actor: row.try_get("actor")?,
        actor_name: row.try_get("actor_name")?,
        via: row.try_get("via")?,
        action: row.try_get("action")?,
        subject_kind: row.try_get("subject_kind")?,
        subject: row.try_get("subject")?,
        owner: row.try_get("owner")?,
        outcome: row.try_get("outcome")?,
        address: row.try_get("address")?,
        request_id: row.try_get("request_id")?,
        times: row.try_get("times")?,
        prev: hash(row, "prev")?,
        hash: hash(row, "hash")?,
    })
}

/// Checks the chain of the inventory at `path`, which is opened for reading only; a server may be at it.
///
/// # Errors
/// When it cannot be read, or is older than the chain.
pub async fn check_file(path: &Path, head: Option<Link>) -> anyhow::Result<AuditCheck> {
    let shown = path.display();
    // A server that is at it has a log beside it. Without one nothing is to be made or left there.
    let unattended = !path.with_extension("db-wal").exists();
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(unattended)
        .create_if_missing(false);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .with_context(|| format!("open {shown} (are you root?)"))?;
    let chained: i64 =
        sqlx::query_scalar("select count(*) from pragma_table_info('audit') where name = 'hash'")
            .fetch_one(&pool)
            .await
            .with_context(|| format!("read {shown}"))?;
    anyhow::ensure!(
        chained == 1,
        "{shown} has no chain: it is no inventory of Berth's, or older than version 0010 of its schema"
    );
    let checked = check(&pool, Limits { head, until: None }).await;
    pool.close().await;
    checked.map_err(|error| anyhow::Error::from(error).context(format!("read {shown}")))
}
