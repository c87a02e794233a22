//! From a volume's spec to a verified SVID: key, request, signature, checks.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    NodeError, backoff,
    metrics::{Metrics, observe},
    pending::PendingKey,
    pod_token::PodTokenCell,
    volume::Svid,
};
use crate::{
    class::Class,
    clock::Clock,
    id::SpiffeId,
    jitter::random,
    pki::{Csr, DnsName, KeyAlgorithm, PrivateKey, SvidError, X509Svid},
    signer::{Assigned, Handout, SignError, SignRequest, Signer},
    trust::{BundleStore, TrustBundles},
    volume::{VolumeId, VolumeSpec},
};

/// kubelet waits two minutes for a publish; a signer gets far less, so that a retry is left.
pub(super) const SIGN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after a root was first used this node may hear that it is to be trusted.
pub(super) const LAG: Duration = Duration::from_secs(5);
/// How far the signer's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(60);
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

/// What is to be issued.
pub(super) struct Wish<'a> {
    pub(super) volume: &'a VolumeId,
    pub(super) spec: &'a VolumeSpec,
    pub(super) pod_token: &'a PodTokenCell,
    /// What to ask for first; policy may know better.
    pub(super) asked: Assigned,
    pub(super) patience: Patience,
    /// Where the key is kept meanwhile, if the request may outlive this process.
    pub(super) pending: Option<PendingKey<'a>>,
    /// The public key of the set that is there.
    pub(super) used: Option<&'a [u8]>,
    /// What the pod is given, and the identity that it would have if nobody assigned another,
    /// where SVIDs come with their keys.
    pub(super) handout: Option<(&'a Handout, SpiffeId)>,
}

/// A new SVID.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) svid: Svid,
    /// What it was verified against.
    pub(super) bundles: Arc<TrustBundles>,
    /// What policy assigned, if that is not what was asked for first.
    pub(super) assigned: Option<Assigned>,
}

// === impl Issuer ===

impl Issuer {
    /// A new SVID with a new key.
    pub(super) async fn issue(&self, wish: Wish<'_>) -> Result<Issued, NodeError> {
        let deadline = Instant::now() + SIGN_TIMEOUT;
        if self.signer.is_remote() {
            self.trusts_someone(wish.patience, deadline).await?;
        }
        if let Some((handout, wanted)) = &wish.handout {
            return self.take(&wish, handout, wanted, deadline).await;
        }
        let mut assigned = None;
        match self.issue_as(&wish, &wish.asked, deadline).await {
            // Once: a policy that changes its mind all the time is for a person to look at.
            Err(NodeError::Sign(error)) if error.assigned().is_some() => {
                assigned = error.assigned().cloned();
            }
            answer => return answer.map(|(svid, bundles)| Issued { svid, bundles, assigned }),
        }
        let Some(other) = &mut assigned else {
            return Err(NodeError::Panicked);
        };
        if !other.is_possible(wish.asked.id.trust_domain()) {
            let message = format!("the signer assigned {}, which no workload here has", other.id);
            return Err(SignError::new(Class::Internal, message).into());
        }
        if wish.spec.explicit_key_algorithm {
            other.key_algorithm = wish.spec.key_algorithm;
        }
        let (svid, bundles) = self.issue_as(&wish, other, deadline).await?;
        Ok(Issued { svid, bundles, assigned })
    }

    /// Waits for a bundle for as long as one answer may take, if it comes from elsewhere.
    pub(super) async fn wait_for_trust(&self) -> Result<(), NodeError> {
        if !self.signer.is_remote() {
            return Ok(());
        }
        self.trusts_someone(Patience::Waits, Instant::now() + SIGN_TIMEOUT).await
    }

    /// Waits for a bundle: what nobody can verify is not worth asking for. A local CA, which has
    /// none while it can't sign, says why itself.
    async fn trusts_someone(&self, patience: Patience, deadline: Instant) -> Result<(), NodeError> {
        let mut bundles = self.bundles.subscribe();
        if bundles.borrow().is_some() {
            return Ok(());
        }
        let published = async { bundles.wait_for(Option::is_some).await.is_ok() };
        let found = match patience {
            Patience::TriesOnce => false,
            Patience::Waits => tokio::select! {
                published = timeout_at(deadline, published) => published.unwrap_or(false),
                () = self.ending.cancelled() => return Err(NodeError::ShuttingDown),
            },
        };
        if found {
            return Ok(());
        }
        // Where the API server is away, that is why.
        self.signer.status().ready?;
        Err(NodeError::NoBundle)
    }

    async fn issue_as(
        &self,
        wish: &Wish<'_>,
        what: &Assigned,
        deadline: Instant,
    ) -> Result<(Svid, Arc<TrustBundles>), NodeError> {
        let spec = wish.spec;
        if spec.issuer.is_some() && !self.signer.has_issuers() {
            let message = "the volume names an issuer, which only --signer cert-manager has";
            return Err(SignError::new(Class::Invalid, message).into());
        }
        let kept = wish.pending.and_then(|it| it.load(what.key_algorithm, wish.used));
        let resumed = kept.is_some();
        let in_csr: &[DnsName] = if self.signer.has_issuers() { &spec.dns_names } else { &[] };
        let (key, csr) = make_request(kept, what, in_csr).await?;
        if let Some(pending) = wish.pending.filter(|_| !resumed) {
            pending.keep(&key)?;
        }
        let pod_token = wish.pod_token.current(self.clock.now());
        let request = SignRequest {
            volume: wish.volume.clone(),
            pod: spec.pod.clone(),
            id: what.id.clone(),
            ttl: spec.ttl,
            explicit_ttl: spec.explicit_ttl.then_some(spec.ttl),
            explicit_key_algorithm: spec.explicit_key_algorithm.then_some(spec.key_algorithm),
            dns_names: spec.dns_names.clone(),
            issuer: spec.issuer.clone(),
            csr,
            pod_token: pod_token.as_ref().ok().cloned(),
        };
        let answer = match wish.patience {
            Patience::TriesOnce => self.sign(&request, SIGN_TIMEOUT).await,
            Patience::Waits => self.sign_in_time(&request, deadline).await,
        };
        let refused = |error: &NodeError| matches!(error, NodeError::Sign(error) if error.class() != Class::Unavailable && !error.wants_pod_token());
        if let Some(pending) = wish.pending
            && answer.as_ref().is_err_and(refused)
        {
            pending.remove();
        }
        let x509 = answer.map_err(|error| error.with_reason(pod_token.map(drop)))?;
        self.waits_for_its_time(&x509).await?;
        let bundles = self.trusted_soon(&x509, &request.id, key.spki_der()).await?;
        x509.check_dns_names(&request.dns_names)?;
        Ok((Svid { x509, key: Arc::new(key) }, bundles))
    }

    /// Lets a certificate begin that was made by a clock ahead of ours: asking again would be
    /// answered the same.
    pub(super) async fn waits_for_its_time(&self, x509: &X509Svid) -> Result<(), NodeError> {
        let ahead = x509.not_before().duration_since(self.clock.now()).unwrap_or_default();
        if ahead.is_zero() {
            return Ok(());
        }
        if ahead > SKEW {
            return Err(NodeError::ClockBehind { seconds: ahead.as_secs() });
        }
        warn!(ahead_ms = ahead.as_millis() as u64, "this node's clock is behind the signer's");
        tokio::select! {
            // To the millisecond, and never too soon.
            () = sleep(ahead + Duration::from_millis(1)) => Ok(()),
            () = self.ending.cancelled() => Err(NodeError::ShuttingDown),
        }
    }

    /// The bundles by which an SVID verifies, read after its signature: whatever signed is in the
    /// bundle by then (invariant 6).
    pub(super) async fn trusted_soon(
        &self,
        x509: &X509Svid,
        id: &SpiffeId,
        spki_der: &[u8],
    ) -> Result<Arc<TrustBundles>, NodeError> {
        let patience = Instant::now() + if self.signer.is_remote() { LAG } else { Duration::ZERO };
        let verify =
            |bundles: &TrustBundles| x509.verify(id, spki_der, &bundles.own, self.clock.now());
        self.trusted(patience, verify).await
    }

    /// The bundles, once they pass: a node may hear of a new root a moment after the signer uses it.
    async fn trusted(
        &self,
        deadline: Instant,
        verify: impl Fn(&TrustBundles) -> Result<(), SvidError>,
    ) -> Result<Arc<TrustBundles>, NodeError> {
        let mut changes = self.bundles.subscribe();
        loop {
            let current = changes.borrow_and_update().clone();
            let error = match current.map(|bundles| (verify(&bundles), bundles)) {
                Some((Ok(()), bundles)) => return Ok(bundles),
                Some((Err(SvidError::Untrusted), _)) => SvidError::Untrusted.into(),
                Some((Err(error), _)) => return Err(error.into()),
                None => NodeError::NoBundle,
            };
            tokio::select! {
                changed = timeout_at(deadline, changes.changed()) => match changed {
                    Ok(Ok(())) => {}
                    _ => return Err(self.explained(error)),
                },
                () = self.ending.cancelled() => return Err(NodeError::ShuttingDown),
            }
        }
    }

    /// An answer that this node can't verify, with why it knows no better where that is known.
    fn explained(&self, error: NodeError) -> NodeError {
        match (error, self.bundles.refusal()) {
            (NodeError::Refused(error), Some(refusal)) => NodeError::Behind { error, refusal },
            (error, _) => error,
        }
    }

    /// Tries again while the signer is away, for as long as one answer may take.
    async fn sign_in_time(
        &self,
        request: &SignRequest,
        deadline: Instant,
    ) -> Result<X509Svid, NodeError> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut failures = 0;
        let mut last = None;
        loop {
            let error = match (self.sign(request, left()).await, last) {
                (Err(NodeError::Sign(error)), _) if error.class() == Class::Unavailable => error,
                // What was said before tells more than silence.
                (Err(NodeError::SignTimeout(seconds)), Some(error)) => {
                    return Err(NodeError::SignerAway { error, seconds });
                }
                (done, _) => return done,
            };
            failures += 1;
            let (class, wait) = (error.class(), error.retry_after());
            let delay = backoff::delay(class, failures, left(), wait, random());
            if delay >= left() {
                return Err(NodeError::SignerAway { error, seconds: SIGN_TIMEOUT.as_secs() });
            }
            if failures == 1 {
                warn!(volume = %request.volume, %error, "the publish waits for its signer");
            }
            last = Some(error);
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

/// A request for a key that is there, or a new one.
async fn make_request(
    key: Option<PrivateKey>,
    what: &Assigned,
    dns_names: &[DnsName],
) -> Result<(PrivateKey, Csr), NodeError> {
    let Assigned { id, key_algorithm: algorithm } = what.clone();
    let dns_names = dns_names.to_vec();
    let make = move || {
        let key = key.map_or_else(|| PrivateKey::generate(algorithm), Ok)?;
        let csr = Csr::create_with_dns_names(&key, &id, &dns_names)?;
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
