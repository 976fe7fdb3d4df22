//! How many requests an address or a person may make: one minute's worth at once, then at the rate
//! that is configured (the generic cell rate algorithm, which needs one point in time for each).
//!
//! Nobody spends another's: who has signed in pays from a budget of their own, whatever others do
//! from the same address; and loopback, which through tunnels is everybody's, is not counted. Memory
//! is bounded: what has been saved up again is forgotten first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_runtime::id::PrincipalId;

use super::keys::SecretHash;
use super::throttle::network_of;
use crate::config::RatesConfig;

/// What can be saved up.
const WINDOW: Duration = Duration::from_secs(60);
/// Spenders remembered at most.
const SPENDERS_MAX: usize = 20_000;

/// Who pays, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spender {
    /// An address, for requests of nobody who has signed in.
    Address(IpAddr),
    /// An address, for tries to sign in.
    SignIns(IpAddr),
    /// A browser that its owner has signed in with before, for tries to sign in.
    DeviceSignIns(SecretHash),
    /// A person, for any request.
    Person(PrincipalId),
    /// A person, for changes.
    Changes(PrincipalId),
    /// A person, for what costs much.
    Costly(PrincipalId),
}

/// A budget after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Its name, as headers and problems have it.
    pub name: &'static str,
    /// Requests per minute, and at most at once.
    pub per_min: u32,
    /// Requests left now.
    pub left: u32,
    /// Seconds until all is there again.
    pub full_secs: u64,
    /// Seconds until the next one; zero unless it is used up.
    pub wait_secs: u64,
}

/// All budgets.
pub struct Budgets {
    rates: RatesConfig,
    /// When each spender's budget is whole again; later ones have spent more.
    whole_at: Mutex<HashMap<Spender, Instant>>,
}

impl Spender {
    /// An address's budget; loopback has none.
    pub fn address(address: IpAddr) -> Option<Self> {
        (!address.is_loopback()).then(|| Self::Address(network_of(address)))
    }

    /// An address's budget of sign-ins; loopback has none.
    pub fn sign_ins(address: IpAddr) -> Option<Self> {
        (!address.is_loopback()).then(|| Self::SignIns(network_of(address)))
    }

    fn rate(self, rates: &RatesConfig) -> (&'static str, u32) {
        match self {
            Self::Address(_) => ("address", rates.address_per_min),
            Self::SignIns(_) | Self::DeviceSignIns(_) => ("sign-ins", rates.sign_ins_per_min),
            Self::Person(_) => ("person", rates.person_per_min),
            Self::Changes(_) => ("changes", rates.changes_per_min),
            Self::Costly(_) => ("costly", rates.costly_per_min),
        }
    }
}

impl Budgets {
    /// Budgets at these rates.
    pub fn new(rates: &RatesConfig) -> Self {
        Self { rates: rates.clone(), whole_at: Mutex::default() }
    }

    /// Spends one request.
    ///
    /// # Errors
    /// The budget that is used up; nothing was spent.
    pub fn spend(&self, spender: Spender) -> Result<Budget, Budget> {
        self.spend_at(spender, Instant::now())
    }

    fn spend_at(&self, spender: Spender, now: Instant) -> Result<Budget, Budget> {
        let (name, per_min) = spender.rate(&self.rates);
        let step = WINDOW / per_min.max(1);
        let mut all = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        let whole_at = all.get(&spender).copied().unwrap_or(now).max(now);
        let after = whole_at + step;
        let owed = after - now;
        if owed > WINDOW {
            return Err(Budget {
                name,
                per_min,
                left: 0,
                full_secs: secs(whole_at - now),
                wait_secs: secs(owed - WINDOW).max(1),
            });
        }
        if all.len() >= SPENDERS_MAX && !all.contains_key(&spender) {
            make_room(&mut all, now);
        }
        all.insert(spender, after);
        let left = (WINDOW - owed).as_nanos() / step.as_nanos().max(1);
        let left = u32::try_from(left).unwrap_or(per_min);
        Ok(Budget { name, per_min, left, full_secs: secs(owed), wait_secs: 0 })
    }
}

/// Forgets whoever has nothing to pay back, and if that is not enough, the half that owes least.
fn make_room(all: &mut HashMap<Spender, Instant>, now: Instant) {
    all.retain(|_, whole_at| *whole_at > now);
    if all.len() >= SPENDERS_MAX {
        let mut times: Vec<Instant> = all.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        all.retain(|_, whole_at| *whole_at > median);
    }
}

/// Whole seconds, upwards.
fn secs(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        Budgets::new(&RatesConfig { person_per_min: 60, ..RatesConfig::default() })
    }

    #[test]
    fn a_minutes_worth_at_once_and_then_at_the_rate() {
        let (budgets, now) = (budgets(), Instant::now());
        let anna = Spender::Person(PrincipalId(1000));
        for left in (0..60).rev() {
            let budget = budgets.spend_at(anna, now).expect("there is some left");
            assert_eq!((budget.left, budget.full_secs), (left, u64::from(60 - left)));
        }
        let used_up = budgets.spend_at(anna, now).expect_err("used up");
        assert_eq!((used_up.wait_secs, used_up.name), (1, "person"));
        let later = now + Duration::from_secs(2);
        assert!(budgets.spend_at(anna, later).is_ok() && budgets.spend_at(anna, later).is_ok());
        assert!(budgets.spend_at(anna, later).is_err());
        // Another's is untouched.
        assert!(budgets.spend_at(Spender::Person(PrincipalId(1001)), later).is_ok());
    }

    #[test]
    fn loopback_pays_nothing_and_one_network_pays_together() {
        let at = |text: &str| Spender::address(text.parse().expect("an address"));
        assert!(at("127.0.0.1").is_none() && at("::1").is_none());
        assert_eq!(at("2001:db8::1"), at("2001:db8::2"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn memory_is_bounded_and_the_greediest_are_remembered() {
        let (budgets, now) = (budgets(), Instant::now());
        let greedy = Spender::Person(PrincipalId(1));
        for _ in 0..60 {
            budgets.spend_at(greedy, now).expect("there is some left");
        }
        for number in 0..50_000u32 {
            let spender = Spender::Address(IpAddr::from(number.to_be_bytes()));
            budgets.spend_at(spender, now).expect("a new one");
        }
        assert!(budgets.whole_at.lock().expect("not poisoned").len() <= SPENDERS_MAX);
        assert!(budgets.spend_at(greedy, now).is_err(), "forgotten, and so paid for");
    }
}
