//! The controller's half of cert-manager's CertificateRequests: all of our namespace, and what is
//! decided about them. Every write names the version that it was decided on. What is signed is
//! `spec`, which nobody can change.

use std::{collections::BTreeMap, future::Future, time::SystemTime};

use k8s_openapi::{
    ByteString,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::Config,
};
use serde_json::json;

use super::{
    ApiError, Cache, CertificateRequest, CertificateRequestCondition, CertificateRequestSpec,
    CertificateRequests, Change, Cluster, IssuerRef, call,
    names::{NODE_UID_LABEL, USAGES, annotation},
};

/// A CertificateRequest, as far as it is decided on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CertificateRequestFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that this is.
    pub resource_version: String,
    /// When it was created, as the API server says.
    pub created: Option<SystemTime>,
    /// Whatever its creator wrote there.
    pub labels: BTreeMap<String, String>,
    /// Whatever its creator wrote there; also what is not ours, for issuers read some of it.
    pub annotations: BTreeMap<String, String>,
    /// What is signed.
    pub spec: CertificateRequestSpec,
    /// What was decided and done.
    pub conditions: Vec<CertificateRequestCondition>,
}

/// Decides on them. Cheap to clone.
#[derive(Clone)]
pub struct CertificateRequestDecisions {
    cluster: Cluster,
    api: Api<CertificateRequest>,
    namespace: String,
}

const MANAGER: &str = "svid-csi-controller";
const PAGE: u32 = 50;
const LONGEST_REQUEST: usize = 16 * 1024;
const LONGEST_TEXT: usize = 2048;
const MOST_TEXTS: usize = 16;
const LONGEST_MESSAGE: usize = 4096;
/// In place of what is too long: no name, duration or algorithm, so that it is denied.
const TOO_LONG: &str = "… (too long)";

// === impl CertificateRequestDecisions ===

impl CertificateRequestDecisions {
    /// On those of this namespace.
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            api: cluster.namespaced(namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// Where they are.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Follows all of them for ever.
    pub fn follow(
        &self,
        cache: Cache<CertificateRequestFacts>,
        on_change: impl FnMut(Change<CertificateRequestFacts>) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let scope = Config::default().page_size(PAGE);
        let keep = |request| Some(CertificateRequestFacts::from(request));
        cache.follow("certificaterequests", self.api.clone(), scope, keep, on_change)
    }

    /// Sets a condition, Approved or Denied.
    pub async fn decide(
        &self,
        request: &CertificateRequestFacts,
        kind: &str,
        reason: &str,
        message: &str,
        now: SystemTime,
    ) -> Result<(), ApiError> {
        let mut conditions = request.conditions.clone();
        conditions.push(CertificateRequestCondition {
            kind: kind.to_owned(),
            status: "True".to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(LONGEST_MESSAGE).collect(),
            last_transition_time: time(now),
        });
        // Another version, or another object of that name, is a conflict.
        let patch = json!({
            "metadata": {"uid": request.uid, "resourceVersion": request.resource_version},
            "status": {"conditions": conditions},
        });
        let (patch, params) = (Patch::Merge(patch), PatchParams::apply(MANAGER));
        let answer = self.api.patch_status(&request.name, &params, &patch);
        call("decide on a CertificateRequest", answer).await.map(drop)
    }

    /// What becomes of a request that says it was made by somebody else: the spec that would be kept.
    /// Nothing is.
    pub async fn forge(
        &self,
        name: &str,
        forged: CertificateRequestSpec,
    ) -> Result<CertificateRequestSpec, ApiError> {
        let object = CertificateRequest {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            spec: forged,
            status: None,
        };
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let answer = self.api.create(&params, &object);
        Ok(call("try out a forged CertificateRequest", answer).await?.spec)
    }

    /// A spec as the driver makes it, for [`Self::forge`].
    pub fn spec(csr_pem: String, issuer: &IssuerRef) -> CertificateRequestSpec {
        CertificateRequestSpec {
            request: Some(ByteString(csr_pem.into_bytes())),
            duration: Some("1h".to_owned()),
            issuer_ref: issuer.clone(),
            usages: USAGES.map(str::to_owned).into(),
            ..CertificateRequestSpec::default()
        }
    }

    /// Deletes exactly this one, unless it is gone.
    pub async fn delete(&self, request: &CertificateRequestFacts) -> Result<(), ApiError> {
        CertificateRequests::new(&self.cluster, &self.namespace)
            .delete(&request.name, &request.uid)
            .await
    }

    /// Who may approve, for [`Cluster::may_approve`].
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

fn time(now: SystemTime) -> Option<String> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    time.format(&time::format_description::well_known::Rfc3339).ok()
}

// === impl CertificateRequestFacts ===

impl CertificateRequestFacts {
    /// The condition of this kind that is true.
    pub fn condition(&self, kind: &str) -> Option<&CertificateRequestCondition> {
        self.conditions.iter().find(|it| it.kind == kind && it.status == "True")
    }

    /// Whether nothing is left to decide. What cert-manager calls ready, invalid or failed is done
    /// with too.
    pub fn is_decided(&self) -> bool {
        let done = ["Approved", "Denied", "InvalidRequest", "Ready"];
        done.iter().any(|kind| self.condition(kind).is_some())
    }
}

impl From<CertificateRequest> for CertificateRequestFacts {
    fn from(object: CertificateRequest) -> Self {
        let CertificateRequest { metadata, mut spec, status } = object;
        let conditions = status.unwrap_or_default().conditions;
        let mut facts = Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|Time(at)| at.into()),
            conditions,
            ..Self::default()
        };
        if facts.is_decided() {
            for condition in &mut facts.conditions {
                (condition.reason, condition.message) = Default::default();
            }
            return facts;
        }
        facts.labels = metadata.labels.unwrap_or_default();
        facts.labels.retain(|key, _| key == NODE_UID_LABEL);
        // Of ours there are fewer; one that isn't known is enough for a denial.
        let (ours, other): (Vec<_>, Vec<_>) = metadata
            .annotations
            .unwrap_or_default()
            .into_iter()
            .partition(|(key, _)| key.starts_with(annotation::PREFIX));
        let texts = ours.into_iter().take(MOST_TEXTS).chain(other.into_iter().take(1));
        facts.annotations = texts.map(|(key, value)| (key, bounded(value))).collect();
        if spec.request.as_ref().is_some_and(|request| request.0.len() > LONGEST_REQUEST) {
            spec.request = None;
        }
        spec.usages = spec.usages.into_iter().take(MOST_TEXTS).map(bounded).collect();
        spec.duration = spec.duration.map(bounded);
        spec.extra.retain(|key, values| {
            key.starts_with("authentication.kubernetes.io/")
                && values.len() == 1
                && values.iter().all(|value| value.len() <= LONGEST_TEXT)
        });
        facts.spec = spec;
        facts
    }
}

fn bounded(text: String) -> String {
    match text.len() > LONGEST_TEXT {
        true => TOO_LONG.to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(conditions: serde_json::Value, size: usize) -> CertificateRequestFacts {
        let long = "x".repeat(size);
        let mut annotations = serde_json::Map::new();
        for index in 0..size / 50 {
            annotations.insert(format!("{}{index}", annotation::PREFIX), json!(long));
            annotations.insert(format!("foreign/{index}"), json!(long));
        }
        let object: CertificateRequest = serde_json::from_value(json!({
            "metadata": {"name": "svid-1", "uid": "1", "annotations": annotations, "labels": {"a": long}},
            "spec": {
                "request": ByteString(long.clone().into_bytes()), "usages": vec![&long; 50],
                "extra": {"authentication.kubernetes.io/pod-uid": [&long], "other": ["x"]},
                "duration": long, "issuerRef": {"name": "a"},
            },
            "status": {"conditions": conditions},
        }))
        .unwrap();
        object.into()
    }

    /// Invariant 5: whoever owns a node cannot make the controller run out of memory.
    #[test]
    fn a_huge_request_is_kept_small_and_stays_one_to_deny() {
        let facts = object(json!([]), 100_000);
        assert!(format!("{facts:?}").len() < 60_000);
        assert!(facts.spec.request.is_none() && facts.spec.extra.is_empty());
        assert_eq!(facts.spec.duration.as_deref(), Some(TOO_LONG));
        assert_eq!(facts.annotations.len(), MOST_TEXTS + 1, "one foreign one is told of");
        let small = object(json!([]), 49);
        assert_eq!(small.spec.extra.len(), 1);
        assert!(small.spec.request.is_some() && small.annotations.is_empty());
    }

    #[test]
    fn of_one_that_is_decided_only_that_is_kept() {
        for kind in ["Approved", "Denied", "InvalidRequest", "Ready"] {
            let message = "y".repeat(100_000);
            let facts =
                object(json!([{"type": kind, "status": "True", "message": message}]), 100_000);
            assert!(facts.is_decided() && format!("{facts:?}").len() < 2_000);
        }
        let pending = json!([{"type": "Ready", "status": "False", "reason": "Pending"}]);
        assert!(!object(pending, 10).is_decided());
    }
}
