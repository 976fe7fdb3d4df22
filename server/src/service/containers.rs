//! Containers: the verbs, and what the server remembers of the kernel between two looks.
//!
//! - What people ask for is committed before anything is done ([`actions`]); what the kernel does is
//!   read from the supervisor and only remembered here ([`Containers`]).
//! - Everything that acts on one container holds its lock, so that acts on it are serial; a stop does
//!   not hold it while it waits.
//! - An act once begun goes on when the caller hangs up: it runs on a task of its own.

pub mod actions;
pub mod activity;
pub mod create;
pub mod history;
pub mod output;
pub mod posture;
pub mod spec;
pub mod view;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::ContainerRecord;
use tokio::sync::{Notify, OwnedMutexGuard, watch};

use super::lifecycle::{self, Action, Status};
use super::{Listed, Page};
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Refusal, Result};
use crate::inventory::containers::{self, Container, Filter};

pub use view::{ContainerView, DetailView};

/// Rows that a list with a filter by state looks through at once.
const SCAN_ROWS: u32 = 500;
/// Containers that one page looks through at most.
pub const GLANCE_ROWS_MAX: u32 = 5000;
/// The longest wait for an end in one request.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(50);

/// What the server remembers of containers while it runs.
#[derive(Debug)]
pub struct Containers {
    observed: Mutex<HashMap<ContainerId, Arc<ContainerRecord>>>,
    changed: watch::Sender<u64>,
    locks: Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>,
    /// The run of each container whose monitor is listened to.
    watched: Mutex<HashMap<ContainerId, u64>>,
    /// Containers whose image is being pulled by this process.
    pulling: Mutex<HashSet<ContainerId>>,
    /// People whom the supervisor is known to know.
    people: Mutex<HashSet<PrincipalId>>,
    /// Something could not be looked at or brought further, for want of the supervisor or inventory.
    unsettled: Notify,
    /// One has begun to run, or its end is another.
    life: Notify,
}

/// Which containers are listed, beyond what the inventory can tell.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// In one of these states; all when empty.
    pub states: Vec<Status>,
    /// The rest.
    pub rows: Filter,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            observed: Mutex::default(),
            changed: watch::channel(0).0,
            locks: Mutex::default(),
            watched: Mutex::default(),
            pulling: Mutex::default(),
            people: Mutex::default(),
            unsettled: Notify::new(),
            life: Notify::new(),
        }
    }
}

impl Containers {
    /// What was last seen of a container.
    pub(crate) fn observed(&self, id: &ContainerId) -> Option<Arc<ContainerRecord>> {
        held(&self.observed).get(id).cloned()
    }

    /// Everything that runs, as last seen, in the order of ids.
    pub(crate) fn live(&self) -> Vec<Arc<ContainerRecord>> {
        let observed = held(&self.observed);
        let live = observed.values().filter(|record| record.live.is_some());
        let mut live: Vec<_> = live.cloned().collect();
        live.sort_by(|a, b| a.container.as_str().cmp(b.container.as_str()));
        live
    }

    /// Remembers what was seen. What is older than what is known (an earlier run, or a living one of
    /// a run that has ended) is left out: answers may overtake each other.
    pub(crate) fn observe(&self, record: ContainerRecord) {
        let mut observed = held(&self.observed);
        let stale = observed.get(&record.container).is_some_and(|known| {
            known.run > record.run
                || (known.run == record.run && known.exit.is_some() && record.exit.is_none())
        });
        if stale {
            return;
        }
        observed.insert(record.container.clone(), Arc::new(record));
        drop(observed);
        self.tell();
    }

    /// Forgets a container that is gone.
    pub(crate) fn forget(&self, id: &ContainerId) {
        held(&self.observed).remove(id);
        held(&self.watched).remove(id);
        held(&self.locks).remove(id);
        self.tell();
    }

    /// Changes whenever anything was observed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes everybody who waits for a container's state.
    pub(crate) fn tell(&self) {
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Has everything looked at again soon.
    pub(crate) fn note_unsettled(&self) {
        self.unsettled.notify_one();
    }

    /// Waits for [`Self::note_unsettled`]; one call before is enough.
    pub(crate) async fn unsettled(&self) {
        self.unsettled.notified().await;
    }

    /// A container has begun to run, or the end of one is another.
    pub(crate) fn note_life(&self) {
        self.life.notify_one();
    }

    /// Waits for [`Self::note_life`]; one call before is enough.
    pub(crate) async fn life_noted(&self) {
        self.life.notified().await;
    }

    /// The right to act on a container.
    pub(crate) async fn lock(&self, id: &ContainerId) -> OwnedMutexGuard<()> {
        let lock = held(&self.locks).entry(id.clone()).or_default().clone();
        lock.lock_owned().await
    }

    /// Whether the caller is the one to listen to the monitor of this run.
    pub(crate) fn begin_watch(&self, id: &ContainerId, run: u64) -> bool {
        let mut watched = held(&self.watched);
        let newer = watched.get(id).is_none_or(|known| *known < run);
        if newer {
            watched.insert(id.clone(), run);
        }
        newer
    }

    /// Nobody listens to the monitor of this run any more.
    pub(crate) fn end_watch(&self, id: &ContainerId, run: u64) {
        let mut watched = held(&self.watched);
        if watched.get(id) == Some(&run) {
            watched.remove(id);
        }
    }

    /// Whether the caller is the one to see to this container's image.
    pub(crate) fn begin_pull(&self, id: &ContainerId) -> bool {
        held(&self.pulling).insert(id.clone())
    }

    /// Nobody sees to this container's image any more.
    pub(crate) fn end_pull(&self, id: &ContainerId) {
        held(&self.pulling).remove(id);
    }

    fn knows_person(&self, person: PrincipalId) -> bool {
        held(&self.people).contains(&person)
    }

    fn note_person(&self, person: PrincipalId) {
        held(&self.people).insert(person);
    }

    /// Everybody's allowance has changed: each next start looks whether it is held.
    pub(super) fn forget_people(&self) {
        held(&self.people).clear();
    }

    fn forget_person(&self, person: PrincipalId) {
        held(&self.people).remove(&person);
    }
}

/// Containers, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: &ListFilter,
    page: &Page,
) -> Result<Listed<ContainerView>> {
    let mut rows = filter.rows.clone();
    rows.before = page.after.as_deref().map(position).transpose()?;
    let limit = if filter.states.is_empty() { page.rows() } else { SCAN_ROWS };
    let mut kept: Vec<(Container, ContainerView)> = Vec::new();
    loop {
        let whom = (caller.sees(), caller.principal);
        let batch = containers::list(app.inventory.read(), whom, &rows, limit).await?;
        let last = batch.len() < limit as usize;
        rows.before = batch.last().map(|row| (row.created_at, row.id.clone()));
        for row in batch {
            let observed = app.containers.observed(&row.id);
            let view = ContainerView::new(caller, &row, observed.as_deref())?.with_use(&app.idle);
            if filter.states.is_empty() || filter.states.contains(&view.status) {
                kept.push((row, view));
            }
        }
        if last || kept.len() >= page.rows() as usize {
            break;
        }
    }
    let listed = page.cut(kept, |(row, _)| format!("{} {}", row.created_at.0, row.id));
    Ok(Listed {
        items: listed.items.into_iter().map(|(_, view)| view).collect(),
        next: listed.next,
    })
}

/// Everything that the caller sees, newest first and at most [`GLANCE_ROWS_MAX`], without what is in
/// it: what a list needs to filter, sort and count.
pub async fn glance(app: &App, caller: &Caller) -> Result<Vec<ContainerView>> {
    let (db, me) = (app.inventory.read(), caller.principal);
    let rows = containers::light(db, caller.sees(), me, GLANCE_ROWS_MAX).await?;
    let view = |row: &Container| {
        ContainerView::summary(caller, row, app.containers.observed(&row.id).as_deref())
            .with_use(&app.idle)
    };
    Ok(rows.iter().map(view).collect())
}

/// One container with all that is known of it. `key` is its id, or its name among the caller's own.
pub async fn inspect(app: &App, caller: &Caller, key: &str) -> Result<DetailView> {
    let row = find(app, caller, key).await?;
    detail(app, caller, &row)
}

/// The request and the image made into one, for those who may see its content; none until the image is here.
pub async fn merged_spec(app: &App, caller: &Caller, key: &str) -> Result<Option<spec::Spec>> {
    let row = find(app, caller, key).await?;
    if !row.rights(caller).has(Right::Files) {
        return Ok(None);
    }
    view::spec(&row)
}

/// Waits until the container rests (has ended and is not about to be started again), or `limit` is
/// over; answers its state either way.
pub async fn wait(app: &App, caller: &Caller, key: &str, limit: Duration) -> Result<DetailView> {
    let id = find(app, caller, key).await?.id;
    let deadline = tokio::time::Instant::now() + limit.min(WAIT_MAX);
    let mut changes = app.containers.changes();
    loop {
        changes.mark_unchanged();
        let row = find(app, caller, id.as_str()).await?;
        let status = status_of(app, &row);
        let rests = matches!(status, Status::Created | Status::Exited | Status::Failed);
        if rests || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return detail(app, caller, &row);
        }
    }
}

/// The caller's view of `row` now.
pub(crate) fn detail(app: &App, caller: &Caller, row: &Container) -> Result<DetailView> {
    let observed = app.containers.observed(&row.id);
    let detail = DetailView::new(caller, row, observed.as_deref())?;
    Ok(DetailView { container: detail.container.clone().with_use(&app.idle), ..detail })
}

/// A container that the caller sees.
pub(crate) async fn find(app: &App, caller: &Caller, key: &str) -> Result<Container> {
    containers::find(app.inventory.read(), caller.sees(), caller.principal, key).await
}

/// A container that the caller sees and has `right` to.
///
/// # Errors
/// It is not there for them, or they may not.
pub(crate) async fn find_for(
    app: &App,
    caller: &Caller,
    key: &str,
    right: Right,
) -> Result<Container> {
    let row = find(app, caller, key).await?;
    row.rights(caller).need(right)?;
    Ok(row)
}

/// Whether the caller has `right` to a container.
///
/// # Errors
/// It is not there for them, or they may not.
pub async fn check(app: &App, caller: &Caller, key: &str, right: Right) -> Result<()> {
    find_for(app, caller, key, right).await.map(drop)
}

/// A container that the caller may start, stop and limit.
async fn find_to_change(app: &App, caller: &Caller, key: &str) -> Result<Container> {
    find_for(app, caller, key, Right::Manage).await
}

/// What the container is doing.
pub(crate) fn status_of(app: &App, row: &Container) -> Status {
    view::status(row, app.containers.observed(&row.id).as_deref())
}

/// Whether `action` may follow now, by the one table.
fn allow(app: &App, row: &Container, action: Action) -> Result<Status> {
    let status = status_of(app, row);
    lifecycle::next(status, action)
        .map_err(|no| Error::Conflict(Refusal::new(no.code(), no.to_string())))
}

/// Asks the supervisor what the container is doing, and remembers it.
pub(crate) async fn look(app: &App, id: &ContainerId) -> Result<Option<Arc<ContainerRecord>>> {
    match app.runtime.container_state(id).await {
        Ok(record) => {
            app.containers.observe(record);
            Ok(app.containers.observed(id))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes sure that the supervisor knows the owner and has ids for them.
async fn ensure_person(app: &App, row: &Container) -> Result<()> {
    ensure_known(app, row.owner, row.group).await
}

/// The same of whoever owns something.
pub(crate) async fn ensure_known(app: &App, owner: PrincipalId, group: PrincipalId) -> Result<()> {
    if !app.containers.knows_person(owner) {
        // Where their total is not held yet, the next start looks again.
        if super::people::place(app, owner, group).await? {
            app.containers.note_person(owner);
        }
    }
    Ok(())
}

fn position(text: &str) -> Result<(Time, ContainerId)> {
    let wrong = || Error::field("?after", "no such page");
    let (at, id) = text.split_once(' ').ok_or_else(wrong)?;
    let at = at.parse().map_err(|_| wrong())?;
    Ok((Time(at), id.parse().map_err(|_| wrong())?))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use berth_runtime::record::Status as Seen;

    use super::view::tests::seen;
    use super::*;

    #[test]
    fn older_answers_do_not_replace_newer_ones() {
        let memory = Containers::default();
        let id = seen(1, Seen::Running).container;
        memory.observe(seen(1, Seen::Running));
        memory.observe(seen(1, Seen::Stopped));
        memory.observe(seen(1, Seen::Running));
        assert_eq!(memory.observed(&id).map(|record| record.status), Some(Seen::Stopped));
        memory.observe(seen(2, Seen::Running));
        memory.observe(seen(1, Seen::Stopped));
        assert_eq!(memory.observed(&id).map(|record| record.run), Some(2));
    }

    #[test]
    fn each_run_has_one_listener() {
        let memory = Containers::default();
        let id = seen(1, Seen::Running).container;
        assert!(memory.begin_watch(&id, 1));
        assert!(!memory.begin_watch(&id, 1));
        assert!(memory.begin_watch(&id, 2));
        memory.end_watch(&id, 1);
        assert!(!memory.begin_watch(&id, 2));
        memory.end_watch(&id, 2);
        assert!(memory.begin_watch(&id, 2));
    }
}
