//! The approver of cert-manager's CertificateRequests, put together.

use std::{sync::Arc, time::SystemTime};

use tokio_util::sync::CancellationToken;

use super::cert_manager::CertManagerSettings;
use crate::{
    controller::{
        certificate_requests::{Fence, reconciler, sweep},
        reconcile::{Ground, Reconciler},
    },
    k8s::{CertificateRequestDecisions, CertificateRequestFacts, Cluster, ObjectName},
    signer::cert_manager::Issuers,
};

/// What decides on CertificateRequests, and what that rests on.
pub(super) struct Certificates {
    requests: Reconciler<CertificateRequestFacts>,
    decisions: CertificateRequestDecisions,
    issuers: Arc<Issuers>,
    fence: Arc<Fence>,
    ground: Ground,
}

// === impl Certificates ===

impl Certificates {
    pub(super) fn new(
        cluster: &Cluster,
        own: &str,
        settings: CertManagerSettings,
        ground: Ground,
    ) -> Self {
        let CertManagerSettings { issuer, issuer_map, namespace, approvers } = settings;
        let map = issuer_map.map(|name| (cluster.clone(), ObjectName::new(own, name)));
        let decisions =
            CertificateRequestDecisions::new(cluster, namespace.as_deref().unwrap_or(own));
        let issuers = Arc::new(Issuers::new(issuer, map));
        let world = ground.world.clone();
        let fence = Arc::new(Fence::new(decisions.clone(), issuers.clone(), world, approvers));
        let requests =
            reconciler(ground.clone(), decisions.clone(), issuers.clone(), fence.clone());
        Self { requests, decisions, issuers, fence, ground }
    }

    /// Decides until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        self.requests.run(stop).await;
    }

    /// Keeps up with what it rests on, for ever.
    pub(super) async fn keep(&self) {
        tokio::select! {
            () = self.issuers.follow() => {}
            () = self.fence.keep() => {}
            () = sweep(&self.requests, &self.decisions, &self.ground) => {}
        }
    }

    pub(super) fn alive(&self) -> Result<(), String> {
        self.requests.alive()
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        self.requests.ready()?;
        self.fence.ready()
    }

    pub(super) fn refresh_metrics(&self, now: SystemTime) {
        self.requests.refresh_metrics(now);
    }
}
