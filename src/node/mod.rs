//! The heart of the node plugin: volumes that are published, kept fresh, found again after a
//! crash, and taken away.

mod backoff;
mod desk;
mod error;
mod events;
mod handout;
mod issuer;
mod jwt_cache;
mod jwt_files;
mod jwt_issuer;
mod limits;
mod offer;
mod pending;
mod place;
mod pod_token;
mod publish;
mod record_key;
mod recover;
mod rotator;
mod stats;
mod store;
mod table;
mod taint;
mod tend;
mod unpublish;
mod verified;
mod volume;
mod workload;
mod workload_error;
mod workload_jwt;
mod workload_metrics;

pub mod metrics;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

pub use self::{
    desk::Arrival,
    error::NodeError,
    limits::{CallPermit, ConnectionPermit, Limit, Refused, WorkloadLimits},
    offer::{Offer, OfferedBundles, OfferedSvid},
    publish::PublishRequest,
    record_key::RecordKey,
    recover::Recovered,
    rotator::RotatorInbox,
    stats::{Usage, VolumeStats},
    workload::Workload,
    workload_error::{WorkloadError, WorkloadFault},
    workload_metrics::{LimitLabel, WorkloadMetrics},
};
use self::{
    desk::Desk,
    issuer::Issuer,
    metrics::Metrics,
    place::{Mounted, Places},
    rotator::{Rotator, RotatorHandle, Tend},
    table::VolumeTable,
};
use crate::{
    clock::Clock,
    id::{IdTemplate, SpiffeId, TemplateInput, TrustDomain},
    k8s::PodEvents,
    signer::{Assigned, Signer},
    sys::{KubeletDir, Mounter, selinux},
    trust::{BundleStore, TaintedKeys, TrustBundles},
    volume::{Limits, VolumeSpec},
};

/// A rotator that is silent for longer is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What a node is told once.
pub struct NodeConfig {
    /// The CSI driver's name; also the source of every mount.
    pub driver_name: String,
    /// kubelet's root directory.
    pub kubelet: KubeletDir,
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Bounds of what a volume may ask for.
    pub limits: Limits,
    /// How mounts are made.
    pub mounter: Box<dyn Mounter>,
    /// How records are known that were written here.
    pub record_key: RecordKey,
    /// Where pods' owners are told what fails.
    pub events: PodEvents,
    /// What each volume's pod may take at its socket.
    pub workload: WorkloadLimits,
}

/// A node before it has a signer: it can look at what an earlier process left.
pub struct NodeGround {
    places: Places,
    trust_domain: TrustDomain,
    template: IdTemplate,
    limits: Limits,
    metrics: Arc<Metrics>,
    events: PodEvents,
    workload: WorkloadLimits,
}

/// Every volume of this node and what keeps them.
pub struct Node {
    places: Places,
    trust_domain: TrustDomain,
    template: IdTemplate,
    limits: Limits,
    metrics: Arc<Metrics>,
    events: PodEvents,
    clock: Arc<dyn Clock>,
    issuer: Arc<Issuer>,
    table: VolumeTable,
    rotator: RotatorHandle,
    desk: Arc<Desk>,
    arrivals: Mutex<Option<mpsc::Receiver<Arrival>>>,
    /// What has not been seen of it changed after the node had its signer.
    bundle_changes: watch::Receiver<Option<Arc<TrustBundles>>>,
    taint_changes: watch::Receiver<Option<Arc<TaintedKeys>>>,
    tasks: TaskTracker,
    /// No call waits for a signer any longer.
    ending: CancellationToken,
    stop: CancellationToken,
}

// === impl NodeGround ===

impl NodeGround {
    /// Looks at the node: is SELinux on?
    pub fn new(config: NodeConfig, metrics: Arc<Metrics>) -> Result<Self, NodeError> {
        let NodeConfig { driver_name, kubelet, trust_domain, limits, .. } = config;
        let NodeConfig { mounter, record_key, events, workload, .. } = config;
        let mounts = mounter.mounts().map_err(NodeError::io("read", "mountinfo"))?;
        let rootcontext =
            selinux::is_enabled(&mounts).then(|| selinux::CONTAINER_FILE_CONTEXT.to_owned());
        let places = Places { driver_name, kubelet, mounter, record_key, rootcontext };
        let template = IdTemplate::default();
        Ok(Self { places, trust_domain, template, limits, metrics, events, workload })
    }

    /// The node with its signer. It serves nothing and renews nothing before
    /// [`Node::take_over`] and [`Node::start`].
    pub fn with_signer(
        self,
        signer: Arc<dyn Signer>,
        bundles: Arc<BundleStore>,
        clock: Arc<dyn Clock>,
    ) -> (Arc<Node>, RotatorInbox) {
        let Self { places, trust_domain, template, limits, metrics, events, workload } = self;
        let (rotator, inbox) = rotator::channel();
        let (bundle_changes, taint_changes) = (bundles.subscribe(), bundles.subscribe_tainted());
        let ending = CancellationToken::new();
        let issuer = Arc::new(Issuer {
            signer,
            bundles,
            clock: clock.clone(),
            metrics: metrics.clone(),
            ending: ending.clone(),
        });
        let (desk, arrivals) = Desk::new(issuer.clone(), metrics.clone(), workload);
        let node = Node {
            places,
            trust_domain,
            template,
            limits,
            metrics,
            events,
            clock,
            issuer,
            table: VolumeTable::default(),
            rotator,
            desk,
            arrivals: Mutex::new(Some(arrivals)),
            bundle_changes,
            taint_changes,
            tasks: TaskTracker::new(),
            ending,
            stop: CancellationToken::new(),
        };
        (Arc::new(node), inbox)
    }
}

// === impl Node ===

impl Node {
    /// Starts to renew what is due and to follow the trust bundle. Ends only by
    /// [`Node::shut_down`] or a bug, and the caller must treat the latter as fatal.
    pub async fn start(self: Arc<Self>, inbox: RotatorInbox) {
        let node = self.clone();
        let tend: Tend = Arc::new(move |volume, due| {
            let node = node.clone();
            Box::pin(async move { node.tend(volume, due).await })
        });
        let rotator = Rotator::new(inbox, tend, self.clock.clone());
        let follow = async {
            let mut bundles = self.bundle_changes.clone();
            let mut tainted = self.taint_changes.clone();
            loop {
                tokio::select! {
                    Ok(()) = bundles.changed() => {
                        let newest = bundles.borrow_and_update().clone();
                        let sequence = newest.and_then(|bundles| bundles.own.sequence());
                        let sequence = sequence.unwrap_or_default();
                        info!(sequence, "the trust bundle changed");
                    }
                    Ok(()) = tainted.changed() => {
                        let keys = tainted.borrow_and_update().as_ref().map_or(0, |t| t.len());
                        info!(keys, "the CA keys that are believed stolen changed");
                    }
                    else => return,
                }
                self.rotator.tend_all();
            }
        };
        tokio::select! {
            () = rotator.run(self.stop.clone()) => {}
            () = follow => {}
        }
    }

    /// Every connection to a volume's socket. Whoever asks first serves them; nobody else does.
    pub fn arrivals(&self) -> Option<mpsc::Receiver<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends the service at every socket: streams end as Unavailable. The sockets stay, and the
    /// next start binds them again.
    pub async fn close_sockets(&self) {
        self.desk.close().await;
    }

    /// Takes no more calls, and waits for those under way. Every mount stays.
    pub async fn shut_down(&self, patience: Duration) {
        self.tasks.close();
        self.ending.cancel();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!("some calls did not end in time; the next start resumes them");
        }
        self.stop.cancel();
    }

    /// Whether calls can be served now; `Err` says why not.
    pub fn ready(&self) -> Result<(), String> {
        if self.tasks.is_closed() {
            return Err(NodeError::ShuttingDown.to_string());
        }
        self.alive()?;
        self.issuer.signer.status().ready.map_err(|error| error.to_string())?;
        match self.issuer.bundles.current() {
            Some(_) => {}
            None => return Err(NodeError::NoBundle.to_string()),
        }
        match self.issuer.bundles.refusal() {
            Some(refusal) if self.issuer.signer.is_remote() => {
                Err(format!("the published bundle is not taken: {refusal}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the renewal loop goes round; `Err` says since when it does not.
    pub fn alive(&self) -> Result<(), String> {
        let silence = self.rotator.silence();
        if silence < STUCK {
            return Ok(());
        }
        Err(format!("the renewal loop has been silent for {} s", silence.as_secs()))
    }

    /// Runs a call to its end, though its caller may be gone.
    async fn track<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, NodeError>> + Send + 'static,
    ) -> Result<T, NodeError> {
        if self.tasks.is_closed() {
            return Err(NodeError::ShuttingDown);
        }
        self.tasks.spawn(call).await.unwrap_or(Err(NodeError::Panicked))
    }

    /// The identity of a volume: what policy assigned to it, or else its pod's default.
    fn identity(
        &self,
        spec: &VolumeSpec,
        assigned: Option<&Assigned>,
    ) -> Result<SpiffeId, NodeError> {
        if let Some(assigned) = assigned {
            return Ok(assigned.id.clone());
        }
        let input = TemplateInput {
            namespace: &spec.pod.namespace,
            service_account: &spec.pod.service_account,
            pod_name: &spec.pod.name,
            // Only the controller knows them.
            namespace_labels: &BTreeMap::new(),
        };
        Ok(self.template.render(&self.trust_domain, &input)?)
    }

    fn count_mount(&self, mounted: &Mounted) {
        if !mounted.noswap {
            self.metrics.without_noswap.inc();
        }
        if !mounted.labelled {
            self.metrics.without_rootcontext.inc();
            tracing::warn!("SELinux refused rootcontext; containers may not see the volume");
        }
    }
}
