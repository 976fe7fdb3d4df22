//! One attack or fault that was tried, and what came of it: asserted here, and one line of JSON in the
//! file that `BERTH_CHECKS` names, from which `tests/long` makes its table.
//!
//! A scenario is a test with a loop over variants:
//! ```ignore
//! for target in sample(&TARGETS, 5) {                       // all of them in tests/long
//!     let answer = anna.post("/api/v1/containers", &body(target)).await;
//!     Check { id: "R07", variant: target, control: "crun mounts there" }.sees(400, answer.status);
//! }
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// The row of the bar: `A01`, `F05`, …
    pub id: &'a str,
    /// What this one varies.
    pub variant: &'a str,
    /// What the same attack did where the guard is missing, as this run saw it; for a fault, how it was
    /// seen to have struck.
    pub control: &'a str,
}

impl Check<'_> {
    /// Compares, as text.
    ///
    /// # Panics
    /// When the two differ.
    #[track_caller]
    pub fn sees(self, expected: impl ToString, observed: impl ToString) {
        let (expected, observed) = (expected.to_string(), observed.to_string());
        let Self { id, variant, control } = self;
        let holds = self.holds(&expected, &observed);
        assert!(holds, "{id}, {variant}: {observed:?} instead of {expected:?} ({control})");
    }

    /// The same for a loop that goes on after a failure and asserts at its end.
    #[must_use]
    pub fn holds(self, expected: &str, observed: &str) -> bool {
        self.write(expected, observed);
        expected == observed
    }

    /// Takes whatever is found, so long as nothing is.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn finds_nothing<T: std::fmt::Debug>(self, found: &[T]) {
        let observed = if found.is_empty() { "nothing".to_owned() } else { format!("{found:?}") };
        self.sees("nothing", observed);
    }

    /// Writes down what was seen without failing the test; whether it is what was expected. For tests
    /// that go on to the end and tell of everything at once.
    #[must_use]
    pub fn notes(self, expected: impl ToString, observed: impl ToString) -> bool {
        let (expected, observed) = (expected.to_string(), observed.to_string());
        self.write(&expected, &observed);
        expected == observed
    }

    #[expect(clippy::print_stderr, reason = "a table that lacks a line must say so")]
    fn write(self, expected: &str, observed: &str) {
        let Some(path) = std::env::var_os("BERTH_CHECKS") else { return };
        let Self { id, variant, control } = self;
        let line = json!({
            "id": id, "variant": variant, "expected": expected, "observed": observed,
            "control": control,
        });
        let file = OpenOptions::new().create(true).append(true).open(path);
        // One write for a line: tests append side by side.
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            eprintln!("cannot write a check down: {error}");
        }
    }
}

/// Whether everything is to be tried (`BERTH_LONG=1`), or a sample.
pub fn is_long() -> bool {
    std::env::var_os("BERTH_LONG").is_some_and(|value| value == "1")
}

/// All of them in `tests/long`, else `few` by this run's seed.
pub fn sample<T: Clone>(all: &[T], few: usize) -> Vec<T> {
    let mut left = all.to_vec();
    if is_long() {
        return left;
    }
    let mut dice = Dice::new();
    while left.len() > few {
        left.swap_remove(dice.below(left.len()));
    }
    left
}

/// `much` in `tests/long`, else `little`.
pub fn times(much: usize, little: usize) -> usize {
    if is_long() { much } else { little }
}

/// Numbers that look random and come again with the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// By `BERTH_SEED`, else by the clock; each dice of a run is another's continuation, and the seed is
    /// said once, so that a failed run can be had again.
    #[expect(clippy::new_without_default, reason = "each one differs")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::seeded(seed().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// By a seed of one's own.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a usize fits");
        usize::try_from(self.roll() % end).expect("it is below a usize")
    }
}

/// The seed of this run.
#[expect(clippy::print_stderr, reason = "a failed run must be repeatable")]
pub fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("BERTH_SEED").ok();
        let seed = given.map_or_else(
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs()),
            |text| text.parse().expect("BERTH_SEED is a number"),
        );
        eprintln!("BERTH_SEED={seed}");
        seed
    })
}
