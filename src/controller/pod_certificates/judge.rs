//! One PodCertificateRequest, from where it is to its end: decided and signed at once, because nothing
//! of it can change in between.

use std::time::{Duration, SystemTime};

use tracing::info;

use super::{look, read, read::SHORTEST};
use crate::{
    controller::{
        approver::{Decision, Denial, Grant, ReasonCode, decide},
        audit::{Entry, Outcome, Way},
        issuance::Issuance,
        reconcile::{Ground, Handled, Obstacle},
        world::Judgement,
    },
    k8s::{
        Fence, PodCertificate, PodCertificateFacts, PodCertificates, PodFacts,
        names::APPROVED_REASON,
    },
    pki::{Profile, RenewalPolicy, X509Svid},
};

/// What one request is handled with.
pub(super) struct Judge {
    pub(super) ground: Ground,
    pub(super) requests: PodCertificates,
    pub(super) fence: Fence,
}

/// How long after the fence was put up every API server minds it.
const SETTLING: Duration = Duration::from_secs(10);
/// The reason that the API wants for a key that its signer does not certify.
const UNSUPPORTED_KEY: &str = "UnsupportedKeyType";

// === impl Judge ===

impl Judge {
    /// Does what a request needs. Each decision is written down before it leaves, so that there is none
    /// without its line.
    pub(super) async fn handle(&self, request: &PodCertificateFacts) -> Handled {
        let name = request.name.to_string();
        Handled::after(self.decide(request).await, &name, &self.ground.issuance.metrics)
    }

    async fn decide(&self, request: &PodCertificateFacts) -> Result<(), Obstacle> {
        fenced(self.fence.stands_since(), request.created).map_err(Obstacle::Waits)?;
        let world = &self.ground.world;
        let Judgement { decision, pod } =
            world.judge(&read(request, world.settings()), decide).await?;
        let (name, kubelet) =
            (request.name.to_string(), format!("system:node:{}", request.node_name));
        let asked = Entry {
            way: Some(Way::PodCertificateRequest),
            request: &name,
            request_uid: &request.uid,
            requester: &kubelet,
            node: &request.node_name,
            node_uid: &request.node_uid,
            pod_namespace: &request.name.namespace,
            pod: &request.pod_name,
            pod_uid: &request.pod_uid,
            service_account: pod.as_deref().map_or("", PodFacts::service_account),
            ..Entry::default()
        };
        match decision {
            Decision::Approve(grant) => self.sign(request, *grant, &asked).await,
            Decision::Deny(denial) => self.refuse(request, &denial, &asked).await,
        }
    }

    async fn sign(
        &self,
        request: &PodCertificateFacts,
        grant: Grant,
        asked: &Entry<'_>,
    ) -> Result<(), Obstacle> {
        let Issuance { metrics, clock, .. } = &*self.ground.issuance;
        let grant = Grant { ttl: lasting(grant.ttl, request), ..grant };
        let svid = self.ground.issuance.sign(&grant, asked)?;
        let certificate = certificate(request, &svid).ok_or_else(|| {
            let problem = "with what is left of this CA, or has just begun, no certificate lives the \
                           hour that the API server wants";
            Obstacle::Waits(problem.to_owned())
        })?;
        let message = grant.message().to_json();
        let now = clock.now();
        self.requests.issue(request, &certificate, APPROVED_REASON, &message, now).await?;
        metrics.decided(Outcome::Sign, APPROVED_REASON);
        let took = look(request).age(clock.now());
        metrics.issuance_seconds.observe(took.as_secs_f64());
        info!(
            request = %request.name, id = %grant.id, serial = svid.serial_hex(),
            took_ms = took.as_millis() as u64, "signed"
        );
        Ok(())
    }

    /// Final for the pod: its kubelet asks no more.
    async fn refuse(
        &self,
        request: &PodCertificateFacts,
        denial: &Denial,
        asked: &Entry<'_>,
    ) -> Result<(), Obstacle> {
        let Issuance { metrics, clock, .. } = &*self.ground.issuance;
        self.ground.issuance.refuse(Outcome::Deny, denial, asked)?;
        let reason = condition_reason(denial.reason);
        self.requests.deny(request, reason, &denial.message, clock.now()).await?;
        let reason = denial.reason.as_str();
        metrics.decided(Outcome::Deny, reason);
        info!(request = %request.name, reason, why = denial.message, "refused");
        Ok(())
    }
}

/// Whether the fence was there already when a request was made. One that was made without it may be
/// anybody's, and gets no answer: its kubelet, if there is one, asks again once it has been cleaned up.
pub(super) fn fenced(
    since: Result<SystemTime, String>,
    created: Option<SystemTime>,
) -> Result<(), String> {
    let since = since
        .map_err(|problem| format!("nobody keeps others than kubelets from asking: {problem}"))?;
    match created.is_some_and(|created| created >= since + SETTLING) {
        true => Ok(()),
        false => Err("the request is older than the fence that says who asks".to_owned()),
    }
}

/// From now to the end, so that with what a certificate is backdated it is no longer than it may be.
pub(super) fn lasting(ttl: Duration, request: &PodCertificateFacts) -> Duration {
    let longest = Duration::from_secs(request.max_expiration_seconds.unwrap_or_default());
    ttl.min(longest.saturating_sub(Profile::backdate(longest)))
}

/// What the API server is told, if it would take it: an hour at least.
pub(super) fn certificate(
    request: &PodCertificateFacts,
    svid: &X509Svid,
) -> Option<PodCertificate> {
    let (not_before, not_after) = (svid.not_before(), svid.not_after());
    let lives = not_after.duration_since(not_before).ok()?;
    let seed = [request.pod_uid.as_bytes(), svid.serial_hex().as_bytes()].concat();
    (lives >= SHORTEST).then(|| PodCertificate {
        chain_pem: svid.chain_pem(),
        not_before,
        not_after,
        // Of an hour at least: twenty minutes from either end.
        begin_refresh_at: RenewalPolicy::renew_at(not_before, not_after, &seed),
    })
}

/// Our reason, but where the API has one of its own.
pub(super) fn condition_reason(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::WeakKey | ReasonCode::KeyAlgorithmNotAllowed => UNSUPPORTED_KEY,
        other => other.as_str(),
    }
}
