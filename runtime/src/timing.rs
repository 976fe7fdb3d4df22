//! Where the time of a start or a pull goes, for whoever asks: with `[runtime] timing = true` each
//! process writes a line per phase to the journal, `timing: <process> <what> <µs> <phase>`.
//!
//! One clock per process, since each has one thread and one piece of work at a time. Off, a phase costs
//! one look at a variable. Never called between `clone3` and `execve`.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::supervise::say;

struct Clock {
    process: &'static str,
    what: String,
    last: Instant,
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// Starts the clock for a piece of work, if `on`.
pub(crate) fn begin(on: bool, process: &'static str, what: impl Display) {
    let clock = on.then(|| Clock { process, what: what.to_string(), last: Instant::now() });
    CLOCK.set(clock);
}

/// A phase is over; the next begins.
pub(crate) fn done(phase: &str) {
    CLOCK.with_borrow_mut(|clock| {
        let Some(clock) = clock else { return };
        let now = Instant::now();
        line(clock, phase, now - clock.last);
        // Not the time that the line itself took.
        clock.last = Instant::now();
    });
}

/// A phase that was timed elsewhere: in pieces, or in a child.
pub(crate) fn note(phase: &str, took: Duration) {
    CLOCK.with_borrow(|clock| {
        if let Some(clock) = clock {
            line(clock, phase, took);
        }
    });
}

fn line(clock: &Clock, phase: &str, took: Duration) {
    say(&format!("timing: {} {} {} {phase}", clock.process, clock.what, took.as_micros()));
}
