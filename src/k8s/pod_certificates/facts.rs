//! A PodCertificateRequest: as the API has it, and the few things that count. `v1` and `v1beta1` have
//! the same fields, but that `v1beta1` may still have a bare key with a proof in place of a CSR.

use std::{collections::BTreeMap, time::SystemTime};

use k8s_openapi::ByteString;
use kube::core::Object;
use serde::{Deserialize, Serialize};

use crate::k8s::ObjectName;

/// A PodCertificateRequest. Its specification never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodCertificateFacts {
    /// Its namespace, which is the pod's, and its name.
    pub name: ObjectName,
    /// Its UID.
    pub uid: String,
    /// The version that this is.
    pub resource_version: String,
    /// Who shall sign it.
    pub signer_name: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The ServiceAccount that the pod runs as.
    pub service_account_name: String,
    /// That ServiceAccount's UID.
    pub service_account_uid: String,
    /// The node that the pod is on.
    pub node_name: String,
    /// That node's UID.
    pub node_uid: String,
    /// The longest that its certificate may live, in seconds.
    pub max_expiration_seconds: Option<u64>,
    /// The key to be certified.
    pub key: OfferedKey,
    /// What the pod's specification says to its signer.
    pub user_annotations: BTreeMap<String, String>,
    /// Whether it is issued, denied or failed.
    pub finished: bool,
    /// When it was created, as the API server says.
    pub created: Option<SystemTime>,
}

/// A key to be certified, and the proof that the kubelet has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OfferedKey {
    /// An empty PKCS#10 request in DER.
    StubRequest(Vec<u8>),
    /// SubjectPublicKeyInfo in DER, and a signature over the pod's UID: kubelets of 1.35.
    Bare {
        /// The key.
        spki: Vec<u8>,
        /// The signature.
        proof: Vec<u8>,
    },
    /// None of them, both, or something too long.
    #[default]
    Unreadable,
}

/// As `v1` and `v1beta1` have it.
pub(super) type PodCertificateRequest = Object<Spec, Status>;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    signer_name: String,
    pod_name: String,
    #[serde(rename = "podUID")]
    pod_uid: String,
    service_account_name: String,
    #[serde(rename = "serviceAccountUID")]
    service_account_uid: String,
    node_name: String,
    #[serde(rename = "nodeUID")]
    node_uid: String,
    max_expiration_seconds: Option<i64>,
    #[serde(rename = "stubPKCS10Request")]
    stub_request: Option<ByteString>,
    #[serde(rename = "pkixPublicKey")]
    public_key: Option<ByteString>,
    proof_of_possession: Option<ByteString>,
    unverified_user_annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// The API server takes no longer ones (`MaxStubPKCS10RequestSize` and the like).
const LONGEST_KEY: usize = 10 * 1024;
const LONGEST_ANNOTATION: usize = 2048;
const MOST_ANNOTATIONS: usize = 16;
/// In place of what is too long: nothing that anybody could mean, so that it is denied.
const TOO_LONG: &str = "… (too long)";
const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];

// === impl PodCertificateFacts ===

impl From<PodCertificateRequest> for PodCertificateFacts {
    /// Of one that is finished only that it is; of any other no more than may be kept, whoever made
    /// it.
    fn from(object: PodCertificateRequest) -> Self {
        let Object { metadata, spec, status, .. } = object;
        let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
        let mut ended = conditions.iter().filter(|condition| condition.status == "True");
        let facts = Self {
            name: ObjectName::new(
                metadata.namespace.unwrap_or_default(),
                metadata.name.unwrap_or_default(),
            ),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            finished: ended.any(|condition| ENDS.contains(&condition.kind.as_str())),
            created: metadata.creation_timestamp.map(|time| time.0.into()),
            ..Self::default()
        };
        if facts.finished {
            return Self { signer_name: spec.signer_name, ..facts };
        }
        Self {
            key: OfferedKey::of(spec.stub_request, spec.public_key, spec.proof_of_possession),
            signer_name: spec.signer_name,
            pod_name: spec.pod_name,
            pod_uid: spec.pod_uid,
            service_account_name: spec.service_account_name,
            service_account_uid: spec.service_account_uid,
            node_name: spec.node_name,
            node_uid: spec.node_uid,
            max_expiration_seconds: spec
                .max_expiration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok()),
            // One that isn't known is enough for a denial.
            user_annotations: spec
                .unverified_user_annotations
                .unwrap_or_default()
                .into_iter()
                .take(MOST_ANNOTATIONS)
                .map(|(key, value)| match value.len() > LONGEST_ANNOTATION {
                    true => (key, TOO_LONG.to_owned()),
                    false => (key, value),
                })
                .collect(),
            ..facts
        }
    }
}

// === impl OfferedKey ===

impl OfferedKey {
    fn of(stub: Option<ByteString>, spki: Option<ByteString>, proof: Option<ByteString>) -> Self {
        let bytes = |given: Option<ByteString>| given.map_or(Vec::new(), |bytes| bytes.0);
        let (stub, spki, proof) = (bytes(stub), bytes(spki), bytes(proof));
        if [&stub, &spki, &proof].into_iter().any(|bytes| bytes.len() > LONGEST_KEY) {
            return Self::Unreadable;
        }
        match (stub.is_empty(), spki.is_empty(), proof.is_empty()) {
            (false, true, true) => Self::StubRequest(stub),
            (true, false, false) => Self::Bare { spki, proof },
            _ => Self::Unreadable,
        }
    }
}
