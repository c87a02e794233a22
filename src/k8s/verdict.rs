//! What the controller tells the node in a request's conditions.

use serde::{Deserialize, Serialize};

use crate::{
    id::{SpiffeId, TrustDomain},
    pki::{DnsName, KeyAlgorithm},
};

/// The message of the condition Approved, as JSON: what the SVID will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalMessage {
    /// The policy that applies.
    pub policy: String,
    /// The identity.
    pub id: SpiffeId,
    /// The lifetime.
    pub ttl_seconds: u64,
    /// The DNS names beside the identity.
    #[serde(default)]
    pub dns_names: Vec<DnsName>,
    /// Other trust domains whose bundles the pod gets.
    #[serde(default)]
    pub federates_with: Vec<TrustDomain>,
}

/// The message of the condition Denied with reason `IdentityIs`, as JSON: what to ask for instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityIs {
    /// The identity that policy gives this pod.
    pub id: SpiffeId,
    /// The key algorithm.
    pub key_algorithm: KeyAlgorithm,
}

/// The message of the condition Denied with reason `LifetimeIs`, as JSON: the lifetime to ask for, of
/// an issuer that gives what the request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LifetimeIs {
    /// The lifetime that policy gives this pod.
    pub ttl_seconds: u64,
}

// === impl ApprovalMessage ===

impl ApprovalMessage {
    /// As the condition holds it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

// === impl IdentityIs ===

impl IdentityIs {
    /// As the condition holds it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

// === impl LifetimeIs ===

impl LifetimeIs {
    /// As the condition holds it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
