//! What is in use now of what an allowance bounds: the kernel's counters of the cgroup above the containers,
//! so with what ended ones have left in it, and the inventory's counts. Read when it is asked for, kept by
//! nobody but the counters of processor time.

use std::collections::HashMap;

use berth_runtime::id::PrincipalId;
use berth_runtime::record::CgroupPaths;

use super::history::{KEPT, POINT_PAUSE, Point};
use super::stats;
use super::usage::{Counter, FIRST_PAUSE};
use crate::app::App;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::allowances::{Bounded, Whose};
use crate::inventory::groups;
use crate::inventory::usage::{self as rows, Counts};

/// What one person, or one group, uses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InUse {
    cpu_millis: u64,
    memory_bytes: u64,
    /// Of the memory, what the kernel cannot take back without swap.
    pub(crate) memory_kept_bytes: u64,
    swap_bytes: u64,
    pids: u64,
    /// On a file system of a person's own; what lies in the store that all share is not counted.
    pub(crate) data_bytes: u64,
    /// The most of the last hour, over ten seconds, of what runs now.
    read_bytes_per_sec: u64,
    write_bytes_per_sec: u64,
    counts: Counts,
}

impl InUse {
    /// How much of one of them, in its unit.
    pub(crate) fn of(&self, which: Bounded) -> u64 {
        match which {
            Bounded::CpuMillis => self.cpu_millis,
            Bounded::MemoryBytes => self.memory_bytes,
            Bounded::SwapBytes => self.swap_bytes,
            Bounded::Pids => self.pids,
            Bounded::ContainersMax => self.counts.containers,
            Bounded::PortsMax => self.counts.ports,
            Bounded::ImagesMax => self.counts.images,
            Bounded::ImagesBytes => self.counts.image_bytes,
            Bounded::DataBytes => self.data_bytes,
            Bounded::IoReadBytesPerSec => self.read_bytes_per_sec,
            Bounded::IoWriteBytesPerSec => self.write_bytes_per_sec,
            // Nobody counts it.
            Bounded::NetBytesPerSec => 0,
        }
    }
}

/// What each of these people and groups uses, in their order.
pub(crate) async fn look(app: &App, sums: &[(Whose, PrincipalId)]) -> Result<Vec<InUse>> {
    let of_groups = sums.iter().any(|(of, _)| *of == Whose::Group);
    let mut groups = HashMap::new();
    if of_groups {
        groups = groups::of_people(app.inventory.read()).await?;
    }
    let mut places = HashMap::new();
    let mut moved: HashMap<_, Moved> = HashMap::new();
    for record in app.containers.live() {
        let Some(live) = &record.live else { continue };
        let own = (Whose::Person, record.person);
        let groups_own = groups.get(&record.person).map(|group| (Whose::Group, *group));
        for sum in [Some(own), groups_own].into_iter().flatten().filter(|sum| sums.contains(sum)) {
            let points = app.history.points(&record.container, Time::now().before(KEPT));
            moved.entry(sum).or_default().add(&points);
        }
        let person = stats::parent(&live.cgroup);
        if let Some(group) = groups.get(&record.person) {
            places.entry((Whose::Group, *group)).or_insert_with(|| stats::parent(&person));
        }
        places.entry((Whose::Person, record.person)).or_insert(person);
    }
    let wanted: Vec<Option<CgroupPaths>> = sums.iter().map(|sum| places.remove(sum)).collect();
    let mut seen = in_kernel(app, sums, wanted).await?;
    let mut db = app.inventory.read().acquire().await?;
    for (one, (of, id)) in seen.iter_mut().zip(sums) {
        if let Some(moved) = moved.get(&(*of, *id)) {
            (one.read_bytes_per_sec, one.write_bytes_per_sec) = moved.most();
        }
        one.counts = rows::counts(&mut db, *of, *id).await?;
    }
    Ok(seen)
}

/// What several containers read and wrote together, by point of time.
#[derive(Default)]
struct Moved(HashMap<i64, (u64, u64)>);

impl Moved {
    fn add(&mut self, points: &[Point]) {
        let pause = i64::try_from(POINT_PAUSE.as_secs()).unwrap_or(1);
        for point in points {
            let sum = self.0.entry(point.time().secs() / pause).or_default();
            sum.0 = sum.0.saturating_add(point.read_bytes());
            sum.1 = sum.1.saturating_add(point.write_bytes());
        }
    }

    /// Bytes read a second at most, and written.
    fn most(&self) -> (u64, u64) {
        let read = self.0.values().map(|sum| sum.0).max();
        let written = self.0.values().map(|sum| sum.1).max();
        (read.unwrap_or(0), written.unwrap_or(0))
    }
}

async fn in_kernel(
    app: &App,
    sums: &[(Whose, PrincipalId)],
    places: Vec<Option<CgroupPaths>>,
) -> Result<Vec<InUse>> {
    let counter = |(of, id): (Whose, PrincipalId)| match of {
        Whose::Person => Counter::Person(id),
        Whose::Group => Counter::Group(id),
    };
    let (places, mut seen, used) = read(places).await?;
    let mut fresh = false;
    for ((one, used_usec), sum) in seen.iter_mut().zip(used).zip(sums) {
        match used_usec.map(|used_usec| app.looks.rate(counter(*sum), used_usec)) {
            Some(None) => fresh = true,
            rate => one.cpu_millis = rate.flatten().unwrap_or(0),
        }
    }
    if fresh {
        // Nobody has looked at some of them lately: their rate is that of a moment.
        tokio::time::sleep(FIRST_PAUSE).await;
        let (_, _, used) = read(places).await?;
        for ((one, used_usec), sum) in seen.iter_mut().zip(used).zip(sums) {
            if let Some(used_usec) = used_usec.filter(|_| one.cpu_millis == 0) {
                one.cpu_millis = app.looks.rate_at_once(counter(*sum), used_usec);
            }
        }
    }
    Ok(seen)
}

type Read = (Vec<Option<CgroupPaths>>, Vec<InUse>, Vec<Option<u64>>);

async fn read(places: Vec<Option<CgroupPaths>>) -> Result<Read> {
    tokio::task::spawn_blocking(move || {
        let (seen, used) = places.iter().map(|paths| read_one(paths.as_ref())).unzip();
        (places, seen, used)
    })
    .await
    .map_err(|error| Error::broken("read the kernel's counters", error))
}

/// What nothing runs of uses nothing; neither does what has ended meanwhile.
fn read_one(paths: Option<&CgroupPaths>) -> (InUse, Option<u64>) {
    let Some(paths) = paths else { return (InUse::default(), None) };
    let held = stats::held(paths).unwrap_or_default();
    let seen = InUse {
        memory_bytes: held.memory_bytes,
        memory_kept_bytes: stats::kept_bytes(paths).unwrap_or(0),
        swap_bytes: held.swap_bytes,
        pids: held.pids,
        ..InUse::default()
    };
    (seen, stats::cpu_usec(paths).ok())
}
