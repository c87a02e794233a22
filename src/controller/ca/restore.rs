//! A CA Secret from a backup: what it does not know happened since it was copied.

use super::{
    CaState,
    entry::Origin,
    jwt::{JwtEntry, JwtKeyStatus},
    lifecycle::{Published, Step, World},
    state::{Home, Refused},
    status::AuthorityStatus,
};
use crate::pki::sha256_hex;

/// A key that the ConfigMap calls stolen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stolen {
    pub(super) key_id: String,
    /// It, or its root, was taken out by force.
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

    pub(super) fn of_jwt_key(key: &JwtKeyStatus) -> Option<Self> {
        let (key_id, dropped) = (key.key_id.clone(), !key.published);
        (key.tainted || dropped).then_some(Self { key_id, dropped })
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
            let stages = self.state.entries.iter_mut().map(|entry| &mut entry.stage);
            for stage in stages.chain(self.state.jwt_keys.iter_mut().map(|entry| &mut entry.stage))
            {
                stage.set_first(false);
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
        let named = |entry: &&mut JwtEntry| entry.key_id() == stolen.key_id;
        for entry in self.state.jwt_keys.iter_mut().filter(named) {
            entry.tainted = true;
            if stolen.dropped {
                entry.drop_now(now);
            }
        }
        self.state.jwt_keys.retain(|entry| !(entry.tainted && entry.is_prepared()));
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
