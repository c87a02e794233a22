//! One bundle of what the sources say: a pure rule.

use crate::pki::TrustBundle;

/// The bundle that every volume gets: the roots and JWT authorities of `own`, which is the local
/// CA's, and of `shared`, which is the controller's. Neither can take one away that the other has
/// (invariant 6). What
/// is in the `held` bundle already keeps its place there. The sequence number grows with every
/// change of content (SPIFFE Trust Domain and Bundle §4.1.1).
///
/// Without a source, `held` stands: after a restart it is what the volumes have.
pub(super) fn merge(
    own: Option<&TrustBundle>,
    shared: Option<&TrustBundle>,
    held: Option<&TrustBundle>,
) -> Option<TrustBundle> {
    let next = match (own, shared) {
        (Some(own), Some(shared)) => own.merged(shared),
        (one, other) => one.or(other).or(held)?.clone(),
    };
    let Some(held) = held.filter(|held| held.trust_domain() == next.trust_domain()) else {
        return Some(next);
    };
    if same_set(&next, held) && own.is_some() && shared.is_some() {
        // A restart or a source that only counted up must not rewrite every volume.
        return Some(held.clone());
    }
    let least = match next.same_authorities(held) {
        true => held.sequence(),
        false => held.sequence().map(|sequence| sequence.saturating_add(1)),
    };
    let sequence = next.sequence().max(least);
    Some(next.with_sequence(sequence))
}

/// Whether both have the same authorities, in whatever order.
fn same_set(one: &TrustBundle, other: &TrustBundle) -> bool {
    fn same<T: PartialEq>(one: &[T], other: &[T]) -> bool {
        one.len() == other.len() && one.iter().all(|item| other.contains(item))
    }
    same(one.x509_authorities(), other.x509_authorities())
        && same(one.jwt_authorities(), other.jwt_authorities())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        jose::{JwtAuthority, JwtKey, JwtKeyAlgorithm},
        pki::{Authority, Certificate, KeyAlgorithm},
    };

    /// Some roots to choose from.
    fn roots() -> Vec<Certificate> {
        let domain = "example.org".parse().unwrap();
        let day = Duration::from_secs(86_400);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        (0..5)
            .map(|_| {
                let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
                ca.roots()[0].clone()
            })
            .collect()
    }

    /// Some JWT authorities to choose from.
    fn keys() -> Vec<JwtAuthority> {
        let key = || JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
        (0..3).map(|_| key().authority().clone()).collect()
    }

    /// The roots whose bit is set, at least the first.
    fn bundle(roots: &[Certificate], bits: u8, sequence: Option<u64>) -> TrustBundle {
        let bits = if bits & 31 == 0 { 1 } else { bits };
        let domain = "example.org".parse().unwrap();
        TrustBundle::new(domain, chosen(roots, bits)).unwrap().with_sequence(sequence)
    }

    fn chosen<T: Clone>(items: &[T], bits: u8) -> Vec<T> {
        let chosen = items.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.map(|(_, item)| item.clone()).collect()
    }

    fn maybe() -> impl Strategy<Value = Option<(u8, Option<u64>)>> {
        proptest::option::of((any::<u8>(), proptest::option::of(0..20_u64)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Invariants 3 and 6: never empty, never without a root or JWT authority that a source
        /// has, and the sequence number goes up with every change and never down.
        #[test]
        fn the_merged_bundle_has_every_authority_and_counts_up(steps in proptest::collection::vec((maybe(), maybe()), 1..12), start in maybe()) {
            let (roots, keys) = (roots(), keys());
            let make = |given: Option<(u8, Option<u64>)>| {
                let made = |(bits, sequence)| {
                    bundle(&roots, bits, sequence).with_jwt_authorities(chosen(&keys, bits >> 5))
                };
                given.map(made)
            };
            let mut held = make(start);
            for (own, shared) in steps {
                let (own, shared) = (make(own), make(shared));
                let next = merge(own.as_ref(), shared.as_ref(), held.as_ref());
                let Some(next) = next else {
                    prop_assert!(own.is_none() && shared.is_none() && held.is_none());
                    continue;
                };
                let sources: Vec<_> = own.iter().chain(&shared).collect();
                for source in &sources {
                    for root in source.x509_authorities() {
                        prop_assert!(next.contains(root));
                    }
                    for key in source.jwt_authorities().iter() {
                        prop_assert!(next.jwt_authorities().contains(key));
                    }
                }
                for root in next.x509_authorities() {
                    let known = sources.iter().any(|source| source.contains(root));
                    prop_assert!(known || sources.is_empty(), "a root that nobody has");
                }
                for key in next.jwt_authorities().iter() {
                    let known = sources.iter().any(|source| source.jwt_authorities().contains(key));
                    prop_assert!(known || sources.is_empty(), "a key that nobody has");
                }
                if let Some(held) = &held {
                    prop_assert!(next.sequence() >= held.sequence());
                    if !next.same_authorities(held) && held.sequence().is_some() {
                        prop_assert!(next.sequence() > held.sequence());
                    }
                }
                // Said again, it is the same: nobody is woken.
                let again = merge(own.as_ref(), shared.as_ref(), Some(&next));
                prop_assert_eq!(again.as_ref(), Some(&next));
                held = Some(next);
            }
        }
    }

    /// A restart reads the local CA first and the ConfigMap a moment later.
    #[test]
    fn sources_that_come_one_after_the_other_rewrite_nothing() {
        let roots = roots();
        let (own, shared) = (bundle(&roots, 1, Some(7)), bundle(&roots, 6, Some(9)));
        let before = merge(Some(&own), Some(&shared), None).unwrap();
        assert_eq!(before.sequence(), Some(9));
        // The local CA keeps what it found in the volumes, under their sequence number.
        let first = merge(Some(&before), None, Some(&before)).unwrap();
        assert_eq!(first, before);
        let second = merge(Some(&before), Some(&shared), Some(&first)).unwrap();
        assert_eq!(second, before);
        // Later it forgets the foreign roots, which the controller still has.
        let third = merge(Some(&own.with_sequence(Some(50))), Some(&shared), Some(&second));
        assert_eq!(third.unwrap(), before);
    }

    /// Leaving `local`: what the node counted up to by itself may be above the controller's number.
    #[test]
    fn the_controllers_bundle_is_taken_after_the_local_ca_has_gone() {
        let roots = roots();
        let (held, shared) = (bundle(&roots, 7, Some(90)), bundle(&roots, 6, Some(40)));
        let next = merge(None, Some(&shared), Some(&held)).unwrap();
        assert_eq!(next.x509_authorities(), shared.x509_authorities());
        assert_eq!(next.sequence(), Some(91));
    }
}
