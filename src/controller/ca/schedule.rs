//! When the next step of the CAs' life is due.

use super::{CaSettings, CaState, entry::Entry, moment::Moment, signing::NotReady};

// === impl CaState ===

impl CaState {
    /// The prepared CA that will sign next.
    pub(super) fn next(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_prepared() && !entry.tainted)
    }

    /// When the next CA has to be prepared: at half of the active one's life.
    pub(super) fn prepare_at(&self) -> Option<Moment> {
        self.active().map(|active| active.sixths(3))
    }

    /// When a prepared CA begins to sign; nothing while it is not published. An own CA waits for ⅔
    /// of the active one's life unless there is a reason to hurry.
    pub(super) fn activate_at(&self, next: &Entry, settings: &CaSettings) -> Option<Moment> {
        let usable = self.usable_at(next, settings)?;
        Some(next.life().activate_at(usable, self.active().map(Entry::life).as_ref()))
    }

    /// The next step and when it is due.
    pub(super) fn next_step(&self, settings: &CaSettings) -> Option<(&'static str, Moment)> {
        if let Some(next) = self.next() {
            return Some(("activate", self.activate_at(next, settings)?));
        }
        let active = self.active()?;
        match settings.upstream {
            // Its owner renews it; we can only say when it is late.
            Some(_) => Some(("renew-upstream", active.sixths(5))),
            None => Some(("prepare", self.prepare_at()?)),
        }
    }

    /// Why no CA signs, where one will.
    pub(super) fn obstacle(&self, settings: &CaSettings) -> Option<NotReady> {
        let next = self.next()?;
        let key = &next.ca.key_id;
        Some(match self.activate_at(next, settings) {
            Some(at) => {
                let reason =
                    format!("the CA {key} is new: it is published first and signs at {at}");
                NotReady::new(reason).until(at)
            }
            None => NotReady::new(format!("the CA {key} is new and not published yet")),
        })
    }
}
