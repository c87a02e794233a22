//! From a volume's spec to a verified SVID: key, request, signature, checks.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    NodeError,
    metrics::{Metrics, observe},
    volume::Svid,
};
use crate::{
    clock::Clock,
    id::SpiffeId,
    pki::{Csr, KeyAlgorithm, PrivateKey},
    signer::{SignRequest, Signer},
    trust::{BundleStore, TrustBundles},
    volume::{VolumeId, VolumeSpec},
};

/// kubelet waits two minutes for a publish; a signer gets far less, so that a retry is left.
const SIGN_TIMEOUT: Duration = Duration::from_secs(20);

/// Has SVIDs signed, and believes nothing about them.
pub(super) struct Issuer {
    pub(super) signer: Arc<dyn Signer>,
    pub(super) bundles: Arc<BundleStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

// === impl Issuer ===

impl Issuer {
    /// A new SVID with a new key, and the bundles that it was verified against.
    pub(super) async fn issue(
        &self,
        volume: &VolumeId,
        spec: &VolumeSpec,
        id: SpiffeId,
    ) -> Result<(Svid, Arc<TrustBundles>), NodeError> {
        let (key, csr) = make_request(spec.key_algorithm, &id).await?;
        let request =
            SignRequest { volume: volume.clone(), pod: spec.pod.clone(), id, ttl: spec.ttl, csr };
        let started = Instant::now();
        let answer = timeout(SIGN_TIMEOUT, self.signer.sign(&request)).await;
        observe(&self.metrics.sign_seconds, started.elapsed());
        let Ok(answer) = answer else {
            return Err(NodeError::SignTimeout(SIGN_TIMEOUT.as_secs()));
        };
        let x509 = answer?;
        // Read after the signature: whatever signed is in the bundle by then (invariant 6).
        let bundles = self.bundles.current().ok_or(NodeError::NoBundle)?;
        x509.verify(&request.id, key.spki_der(), &bundles.own, self.clock.now())?;
        Ok((Svid { x509, key: Arc::new(key) }, bundles))
    }
}

async fn make_request(
    algorithm: KeyAlgorithm,
    id: &SpiffeId,
) -> Result<(PrivateKey, Csr), NodeError> {
    let id = id.clone();
    let make = move || {
        let key = PrivateKey::generate(algorithm)?;
        let csr = Csr::create(&key, &id)?;
        Ok((key, csr))
    };
    match algorithm {
        // An RSA key takes up to seconds, which would hold up everyone else on this thread.
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa4096 => {
            tokio::task::spawn_blocking(make).await.unwrap_or(Err(NodeError::Panicked))
        }
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::Ed25519 => make(),
    }
}
