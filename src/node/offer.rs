//! What a volume's socket offers: the newest SVID and the bundles that go with it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::volume::{Phase, Work};
use crate::{
    id::TrustDomain,
    pki::{PrivateKey, X509Svid},
    trust::TrustBundles,
};

/// What a pod is entitled to now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Its SVID, which may have expired.
    pub svid: Option<OfferedSvid>,
    /// Bundles by which the SVID verifies. Newer ones that contain all of these may be served
    /// beside it, too.
    pub bundles: Option<OfferedBundles>,
    /// The federated trust domains whose bundles it may see; `None` is all of them.
    pub federates_with: Option<Arc<BTreeSet<TrustDomain>>>,
    /// Policy refused the last renewal: once the SVID has expired the pod has no identity, and
    /// new JWT-SVIDs are refused at once.
    pub denied: bool,
}

/// An X.509-SVID with its key. Equal if it is the very same.
#[derive(Clone)]
pub struct OfferedSvid {
    /// The certificate chain.
    pub x509: X509Svid,
    /// Its key.
    pub key: Arc<PrivateKey>,
}

/// Bundles; equal if they are the very same.
#[derive(Clone, Debug)]
pub struct OfferedBundles(pub Arc<TrustBundles>);

// === impl Offer ===

impl Offer {
    pub(super) fn of(work: &Work) -> Self {
        if work.phase != Phase::Live {
            return Self::default();
        }
        let svid = work.svid.as_ref();
        Self {
            svid: svid.map(|it| OfferedSvid { x509: it.x509.clone(), key: it.key.clone() }),
            bundles: work.beside.clone().map(OfferedBundles),
            federates_with: work.federates_with.clone(),
            denied: work.denied,
        }
    }
}

// === impl OfferedSvid ===

impl PartialEq for OfferedSvid {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key) && self.x509 == other.x509
    }
}

impl Eq for OfferedSvid {}

impl fmt::Debug for OfferedSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OfferedSvid").field(self.x509.id()).field(&self.x509.serial_hex()).finish()
    }
}

// === impl OfferedBundles ===

impl PartialEq for OfferedBundles {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for OfferedBundles {}
