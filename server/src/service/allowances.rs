//! What all that runs for a person may use together: decided by operators, held by the kernel in the
//! cgroup above the person's containers. These may have more than that between them; the sum has not.
//!
//! The kernel is asked first, and what it has taken is written down: a change that it refuses is none.
//! Should the server end between the two, the row still says what was before, and [`hold`] makes the
//! kernel agree with it the next time that it looks.

use berth_runtime::id::PrincipalId;
use berth_runtime::wire::{NET_BYTES_MIN, PersonRange, RATE_BYTES_MAX, RATE_BYTES_MIN};
use serde::Serialize;
use utoipa::ToSchema;

use super::containers::view::{self, HeldLimit};
use super::{data, idle, lifetimes};
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::allowances::{self, Allowance, Found};
use crate::inventory::asks::{self, Extra};
use crate::inventory::people;

/// The least memory of a person: a container, its monitor, and what the kernel counts for them.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// The least of images: nothing is smaller that runs.
const IMAGES_BYTES_MIN: u64 = 1 << 20;
/// What nobody has more of.
const BYTES_MAX: u64 = 1 << 42;
const CPU_MILLIS: std::ops::RangeInclusive<u64> = 10..=1_024_000;
const PIDS: std::ops::RangeInclusive<u64> = 8..=4_194_304;

/// What applies to a person.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AllowanceView {
    /// Whether it is theirs alone; else it is everybody's.
    pub own: bool,
    /// What it says.
    #[serde(flatten)]
    pub allowance: Allowance,
    /// What operators have granted for a time; it holds on top of that.
    pub extras: Vec<Extra>,
}

/// A change, and what the kernel says to it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AllowanceSet {
    /// What applies now.
    #[serde(flatten)]
    pub view: AllowanceView,
    /// Each bound as the kernel holds it; none while nothing of theirs runs.
    pub held: Vec<HeldLimit>,
}

/// Everybody's default, and to whom it could not be given.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DefaultSet {
    /// What applies to all who have none of their own.
    #[serde(flatten)]
    pub allowance: Allowance,
    /// Those who use more memory now than it allows. They keep what they had until they use less and
    /// start something.
    pub over: Vec<String>,
}

/// What applies to a person: people see their own, operators and auditors everybody's.
pub async fn of_person(app: &App, caller: &Caller, id: PrincipalId) -> Result<AllowanceView> {
    people::find(app.inventory.read(), caller.sees(), id).await?;
    let mut db = app.inventory.read().acquire().await?;
    let Found { own, allowance } = allowances::base(&mut db, id).await?;
    let extras = asks::extras_of(&mut db, id, Time::now()).await?;
    Ok(AllowanceView { own, allowance, extras })
}

/// What was granted to a person for a time, and goes on.
async fn extras(app: &App, id: PrincipalId) -> Result<Vec<Extra>> {
    let mut db = app.inventory.read().acquire().await?;
    asks::extras_of(&mut db, id, Time::now()).await
}

/// What holds for a person now, with what was granted for a time.
pub async fn found(app: &App, id: PrincipalId) -> Result<Found> {
    let mut db = app.inventory.read().acquire().await?;
    allowances::of(&mut db, id).await
}

/// What applies to everybody who has none of their own.
pub async fn default(app: &App) -> Result<Allowance> {
    allowances::default(app.inventory.read()).await
}

/// Gives a person an allowance of their own.
///
/// # Errors
/// More memory of theirs is in use than it allows; then what was before stays.
pub async fn set(
    app: &App,
    caller: &Caller,
    id: PrincipalId,
    allowance: Allowance,
) -> Result<AllowanceSet> {
    check(&allowance)?;
    let _one = app.allowances.lock().await;
    let person = people::find(app.inventory.read(), caller.changes(), id).await?;
    let extras = extras(app, id).await?;
    let holds = allowance.with_extras(&extras);
    let range = app.runtime.person_add(id, person.group).await?;
    data::grow(app, &range, holds.data_bytes).await?;
    let held = view::held(&app.runtime.person_total(id, holds.total()).await?);
    let mut write = app.inventory.change(&caller.actor, "person.allowance").await?;
    write.subject("person", id, id);
    allowances::set(write.db(), id, &allowance).await?;
    lifetimes::bound(write.db()).await?;
    write.commit().await?;
    app.containers.note_life();
    app.data.wake();
    Ok(AllowanceSet { view: AllowanceView { own: true, allowance, extras }, held })
}

/// Takes a person's own allowance away: what applies to everybody applies to them again.
pub async fn reset(app: &App, caller: &Caller, id: PrincipalId) -> Result<AllowanceSet> {
    let _one = app.allowances.lock().await;
    let person = people::find(app.inventory.read(), caller.changes(), id).await?;
    let allowance = default(app).await?;
    let extras = extras(app, id).await?;
    let holds = allowance.with_extras(&extras);
    let range = app.runtime.person_add(id, person.group).await?;
    data::grow(app, &range, holds.data_bytes).await?;
    let held = view::held(&app.runtime.person_total(id, holds.total()).await?);
    let mut write = app.inventory.change(&caller.actor, "person.allowance-default").await?;
    write.subject("person", id, id);
    allowances::remove(write.db(), id).await?;
    lifetimes::bound(write.db()).await?;
    write.commit().await?;
    app.containers.note_life();
    app.data.wake();
    Ok(AllowanceSet { view: AllowanceView { own: false, allowance, extras }, held })
}

/// Changes what applies to everybody who has none of their own.
pub async fn set_default(app: &App, caller: &Caller, allowance: Allowance) -> Result<DefaultSet> {
    check(&allowance)?;
    let _one = app.allowances.lock().await;
    let known = app.runtime.people().await?;
    let own = allowances::all(app.inventory.read()).await?;
    let there = people::all_ids(app.inventory.read()).await?;
    let is_there = |id| there.iter().any(|(person, _)| *person == id);
    let moved =
        known.iter().filter(|range| is_there(range.person) && !own.contains_key(&range.person));
    let moved: Vec<_> = moved.map(|range| (range.data_bytes, allowance.data_bytes)).collect();
    data::check_room(app, &moved)?;
    let mut write = app.inventory.change(&caller.actor, "allowance.default").await?;
    write.subject("allowance", "default", PrincipalId::SYSTEM);
    allowances::set(write.db(), PrincipalId::SYSTEM, &allowance).await?;
    lifetimes::bound(write.db()).await?;
    write.commit().await?;
    app.containers.note_life();
    app.containers.forget_people();
    app.data.wake();
    let mut over = Vec::new();
    for range in known {
        if let Err(error) = hold(app, &range).await {
            let person = people::find(app.inventory.read(), caller.sees(), range.person).await;
            tracing::warn!(person = %range.person, error = %error, "a total is not held yet");
            over.push(person.map_or_else(|_| range.person.to_string(), |person| person.name));
        }
    }
    over.sort();
    Ok(DefaultSet { allowance, over })
}

/// Makes the kernel's total of a person, and that of their group, what the inventory says, where it is
/// another.
pub async fn hold(app: &App, range: &PersonRange) -> Result<()> {
    let mut db = app.inventory.read().acquire().await?;
    let group = allowances::of_group(&mut db, range.group).await?.allowance.total();
    drop(db);
    if range.group_total != group {
        app.runtime.group_total(range.group, group).await?;
    }
    let wanted = found(app, range.person).await?.allowance.total();
    if range.total != wanted {
        app.runtime.person_total(range.person, wanted).await?;
    }
    Ok(())
}

pub(super) fn check(allowance: &Allowance) -> Result<()> {
    let within = |pointer: &str, value: Option<u64>, bounds: std::ops::RangeInclusive<u64>| {
        let (least, most) = (*bounds.start(), *bounds.end());
        match value {
            Some(value) if !bounds.contains(&value) => {
                Err(Error::field(pointer, format!("{value} is not from {least} to {most}")))
            }
            _ => Ok(()),
        }
    };
    within("/cpu_millis", allowance.cpu_millis.map(u64::from), CPU_MILLIS)?;
    within("/cpu_weight", Some(allowance.cpu_weight.into()), 1..=10_000)?;
    within("/memory_bytes", allowance.memory_bytes, MEMORY_BYTES_MIN..=BYTES_MAX)?;
    within("/swap_bytes", allowance.swap_bytes, 0..=BYTES_MAX)?;
    within("/pids", allowance.pids.map(u64::from), PIDS)?;
    within("/containers_max", allowance.containers_max.map(u64::from), 0..=100_000)?;
    within("/ports_max", allowance.ports_max.map(u64::from), 0..=65_535)?;
    within("/images_max", allowance.images_max.map(u64::from), 0..=100_000)?;
    within("/images_bytes", allowance.images_bytes, IMAGES_BYTES_MIN..=BYTES_MAX)?;
    within("/data_bytes", allowance.data_bytes, data::BYTES_MIN..=BYTES_MAX)?;
    within("/io_weight", allowance.io_weight.map(u64::from), 1..=10_000)?;
    let rates = RATE_BYTES_MIN..=RATE_BYTES_MAX;
    within("/io_read_bytes_per_sec", allowance.io_read_bytes_per_sec, rates.clone())?;
    within("/io_write_bytes_per_sec", allowance.io_write_bytes_per_sec, rates)?;
    within("/net_bytes_per_sec", allowance.net_bytes_per_sec, NET_BYTES_MIN..=RATE_BYTES_MAX)?;
    let idle = u64::from(idle::SECS_MIN)..=u64::from(idle::SECS_MAX);
    within("/idle_secs", allowance.idle_secs.map(u64::from), idle)?;
    let lives = u64::from(lifetimes::SECS_MIN)..=u64::from(lifetimes::SECS_MAX);
    within("/lifetime_secs", allowance.lifetime_secs.map(u64::from), lives.clone())?;
    let usual = allowance.lifetime_default_secs;
    within("/lifetime_default_secs", usual.map(u64::from), lives)?;
    match (usual, allowance.lifetime_secs) {
        (Some(usual), Some(most)) if usual > most => {
            let text = format!("{usual} is more than the {most} of lifetime_secs");
            Err(Error::field("/lifetime_default_secs", text))
        }
        _ => Ok(()),
    }
}
