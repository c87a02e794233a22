//! How many connections and calls there are, and of whom.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Metrics,
    limits::{CALLS_OF_ONE, CONNECTIONS, CONNECTIONS_OF_ONE, STRANGERS, STRANGERS_OF_ONE},
};

/// Lets connections in. Whoever has not proven yet to be a driver is a stranger, and there may be
/// fewer of those; a driver in turn has its share, so that one node that floods starves no other.
#[derive(Debug, Default)]
pub(super) struct Gate {
    inside: Mutex<Inside>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Inside {
    connections: usize,
    strangers: usize,
    by_address: HashMap<IpAddr, usize>,
    /// By the UID of the driver's pod: its connections, and its calls on all of them.
    drivers: HashMap<String, (usize, Arc<Share>)>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
    driver: OnceLock<(String, Arc<Share>)>,
}

/// How many calls there may be at once, and how many there are.
#[derive(Debug)]
pub(super) struct Share {
    most: usize,
    calls: AtomicUsize,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Share>);

// === impl Gate ===

impl Gate {
    pub(super) fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { metrics, ..Self::default() })
    }

    /// A place for a connection from this address, if there is one left.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut inside = self.inside();
        if inside.connections >= CONNECTIONS || inside.strangers >= STRANGERS {
            return None;
        }
        let of_one = inside.by_address.get(&address).copied().unwrap_or_default();
        if of_one >= STRANGERS_OF_ONE {
            return None;
        }
        inside.by_address.insert(address, of_one + 1);
        inside.connections += 1;
        inside.strangers += 1;
        self.count(&inside);
        Some(Place { gate: self.clone(), address, driver: OnceLock::new() })
    }

    fn count(&self, inside: &Inside) {
        self.metrics.connected(inside.connections, inside.strangers);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inside ===

impl Inside {
    fn stranger_gone(&mut self, address: IpAddr) {
        self.strangers -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    fn driver_gone(&mut self, driver: &str) {
        if let Some((count, _)) = self.drivers.get_mut(driver) {
            *count -= 1;
            if *count == 0 {
                self.drivers.remove(driver);
            }
        }
    }
}

// === impl Place ===

impl Place {
    /// From now on it is the connection of this driver's pod (UID), whose share of calls it gets;
    /// nothing if that has too many connections.
    pub(super) fn prove(&self, driver: &str) -> Option<Arc<Share>> {
        if let Some((_, share)) = self.driver.get() {
            return Some(share.clone());
        }
        let mut inside = self.gate.inside();
        // Two calls at once may have come here.
        if let Some((_, share)) = self.driver.get() {
            return Some(share.clone());
        }
        let (count, share) = inside
            .drivers
            .entry(driver.to_owned())
            .or_insert_with(|| (0, Share::new(CALLS_OF_ONE)));
        if *count >= CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        let share = share.clone();
        let _first = self.driver.set((driver.to_owned(), share.clone()));
        inside.stranger_gone(self.address);
        self.gate.count(&inside);
        Some(share)
    }

    /// Whether it is a driver's.
    pub(super) fn is_known(&self) -> bool {
        self.driver.get().is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        match self.driver.get() {
            Some((driver, _)) => inside.driver_gone(driver),
            None => inside.stranger_gone(self.address),
        }
        inside.connections -= 1;
        self.gate.count(&inside);
    }
}

// === impl Share ===

impl Share {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, calls: AtomicUsize::new(0) })
    }

    /// One more call, if there may be one.
    pub(super) fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        let call = UnderWay(self.clone());
        // What is counted too much goes with the call.
        (self.calls.fetch_add(1, Ordering::Relaxed) < self.most).then_some(call)
    }
}

// === impl UnderWay ===

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: usize) -> IpAddr {
        IpAddr::from([10, 0, (last >> 8) as u8, last as u8])
    }

    fn count(gate: &Gate) -> (usize, usize) {
        let inside = gate.inside();
        (inside.connections, inside.strangers)
    }

    #[test]
    fn a_flood_from_one_address_is_in_nobodys_way() {
        let gate = Gate::new(Metrics::default());
        let flood: Vec<_> = std::iter::from_fn(|| gate.enter(address(1))).collect();
        assert_eq!(flood.len(), STRANGERS_OF_ONE);
        let other = gate.enter(address(2)).unwrap();
        assert_eq!(count(&gate), (STRANGERS_OF_ONE + 1, STRANGERS_OF_ONE + 1));
        // Who has proven itself takes no stranger's place.
        assert!(!flood[0].is_known());
        assert!(flood[0].prove("d-1").is_some() && flood[0].prove("d-1").is_some());
        assert!(flood[0].is_known());
        assert_eq!(count(&gate), (STRANGERS_OF_ONE + 1, STRANGERS_OF_ONE));
        let again = gate.enter(address(1)).unwrap();
        assert!(gate.enter(address(1)).is_none());
        drop((flood, other, again));
        assert_eq!(count(&gate), (0, 0));
        let inside = gate.inside();
        assert!(inside.by_address.is_empty() && inside.drivers.is_empty());
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let gate = Gate::new(Metrics::default());
        let mut places = Vec::new();
        for number in 0.. {
            let Some(place) = gate.enter(address(number)) else { break };
            places.push(place);
        }
        assert_eq!(places.len(), STRANGERS);
        for (number, place) in places.iter().enumerate() {
            place.prove(&number.to_string()).unwrap();
        }
        for number in places.len().. {
            let Some(place) = gate.enter(address(number)) else { break };
            place.prove(&number.to_string()).unwrap();
            places.push(place);
        }
        assert_eq!(places.len(), CONNECTIONS);
    }

    // DESIGN.md invariant 9, seen from the other side: one node's flood is its own.
    #[test]
    fn a_driver_has_its_share_on_all_its_connections_together() {
        let gate = Gate::new(Metrics::default());
        let places: Vec<_> =
            (0..=CONNECTIONS_OF_ONE).map(|number| gate.enter(address(number)).unwrap()).collect();
        let shares: Vec<_> = places.iter().filter_map(|place| place.prove("d-1")).collect();
        assert_eq!(shares.len(), CONNECTIONS_OF_ONE);
        assert!(!places[CONNECTIONS_OF_ONE].is_known(), "one too many stays a stranger");
        let calls: Vec<_> =
            shares.iter().cycle().map_while(|share| share.begin()).take(10_000).collect();
        assert_eq!(calls.len(), CALLS_OF_ONE);
        let other = places[CONNECTIONS_OF_ONE].prove("d-2").unwrap();
        assert!(other.begin().is_some(), "another driver has its own");
        drop(calls);
        assert!(shares[0].begin().is_some());
    }
}
