//! The controller's half of CertificateSigningRequests: all that are for our signer, and what is
//! decided about them. Every write names the version that it was decided on.

use std::future::Future;

use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::watcher::Config,
};
use serde_json::{Value, json};

use super::{
    ApiError, Cache, Change, Cluster, ConditionFacts, RequestFacts, call,
    names::{IDENTITY_IS_REASON, NODE_UID_LABEL, SIGNER, annotation},
};

/// Decides on requests. Cheap to clone.
#[derive(Clone)]
pub struct RequestDecisions {
    api: Api<CertificateSigningRequest>,
}

/// Whose fields they are, as `managedFields` shows it.
const MANAGER: &str = "svid-csi-controller";
/// A longer message helps nobody.
const LONGEST_MESSAGE: usize = 4096;
/// A request may be as large as the API server takes: not many of those are listed at once, and
/// not much of each is kept. Our own are smaller by far.
const PAGE: u32 = 50;
const LONGEST_REQUEST: usize = 16 * 1024;
const LONGEST_ANNOTATION: usize = 2048;
const MOST_ANNOTATIONS: usize = 16;
/// In place of what is too long: no name, duration or algorithm, so that it is denied.
const TOO_LONG: &str = "… (too long)";

// === impl RequestDecisions ===

impl RequestDecisions {
    /// In this cluster.
    pub fn new(cluster: &Cluster) -> Self {
        Self { api: cluster.cluster_wide() }
    }

    /// Follows all requests for our signer for ever.
    pub fn follow(
        &self,
        cache: Cache<RequestFacts>,
        on_change: impl FnMut(Change<RequestFacts>) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let signer = format!("spec.signerName={SIGNER}");
        let scope = Config::default().fields(&signer).page_size(PAGE);
        let keep = |request| Some(bounded(request));
        cache.follow("certificatesigningrequests", self.api.clone(), scope, keep, on_change)
    }

    /// Admits it: the condition Approved. Returns it as it is then.
    pub async fn approve(
        &self,
        request: &RequestFacts,
        reason: &str,
        message: &str,
    ) -> Result<RequestFacts, ApiError> {
        let status = conditions(request, "Approved", reason, message);
        self.write("approve a request", "approval", request, status).await
    }

    /// Refuses it: the condition Denied.
    pub async fn deny(
        &self,
        request: &RequestFacts,
        reason: &str,
        message: &str,
    ) -> Result<RequestFacts, ApiError> {
        let status = conditions(request, "Denied", reason, message);
        self.write("deny a request", "approval", request, status).await
    }

    /// Gives it up: the condition Failed.
    pub async fn fail(
        &self,
        request: &RequestFacts,
        reason: &str,
        message: &str,
    ) -> Result<RequestFacts, ApiError> {
        let status = conditions(request, "Failed", reason, message);
        self.write("fail a request", "status", request, status).await
    }

    /// Answers it with a certificate: a PEM chain, leaf first.
    pub async fn certify(
        &self,
        request: &RequestFacts,
        chain_pem: String,
    ) -> Result<RequestFacts, ApiError> {
        let status = json!({"certificate": ByteString(chain_pem.into_bytes())});
        self.write("certify a request", "status", request, status).await
    }

    async fn write(
        &self,
        doing: &str,
        part: &str,
        request: &RequestFacts,
        status: Value,
    ) -> Result<RequestFacts, ApiError> {
        // Another version, or another object of that name, is a conflict.
        let patch = json!({
            "metadata": {"uid": request.uid, "resourceVersion": request.resource_version},
            "status": status,
        });
        let (patch, params) = (Patch::Merge(patch), PatchParams::apply(MANAGER));
        let answer = self.api.patch_subresource(part, &request.name, &params, &patch);
        call(doing, answer).await.map(bounded)
    }
}

/// What may be kept of a request, whoever made it. Of one that is finished, only that it is.
fn bounded(request: CertificateSigningRequest) -> RequestFacts {
    let mut facts = RequestFacts::from(request);
    if facts.is_finished() {
        return RequestFacts {
            name: facts.name,
            uid: facts.uid,
            resource_version: facts.resource_version,
            signer_name: facts.signer_name,
            conditions: facts
                .conditions
                .into_iter()
                .map(|condition| ConditionFacts {
                    kind: condition.kind,
                    reason: String::new(),
                    message: String::new(),
                })
                .collect(),
            has_certificate: facts.has_certificate,
            created: facts.created,
            ..RequestFacts::default()
        };
    }
    if facts.request.len() > LONGEST_REQUEST {
        facts.request = Vec::new();
    }
    facts.labels.retain(|key, _| key == NODE_UID_LABEL);
    // Of ours there are fewer; one that isn't known is enough for a denial.
    facts.annotations = facts
        .annotations
        .into_iter()
        .filter(|(key, _)| key.starts_with(annotation::PREFIX))
        .take(MOST_ANNOTATIONS)
        .map(|(key, value)| match value.len() > LONGEST_ANNOTATION {
            true => (key, TOO_LONG.to_owned()),
            false => (key, value),
        })
        .collect();
    facts
}

/// The conditions of this version and one more; the API server adds the times.
fn conditions(request: &RequestFacts, kind: &str, reason: &str, message: &str) -> Value {
    // JSON is bounded by what it is made of; cut, nobody could read it.
    let whole = kind == "Approved" || reason == IDENTITY_IS_REASON;
    let longest = if whole { usize::MAX } else { LONGEST_MESSAGE };
    let message: String = message.chars().take(longest).collect();
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message});
    let mut all: Vec<Value> = request
        .conditions
        .iter()
        .map(|before| condition(&before.kind, &before.reason, &before.message))
        .collect();
    all.push(condition(kind, reason, &message));
    json!({"conditions": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(size: usize, status: Value) -> CertificateSigningRequest {
        let long = "x".repeat(size);
        let mut annotations = serde_json::Map::new();
        annotations.insert("foreign".to_owned(), json!(long));
        annotations.insert(annotation::POD_NAME.to_owned(), json!("cart-0"));
        annotations.insert(annotation::DNS_NAMES.to_owned(), json!(long));
        for index in 0..size / 100 {
            annotations.insert(format!("{}{index}", annotation::PREFIX), json!(long));
        }
        serde_json::from_value(json!({
            "metadata": {
                "name": "svid-1", "uid": "1", "annotations": annotations,
                "labels": {NODE_UID_LABEL: "n", "foreign": long},
            },
            "spec": {"signerName": SIGNER, "request": ByteString(long.into_bytes()), "usages": []},
            "status": status,
        }))
        .unwrap()
    }

    fn weight(facts: &RequestFacts) -> usize {
        format!("{facts:?}").len()
    }

    /// Invariant 5: whoever owns a node cannot make the controller run out of memory.
    #[test]
    fn a_huge_request_is_kept_small_and_stays_one_to_deny() {
        let facts = bounded(object(100_000, json!({})));
        assert!(weight(&facts) < 60_000, "{}", weight(&facts));
        assert!(facts.request.is_empty());
        assert_eq!(facts.annotations.len(), MOST_ANNOTATIONS);
        assert!(facts.annotations.values().all(|value| value == TOO_LONG));
        assert_eq!(facts.labels.len(), 1);
    }

    #[test]
    fn a_request_of_ours_is_kept_as_it_is() {
        let facts = bounded(object(99, json!({})));
        assert_eq!(facts.request.len(), 99);
        assert_eq!(facts.annotations[annotation::POD_NAME], "cart-0");
        assert_eq!(facts.annotations.len(), 2);
    }

    #[test]
    fn of_a_finished_request_only_the_end_is_kept() {
        let message = "y".repeat(10_000);
        let conditions = json!([{"type": "Denied", "status": "True", "message": message}]);
        let facts = bounded(object(100_000, json!({"conditions": conditions})));
        assert!(facts.is_denied() && weight(&facts) < 1_000, "{}", weight(&facts));
        let facts = bounded(object(100_000, json!({"certificate": "eA=="})));
        assert!(facts.has_certificate && weight(&facts) < 1_000);
        assert_eq!((facts.name.as_str(), facts.uid.as_str()), ("svid-1", "1"));
    }

    #[test]
    fn prose_is_cut_and_json_never() {
        let long = "x".repeat(20_000);
        for (kind, reason, length) in [
            ("Approved", "SvidPolicy", 20_000),
            ("Denied", IDENTITY_IS_REASON, 20_000),
            ("Denied", "RuleNotMet", LONGEST_MESSAGE),
            ("Failed", "RuleNotMet", LONGEST_MESSAGE),
        ] {
            let conditions = conditions(&RequestFacts::default(), kind, reason, &long);
            let message = conditions["conditions"][0]["message"].as_str().unwrap();
            assert_eq!(message.len(), length, "{kind} {reason}");
        }
    }
}
