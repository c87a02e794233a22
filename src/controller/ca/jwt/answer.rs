//! What is done about a person's request concerning the JWT keys.

use super::{
    super::{
        answer::{Reply, done, refuse},
        lifecycle::{MAX_ENTRIES, Step, Unfinished},
        request::Outcome,
        stage::Stage,
    },
    JwtEntry,
};

// === impl Step ===

impl Step<'_> {
    pub(in super::super) fn rotate_jwt(&mut self) -> Result<Reply, Unfinished> {
        let keys = &self.state.jwt_keys;
        if keys.len() >= MAX_ENTRIES {
            let first = keys.iter().filter_map(|entry| entry.stage.remove_at()).min();
            let when = first.map(|at| format!(", at {at}")).unwrap_or_default();
            return Ok(refuse(format!(
                "there are {} JWT keys already; wait until the oldest is gone{when}",
                keys.len()
            )));
        }
        self.hurry_jwt()
    }

    /// Lets the next key sign as soon as it is published for long enough; makes one if there is
    /// none.
    fn hurry_jwt(&mut self) -> Result<Reply, Unfinished> {
        if self.state.next_jwt().is_none() {
            self.prepare_jwt(true)?;
        }
        let prepared = |entry: &&mut JwtEntry| entry.is_prepared() && !entry.tainted;
        let Some(next) = self.state.jwt_keys.iter_mut().find(prepared) else {
            return Ok(refuse("no JWT key could be made"));
        };
        if let Stage::Prepared { hurry, .. } = &mut next.stage {
            *hurry = true;
        }
        let message = format!(
            "the JWT key {} is published and signs {} s later",
            next.key_id(),
            self.settings.propagation.as_secs()
        );
        Ok((Outcome::Accepted, message, Some(next.key.id.clone())))
    }

    /// Nothing if there is no such JWT key.
    pub(in super::super) fn taint_jwt(
        &mut self,
        key_id: &str,
    ) -> Result<Option<Reply>, Unfinished> {
        let named = |entry: &&mut JwtEntry| entry.key_id() == key_id;
        let Some(entry) = self.state.jwt_keys.iter_mut().find(named) else { return Ok(None) };
        entry.tainted = true;
        let signs = entry.is_active();
        // It never signed anything, so nothing needs it.
        self.state.jwt_keys.retain(|entry| !(entry.tainted && entry.is_prepared()));
        match signs {
            true => self.hurry_jwt().map(Some),
            false => Ok(Some(done(format!(
                "it signs no longer, or never did; take {key_id} out with retire --force, and nodes replace the tokens under it"
            )))),
        }
    }

    /// Nothing if there is no such JWT key.
    pub(in super::super) fn retire_jwt(&mut self, key_id: &str, force: bool) -> Option<Reply> {
        let named = |entry: &JwtEntry| entry.key_id() == key_id;
        let found = self.state.jwt_keys.iter().find(|entry| named(entry))?;
        Some(match found.stage {
            Stage::Active { .. } => {
                refuse("this JWT key signs; rotate or taint it first, and wait until another signs")
            }
            Stage::Prepared { .. } if self.state.active_jwt().is_none() => {
                refuse("this JWT key is the only one")
            }
            Stage::Prepared { .. } => {
                self.state.jwt_keys.retain(|entry| !named(entry));
                done(format!("the JWT key {key_id} never signed and is gone"))
            }
            Stage::Retired { remove_at, .. } | Stage::Foreign { remove_at } if !force => {
                refuse(format!(
                    "JWT-SVIDs under it may live until {remove_at}, when it goes by itself; --force takes it out at once, and they fail"
                ))
            }
            Stage::Retired { .. } | Stage::Foreign { .. } => {
                let now = self.now;
                let entries = self.state.jwt_keys.iter_mut();
                entries.filter(|entry| named(entry)).for_each(|entry| entry.drop_now(now));
                done(format!("the JWT key {key_id} is out of the bundle"))
            }
        })
    }
}
