//! One container's points, and its newest look. Pure: times come from outside.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{KEPT, POINT_PAUSE};
use crate::clock::Time;
use crate::service::stats::Sample;

/// Points of one container at most.
pub(super) const POINTS_MAX: usize = 367;
/// As many as fit into [`KEPT`], one more for its two ends.
const _: () = assert!(POINTS_MAX as u64 == KEPT.as_secs() / POINT_PAUSE.as_secs() + 1);
/// Points that a ring grows by, so that a young container's takes little.
const POINTS_STEP: usize = 46;
/// Two looks further apart than this are not two ends of one point: the machine slept, or nobody
/// looked.
const APART_MAX: Duration = Duration::from_secs(25);
/// Memory is kept in KiB and traffic in units of 16 bytes a second, so that four bytes are enough.
const KIB: u64 = 1024;
const TRAFFIC_BYTES: u64 = 16;

/// What a container used around one point in time. Rates are means since the point before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Point {
    /// Seconds since 1970.
    pub(super) at: u32,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    pub(super) used_kib: u32,
    pub(super) working_set_kib: u32,
    /// Processes and threads.
    pub pids: u32,
    pub(super) read_units: u32,
    pub(super) write_units: u32,
}

/// What a container uses now.
#[derive(Debug, Clone)]
pub struct Used {
    /// Which run.
    pub run: u64,
    /// The kernel's counters.
    pub sample: Sample,
    /// Thousandths of a core since the look before; none at the first look.
    pub cpu_millis: Option<u64>,
}

/// One look.
pub(super) struct Seen {
    pub run: u64,
    /// By the clock that nobody sets.
    pub at: Instant,
    pub sample: Sample,
    /// Processes killed for memory in this run so far.
    pub oom_kills: u64,
    /// When the run began.
    pub started_at: Time,
}

/// The points and what the next one is measured from.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) points: VecDeque<Point>,
    /// The look that the next point is measured from.
    base: Option<Seen>,
    /// The newest look, and the rate since the one before it.
    last: Option<(Seen, Option<u64>)>,
    /// Run, kills that were told, and when.
    told: Option<(u64, u64, Option<Instant>)>,
}

impl Point {
    /// When.
    pub fn time(&self) -> Time {
        Time(i64::from(self.at) * 1000)
    }

    /// All memory that counts to the limit.
    pub fn used_bytes(&self) -> u64 {
        u64::from(self.used_kib) * KIB
    }

    /// Memory that cannot be taken back easily.
    pub fn working_set_bytes(&self) -> u64 {
        u64::from(self.working_set_kib) * KIB
    }

    /// Bytes read a second.
    pub fn read_bytes(&self) -> u64 {
        u64::from(self.read_units) * TRAFFIC_BYTES
    }

    /// Bytes written a second.
    pub fn write_bytes(&self) -> u64 {
        u64::from(self.write_units) * TRAFFIC_BYTES
    }

    fn between(base: &Seen, now: &Seen) -> Option<Self> {
        let elapsed = now.at.saturating_duration_since(base.at);
        if base.run != now.run || elapsed.is_zero() || elapsed > APART_MAX {
            return None;
        }
        let rate = |from: u64, to: u64, unit: u64| {
            let per_second =
                u128::from(to.saturating_sub(from)) * 1000 / elapsed.as_millis().max(1);
            fits(per_second / u128::from(unit))
        };
        let (from, to) = (&base.sample, &now.sample);
        Some(Self {
            at: u32::try_from(to.time.secs()).ok()?,
            // Microseconds a second are thousandths of a core times a thousand.
            cpu_millis: rate(from.cpu.usage_usec, to.cpu.usage_usec, 1000),
            used_kib: fits(u128::from(to.memory.used_bytes / KIB)),
            working_set_kib: fits(u128::from(to.memory.working_set_bytes / KIB)),
            pids: fits(u128::from(to.pids)),
            read_units: rate(from.io.read_bytes, to.io.read_bytes, TRAFFIC_BYTES),
            write_units: rate(from.io.write_bytes, to.io.write_bytes, TRAFFIC_BYTES),
        })
    }
}

impl Ring {
    /// Takes a look; with `keep` a point is made of it, if there is a look to measure it from.
    pub(super) fn look(&mut self, seen: Seen, keep: bool) {
        let rate = self
            .last
            .as_ref()
            .and_then(|(before, _)| Point::between(before, &seen))
            .map(|point| u64::from(point.cpu_millis));
        self.note_kills(&seen);
        let due = self.base.as_ref().is_none_or(|base| base.run != seen.run);
        if keep || due {
            let point = self.base.as_ref().and_then(|base| Point::between(base, &seen));
            if let Some(point) = point.filter(|_| keep) {
                self.push(point);
            }
            self.base = Some(seen.clone());
        }
        self.last = Some((seen, rate));
    }

    /// It does not run now.
    pub(super) fn rest(&mut self) {
        self.base = None;
        self.last = None;
    }

    pub(super) fn latest(&self) -> Option<Used> {
        let (seen, cpu_millis) = self.last.as_ref()?;
        Some(Used { run: seen.run, sample: seen.sample.clone(), cpu_millis: *cpu_millis })
    }

    pub(super) fn since(&self, since: Time) -> Vec<Point> {
        self.points.iter().filter(|point| point.time() >= since).copied().collect()
    }

    pub(super) fn has_points(&self) -> bool {
        !self.points.is_empty()
    }

    /// Drops points before `oldest`; answers whether there is anything left to keep.
    pub(super) fn age_out(&mut self, oldest: Time) -> bool {
        while self.points.front().is_some_and(|point| point.time() < oldest) {
            self.points.pop_front();
        }
        self.has_points() || self.last.is_some()
    }

    /// Kills since the last time they were told, unless that was less than `pause` ago.
    pub(super) fn take_kills(&mut self, now: Instant, pause: Duration) -> Option<u64> {
        let kills = self.last.as_ref().map(|(seen, _)| seen.oom_kills)?;
        let (_, told, at) = self.told.as_mut()?;
        let soon = at.is_some_and(|at| now.saturating_duration_since(at) < pause);
        if kills <= *told || soon {
            return None;
        }
        let fresh = kills - *told;
        (*told, *at) = (kills, Some(now));
        Some(fresh)
    }

    /// What was killed before the server looked for the first time has been told by the server
    /// before, or cannot be dated.
    fn note_kills(&mut self, seen: &Seen) {
        if self.told.is_some_and(|(run, ..)| run == seen.run) {
            return;
        }
        let age = seen.sample.time.0.saturating_sub(seen.started_at.0);
        let young = u128::try_from(age).is_ok_and(|age| age < APART_MAX.as_millis());
        let at = self.told.and_then(|(_, _, at)| at);
        self.told = Some((seen.run, if young { 0 } else { seen.oom_kills }, at));
    }

    fn push(&mut self, point: Point) {
        // A clock that was set back takes back what it had said of the future.
        while self.points.back().is_some_and(|last| last.at >= point.at) {
            self.points.pop_back();
        }
        if self.points.len() >= POINTS_MAX {
            self.points.pop_front();
        }
        if self.points.len() == self.points.capacity() {
            self.points.reserve_exact(POINTS_STEP);
        }
        self.points.push_back(point);
    }
}

impl Clone for Seen {
    fn clone(&self) -> Self {
        Self { sample: self.sample.clone(), ..*self }
    }
}

fn fits(value: u128) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::service::stats::{CpuUse, IoUse, MemoryUse};

    const START: i64 = 1_795_224_225;

    /// A look `secs` after the start, at a container that keeps half a core busy.
    fn seen(run: u64, begun: Instant, secs: u64) -> Seen {
        Seen {
            run,
            at: begun + Duration::from_secs(secs),
            sample: Sample {
                time: Time((START + i64::try_from(secs).expect("small")) * 1000),
                cpu: CpuUse { usage_usec: secs * 500_000, ..CpuUse::default() },
                memory: MemoryUse {
                    used_bytes: 10 << 20,
                    working_set_bytes: 8 << 20,
                    ..MemoryUse::default()
                },
                pids: 3,
                io: IoUse { write_bytes: secs * 4096, ..IoUse::default() },
            },
            oom_kills: 0,
            started_at: Time(START * 1000),
        }
    }

    pub(in super::super) fn filled(count: u64) -> Ring {
        let mut ring = Ring::default();
        let begun = Instant::now();
        for number in 0..=count {
            ring.look(seen(1, begun, number * 10), true);
        }
        ring
    }

    #[test]
    fn points_are_means_and_the_oldest_go_first() {
        let ring = filled(1000);
        assert_eq!(ring.points.len(), POINTS_MAX);
        assert!(ring.points.capacity() * size_of::<Point>() <= 11 << 10, "bounded memory");
        let point = ring.points.back().expect("a point");
        assert_eq!((point.cpu_millis, point.pids), (500, 3));
        assert_eq!((point.used_bytes(), point.working_set_bytes()), (10 << 20, 8 << 20));
        assert_eq!((point.read_bytes(), point.write_bytes()), (0, 4096));
        assert_eq!(point.time(), Time((START + 10_000) * 1000));
        let two = ring.since(Time((START + 9_990) * 1000));
        assert_eq!(two.len(), 2);
    }

    #[test]
    fn nothing_is_measured_over_a_gap_or_another_run() {
        let begun = Instant::now();
        let mut ring = Ring::default();
        ring.look(seen(1, begun, 0), true);
        ring.look(seen(1, begun, 10), true);
        ring.look(seen(1, begun, 100), true);
        assert_eq!(ring.points.len(), 1, "ninety seconds without a look are no point");
        ring.look(seen(2, begun, 110), true);
        assert_eq!(ring.points.len(), 1, "counters of another run begin anew");
        ring.look(seen(2, begun, 120), true);
        assert_eq!(ring.points.len(), 2);
        ring.rest();
        assert!(ring.latest().is_none());
        ring.look(seen(2, begun, 130), true);
        assert_eq!(ring.points.len(), 2);
    }

    #[test]
    fn looks_between_points_only_move_the_newest() {
        let begun = Instant::now();
        let mut ring = Ring::default();
        ring.look(seen(1, begun, 0), false);
        ring.look(seen(1, begun, 2), false);
        assert_eq!(ring.latest().and_then(|used| used.cpu_millis), Some(500));
        assert!(!ring.has_points());
        ring.look(seen(1, begun, 10), true);
        assert_eq!(ring.points.len(), 1, "measured from the first look on");
    }

    #[test]
    fn kills_are_told_once_and_not_all_the_time() {
        let begun = Instant::now();
        let pause = Duration::from_secs(60);
        let mut ring = Ring::default();
        let mut look = |secs: u64, kills| {
            let now = Seen { oom_kills: kills, ..seen(1, begun, secs) };
            let at = now.at;
            ring.look(now, true);
            ring.take_kills(at, pause)
        };
        assert_eq!(look(0, 1), Some(1), "a young run's kills are news");
        assert_eq!(look(10, 1), None);
        assert_eq!(look(20, 3), None, "too soon");
        assert_eq!(look(70, 4), Some(3));
        let mut old = Ring::default();
        let now = Seen { oom_kills: 7, ..seen(1, begun, 500) };
        let at = now.at;
        old.look(now, true);
        assert_eq!(old.take_kills(at, pause), None, "an old run's were told before");
    }

    #[test]
    fn a_clock_set_back_leaves_time_in_order() {
        let begun = Instant::now();
        let mut ring = filled(5);
        let mut late = seen(1, begun, 60);
        late.sample.time = Time((START + 20) * 1000);
        ring.base = Some(seen(1, begun, 50));
        ring.look(late, true);
        let times: Vec<u32> = ring.points.iter().map(|point| point.at).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}
