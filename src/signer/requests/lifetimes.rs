//! Lifetimes that policy gave, for requests that have to say theirs.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::volume::VolumeId;

/// By volume. What is forgotten costs one request that is denied.
#[derive(Debug, Default)]
pub(super) struct Lifetimes(Mutex<HashMap<VolumeId, Duration>>);

/// More volumes than a node has.
const MOST: usize = 4096;

// === impl Lifetimes ===

impl Lifetimes {
    /// What policy gave this volume last.
    pub(super) fn of(&self, volume: &VolumeId) -> Option<Duration> {
        self.map().get(volume).copied()
    }

    /// Whether that is news.
    pub(super) fn learn(&self, volume: &VolumeId, lifetime: Duration) -> bool {
        let mut map = self.map();
        if map.len() >= MOST && !map.contains_key(volume) {
            map.clear();
        }
        map.insert(volume.clone(), lifetime) != Some(lifetime)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<VolumeId, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_counts_and_there_is_an_end() {
        let lifetimes = Lifetimes::default();
        let volume = |n: usize| format!("csi-{n}").parse::<VolumeId>().unwrap();
        let minute = Duration::from_secs(60);
        assert!(lifetimes.learn(&volume(0), minute));
        assert!(!lifetimes.learn(&volume(0), minute));
        assert!(lifetimes.learn(&volume(0), 2 * minute));
        assert_eq!(lifetimes.of(&volume(0)), Some(2 * minute));
        for n in 0..2 * MOST {
            lifetimes.learn(&volume(n), minute);
        }
        assert!(lifetimes.map().len() <= MOST);
    }
}
