//! How many connections there are, together and of one address, so that no address takes them all.
//! When all places are taken, whoever has waited longest without asking for anything gives theirs up:
//! a crowd that only sits there keeps nobody out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::auth::throttle::network_of;

/// Counts what is open, together and by address.
#[derive(Clone)]
pub struct Places(Arc<Inner>);

struct Inner {
    total_max: usize,
    each_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    each: HashMap<IpAddr, usize>,
    /// Those that wait for a request, the longest first.
    waiting: BTreeMap<u64, Arc<Notify>>,
    last: u64,
}

/// One place, given back when dropped.
pub struct Place {
    places: Places,
    address: Option<IpAddr>,
    /// Where it stands among those that wait; 0 while a request is worked on. Written only under the
    /// lock of the counts.
    turn: AtomicU64,
    /// What is worked on for it. Written only under the same lock.
    works: AtomicU64,
    leave: Arc<Notify>,
}

/// A request that is worked on.
pub struct Working(Arc<Place>);

impl Places {
    /// Room for `total_max`, and for `each_max` of one address.
    pub fn new(total_max: usize, each_max: usize) -> Self {
        Self(Arc::new(Inner { total_max, each_max, counts: Mutex::default() }))
    }

    /// A place, if there is one; without an address only the total counts. Of IPv6 the first 64 bits
    /// are one address.
    pub fn take(&self, address: Option<IpAddr>) -> Option<Place> {
        self.claim(address.map(network_of), |_| None)
    }

    /// A place; if there is none, that of whoever waits for nothing longest. Whoever holds one must
    /// leave when [`Place::is_needed`] says so.
    pub fn take_in(&self, address: Option<IpAddr>) -> Option<Place> {
        let place = self.claim(address.map(network_of), |counts| {
            let (_, leave) = counts.waiting.pop_first()?;
            leave.notify_one();
            // It ends in a moment, and is counted until then: those who come never wait for it.
            Some(())
        })?;
        place.wait(&mut self.lock());
        Some(place)
    }

    fn claim(
        &self,
        address: Option<IpAddr>,
        make_room: impl FnOnce(&mut Counts) -> Option<()>,
    ) -> Option<Place> {
        let mut counts = self.lock();
        if address.is_some_and(|address| {
            counts.each.get(&address).is_some_and(|count| *count >= self.0.each_max)
        }) {
            return None;
        }
        if counts.total >= self.0.total_max {
            make_room(&mut counts)?;
        }
        if let Some(address) = address {
            // Entries are never more than places, so the map is bounded.
            *counts.each.entry(address).or_insert(0) += 1;
        }
        counts.total += 1;
        let (turn, works, leave) = Default::default();
        Some(Place { places: self.clone(), address, turn, works, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A request has come; until what is returned is dropped, the place is not taken away.
    pub fn work(self: &Arc<Self>) -> Working {
        let mut counts = self.places.lock();
        counts.waiting.remove(&self.turn.swap(0, Ordering::Relaxed));
        self.works.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(self))
    }

    /// Comes back when the place is needed for somebody else and no request is worked on.
    pub async fn is_needed(&self) {
        loop {
            self.leave.notified().await;
            // A request that began in the same moment is answered first.
            if self.turn.load(Ordering::Relaxed) != 0 {
                return;
            }
        }
    }

    fn wait(&self, counts: &mut Counts) {
        counts.last += 1;
        counts.waiting.insert(counts.last, Arc::clone(&self.leave));
        self.turn.store(counts.last, Ordering::Relaxed);
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut counts = self.0.places.lock();
        if self.0.works.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.wait(&mut counts);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        counts.waiting.remove(&self.turn.load(Ordering::Relaxed));
        counts.total -= 1;
        if let Some(address) = self.address
            && let Some(count) = counts.each.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                counts.each.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_never_has_all_places() {
        let places = Places::new(4, 2);
        let address = |text: &str| Some(text.parse().expect("an address"));
        let first = places.take(address("192.0.2.1")).expect("room");
        let _second = places.take(address("192.0.2.1")).expect("room");
        assert!(places.take(address("192.0.2.1")).is_none());
        let _third = places.take(address("2001:db8::1")).expect("room for another");
        let _fourth = places.take(address("2001:db8::2")).expect("the same network's second");
        assert!(places.take(None).is_none(), "four are all");
        drop(first);
        assert!(places.take(address("2001:db8::3")).is_none(), "the network has its two");
        assert!(places.take(address("192.0.2.1")).is_some());
    }

    #[tokio::test]
    async fn whoever_waits_longest_makes_room_and_whoever_is_worked_for_stays() {
        let places = Places::new(2, 2);
        let taken = || Arc::new(places.take_in(None).expect("room"));
        let (first, second) = (taken(), taken());
        let working = first.work();
        let third = taken();
        second.is_needed().await;
        drop(second);
        assert!(places.take(None).is_none(), "two are all");
        // Now the third waits longest, then the first, whose request is done.
        drop(working);
        let _fourth = taken();
        third.is_needed().await;
        let _fifth = taken();
        first.is_needed().await;
        // The control: nobody is asked while there is room.
        let places = Places::new(2, 2);
        let (one, _two) = (Arc::new(places.take_in(None).expect("room")), places.take_in(None));
        let asked = tokio::time::timeout(std::time::Duration::from_millis(50), one.is_needed());
        assert!(asked.await.is_err());
    }
}
