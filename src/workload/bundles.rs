//! Trust bundles as messages carry them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
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

/// X.509 bundles, each concatenated DER, and JWT bundles, each a JWK Set.
#[derive(Debug)]
pub(super) struct EncodedBundles {
    source: Arc<TrustBundles>,
    /// The own trust domain's.
    pub(super) own: Bytes,
    /// All others.
    pub(super) federated: BundleMap,
    /// Everybody's, the own trust domain included (Workload API §5.2.2).
    pub(super) all: BundleMap,
    jwt: OnceLock<Option<BundleMap>>,
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
        Self { source, own, federated, all, jwt: OnceLock::new() }
    }

    /// The JWT keys of everybody who has any, the own trust domain's for certain
    /// (Workload API §6.2.2). `None` while it has none.
    pub(super) fn jwt(&self) -> Option<&BundleMap> {
        let encode = || {
            let TrustBundles { own, federated } = &*self.source;
            let all = std::iter::once(own).chain(federated.values());
            let all = all.filter(|bundle| !bundle.jwt_authorities().is_empty());
            let all: BundleMap =
                all.map(|bundle| (key(bundle.trust_domain()), bundle.jwt_jwks().into())).collect();
            (!own.jwt_authorities().is_empty()).then_some(all)
        };
        self.jwt.get_or_init(encode).as_ref()
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
