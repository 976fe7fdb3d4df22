//! My space: what somebody uses of each limit of theirs now, what they used in the last day or week, what of theirs
//! ends by itself, and what takes the disk. It only puts together what others know.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::images::{self, Wanted};
use super::volumes::{self, VolumeView};
use super::{Page, asks, days, tokens};
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::Result;
use crate::inventory::allowances::Bounded;
use crate::inventory::usage_days::{QUARTER_SECS, Sums};
use crate::inventory::{asks as granted, looks};

/// Images, and volumes, that are looked through for the largest.
const LOOKED_AT_MAX: u32 = 500;
/// Images, and volumes, that are told.
const LARGEST: usize = 10;
/// Ends of one kind that are told.
const ENDS_MAX: u32 = 100;
/// A quarter that has just begun says little.
const YOUNG: Duration = Duration::from_secs(15);

/// How far back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// The last 24 hours, a point each quarter of an hour.
    #[default]
    Day,
    /// The last 7 days, a point every two hours.
    Week,
}

/// What is somebody's own.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Space)]
pub struct SpaceView {
    /// When it was looked at.
    pub at: Time,
    /// Each limit.
    pub limits: Vec<SpaceLimit>,
    /// The first moment of the points.
    pub since: Time,
    /// Seconds that one point stands for.
    pub step_secs: u32,
    /// What was used, oldest first. Where points are missing, nothing ran, or the server did not.
    pub points: Vec<SpacePoint>,
    /// What ends by itself, the next first.
    pub ends: Vec<SpaceEnd>,
    /// The largest images and volumes, by their size as far as it is known. What containers have written is in
    /// `data_bytes` of the limits alone.
    pub largest: Vec<SpaceThing>,
}

/// A limit.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct SpaceLimit {
    /// Which, as an allowance names it.
    pub limit: Bounded,
    /// What may be used, with what was granted for a time; null is no bound.
    pub allowed: Option<u64>,
    /// What is in use: of rates the most of the last hour; null where nobody counts it.
    pub used: Option<u64>,
}

/// Means over one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct SpacePoint {
    /// The end of the time that it stands for.
    pub time: Time,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of the running containers.
    pub memory_bytes: u64,
    /// Running containers, in thousandths.
    pub containers_millis: u64,
}

/// Something that ends by itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SpaceEnd {
    /// What.
    pub kind: EndKind,
    /// Its name, or what it is for.
    pub name: String,
    /// When.
    pub at: Time,
}

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// One's account.
    Account,
    /// A token for scripts.
    Token,
    /// What an operator has granted for a time.
    Granted,
    /// An operator's look into a container.
    Look,
}

/// Something that takes the disk.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SpaceThing {
    /// What.
    pub kind: ThingKind,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Bytes: of an image its layers unpacked, of a volume what it held when that was last looked at.
    pub bytes: u64,
}

/// What takes the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThingKind {
    /// An image.
    Image,
    /// A volume.
    Volume,
}

impl Span {
    /// Quarters of an hour that one point stands for, and how many points there are.
    fn steps(self) -> (i64, i64) {
        match self {
            Self::Day => (1, 96),
            Self::Week => (8, 84),
        }
    }
}

/// The caller's own.
///
/// # Errors
/// The root socket's caller has nothing.
pub async fn mine(app: &App, caller: &Caller, span: Span) -> Result<SpaceView> {
    let person = caller.person()?;
    let at = Time::now();
    let (each, count) = span.steps();
    let now = at.secs().div_euclid(QUARTER_SECS);
    // Whole steps, of which the last goes on.
    let last = now.div_euclid(each);
    let first = last - count + 1;
    let quarters = days::quarters(app, person, first * each).await?;
    Ok(SpaceView {
        at,
        limits: asks::limits(app, caller).await?,
        since: Time(first * each * QUARTER_SECS * 1000),
        step_secs: u32::try_from(each * QUARTER_SECS).unwrap_or(u32::MAX),
        points: points(&quarters, each, at),
        ends: ends(app, caller).await?,
        largest: largest(app, caller).await?,
    })
}

/// The quarters put together to steps, as means.
fn points(quarters: &[(i64, Sums)], each: i64, now: Time) -> Vec<SpacePoint> {
    let step = |quarter: &(i64, Sums)| quarter.0.div_euclid(each);
    let point = |chunk: &[(i64, Sums)]| {
        let step = step(chunk.first()?);
        let begun = step * each * QUARTER_SECS;
        let until = (begun + each * QUARTER_SECS).min(now.secs());
        let secs = u64::try_from(until - begun).ok().filter(|secs| *secs >= YOUNG.as_secs())?;
        let mut sums = Sums::default();
        chunk.iter().for_each(|(_, more)| sums.add(more));
        Some(SpacePoint {
            time: Time(until * 1000),
            cpu_millis: sums.cpu_usec / secs / 1000,
            memory_bytes: (sums.memory_kib_secs / secs).saturating_mul(1024),
            containers_millis: sums.container_secs.saturating_mul(1000) / secs,
        })
    };
    quarters.chunk_by(|a, b| step(a) == step(b)).filter_map(point).collect()
}

async fn ends(app: &App, caller: &Caller) -> Result<Vec<SpaceEnd>> {
    let end = |kind, name: String, at| SpaceEnd { kind, name, at };
    let person = caller.person()?;
    let now = Time::now();
    let mut ends = Vec::new();
    ends.extend(caller.account_expires_at.map(|at| end(EndKind::Account, caller.name.clone(), at)));
    let tokens = tokens::list(app, caller).await?.into_iter();
    ends.extend(tokens.map(|token| end(EndKind::Token, token.name, token.expires_at)));
    let mut db = app.inventory.read().acquire().await?;
    for extra in granted::extras_of(&mut db, person, now).await? {
        let what = super::admission::words(extra.limit, extra.granted);
        ends.push(end(EndKind::Granted, what, extra.ends_at));
    }
    for (container, ends_at) in looks::of_owner(&mut db, person, now, ENDS_MAX).await? {
        ends.push(end(EndKind::Look, container, ends_at));
    }
    ends.sort_by_key(|end| end.at.0);
    Ok(ends)
}

async fn largest(app: &App, caller: &Caller) -> Result<Vec<SpaceThing>> {
    let page = Page { limit: LOOKED_AT_MAX, after: None };
    let wanted = Wanted { owner: Some(caller.principal), ..Wanted::default() };
    let images = images::list(app, caller, wanted, &page).await?.items.into_iter();
    let images = images.map(|image| SpaceThing {
        kind: ThingKind::Image,
        name: image
            .references
            .first()
            .map_or_else(|| image.row.manifest.to_string(), ToString::to_string),
        id: image.row.id,
        bytes: image.row.unpacked_bytes,
    });
    let volumes = volumes::list(app, caller, &page).await?.items.into_iter();
    let volumes = volumes.filter(|volume| volume.owner.id == caller.principal.0);
    let volume = |volume: VolumeView| {
        let bytes = volume.used?.bytes;
        Some(SpaceThing {
            kind: ThingKind::Volume,
            id: volume.id.to_string(),
            name: volume.name,
            bytes,
        })
    };
    let mut all: Vec<SpaceThing> = images.chain(volumes.filter_map(volume)).collect();
    all.sort_by_key(|thing| std::cmp::Reverse(thing.bytes));
    all.truncate(LARGEST);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_become_means_of_their_steps() {
        let sums = |cpu_usec| Sums { cpu_usec, ..Sums::default() };
        let quarters = [(8, sums(900_000_000)), (9, sums(0)), (16, sums(1_800_000_000))];
        let late = Time(1_000_000_000);
        let cpu = |each| -> Vec<(i64, u64)> {
            let points = points(&quarters, each, late);
            points.iter().map(|point| (point.time.secs(), point.cpu_millis)).collect()
        };
        assert_eq!(cpu(1), [(8100, 1000), (9000, 0), (15_300, 2000)]);
        // Two hours each, of which one or two quarters were used.
        assert_eq!(cpu(8), [(14_400, 125), (21_600, 250)]);
        // The step that goes on is a mean of the time that has passed of it; a little has to have.
        let begun = points(&quarters[2..], 1, Time((16 * 900 + 450) * 1000));
        assert_eq!(begun.first().map(|point| point.cpu_millis), Some(4000));
        assert_eq!(points(&quarters[2..], 1, Time((16 * 900 + 10) * 1000)), []);
    }
}
