//! Slows guessing down without letting a stranger lock an owner out.
//!
//! A failed sign-in counts against the account *as strangers see it* and against the address. A
//! browser that the owner has signed in with before shows a device cookie and is counted on its
//! own: whatever strangers do to the account, that browser still gets in (OWASP's device cookies).
//! Delays double from one second after [`FREE_TRIES`] failures and end at [`DELAY_SECS_MAX`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::keys::SecretHash;

/// Failures without delay.
const FREE_TRIES: u32 = 5;
/// An address serves many accounts, and all of a lab may come from one.
const FREE_TRIES_ADDRESS: u32 = 30;
/// The longest delay.
const DELAY_SECS_MAX: u64 = 300;
/// Failures are forgotten after this.
const FORGET: Duration = Duration::from_secs(3600);
/// Counters kept; the oldest goes first.
const COUNTERS_MAX: usize = 20_000;

/// What failures are counted against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Counted {
    /// A name, known or not, tried without that person's device cookie.
    Account(String),
    /// A name tried with this device cookie of theirs.
    Device(SecretHash),
    /// An address; of IPv6 the first 64 bits.
    Address(IpAddr),
}

struct Counter {
    failures: u32,
    last: Instant,
}

/// The counters.
#[derive(Default)]
pub struct Throttle {
    counters: Mutex<HashMap<Counted, Counter>>,
}

impl Throttle {
    /// Seconds to wait before the next try, if any of these must.
    pub fn wait_secs(&self, counted: &[Counted]) -> Option<u64> {
        let counters = self.lock();
        let now = Instant::now();
        let waits = counted.iter().filter_map(|key| {
            let counter = counters.get(key)?;
            let until = counter.last + delay(key, counter.failures);
            let left = until.checked_duration_since(now)?;
            Some(left.as_secs() + 1)
        });
        waits.max()
    }

    /// Counts a failure. Called before the password is checked, so that parallel guesses count too;
    /// [`Throttle::forget`] takes it back.
    pub fn count(&self, counted: &[Counted]) {
        let mut counters = self.lock();
        let now = Instant::now();
        if counters.len() + counted.len() > COUNTERS_MAX {
            counters.retain(|_, counter| now.duration_since(counter.last) < FORGET);
        }
        while counters.len() + counted.len() > COUNTERS_MAX {
            let oldest = counters.iter().min_by_key(|(_, counter)| counter.last);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            counters.remove(&oldest);
        }
        for key in counted {
            let counter = counters.entry(key.clone()).or_insert(Counter { failures: 0, last: now });
            if now.duration_since(counter.last) >= FORGET {
                counter.failures = 0;
            }
            counter.failures = counter.failures.saturating_add(1);
            counter.last = now;
        }
    }

    /// Forgets what was counted against these: the password was right.
    pub fn forget(&self, counted: &[Counted]) {
        let mut counters = self.lock();
        for key in counted {
            // One success of many accounts behind an address must not pay for all their failures.
            if let (Counted::Address(_), Some(counter)) = (key, counters.get_mut(key)) {
                counter.failures = counter.failures.saturating_sub(1);
            } else {
                counters.remove(key);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Counted, Counter>> {
        self.counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Counted {
    /// An address's counter. Loopback has none: through tunnels it is everybody's, and one could keep
    /// all others out.
    pub fn address(address: IpAddr) -> Option<Self> {
        (!address.is_loopback()).then(|| Self::Address(network_of(address)))
    }
}

/// What is counted as one address: of IPv6 the first 64 bits, which one host can fill by itself.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let bits = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
    }
}

fn delay(key: &Counted, failures: u32) -> Duration {
    let free = match key {
        Counted::Account(_) | Counted::Device(_) => FREE_TRIES,
        Counted::Address(_) => FREE_TRIES_ADDRESS,
    };
    if failures < free {
        return Duration::ZERO;
    }
    let secs = 1u64.checked_shl(failures - free).unwrap_or(u64::MAX);
    Duration::from_secs(
        if failures - free > 20 { DELAY_SECS_MAX } else { secs }.min(DELAY_SECS_MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_slows_strangers_down_but_not_the_owners_browser() {
        let throttle = Throttle::default();
        let stranger = [Counted::Account("anna".into())];
        let owner = [Counted::Device([1; 32])];
        for _ in 0..FREE_TRIES {
            assert_eq!(throttle.wait_secs(&stranger), None);
            throttle.count(&stranger);
        }
        assert!(throttle.wait_secs(&stranger).is_some());
        assert_eq!(throttle.wait_secs(&owner), None);
        throttle.forget(&stranger);
        assert_eq!(throttle.wait_secs(&stranger), None);
    }

    #[test]
    fn delays_grow_to_a_limit() {
        let key = Counted::Account(String::new());
        let secs: Vec<u64> = (0..40).map(|failures| delay(&key, failures).as_secs()).collect();
        assert_eq!(secs[..9], [0, 0, 0, 0, 0, 1, 2, 4, 8]);
        assert_eq!(secs[39], DELAY_SECS_MAX);
        assert!(secs.is_sorted());
    }

    #[test]
    fn counters_are_bounded() {
        let throttle = Throttle::default();
        for number in 0..COUNTERS_MAX + 50 {
            throttle.count(&[Counted::Account(number.to_string())]);
        }
        assert!(throttle.lock().len() <= COUNTERS_MAX);
    }
}
