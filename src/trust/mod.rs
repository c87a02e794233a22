//! What the node trusts now: one watch channel that every volume follows.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use tokio::sync::watch;

use crate::{
    id::TrustDomain,
    pki::{Certificate, TrustBundle},
};

/// The bundle of the own trust domain, and those of federated ones. Never merged
/// (SPIFFE Federation §4.2).
#[derive(Clone, Debug, PartialEq)]
pub struct TrustBundles {
    /// The own trust domain's.
    pub own: TrustBundle,
    /// One for each federated trust domain.
    pub federated: BTreeMap<TrustDomain, TrustBundle>,
}

/// Holds the newest [`TrustBundles`] and tells everyone of a change. Sources publish to it; before
/// the first one there is nobody to trust, and nothing can be signed.
#[derive(Debug, Default)]
pub struct BundleStore(watch::Sender<Option<Arc<TrustBundles>>>);

/// A root that something alive was signed under, as found in a volume.
#[derive(Clone, Debug)]
pub struct LiveRoot {
    /// The root.
    pub certificate: Certificate,
    /// The end of what it signed.
    pub until: SystemTime,
}

/// What the live volumes tell, after a restart, of the trust before it.
#[derive(Debug, Default)]
pub struct RecoveredTrust {
    /// The roots that live SVIDs, or those that they replaced, may chain to.
    pub roots: Vec<LiveRoot>,
    /// The newest bundle found.
    pub bundle: Option<TrustBundle>,
}

// === impl TrustBundles ===

impl TrustBundles {
    /// Bundles of a trust domain that federates with nobody.
    pub fn own(own: TrustBundle) -> Self {
        Self { own, federated: BTreeMap::new() }
    }
}

// === impl BundleStore ===

impl BundleStore {
    /// A store that begins with these bundles.
    pub fn new(bundles: TrustBundles) -> Self {
        Self(watch::Sender::new(Some(Arc::new(bundles))))
    }

    /// The newest bundles.
    pub fn current(&self) -> Option<Arc<TrustBundles>> {
        self.0.borrow().clone()
    }

    /// Follows every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<TrustBundles>>> {
        self.0.subscribe()
    }

    /// Replaces the own trust domain's bundle. Equal bundles wake nobody.
    pub fn publish_own(&self, own: TrustBundle) {
        self.0.send_if_modified(|current| {
            let federated = match current {
                Some(current) if current.own == own => return false,
                Some(current) => current.federated.clone(),
                None => BTreeMap::new(),
            };
            *current = Some(Arc::new(TrustBundles { own, federated }));
            true
        });
    }
}
