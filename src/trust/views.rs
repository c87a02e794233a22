//! Bundles as those see them who are to know some federated trust domains only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use super::TrustBundles;
use crate::id::TrustDomain;

/// The views of the newest bundles, each made once: whoever compares them by their address, and
/// encodes them once for everybody, goes on to do so.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    of: Option<Arc<TrustBundles>>,
    views: BTreeMap<BTreeSet<TrustDomain>, Arc<TrustBundles>>,
}

// === impl Views ===

impl Views {
    /// These bundles, of the federated ones those of `domains` alone.
    pub(super) fn of(
        &self,
        bundles: &Arc<TrustBundles>,
        domains: &BTreeSet<TrustDomain>,
    ) -> Arc<TrustBundles> {
        let seen = |domain: &&TrustDomain| domains.contains(domain);
        let seen: BTreeSet<TrustDomain> = bundles.federated.keys().filter(seen).cloned().collect();
        if seen.len() == bundles.federated.len() {
            return bundles.clone();
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, bundles)) {
            *known = Known { of: Some(bundles.clone()), views: BTreeMap::new() };
        }
        let view = known.views.entry(seen).or_insert_with_key(|seen| {
            let federated = bundles.federated.iter().filter(|(domain, _)| seen.contains(domain));
            let federated = federated.map(|(domain, bundle)| (domain.clone(), bundle.clone()));
            Arc::new(TrustBundles { own: bundles.own.clone(), federated: federated.collect() })
        });
        view.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::pki::{Authority, KeyAlgorithm, TrustBundle};

    #[test]
    fn nobody_sees_a_trust_domain_that_is_not_theirs_and_each_view_is_made_once() {
        let day = Duration::from_secs(86_400);
        let bundle = |name: &str| -> TrustBundle {
            let domain = name.parse().unwrap();
            let now = SystemTime::UNIX_EPOCH + day;
            Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap().bundle()
        };
        let set = |names: &[&str]| -> BTreeSet<TrustDomain> {
            names.iter().map(|name| name.parse().unwrap()).collect()
        };
        let federated =
            ["a.example", "b.example"].map(|name| (name.parse().unwrap(), bundle(name)));
        let own = bundle("example.org");
        let all = Arc::new(TrustBundles { own, federated: federated.into() });
        let views = Views::default();
        let one = views.of(&all, &set(&["a.example", "unknown.example"]));
        let seen: Vec<&TrustDomain> = one.federated.keys().collect();
        assert_eq!(seen, [&"a.example".parse().unwrap()]);
        assert_eq!(one.own, all.own);
        assert!(Arc::ptr_eq(&one, &views.of(&all, &set(&["a.example"]))));
        assert!(views.of(&all, &set(&[])).federated.is_empty());
        assert!(Arc::ptr_eq(&all, &views.of(&all, &set(&["b.example", "a.example"]))));
        let next = Arc::new(TrustBundles::clone(&all));
        assert!(!Arc::ptr_eq(&one, &views.of(&next, &set(&["a.example"]))));
    }
}
