//! From one JWT key to the next (DESIGN.md invariant 6), by the rules of the CAs.

use std::sync::Arc;

use super::{
    super::{
        CaSettings, CaState,
        lifecycle::{MAX_ENTRIES, Published, Step, Unfinished},
        moment::Moment,
        settings::{HANDOVER, SKEW},
        signing::NotReady,
        stage::Stage,
    },
    JwtEntry,
};
use crate::jose::{JwtAuthority, JwtKey};

// === impl CaState ===

impl CaState {
    pub(in super::super) fn active_jwt(&self) -> Option<&JwtEntry> {
        self.jwt_keys.iter().find(|entry| entry.is_active())
    }

    /// The prepared key that will sign next.
    pub(in super::super) fn next_jwt(&self) -> Option<&JwtEntry> {
        self.jwt_keys.iter().find(|entry| entry.is_prepared() && !entry.tainted)
    }

    pub(in super::super) fn jwt_key(&self, id: &str) -> Option<&JwtEntry> {
        self.jwt_keys.iter().find(|entry| entry.key.id == id)
    }

    /// Every JWT key to be trusted, in the order they came.
    pub(in super::super) fn jwt_authorities(&self) -> Vec<JwtAuthority> {
        let published = self.jwt_keys.iter().filter(|entry| entry.stage.is_published());
        published.map(|entry| entry.key.authority.clone()).collect()
    }

    /// When a prepared key begins to sign; nothing while it is not published.
    pub(in super::super) fn activate_jwt_at(
        &self,
        next: &JwtEntry,
        settings: &CaSettings,
    ) -> Option<Moment> {
        let since = *self.published.get(&next.key.id)?;
        let usable = next.life().usable_at(since, settings.propagation);
        Some(next.life().activate_at(usable, self.active_jwt().map(JwtEntry::life).as_ref()))
    }

    /// The next step of the JWT keys and when it is due.
    pub(in super::super) fn next_jwt_step(
        &self,
        settings: &CaSettings,
    ) -> Option<(&'static str, Moment)> {
        match self.next_jwt() {
            Some(next) => Some(("activate", self.activate_jwt_at(next, settings)?)),
            None => Some(("prepare", self.active_jwt()?.life().sixths(3))),
        }
    }

    /// Why no JWT key signs, where one will.
    pub(in super::super) fn jwt_obstacle(&self, settings: &CaSettings) -> Option<NotReady> {
        let next = self.next_jwt()?;
        let key = next.key_id();
        Some(match self.activate_jwt_at(next, settings) {
            Some(at) => {
                let reason =
                    format!("the JWT key {key} is new: it is published first and signs at {at}");
                NotReady::new(reason).until(at)
            }
            None => NotReady::new(format!("the JWT key {key} is new and not published yet")),
        })
    }
}

// === impl Step ===

impl Step<'_> {
    /// Makes the next JWT key when its time has come.
    pub(in super::super) fn prepare_next_jwt(&mut self) -> Result<(), Unfinished> {
        let active = self.state.active_jwt();
        let due = active.is_none_or(|active| active.life().wants_a_next(self.now));
        match due && self.state.next_jwt().is_none() {
            true => self.prepare_jwt(false),
            false => Ok(()),
        }
    }

    /// Takes the key that was made for this into the set; it signs later.
    pub(super) fn prepare_jwt(&mut self, hurry: bool) -> Result<(), Unfinished> {
        let unused = |key: &Arc<JwtKey>| self.state.jwt_key(key.authority().key_id()).is_none();
        let key = self.jwt_key.take().filter(unused).ok_or(Unfinished::NeedsJwtKey)?;
        let settings = &self.settings.jwt;
        let mut entry = JwtEntry::prepared(key, settings.lifetime, settings.max_ttl, self.now);
        entry.stage = Stage::Prepared { hurry, first: false };
        self.state.jwt_keys.push(entry);
        Ok(())
    }

    /// Lets the next key sign if it is its turn, and stops the one before.
    pub(in super::super) fn activate_jwt(&mut self) {
        let now = self.now;
        let Some(next) = self.state.next_jwt().filter(|next| next.life().is_alive(now)) else {
            return;
        };
        if self.state.activate_jwt_at(next, self.settings).is_none_or(|at| now < at) {
            return;
        }
        let (id, first) = (next.key.id.clone(), next.stage.is_first());
        for entry in &mut self.state.jwt_keys {
            if entry.key.id == id {
                entry.stage = Stage::Active { sign_from: now, first };
            } else {
                entry.retire(now);
            }
        }
    }

    pub(in super::super) fn end_jwt_keys_that_are_over(&mut self) {
        let (now, max_ttl) = (self.now, self.settings.jwt.max_ttl);
        for entry in &mut self.state.jwt_keys {
            if entry.is_active() || entry.is_prepared() {
                entry.max_ttl = entry.max_ttl.max(max_ttl);
            }
            // A key that nobody may use any more need not exist.
            if entry.life().signed_its_last(now) {
                entry.key.private = None;
            }
        }
        self.state.jwt_keys.retain(|entry| !entry.life().is_over(now));
    }

    /// Trusts a key of which there is no private half until what it signed has ended.
    pub(in super::super) fn add_foreign_jwt(&mut self, authority: &JwtAuthority) {
        let remove_at = self.now.after(HANDOVER + self.settings.jwt.max_ttl + SKEW);
        let id = authority.thumbprint();
        let full = self.state.jwt_keys.len() >= MAX_ENTRIES;
        let known = self.state.jwt_keys.iter_mut().find(|entry| entry.key.id == id);
        match known.map(|known| &mut known.stage) {
            Some(Stage::Foreign { remove_at: at }) => *at = remove_at.max(*at),
            Some(_) => {}
            None if full => self.problems.push(format!(
                "the ConfigMap {} has more JWT keys than can be kept; tokens under {} fail",
                self.settings.config_map,
                authority.key_id()
            )),
            None => {
                self.state.jwt_keys.push(JwtEntry::foreign(authority.clone(), remove_at, self.now));
            }
        }
    }

    /// JWT keys that we published and know nothing of: the CA Secret is an older copy.
    pub(in super::super) fn take_back_jwt_keys(&mut self, published: &Published) {
        for authority in published.bundle.jwt_authorities().iter() {
            let id = authority.thumbprint();
            let known = self.state.jwt_key(&id);
            if known.is_some_and(|known| known.key.authority == *authority) {
                continue;
            }
            if !published.ours {
                self.problems.push(format!(
                    "the ConfigMap {} had a JWT key that is not ours ({}); it is taken out: does another controller write it?",
                    self.settings.config_map,
                    authority.key_id()
                ));
            } else if published.bundle.sequence() > Some(self.state.sequence) {
                self.add_foreign_jwt(authority);
            }
        }
    }
}
