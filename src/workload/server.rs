//! The gRPC server behind every volume's socket.

use std::io;

use svid_csi_proto::{
    envoy::service::secret::v3::secret_discovery_service_server as secret_discovery,
    workload::spiffe_workload_api_server::{self as workload_api, SpiffeWorkloadApiServer},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, interceptor::InterceptedService};
use tonic_health::pb::health_server::HealthServer;

use super::{
    api::{WorkloadApi, check_header},
    call::CallLayer,
    connection::Connection,
    health::HealthService,
    limits::{MAX_MESSAGE, limited},
    metrics::Metrics,
    reflection,
    sds::SecretDiscovery,
};
use crate::{node::Arrival, sys::RewriteAuthority};

/// Serves every connection to a volume's socket, whichever volume's it is. A handler finds the
/// [`Workload`](crate::node::Workload) among its request's extensions.
pub struct Server {
    arrivals: mpsc::Receiver<Arrival>,
    routes: Routes,
    metrics: Metrics,
}

// === impl Server ===

impl Server {
    /// Serves these connections; nothing is answered before [`Server::run`].
    pub fn new(
        arrivals: mpsc::Receiver<Arrival>,
        metrics: Metrics,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let api = SpiffeWorkloadApiServer::new(WorkloadApi::default())
            .max_decoding_message_size(MAX_MESSAGE);
        let services = vec![workload_api::SERVICE_NAME, secret_discovery::SERVICE_NAME];
        let health = HealthService { services };
        let mut routes = Routes::builder();
        routes.add_service(InterceptedService::new(api, check_header));
        routes.add_service(HealthServer::new(health).max_decoding_message_size(MAX_MESSAGE));
        routes.add_service(SecretDiscovery::service(metrics.clone()));
        reflection::add(&mut routes)?;
        Ok(Self { arrivals, routes: routes.routes(), metrics })
    }

    /// Serves until `stop`, then finishes the calls under way. Streams end only once the node
    /// closes the sockets: do that before.
    pub async fn run(self, stop: CancellationToken) -> Result<(), tonic::transport::Error> {
        let incoming = ReceiverStream::new(self.arrivals)
            .map(|arrival| Ok::<_, io::Error>(RewriteAuthority::new(Connection::from(arrival))));
        limited(tonic::transport::Server::builder())
            .layer(CallLayer { metrics: self.metrics })
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
    }
}
