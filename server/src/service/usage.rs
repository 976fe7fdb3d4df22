//! What people use now beside what they may, and the machine under it: one pass over the kernel's
//! files, two or three queries, nothing asked of the supervisor.
//!
//! - Memory, swap and processes are sums over the containers that run, so that they stand beside the
//!   sums of those containers' limits. (The person's own cgroup also holds file cache that ended
//!   containers have left, which no limit of a running one speaks of.)
//! - Processor time is read from the person's cgroup, whose counter only grows: a container that ends
//!   between two looks cannot make it fall.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_runtime::id::PrincipalId;
use berth_runtime::record::{CgroupPaths, ContainerRecord};
use serde::Serialize;
use utoipa::ToSchema;

use super::containers::view::OwnerView;
use super::machine::{self, Disk, Load, Machine, MachineMemory, Pressure};
use super::stats;
use crate::app::App;
use crate::auth::{Caller, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::allowances::{self, Allowance};
use crate::inventory::usage::{self as rows, Held, Limited};
use crate::inventory::{asks, people};

/// Looks closer together than this say little, so the rate of before is kept.
const APART: Duration = Duration::from_millis(400);
/// An older look is none: its rate would be of another time.
const OLD: Duration = Duration::from_secs(30);
/// Between two looks when nobody has looked before.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(120);
/// People in one answer, those with the most memory first.
pub const PEOPLE_MAX: usize = 500;

/// What somebody uses now, and may.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Usage {
    /// When it was looked at.
    pub at: Time,
    /// Containers.
    pub containers: ContainerCount,
    /// The processor.
    pub cpu: CpuShare,
    /// Memory and swap.
    pub memory: MemoryShare,
    /// Processes and threads.
    pub pids: PidShare,
    /// Images.
    pub images: ImageShare,
    /// What all of it may come to, held by the kernel as a sum.
    pub allowance: Allowance,
}

/// How many containers there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ContainerCount {
    /// Those with a living process; paused ones too.
    pub running: u64,
    /// All of them.
    pub total: u64,
    /// The most that one person may have.
    pub max: u64,
}

/// Processor use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct CpuShare {
    /// Thousandths of a core used since the look before, at most 30 seconds ago.
    pub used_millis: u64,
    /// The sum of the running containers' limits.
    pub limit_millis: u64,
}

/// Memory use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct MemoryShare {
    /// What counts to the running containers' limits, their page cache included.
    pub used_bytes: u64,
    /// The sum of their limits.
    pub limit_bytes: u64,
    /// Swapped out.
    pub swap_used_bytes: u64,
    /// The sum of their swap limits.
    pub swap_limit_bytes: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PidShare {
    /// In the running containers.
    pub used: u64,
    /// The sum of their limits.
    pub limit: u64,
}

/// Images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ImageShare {
    /// How many.
    pub count: u64,
    /// Their layers on disk, stored and unpacked; a layer in several of them counts once. What other
    /// people have in common with them does not show.
    pub bytes: u64,
}

/// A person and what they use.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PersonUsage {
    /// Who.
    pub person: OwnerView,
    /// What.
    #[serde(flatten)]
    pub usage: Usage,
}

/// The machine and everybody on it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SystemUsage {
    /// When it was looked at.
    pub at: Time,
    /// The machine, Berth's part and all else on it.
    pub machine: MachineUsage,
    /// Everybody's containers together; `max` is what one person may have.
    pub containers: ContainerCount,
    /// Everybody's images together, each layer once: what the disk holds.
    pub images: ImageShare,
    /// Those who have containers or images, most memory in use first, 500 at most.
    pub people: Vec<PersonUsage>,
    /// How many have containers or images.
    pub people_total: u64,
}

/// The machine.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MachineUsage {
    /// Logical processors.
    pub cpus: u32,
    /// Thousandths of a core that everything on it uses, out of `cpus` times a thousand.
    pub cpu_used_millis: u64,
    /// Tasks that run or wait.
    pub load: Load,
    /// Memory and swap.
    pub memory: MachineMemory,
    /// The file system that images and containers are on; absent when it cannot be asked.
    pub disk: Option<Disk>,
    /// How long work waited; absent when the kernel does not count it.
    pub pressure: Option<Pressure>,
    /// Seconds since it was started.
    pub uptime_secs: u64,
}

/// Processor time at the last look, by whose. In memory only.
#[derive(Default)]
pub struct Looks(Mutex<HashMap<Counter, Look>>);

/// Whose processor time a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Counter {
    /// The machine's.
    Machine,
    /// A person's.
    Person(PrincipalId),
    /// A group's.
    Group(PrincipalId),
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    used_usec: u64,
    millis: Option<u64>,
}

/// What the kernel shows of one person.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    cpu_usec: u64,
    held: stats::Held,
}

/// What is looked at for one person.
#[derive(Debug)]
struct Place {
    person: PrincipalId,
    parent: CgroupPaths,
    containers: Vec<CgroupPaths>,
}

/// What the caller uses.
pub async fn mine(app: &App, caller: &Caller) -> Result<Usage> {
    one(app, caller.principal).await
}

/// What a person uses: people see their own, operators and auditors everybody's.
pub async fn of_person(app: &App, caller: &Caller, id: PrincipalId) -> Result<PersonUsage> {
    let person = people::find(app.inventory.read(), caller.sees(), id).await?;
    let person = OwnerView { id: person.id.0, name: person.name };
    Ok(PersonUsage { person, usage: one(app, id).await? })
}

/// The machine and everybody on it; for those who see everybody.
pub async fn system(app: &App) -> Result<SystemUsage> {
    let db = app.inventory.read();
    let live = app.containers.live();
    let containers = rows::containers(db, Visibility::Everyone).await?;
    let images = rows::images(db, Visibility::Everyone).await?;
    let allowances = allowances::all(db).await?;
    let extras = asks::extras(db, Time::now()).await?;
    let names = rows::names(db).await?;
    let all_images = rows::all_images(db).await?;
    let (seen, machine) = tokio::join!(look(app, places(&live)), machine(app));
    let mut usages = sums(app, &live, &containers, &images, &seen?);
    let (mut count, people_total) = (ContainerCount::default(), usages.len());
    for usage in usages.values() {
        count.running += usage.containers.running;
        count.total += usage.containers.total;
    }
    count.max = app.config.containers.per_person_max.into();
    for (person, usage) in &mut usages {
        let own = allowances.get(person).filter(|_| *person != PrincipalId::SYSTEM);
        let allowance = own.or_else(|| allowances.get(&PrincipalId::SYSTEM));
        let allowance = allowance.copied().unwrap_or(Allowance::FREE);
        let allowance =
            allowance.with_extras(extras.get(person).map(Vec::as_slice).unwrap_or_default());
        usage.allow(Some(allowance).filter(|_| *person != PrincipalId::SYSTEM));
    }
    let mut people: Vec<PersonUsage> = usages
        .drain()
        .map(|(id, usage)| {
            let name = names.get(&id).cloned().unwrap_or_else(|| "system".to_owned());
            PersonUsage { person: OwnerView { id: id.0, name }, usage }
        })
        .collect();
    people.sort_by(|a, b| {
        let order = b.usage.memory.used_bytes.cmp(&a.usage.memory.used_bytes);
        order.then_with(|| a.person.name.cmp(&b.person.name))
    });
    people.truncate(PEOPLE_MAX);
    Ok(SystemUsage {
        at: Time::now(),
        machine: machine?,
        containers: count,
        images: all_images.into(),
        people,
        people_total: u64::try_from(people_total).unwrap_or(u64::MAX),
    })
}

async fn one(app: &App, person: PrincipalId) -> Result<Usage> {
    let db = app.inventory.read();
    let live: Vec<_> =
        app.containers.live().into_iter().filter(|record| record.person == person).collect();
    let containers = rows::containers(db, Visibility::Only(person)).await?;
    let images = rows::images(db, Visibility::Only(person)).await?;
    let seen = look(app, places(&live)).await?;
    let mut usages = sums(app, &live, &containers, &images, &seen);
    let mut usage = usages.remove(&person).unwrap_or_else(|| nothing(app));
    usage.allow(Some(super::allowances::found(app, person).await?.allowance));
    Ok(usage)
}

impl Usage {
    fn allow(&mut self, allowance: Option<Allowance>) {
        self.allowance = allowance.unwrap_or(Allowance::FREE);
        if let Some(most) = self.allowance.containers_max {
            self.containers.max = most.into();
        }
    }
}

/// What the kernel shows, the inventory's limits and the images put together, by person.
fn sums(
    app: &App,
    live: &[Arc<ContainerRecord>],
    containers: &[Limited],
    images: &HashMap<PrincipalId, Held>,
    seen: &HashMap<PrincipalId, (Seen, u64)>,
) -> HashMap<PrincipalId, Usage> {
    let running: std::collections::HashSet<&str> =
        live.iter().map(|record| record.container.as_str()).collect();
    let mut usages: HashMap<PrincipalId, Usage> = HashMap::new();
    for row in containers {
        let usage = usages.entry(row.owner).or_insert_with(|| nothing(app));
        usage.containers.total += 1;
        if !running.contains(row.id.as_str()) {
            continue;
        }
        usage.containers.running += 1;
        usage.cpu.limit_millis += u64::from(row.limits.cpu_millis);
        usage.memory.limit_bytes += row.limits.memory_bytes;
        usage.memory.swap_limit_bytes += row.limits.swap_bytes;
        usage.pids.limit += u64::from(row.limits.pids);
    }
    for (owner, held) in images {
        usages.entry(*owner).or_insert_with(|| nothing(app)).images = (*held).into();
    }
    for (person, (seen, millis)) in seen {
        let Some(usage) = usages.get_mut(person) else { continue };
        usage.cpu.used_millis = *millis;
        usage.memory.used_bytes = seen.held.memory_bytes;
        usage.memory.swap_used_bytes = seen.held.swap_bytes;
        usage.pids.used = seen.held.pids;
    }
    usages
}

fn nothing(app: &App) -> Usage {
    let max = app.config.containers.per_person_max.into();
    Usage {
        at: Time::now(),
        containers: ContainerCount { max, ..ContainerCount::default() },
        cpu: CpuShare::default(),
        memory: MemoryShare::default(),
        pids: PidShare::default(),
        images: ImageShare::default(),
        allowance: Allowance::FREE,
    }
}

/// The cgroups to be read, by person.
fn places(live: &[Arc<ContainerRecord>]) -> Vec<Place> {
    let mut places: HashMap<PrincipalId, Place> = HashMap::new();
    for record in live {
        let Some(live) = &record.live else { continue };
        let place = places.entry(record.person).or_insert_with(|| Place {
            person: record.person,
            parent: stats::parent(&live.cgroup),
            containers: Vec::new(),
        });
        place.containers.push(live.cgroup.clone());
    }
    places.into_values().collect()
}

/// One pass over the kernel's files, and a short second one for those whose processor time nobody
/// has looked at lately.
async fn look(app: &App, places: Vec<Place>) -> Result<HashMap<PrincipalId, (Seen, u64)>> {
    let (places, seen) = read(places).await?;
    let mut out = HashMap::new();
    let mut fresh = Vec::new();
    for (place, seen) in places.into_iter().zip(seen) {
        match app.looks.rate(Counter::Person(place.person), seen.cpu_usec) {
            Some(millis) => {
                out.insert(place.person, (seen, millis));
            }
            None => fresh.push(place),
        }
    }
    if !fresh.is_empty() {
        tokio::time::sleep(FIRST_PAUSE).await;
        let (fresh, seen) = read(fresh).await?;
        for (place, seen) in fresh.into_iter().zip(seen) {
            let millis = app.looks.rate_at_once(Counter::Person(place.person), seen.cpu_usec);
            out.insert(place.person, (seen, millis));
        }
    }
    Ok(out)
}

async fn read(places: Vec<Place>) -> Result<(Vec<Place>, Vec<Seen>)> {
    tokio::task::spawn_blocking(move || {
        let seen = places.iter().map(read_one).collect();
        (places, seen)
    })
    .await
    .map_err(|error| Error::broken("read the kernel's counters", error))
}

/// What has ended since it was last seen holds nothing.
fn read_one(place: &Place) -> Seen {
    let mut seen =
        Seen { cpu_usec: stats::cpu_usec(&place.parent).unwrap_or(0), ..Seen::default() };
    for held in place.containers.iter().filter_map(|paths| stats::held(paths).ok()) {
        seen.held.memory_bytes += held.memory_bytes;
        seen.held.swap_bytes += held.swap_bytes;
        seen.held.pids += held.pids;
    }
    seen
}

async fn machine(app: &App) -> Result<MachineUsage> {
    let mut seen = look_at_machine().await?;
    let cpu_used_millis = match app.looks.rate(Counter::Machine, seen.cpu_usec) {
        Some(millis) => millis,
        None => {
            tokio::time::sleep(FIRST_PAUSE).await;
            seen = look_at_machine().await?;
            app.looks.rate_at_once(Counter::Machine, seen.cpu_usec)
        }
    };
    Ok(MachineUsage {
        cpus: seen.cpus,
        cpu_used_millis,
        load: seen.load,
        memory: seen.memory,
        disk: machine::disk(&app.config.store_dir()).ok(),
        pressure: seen.pressure,
        uptime_secs: seen.uptime_secs,
    })
}

async fn look_at_machine() -> Result<Machine> {
    let broken = |error: io::Error| Error::broken("look at the machine", error);
    let looked = tokio::task::spawn_blocking(machine::look).await;
    looked.map_err(|error| Error::broken("look at the machine", error))?.map_err(broken)
}

impl Looks {
    /// Thousandths of a core since the look before; `None` when there is none that is good.
    pub(super) fn rate(&self, whose: Counter, used_usec: u64) -> Option<u64> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Look { at: Instant::now(), used_usec, millis: None };
        let before = looks.get(&whose).copied().filter(|before| now.at - before.at < OLD);
        let millis = match before {
            Some(before) if now.at - before.at < APART => {
                // The look of before stays, so that many askers do not shorten the span.
                return before.millis;
            }
            before => before.map(|before| rate(before, now)),
        };
        looks.retain(|_, look| now.at - look.at < OLD);
        looks.insert(whose, Look { millis, ..now });
        millis
    }

    /// The same after a pause that is long enough for once.
    pub(super) fn rate_at_once(&self, whose: Counter, used_usec: u64) -> u64 {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Look { at: Instant::now(), used_usec, millis: None };
        let millis = looks.get(&whose).map_or(0, |before| rate(*before, now));
        looks.insert(whose, Look { millis: Some(millis), ..now });
        millis
    }
}

/// Microseconds in a time, as thousandths of a core.
fn rate(before: Look, now: Look) -> u64 {
    let micros = u64::try_from((now.at - before.at).as_micros()).unwrap_or(u64::MAX);
    let used = now.used_usec.saturating_sub(before.used_usec);
    used.saturating_mul(1000).checked_div(micros).unwrap_or(0)
}

impl From<Held> for ImageShare {
    fn from(held: Held) -> Self {
        Self { count: held.count, bytes: held.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_looks_and_many_askers_share_one() {
        let looks = Looks::default();
        assert_eq!(looks.rate(Counter::Machine, 1_000), None);
        // Nobody has a rate yet, so each asker looks twice.
        assert_eq!(looks.rate(Counter::Machine, 2_000), None);
        let first = looks.rate_at_once(Counter::Machine, 1_000_000_000);
        assert!(first > 0);
        assert_eq!(
            looks.rate(Counter::Machine, 2_000_000_000),
            Some(first),
            "too soon for another"
        );
        assert_eq!(looks.rate(Counter::Person(PrincipalId(7)), 5), None);
    }

    #[test]
    fn a_counter_that_was_set_back_is_no_use() {
        let at = Instant::now();
        let before = Look { at, used_usec: 900, millis: None };
        let after = Look { at: at + Duration::from_secs(1), used_usec: 100, millis: None };
        assert_eq!(rate(before, after), 0);
        let after = Look { used_usec: 500_900, ..after };
        assert_eq!(rate(before, after), 500);
    }
}
