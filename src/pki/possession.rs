//! How a kubelet proves that it holds a pod's key (KEP-4317).

use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::aws_lc_rs as algorithms;

use super::{
    CsrError, PublicKey,
    csr::Parts,
    spki::{self, Spki},
};

/// ECDSA with SHA-256 for every curve, and Ed25519.
const PROOFS: [&dyn SignatureVerificationAlgorithm; 4] = [
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ED25519,
];

// === impl PublicKey ===

impl PublicKey {
    /// The key of an empty PKCS#10 request in DER: no subject, no attributes, and a signature that is
    /// right.
    pub fn of_stub_request(der: &[u8]) -> Result<Self, CsrError> {
        let parts = Parts::read(der).ok_or(CsrError::Malformed)?;
        let spki = Spki::parse(parts.spki).ok_or(CsrError::Malformed)?;
        if !spki.verifies(parts.algorithm, parts.info, parts.signature) {
            return Err(CsrError::Signature);
        }
        if !parts.subject.is_empty() || !parts.attributes.is_empty() {
            return Err(CsrError::NotEmpty);
        }
        Self::from_spki_der(parts.spki).ok_or(CsrError::Malformed)
    }

    /// A bare key (SubjectPublicKeyInfo in DER), proven by a signature over `message`. Kubelets before
    /// 1.36 prove a pod's key so. For RSA they salt as much as fits, which can't be verified here.
    pub fn of_proof(spki_der: &[u8], message: &[u8], proof: &[u8]) -> Result<Self, CsrError> {
        let key = Self::from_spki_der(spki_der).ok_or(CsrError::Malformed)?;
        let spki = Spki::parse(spki_der).ok_or(CsrError::Malformed)?;
        if matches!(spki.key, spki::KeyMaterial::Rsa { .. }) {
            return Err(CsrError::Unprovable);
        }
        let proves = PROOFS.iter().any(|algorithm| {
            spki.algorithm == algorithm.public_key_alg_id().as_ref()
                && algorithm.verify_signature(spki.bits, message, proof).is_ok()
        });
        proves.then_some(key).ok_or(CsrError::Signature)
    }
}
