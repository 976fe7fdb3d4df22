//! The audit as operators and auditors see it: who did what, the same as a file, and whether its chain holds.

use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio::sync::Mutex;

use super::{Listed, Page};
use crate::app::App;
use crate::error::{Error, Result};
use crate::inventory::audit::verify::{self, AuditCheck, CheckState, Limits};
use crate::inventory::audit::{self, AuditEntry};
use crate::service::events::{EXPORT_BATCH, EXPORT_ROWS_MAX, number, too_many};

pub use crate::inventory::audit::Filter;

/// What a check of the chain may take that somebody waits for; what is left then is not looked at.
pub const CHECK_LIMIT: Duration = Duration::from_secs(20);
/// What one may take that nobody waits for.
pub const CHECK_ALL_LIMIT: Duration = Duration::from_secs(600);
/// A check is good for this long: one walks over every row.
const CHECK_LIFE: Duration = Duration::from_secs(10);

/// The newest check.
#[derive(Default)]
pub struct Checks {
    one_at_a_time: Mutex<()>,
    newest: std::sync::Mutex<Option<(Instant, AuditCheck)>>,
}

impl Checks {
    /// What the newest check has found; none since the server's start is `None`.
    pub fn newest(&self) -> Option<AuditCheck> {
        self.kept().as_ref().map(|(_, check)| check.clone())
    }

    fn fresh(&self) -> Option<AuditCheck> {
        let kept = self.kept();
        let fresh = kept.as_ref().filter(|(at, _)| at.elapsed() < CHECK_LIFE);
        fresh.map(|(_, check)| check.clone())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(Instant, AuditCheck)>> {
        self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Who did what, newest first.
pub async fn list(app: &App, filter: &Filter, page: &Page) -> Result<Listed<AuditEntry>> {
    let before = number(page.after.as_deref())?;
    let rows = audit::list(app.inventory.read(), filter, before, page.rows()).await?;
    Ok(page.cut(rows, |entry| entry.id.to_string()))
}

/// All rows that fit and are there now, newest first, in batches.
///
/// # Errors
/// When more fit than are given out at once. In the stream: when some were dropped meanwhile.
pub async fn export(
    app: &App,
    filter: Filter,
) -> Result<impl Stream<Item = Result<Vec<AuditEntry>>> + Send + 'static + use<>> {
    // Rows never change, so that those up to the newest of now are what a snapshot would show.
    let (end, count) = audit::extent(app.inventory.read(), &filter, EXPORT_ROWS_MAX + 1).await?;
    if count > EXPORT_ROWS_MAX {
        return Err(too_many());
    }
    let app = app.clone();
    Ok(async_stream::try_stream! {
        let (mut before, mut left) = (end + 1, count as usize);
        while left > 0 {
            let rows =
                audit::list(app.inventory.read(), &filter, Some(before), EXPORT_BATCH).await?;
            before = rows.last().ok_or_else(dropped)?.id;
            left = left.saturating_sub(rows.len());
            yield rows;
        }
    })
}

/// Whether every row holds what was written, in its place. One check is made at a time: while it
/// is under way, others are told what the one before has found. It reads one snapshot and keeps nobody from
/// writing.
///
/// # Errors
/// As the inventory's.
pub async fn check(app: &App, limit: Duration) -> Result<AuditCheck> {
    let checks = &app.audit_checks;
    let _one = match (checks.one_at_a_time.try_lock(), checks.newest()) {
        (Ok(one), _) => one,
        (Err(_under_way), Some(newest)) => return Ok(newest),
        (Err(_under_way), None) => checks.one_at_a_time.lock().await,
    };
    if let Some(check) = checks.fresh() {
        return Ok(check);
    }
    let until = Some(Instant::now() + limit);
    let check = verify::check(app.inventory.read(), Limits { head: None, until }).await?;
    if let (CheckState::Broken, Some(fault)) = (check.state, &check.fault) {
        tracing::error!(row = fault.id, "the chain of the audit is broken: {}", fault.text);
    }
    *checks.kept() = Some((Instant::now(), check.clone()));
    Ok(check)
}

fn dropped() -> Error {
    Error::unavailable("inventory.busy", "rows were dropped while they were written; ask again")
}
