//! The kinds of object that a request becomes: Kubernetes' own, and cert-manager's.

use std::{
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use super::draft::{self, Terms};
use crate::{
    k8s::{
        ApiError, Cache, CertificateRequests, Change, Cluster, NewRequest, ObjectName, OwnRequest,
        names::MIN_EXPIRATION_SECONDS,
    },
    pki::Csr,
    signer::{SignError, SignRequest, cert_manager::Issuers},
};

/// One kind of object.
pub(super) enum Objects {
    /// CertificateSigningRequests, which the svid-csi controller signs.
    Csr(Cluster),
    /// CertificateRequests, which it only decides about; cert-manager signs what they say.
    CertManager(CertificateRequests, Box<Issuers>),
}

// === impl Objects ===

impl Objects {
    /// What the cache calls a request.
    pub(super) fn key(&self, name: &str) -> ObjectName {
        match self {
            Self::Csr(_) => ObjectName::cluster_wide(name),
            Self::CertManager(requests, _) => requests.object_name(name),
        }
    }

    /// How a person looks at one.
    pub(super) fn show(&self, name: &str) -> String {
        match self {
            Self::Csr(_) => format!("`kubectl get csr {name}`"),
            Self::CertManager(requests, _) => {
                let namespace = requests.object_name(name).namespace;
                format!("`kubectl describe certificaterequest --namespace {namespace} {name}`")
            }
        }
    }

    /// Who has to run.
    pub(super) fn signers(&self) -> &'static str {
        match self {
            Self::Csr(_) => "does the svid-csi controller run?",
            Self::CertManager(..) => "do the svid-csi controller and cert-manager run?",
        }
    }

    /// What a request has to say that can't be changed later. `told` is the lifetime that policy
    /// gave the volume before.
    pub(super) fn terms(
        &self,
        request: &SignRequest,
        told: Option<Duration>,
    ) -> Result<Terms, SignError> {
        match self {
            Self::Csr(_) => {
                let least = Duration::from_secs(MIN_EXPIRATION_SECONDS);
                Ok(Terms { lifetime: request.ttl.max(least), issuer: None })
            }
            Self::CertManager(_, issuers) => {
                let lifetime = request.explicit_ttl.or(told).unwrap_or(request.ttl);
                Ok(Terms { lifetime, issuer: Some(issuers.choose(request.issuer.as_ref())?) })
            }
        }
    }

    /// See [`Signer::has_issuers`](crate::signer::Signer::has_issuers).
    pub(super) fn has_issuers(&self) -> bool {
        matches!(self, Self::CertManager(..))
    }

    /// Whether an object of the right name asks for what this request does. One from before a
    /// restart, or before somebody changed the issuer, may ask for something else.
    pub(super) fn is_for(&self, object: &OwnRequest, request: &SignRequest, terms: &Terms) -> bool {
        let pem = std::str::from_utf8(&object.request).ok();
        let read = match self {
            Self::Csr(_) => Csr::from_pem,
            Self::CertManager(..) => Csr::from_pem_with_dns_names,
        };
        pem.and_then(|pem| read(pem).ok()).is_some_and(|csr| {
            csr.id() == request.csr.id()
                && csr.spki_der() == request.csr.spki_der()
                && csr.dns_names() == request.csr.dns_names()
                && csr.id() == &request.id
                && draft::keeps_terms(object, terms)
        })
    }

    pub(super) async fn create(&self, new: &NewRequest) -> Result<OwnRequest, ApiError> {
        match self {
            Self::Csr(cluster) => cluster.create_request(new).await,
            Self::CertManager(requests, _) => requests.create(new).await,
        }
    }

    pub(super) async fn read(&self, name: &str) -> Result<OwnRequest, ApiError> {
        match self {
            Self::Csr(cluster) => cluster.read_request(name).await,
            Self::CertManager(requests, _) => requests.read(name).await,
        }
    }

    pub(super) async fn delete(&self, name: &str, uid: &str) -> Result<(), ApiError> {
        match self {
            Self::Csr(cluster) => cluster.delete_request(name, uid).await,
            Self::CertManager(requests, _) => requests.delete(name, uid).await,
        }
    }

    /// Follows those of one Node into a cache, for ever.
    pub(super) fn follow(
        &self,
        cache: Cache<OwnRequest>,
        node_uid: &str,
        on_change: impl FnMut(Change<OwnRequest>) + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self {
            Self::Csr(cluster) => Box::pin(cluster.follow_requests(cache, node_uid, on_change)),
            Self::CertManager(requests, _) => Box::pin(requests.follow(cache, node_uid, on_change)),
        }
    }

    /// Follows what else it needs, for ever.
    pub(super) async fn keep_up(&self) {
        match self {
            Self::Csr(_) => pending().await,
            Self::CertManager(_, issuers) => issuers.follow().await,
        }
    }

    /// Why nothing can be asked for, whoever answers.
    pub(super) fn ready(&self) -> Result<(), SignError> {
        match self {
            Self::Csr(_) => Ok(()),
            Self::CertManager(_, issuers) => issuers.ready(),
        }
    }
}
