//! A CA Secret from a backup: what it does not know happened since it was copied.

use super::{
    CaState,
    entry::{Entry, Origin, Stage},
    lifecycle::{Published, Step, World},
    moment::Moment,
    settings::SKEW,
    state::{Home, Refused},
    status::AuthorityStatus,
};
use crate::pki::sha256_hex;

/// A key that the ConfigMap calls stolen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stolen {
    pub(super) key_id: String,
    /// Its root was taken out by force.
    pub(super) dropped: bool,
}

/// Whether this state was written to another Secret than it is in, or is older than what we
/// published. Nothing may be signed with it before the leader took it over.
pub(super) fn is_restored(state: &CaState, home: &Home, published: Option<&Published>) -> bool {
    let elsewhere =
        home.secret.is_some() && state.home.secret.is_some() && state.home.secret != home.secret;
    let newer = |there: &Published| there.ours && there.bundle.sequence() > Some(state.sequence);
    elsewhere || published.is_some_and(newer)
}

// === impl Stolen ===

impl Stolen {
    pub(super) fn of(ca: &AuthorityStatus) -> Option<Self> {
        let (key_id, dropped) = (ca.key_id.clone(), !ca.published);
        (ca.tainted || dropped).then_some(Self { key_id, dropped })
    }
}

// === impl Step ===

impl Step<'_> {
    /// Makes an older copy fit for now. Which of its roots the nodes have is only known if they were
    /// told nothing since; else each is published anew, for as long as a new one.
    pub(super) fn take_over(&mut self, world: &World) {
        let same_map = world.home.map.is_some() && self.state.home.map == world.home.map;
        let same_bundle = world.published.as_ref().is_some_and(|there| {
            there.ours && there.bundle.sequence() == Some(self.state.sequence)
        });
        self.state.restored = Some(self.now);
        if !(same_map && same_bundle) {
            self.state.published.clear();
            // Another number: nodes may have had newer bundles than the one that was restored.
            self.state.bundle.clear();
            for entry in &mut self.state.entries {
                if let Stage::Prepared { first, .. } | Stage::Active { first, .. } =
                    &mut entry.stage
                {
                    *first = false;
                }
            }
        }
        for stolen in &world.stolen {
            self.remember(stolen);
        }
    }

    /// The copy may be from before a key was stolen.
    fn remember(&mut self, stolen: &Stolen) {
        let now = self.now;
        for entry in self.state.entries.iter_mut().filter(|entry| entry.has_key(&stolen.key_id)) {
            entry.tainted = true;
            if entry.origin != Origin::Root {
                let key = sha256_hex(entry.ca.certificate.spki_der());
                self.state.refused.entry(key).or_insert(Refused::Tainted);
            }
            if stolen.dropped {
                entry.drop_now(now);
            }
        }
        self.state.entries.retain(|entry| !(entry.tainted && entry.is_prepared()));
    }

    /// Notes where the state is kept from now on.
    pub(super) fn settle_in(&mut self, home: &Home) {
        let known = |new: &Option<String>, old: &mut Option<String>| {
            if new.is_some() {
                old.clone_from(new);
            }
        };
        known(&home.secret, &mut self.state.home.secret);
        known(&home.map, &mut self.state.home.map);
    }
}

// === impl Entry ===

impl Entry {
    /// Takes its root out of the bundle and its key away; it is remembered as long as something
    /// under it may live.
    pub(super) fn drop_now(&mut self, now: Moment) {
        self.ca.authority = None;
        let over = now.after(self.max_ttl + SKEW);
        self.stage = match self.stage {
            Stage::Retired { sign_from, sign_until, remove_at, .. } => Stage::Retired {
                sign_from,
                sign_until: sign_until.min(now),
                remove_at,
                dropped: true,
            },
            Stage::Foreign { remove_at } => {
                Stage::Retired { sign_from: None, sign_until: now, remove_at, dropped: true }
            }
            Stage::Active { sign_from, .. } => Stage::Retired {
                sign_from: Some(sign_from),
                sign_until: now,
                remove_at: over,
                dropped: true,
            },
            stage @ Stage::Prepared { .. } => stage,
        };
    }
}
