//! How many connections there are, together and of one address, so that no address takes them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

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
}

/// One place, given back when dropped.
pub struct Place {
    places: Places,
    address: Option<IpAddr>,
}

impl Places {
    /// Room for `total_max`, and for `each_max` of one address.
    pub fn new(total_max: usize, each_max: usize) -> Self {
        Self(Arc::new(Inner { total_max, each_max, counts: Mutex::default() }))
    }

    /// A place, if there is one; without an address only the total counts. Of IPv6 the first 64 bits
    /// are one address.
    pub fn take(&self, address: Option<IpAddr>) -> Option<Place> {
        let address = address.map(network_of);
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.0.total_max {
            return None;
        }
        if let Some(address) = address {
            // Entries are never more than places, so the map is bounded.
            let count = counts.each.entry(address).or_insert(0);
            if *count >= self.0.each_max {
                return None;
            }
            *count += 1;
        }
        counts.total += 1;
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
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
}
