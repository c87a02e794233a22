//! The sockets in volumes, served by a node in this process, whose signer and bundles the test
//! holds.

pub mod client;
mod crowd;
mod ends;
mod health;
mod limits;
mod signer;
mod streams;

use std::{path::PathBuf, sync::Arc};

use svid_csi::{
    node::metrics::Metrics as NodeMetrics,
    pki::Authority,
    trust::{BundleStore, TrustBundles},
    workload::{Metrics, Server},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::{
    client::{Api, Bare, bare, ended, message, with_header},
    signer::HeldSigner,
};
use crate::{
    in_process::{Machine, Plugin},
    plugin::Pod,
};

/// A machine with its CA, and the process that serves its volumes.
pub struct Ground {
    pub machine: Machine,
    pub signer: Arc<HeldSigner>,
    pub store: Arc<BundleStore>,
    running: Option<Running>,
}

struct Running {
    plugin: Plugin,
    stop: CancellationToken,
    server: JoinSet<()>,
    metrics: Arc<NodeMetrics>,
}

// === impl Ground ===

impl Ground {
    /// With a JWT key.
    pub fn new() -> Self {
        Self::with_signer(|signer| signer)
    }

    pub fn without_jwt() -> Self {
        Self::with_signer(HeldSigner::without_jwt)
    }

    fn with_signer(make: impl FnOnce(HeldSigner) -> HeldSigner) -> Self {
        let machine = Machine::new();
        let signer = Arc::new(make(HeldSigner::new(machine.clock.clone())));
        let store = Arc::new(BundleStore::new(TrustBundles::own(signer.bundle(1))));
        let mut ground = Self { machine, signer, store, running: None };
        ground.start();
        ground
    }

    /// Starts a process, which finds what one before it left.
    pub fn start(&mut self) {
        let mut metrics = NodeMetrics::default();
        let served = Metrics::new(metrics.registry());
        let metrics = Arc::new(metrics);
        let (signer, store) = (self.signer.clone(), self.store.clone());
        let plugin = self.machine.start_with(signer, store, metrics.clone());
        let (stop, mut server) = (CancellationToken::new(), JoinSet::new());
        let arrivals = plugin.node.arrivals().unwrap();
        let serving = Server::new(arrivals, served).unwrap().run(stop.clone());
        server.spawn(async { serving.await.unwrap() });
        self.running = Some(Running { plugin, stop, server, metrics });
    }

    /// Ends the process as SIGTERM does.
    pub async fn terminate(&mut self) {
        let Running { plugin, stop, mut server, .. } = self.running.take().unwrap();
        plugin.node.close_sockets().await;
        stop.cancel();
        while let Some(ended) = server.join_next().await {
            ended.unwrap();
        }
    }

    pub fn plugin(&self) -> &Plugin {
        &self.running.as_ref().unwrap().plugin
    }

    /// What `/metrics` shows.
    pub fn metrics(&self) -> String {
        self.running.as_ref().unwrap().metrics.encode().unwrap()
    }

    pub async fn publish(&self, pod: &Pod) {
        self.machine.publish(self.plugin(), pod).await;
    }

    pub async fn unpublish(&self, pod: &Pod) {
        let target = self.machine.target(pod).display().to_string();
        let id = pod.volume_id().parse().unwrap();
        self.plugin().node.unpublish(id, target).await.unwrap();
    }

    /// A published pod and a client that sends the security header.
    pub async fn pod(&self, n: usize) -> (Pod, Api) {
        let pod = Pod::new(n);
        self.publish(&pod).await;
        let api = self.api(&pod).await;
        (pod, api)
    }

    pub fn socket(&self, pod: &Pod) -> PathBuf {
        self.machine.target(pod).join("spiffe.sock")
    }

    pub async fn api(&self, pod: &Pod) -> Api {
        with_header(&self.socket(pod)).await
    }

    pub async fn bare(&self, pod: &Pod) -> Bare {
        bare(&self.socket(pod)).await
    }

    /// Publishes these bundles as the next ones.
    pub fn trust(&self, roots: &[&Authority], sequence: u64) {
        self.store.publish_own(self.signer.bundle_of(roots, sequence));
    }
}
