//! From one JWT key to the next (DESIGN.md invariant 6): pure rules over time.
//!
//! A new key is published first and signs after the propagation time; an old one stays published
//! until the last token under it has ended.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::rollover::{Offer, SETTLE, SKEW};
use crate::jose::{JwtAuthority, JwtKey};

/// The key that signs, the one that will, and the authorities that are still needed.
#[derive(Debug)]
pub(super) struct JwtRollover {
    /// None until the first is found.
    active: Option<Active>,
    next: Option<Next>,
    retired: Vec<Retired>,
    propagation: Duration,
}

#[derive(Debug)]
struct Active {
    key: Arc<JwtKey>,
    /// The end of the last token under it; none before the first.
    signed_until: Option<SystemTime>,
}

#[derive(Debug)]
struct Next {
    key: Arc<JwtKey>,
    published: SystemTime,
}

#[derive(Debug)]
struct Retired {
    authority: JwtAuthority,
    /// The end of the last token under it.
    until: SystemTime,
}

// === impl JwtRollover ===

impl JwtRollover {
    /// With the authorities that live volumes hold, whose tokens may live until then.
    pub(super) fn new(live: Vec<JwtAuthority>, until: SystemTime, propagation: Duration) -> Self {
        let retired = live.into_iter().map(|authority| Retired { authority, until }).collect();
        Self { active: None, next: None, retired, propagation }
    }

    /// The key whose turn it is.
    pub(super) fn signing(&self) -> Option<&Arc<JwtKey>> {
        self.active.as_ref().map(|active| &active.key)
    }

    /// Whether there is a key, be it one that signs later.
    pub(super) fn has_key(&self) -> bool {
        self.active.is_some() || self.next.is_some()
    }

    /// When the next key signs, if there is one.
    pub(super) fn next_signs_at(&self) -> Option<SystemTime> {
        let next = self.next.as_ref()?;
        let wait = match self.active {
            Some(_) => self.propagation,
            None => self.propagation.min(SETTLE),
        };
        Some(next.published + wait)
    }

    /// Every authority to be trusted: the active key's, the next one's, then the retired.
    pub(super) fn authorities(&self) -> Vec<JwtAuthority> {
        let keys = self.signing().into_iter().chain(self.next.iter().map(|next| &next.key));
        let authorities = keys.map(|key| key.authority());
        let retired = self.retired.iter().map(|retired| &retired.authority);
        authorities.chain(retired).cloned().collect()
    }

    /// Takes the key that is on disk now.
    pub(super) fn offer(&mut self, key: JwtKey, now: SystemTime) -> Offer {
        let same = |known: &Arc<JwtKey>| known.authority() == key.authority();
        if self.signing().is_some_and(same) {
            // Put back before it was replaced: what never signed needs no trust.
            self.next = None;
            return Offer::Known;
        }
        if self.next.as_ref().is_some_and(|next| same(&next.key)) {
            return Offer::Known;
        }
        // Where nobody trusts a key yet, nobody has to learn of it first.
        let nobody = self.active.is_none() && self.retired.is_empty();
        let known = self.retired.iter().any(|retired| retired.authority == *key.authority());
        let key = Arc::new(key);
        if nobody || known {
            self.next = None;
            self.activate(key);
            return Offer::Activated;
        }
        self.next = Some(Next { key, published: now });
        Offer::Published
    }

    /// Moves on with time. True if the set of authorities or the signing key changed.
    pub(super) fn advance(&mut self, now: SystemTime) -> bool {
        let before = self.retired.len();
        let mut changed = false;
        if let Some(next) = &mut self.next {
            // A clock that was set back must not keep it waiting for as long.
            next.published = next.published.min(now);
        }
        if self.next_signs_at().is_some_and(|at| now >= at)
            && let Some(next) = self.next.take()
        {
            self.activate(next.key);
            changed = true;
        }
        self.retired.retain(|retired| retired.until + SKEW > now);
        changed || self.retired.len() != before
    }

    /// Notes that the active key signs something that ends then; call it before the signature.
    pub(super) fn note_signature(&mut self, until: SystemTime) {
        if let Some(active) = &mut self.active {
            active.signed_until = active.signed_until.max(Some(until));
        }
    }

    fn activate(&mut self, key: Arc<JwtKey>) {
        let place = self.retired.iter().position(|old| old.authority == *key.authority());
        // What it signed before, be it in another process, still counts.
        let signed_until = place.map(|place| self.retired.remove(place).until);
        let old = self.active.replace(Active { key, signed_until });
        if let Some(Active { key, signed_until: Some(until) }) = old {
            self.retired.insert(0, Retired { authority: key.authority().clone(), until });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::jose::JwtKeyAlgorithm;

    const PROPAGATION: Duration = Duration::from_secs(300);

    fn after(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn key() -> JwtKey {
        JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap()
    }

    fn again(key: &JwtKey) -> JwtKey {
        JwtKey::from_pem(&key.to_pem().unwrap()).unwrap()
    }

    fn of(key: &JwtKey) -> JwtAuthority {
        key.authority().clone()
    }

    fn signing(rollover: &JwtRollover) -> Option<JwtAuthority> {
        rollover.signing().map(|key| of(key))
    }

    fn empty() -> JwtRollover {
        JwtRollover::new(vec![], after(0), PROPAGATION)
    }

    /// Invariant 6: in every bundle before its first signature, and until the last one ended.
    #[test]
    fn a_new_key_is_published_before_it_signs_and_an_old_one_stays_while_it_is_used() {
        let (old, new) = (key(), key());
        let mut rollover = empty();
        assert!(!rollover.has_key() && rollover.authorities().is_empty());
        assert_eq!(rollover.offer(again(&old), after(0)), Offer::Activated, "nobody trusts any");
        rollover.note_signature(after(600));
        rollover.note_signature(after(500));

        assert_eq!(rollover.offer(again(&new), after(10)), Offer::Published);
        assert_eq!(rollover.authorities(), [of(&old), of(&new)]);
        assert_eq!(rollover.offer(again(&new), after(20)), Offer::Known, "the same file again");
        assert!(!rollover.advance(after(309)));
        assert_eq!(signing(&rollover), Some(of(&old)), "published for too short a time");

        assert!(rollover.advance(after(310)));
        assert_eq!(signing(&rollover), Some(of(&new)));
        assert_eq!(rollover.authorities(), [of(&new), of(&old)]);
        assert!(!rollover.advance(after(659)), "a token under the old one lives, by some clock");
        assert!(rollover.advance(after(660)));
        assert_eq!(rollover.authorities(), [of(&new)]);
    }

    #[test]
    fn a_key_that_signed_nothing_goes_as_soon_as_it_is_replaced() {
        let new = key();
        let mut rollover = empty();
        rollover.offer(key(), after(0));
        rollover.offer(again(&new), after(0));
        rollover.advance(after(300));
        assert_eq!(rollover.authorities(), [of(&new)]);
    }

    #[test]
    fn a_key_that_is_put_back_leaves_no_trace_of_the_other() {
        let old = key();
        let mut rollover = empty();
        rollover.offer(again(&old), after(0));
        rollover.offer(key(), after(1));
        assert_eq!(rollover.offer(again(&old), after(10)), Offer::Known);
        assert!(!rollover.advance(after(1_000)));
        assert_eq!(rollover.authorities(), [of(&old)]);
    }

    #[test]
    fn an_old_key_that_comes_back_while_it_is_published_signs_at_once_and_keeps_its_debts() {
        let (old, new) = (key(), key());
        let mut rollover = empty();
        rollover.offer(again(&old), after(0));
        rollover.note_signature(after(3_600));
        rollover.offer(again(&new), after(0));
        rollover.advance(after(300));
        rollover.note_signature(after(900));
        assert_eq!(rollover.offer(again(&old), after(400)), Offer::Activated);
        assert_eq!(rollover.authorities(), [of(&old), of(&new)]);
        // It signs nothing more, and what it signed at first still counts.
        rollover.offer(again(&new), after(500));
        assert_eq!(rollover.authorities(), [of(&new), of(&old)]);
        rollover.advance(after(3_659));
        assert_eq!(rollover.authorities(), [of(&new), of(&old)]);
        rollover.advance(after(3_660));
        assert_eq!(rollover.authorities(), [of(&new)]);
    }

    /// Invariant 6, over a restart: what the process before signed is known by its authority only.
    #[test]
    fn authorities_found_in_volumes_stay_for_as_long_as_a_token_can_live() {
        let (same, old, new) = (key(), key(), key());
        let found = || vec![of(&same), of(&old)];
        let mut rollover = JwtRollover::new(found(), after(3_600), PROPAGATION);
        assert_eq!(rollover.offer(again(&same), after(0)), Offer::Activated, "volumes have it");
        assert_eq!(rollover.authorities(), found());
        rollover.advance(after(3_659));
        assert_eq!(rollover.authorities(), found());
        rollover.advance(after(3_660));
        assert_eq!(rollover.authorities(), [of(&same)]);

        // Replaced soon after the restart, and nothing signed since: the debts of before count.
        let mut rollover = JwtRollover::new(vec![of(&same)], after(3_600), PROPAGATION);
        rollover.offer(again(&same), after(0));
        rollover.offer(again(&new), after(0));
        rollover.advance(after(300));
        assert_eq!(rollover.authorities(), [of(&new), of(&same)]);

        // Replaced while nobody looked: no key can sign meanwhile, so the wait is short.
        let mut rollover = JwtRollover::new(found(), after(3_600), PROPAGATION);
        assert_eq!(rollover.offer(again(&new), after(0)), Offer::Published);
        assert_eq!(rollover.authorities(), [of(&new), of(&same), of(&old)]);
        assert!(rollover.has_key() && !rollover.advance(after(4)) && signing(&rollover).is_none());
        assert!(rollover.advance(after(5)));
        assert_eq!(signing(&rollover), Some(of(&new)));
    }

    #[test]
    fn a_clock_that_is_set_back_delays_the_next_key_by_the_propagation_time_at_most() {
        let new = key();
        let mut rollover = empty();
        rollover.offer(key(), after(0));
        rollover.offer(again(&new), after(50_000));
        assert!(!rollover.advance(after(10)));
        assert!(!rollover.advance(after(309)));
        assert!(rollover.advance(after(310)));
        assert_eq!(signing(&rollover), Some(of(&new)));
    }
}
