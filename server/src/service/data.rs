//! What people may keep on disk: decided with their allowance, held by a file system of their own that the
//! supervisor makes. More is given at once. A first bound, a smaller one, and none again are copies of all that they
//! keep, made while nothing of theirs runs: until then what was before holds, and why is told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_runtime::id::PrincipalId;
use berth_runtime::wire::{DataWay, PersonRange};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};
use utoipa::ToSchema;

use super::containers::view::bytes;
use super::{allowances, machine};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::inventory::people;

/// The least: a file system takes a part of it.
pub(super) const BYTES_MIN: u64 = 32 << 20;
/// Between two looks whether somebody's can be moved now.
const PERIOD: Duration = Duration::from_secs(20);
/// Before what has failed for another reason than that something runs is tried again.
const LATER: Duration = Duration::from_secs(600);
/// Somebody's first start waits as long for their own file system.
const FIRST_LIMIT: Duration = Duration::from_secs(10);

/// What somebody keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DataView {
    /// How it is held.
    pub way: HeldBy,
    /// Bytes at most, with what the file system itself takes; null is no bound.
    pub limit_bytes: Option<u64>,
    /// Bytes in use; null where nothing bounds them, since nobody counts them there.
    pub used_bytes: Option<u64>,
    /// What they are to have instead, as soon as it can be.
    pub pending: Option<PendingData>,
}

/// What holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// Nothing: it lies in the store that all share.
    Shared,
    /// A file system of their own.
    Image,
}

/// A bound that does not hold yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PendingData {
    /// Bytes; null is no bound.
    pub limit_bytes: Option<u64>,
    /// What it waits for, in a sentence.
    pub reason: String,
}

/// What is to be moved, and what was in the way. In memory: what is wanted stands in the inventory.
#[derive(Default)]
pub struct Moves {
    wake: Notify,
    failed: Mutex<HashMap<PrincipalId, Tried>>,
}

/// A move that was refused.
#[derive(Debug, Clone)]
struct Tried {
    reason: String,
    /// When it is tried again.
    next: Instant,
}

impl Moves {
    /// Has everybody's looked at now, whatever has failed before.
    pub(super) fn wake(&self) {
        self.failed().clear();
        self.wake.notify_one();
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<PrincipalId, Tried>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self, person: PrincipalId) -> bool {
        self.failed().get(&person).is_some_and(|tried| tried.next > Instant::now())
    }

    fn note(&self, person: PrincipalId, error: &Error) {
        let waits = if error.code() == "data.busy" { Duration::ZERO } else { LATER };
        let tried = Tried { reason: error.to_string(), next: Instant::now() + waits };
        self.failed().insert(person, tried);
    }
}

/// What a person keeps: people see their own, operators and auditors everybody's.
///
/// # Errors
/// There is no such person, or their file system cannot be used.
pub async fn of_person(app: &App, caller: &Caller, id: PrincipalId) -> Result<DataView> {
    let person = people::find(app.inventory.read(), caller.sees(), id).await?;
    let range = app.runtime.person_add(id, person.group).await?;
    // Each look is a process: only a file system of their own has something to say.
    let seen = match range.data_bytes {
        Some(_) => Some(app.runtime.person_data_use(id).await?),
        None => None,
    };
    let wanted = allowances::found(app, id).await?.allowance.data_bytes;
    let pending = (range.data_bytes != wanted).then(|| PendingData {
        limit_bytes: wanted,
        reason: app.data.failed().get(&id).map_or_else(
            || "what they keep is being moved".to_owned(),
            |tried| tried.reason.clone(),
        ),
    });
    let (mut way, mut limit_bytes, mut used_bytes) = (HeldBy::Shared, None, None);
    if let Some(seen) = seen {
        way = match seen.way {
            DataWay::Shared => HeldBy::Shared,
            DataWay::Image => HeldBy::Image,
        };
        (limit_bytes, used_bytes) = (seen.limit_bytes, seen.used_bytes);
    }
    Ok(DataView { way, limit_bytes, used_bytes, pending })
}

/// What those keep who may keep more than `most`: nobody else can be over it.
pub(super) async fn of_more(app: &App, most: u64) -> Result<HashMap<PrincipalId, u64>> {
    let mut kept = HashMap::new();
    for range in app.runtime.people().await? {
        if range.data_bytes > Some(most)
            && let Some(used) = app.runtime.person_data_use(range.person).await?.used_bytes
        {
            kept.insert(range.person, used);
        }
    }
    Ok(kept)
}

/// Refuses to promise more than the disk has: what each of these people has, and what they are to have.
///
/// # Errors
/// The disk has less than they would have more.
pub(super) fn check_room(app: &App, moves: &[(Option<u64>, Option<u64>)]) -> Result<()> {
    let more = |(now, then): &(Option<u64>, Option<u64>)| {
        then.unwrap_or(0).saturating_sub(now.unwrap_or(0))
    };
    let more: u64 = moves.iter().map(more).fold(0, u64::saturating_add);
    let disk = machine::disk(&app.config.store_dir());
    let disk = disk.map_err(|source| Error::broken("look at the disk", source))?;
    if more <= disk.available_bytes {
        return Ok(());
    }
    let text = format!(
        "{} more would be set aside, and the disk has {}: choose less, or give less to another",
        bytes(more),
        bytes(disk.available_bytes)
    );
    Err(Error::exhausted("disk.room", text))
}

/// Gives somebody more at once, whatever of theirs runs, where the host lets a file system grow while it is mounted.
/// All else is left to be moved.
///
/// # Errors
/// The disk cannot set as much aside.
pub(super) async fn grow(app: &App, range: &PersonRange, wanted: Option<u64>) -> Result<()> {
    check_room(app, &[(range.data_bytes, wanted)])?;
    let Some(now) = range.data_bytes.filter(|now| wanted > Some(*now)) else { return Ok(()) };
    match app.runtime.person_data(range.person, wanted).await.map_err(Error::from) {
        Ok(grown) => {
            tracing::info!(person = %range.person, from = now, to = grown.limit_bytes, "data is grown");
            Ok(())
        }
        Err(error) if error.code() == "data.busy" => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives somebody who has nothing yet their file system before they make something, so that nothing has to be moved
/// later. What is in the way stays to be tried again.
pub(super) async fn first(app: &App, range: &PersonRange) -> Result<()> {
    let wanted = allowances::found(app, range.person).await?.allowance.data_bytes;
    let runs = || app.containers.live().iter().any(|record| record.person == range.person);
    if range.data_bytes.is_some() || wanted.is_none() || app.data.rests(range.person) || runs() {
        return Ok(());
    }
    match timeout(FIRST_LIMIT, app.runtime.person_data(range.person, wanted)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => app.data.note(range.person, &error.into()),
        // It goes on, and what needs their data waits for it.
        Err(_) => tracing::info!(person = %range.person, "data is moved for long"),
    }
    Ok(())
}

/// Moves what can be moved, until the server stops.
pub async fn run(app: App) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.data.wake.notified() => {}
            () = app.stopping.cancelled() => return,
        }
        tokio::select! {
            done = settle(&app) => if let Err(error) = done {
                tracing::warn!(error = %error, "what people may keep on disk was not looked at");
            },
            () = app.stopping.cancelled() => return,
        }
    }
}

/// One after the other: each is a copy of much.
async fn settle(app: &App) -> Result<()> {
    let there = people::all_ids(app.inventory.read()).await?;
    for range in app.runtime.people().await? {
        let mut wanted = None;
        // Who is gone keeps nothing, and nothing is set aside for them.
        if there.iter().any(|(person, _)| *person == range.person) {
            wanted = allowances::found(app, range.person).await?.allowance.data_bytes;
        }
        if range.data_bytes == wanted {
            app.data.failed().remove(&range.person);
            continue;
        }
        if app.data.rests(range.person) {
            continue;
        }
        match app.runtime.person_data(range.person, wanted).await {
            Ok(_) => {
                app.data.failed().remove(&range.person);
                tracing::info!(person = %range.person, bytes = wanted, "data is moved");
            }
            Err(error) => app.data.note(range.person, &error.into()),
        }
    }
    Ok(())
}
