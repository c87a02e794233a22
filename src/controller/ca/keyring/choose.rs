//! Which CA and which JWT key may sign here now: the same rules for both.

use std::sync::Arc;

use super::{FRESH, Seen};
use crate::controller::ca::{
    CaSettings, CaState, NotReady, SigningAuthority, SigningJwtKey, entry::Entry, jwt::JwtEntry,
    moment::Moment, settings::SKEW, stage::Life,
};

/// A CA or a JWT key that might sign.
struct Candidate<'a> {
    id: &'a str,
    life: Life,
    /// Names that have to be in the bundle: one of them.
    anchors: &'a [String],
    /// As in "the CA 12ab".
    name: String,
    /// What of it is in the bundle.
    in_bundle: String,
}

// === impl Seen ===

impl Seen {
    pub(super) fn choose(
        &mut self,
        settings: &CaSettings,
        now: Moment,
    ) -> Result<Arc<SigningAuthority>, NotReady> {
        let state = self.known(settings)?;
        let mut obstacle = None;
        // The active CA first; the one before it while the active may not sign here yet.
        let active = state.entries.iter().filter(|entry| entry.is_active());
        let retired = state.entries.iter().rev().filter(|entry| !entry.is_active());
        for entry in active.chain(retired).filter(|entry| entry.ca.authority.is_some()) {
            match self.judge(&Candidate::ca(entry), &state, settings, now) {
                Ok(()) => match self.signing_authority(entry, settings) {
                    Some(authority) => return Ok(authority),
                    None => continue,
                },
                Err(reason) if obstacle.is_none() => obstacle = reason,
                Err(_) => {}
            }
        }
        let obstacle = obstacle.or_else(|| state.obstacle(settings));
        Err(obstacle.unwrap_or_else(|| self.nothing("there is no CA that may sign")))
    }

    pub(super) fn choose_jwt(
        &mut self,
        settings: &CaSettings,
        now: Moment,
    ) -> Result<Arc<SigningJwtKey>, NotReady> {
        let state = self.known(settings)?;
        let mut obstacle = None;
        let active = state.jwt_keys.iter().filter(|entry| entry.is_active());
        let retired = state.jwt_keys.iter().rev().filter(|entry| !entry.is_active());
        for entry in active.chain(retired).filter(|entry| entry.key.private.is_some()) {
            match self.judge(&Candidate::jwt_key(entry), &state, settings, now) {
                Ok(()) => match self.signing_jwt_key(entry, settings) {
                    Some(key) => return Ok(key),
                    None => continue,
                },
                Err(reason) if obstacle.is_none() => obstacle = reason,
                Err(_) => {}
            }
        }
        let obstacle = obstacle.or_else(|| state.jwt_obstacle(settings));
        Err(obstacle
            .unwrap_or_else(|| self.nothing("there is no JWT key yet; the leader makes it")))
    }

    /// The state, if it is fresh enough to sign by it.
    fn known(&self, settings: &CaSettings) -> Result<Arc<CaState>, NotReady> {
        let Some(state) = self.state.clone() else {
            return Err(
                self.nothing(&format!("the CA Secret {} has not been read yet", settings.secret))
            );
        };
        if self.heard.is_none_or(|heard| heard.elapsed() > FRESH) {
            return Err(NotReady::new(format!(
                "nothing was heard of the CA Secret {} for {} s: another CA may sign by now",
                settings.secret,
                FRESH.as_secs()
            )));
        }
        Ok(state)
    }

    fn nothing(&self, reason: &str) -> NotReady {
        NotReady::new(match self.problems.first() {
            Some(problem) => problem.as_str(),
            None => reason,
        })
    }

    fn signing_authority(
        &mut self,
        entry: &Entry,
        settings: &CaSettings,
    ) -> Option<Arc<SigningAuthority>> {
        if let Some(authority) = self.signing.get(&entry.ca.id) {
            return Some(authority.clone());
        }
        let authority = Arc::new(SigningAuthority::of(entry, settings.max_ttl)?);
        self.signing.insert(entry.ca.id.clone(), authority.clone());
        Some(authority)
    }

    fn signing_jwt_key(
        &mut self,
        entry: &JwtEntry,
        settings: &CaSettings,
    ) -> Option<Arc<SigningJwtKey>> {
        if let Some(key) = self.signing_jwt.get(&entry.key.id) {
            return Some(key.clone());
        }
        let key = Arc::new(SigningJwtKey::of(entry, &settings.jwt)?);
        self.signing_jwt.insert(entry.key.id.clone(), key.clone());
        Some(key)
    }

    /// Why this one does not sign here now; no reason where it is not its turn.
    fn judge(
        &mut self,
        candidate: &Candidate<'_>,
        state: &CaState,
        settings: &CaSettings,
        now: Moment,
    ) -> Result<(), Option<NotReady>> {
        let Candidate { id, life, anchors, name, in_bundle } = candidate;
        let Some((from, until)) = life.signs() else { return Err(None) };
        if now >= until {
            let ended = life.stage.is_active();
            let reason = || NotReady::new(format!("{name} ended at {until}; replace it"));
            return Err(ended.then(reason));
        }
        if now < from {
            return Err(Some(NotReady::new(format!("{name} signs from {from}")).until(from)));
        }
        if !self.published.iter().any(|root| anchors.contains(root)) {
            return Err(Some(NotReady::new(format!(
                "{in_bundle} is not in the published ConfigMap {}",
                settings.config_map
            ))));
        }
        if !self.good.iter().any(|good| good == id) {
            let Some(at) = self.ready_at(candidate, state, settings) else {
                let reason = format!("{in_bundle} was published a moment ago");
                return Err(Some(NotReady::new(reason)));
            };
            if now < at {
                let reason = format!("{in_bundle} is published; it signs here from {at}");
                return Err(Some(NotReady::new(reason).until(at)));
            }
            self.good.push((*id).to_owned());
        }
        Ok(())
    }

    /// From when a published one may sign here: the propagation time after this replica saw it
    /// appear. A replica that came later believes the leader, whose clock may be behind.
    fn ready_at(
        &self,
        candidate: &Candidate<'_>,
        state: &CaState,
        settings: &CaSettings,
    ) -> Option<Moment> {
        if candidate.life.stage.is_first() {
            return Some(Moment::default());
        }
        let ready = |root: &String| match (self.appeared.get(root), state.published.get(root)) {
            (Some(seen), _) => Some(seen.after(settings.propagation)),
            (None, Some(since)) => Some(since.after(settings.propagation + SKEW)),
            (None, None) => None,
        };
        let anchors = candidate.anchors.iter().filter(|root| self.published.contains(root));
        // Before the leader has noted its publication it signs nowhere.
        anchors.filter_map(ready).min()
    }
}

// === impl Candidate ===

impl<'a> Candidate<'a> {
    fn ca(entry: &'a Entry) -> Self {
        let name = format!("the CA {}", entry.ca.key_id);
        let in_bundle = format!("the root of {name}");
        Self { id: &entry.ca.id, life: entry.life(), anchors: &entry.ca.anchors, name, in_bundle }
    }

    fn jwt_key(entry: &'a JwtEntry) -> Self {
        let name = format!("the JWT key {}", entry.key_id());
        let id = &entry.key.id;
        let (anchors, in_bundle) = (std::slice::from_ref(id), name.clone());
        Self { id, life: entry.life(), anchors, name, in_bundle }
    }
}
