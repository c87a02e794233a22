//! The signer that the settings name, and what keeps it going.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::SignerSettings;
use crate::{
    cli::UsageError,
    clock::Clock,
    k8s::Cluster,
    signer::{
        Signer,
        csr::{CsrMetrics, CsrSigner},
        local::LocalSigner,
    },
    trust::{BundleSource, BundleStore, RecoveredTrust},
};

/// Who signs, and whom the volumes trust.
pub(super) struct Signing {
    kind: Kind,
    /// The bundles of every volume.
    pub(super) bundles: Arc<BundleStore>,
    /// Access to the API server, where there is any.
    pub(super) cluster: Option<Cluster>,
}

enum Kind {
    Local(Arc<LocalSigner>),
    Csr(Arc<CsrSigner>),
}

// === impl Signing ===

impl Signing {
    /// Reaches for nothing yet: the volumes come back also while CA or API server is away.
    pub(super) fn open(
        settings: SignerSettings,
        trust: RecoveredTrust,
        node_name: &str,
        metrics: &CsrMetrics,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, UsageError> {
        match settings {
            SignerSettings::Local(config) => {
                let signer = Arc::new(LocalSigner::open(config, trust, clock));
                let bundles = signer.bundles();
                let cluster = Cluster::in_cluster().ok();
                Ok(Self { kind: Kind::Local(signer), bundles, cluster })
            }
            SignerSettings::Csr => {
                let cluster = Cluster::in_cluster()
                    .map_err(|error| UsageError::new("--signer csr", error))?;
                let signer = CsrSigner::new(cluster.clone(), node_name.to_owned(), metrics.clone());
                // What the volumes hold stands until the controller's bundle is read.
                let bundles = BundleStore::recovered(trust.bundle);
                let (kind, bundles) = (Kind::Csr(Arc::new(signer)), Arc::new(bundles));
                Ok(Self { kind, bundles, cluster: Some(cluster) })
            }
        }
    }

    pub(super) fn signer(&self) -> Arc<dyn Signer> {
        match &self.kind {
            Kind::Local(signer) => signer.clone(),
            Kind::Csr(signer) => signer.clone(),
        }
    }

    /// How often the CA in a directory could not be used.
    pub(super) fn reload_failures(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let local = match &self.kind {
            Kind::Local(signer) => Some(signer.clone()),
            Kind::Csr(_) => None,
        };
        move || local.as_ref().map_or(0, |signer| signer.refused())
    }

    /// Keeps the signer going until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        match self.kind {
            Kind::Local(signer) => signer.follow(stop).await,
            Kind::Csr(signer) => signer.run(stop).await,
        }
    }
}
