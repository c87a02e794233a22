//! cert-manager's CertificateRequests as a node sees its own: made, read, followed and deleted.
//! Deciding about them is the controller's, signing them cert-manager's.

use std::future::Future;

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
    runtime::watcher::Config,
};

use super::{
    ApiError, Cache, CertificateRequest, CertificateRequestSpec, Change, Cluster, NewRequest,
    ObjectName, OwnRequest, call,
    names::{NODE_UID_LABEL, USAGES},
};

/// Those of one namespace. Cheap to clone.
#[derive(Clone)]
pub struct CertificateRequests {
    api: Api<CertificateRequest>,
    namespace: String,
}

// === impl CertificateRequests ===

impl CertificateRequests {
    /// Of this namespace.
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        Self { api: cluster.namespaced(namespace), namespace: namespace.to_owned() }
    }

    /// The one of this name.
    pub fn object_name(&self, name: &str) -> ObjectName {
        ObjectName::new(&self.namespace, name)
    }

    /// Makes a request. Whoever makes it twice finds it there.
    pub async fn create(&self, new: &NewRequest) -> Result<OwnRequest, ApiError> {
        let (object, params) = (object(new), PostParams::default());
        let answer = call("create a CertificateRequest", self.api.create(&params, &object));
        Ok(answer.await?.into())
    }

    /// Reads a request.
    pub async fn read(&self, name: &str) -> Result<OwnRequest, ApiError> {
        Ok(call("read a CertificateRequest", self.api.get(name)).await?.into())
    }

    /// Deletes exactly this request. One that is gone is fine, also if its name is taken again.
    pub async fn delete(&self, name: &str, uid: &str) -> Result<(), ApiError> {
        let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match call("delete a CertificateRequest", self.api.delete(name, &params)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Follows the requests of one Node into a cache, for ever; one watch, whatever their number.
    pub fn follow(
        &self,
        cache: Cache<OwnRequest>,
        node_uid: &str,
        on_change: impl FnMut(Change<OwnRequest>) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let scope = Config::default().labels(&format!("{NODE_UID_LABEL}={node_uid}"));
        let keep = |object: CertificateRequest| Some(object.into());
        cache.follow("this node's CertificateRequests", self.api.clone(), scope, keep, on_change)
    }
}

fn object(new: &NewRequest) -> CertificateRequest {
    let labels = [(NODE_UID_LABEL.to_owned(), new.node_uid.clone())];
    CertificateRequest {
        metadata: ObjectMeta {
            name: Some(new.name.clone()),
            labels: Some(labels.into()),
            annotations: Some(new.annotations.clone()),
            ..ObjectMeta::default()
        },
        spec: CertificateRequestSpec {
            request: Some(ByteString(new.request.clone().into_bytes())),
            duration: Some(format!("{}s", new.expiration_seconds)),
            // Without one the API server refuses it.
            issuer_ref: new.issuer.clone().unwrap_or_default(),
            usages: USAGES.map(str::to_owned).into(),
            ..CertificateRequestSpec::default()
        },
        status: None,
    }
}

impl From<CertificateRequest> for OwnRequest {
    fn from(object: CertificateRequest) -> Self {
        let CertificateRequest { metadata, spec, status } = object;
        let status = status.unwrap_or_default();
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            request: spec.request.map(|bytes| bytes.0).unwrap_or_default(),
            conditions: status.facts(),
            certificate: status.issued().map(<[u8]>::to_vec),
            issuer: Some(spec.issuer_ref),
            lifetime: spec.duration,
            waits_for: status.waits_for().map(str::to_owned),
        }
    }
}
