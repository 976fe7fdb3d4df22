//! Keeps the audit from being filled: of what is the same within a minute (a refusal that is asked for
//! again and again, a container that its policy starts again and again) the first is a row, and the rest
//! is counted into one more. What differs each time is told apart up to a number of kinds, for each
//! person or address alone; beyond, it is counted, too. Memory is bounded.
//!
//! What was done for a caller is never held back: its row is in the commit of what it tells of.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::inventory::audit::{Charged, Essence, Row};

/// What is the same within this is counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds told apart within that, of one person or address.
const KINDS_MAX: usize = 256;
/// Persons and addresses told apart; all others together are one.
const CHARGED_MAX: usize = 4096;
/// Kinds of all of them together.
const ALL_KINDS_MAX: usize = 16_384;

/// What is held back to be counted.
#[derive(Default)]
pub struct Noise(Mutex<Held>);

#[derive(Default)]
struct Held {
    of: HashMap<Charged, Window>,
    kinds: usize,
}

/// What one person or address did since `began`.
struct Window {
    began: Instant,
    seen: HashMap<Essence, Option<Row>>,
}

impl Noise {
    /// The row to write now for this one; `None` when it is counted instead.
    pub fn admit(&self, row: Row) -> Option<Row> {
        self.admit_at(row, Instant::now())
    }

    /// Rows for what was counted and is over; with `All`, for everything that was.
    pub fn take(&self, which: Which) -> Vec<Row> {
        self.take_at(which, Instant::now())
    }

    fn admit_at(&self, row: Row, now: Instant) -> Option<Row> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = held.of.len() >= CHARGED_MAX;
        let charged = match row.charged() {
            Charged::Address(_) if full => Charged::Address(String::new()),
            charged => charged,
        };
        let Held { of, kinds } = &mut *held;
        let window =
            of.entry(charged).or_insert_with(|| Window { began: now, seen: HashMap::new() });
        let known = window.seen.contains_key(&row.essence());
        let told_apart = known || (window.seen.len() < KINDS_MAX && *kinds < ALL_KINDS_MAX);
        let row = if told_apart { row } else { row.various() };
        match window.seen.entry(row.essence()) {
            std::collections::hash_map::Entry::Vacant(first) => {
                first.insert(None);
                *kinds += 1;
                Some(row)
            }
            std::collections::hash_map::Entry::Occupied(mut again) => {
                let times = again.get().as_ref().map_or(0, Row::count);
                let times = times.saturating_add(row.count());
                again.insert(Some(row.times(times)));
                None
            }
        }
    }

    fn take_at(&self, which: Which, now: Instant) -> Vec<Row> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::new();
        held.of.retain(|_, window| {
            let over = which == Which::All || now.duration_since(window.began) >= WINDOW;
            if over {
                rows.extend(window.seen.drain().filter_map(|(_, counted)| counted));
            }
            !over
        });
        held.kinds = held.of.values().map(|window| window.seen.len()).sum();
        rows.sort_by_key(Row::at);
        rows
    }
}

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What began long enough ago.
    Over,
    /// All: the server ends.
    All,
}

#[cfg(test)]
mod tests {
    use berth_runtime::id::PrincipalId;

    use super::*;
    use crate::inventory::audit::By;

    fn row(owner: u32, action: &str) -> Row {
        Row::unasked(By::Policy, action, ("container", "x", PrincipalId(owner)))
    }

    #[test]
    fn what_is_the_same_is_counted_and_comes_when_its_minute_is_over() {
        let (noise, now) = (Noise::default(), Instant::now());
        assert!(noise.admit_at(row(1001, "container.restart"), now).is_some());
        for _ in 0..5 {
            assert!(noise.admit_at(row(1001, "container.restart"), now).is_none());
        }
        // Another's, and another act, are told apart.
        assert!(noise.admit_at(row(1002, "container.restart"), now).is_some());
        assert!(noise.admit_at(row(1001, "container.lost"), now).is_some());
        assert!(noise.take_at(Which::Over, now).is_empty());
        let counts = |rows: Vec<Row>| rows.iter().map(Row::count).collect::<Vec<_>>();
        assert_eq!(counts(noise.take_at(Which::Over, now + WINDOW)), [5]);
        assert!(noise.admit_at(row(1001, "container.restart"), now + WINDOW).is_some());
        assert!(noise.admit_at(row(1001, "container.restart"), now + WINDOW).is_none());
        assert_eq!(counts(noise.take_at(Which::All, now + WINDOW)), [1]);
    }

    #[test]
    fn what_differs_each_time_is_counted_beyond_a_number_of_kinds() {
        let (noise, now) = (Noise::default(), Instant::now());
        let written = (0..10_000)
            .filter(|number| noise.admit_at(row(1001, &format!("act{number}")), now).is_some());
        assert_eq!(written.count(), KINDS_MAX + 1);
        assert!(noise.admit_at(row(1002, "act"), now).is_some(), "nobody else is held back");
        let rest = noise.take_at(Which::All, now);
        let counted: usize = rest.iter().map(|row| row.count() as usize).sum();
        assert_eq!(counted, 10_000 - KINDS_MAX - 1);
        assert!(noise.0.lock().expect("not poisoned").of.is_empty());
    }
}
