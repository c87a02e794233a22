//! Envoy's secret discovery service, v3: SVID and bundles for a proxy in the pod. Names are those
//! that SPIRE's agent gives its secrets. As there, no security header is asked for.

mod delta;
mod protocol;
mod secrets;
mod session;
mod state_of_the_world;
#[cfg(test)]
mod tests;

use svid_csi_proto::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    secret::v3::secret_discovery_service_server::{
        SecretDiscoveryService, SecretDiscoveryServiceServer,
    },
};
use tonic::{Request, Response, Status, Streaming};

use self::{
    delta::Delta, protocol::Rejection, secrets::Secrets, state_of_the_world::StateOfTheWorld,
};
use super::{
    api::{Messages, workload},
    entitlement::Entitlement,
    metrics::Metrics,
};

/// The longest message in bytes. In its first one, an Envoy names all extensions that it was built
/// with (60 KiB in 1.40), and the metadata of its bootstrap.
const MAX_MESSAGE: usize = 128 * 1024;

/// The service, for every volume's socket.
pub(super) struct SecretDiscovery {
    metrics: Metrics,
}

/// One stream's state, in one variant of the xDS protocol.
trait Protocol: Default + Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Takes what the client said. If it refuses what it was sent, says so.
    fn take(&mut self, request: Self::Request) -> Result<Option<Rejection>, Status>;

    /// What the client is to be told now, if anything.
    fn answer(&mut self, secrets: &Secrets) -> Result<Option<Self::Response>, Status>;
}

// === impl SecretDiscovery ===

impl SecretDiscovery {
    pub(super) fn service(metrics: Metrics) -> SecretDiscoveryServiceServer<Self> {
        SecretDiscoveryServiceServer::new(Self { metrics }).max_decoding_message_size(MAX_MESSAGE)
    }

    fn session<P: Protocol>(
        &self,
        request: Request<Streaming<P::Request>>,
    ) -> Result<Messages<P::Response>, Status> {
        let workload = workload(&request)?.clone();
        let requests = request.into_inner();
        Ok(Box::pin(session::serve::<P>(&workload, self.metrics.clone(), requests)))
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretDiscovery {
    type StreamSecretsStream = Messages<DiscoveryResponse>;
    type DeltaSecretsStream = Messages<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(self.session::<StateOfTheWorld>(request)?))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(Response::new(self.session::<Delta>(request)?))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let secrets = Secrets::of(&Entitlement::of(workload(&request)?))?;
        state_of_the_world::fetch(request.into_inner(), &secrets).map(Response::new)
    }
}
