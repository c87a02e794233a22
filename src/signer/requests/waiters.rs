//! Who waits for which request: one watch wakes them all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

/// By the request's name: how many wait, and what wakes them. A retry may overlap the call that it
/// replaces.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<String, (usize, Arc<Notify>)>>);

/// Someone's place in the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    waiters: Arc<Waiters>,
    name: String,
    changed: Arc<Notify>,
    in_flight: Gauge,
}

// === impl Waiters ===

impl Waiters {
    pub(super) fn wait(self: &Arc<Self>, name: &str, in_flight: Gauge) -> Waiting {
        let mut map = self.map();
        let (count, changed) = map.entry(name.to_owned()).or_default();
        *count += 1;
        in_flight.inc();
        Waiting {
            waiters: self.clone(),
            name: name.to_owned(),
            changed: changed.clone(),
            in_flight,
        }
    }

    /// The request changed.
    pub(super) fn wake(&self, name: &str) {
        if let Some((_, changed)) = self.map().get(name) {
            // Also one who has looked and does not wait yet.
            changed.notify_waiters();
            changed.notify_one();
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.map().contains_key(name)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, (usize, Arc<Notify>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    /// Ends with the next change, or at once if there was one since.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.in_flight.dec();
        let mut map = self.waiters.map();
        if let Some((count, _)) = map.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                map.remove(&self.name);
            }
        }
    }
}
