//! The signer that the settings name, whom the volumes trust, and what keeps both going.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    SignerKind, SignerSettings,
    cert_manager::{CertManagerSettings, RootsSetting},
};
use crate::{
    cli::UsageError,
    clock::Clock,
    id::TrustDomain,
    k8s::{Cluster, ObjectName},
    node::metrics::Metrics,
    signer::{
        Signer,
        agent::{AgentBundles, AgentSigner},
        cert_manager::Issuers,
        controller::{ControllerClient, ControllerConfig, ControllerSigner, WithController},
        local::{LocalConfig, LocalSigner},
        requests::RequestSigner,
    },
    trust::{BundleSource, BundleStore, IssuerRoots, RecoveredTrust, RootsPlace, SharedBundle},
};

/// Who signs, and whom the volumes trust.
pub(super) struct Signing {
    kind: Kind,
    /// Who signs.
    pub(super) signer: Arc<dyn Signer>,
    /// The bundles of every volume.
    pub(super) bundles: Arc<BundleStore>,
    /// Asks the controller by gRPC.
    client: Option<Arc<ControllerClient>>,
    /// The controller's bundle, where it is followed.
    shared: Option<Arc<SharedBundle>>,
}

/// What is needed to make one; nothing of it has been asked for anything yet.
pub(super) struct SigningParts {
    kind: PartKind,
    controller: Option<ControllerConfig>,
    /// Access to the API server, where there is any.
    pub(super) cluster: Option<Cluster>,
    shared: Option<(Cluster, ObjectName)>,
    trust_domain: TrustDomain,
}

enum PartKind {
    Local(LocalConfig),
    Csr(Cluster),
    Controller,
    CertManager(Cluster, CertManagerSettings),
    Agent(PathBuf),
}

enum Kind {
    Local(Arc<LocalSigner>),
    Csr(Arc<RequestSigner>),
    Controller,
    CertManager(Arc<RequestSigner>, Arc<IssuerRoots>),
    Agent(Arc<AgentSigner>, Arc<AgentBundles>),
}

// === impl SigningParts ===

impl SigningParts {
    /// A pod has access to the API server if it has a token.
    pub(super) async fn new(settings: SignerSettings) -> Result<Self, UsageError> {
        let SignerSettings {
            kind,
            local,
            controller,
            agent_socket,
            cert_manager,
            bundle_map,
            kubeconfig,
        } = settings;
        let trust_domain = local.trust_domain.clone();
        let access = match kubeconfig {
            true => Cluster::from_kubeconfig(None).await,
            false => Cluster::in_cluster(),
        };
        let cluster = access.as_ref().ok().cloned();
        let needs = |setting| {
            access.clone().map_err(|error: crate::k8s::ApiError| UsageError::new(setting, error))
        };
        let kind = match (kind, cert_manager) {
            (SignerKind::Local, _) => PartKind::Local(local),
            (SignerKind::Csr, _) => PartKind::Csr(needs("--signer csr")?),
            (SignerKind::Controller, _) => PartKind::Controller,
            (SignerKind::CertManager, Some(settings)) => {
                PartKind::CertManager(needs("--signer cert-manager")?, settings)
            }
            (SignerKind::CertManager, None) => {
                return Err(UsageError::new("--signer", "cert-manager without an issuer"));
            }
            (SignerKind::Agent, _) => PartKind::Agent(agent_socket.unwrap_or_default()),
        };
        let shared = match bundle_map {
            Some(name) => {
                let cluster = needs("--bundle-config-map")?;
                let name = ObjectName::new(cluster.namespace(), name);
                Some((cluster, name))
            }
            None => None,
        };
        Ok(Self { kind, controller, cluster, shared, trust_domain })
    }
}

// === impl Signing ===

impl Signing {
    /// Reaches for nothing yet: the volumes come back also while CA or API server is away.
    pub(super) fn open(
        parts: SigningParts,
        trust: RecoveredTrust,
        node_name: &str,
        metrics: &Metrics,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let (kind, bundles) = match parts.kind {
            PartKind::Local(config) => {
                let signer = Arc::new(LocalSigner::open(config, trust, clock.clone()));
                let bundles = signer.bundles();
                (Kind::Local(signer), bundles)
            }
            PartKind::Csr(cluster) => {
                let signer = RequestSigner::csr(cluster, node_name.to_owned(), metrics.csr.clone());
                // What the volumes hold stands until the controller's bundle is read.
                (Kind::Csr(Arc::new(signer)), Arc::new(BundleStore::recovered(trust.bundle)))
            }
            PartKind::Controller => {
                (Kind::Controller, Arc::new(BundleStore::recovered(trust.bundle)))
            }
            PartKind::CertManager(cluster, settings) => {
                // What the volumes hold stands until the roots are read.
                let store = Arc::new(BundleStore::recovered(trust.bundle));
                let (name, domain) = (node_name.to_owned(), parts.trust_domain.clone());
                let (signer, place) = cert_manager(cluster, settings, name, metrics);
                let roots = IssuerRoots::new(place, domain, store.clone());
                (Kind::CertManager(Arc::new(signer), Arc::new(roots)), store)
            }
            PartKind::Agent(socket) => {
                // What the volumes hold stands until the agent says more.
                let store = Arc::new(BundleStore::recovered_all(trust));
                let domain = parts.trust_domain.clone();
                let metrics = metrics.agent.clone();
                let (signer, bundles) =
                    AgentSigner::new(socket, domain, store.clone(), clock.clone(), metrics);
                (Kind::Agent(Arc::new(signer), Arc::new(bundles)), store)
            }
        };
        let client = match parts.controller {
            Some(config) => {
                let metrics = metrics.controller.clone();
                let client = ControllerClient::new(config, bundles.clone(), clock, metrics);
                Some(Arc::new(client.context("TLS 1.3")?))
            }
            None => None,
        };
        let signer: Arc<dyn Signer> = match (&kind, &client) {
            (Kind::Local(signer), _) => signer.clone(),
            (Kind::Csr(signer) | Kind::CertManager(signer, _), None) => signer.clone(),
            (Kind::Csr(signer) | Kind::CertManager(signer, _), Some(client)) => {
                Arc::new(WithController::new(signer.clone(), client.clone()))
            }
            (Kind::Controller, Some(client)) => Arc::new(ControllerSigner::new(client.clone())),
            (Kind::Controller, None) => bail!("--signer controller without --controller-address"),
            (Kind::Agent(signer, _), _) => signer.clone(),
        };
        let shared = parts.shared.map(|(cluster, name)| {
            Arc::new(SharedBundle::new(cluster, name, parts.trust_domain, bundles.clone()))
        });
        Ok(Self { kind, signer, bundles, client, shared })
    }

    /// How often the CA in a directory could not be used.
    pub(super) fn reload_failures(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let local = match &self.kind {
            Kind::Local(signer) => Some(signer.clone()),
            Kind::Csr(_) | Kind::Controller | Kind::CertManager(..) | Kind::Agent(..) => None,
        };
        move || local.as_ref().map_or(0, |signer| signer.refused())
    }

    /// How often what the controller published, or the SPIRE agent gave, could not be used.
    pub(super) fn bundles_refused(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let source: Option<Arc<dyn BundleSource>> = match (&self.kind, &self.shared) {
            (Kind::Agent(_, bundles), _) => Some(bundles.clone()),
            (Kind::CertManager(_, roots), _) => Some(roots.clone()),
            (_, Some(shared)) => Some(shared.clone()),
            _ => None,
        };
        move || source.as_ref().map_or(0, |source| source.refused())
    }

    /// Keeps signer and bundles going until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut parts = JoinSet::new();
        parts.spawn({
            let stop = stop.clone();
            async move {
                match self.kind {
                    Kind::Local(signer) => signer.follow(stop).await,
                    Kind::Csr(signer) => signer.run(stop).await,
                    Kind::Controller => stop.cancelled().await,
                    Kind::CertManager(signer, roots) => {
                        tokio::join!(signer.run(stop.clone()), roots.follow(stop));
                    }
                    Kind::Agent(signer, bundles) => {
                        bundles.follow(stop).await;
                        signer.end().await;
                    }
                }
            }
        });
        if let Some(client) = self.client {
            let stop = stop.clone();
            parts.spawn(async move { client.run(stop).await });
        }
        if let Some(shared) = self.shared {
            let stop = stop.clone();
            parts.spawn(async move { shared.follow(stop).await });
        }
        // Whichever ends by itself has a bug, which whoever waits for this tells.
        parts.join_next().await;
        // They have a last few things to do.
        while stop.is_cancelled() && parts.join_next().await.is_some() {}
    }
}

/// The signer, and where its issuers' roots are.
fn cert_manager(
    cluster: Cluster,
    settings: CertManagerSettings,
    node_name: String,
    metrics: &Metrics,
) -> (RequestSigner, RootsPlace) {
    let CertManagerSettings { namespace, issuer, issuer_map, roots } = settings;
    let own = |name: String| ObjectName::new(cluster.namespace(), name);
    let map = issuer_map.map(|name| (cluster.clone(), own(name)));
    let place = match roots {
        RootsSetting::Map(name) => RootsPlace::Map(cluster.clone(), own(name)),
        RootsSetting::File(path) => RootsPlace::File(path),
    };
    let namespace = namespace.unwrap_or_else(|| cluster.namespace().to_owned());
    let (issuers, metrics) = (Issuers::new(issuer, map), metrics.csr.clone());
    (RequestSigner::cert_manager(cluster, &namespace, issuers, node_name, metrics), place)
}
