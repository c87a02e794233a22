//! Requests that nobody needs any more are deleted, in the background.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// How long a request may have nobody who waits for it. Kubelet's own retries are two minutes apart.
pub(super) const UNATTENDED: Duration = Duration::from_secs(180);
/// Those beyond it stay for the sweep, or for the API server's own after an hour.
const MAX_QUEUE: usize = 4096;

/// Requests to be deleted: UID by name.
#[derive(Debug, Default)]
pub(super) struct Tidy {
    names: Mutex<BTreeMap<String, String>>,
    more: Notify,
}

/// Since when a request has had nobody who waits for it.
#[derive(Debug, Default)]
pub(super) struct Orphans(HashMap<String, Instant>);

// === impl Tidy ===

impl Tidy {
    pub(super) fn delete(&self, name: String, uid: String) {
        let mut names = self.names();
        if names.len() < MAX_QUEUE {
            names.insert(name, uid);
            drop(names);
            self.more.notify_one();
        }
    }

    /// The next few; none if there are none.
    pub(super) fn take(&self, most: usize) -> Vec<(String, String)> {
        let mut names = self.names();
        let taken = std::iter::from_fn(|| names.pop_first());
        taken.take(most).collect()
    }

    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Orphans ===

impl Orphans {
    /// Which of these have had nobody for long. Call it now and then with all that nobody waits
    /// for.
    pub(super) fn look(&mut self, unattended: Vec<String>, now: Instant) -> Vec<String> {
        let before = std::mem::take(&mut self.0);
        let mut old = Vec::new();
        for name in unattended {
            let since = *before.get(&name).unwrap_or(&now);
            if now - since >= UNATTENDED {
                old.push(name.clone());
            }
            self.0.insert(name, since);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_is_old_after_three_minutes_without_a_break() {
        let start = Instant::now();
        let mut orphans = Orphans::default();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut look = |minute: u64, unattended: &[&str]| {
            orphans.look(names(unattended), start + Duration::from_secs(60 * minute))
        };
        assert!(look(0, &["a", "b"]).is_empty());
        // Someone waits for b again for a while.
        assert!(look(1, &["a"]).is_empty());
        assert!(look(2, &["a", "b"]).is_empty());
        assert_eq!(look(3, &["a", "b"]), ["a"]);
        assert_eq!(look(5, &["b"]), ["b"]);
    }

    #[test]
    fn each_name_is_deleted_once_and_the_queue_is_bounded() {
        let tidy = Tidy::default();
        for n in 0..2 * MAX_QUEUE {
            tidy.delete(format!("svid-{n}"), "uid".to_owned());
            tidy.delete(format!("svid-{n}"), "uid".to_owned());
        }
        assert_eq!(tidy.take(3).len(), 3);
        assert_eq!(tidy.take(usize::MAX).len(), MAX_QUEUE - 3);
        assert!(tidy.take(1).is_empty());
    }
}
