//! What has happened to the objects that a caller sees, and who did what.

use super::{Listed, Page};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::inventory::audit::{self, AuditEntry};
use crate::inventory::events::{self, Event};

/// Events that one read of a stream takes at most.
const BATCH: u32 = 256;

/// Events, newest first; of one object with `subject`.
pub async fn list(
    app: &App,
    caller: &Caller,
    subject: Option<&str>,
    page: &Page,
) -> Result<Listed<Event>> {
    let before = number(page.after.as_deref())?;
    let rows =
        events::list_before(app.inventory.read(), caller.sees(), subject, before, page.rows())
            .await?;
    Ok(page.cut(rows, |event| event.number.to_string()))
}

/// Where a stream that was not opened before begins: after what is there now.
pub async fn newest(app: &App) -> Result<i64> {
    events::newest(app.inventory.read()).await
}

/// The next events after `after`, oldest first; may be none.
pub async fn after(app: &App, caller: &Caller, after: i64) -> Result<Vec<Event>> {
    events::list_after(app.inventory.read(), caller.sees(), after, BATCH).await
}

/// Changes whenever an event is added.
pub fn appended(app: &App) -> tokio::sync::watch::Receiver<u64> {
    app.inventory.appended()
}

/// Who did what, newest first; for operators and auditors.
pub async fn audit(app: &App, page: &Page) -> Result<Listed<AuditEntry>> {
    let before = number(page.after.as_deref())?;
    let rows = audit::list(app.inventory.read(), before, page.rows()).await?;
    Ok(page.cut(rows, |entry| entry.id.to_string()))
}

fn number(text: Option<&str>) -> Result<Option<i64>> {
    let parse = |text: &str| text.parse().map_err(|_| Error::field("?after", "no such page"));
    text.map(parse).transpose()
}
