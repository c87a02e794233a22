//! What is counted in one Event, and when it is written: pure rules over time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};

use super::{EventReason, PodEvent};

/// The same again within this long is counted in the same Event.
const WINDOW: Duration = Duration::from_secs(600);
/// One Event is written no more often.
const PAUSE: Duration = Duration::from_secs(30);
/// How often the same write is tried.
const TRIES: u32 = 20;
/// So many pods and reasons are remembered.
const MOST: usize = 4_096;

/// A pod, by UID, and what happened to it.
type Key = (String, EventReason);

/// Events of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Series {
    known: BTreeMap<Key, One>,
    /// Those that are to be written, and when.
    queue: BTreeSet<(SystemTime, Key)>,
}

#[derive(Debug)]
struct One {
    write: Write,
    queued: Option<SystemTime>,
    /// Not before that.
    next: SystemTime,
    tries: u32,
}

/// An Event as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) event: PodEvent,
    /// The Event's name.
    pub(super) name: String,
    /// Whether it is there, and is only counted up.
    pub(super) exists: bool,
    pub(super) count: i32,
    pub(super) first: SystemTime,
    pub(super) last: SystemTime,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The Event was there and is no longer.
    Gone,
    /// The API server does not answer, or wants less.
    Later(Duration),
    /// It never will be.
    Refused,
}

// === impl Series ===

impl Series {
    /// Something happened.
    pub(super) fn note(&mut self, event: PodEvent, now: SystemTime) {
        let key = (event.uid.clone(), event.reason);
        self.forget(now);
        if let Some(one) = self.known.get_mut(&key) {
            one.write.count = one.write.count.saturating_add(1);
            one.write.last = now;
            one.write.event = event;
            let at = one.next.max(now);
            self.enqueue(&key, at);
            return;
        }
        let name = name(&event, now);
        let write = Write { event, name, exists: false, count: 1, first: now, last: now };
        self.known.insert(key.clone(), One { write, queued: None, next: now, tries: 0 });
        self.enqueue(&key, now);
    }

    /// When something is to be written next.
    pub(super) fn next_at(&self) -> Option<SystemTime> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// What is to be written now.
    pub(super) fn take(&mut self, now: SystemTime) -> Option<Write> {
        let (at, key) = self.queue.first()?.clone();
        if at > now {
            return None;
        }
        self.queue.pop_first();
        let one = self.known.get_mut(&key)?;
        one.queued = None;
        Some(one.write.clone())
    }

    /// Notes what became of a write; false if it is given up.
    pub(super) fn settle(&mut self, write: &Write, outcome: Outcome, now: SystemTime) -> bool {
        let key = (write.event.uid.clone(), write.event.reason);
        let Some(one) = self.known.get_mut(&key) else {
            return outcome == Outcome::Done;
        };
        one.tries += 1;
        match outcome {
            Outcome::Done => {
                one.write.exists = true;
                one.next = now + PAUSE;
                one.tries = 0;
                true
            }
            Outcome::Gone => {
                one.write.exists = false;
                one.write.name = name(&one.write.event, now);
                self.enqueue(&key, now);
                true
            }
            Outcome::Later(wait) if one.tries < TRIES => {
                one.next = now + wait;
                self.enqueue(&key, now + wait);
                true
            }
            Outcome::Later(_) | Outcome::Refused => {
                if let Some(one) = self.known.remove(&key)
                    && let Some(at) = one.queued
                {
                    self.queue.remove(&(at, key));
                }
                false
            }
        }
    }

    fn enqueue(&mut self, key: &Key, at: SystemTime) {
        if let Some(one) = self.known.get_mut(key)
            && one.queued.is_none()
        {
            one.queued = Some(at);
            self.queue.insert((at, key.clone()));
        }
    }

    /// What is over, and what is too much to remember, begins anew.
    fn forget(&mut self, now: SystemTime) {
        let full = self.known.len() >= MOST;
        self.known.retain(|_, one| {
            let age = now.duration_since(one.write.last).unwrap_or_default();
            one.queued.is_some() || (age <= WINDOW && !full)
        });
    }
}

/// The pod's name, cut, and a hash that no other Event has.
fn name(event: &PodEvent, now: SystemTime) -> String {
    let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let seed = format!("{} {} {nanos}", event.uid, event.reason.label());
    let hash = digest(&SHA256, seed.as_bytes());
    let hex: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let pod: String = event.name.chars().take(200).collect();
    format!("{}.{hex}", pod.trim_end_matches(['-', '.']))
}
