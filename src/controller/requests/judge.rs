//! One request, from where it is to its end.

use tracing::info;

use super::{look, read, step::Step};
use crate::{
    controller::{
        approver::{Decision, Denial, Grant, decide},
        audit::{Entry, Outcome, Way},
        reconcile::{Ground, Handled, Obstacle},
        world::Judgement,
    },
    k8s::{
        ApiError, PodFacts, RequestDecisions, RequestFacts,
        names::{APPROVED_REASON, annotation, extra},
    },
    pki::Csr,
};

/// What one request is handled with.
pub(super) struct Judge {
    pub(super) ground: Ground,
    pub(super) decisions: RequestDecisions,
}

// === impl Judge ===

impl Judge {
    /// Does what this version of a request needs. Each decision is written down before it leaves, so
    /// that there is none without its line.
    pub(super) async fn handle(&self, request: &RequestFacts) -> Handled {
        let result = match Step::of(request) {
            Step::Leave => Ok(()),
            Step::Decide => self.decide(request).await,
            Step::Sign => self.sign(request).await,
        };
        Handled::after(result, &request.name, &self.ground.issuance.metrics)
    }

    async fn judge(&self, request: &RequestFacts) -> Result<Judgement<Grant>, ApiError> {
        let world = &self.ground.world;
        world.judge(&read(request, world.settings()), decide).await
    }

    async fn decide(&self, request: &RequestFacts) -> Result<(), Obstacle> {
        let Judgement { decision, pod } = self.judge(request).await?;
        match decision {
            Decision::Approve(grant) => {
                self.ground.issuance.approve(&grant, &asked(request, pod.as_deref()))?;
                let message = grant.message().to_json();
                let approved = self.decisions.approve(request, APPROVED_REASON, &message).await?;
                self.ground.issuance.metrics.decided(Outcome::Approve, APPROVED_REASON);
                self.sign(&approved).await
            }
            Decision::Deny(denial) => {
                self.refuse(Outcome::Deny, request, &denial, pod.as_deref()).await
            }
        }
    }

    /// Decides once more, on the version that is signed: annotations may have changed since, and
    /// others may approve.
    async fn sign(&self, request: &RequestFacts) -> Result<(), Obstacle> {
        let Judgement { decision, pod } = self.judge(request).await?;
        let grant = match decision {
            Decision::Approve(grant) => grant,
            Decision::Deny(denial) => {
                return self.refuse(Outcome::Fail, request, &denial, pod.as_deref()).await;
            }
        };
        let svid = self.ground.issuance.sign(&grant, &asked(request, pod.as_deref()))?;
        self.decisions.certify(request, svid.chain_pem()).await?;
        self.ground.issuance.metrics.decided(Outcome::Sign, APPROVED_REASON);
        let took = look(request).age(self.ground.issuance.clock.now());
        self.ground.issuance.metrics.issuance_seconds.observe(took.as_secs_f64());
        info!(
            request = request.name, id = %grant.id, serial = svid.serial_hex(),
            took_ms = took.as_millis() as u64, "signed"
        );
        Ok(())
    }

    async fn refuse(
        &self,
        outcome: Outcome,
        request: &RequestFacts,
        denial: &Denial,
        pod: Option<&PodFacts>,
    ) -> Result<(), Obstacle> {
        let (reason, message) = (denial.reason.as_str(), denial.condition_message());
        let wanted = wanted(request);
        let asked =
            Entry { spiffe_id: wanted.as_deref().unwrap_or_default(), ..asked(request, pod) };
        self.ground.issuance.refuse(outcome, denial, &asked)?;
        match outcome {
            Outcome::Fail => self.decisions.fail(request, reason, &message).await?,
            _ => self.decisions.deny(request, reason, &message).await?,
        };
        self.ground.issuance.metrics.decided(outcome, reason);
        info!(request = request.name, reason, why = denial.message, "refused");
        Ok(())
    }
}

/// Who asks, and for whom.
fn asked<'a>(request: &'a RequestFacts, pod: Option<&'a PodFacts>) -> Entry<'a> {
    let said = |key: &str| request.annotations.get(key).map_or("", String::as_str);
    Entry {
        way: Some(Way::CertificateSigningRequest),
        request: &request.name,
        request_uid: &request.uid,
        requester: &request.username,
        node: request.extra(extra::NODE_NAME).unwrap_or_default(),
        node_uid: request.extra(extra::NODE_UID).unwrap_or_default(),
        driver_pod: request.extra(extra::POD_NAME).unwrap_or_default(),
        pod_namespace: said(annotation::POD_NAMESPACE),
        pod: said(annotation::POD_NAME),
        pod_uid: said(annotation::POD_UID),
        service_account: pod.map_or("", PodFacts::service_account),
        ..Entry::default()
    }
}

/// The ID that a refused request asked for, if it is one.
fn wanted(request: &RequestFacts) -> Option<String> {
    let pem = std::str::from_utf8(&request.request).ok()?;
    Some(Csr::from_pem(pem).ok()?.id().as_str().to_owned())
}
