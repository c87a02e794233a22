//! The decision on a request (DESIGN.md §5): pure, so that a table can test it.

mod explain;
mod grant;
mod policy;
mod reason;
mod rule;
mod selector;
mod what;
mod who;
mod whom;

use std::time::{Duration, SystemTime};

pub use self::{
    explain::{Case, Explanation, RuleVerdict, explain},
    policy::{Policy, PolicyProblem, PolicySet},
    reason::{Denial, Fact, ReasonCode},
    rule::Verdict,
};
use crate::{
    id::{SpiffeId, TrustDomain},
    k8s::{
        ApprovalMessage, NamespaceFacts, NodeFacts, ObjectName, PodFacts, RequestFacts,
        ServiceAccountFacts,
    },
    pki::{Csr, DnsName},
};

/// A request and all that is known about it. What is `None` does not exist, as far as is known.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The request.
    pub request: &'a RequestFacts,
    /// The pod named by the requester's token ([`RequestFacts::driver_pod`]).
    pub driver_pod: Option<&'a PodFacts>,
    /// The Node named by the requester's token ([`RequestFacts::driver_node`]).
    pub driver_node: Option<&'a NodeFacts>,
    /// The pod that the request says it is for ([`RequestFacts::pod`]).
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
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be signed, as this.
    Approve(Box<Grant>),
    /// It may not.
    Deny(Denial),
}

/// What may be signed. Of the request only the public key counts.
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
    /// The request, checked.
    pub csr: Csr,
}

/// Decides. The same question always has the same answer.
pub fn decide(question: &Question<'_>) -> Decision {
    match grant(question) {
        Ok(grant) => Decision::Approve(Box::new(grant)),
        Err(denial) => Decision::Deny(denial),
    }
}

fn grant(question: &Question<'_>) -> Result<Grant, Denial> {
    let requester = who::check(question)?;
    let subject = whom::check(question, &requester)?;
    let wish = what::check(question)?;
    grant::check(question, &subject, wish)
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
