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

use super::{ApiError, Cache, Change, Cluster, RequestFacts, call, names::SIGNER};

/// Decides on requests. Cheap to clone.
#[derive(Clone)]
pub struct RequestDecisions {
    api: Api<CertificateSigningRequest>,
}

/// Whose fields they are, as `managedFields` shows it.
const MANAGER: &str = "svid-csi-controller";
/// A longer message helps nobody.
const LONGEST_MESSAGE: usize = 4096;

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
        let scope = Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let keep = |request| Some(RequestFacts::from(request));
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
        call(doing, answer).await.map(RequestFacts::from)
    }
}

/// The conditions of this version and one more; the API server adds the times.
fn conditions(request: &RequestFacts, kind: &str, reason: &str, message: &str) -> Value {
    let message: String = message.chars().take(LONGEST_MESSAGE).collect();
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message});
    let mut all: Vec<Value> = request
        .conditions
        .iter()
        .map(|before| condition(&before.kind, &before.reason, &before.message))
        .collect();
    all.push(condition(kind, reason, &message));
    json!({"conditions": all})
}
