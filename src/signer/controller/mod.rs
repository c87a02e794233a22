//! Has SVIDs signed by the controller, over gRPC (`svid.issuer.v1`).

mod address;
mod answer;
mod client;
mod keeper;
mod link;
mod metrics;
mod replica;
mod replicas;
mod tls;
mod token;

use std::sync::Arc;

use async_trait::async_trait;
use svid_csi_proto::issuer::v1::{IssueJwtSvidRequest, IssueX509SvidRequest, Pod};

pub use self::{
    address::{AddressError, ControllerAddress},
    client::{ControllerClient, ControllerConfig},
    metrics::ControllerMetrics,
};
use super::{Handout, JwtRequest, SignError, SignRequest, Signer, SignerStatus};
use crate::{
    jose::JwtSvid,
    pki::X509Svid,
    volume::{PodInfo, PodToken, VolumeId},
};

/// Signs by asking the controller, which is shown two proofs: the driver's own token and the pod's.
pub struct ControllerSigner {
    client: Arc<ControllerClient>,
}

/// A signer whose JWT-SVIDs are the controller's.
pub struct WithController {
    x509: Arc<dyn Signer>,
    client: Arc<ControllerClient>,
}

// === impl ControllerSigner ===

impl ControllerSigner {
    /// A signer that asks by this client.
    pub fn new(client: Arc<ControllerClient>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Signer for ControllerSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        let token = token(request.pod_token.as_ref())?;
        let message = IssueX509SvidRequest {
            pod_token: token.secret().to_owned(),
            pod: Some(pod(&request.pod)),
            csr: request.csr.der().to_vec().into(),
            ttl_seconds: request.explicit_ttl.map_or(0, |ttl| ttl.as_secs()),
            key_algorithm: request
                .explicit_key_algorithm
                .map_or_else(String::new, |algorithm| algorithm.to_string()),
            dns_names: request.dns_names.iter().map(|name| name.as_str().to_owned()).collect(),
            volume_id: request.volume.to_string(),
        };
        let call = self.client.call("x509", message, |mut client, request| {
            Box::pin(async move { client.issue_x509_svid(request).await })
        });
        answer::x509(call.await?)
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: self.client.ready(), ca_not_after: None }
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, SignError> {
        sign_jwt(&self.client, request).await
    }

    fn signs_jwt(&self) -> Result<(), SignError> {
        Ok(())
    }
}

// === impl WithController ===

impl WithController {
    /// The same signer, with JWT-SVIDs.
    pub fn new(x509: Arc<dyn Signer>, client: Arc<ControllerClient>) -> Self {
        Self { x509, client }
    }
}

#[async_trait]
impl Signer for WithController {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        self.x509.sign(request).await
    }

    fn hand_out(&self, volume: &VolumeId, pod: &PodInfo) -> Option<Handout> {
        self.x509.hand_out(volume, pod)
    }

    fn status(&self) -> SignerStatus {
        self.x509.status()
    }

    fn is_remote(&self) -> bool {
        self.x509.is_remote()
    }

    fn has_issuers(&self) -> bool {
        self.x509.has_issuers()
    }

    async fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, SignError> {
        sign_jwt(&self.client, request).await
    }

    fn signs_jwt(&self) -> Result<(), SignError> {
        Ok(())
    }
}

async fn sign_jwt(client: &ControllerClient, request: &JwtRequest) -> Result<JwtSvid, SignError> {
    let token = token(request.pod_token.as_ref())?;
    let message = IssueJwtSvidRequest {
        pod_token: token.secret().to_owned(),
        pod: Some(pod(&request.pod)),
        spiffe_id: request.id.to_string(),
        audience: request.audience.clone(),
        ttl_seconds: request.ttl.as_secs(),
        volume_id: request.volume.to_string(),
    };
    let call = client.call("jwt", message, |mut client, request| {
        Box::pin(async move { client.issue_jwt_svid(request).await })
    });
    answer::jwt(call.await?)
}

fn token(token: Option<&Arc<PodToken>>) -> Result<&PodToken, SignError> {
    token.map(Arc::as_ref).ok_or_else(SignError::no_pod_token)
}

fn pod(pod: &PodInfo) -> Pod {
    let PodInfo { namespace, name, uid, .. } = pod.clone();
    Pod { namespace, name, uid }
}
