//! What the node trusts now: one watch channel that every volume follows.

mod merge;
mod published;
mod roots;
mod shared;
mod store;
mod tainted;
#[cfg(test)]
mod tests;
mod views;

use std::{collections::BTreeMap, time::SystemTime};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use self::{
    published::{PublishedError, PublishedTrust},
    roots::{IssuerRoots, RootsPlace},
    shared::SharedBundle,
    store::BundleStore,
    tainted::TaintedKeys,
};
use crate::{
    id::TrustDomain,
    jose::JwtAuthority,
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

/// Where the own trust domain's bundle comes from.
#[async_trait]
pub trait BundleSource: Send + Sync + 'static {
    /// Publishes what it finds, and every change of it, to the [`BundleStore`] that it was made
    /// with, until `stop`. What can't be used is refused, and the last good bundle stands.
    async fn follow(&self, stop: CancellationToken);

    /// How often something was refused.
    fn refused(&self) -> u64;
}

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
    /// The JWT authorities that a volume holds, each once. What they signed is not known.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// The newest bundle found.
    pub bundle: Option<TrustBundle>,
    /// Those of federated trust domains, without their JWT authorities.
    pub federated: BTreeMap<TrustDomain, TrustBundle>,
}

// === impl TrustBundles ===

impl TrustBundles {
    /// Bundles of a trust domain that federates with nobody.
    pub fn own(own: TrustBundle) -> Self {
        Self { own, federated: BTreeMap::new() }
    }

    /// The bundle of a trust domain: each verifies its own and no other (Federation §4.2).
    pub fn of(&self, domain: &TrustDomain) -> Option<&TrustBundle> {
        if domain == self.own.trust_domain() {
            return Some(&self.own);
        }
        self.federated.get(domain)
    }
}
