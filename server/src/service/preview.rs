//! "Who would be over?": what an allowance would meet before it is given. Nothing is changed, and nothing is
//! promised: what is in use is that of this moment.

use std::collections::HashMap;
use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use utoipa::ToSchema;

use super::admission::{of_one, words};
use super::allowances::check;
use super::data;
use super::in_use::{self, InUse};
use crate::app::App;
use crate::auth::{Caller, Visibility};
use crate::clock::Time;
use crate::config::ContainersConfig;
use crate::error::Result;
use crate::inventory::allowances::{self, Allowance, Bounded, Whose};
use crate::inventory::usage::{self as rows, Limited};
use crate::inventory::{asks, groups, people};

/// People in one answer.
pub const OVER_MAX: usize = 500;
/// Containers named of each.
const CONTAINERS_MAX: usize = 20;

/// What a proposed allowance would meet.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = AllowancePreview)]
pub struct Preview {
    /// Those who use more now than is proposed, or have a container that asks for more alone or would be stopped
    /// sooner: a group itself first, then people by name; 500 at most.
    pub over: Vec<Over>,
    /// How many there are.
    pub over_total: u64,
}

/// Somebody who would be over.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OverAllowance)]
pub struct Over {
    /// A person, or the group itself.
    pub of: Whose,
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What is in use of more than is proposed.
    pub limits: Vec<OverLimit>,
    /// Containers that ask for more alone than is proposed for all together, 20 at most. They run on; once
    /// ended, they are not started until they ask for less.
    pub containers: Vec<OverContainer>,
    /// How many of those there are.
    pub containers_total: u64,
    /// Containers that run now and would be stopped sooner than they are without this, 20 at most.
    pub endings: Vec<OverEnding>,
    /// How many of those there are.
    pub endings_total: u64,
}

/// A bound below what is in use.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OverAllowanceLimit)]
pub struct OverLimit {
    /// Which.
    pub limit: Bounded,
    /// What is in use now: bytes, thousandths of a core, or a number. Of rates the most of the last hour, over ten
    /// seconds; what goes over the network is not counted.
    pub used: u64,
    /// What is proposed, in the same unit.
    pub proposed: u64,
    /// What would happen.
    pub outcome: Outcome,
    /// The same in a sentence.
    pub detail: String,
}

/// What happens when more is in use than is allowed from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Programs get less processor time, or wait for the disk, and run on.
    Slower,
    /// File cache is taken back at once; programs that then want more are slowed down, and in the end killed.
    Reclaimed,
    /// More is in use than can be taken back without swap. A person's or a group's change is refused then;
    /// after a change of everybody's default they keep what they had until they use less.
    Kept,
    /// What there is stays; nothing new is made or started until there is less.
    NothingNew,
}

/// A container that asks for more than the sum.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OverAllowanceContainer)]
pub struct OverContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Of what.
    pub limit: Bounded,
    /// How much it asks for.
    pub asks: u64,
    /// How much is proposed for all together.
    pub proposed: u64,
}

/// A container that would end sooner.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OverAllowanceEnding)]
pub struct OverEnding {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it is stopped as it is; null for never.
    pub ends_at: Option<Time>,
    /// Seconds from the change to its stop.
    pub secs_left: u32,
}

/// One sum that is looked at, and whose containers are in it.
struct Looked {
    of: Whose,
    id: PrincipalId,
    name: String,
}

/// What would meet a person if this were theirs.
///
/// # Errors
/// There is no such person, or the allowance cannot be given.
pub async fn of_person(
    app: &App,
    caller: &Caller,
    id: PrincipalId,
    proposed: Allowance,
) -> Result<Preview> {
    check(&proposed)?;
    let person = people::find(app.inventory.read(), caller.sees(), id).await?;
    let looked = Looked { of: Whose::Person, id, name: person.name };
    judge(app, vec![looked], &proposed).await
}

/// What would meet a person if everybody's allowance applied to them.
///
/// # Errors
/// There is no such person.
pub async fn of_default_for(app: &App, caller: &Caller, id: PrincipalId) -> Result<Preview> {
    let proposed = allowances::default(app.inventory.read()).await?;
    of_person(app, caller, id, proposed).await
}

/// What would meet a group and its people if this were the group's.
///
/// # Errors
/// There is no such group, or the allowance cannot be given.
pub async fn of_group(app: &App, id: PrincipalId, proposed: Allowance) -> Result<Preview> {
    check(&proposed)?;
    let db = app.inventory.read();
    let group = groups::find(db, Visibility::Everyone, PrincipalId::SYSTEM, id).await?;
    let mut looked = vec![Looked { of: Whose::Group, id, name: group.name }];
    let people = groups::counting(db, id, u32::MAX).await?;
    looked.extend(people.into_iter().map(|(id, name)| Looked { of: Whose::Person, id, name }));
    judge(app, looked, &proposed).await
}

/// What would meet all who have no allowance of their own if this were everybody's.
///
/// # Errors
/// The allowance cannot be given.
pub async fn of_default(app: &App, proposed: Allowance) -> Result<Preview> {
    check(&proposed)?;
    let db = app.inventory.read();
    let own = allowances::all(db).await?;
    let mut people: Vec<_> = rows::names(db).await?.into_iter().collect();
    people.retain(|(id, _)| !own.contains_key(id));
    people.sort_by(|(_, a), (_, b)| a.cmp(b));
    let looked = people.into_iter().map(|(id, name)| Looked { of: Whose::Person, id, name });
    judge(app, looked.collect(), &proposed).await
}

async fn judge(app: &App, looked: Vec<Looked>, proposed: &Allowance) -> Result<Preview> {
    let sums: Vec<_> = looked.iter().map(|one| (one.of, one.id)).collect();
    let mut seen = in_use::look(app, &sums).await?;
    if let Some(most) = proposed.data_bytes {
        let kept = data::of_more(app, most).await?;
        for (one, seen) in looked.iter().zip(&mut seen) {
            if one.of == Whose::Person {
                seen.data_bytes = kept.get(&one.id).copied().unwrap_or(0);
            }
        }
    }
    let extras = asks::extras(app.inventory.read(), Time::now()).await?;
    let mut theirs: HashMap<PrincipalId, Vec<Limited>> = HashMap::new();
    for container in rows::containers(app.inventory.read(), Visibility::Everyone).await? {
        theirs.entry(container.owner).or_default().push(container);
    }
    // What the configuration says of one person is no bound of a group's.
    let configured =
        looked.iter().all(|one| one.of == Whose::Person).then_some(&app.config.containers);
    let mut over = Vec::new();
    for (one, seen) in looked.into_iter().zip(seen) {
        let of_person = one.of == Whose::Person;
        // What was granted for a time holds on top of whatever is proposed.
        let on_top =
            extras.get(&one.id).filter(|_| of_person).map(Vec::as_slice).unwrap_or_default();
        let proposed = &proposed.with_extras(on_top);
        let own = theirs.remove(&one.id).filter(|_| of_person).unwrap_or_default();
        let mut containers: Vec<_> = own.iter().filter_map(|row| alone(row, proposed)).collect();
        let containers_total = u64::try_from(containers.len()).unwrap_or(u64::MAX);
        containers.truncate(CONTAINERS_MAX);
        let limits = above(configured, &seen, proposed);
        let mut endings: Vec<_> = own.iter().filter_map(|row| ending(app, row, proposed)).collect();
        let endings_total = u64::try_from(endings.len()).unwrap_or(u64::MAX);
        endings.truncate(CONTAINERS_MAX);
        if !limits.is_empty() || containers_total > 0 || endings_total > 0 {
            let Looked { of, id, name } = one;
            let id = id.0;
            over.push(Over {
                of,
                id,
                name,
                limits,
                containers,
                containers_total,
                endings,
                endings_total,
            });
        }
    }
    let over_total = u64::try_from(over.len()).unwrap_or(u64::MAX);
    over.truncate(OVER_MAX);
    Ok(Preview { over, over_total })
}

/// The first of a container's limits that is more than is proposed for all together.
fn alone(row: &Limited, proposed: &Allowance) -> Option<OverContainer> {
    let limits = of_one(&row.limits).into_iter();
    let mut limits = limits.filter_map(|(limit, asks)| Some((limit, asks, proposed.bound(limit)?)));
    let (limit, asks, proposed) = limits.find(|(_, asks, proposed)| asks > proposed)?;
    Some(OverContainer { id: row.id.clone(), name: row.name.clone(), limit, asks, proposed })
}

/// A container that runs, when it would end sooner by what is proposed.
fn ending(app: &App, row: &Limited, proposed: &Allowance) -> Option<OverEnding> {
    let idle = row.id.parse().ok().and_then(|id| app.idle.of(&id));
    let unused =
        idle.zip(proposed.idle_secs).is_some_and(|(idle, most)| idle.idle_secs >= most.into());
    let secs_left = if unused { Some(0) } else { proposed.lifetime_secs };
    let secs_left = secs_left.filter(|_| row.runs)?;
    let then = Time::now().after(Duration::from_secs(secs_left.into()));
    let sooner = row.ends_at.is_none_or(|at| at > then);
    let (id, name, ends_at) = (row.id.clone(), row.name.clone(), row.ends_at);
    sooner.then_some(OverEnding { id, name, ends_at, secs_left })
}

/// What is in use of more than is proposed, or is configured where nothing is.
fn above(
    configured: Option<&ContainersConfig>,
    seen: &InUse,
    proposed: &Allowance,
) -> Vec<OverLimit> {
    let containers = configured.map(|config| config.per_person_max.into());
    let ports = configured.map(|config| config.ports_per_person_max.into());
    [
        (Bounded::MemoryBytes, None),
        (Bounded::SwapBytes, None),
        (Bounded::CpuMillis, None),
        (Bounded::Pids, None),
        (Bounded::ContainersMax, containers),
        (Bounded::PortsMax, ports),
        (Bounded::ImagesMax, None),
        (Bounded::ImagesBytes, None),
        (Bounded::DataBytes, None),
        (Bounded::IoReadBytesPerSec, None),
        (Bounded::IoWriteBytesPerSec, None),
    ]
    .into_iter()
    .filter_map(|(limit, configured)| {
        let proposed = proposed.bound(limit).or(configured)?;
        let used = seen.of(limit);
        (used > proposed).then(|| over_limit(limit, used, proposed, seen))
    })
    .collect()
}

fn over_limit(limit: Bounded, used: u64, proposed: u64, seen: &InUse) -> OverLimit {
    let rate = matches!(limit, Bounded::IoReadBytesPerSec | Bounded::IoWriteBytesPerSec);
    let (outcome, what) = match limit {
        Bounded::IoReadBytesPerSec | Bounded::IoWriteBytesPerSec | Bounded::NetBytesPerSec => {
            (Outcome::Slower, "programs run on, and wait for the disk where they want more")
        }
        Bounded::CpuMillis => (Outcome::Slower, "programs run on, slower"),
        Bounded::MemoryBytes if seen.memory_kept_bytes > proposed => (
            Outcome::Kept,
            "more than that cannot be taken back without swap, so the change does not take effect while \
             it is so",
        ),
        Bounded::MemoryBytes => (
            Outcome::Reclaimed,
            "file cache is taken back at once; programs that then want more are slowed down, and in the end \
             one of them is killed",
        ),
        Bounded::SwapBytes => {
            (Outcome::NothingNew, "what is swapped out stays so, and no more is swapped out")
        }
        Bounded::Pids => (
            Outcome::NothingNew,
            "what runs stays, and no process or thread begins until there are fewer",
        ),
        Bounded::ContainersMax => (
            Outcome::NothingNew,
            "what there is stays, and no container is made until there are fewer",
        ),
        Bounded::PortsMax => (
            Outcome::NothingNew,
            "what is leased stays, and no port is leased until there are fewer",
        ),
        Bounded::ImagesMax => {
            (Outcome::NothingNew, "what there is stays, and no image comes until there are fewer")
        }
        Bounded::ImagesBytes => {
            (Outcome::NothingNew, "what there is stays, and no layer comes until there is less")
        }
        Bounded::DataBytes => (
            Outcome::Kept,
            "nothing is lost: what they may keep now holds until they keep less and nothing of theirs runs",
        ),
    };
    let (now, then) = (words(limit, used), words(limit, proposed));
    let when = if rate { "at most in the last hour" } else { "in use" };
    OverLimit {
        limit,
        used,
        proposed,
        outcome,
        detail: format!("{now} {when}, {then} proposed: {what}"),
    }
}
