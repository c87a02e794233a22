//! The server, put together.

use std::{convert::Infallible, sync::Arc};

use svid_csi_proto::issuer::v1::issuer_server::IssuerServer;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::sleep};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Metrics,
    accept::Accept,
    certificate::ServerCertificate,
    gate::Gate,
    limits::{DRAIN, MAX_MESSAGE, limited},
    proof::ProofLayer,
    service::IssuerService,
};
use crate::{
    clock::Clock,
    controller::{issuance::Issuance, tokens::Tokens, world::World},
};

/// Answers nodes.
pub struct Server {
    ground: Ground,
    acceptor: TlsAcceptor,
}

/// What [`Server`] needs.
pub struct Ground {
    /// What is known.
    pub world: Arc<World>,
    /// Who signs and keeps account.
    pub issuance: Arc<Issuance>,
    /// Who verifies tokens.
    pub tokens: Arc<Tokens>,
    /// Where it is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The crypto library has no TLS 1.3.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Connections that wait for the server to take them.
const WAITING: usize = 64;

// === impl Server ===

impl Server {
    /// Nothing is answered before [`Server::run`].
    pub fn new(ground: Ground) -> Result<Self, ServerError> {
        let domain = &ground.world.settings().trust_domain;
        let certificate =
            ServerCertificate::new(ground.issuance.clone(), domain, ground.clock.clone());
        let acceptor = TlsAcceptor::from(Arc::new(certificate.config()?));
        Ok(Self { ground, acceptor })
    }

    /// Serves until `stop`, then finishes the calls under way: clients are told to go elsewhere.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let Ground { world, issuance, tokens, metrics, clock: _ } = self.ground;
        let (connections, arrived) = mpsc::channel(WAITING);
        let accept = Accept {
            listener,
            acceptor: self.acceptor,
            gate: Gate::new(metrics.clone()),
            metrics: metrics.clone(),
            connections,
        };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept.run(stop.clone()));
        let layer = ProofLayer::new(tokens.clone(), world.settings().clone(), metrics);
        let service = IssuerServer::new(IssuerService { world, tokens, issuance })
            .max_decoding_message_size(MAX_MESSAGE);
        let served = limited(tonic::transport::Server::builder())
            .layer(layer)
            .add_service(service)
            .serve_with_incoming_shutdown(
                ReceiverStream::new(arrived).map(Ok::<_, Infallible>),
                stop.clone().cancelled_owned(),
            );
        let too_long = async {
            stop.cancelled().await;
            sleep(DRAIN).await;
        };
        tokio::select! {
            served = served => if let Err(error) = served {
                warn!(%error, "direct issuing");
            },
            () = too_long => warn!("not every call ended in time"),
        }
    }
}
