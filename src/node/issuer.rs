//! From a volume's spec to a verified SVID: key, request, signature, checks.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    NodeError, backoff,
    metrics::{Metrics, observe},
    volume::Svid,
};
use crate::{
    class::Class,
    clock::Clock,
    id::SpiffeId,
    pki::{Csr, KeyAlgorithm, PrivateKey, X509Svid},
    signer::{SignRequest, Signer},
    trust::{BundleStore, TrustBundles},
    volume::{VolumeId, VolumeSpec},
};

/// kubelet waits two minutes for a publish; a signer gets far less, so that a retry is left.
const SIGN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an answer may take that is under way when the node shuts down.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Has SVIDs signed, and believes nothing about them.
pub(super) struct Issuer {
    pub(super) signer: Arc<dyn Signer>,
    pub(super) bundles: Arc<BundleStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    /// Cancelled when the node shuts down.
    pub(super) ending: CancellationToken,
}

/// What to do about a signer that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// A renewal: it comes again after a backoff, and the last good set stays meanwhile.
    TriesOnce,
    /// A publish: its pod has nothing to start with, and kubelet's own retry may be minutes away.
    Waits,
}

// === impl Issuer ===

impl Issuer {
    /// A new SVID with a new key, and the bundles that it was verified against.
    pub(super) async fn issue(
        &self,
        volume: &VolumeId,
        spec: &VolumeSpec,
        id: SpiffeId,
        patience: Patience,
    ) -> Result<(Svid, Arc<TrustBundles>), NodeError> {
        let (key, csr) = make_request(spec.key_algorithm, &id).await?;
        let request =
            SignRequest { volume: volume.clone(), pod: spec.pod.clone(), id, ttl: spec.ttl, csr };
        let x509 = match patience {
            Patience::TriesOnce => self.sign(&request, SIGN_TIMEOUT).await?,
            Patience::Waits => self.sign_in_time(&request).await?,
        };
        // Read after the signature: whatever signed is in the bundle by then (invariant 6).
        let bundles = self.bundles.current().ok_or(NodeError::NoBundle)?;
        x509.verify(&request.id, key.spki_der(), &bundles.own, self.clock.now())?;
        Ok((Svid { x509, key: Arc::new(key) }, bundles))
    }

    /// Tries again while the signer is away, for as long as one answer may take.
    async fn sign_in_time(&self, request: &SignRequest) -> Result<X509Svid, NodeError> {
        let deadline = Instant::now() + SIGN_TIMEOUT;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut failures = 0;
        loop {
            let error = match self.sign(request, left()).await {
                Err(NodeError::Sign(error)) if error.class() == Class::Unavailable => error,
                done => return done,
            };
            failures += 1;
            let (class, wait) = (error.class(), error.retry_after());
            let delay = backoff::delay(class, failures, left(), wait, backoff::random());
            if delay >= left() {
                return Err(NodeError::SignerAway { error, seconds: SIGN_TIMEOUT.as_secs() });
            }
            if failures == 1 {
                warn!(volume = %request.volume, %error, "the publish waits for its signer");
            }
            tokio::select! {
                () = sleep(delay) => {}
                () = self.ending.cancelled() => return Err(NodeError::ShuttingDown),
            }
        }
    }

    async fn sign(&self, request: &SignRequest, within: Duration) -> Result<X509Svid, NodeError> {
        let started = Instant::now();
        let last_call = async {
            self.ending.cancelled().await;
            sleep(LAST_CALL).await;
        };
        let answer = tokio::select! {
            answer = timeout(within, self.signer.sign(request)) => answer,
            () = last_call => return Err(NodeError::ShuttingDown),
        };
        observe(&self.metrics.sign_seconds, started.elapsed());
        match answer {
            Ok(answer) => Ok(answer?),
            // `within` may be what earlier tries left of it, and is never whole seconds.
            Err(_) => Err(NodeError::SignTimeout(SIGN_TIMEOUT.as_secs())),
        }
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

#[cfg(test)]
mod tests;
