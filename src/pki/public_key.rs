//! A public key to be certified.

use std::sync::Arc;

use super::{KeyAlgorithm, spki::Spki};

/// A public key (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Arc<[u8]>,
    algorithm: Option<KeyAlgorithm>,
}

// === impl PublicKey ===

impl PublicKey {
    /// From DER; `None` if it is no SubjectPublicKeyInfo.
    pub fn from_spki_der(der: &[u8]) -> Option<Self> {
        Spki::parse(der).map(|spki| Self { spki: der.into(), algorithm: spki.key_algorithm() })
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Its algorithm; `None` if it is not one that workloads may have.
    pub fn algorithm(&self) -> Option<KeyAlgorithm> {
        self.algorithm
    }
}
