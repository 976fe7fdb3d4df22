//! What containers have used in the last hour, in memory.
//!
//! One task looks at the kernel's counters of everything that runs, all in one pass and away from
//! every request, and keeps one point per container every [`POINT_PAUSE`]. Pages and lists read the
//! newest look from here instead of hundreds of the kernel's files each. While somebody looks at a
//! page that shows figures, the looks come closer together; the points don't.
//!
//! Nothing is made up: while the server is down, or a container is, there are no points. What is in
//! memory is written to one file now and then and at the stop, and read again at the start; a file
//! that is torn or another version's counts as none.

mod file;
mod ring;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{CgroupPaths, ContainerRecord, Status};
use serde_json::json;
use tokio::sync::Notify;

pub use ring::{Point, Used};

use crate::app::App;
use crate::clock::Time;
use crate::error::Result;
use crate::inventory::audit::{By, Row};
use crate::inventory::events::NewEvent;
use crate::service::days;
use crate::service::idle;
use crate::service::stats::{self, Sample};
use ring::{Ring, Seen};

/// Between two points of a container.
pub const POINT_PAUSE: Duration = Duration::from_secs(10);
/// How far back points are kept: an hour and some, so that an hour can always be shown whole.
pub const KEPT: Duration = Duration::from_secs(3660);
/// Between two looks while somebody watches.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// How long after a page was rendered somebody counts as watching it.
const WATCHED: Duration = Duration::from_secs(15);
/// With more containers than this the looks stay as far apart as the points.
const WATCHED_CONTAINERS_MAX: usize = 200;
/// Containers looked at in one pass at most; each costs about ten reads of kernel files.
const CONTAINERS_MAX: usize = 2000;
/// Containers whose points are kept at most; of others only the newest look is known. A container's
/// points take at most 11 KiB.
const RINGS_MAX: usize = 1024;
/// Between two writings of the file.
const SAVE_PAUSE: Duration = Duration::from_secs(300);
/// Out-of-memory kills closer together than this are one event with a count.
const OOM_EVENT_PAUSE: Duration = Duration::from_secs(60);

/// The points and the newest looks.
pub struct History {
    kept: Mutex<Kept>,
    watched: Notify,
    file: PathBuf,
}

#[derive(Default)]
struct Kept {
    rings: HashMap<ContainerId, Ring>,
    watched_until: Option<Instant>,
}

/// A container to be looked at.
struct Subject {
    record: Arc<ContainerRecord>,
    run: u64,
    paths: CgroupPaths,
}

/// Processes that the kernel has killed for memory since the last event that told of it.
struct Killed {
    container: ContainerId,
    owner: PrincipalId,
    run: u64,
    kills: u64,
}

impl History {
    /// What is kept in `file`, if that can be used.
    pub fn open(file: PathBuf) -> Self {
        let oldest = Time::now().before(KEPT);
        let rings = match file::read(&file) {
            Ok(rings) => rings,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the last hour's figures are lost");
                HashMap::new()
            }
        };
        let mut kept = Kept { rings, watched_until: None };
        kept.rings.retain(|_, ring| ring.age_out(oldest));
        Self { kept: Mutex::new(kept), watched: Notify::new(), file }
    }

    /// What a container uses by the newest look; none when it was not seen to run.
    pub fn latest(&self, id: &ContainerId) -> Option<Used> {
        self.kept().rings.get(id).and_then(Ring::latest)
    }

    /// A container's points from `since` on, oldest first.
    pub fn points(&self, id: &ContainerId, since: Time) -> Vec<Point> {
        self.kept().rings.get(id).map(|ring| ring.since(since)).unwrap_or_default()
    }

    /// Somebody looks at figures now: for a while they are brought up to date more often.
    pub fn watch(&self) {
        let first = {
            let mut kept = self.kept();
            let first = kept.watched_until.is_none_or(|until| until < Instant::now());
            kept.watched_until = Some(Instant::now() + WATCHED);
            first
        };
        if first {
            self.watched.notify_one();
        }
    }

    /// Drops what is known of a container that is gone.
    pub fn forget(&self, id: &ContainerId) {
        self.kept().rings.remove(id);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_watched(&self) -> bool {
        let kept = self.kept();
        kept.rings.len() <= WATCHED_CONTAINERS_MAX
            && kept.watched_until.is_some_and(|until| until > Instant::now())
    }

    /// Takes what one pass has seen; answers what was killed for memory and is to be told.
    fn take(&self, seen: Vec<(Subject, Sample)>, at: Instant, whole: bool) -> Vec<Killed> {
        let mut kept = self.kept();
        let mut killed = Vec::new();
        let ids: std::collections::HashSet<ContainerId> =
            seen.iter().map(|(subject, _)| subject.record.container.clone()).collect();
        for (id, ring) in &mut kept.rings {
            if !ids.contains(id) {
                ring.rest();
            }
        }
        let mut with_points = kept.rings.values().filter(|ring| ring.has_points()).count();
        for (subject, sample) in seen {
            let record = &subject.record;
            let ring = kept.rings.entry(record.container.clone()).or_default();
            let live = record.live.as_ref();
            let looked = Seen {
                run: subject.run,
                at,
                sample,
                oom_kills: live.map_or(0, |live| live.oom_kills),
                started_at: live.map_or(Time(0), |live| Time(live.started_ms)),
            };
            let had_points = ring.has_points();
            ring.look(looked, whole && (had_points || with_points < RINGS_MAX));
            with_points += usize::from(!had_points && ring.has_points());
            if let Some(kills) = ring.take_kills(at, OOM_EVENT_PAUSE) {
                let (container, owner) = (record.container.clone(), record.person);
                killed.push(Killed { container, owner, run: subject.run, kills });
            }
        }
        if whole {
            let oldest = Time::now().before(KEPT);
            kept.rings.retain(|_, ring| ring.age_out(oldest));
        }
        killed
    }

    fn save(&self) -> anyhow::Result<()> {
        // Encoded under the lock, written without it.
        let bytes = file::encode(&self.kept().rings);
        file::write(&self.file, &bytes)
    }
}

/// Looks until the server stops, and writes the file a last time then.
pub async fn run(app: App) {
    if let Err(error) = days::load(&app).await {
        tracing::warn!(error = %error, "how far processor time was counted is not known");
    }
    let mut next_point = Instant::now();
    let mut next_save = Instant::now() + SAVE_PAUSE;
    loop {
        let whole = Instant::now() >= next_point;
        if whole {
            next_point = Instant::now() + POINT_PAUSE;
        }
        if let Err(error) = pass(&app, whole).await {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "a look failed");
        }
        if Instant::now() >= next_save {
            next_save = Instant::now() + SAVE_PAUSE;
            save(&app).await;
        }
        let rest = next_point.saturating_duration_since(Instant::now());
        let (pause, woken) = match app.history.is_watched() {
            true => (rest.min(LOOK_PAUSE), false),
            false => (rest, true),
        };
        tokio::select! {
            () = app.stopping.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
            () = app.history.watched.notified(), if woken => {}
        }
    }
    // What was used up to now is to be in the sums of the day.
    if let Some(seen) = look(&app).await {
        add_up(&app, &seen).await;
    }
    save(&app).await;
}

async fn save(app: &App) {
    if let Err(error) = days::write(app).await {
        tracing::warn!(error = %error, "what people use is not written down yet");
    }
    let app = app.clone();
    let saved = tokio::task::spawn_blocking(move || app.history.save()).await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(error = format!("{error:#}"), "the last hour's figures were not written");
    }
}

/// What the kernel shows of everything that runs.
async fn look(app: &App) -> Option<Vec<(Subject, Sample)>> {
    let subjects: Vec<Subject> = app
        .containers
        .live()
        .into_iter()
        .filter_map(|record| {
            let paths = record.live.as_ref()?.cgroup.clone();
            Some(Subject { run: record.run, paths, record })
        })
        .take(CONTAINERS_MAX)
        .collect();
    let read = tokio::task::spawn_blocking(move || {
        let seen = subjects.into_iter().filter_map(|subject| {
            // One that has ended since has no files any more.
            let sample = stats::read(&subject.paths).ok()?;
            Some((subject, sample))
        });
        seen.collect::<Vec<_>>()
    });
    read.await.ok()
}

/// Adds a look to the sums of the day.
async fn add_up(app: &App, seen: &[(Subject, Sample)]) {
    let mut looks: HashMap<PrincipalId, days::Look> = HashMap::new();
    for (subject, sample) in seen {
        let look = looks.entry(subject.record.person).or_default();
        look.paths.get_or_insert_with(|| subject.paths.clone());
        look.memory_bytes += sample.memory.used_bytes;
        look.containers += 1;
    }
    days::add(app, looks).await;
}

/// The part of a look that says whether something is used.
fn in_use(seen: &[(Subject, Sample)]) -> Vec<idle::Seen> {
    let one = |(subject, sample): &(Subject, Sample)| idle::Seen {
        id: subject.record.container.clone(),
        run: subject.run,
        paused: subject.record.status == Status::Paused,
        address: subject.record.live.as_ref().and_then(|live| live.address),
        cpu_usec: sample.cpu.usage_usec,
        io_bytes: sample.io.read_bytes.saturating_add(sample.io.write_bytes),
    };
    seen.iter().map(one).collect()
}

/// One look, and what follows from it.
async fn pass(app: &App, whole: bool) -> Result<()> {
    let Some(seen) = look(app).await else { return Ok(()) };
    let used = whole.then(|| in_use(&seen));
    if whole {
        add_up(app, &seen).await;
    }
    let killed = app.history.take(seen, Instant::now(), whole);
    if let Some(used) = used {
        idle::follow(app, used).await?;
    }
    if killed.is_empty() {
        return Ok(());
    }
    let mut write = app.inventory.observe().await?;
    for killed in killed {
        let event = NewEvent {
            owner: killed.owner,
            kind: "container.oom_killed",
            subject_kind: "container",
            subject: killed.container.as_str(),
            data: json!({"run": killed.run, "kills": killed.kills}),
        };
        write.event(event).await?;
        let object = ("container", killed.container.as_str(), killed.owner);
        let row = Row::unasked(By::Kernel, "container.oom-kill", object);
        let kills = u32::try_from(killed.kills).unwrap_or(u32::MAX);
        if let Some(row) = app.noise.admit(row.times(kills)) {
            write.note(row);
        }
    }
    write.commit().await
}
