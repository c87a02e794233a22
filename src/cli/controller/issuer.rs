//! Direct issuing: what an operator sets about it, and how it is put together.

use std::{future::Future, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use clap::Args;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::UsageError,
    clock::Clock,
    controller::{
        issuance::Issuance,
        tokens::{self, Tokens},
        world::World,
    },
    issuer::{self, Ground, Server},
    k8s::Cluster,
};

/// The part of direct issuing of the arguments of `svid-csi controller`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Direct issuing")]
pub(super) struct IssuerArgs {
    /// Address where nodes have identities signed by gRPC [default: none]
    #[arg(long, env = "SVID_CSI_ISSUER_LISTEN", value_name = "IP:PORT")]
    issuer_listen: Option<String>,

    /// The sole audience of the tokens that prove who asks, and for which pod
    #[arg(
        long, env = "SVID_CSI_TOKEN_AUDIENCE", value_name = "TEXT",
        default_value = Tokens::AUDIENCE
    )]
    token_audience: String,
}

/// [`IssuerArgs`] after every check.
pub(super) struct IssuerChoice {
    listen: SocketAddr,
    audience: String,
}

/// Direct issuing, its port open, and nobody there yet who answers.
pub(super) struct Issuing {
    listener: TcpListener,
    audience: String,
    tokens: tokens::Metrics,
    calls: issuer::Metrics,
}

// === impl IssuerArgs ===

impl IssuerArgs {
    /// Nothing where it is off.
    pub(super) fn settings(self) -> Result<Option<IssuerChoice>, UsageError> {
        let Some(listen) = self.issuer_listen.filter(|listen| !listen.is_empty()) else {
            return Ok(None);
        };
        let listen = listen.parse().map_err(|error| {
            UsageError::new("--issuer-listen", format!("{error}; give IP:PORT"))
        })?;
        match self.token_audience {
            audience if audience.is_empty() => {
                Err(UsageError::new("--token-audience", "must not be empty"))
            }
            audience => Ok(Some(IssuerChoice { listen, audience })),
        }
    }
}

// === impl Issuing ===

impl Issuing {
    pub(super) async fn open(choice: IssuerChoice) -> Result<Self> {
        let IssuerChoice { listen, audience } = choice;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("--issuer-listen {listen}"))?;
        let (tokens, calls) = Default::default();
        Ok(Self { listener, audience, tokens, calls })
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        self.tokens.register(registry);
        self.calls.register(registry);
    }

    /// Who verifies tokens for it.
    pub(super) fn tokens(&self, cluster: &Cluster, clock: &Arc<dyn Clock>) -> Arc<Tokens> {
        Tokens::new(cluster.clone(), self.audience.clone(), clock.clone(), self.tokens.clone())
    }

    /// Answers until `stop`.
    pub(super) fn serve(
        self,
        world: Arc<World>,
        issuance: Arc<Issuance>,
        tokens: Arc<Tokens>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send + 'static> {
        let metrics = self.calls;
        let server = Server::new(Ground { world, issuance, tokens, metrics, clock })?;
        Ok(server.run(self.listener, stop))
    }
}
