//! Trust bundles as messages carry them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Bytes;

use crate::{
    id::TrustDomain,
    pki::{Certificate, TrustBundle},
    trust::TrustBundles,
};

/// Bundles by the SPIFFE ID of their trust domain.
pub(super) type BundleMap = HashMap<String, Bytes>;

/// Encodes bundles once for everyone who is told of them.
#[derive(Debug, Default)]
pub(super) struct BundleEncoder(Mutex<Option<Arc<EncodedBundles>>>);

/// X.509 bundles, each concatenated DER.
#[derive(Debug)]
pub(super) struct EncodedBundles {
    source: Arc<TrustBundles>,
    /// The own trust domain's.
    pub(super) own: Bytes,
    /// All others.
    pub(super) federated: BundleMap,
    /// Everybody's, the own trust domain included (Workload API §5.2.2).
    pub(super) all: BundleMap,
}

// === impl BundleEncoder ===

impl BundleEncoder {
    /// These bundles, encoded. Remembers the last, which nearly always is everybody's.
    pub(super) fn encode(&self, bundles: &Arc<TrustBundles>) -> Arc<EncodedBundles> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(encoded) if Arc::ptr_eq(&encoded.source, bundles) => encoded.clone(),
            _ => last.insert(Arc::new(EncodedBundles::new(bundles.clone()))).clone(),
        }
    }
}

// === impl EncodedBundles ===

impl EncodedBundles {
    fn new(source: Arc<TrustBundles>) -> Self {
        let own = x509(&source.own);
        let federated: BundleMap =
            source.federated.iter().map(|(domain, bundle)| (key(domain), x509(bundle))).collect();
        let mut all = federated.clone();
        all.insert(key(source.own.trust_domain()), own.clone());
        Self { source, own, federated, all }
    }
}

/// A trust domain's SPIFFE ID, which has no trailing slash.
fn key(domain: &TrustDomain) -> String {
    format!("spiffe://{domain}")
}

fn x509(bundle: &TrustBundle) -> Bytes {
    concatenated(bundle.x509_authorities())
}

/// The DER of each, one after the other.
pub(super) fn concatenated(certificates: &[Certificate]) -> Bytes {
    certificates.iter().flat_map(|certificate| certificate.der()).copied().collect()
}
