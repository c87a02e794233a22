//! What decisions are made from: of each object the few things that count.
//!
//! A kubelet may change its pods' annotations and status. Of those only what counts against a
//! request is kept: that a pod has finished or is a mirror pod.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Namespace, Node, Pod, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

mod pod_spec;

pub(in crate::k8s) use self::pod_spec::Alike;
pub use self::pod_spec::KeptSpec;
use super::ObjectName;

/// A CertificateSigningRequest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that this is.
    pub resource_version: String,
    /// Who created it, as the API server says.
    pub username: String,
    /// More about who created it, as the API server says.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Who shall sign it.
    pub signer_name: String,
    /// The PKCS#10 request in PEM.
    pub request: Vec<u8>,
    /// What the certificate shall be for.
    pub usages: Vec<String>,
    /// For how long.
    pub expiration_seconds: Option<i32>,
    /// Whatever its creator wrote there.
    pub labels: BTreeMap<String, String>,
    /// Whatever its creator wrote there.
    pub annotations: BTreeMap<String, String>,
    /// What was decided.
    pub conditions: Vec<ConditionFacts>,
    /// Whether it has been signed.
    pub has_certificate: bool,
    /// When it was created, as the API server says.
    pub created: Option<SystemTime>,
}

/// A condition of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionFacts {
    /// `Approved`, `Denied` or `Failed`.
    pub kind: String,
    /// The reason code.
    pub reason: String,
    /// For a person, or JSON.
    pub message: String,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its specification.
    pub spec: KeptSpec,
    /// What its kubelet says of it; counts only against it.
    pub phase: String,
    /// When it is to be gone.
    pub deletion_timestamp: Option<SystemTime>,
    /// Whether its kubelet made it from a file; counts only against it.
    pub mirror: bool,
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Those labels that a kubelet cannot write: `*node-restriction.kubernetes.io/*`.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<TaintFacts>,
}

/// A taint of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintFacts {
    /// Its key.
    pub key: String,
    /// Its value, which may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// A Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What the API server sets on a kubelet's own pods, and a kubelet on any of its pods.
const MIRROR: &str = "kubernetes.io/config.mirror";
const NODE_RESTRICTION: &str = "node-restriction.kubernetes.io";

fn system_time(time: Time) -> SystemTime {
    time.0.into()
}

// === impl RequestFacts ===

impl RequestFacts {
    /// The value of a key of `spec.extra`, where there is exactly one.
    pub fn extra(&self, key: &str) -> Option<&str> {
        match self.extra.get(key).map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Some(value),
            _ => None,
        }
    }

    /// The condition of this kind.
    pub fn condition(&self, kind: &str) -> Option<&ConditionFacts> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether somebody approved it.
    pub fn is_approved(&self) -> bool {
        self.condition("Approved").is_some()
    }

    /// Whether somebody denied it.
    pub fn is_denied(&self) -> bool {
        self.condition("Denied").is_some()
    }

    /// Whether its signer gave it up.
    pub fn is_failed(&self) -> bool {
        self.condition("Failed").is_some()
    }

    /// Whether nothing more can become of it.
    pub fn is_finished(&self) -> bool {
        self.has_certificate || self.is_denied() || self.is_failed()
    }
}

impl From<CertificateSigningRequest> for RequestFacts {
    fn from(object: CertificateSigningRequest) -> Self {
        let CertificateSigningRequest { metadata, spec, status } = object;
        let status = status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default().into_iter();
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            username: spec.username.unwrap_or_default(),
            extra: spec.extra.unwrap_or_default(),
            signer_name: spec.signer_name,
            request: spec.request.0,
            usages: spec.usages.unwrap_or_default(),
            expiration_seconds: spec.expiration_seconds,
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            // Approved and Denied can be nothing but True; a Failed that is not has not failed.
            conditions: conditions
                .filter(|condition| condition.status == "True")
                .map(|condition| ConditionFacts {
                    kind: condition.type_,
                    reason: condition.reason.unwrap_or_default(),
                    message: condition.message.unwrap_or_default(),
                })
                .collect(),
            has_certificate: status
                .certificate
                .is_some_and(|certificate| !certificate.0.is_empty()),
            created: metadata.creation_timestamp.map(system_time),
        }
    }
}

// === impl PodFacts ===

impl PodFacts {
    /// Its namespace and name.
    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.namespace, &self.name)
    }

    /// The node that it is bound to; empty while it is bound to none.
    pub fn node_name(&self) -> &str {
        self.spec.node_name()
    }

    /// The ServiceAccount that it runs as.
    pub fn service_account(&self) -> &str {
        self.spec.service_account()
    }

    /// Whether it is of this name.
    pub fn is_named(&self, name: &ObjectName) -> bool {
        self.name == name.name && self.namespace == name.namespace
    }

    /// Whether it should have been gone for longer than this.
    pub fn is_overdue(&self, now: SystemTime, patience: Duration) -> bool {
        let overdue = self.deletion_timestamp.and_then(|at| now.duration_since(at).ok());
        overdue.is_some_and(|overdue| overdue > patience)
    }

    /// Whether its containers have ended for good.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether one of its volumes is inline and this driver's.
    pub fn uses_driver(&self, driver_name: &str) -> bool {
        self.spec.uses_driver(driver_name)
    }

    /// Whether one of its projected volumes has a `podCertificate` of this signer.
    pub fn projects_certificate(&self, signer_name: &str) -> bool {
        self.spec.projects_certificate(signer_name)
    }
}

impl From<Pod> for PodFacts {
    fn from(object: Pod) -> Self {
        let Pod { metadata, spec, status } = object;
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: Arc::new(metadata.labels.unwrap_or_default()),
            spec: spec.map(KeptSpec::from).unwrap_or_default(),
            phase: status.and_then(|status| status.phase).unwrap_or_default(),
            deletion_timestamp: metadata.deletion_timestamp.map(system_time),
            mirror: metadata.annotations.is_some_and(|all| all.contains_key(MIRROR)),
        }
    }
}

// === impl NodeFacts ===

impl From<Node> for NodeFacts {
    fn from(object: Node) -> Self {
        let Node { metadata, spec, .. } = object;
        let mut labels = metadata.labels.unwrap_or_default();
        labels.retain(|key, _value| is_restricted(key));
        let taints = spec.and_then(|spec| spec.taints).unwrap_or_default().into_iter();
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels,
            taints: taints
                .map(|taint| TaintFacts {
                    key: taint.key,
                    value: taint.value.unwrap_or_default(),
                    effect: taint.effect,
                })
                .collect(),
        }
    }
}

/// Whether the NodeRestriction admission plugin keeps kubelets from writing this label.
fn is_restricted(key: &str) -> bool {
    let Some((domain, _name)) = key.split_once('/') else { return false };
    match domain.strip_suffix(NODE_RESTRICTION) {
        Some(rest) => rest.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

// === impl NamespaceFacts ===

impl From<Namespace> for NamespaceFacts {
    fn from(object: Namespace) -> Self {
        let metadata = object.metadata;
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

// === impl ServiceAccountFacts ===

impl From<ServiceAccount> for ServiceAccountFacts {
    fn from(object: ServiceAccount) -> Self {
        let metadata = object.metadata;
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
