//! Which request is worked on when. One request is never in two hands; who fails waits longer each
//! time, by full jitter (invariant 9).

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::k8s::ObjectName;

/// Requests by the time at which they are due.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeSet<(Instant, ObjectName)>,
    entries: HashMap<ObjectName, Entry>,
    running: usize,
}

#[derive(Debug, Default)]
struct Entry {
    /// When it was first told of.
    since: Option<Instant>,
    at: Option<Instant>,
    running: bool,
    failures: u32,
}

/// The first failure is waited for up to this long; each one after it, twice as long.
const BASE: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Of requests that are told the same moment, the last comes so much later.
const SPREAD: Duration = Duration::from_secs(5);

// === impl Queue ===

impl Queue {
    /// Something is to be done about this request at this time, or earlier if that was so before.
    pub(super) fn add(&mut self, name: ObjectName, now: Instant, at: Instant) {
        let entry = self.entries.entry(name.clone()).or_default();
        entry.since.get_or_insert(now);
        if entry.at.is_some_and(|before| before <= at) {
            return;
        }
        let before = entry.at.replace(at);
        if entry.running {
            // It waits for the one who has it.
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, name.clone()));
        }
        self.due.insert((at, name));
    }

    /// Nothing is to be done about it any more.
    pub(super) fn forget(&mut self, name: &ObjectName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(at) = entry.at.take()
            && !entry.running
        {
            self.due.remove(&(at, name.clone()));
        }
        if !entry.running {
            self.entries.remove(name);
        }
    }

    /// The next one that is due, and since when it has been here. It is in the caller's hands until
    /// [`Self::done`] or [`Self::put_off`].
    pub(super) fn take(&mut self, now: Instant) -> Option<(ObjectName, Instant)> {
        let first = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.due.remove(&first);
        let (_, name) = first;
        let entry = self.entries.entry(name.clone()).or_default();
        (entry.at, entry.running) = (None, true);
        self.running += 1;
        let since = *entry.since.get_or_insert(now);
        Some((name, since))
    }

    /// It is worked on no longer. `failed` says that it has to be tried again, after `Some` wait if
    /// the server named one.
    pub(super) fn done(
        &mut self,
        name: &ObjectName,
        failed: Option<Option<Duration>>,
        now: Instant,
        random: f64,
    ) {
        let Some(mut entry) = self.entries.remove(name) else { return };
        self.running -= 1;
        entry.running = false;
        let again = failed.map(|wait| {
            entry.failures = entry.failures.saturating_add(1);
            now + delay(entry.failures, wait, random)
        });
        // What was told meanwhile is only done sooner if nothing failed.
        if let Some(at) = again.or(entry.at) {
            entry.at = Some(at);
            self.due.insert((at, name.clone()));
            self.entries.insert(name.clone(), entry);
        }
    }

    /// It was taken too early: somebody else is at work.
    pub(super) fn put_off(&mut self, name: &ObjectName, at: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        self.running -= 1;
        entry.running = false;
        entry.at = Some(at);
        self.due.insert((at, name.clone()));
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many are worked on.
    pub(super) fn running(&self) -> usize {
        self.running
    }
}

/// How long to wait after so many failures in a row; `random` in [0, 1).
fn delay(failures: u32, wait: Option<Duration>, random: f64) -> Duration {
    if let Some(wait) = wait {
        return wait.min(LONGEST) + SPREAD.min(wait).mul_f64(random);
    }
    let bound = BASE * (1 << failures.saturating_sub(1).min(10));
    bound.min(LONGEST).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::cluster_wide(name)
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_earliest_comes_first_and_once() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add(name("b"), start, after(start, 2));
        queue.add(name("a"), start, after(start, 1));
        queue.add(name("a"), start, after(start, 9));
        queue.add(name("b"), start, after(start, 3));
        assert_eq!(queue.take(start), None);
        assert_eq!(queue.next_due(), Some(after(start, 1)));
        assert_eq!(queue.take(after(start, 9)), Some((name("a"), start)));
        assert_eq!(queue.take(after(start, 9)), Some((name("b"), start)));
        assert_eq!(queue.take(after(start, 9)), None);
        assert_eq!(queue.running(), 2);
    }

    #[test]
    fn what_is_told_meanwhile_waits_for_who_has_it() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add(name("a"), start, start);
        assert!(queue.take(start).is_some());
        queue.add(name("a"), start, start);
        assert_eq!(queue.take(start), None);
        queue.done(&name("a"), None, start, 0.5);
        assert!(queue.take(start).is_some());
        queue.done(&name("a"), None, start, 0.5);
        assert_eq!((queue.next_due(), queue.running()), (None, 0));
    }

    #[test]
    fn what_is_put_off_keeps_its_age() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add(name("a"), start, start);
        for millis in [100, 200, 300] {
            assert_eq!(queue.take(after(start, millis)), Some((name("a"), start)));
            queue.put_off(&name("a"), after(start, millis + 100));
            assert_eq!(queue.take(after(start, millis)), None);
            assert_eq!(queue.running(), 0);
        }
    }

    #[test]
    fn a_failure_is_tried_again_later_and_later() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add(name("a"), start, start);
        let mut now = start;
        for millis in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert!(queue.take(now).is_some());
            queue.done(&name("a"), Some(None), now, 1.0);
            now = after(now, millis);
            assert_eq!(queue.next_due(), Some(now));
        }
        assert_eq!(queue.take(now), Some((name("a"), start)));
        queue.done(&name("a"), Some(Some(Duration::from_secs(7))), now, 0.0);
        assert_eq!(queue.next_due(), Some(after(now, 7_000)));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add(name("a"), start, start);
        queue.forget(&name("a"));
        queue.forget(&name("a"));
        assert_eq!(queue.take(start), None);
        queue.add(name("b"), start, start);
        queue.take(start).unwrap();
        queue.add(name("b"), start, start);
        queue.forget(&name("b"));
        queue.done(&name("b"), None, start, 0.5);
        assert_eq!((queue.take(start), queue.running()), (None, 0));
        assert!(queue.entries.is_empty() && queue.due.is_empty());
    }

    proptest! {
        /// Any order of calls: nobody is in two hands, and nothing that is due is lost.
        #[test]
        fn one_request_is_in_one_hand(
            steps in prop::collection::vec((0..5_u8, 0..3_u8, 0..50_u64), 0..200),
        ) {
            let start = Instant::now();
            let mut queue = Queue::default();
            let mut held = std::collections::BTreeSet::new();
            let mut now = start;
            for (step, which, millis) in steps {
                let which = name(&which.to_string());
                now = after(now, millis);
                match step {
                    0 => queue.add(which, now, after(now, millis)),
                    1 => queue.forget(&which),
                    2 => if let Some((taken, _)) = queue.take(now) {
                        prop_assert!(held.insert(taken));
                    },
                    3 => if held.remove(&which) {
                        queue.put_off(&which, after(now, millis));
                    },
                    _ => if held.remove(&which) {
                        queue.done(&which, (millis % 2 == 0).then_some(None), now, 0.5);
                    },
                }
                prop_assert_eq!(queue.running(), held.len());
                for (at, name) in &queue.due {
                    let entry = &queue.entries[name];
                    prop_assert!(!entry.running && entry.at == Some(*at));
                }
                let waiting = queue.entries.values().filter(|e| !e.running && e.at.is_some());
                prop_assert_eq!(waiting.count(), queue.due.len());
            }
        }
    }
}
