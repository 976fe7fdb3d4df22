//! What people have used, summed by day: processor time, memory and images times time, running containers times time.
//!
//! The looks of [`super::history`] are added up here in memory and written down every few minutes. Processor time comes
//! from the counter of the person's cgroup, which what ends between two looks is in as well; how far it was is
//! written in the same commit, so that neither a kill nor an absence of the server loses any of it within a boot. Of the rest a
//! kill loses what was not written yet, and nothing is made up for times in which nobody looked.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_runtime::id::PrincipalId;
use berth_runtime::record::CgroupPaths;
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;
use utoipa::ToSchema;

use super::containers::view::OwnerView;
use super::stats;
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::usage_days::{self, DAY_QUARTERS, Day, QUARTER_SECS, Sums};
use crate::inventory::{people, usage};

const DAY_SECS: i64 = 86_400;
/// Days that are shown unless somebody asks for others.
const USUAL_DAYS: i64 = 30;
/// Days in one answer at most.
const DAYS_MAX: i64 = 400;
/// Rows in one answer at most.
const ROWS_MAX: u32 = 20_000;
/// Looks further apart than this say nothing of the time between them.
const APART_MAX: Duration = Duration::from_secs(60);
/// Days of which quarters of an hour are kept.
pub const QUARTER_DAYS: i64 = 8;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Sums that are not written down yet.
#[derive(Default)]
pub struct Days(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// By person and quarter of an hour.
    sums: HashMap<(PrincipalId, i64), Sums>,
    /// How far each person's counter of processor time was, in this boot.
    counters: HashMap<PrincipalId, u64>,
    looked_at: Option<Instant>,
    written_at: Option<Instant>,
    boot_id: String,
}

/// What one look saw of a person.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// A container's cgroups, by whose parent the person's counter is found.
    pub(super) paths: Option<CgroupPaths>,
    /// Bytes in all their containers.
    pub(super) memory_bytes: u64,
    /// Containers that run.
    pub(super) containers: u64,
}

/// What somebody has used on one day.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageDay {
    /// The day, in UTC: `2026-11-28`.
    pub day: String,
    /// Who.
    pub person: OwnerView,
    /// Hours of one core.
    pub cpu_hours: f64,
    /// GiB of memory in running containers, times hours.
    pub memory_gib_hours: f64,
    /// GiB of images, stored and unpacked, times hours.
    pub image_gib_hours: f64,
    /// Running containers, times hours.
    pub container_hours: f64,
}

impl UsageDay {
    /// Adds another day of the same person's.
    pub fn add(&mut self, more: &Self) {
        self.cpu_hours += more.cpu_hours;
        self.memory_gib_hours += more.memory_gib_hours;
        self.image_gib_hours += more.image_gib_hours;
        self.container_hours += more.container_hours;
    }
}

/// Days of use, the newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageDays {
    /// The first day that was asked for.
    pub from: String,
    /// The last one.
    pub to: String,
    /// A row for each person and day on which they used anything.
    pub items: Vec<UsageDay>,
}

/// Which days, of whom.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The first day, `YYYY-MM-DD`; 30 days up to the last one when left out.
    pub from: Option<String>,
    /// The last day; today when left out.
    pub to: Option<String>,
    /// One person; everybody who is visible when left out.
    pub person: Option<PrincipalId>,
}

impl Days {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads how far the counters were when they were last written in this boot.
pub(super) async fn load(app: &App) -> Result<()> {
    let boot_id = std::fs::read_to_string(BOOT_ID)
        .map_err(|error| Error::broken("read the boot's id", error))?
        .trim()
        .to_owned();
    let counters = usage_days::counters(app.inventory.read(), &boot_id).await?;
    let mut kept = app.days.kept();
    kept.counters = counters;
    kept.boot_id = boot_id;
    kept.written_at = Some(Instant::now());
    Ok(())
}

/// Adds one look at everybody who has something running.
pub(super) async fn add(app: &App, looks: HashMap<PrincipalId, Look>) {
    let read = tokio::task::spawn_blocking(move || {
        let read = looks.into_iter().map(|(person, look)| {
            let cpu_usec =
                look.paths.as_ref().and_then(|paths| stats::cpu_usec(&stats::parent(paths)).ok());
            (person, look, cpu_usec)
        });
        read.collect::<Vec<_>>()
    });
    let Ok(looks) = read.await else { return };
    app.days.kept().take(looks, Instant::now(), quarter());
}

impl Kept {
    fn take(&mut self, looks: Vec<(PrincipalId, Look, Option<u64>)>, at: Instant, quarter: i64) {
        let since = self.looked_at.map(|before| at.saturating_duration_since(before));
        let since = since.filter(|since| *since <= APART_MAX).unwrap_or_default();
        self.looked_at = Some(at);
        let over = |amount: u64| {
            let millis = u128::from(amount) * since.as_millis();
            u64::try_from(millis / 1000).unwrap_or(u64::MAX)
        };
        for (person, look, cpu_usec) in looks {
            let mut sums = Sums {
                memory_kib_secs: over(look.memory_bytes / 1024),
                container_secs: over(look.containers),
                ..Sums::default()
            };
            if let Some(now) = cpu_usec {
                let before = self.counters.insert(person, now).unwrap_or(0);
                // One that is lower was made anew.
                sums.cpu_usec = if now >= before { now - before } else { now };
            }
            self.sums.entry((person, quarter)).or_default().add(&sums);
        }
    }
}

/// Writes the sums down, and with them what images have taken since they were last written.
pub(super) async fn write(app: &App) -> Result<()> {
    let images = usage::images(app.inventory.read(), crate::auth::Visibility::Everyone).await?;
    let (sums, counters, boot_id) = {
        let mut kept = app.days.kept();
        let now = Instant::now();
        let since = kept.written_at.map(|before| now.saturating_duration_since(before));
        kept.written_at = Some(now);
        let secs = since.unwrap_or_default().as_secs();
        let quarter = quarter();
        for (owner, held) in &images {
            let image_kib_secs = (held.bytes / 1024).saturating_mul(secs);
            kept.sums
                .entry((*owner, quarter))
                .or_default()
                .add(&Sums { image_kib_secs, ..Sums::default() });
        }
        (std::mem::take(&mut kept.sums), kept.counters.clone(), kept.boot_id.clone())
    };
    let written = write_down(app, &sums, &counters, &boot_id).await;
    if written.is_err() {
        let mut kept = app.days.kept();
        for (whose, lost) in &sums {
            kept.sums.entry(*whose).or_default().add(lost);
        }
    }
    written
}

async fn write_down(
    app: &App,
    sums: &HashMap<(PrincipalId, i64), Sums>,
    counters: &HashMap<PrincipalId, u64>,
    boot_id: &str,
) -> Result<()> {
    let mut write = app.inventory.observe().await?;
    for (whose, sums) in sums.iter().filter(|(_, sums)| **sums != Sums::default()) {
        let (person, quarter) = *whose;
        let day = quarter.div_euclid(DAY_QUARTERS);
        usage_days::add(write.db(), (person, day), sums).await?;
        if (Sums { image_kib_secs: 0, ..*sums }) != Sums::default() {
            usage_days::add_quarter(write.db(), *whose, sums).await?;
        }
        if let Some(counter) = counters.get(&whose.0) {
            usage_days::set_counter(write.db(), whose.0, boot_id, *counter).await?;
        }
    }
    write.commit().await
}

/// What somebody has used by quarter of an hour from `first` on, oldest first; what is not written down yet as well.
///
/// # Errors
/// As the inventory's.
pub(super) async fn quarters(
    app: &App,
    person: PrincipalId,
    first: i64,
) -> Result<Vec<(i64, Sums)>> {
    let mut found = usage_days::quarters(app.inventory.read(), person, first).await?;
    let kept = app.days.kept();
    for ((_, quarter), sums) in kept.sums.iter().filter(|((whose, _), _)| *whose == person) {
        match found.iter_mut().find(|(known, _)| known == quarter) {
            Some((_, known)) => known.add(sums),
            None => found.push((*quarter, *sums)),
        }
    }
    drop(kept);
    found.retain(|(quarter, _)| *quarter >= first);
    found.sort_by_key(|(quarter, _)| *quarter);
    Ok(found)
}

/// Days of use: one's own, or for operators and auditors everybody's.
///
/// # Errors
/// When a day is none, there are too many, or the person is not visible.
pub async fn list(app: &App, caller: &Caller, wanted: &Wanted) -> Result<UsageDays> {
    let read = |pointer: &str, text: &Option<String>, usual: i64| match text {
        Some(text) => parse(text).ok_or_else(|| {
            Error::field(pointer, format!("{text:?} is no day: write it like 2026-11-28"))
        }),
        None => Ok(usual),
    };
    let to = read("/to", &wanted.to, today())?;
    let from = read("/from", &wanted.from, to - USUAL_DAYS + 1)?;
    if from > to || to - from >= DAYS_MAX {
        let rule = format!("the first day is to be before the last, by {DAYS_MAX} days at most");
        return Err(Error::field("/from", rule));
    }
    let db = app.inventory.read();
    if let Some(person) = wanted.person {
        people::find(db, caller.sees(), person).await?;
    }
    let rows = usage_days::list(db, caller.sees(), wanted.person, (from, to), ROWS_MAX + 1).await?;
    if rows.len() > ROWS_MAX as usize {
        let rule =
            format!("these days have more than {ROWS_MAX} rows: ask for fewer, or for one person");
        return Err(Error::field("/from", rule));
    }
    Ok(UsageDays { from: shown(from), to: shown(to), items: rows.iter().map(view).collect() })
}

fn view(row: &Day) -> UsageDay {
    let hours = |amount: u64, of: f64| {
        // Of what is shown the thousandth of an hour is fine enough.
        #[expect(clippy::cast_precision_loss, reason = "sums are far below 2^53")]
        let hours = amount as f64 / of / 3600.0;
        (hours * 1000.0).round() / 1000.0
    };
    const KIB_A_GIB: f64 = 1_048_576.0;
    UsageDay {
        day: shown(row.day),
        person: OwnerView { id: row.person.0, name: row.name.clone() },
        cpu_hours: hours(row.sums.cpu_usec, 1e6),
        memory_gib_hours: hours(row.sums.memory_kib_secs, KIB_A_GIB),
        image_gib_hours: hours(row.sums.image_kib_secs, KIB_A_GIB),
        container_hours: hours(row.sums.container_secs, 1.0),
    }
}

/// Today, in UTC, as days since 1970-01-01.
pub fn today() -> i64 {
    Time::now().secs().div_euclid(DAY_SECS)
}

/// The quarter of an hour that it is, since 1970.
pub fn quarter() -> i64 {
    Time::now().secs().div_euclid(QUARTER_SECS)
}

fn parse(text: &str) -> Option<i64> {
    let date = time::Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    let day = date.midnight().assume_utc().unix_timestamp().div_euclid(DAY_SECS);
    // From 1970 to 9999.
    (0..2_932_897).contains(&day).then_some(day)
}

/// A day as it is shown: `2026-11-28`.
pub fn shown(day: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(day.saturating_mul(DAY_SECS));
    at.unwrap_or(OffsetDateTime::UNIX_EPOCH).date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_they_are_shown() {
        for text in ["1970-01-01", "2026-11-28", "9999-12-31"] {
            assert_eq!(parse(text).map(shown).as_deref(), Some(text));
        }
        for text in ["", "2026-02-30", "28.11.2026", "1969-12-31", "2026-11-28T00:00:00Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn looks_are_added_up_and_gaps_are_not_made_up() {
        let who = PrincipalId(1000);
        let mut kept = Kept::default();
        let mut now = Instant::now();
        let mut look = |kept: &mut Kept, after: u64, cpu: u64| {
            now += Duration::from_secs(after);
            let look = Look { paths: None, memory_bytes: 1 << 20, containers: 2 };
            kept.take(vec![(who, look, Some(cpu))], now, 5);
            kept.sums[&(who, 5)]
        };
        // The counter is everything since the boot; of memory there is no span yet.
        let first = Sums { cpu_usec: 70, ..Sums::default() };
        assert_eq!(look(&mut kept, 0, 70), first);
        let second =
            Sums { cpu_usec: 100, memory_kib_secs: 10_240, image_kib_secs: 0, container_secs: 20 };
        assert_eq!(look(&mut kept, 10, 100), second);
        // The server was away: its containers went on computing, and nobody saw their memory.
        assert_eq!(look(&mut kept, 3600, 150), Sums { cpu_usec: 150, ..second });
        // The person's cgroup was made anew.
        assert_eq!(look(&mut kept, 0, 30).cpu_usec, 180);
    }
}
