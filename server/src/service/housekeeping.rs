//! What is done now and then: last uses written down, refused requests audited, old rows dropped,
//! memory that nothing uses any more given back.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::app::{App, Used};
use crate::error::Result;
use crate::inventory::audit::{self, prune::Keep};
use crate::inventory::{events, idempotency, operations, sessions, tokens, usage_days};
use crate::service::noise::Which;
use crate::service::{audit as audited, days, keys, people};

const PERIOD: Duration = Duration::from_secs(30);
/// How often memory is given back: a look through the heap, a millisecond or less.
const TRIM_PERIOD: Duration = Duration::from_secs(10);
/// Rows are dropped every this many periods.
const PRUNE_EVERY: u64 = 20;
/// The chain of the audit is checked every this many periods, first in the second.
const CHECK_EVERY: u64 = 120;
/// What waits to be counted is looked at so often.
const COUNT_PERIOD: Duration = Duration::from_secs(5);

/// Runs until the server stops.
pub async fn run(app: App) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut placed = false;
    for round in 0u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.stopping.cancelled() => break,
        }
        if !placed {
            match people::place_all(&app).await {
                Ok(()) => placed = true,
                Err(error) => tracing::warn!(error = %error, "not everybody has an id range yet"),
            }
        }
        let done = match round % PRUNE_EVERY {
            0 => prune(&app).await,
            _ => Ok(()),
        };
        if let Err(error) = done.and(flush(&app).await) {
            tracing::warn!(error = %error, "housekeeping failed; it will be tried again");
        }
        if round % CHECK_EVERY == 1
            && let Err(error) = audited::check(&app, audited::CHECK_ALL_LIMIT).await
        {
            tracing::warn!(error = %error, "the chain of the audit was not checked");
        }
    }
}

/// Ends accounts when their time has come, to the second, until the server stops.
pub async fn end_accounts(app: App) {
    let mut credentials = app.credentials();
    loop {
        credentials.mark_unchanged();
        // By the wall clock, which may be set: never longer than a period.
        let pause = match people::end_due(&app).await {
            Ok(next) => next.map_or(PERIOD, |at| at.until().min(PERIOD)),
            Err(error) => {
                tracing::warn!(error = %error, "an account was not ended; it will be tried again");
                PERIOD
            }
        };
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            _ = credentials.changed() => {}
        }
    }
}

/// Gives back memory that nothing uses any more, until the server stops.
pub async fn give_back_memory(app: App) {
    let mut ticks = interval(TRIM_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.stopping.cancelled() => return,
        }
        let done = tokio::task::spawn_blocking(berth_runtime::give_back_unused_memory).await;
        if let Err(error) = done {
            tracing::warn!(error = %error, "memory is not given back any more");
            return;
        }
    }
}

/// Writes down what is kept in memory until then.
///
/// # Errors
/// As the inventory's; last uses are lost then.
pub async fn flush(app: &App) -> Result<()> {
    let used = app.take_used();
    if used.is_empty() {
        return Ok(());
    }
    let mut write = app.inventory.observe().await?;
    for (used, at) in used {
        match used {
            Used::Session(id) => sessions::touch(write.db(), &id, at).await?,
            Used::Token(id) => tokens::touch(write.db(), &id, at).await?,
        }
    }
    write.commit().await
}

async fn prune(app: &App) -> Result<()> {
    let keep = &app.config.retention;
    let mut write = app.inventory.observe().await?;
    let db = write.db();
    sessions::prune(db).await?;
    events::prune(db, keep.events_days, keep.events_max).await?;
    operations::prune(db, keep.operations_days, keep.operations_max).await?;
    idempotency::prune(db, keep.idempotency_hours).await?;
    usage_days::prune(db, days::today() - i64::from(keep.usage_days)).await?;
    let first = days::quarter() - days::QUARTER_DAYS * usage_days::DAY_QUARTERS;
    usage_days::prune_quarters(db, first).await?;
    write.commit().await?;
    let kept = Keep { days: keep.audit_days, rows_max: keep.audit_max };
    audit::prune::prune(&app.inventory, kept).await?;
    keys::forget_ended(app).await
}

/// Audits requests that were refused. Bounded: what is the same is counted, a flood is written in one
/// commit per batch, and what does not fit into the queue is counted in the log.
pub async fn audit_refusals(app: App, mut refusals: tokio::sync::mpsc::Receiver<audit::Row>) {
    let mut batch = Vec::new();
    let mut ticks = interval(COUNT_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            count = refusals.recv_many(&mut batch, 256) => {
                if count == 0 {
                    return;
                }
                write_rows(&app, batch.drain(..).filter_map(|row| app.noise.admit(row)).collect())
                    .await;
            }
            _ = ticks.tick() => audit_counted(&app, Which::Over).await,
        }
    }
}

/// Audits what was counted.
pub async fn audit_counted(app: &App, which: Which) {
    write_rows(app, app.noise.take(which)).await;
}

async fn write_rows(app: &App, rows: Vec<audit::Row>) {
    let count = rows.len();
    if let Err(error) = try_write_rows(app, rows).await {
        tracing::warn!(error = %error, rows = count, "refused requests were not audited");
    }
}

async fn try_write_rows(app: &App, rows: Vec<audit::Row>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // What anybody can cause must not take the room that is kept for a full disk.
    if app.inventory.is_low() {
        let text = "the disk of the inventory is full";
        return Err(crate::error::Error::exhausted("disk.full", text));
    }
    let mut write = app.inventory.observe().await?;
    for row in rows {
        write.note(row);
    }
    write.commit().await
}
