//! CertificateSigningRequests as a node sees its own: made, read, followed and deleted. Deciding
//! about them is the controller's.

use std::{collections::BTreeMap, future::Future};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
    runtime::watcher::Config,
};

use super::{
    ApiError, Cache, Change, Cluster, ConditionFacts, IssuerRef, RequestFacts, call,
    names::{NODE_UID_LABEL, SIGNER, USAGES},
};

/// A request to be made.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// Its name.
    pub name: String,
    /// The UID of this Node.
    pub node_uid: String,
    /// The PKCS#10 request in PEM.
    pub request: String,
    /// The lifetime that its certificate is asked to have, in seconds, or the shortest that may be
    /// asked for.
    pub expiration_seconds: u64,
    /// For whom it is and what is wished for.
    pub annotations: BTreeMap<String, String>,
    /// Whom a CertificateRequest is for.
    pub issuer: Option<IssuerRef>,
}

/// A request of this node, as far as it matters to whoever waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnRequest {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The PKCS#10 request in PEM.
    pub request: Vec<u8>,
    /// What was decided.
    pub conditions: Vec<ConditionFacts>,
    /// The chain in PEM, once it is signed.
    pub certificate: Option<Vec<u8>>,
    /// Whom a CertificateRequest names as its issuer.
    pub issuer: Option<IssuerRef>,
    /// The lifetime that a CertificateRequest asks for, as Go writes it.
    pub lifetime: Option<String>,
    /// What its issuer waits for, in cert-manager's words.
    pub waits_for: Option<String>,
}

// === impl Cluster ===

impl Cluster {
    /// Makes a request. Whoever makes it twice finds it there.
    pub async fn create_request(&self, new: &NewRequest) -> Result<OwnRequest, ApiError> {
        let object = CertificateSigningRequest::from(new);
        let api = self.requests();
        let answer = call("create a CertificateSigningRequest", async {
            api.create(&PostParams::default(), &object).await
        });
        Ok(answer.await?.into())
    }

    /// Reads a request.
    pub async fn read_request(&self, name: &str) -> Result<OwnRequest, ApiError> {
        let api = self.requests();
        Ok(call("read a CertificateSigningRequest", api.get(name)).await?.into())
    }

    /// Deletes exactly this request. One that is gone is fine, also if its name is taken again.
    pub async fn delete_request(&self, name: &str, uid: &str) -> Result<(), ApiError> {
        let api = self.requests();
        let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match call("delete a CertificateSigningRequest", api.delete(name, &params)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Follows the requests of one Node into a cache, for ever; one watch, whatever their number.
    pub fn follow_requests(
        &self,
        cache: Cache<OwnRequest>,
        node_uid: &str,
        on_change: impl FnMut(Change<OwnRequest>) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let scope = Config::default().labels(&format!("{NODE_UID_LABEL}={node_uid}"));
        let keep = |object: CertificateSigningRequest| {
            (object.spec.signer_name == SIGNER).then(|| object.into())
        };
        cache.follow("this node's requests", self.requests(), scope, keep, on_change)
    }

    fn requests(&self) -> Api<CertificateSigningRequest> {
        self.cluster_wide()
    }
}

// === impl NewRequest ===

impl From<&NewRequest> for CertificateSigningRequest {
    fn from(new: &NewRequest) -> Self {
        let labels = [(NODE_UID_LABEL.to_owned(), new.node_uid.clone())];
        Self {
            metadata: ObjectMeta {
                name: Some(new.name.clone()),
                labels: Some(labels.into()),
                annotations: Some(new.annotations.clone()),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(new.request.clone().into_bytes()),
                signer_name: SIGNER.to_owned(),
                expiration_seconds: Some(i32::try_from(new.expiration_seconds).unwrap_or(i32::MAX)),
                usages: Some(USAGES.map(str::to_owned).into()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }
}

// === impl OwnRequest ===

impl From<CertificateSigningRequest> for OwnRequest {
    fn from(mut object: CertificateSigningRequest) -> Self {
        let certificate = object.status.as_mut().and_then(|status| status.certificate.take());
        let facts = RequestFacts::from(object);
        Self {
            name: facts.name,
            uid: facts.uid,
            request: facts.request,
            conditions: facts.conditions,
            certificate: certificate.map(|bytes| bytes.0).filter(|bytes| !bytes.is_empty()),
            ..Self::default()
        }
    }
}

impl OwnRequest {
    /// The condition of this kind.
    pub fn condition(&self, kind: &str) -> Option<&ConditionFacts> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}
