//! Long work that outlives its request: progress that can be followed, a cancel, a kept result.
//!
//! How to run one, in a service:
//! ```ignore
//! let id = keys::random_id()?;
//! let mut write = app.inventory.change(&caller.actor, "image.pull").await?;
//! operations::insert(&mut write, &NewOperation { id: &id, owner, kind: "image.pull", … }).await?;
//! write.commit().await?;
//! app.operations.spawn(app, id, |handle| async move {
//!     handle.progress(json!({"done_bytes": 5}));      // as often as you like: memory only
//!     // `handle.cancelled()` is a future; what a cancelled work returns does not matter
//!     Ok(json!({"image": "…"}))
//! });
//! ```
//! An operation that was running when the server died is marked interrupted at the next start.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Listed, Page};
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::operations::{self, End, Filter, Operation, OperationState};

pub use crate::inventory::operations::insert;

const IDLE_TRIES_MAX: u32 = 100;
const IDLE_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The operations going on.
#[derive(Default)]
pub struct Operations {
    live: Arc<Mutex<HashMap<String, Live>>>,
}

#[derive(Clone)]
struct Live {
    progress: watch::Receiver<Value>,
    cancel: CancellationToken,
    wished: Arc<std::sync::atomic::AtomicBool>,
}

/// What the work holds of its operation.
pub struct Handle {
    progress: watch::Sender<Value>,
    cancel: CancellationToken,
}

impl Handle {
    /// Says how far the work is.
    pub fn progress(&self, value: Value) {
        self.progress.send_replace(value);
    }

    /// Ends when the work is to be cancelled (or the server stops).
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }
}

impl Operations {
    /// Runs the work of an operation whose row has been committed.
    pub fn spawn<W, F>(&self, app: &App, id: String, work: W)
    where
        W: FnOnce(Handle) -> F + Send + 'static,
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(json!({}));
        let cancel = app.stopping.child_token();
        let wished = Arc::default();
        let live = Live { progress: receiver, cancel: cancel.clone(), wished };
        self.lock().insert(id.clone(), live.clone());
        let app = app.clone();
        tokio::spawn(async move {
            let handle = Handle { progress: sender, cancel };
            // A task of its own, so that a panic in the work ends the operation too.
            let result = tokio::spawn(work(handle)).await;
            let result = result.unwrap_or_else(|error| Err(Error::broken("run the work", error)));
            let end = live.end(&app, result);
            if let Err(error) = finish(&app, &id, &end).await {
                tracing::error!(operation = %id, error = %error, "an operation's end was not kept");
            }
            // Followers see the end of the channel after the end is on disk.
            app.operations.lock().remove(&id);
        });
    }

    /// Ends when nothing goes on any more, after the server was told to stop; not later than a few
    /// seconds.
    pub async fn idle(&self) {
        for _ in 0..IDLE_TRIES_MAX {
            if self.lock().is_empty() {
                return;
            }
            tokio::time::sleep(IDLE_PAUSE).await;
        }
        tracing::warn!("some long work did not end in time; it is marked at the next start");
    }

    /// Whether an operation's work goes on.
    pub fn is_running(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Option<Live> {
        self.lock().get(id).cloned()
    }
}

impl Live {
    fn end(&self, app: &App, result: Result<Value>) -> End {
        use std::sync::atomic::Ordering;
        let progress = self.progress.borrow().clone();
        let (state, result, failure) = match result {
            Ok(value) => (OperationState::Succeeded, Some(value), None),
            Err(_) if self.wished.load(Ordering::Relaxed) => {
                (OperationState::Cancelled, None, None)
            }
            Err(_) if app.stopping.is_cancelled() => (OperationState::Interrupted, None, None),
            Err(error) => {
                if let Error::Broken { .. } = error {
                    let error = anyhow::Error::from(error);
                    tracing::error!(error = format!("{error:#}"), "long work failed");
                    let failure = Error::defect("").to_failure();
                    (OperationState::Failed, None, serde_json::to_value(failure).ok())
                } else {
                    let failure = error.to_failure();
                    (OperationState::Failed, None, serde_json::to_value(failure).ok())
                }
            }
        };
        End { state, progress, result, failure }
    }
}

async fn finish(app: &App, id: &str, end: &End) -> Result<()> {
    let mut write = app.inventory.observe().await?;
    operations::end(write.db(), id, end).await?;
    write.commit().await
}

/// Marks what was running when the server stopped; at start, before anything runs.
pub async fn interrupt_all(app: &App) -> Result<u64> {
    let mut write = app.inventory.record().await?;
    let count = operations::interrupt_all(write.db()).await?;
    write.commit().await?;
    Ok(count)
}

/// One operation, with its progress now.
pub async fn find(app: &App, caller: &Caller, id: &str) -> Result<Operation> {
    let row = operations::find(app.inventory.read(), caller.sees(), id).await?;
    Ok(with_progress(app, row))
}

/// Operations, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    mut filter: Filter,
    page: &Page,
) -> Result<Listed<Operation>> {
    filter.before = match page.after.as_deref() {
        Some(after) => Some(position(after)?),
        None => None,
    };
    let rows = operations::list(app.inventory.read(), caller.sees(), &filter, page.rows()).await?;
    let mut listed = page.cut(rows, |row| format!("{} {}", row.created_at.0, row.id));
    listed.items = listed.items.into_iter().map(|row| with_progress(app, row)).collect();
    Ok(listed)
}

/// Asks the work to end. Answers at once; the operation's state tells when it has.
///
/// # Errors
/// When it is not running any more.
pub async fn cancel(app: &App, caller: &Caller, id: &str) -> Result<Operation> {
    let row = operations::find(app.inventory.read(), caller.changes(), id).await?;
    let Some(live) = app.operations.get(id) else {
        return Err(Error::conflict("operation.ended", "the operation has ended already"));
    };
    let mut write = app.inventory.change(&caller.actor, "operation.cancel").await?;
    write.subject("operation", id, row.owner);
    write.commit().await?;
    live.wished.store(true, std::sync::atomic::Ordering::Relaxed);
    live.cancel.cancel();
    Ok(with_progress(app, row))
}

/// Follows an operation: each call waits for news and returns the operation; `None` after its end.
pub struct Follow {
    live: Option<Live>,
    first: bool,
    id: String,
}

/// Begins to follow.
///
/// # Errors
/// When the caller sees no such operation.
pub async fn follow(app: &App, caller: &Caller, id: &str) -> Result<Follow> {
    operations::find(app.inventory.read(), caller.sees(), id).await?;
    Ok(Follow { live: app.operations.get(id), first: true, id: id.to_owned() })
}

impl Follow {
    /// The operation once there is news.
    ///
    /// # Errors
    /// When it is gone or the inventory fails.
    pub async fn next(&mut self, app: &App, caller: &Caller) -> Result<Option<Operation>> {
        if self.first {
            self.first = false;
            return find(app, caller, &self.id).await.map(Some);
        }
        let Some(live) = &mut self.live else { return Ok(None) };
        // Followers get ten figures a second at most, however fast the work counts.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if live.progress.changed().await.is_err() {
            self.live = None;
            while app.operations.get(&self.id).is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        find(app, caller, &self.id).await.map(Some)
    }
}

fn with_progress(app: &App, mut row: Operation) -> Operation {
    if row.state == OperationState::Running
        && let Some(live) = app.operations.get(&row.id)
    {
        row.progress = live.progress.borrow().clone();
    }
    row
}

fn position(text: &str) -> Result<(Time, String)> {
    let (at, id) = text.split_once(' ').ok_or_else(|| Error::field("?after", "no such page"))?;
    let at = at.parse().map_err(|_| Error::field("?after", "no such page"))?;
    Ok((Time(at), id.to_owned()))
}
