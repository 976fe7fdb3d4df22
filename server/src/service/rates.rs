//! What containers use per second: a rate is made of two looks at the kernel's counters, and this
//! holds the first of the two. In memory only; nothing depends on it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::containers::output::{self, StatsView};
use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;

/// Looks closer together than this say little, so the rate of before is kept.
const APART: Duration = Duration::from_millis(400);
/// An older look is none: its rate would be of another time.
const OLD: Duration = Duration::from_secs(30);
/// Between the two looks when nobody has looked before.
const FIRST_PAUSE: Duration = Duration::from_millis(120);
/// Containers remembered at most.
const LOOKS_MAX: usize = 4096;

/// The looks of before.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, Look>>);

#[derive(Clone)]
struct Look {
    seen: StatsView,
    millis: Option<u64>,
}

/// What a container uses now.
#[derive(Debug, Clone)]
pub struct Use {
    /// The kernel's counters.
    pub seen: StatsView,
    /// Thousandths of a core.
    pub cpu_millis: u64,
}

/// What these containers use; those that don't run are left out.
pub async fn of(app: &App, caller: &Caller, ids: &[String]) -> HashMap<String, Use> {
    let mut out = HashMap::new();
    let mut fresh = Vec::new();
    for id in ids {
        match look(app, caller, id).await {
            Some((seen, Some(cpu_millis))) => {
                out.insert(id.clone(), Use { seen, cpu_millis });
            }
            Some((_, None)) => fresh.push(id),
            None => {}
        }
    }
    if !fresh.is_empty() {
        tokio::time::sleep(FIRST_PAUSE).await;
        for id in fresh {
            let Ok(seen) = output::stats(app, caller, id).await else { continue };
            let before = app.rates.before(id);
            let rate = before.and_then(|before| rate(&before.seen, &seen));
            let cpu_millis = rate.unwrap_or(0);
            app.rates.keep(id, Look { seen: seen.clone(), millis: rate });
            out.insert(id.clone(), Use { seen, cpu_millis });
        }
    }
    out
}

/// One look, with the rate since the one before if there was one.
async fn look(app: &App, caller: &Caller, id: &str) -> Option<(StatsView, Option<u64>)> {
    let seen = output::stats(app, caller, id).await.ok()?;
    let before = app.rates.before(id).filter(|before| before.seen.run == seen.run);
    let Some(before) = before.filter(|before| apart(&before.seen, &seen) < OLD) else {
        app.rates.keep(id, Look { seen: seen.clone(), millis: None });
        return Some((seen, None));
    };
    if apart(&before.seen, &seen) < APART && before.millis.is_some() {
        return Some((seen, before.millis));
    }
    let millis = rate(&before.seen, &seen);
    app.rates.keep(id, Look { seen: seen.clone(), millis });
    Some((seen, millis))
}

fn apart(before: &StatsView, now: &StatsView) -> Duration {
    let Time(now) = now.sample.time;
    let Time(before) = before.sample.time;
    Duration::from_millis(u64::try_from(now - before).unwrap_or(0))
}

fn rate(before: &StatsView, now: &StatsView) -> Option<u64> {
    let micros = u64::try_from(apart(before, now).as_micros()).ok().filter(|&micros| micros > 0)?;
    let used = now.sample.cpu.usage_usec.saturating_sub(before.sample.cpu.usage_usec);
    Some(used.saturating_mul(1000) / micros)
}

impl Rates {
    fn before(&self, id: &str) -> Option<Look> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn keep(&self, id: &str, look: Look) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= LOOKS_MAX && !looks.contains_key(id) {
            looks.clear();
        }
        looks.insert(id.to_owned(), look);
    }
}
