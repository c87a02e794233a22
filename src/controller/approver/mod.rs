//! The decision on a request (DESIGN.md §5): pure, so that a table can test it.

mod certificate;
mod explain;
mod grant;
mod jwt_grant;
mod jwt_terms;
mod policy;
mod reason;
mod request;
mod rule;
mod selector;
mod who;
mod whom;

use std::time::{Duration, SystemTime};

pub use self::{
    certificate::{CertificateWish, decide_certificate},
    explain::{Case, Explanation, RuleVerdict, explain},
    jwt_grant::{JwtGrant, JwtWish, decide_jwt},
    policy::{Policy, PolicyProblem, PolicySet},
    reason::{Denial, Fact, ReasonCode},
    request::{
        IdentityRequest, NamedPod, Requester, Uses, Wish, check_id, possible_ttls, shown,
        unreadable,
    },
    rule::Verdict,
};
use crate::{
    id::{SpiffeId, TrustDomain},
    k8s::{ApprovalMessage, NamespaceFacts, NodeFacts, ObjectName, PodFacts, ServiceAccountFacts},
    pki::{DnsName, PublicKey},
};

/// A request and all that is known about it. What is `None` does not exist, as far as is known.
#[derive(Debug)]
pub struct Question<'a, W = Wish> {
    /// The request.
    pub request: &'a IdentityRequest<W>,
    /// The driver's pod that asks ([`Requester::driver_pod`]).
    pub driver_pod: Option<&'a PodFacts>,
    /// The ServiceAccount that the driver's pods run as.
    pub driver_service_account: Option<&'a ServiceAccountFacts>,
    /// The Node that asks ([`Requester::node`]).
    pub node: Option<&'a NodeFacts>,
    /// The pod that the request is for ([`IdentityRequest::pod`]).
    pub pod: Option<&'a PodFacts>,
    /// That pod's ServiceAccount.
    pub service_account: Option<&'a ServiceAccountFacts>,
    /// That pod's namespace.
    pub namespace: Option<&'a NamespaceFacts>,
    /// The policies.
    pub policies: &'a PolicySet,
    /// How this controller is set up.
    pub settings: &'a ApproverSettings,
    /// The time.
    pub now: SystemTime,
}

/// How the controller is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApproverSettings {
    /// The trust domain that it signs for.
    pub trust_domain: TrustDomain,
    /// The CSI driver's name.
    pub driver_name: String,
    /// The ServiceAccount that the driver's pods run as.
    pub driver_service_account: ObjectName,
    /// The signer name of the PodCertificateRequests that are signed; nothing where none are.
    pub pod_certificate_signer: Option<String>,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<G = Grant> {
    /// It may be signed, as this.
    Approve(Box<G>),
    /// It may not.
    Deny(Denial),
}

/// What may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The name of the policy that applies.
    pub policy: String,
    /// The identity.
    pub id: SpiffeId,
    /// The lifetime.
    pub ttl: Duration,
    /// The DNS names beside the identity.
    pub dns_names: Vec<DnsName>,
    /// Other trust domains whose bundles the pod gets.
    pub federates_with: Vec<TrustDomain>,
    /// The key to be certified.
    pub public_key: PublicKey,
}

/// How long a pod may outlive its own deletion.
const DELETED: Duration = Duration::from_secs(60);

/// Decides. The same question always has the same answer.
pub fn decide(question: &Question<'_>) -> Decision {
    match grant(question) {
        Ok(grant) => Decision::Approve(Box::new(grant)),
        Err(denial) => Decision::Deny(denial),
    }
}

fn grant(question: &Question<'_>) -> Result<Grant, Denial> {
    let requester = who::check(question)?;
    let subject = whom::check(question, requester)?;
    let wish = question.request.wish.as_ref().map_err(Clone::clone)?;
    grant::check(question, &subject, wish)
}

// === impl ApproverSettings ===

impl ApproverSettings {
    /// Whether a pod is to have an identity in one of the ways that there are.
    pub fn concerns(&self, pod: &PodFacts) -> bool {
        pod.uses_driver(&self.driver_name) || self.projects(pod)
    }

    fn projects(&self, pod: &PodFacts) -> bool {
        let signer = self.pod_certificate_signer.as_deref();
        signer.is_some_and(|signer| pod.projects_certificate(signer))
    }
}

// === impl Grant ===

impl Grant {
    /// What the condition Approved says.
    pub fn message(&self) -> ApprovalMessage {
        ApprovalMessage {
            policy: self.policy.clone(),
            id: self.id.clone(),
            ttl_seconds: self.ttl.as_secs(),
            dns_names: self.dns_names.clone(),
            federates_with: self.federates_with.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
