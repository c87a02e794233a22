//! One CertificateRequest: decided once, for good.

use std::sync::Arc;

use tracing::info;

use super::{fence::Fence, read};
use crate::{
    controller::{
        approver::{Decision, decide_certificate},
        audit::{Entry, Outcome},
        reconcile::{Ground, Handled, Obstacle},
        world::Judgement,
    },
    k8s::{
        CertificateRequestDecisions, CertificateRequestFacts, PodFacts,
        names::{APPROVED_REASON, annotation, extra},
    },
    pki::Csr,
    signer::cert_manager::Issuers,
};

/// What one request is handled with.
pub(super) struct Judge {
    pub(super) ground: Ground,
    pub(super) decisions: CertificateRequestDecisions,
    pub(super) issuers: Arc<Issuers>,
    pub(super) fence: Arc<Fence>,
}

// === impl Judge ===

impl Judge {
    /// Decides. Each decision is written down before it leaves, so that there is none without its line.
    pub(super) async fn handle(&self, request: &CertificateRequestFacts) -> Handled {
        let result = match request.is_decided() {
            true => Ok(()),
            false => self.decide(request).await,
        };
        Handled::after(result, &request.name, &self.ground.issuance.metrics)
    }

    async fn decide(&self, request: &CertificateRequestFacts) -> Result<(), Obstacle> {
        // What the webhook wrote counts only while it is known to write it.
        self.fence.ready().map_err(Obstacle::Waits)?;
        let issuer = &request.spec.issuer_ref;
        if !self.issuers.is_default(issuer) {
            self.issuers.read().await?;
        }
        let (world, is_default) = (&self.ground.world, self.issuers.is_default(issuer));
        let asked_for = read(request, is_default, world.settings());
        let Judgement { decision, pod } = world.judge(&asked_for, decide_certificate).await?;
        let wanted = wanted(request);
        let asked = asked(request, pod.as_deref(), wanted.as_deref());
        let issuance = &self.ground.issuance;
        let now = issuance.clock.now();
        match decision {
            Decision::Approve(grant) => {
                issuance.admit(&grant, &asked)?;
                let message = grant.message().to_json();
                let decisions = &self.decisions;
                decisions.decide(request, "Approved", APPROVED_REASON, &message, now).await?;
                issuance.metrics.decided(Outcome::Approve, APPROVED_REASON);
                info!(request = request.name, id = %grant.id, %issuer, "approved");
            }
            Decision::Deny(denial) => {
                let (reason, message) = (denial.reason.as_str(), denial.condition_message());
                issuance.refuse(Outcome::Deny, &denial, &asked)?;
                self.decisions.decide(request, "Denied", reason, &message, now).await?;
                issuance.metrics.decided(Outcome::Deny, reason);
                info!(request = request.name, reason, why = denial.message, "refused");
            }
        }
        Ok(())
    }
}

/// Who asks, and for whom.
fn asked<'a>(
    request: &'a CertificateRequestFacts,
    pod: Option<&'a PodFacts>,
    wanted: Option<&'a str>,
) -> Entry<'a> {
    let said = |key: &str| request.annotations.get(key).map_or("", String::as_str);
    let told = |key: &str| match request.spec.extra.get(key).map(Vec::as_slice) {
        Some([value]) => value.as_str(),
        _ => "",
    };
    Entry {
        request: &request.name,
        request_uid: &request.uid,
        requester: &request.spec.username,
        node: told(extra::NODE_NAME),
        node_uid: told(extra::NODE_UID),
        driver_pod: told(extra::POD_NAME),
        pod_namespace: said(annotation::POD_NAMESPACE),
        pod: said(annotation::POD_NAME),
        pod_uid: said(annotation::POD_UID),
        service_account: pod.map_or("", PodFacts::service_account),
        spiffe_id: wanted.unwrap_or_default(),
        ..Entry::default()
    }
}

/// The ID that a request asks for, if it is one.
fn wanted(request: &CertificateRequestFacts) -> Option<String> {
    let pem = std::str::from_utf8(&request.spec.request.as_ref()?.0).ok()?;
    Some(Csr::from_pem_with_dns_names(pem).ok()?.id().as_str().to_owned())
}
