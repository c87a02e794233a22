//! cert-manager's `CertificateRequest` (`cert-manager.io/v1`), as far as it matters here.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::{ConditionFacts, IssuerRef};

/// What is asked for. cert-manager's webhook sets who asks and lets nothing here be changed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "CertificateRequest",
    plural = "certificaterequests",
    namespaced,
    status = "CertificateRequestStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateRequestSpec {
    /// The PKCS#10 request in PEM. Without one it is no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<ByteString>,
    /// The lifetime, as Go writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Who shall sign it.
    pub issuer_ref: IssuerRef,
    /// Whether it shall be a CA.
    #[serde(rename = "isCA")]
    pub is_ca: bool,
    /// What the certificate shall be for.
    pub usages: Vec<String>,
    /// Who made it, as cert-manager's webhook says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Their UID, as the webhook says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// More about who made it, as the webhook says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateRequestStatus {
    /// What was decided and done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<CertificateRequestCondition>,
    /// The chain in PEM, leaf first. `ca`, which is beside it, is trusted by nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ByteString>,
}

/// A condition of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateRequestCondition {
    /// `Approved`, `Denied`, `Ready` or `InvalidRequest`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The reason code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For a person, or JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

// === impl CertificateRequestStatus ===

impl CertificateRequestStatus {
    /// What it comes to, in the terms of a CertificateSigningRequest: cert-manager says that it
    /// failed by `Ready` being false for that reason.
    pub(in crate::k8s) fn facts(&self) -> Vec<ConditionFacts> {
        let fact = |condition: &CertificateRequestCondition| {
            let kind = match (condition.kind.as_str(), condition.status.as_str()) {
                ("Ready", "False") if condition.reason == "Failed" => "Failed",
                ("InvalidRequest", "True") => "Failed",
                (kind, "True") => kind,
                _ => return None,
            };
            Some(ConditionFacts {
                kind: kind.to_owned(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            })
        };
        self.conditions.iter().filter_map(fact).collect()
    }

    /// Why it waits for its issuer, if it says so.
    pub(in crate::k8s) fn waits_for(&self) -> Option<&str> {
        let ready = self.conditions.iter().find(|condition| condition.kind == "Ready")?;
        (ready.status == "False" && ready.reason == "Pending").then_some(ready.message.as_str())
    }

    /// The certificate, once it is there for good.
    pub(in crate::k8s) fn issued(&self) -> Option<&[u8]> {
        let ready = self.conditions.iter().any(|it| it.kind == "Ready" && it.status == "True");
        let certificate = self.certificate.as_ref().map(|bytes| bytes.0.as_slice());
        certificate.filter(|bytes| ready && !bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(conditions: &[(&str, &str, &str)]) -> CertificateRequestStatus {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason}))
            .collect();
        serde_json::from_value(json!({"conditions": conditions, "certificate": "eA=="})).unwrap()
    }

    #[test]
    fn a_certificate_counts_once_it_is_ready() {
        assert!(status(&[("Ready", "True", "Issued")]).issued().is_some());
        for conditions in [&[][..], &[("Ready", "False", "Pending")], &[("Approved", "True", "x")]]
        {
            assert!(status(conditions).issued().is_none());
        }
    }

    #[test]
    fn each_end_has_its_condition() {
        for (kind, value, reason, expected) in [
            ("Approved", "True", "x", Some("Approved")),
            ("Denied", "True", "x", Some("Denied")),
            ("Denied", "False", "x", None),
            ("Ready", "False", "Failed", Some("Failed")),
            ("Ready", "False", "Pending", None),
            ("Ready", "False", "Denied", None),
            ("InvalidRequest", "True", "x", Some("Failed")),
        ] {
            let facts = status(&[(kind, value, reason)]).facts();
            assert_eq!(facts.first().map(|fact| fact.kind.as_str()), expected, "{kind} {value}");
        }
    }

    #[test]
    fn what_is_missing_is_read_as_nothing() {
        let object: CertificateRequest =
            serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {}})).unwrap();
        assert!(object.spec.request.is_none() && object.status.is_none());
    }
}
