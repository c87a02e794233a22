//! From one CA to the next (DESIGN.md invariant 6): pure rules over time.
//!
//! A new root is published first and signs after the propagation time; an old one stays
//! published until the last certificate under it has ended.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    pki::{Authority, Certificate},
    trust::LiveRoot,
};

/// Clocks differ: a root outlives what it signed by this much.
const SKEW: Duration = Duration::from_secs(60);

/// The CA that signs, the one that will, and the roots that are still needed.
#[derive(Debug)]
pub(super) struct Rollover {
    active: Arc<Authority>,
    next: Option<Next>,
    retired: Vec<Certificate>,
    /// The end of the last certificate under each root, by the root's fingerprint.
    signed_until: HashMap<String, SystemTime>,
    propagation: Duration,
}

#[derive(Debug)]
struct Next {
    authority: Arc<Authority>,
    published: SystemTime,
}

/// What an offered CA led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It is the CA that signs, or that will.
    Known,
    /// Its root is new: it signs after the propagation time.
    Published,
    /// Its root was published already: it signs from now on.
    Activated,
}

// === impl Rollover ===

impl Rollover {
    pub(super) fn new(
        active: Arc<Authority>,
        live: Vec<LiveRoot>,
        propagation: Duration,
        now: SystemTime,
    ) -> Self {
        let mut rollover = Self {
            active,
            next: None,
            retired: Vec::new(),
            signed_until: HashMap::new(),
            propagation,
        };
        for root in live {
            rollover.note(&root.certificate, root.until);
            if !rollover.active.roots().contains(&root.certificate)
                && !rollover.retired.contains(&root.certificate)
            {
                rollover.retired.push(root.certificate);
            }
        }
        rollover.forget_ended(now);
        rollover
    }

    /// The CA that signs now.
    pub(super) fn active(&self) -> &Arc<Authority> {
        &self.active
    }

    /// Every root to be trusted: the active CA's, the next one's, then the retired.
    pub(super) fn roots(&self) -> Vec<Certificate> {
        let next = self.next.iter().flat_map(|next| next.authority.roots());
        let mut roots: Vec<Certificate> = Vec::new();
        for root in self.active.roots().iter().chain(next).chain(&self.retired) {
            if !roots.contains(root) {
                roots.push(root.clone());
            }
        }
        roots
    }

    /// Takes the CA that is on disk now.
    pub(super) fn offer(&mut self, authority: Authority, now: SystemTime) -> Offer {
        if authority.certificate() == self.active.certificate()
            && authority.roots() == self.active.roots()
        {
            // Put back before it was replaced: what never signed needs no trust.
            self.next = None;
            return Offer::Known;
        }
        if let Some(next) = &self.next
            && authority.certificate() == next.authority.certificate()
            && authority.roots() == next.authority.roots()
        {
            return Offer::Known;
        }
        let settled: Vec<&Certificate> = self.active.roots().iter().chain(&self.retired).collect();
        let published = authority.roots().iter().all(|root| settled.contains(&root));
        let authority = Arc::new(authority);
        if published {
            self.next = None;
            self.activate(authority);
            return Offer::Activated;
        }
        self.next = Some(Next { authority, published: now });
        Offer::Published
    }

    /// Moves on with time. True if the set of roots or the signing CA changed.
    pub(super) fn advance(&mut self, now: SystemTime) -> bool {
        let before = self.retired.len();
        let mut changed = false;
        let ready = |next: &mut Next| {
            // A clock that was set back must not keep it waiting for as long.
            next.published = next.published.min(now);
            now >= next.published + self.propagation || now >= self.active.not_after()
        };
        if let Some(next) = self.next.take_if(ready) {
            self.activate(next.authority);
            changed = true;
        }
        self.forget_ended(now);
        changed || self.retired.len() != before
    }

    /// Notes that the active CA signs something that ends then; call it before the signature.
    pub(super) fn note_signature(&mut self, until: SystemTime) {
        for root in self.active.clone().roots() {
            self.note(root, until);
        }
    }

    fn note(&mut self, root: &Certificate, until: SystemTime) {
        let end = self.signed_until.entry(root.sha256()).or_insert(until);
        *end = until.max(*end);
    }

    fn activate(&mut self, authority: Arc<Authority>) {
        let old = std::mem::replace(&mut self.active, authority);
        let (active, retired) = (&self.active, &mut self.retired);
        for root in old.roots() {
            if !retired.contains(root) {
                retired.push(root.clone());
            }
        }
        retired.retain(|root| !active.roots().contains(root));
    }

    fn forget_ended(&mut self, now: SystemTime) {
        let ends = &self.signed_until;
        self.retired.retain(|root| {
            let used = ends.get(&root.sha256()).is_some_and(|end| *end + SKEW > now);
            used && root.not_after() > now
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{id::TrustDomain, pki::KeyAlgorithm};

    const PROPAGATION: Duration = Duration::from_secs(300);
    const DAY: Duration = Duration::from_secs(86_400);

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn after(seconds: u64) -> SystemTime {
        start() + Duration::from_secs(seconds)
    }

    fn authority(lifetime: Duration) -> Authority {
        let domain: TrustDomain = "example.org".parse().unwrap();
        Authority::create(&domain, KeyAlgorithm::EcdsaP256, lifetime, start()).unwrap()
    }

    fn again(authority: &Authority) -> Authority {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let (cert, key) = (authority.certificate_pem(), authority.key_pem());
        Authority::from_pem(&domain, &cert, &key, None, start()).unwrap()
    }

    /// Invariant 6: in every bundle before its first signature, and until the last one ended.
    #[test]
    fn a_new_root_is_published_before_it_signs_and_an_old_one_stays_while_it_is_used() {
        let (old, new) = (authority(DAY), authority(DAY));
        let (old_root, new_root) = (old.roots()[0].clone(), new.roots()[0].clone());
        let mut rollover = Rollover::new(Arc::new(old), vec![], PROPAGATION, start());
        rollover.note_signature(after(3_600));

        assert_eq!(rollover.offer(again(&new), after(10)), Offer::Published);
        assert_eq!(rollover.roots(), [old_root.clone(), new_root.clone()]);
        assert_eq!(rollover.offer(again(&new), after(20)), Offer::Known, "the same files again");
        assert!(!rollover.advance(after(309)));
        assert_eq!(rollover.active().certificate(), &old_root, "published for too short a time");

        assert!(rollover.advance(after(310)));
        assert_eq!(rollover.active().certificate(), &new_root);
        assert_eq!(rollover.roots(), [new_root.clone(), old_root]);

        assert!(!rollover.advance(after(3_659)), "something under the old root still lives");
        assert!(rollover.advance(after(3_660)));
        assert_eq!(rollover.roots(), [new_root]);
    }

    #[test]
    fn a_root_that_signed_nothing_goes_as_soon_as_it_is_replaced() {
        let new = authority(DAY);
        let new_root = new.roots()[0].clone();
        let mut rollover = Rollover::new(Arc::new(authority(DAY)), vec![], PROPAGATION, start());
        rollover.offer(new, start());
        rollover.advance(after(300));
        assert_eq!(rollover.roots(), [new_root]);
    }

    #[test]
    fn a_ca_that_is_put_back_before_it_was_replaced_leaves_no_trace() {
        let old = authority(DAY);
        let old_root = old.roots()[0].clone();
        let mut rollover = Rollover::new(Arc::new(again(&old)), vec![], PROPAGATION, start());
        rollover.offer(authority(DAY), start());
        assert_eq!(rollover.offer(old, after(10)), Offer::Known);
        assert!(!rollover.advance(after(1_000)));
        assert_eq!(rollover.roots(), [old_root]);
    }

    #[test]
    fn the_next_ca_takes_over_at_once_when_the_active_one_has_ended() {
        let new = authority(DAY);
        let new_root = new.roots()[0].clone();
        let old = Arc::new(authority(Duration::from_secs(100)));
        let mut rollover = Rollover::new(old, vec![], PROPAGATION, start());
        rollover.offer(new, after(50));
        rollover.advance(after(101));
        assert_eq!(rollover.active().certificate(), &new_root);
    }

    #[test]
    fn a_clock_that_is_set_back_delays_the_next_ca_by_the_propagation_time_at_most() {
        let new = authority(DAY);
        let new_root = new.roots()[0].clone();
        let mut rollover = Rollover::new(Arc::new(authority(DAY)), vec![], PROPAGATION, start());
        rollover.offer(new, after(50_000));
        assert!(!rollover.advance(after(10)));
        assert!(!rollover.advance(after(309)));
        assert!(rollover.advance(after(310)));
        assert_eq!(rollover.active().certificate(), &new_root);
    }

    #[test]
    fn roots_found_in_live_volumes_stay_until_their_last_svid_ends() {
        let (active, old) = (authority(DAY), authority(DAY));
        let (active_root, old_root) = (active.roots()[0].clone(), old.roots()[0].clone());
        let found = |until| LiveRoot { certificate: old_root.clone(), until };
        let live = vec![found(after(100)), found(after(200)), found(after(150))];
        let mut rollover = Rollover::new(Arc::new(active), live, PROPAGATION, start());
        assert_eq!(rollover.roots(), [active_root.clone(), old_root.clone()]);
        assert!(!rollover.advance(after(259)));
        assert!(rollover.advance(after(260)));
        assert_eq!(rollover.roots(), [active_root]);
    }

    #[test]
    fn an_old_ca_that_comes_back_while_it_is_still_published_signs_at_once() {
        let (old, new) = (authority(DAY), authority(DAY));
        let (old_root, new_root) = (old.roots()[0].clone(), new.roots()[0].clone());
        let mut rollover = Rollover::new(Arc::new(again(&old)), vec![], PROPAGATION, start());
        rollover.note_signature(after(3_600));
        rollover.offer(new, start());
        rollover.advance(after(300));
        rollover.note_signature(after(4_000));
        assert_eq!(rollover.offer(old, after(400)), Offer::Activated);
        assert_eq!(rollover.roots(), [old_root, new_root]);
    }
}
