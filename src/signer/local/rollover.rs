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
pub(super) const SKEW: Duration = Duration::from_secs(60);

/// How long a new root is published where no CA can sign meanwhile: for this node's own volumes
/// to take it in, and short enough that a publish that waits sees it sign.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// The CA that signs, the one that will, and the roots that are still needed.
#[derive(Debug)]
pub(super) struct Rollover {
    /// None until the first is found.
    active: Option<Arc<Authority>>,
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
    /// With the CA found at start, if there is a good one, and the roots that live volumes hold.
    pub(super) fn new(
        active: Option<Arc<Authority>>,
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
            if !rollover.active_roots().contains(&root.certificate)
                && !rollover.retired.contains(&root.certificate)
            {
                rollover.retired.push(root.certificate);
            }
        }
        rollover.forget_ended(now);
        rollover
    }

    /// The CA whose turn it is.
    pub(super) fn active(&self) -> Option<&Arc<Authority>> {
        self.active.as_ref()
    }

    fn active_roots(&self) -> &[Certificate] {
        self.active.as_ref().map_or(&[], |active| active.roots())
    }

    /// The same, unless it is past its end.
    pub(super) fn signing(&self, now: SystemTime) -> Option<&Arc<Authority>> {
        self.active().filter(|active| now < active.not_after())
    }

    /// Whether there is a CA that is not past its end.
    pub(super) fn can_sign(&self, now: SystemTime) -> bool {
        self.signing(now).is_some()
    }

    /// When the next CA signs, if there is one.
    pub(super) fn next_signs_at(&self, now: SystemTime) -> Option<SystemTime> {
        let next = self.next.as_ref()?;
        let wait = match self.can_sign(now) {
            true => self.propagation,
            false => self.propagation.min(SETTLE),
        };
        Some(next.published + wait)
    }

    /// Every root to be trusted: the active CA's, the next one's, then the retired.
    pub(super) fn roots(&self) -> Vec<Certificate> {
        let next = self.next.iter().flat_map(|next| next.authority.roots());
        let mut roots: Vec<Certificate> = Vec::new();
        for root in self.active_roots().iter().chain(next).chain(&self.retired) {
            if !roots.contains(root) {
                roots.push(root.clone());
            }
        }
        roots
    }

    /// Takes the CA that is on disk now.
    pub(super) fn offer(&mut self, authority: Authority, now: SystemTime) -> Offer {
        let same = |known: &Authority| {
            authority.certificate() == known.certificate() && authority.roots() == known.roots()
        };
        if self.active.as_deref().is_some_and(same) {
            // Put back before it was replaced: what never signed needs no trust.
            self.next = None;
            return Offer::Known;
        }
        if self.next.as_ref().is_some_and(|next| same(&next.authority)) {
            return Offer::Known;
        }
        let settled: Vec<&Certificate> = self.active_roots().iter().chain(&self.retired).collect();
        // Where no volume trusts anyone yet, none has to learn of it first.
        let published =
            settled.is_empty() || authority.roots().iter().all(|root| settled.contains(&root));
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
        if let Some(next) = &mut self.next {
            // A clock that was set back must not keep it waiting for as long.
            next.published = next.published.min(now);
        }
        if self.next_signs_at(now).is_some_and(|at| now >= at)
            && let Some(next) = self.next.take()
        {
            self.activate(next.authority);
            changed = true;
        }
        self.forget_ended(now);
        changed || self.retired.len() != before
    }

    /// Notes that the active CA signs something that ends then; call it before the signature.
    pub(super) fn note_signature(&mut self, until: SystemTime) {
        if let Some(active) = self.active.clone() {
            for root in active.roots() {
                self.note(root, until);
            }
        }
    }

    fn note(&mut self, root: &Certificate, until: SystemTime) {
        let end = self.signed_until.entry(root.sha256()).or_insert(until);
        *end = until.max(*end);
    }

    fn activate(&mut self, authority: Arc<Authority>) {
        let old = self.active.replace(authority);
        for root in old.iter().flat_map(|old| old.roots()) {
            if !self.retired.contains(root) {
                self.retired.push(root.clone());
            }
        }
        let active = self.active.as_ref().map_or(&[][..], |active| active.roots());
        self.retired.retain(|root| !active.contains(root));
    }

    fn forget_ended(&mut self, now: SystemTime) {
        // Without a CA nothing takes the place of what the volumes hold (invariant 3).
        if self.active.is_none() {
            return;
        }
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
        let mut rollover = Rollover::new(Some(Arc::new(old)), vec![], PROPAGATION, start());
        rollover.note_signature(after(3_600));

        assert_eq!(rollover.offer(again(&new), after(10)), Offer::Published);
        assert_eq!(rollover.roots(), [old_root.clone(), new_root.clone()]);
        assert_eq!(rollover.offer(again(&new), after(20)), Offer::Known, "the same files again");
        assert!(!rollover.advance(after(309)));
        assert_eq!(
            rollover.active().unwrap().certificate(),
            &old_root,
            "published for too short a time"
        );

        assert!(rollover.advance(after(310)));
        assert_eq!(rollover.active().unwrap().certificate(), &new_root);
        assert_eq!(rollover.roots(), [new_root.clone(), old_root]);

        assert!(!rollover.advance(after(3_659)), "something under the old root still lives");
        assert!(rollover.advance(after(3_660)));
        assert_eq!(rollover.roots(), [new_root]);
    }

    #[test]
    fn a_root_that_signed_nothing_goes_as_soon_as_it_is_replaced() {
        let new = authority(DAY);
        let new_root = new.roots()[0].clone();
        let mut rollover =
            Rollover::new(Some(Arc::new(authority(DAY))), vec![], PROPAGATION, start());
        rollover.offer(new, start());
        rollover.advance(after(300));
        assert_eq!(rollover.roots(), [new_root]);
    }

    #[test]
    fn a_ca_that_is_put_back_before_it_was_replaced_leaves_no_trace() {
        let old = authority(DAY);
        let old_root = old.roots()[0].clone();
        let mut rollover = Rollover::new(Some(Arc::new(again(&old))), vec![], PROPAGATION, start());
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
        let mut rollover = Rollover::new(Some(old), vec![], PROPAGATION, start());
        rollover.offer(new, after(50));
        rollover.advance(after(101));
        assert_eq!(rollover.active().unwrap().certificate(), &new_root);
    }

    /// Invariant 6: the volumes come first, also where nobody can sign meanwhile.
    #[test]
    fn without_an_active_ca_a_new_root_signs_once_the_nodes_volumes_have_had_it() {
        let (new, other) = (authority(DAY), authority(DAY));
        let (new_root, held) = (new.roots()[0].clone(), other.roots()[0].clone());
        let live = vec![LiveRoot { certificate: held.clone(), until: after(10) }];
        let mut rollover = Rollover::new(None, live, PROPAGATION, start());
        assert!(!rollover.advance(after(1_000)));
        assert_eq!(rollover.roots(), std::slice::from_ref(&held), "ended, but all that they have");
        assert_eq!(rollover.offer(new, after(1_000)), Offer::Published);
        assert_eq!(rollover.roots(), [new_root.clone(), held]);
        assert!(!rollover.advance(after(1_004)) && rollover.active().is_none());
        assert!(rollover.advance(after(1_005)));
        assert_eq!(rollover.roots(), [new_root]);
    }

    #[test]
    fn a_first_ca_signs_at_once_where_no_volume_has_to_learn_of_it() {
        let (first, held) = (authority(DAY), authority(DAY));
        let mut rollover = Rollover::new(None, vec![], PROPAGATION, start());
        assert!(rollover.roots().is_empty() && !rollover.can_sign(start()));
        assert_eq!(rollover.offer(first, start()), Offer::Activated);
        assert!(rollover.can_sign(start()));

        let certificate = held.roots()[0].clone();
        let live = vec![LiveRoot { certificate, until: after(100) }];
        let mut rollover = Rollover::new(None, live, PROPAGATION, start());
        assert_eq!(rollover.offer(held, start()), Offer::Activated, "its root is in every bundle");
        assert_eq!(rollover.roots().len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_delays_the_next_ca_by_the_propagation_time_at_most() {
        let new = authority(DAY);
        let new_root = new.roots()[0].clone();
        let mut rollover =
            Rollover::new(Some(Arc::new(authority(DAY))), vec![], PROPAGATION, start());
        rollover.offer(new, after(50_000));
        assert!(!rollover.advance(after(10)));
        assert!(!rollover.advance(after(309)));
        assert!(rollover.advance(after(310)));
        assert_eq!(rollover.active().unwrap().certificate(), &new_root);
    }

    #[test]
    fn roots_found_in_live_volumes_stay_until_their_last_svid_ends() {
        let (active, old) = (authority(DAY), authority(DAY));
        let (active_root, old_root) = (active.roots()[0].clone(), old.roots()[0].clone());
        let found = |until| LiveRoot { certificate: old_root.clone(), until };
        let live = vec![found(after(100)), found(after(200)), found(after(150))];
        let mut rollover = Rollover::new(Some(Arc::new(active)), live, PROPAGATION, start());
        assert_eq!(rollover.roots(), [active_root.clone(), old_root.clone()]);
        assert!(!rollover.advance(after(259)));
        assert!(rollover.advance(after(260)));
        assert_eq!(rollover.roots(), [active_root]);
    }

    #[test]
    fn an_old_ca_that_comes_back_while_it_is_still_published_signs_at_once() {
        let (old, new) = (authority(DAY), authority(DAY));
        let (old_root, new_root) = (old.roots()[0].clone(), new.roots()[0].clone());
        let mut rollover = Rollover::new(Some(Arc::new(again(&old))), vec![], PROPAGATION, start());
        rollover.note_signature(after(3_600));
        rollover.offer(new, start());
        rollover.advance(after(300));
        rollover.note_signature(after(4_000));
        assert_eq!(rollover.offer(old, after(400)), Offer::Activated);
        assert_eq!(rollover.roots(), [old_root, new_root]);
    }
}
