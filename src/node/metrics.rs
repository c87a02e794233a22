//! What the node plugin counts. Every name begins with `svid_csi_`.

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{
        EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder, text,
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::WorkloadMetrics;
use crate::{
    class::Class,
    signer::{agent::AgentMetrics, controller::ControllerMetrics, requests::RequestMetrics},
};

/// Every metric of the node plugin, and the registry they are shown from.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// NodePublishVolume calls, by result.
    pub publishes: Family<Outcome, Counter>,
    /// How long they took, retries of a live volume included.
    pub publish_seconds: Histogram,
    /// NodeUnpublishVolume calls, by result.
    pub unpublishes: Family<Outcome, Counter>,
    /// How long they took.
    pub unpublish_seconds: Histogram,
    /// How long the signer took.
    pub sign_seconds: Histogram,
    /// Renewals tried, by result.
    pub renewals: Family<Outcome, Counter>,
    /// How long after its time a renewal began.
    pub renewal_lag_seconds: Histogram,
    /// Sets rewritten because the trust bundle changed, by result.
    pub bundle_rewrites: Family<Outcome, Counter>,
    /// Published bundles that could not be used.
    pub bundle_refused: Gauge<i64, AtomicI64>,
    /// The sequence number of the bundle that volumes get; 0 without one.
    pub bundle_sequence: Gauge<i64, AtomicI64>,
    /// Volumes whose SVID is under a CA key that is believed stolen.
    pub tainted_volumes: Gauge<i64, AtomicI64>,
    /// Volumes whose renewal waits until kubelet brings another token of the pod.
    pub waiting_for_pod_token: Gauge<i64, AtomicI64>,
    /// Events on Pods that could not be written.
    pub events_dropped: Gauge<i64, AtomicI64>,
    /// Volumes, by state.
    pub volumes: Family<StateLabel, Gauge>,
    /// Until the first SVID of any volume ends; infinite without volumes.
    pub nearest_expiry: Gauge<f64, AtomicU64>,
    /// The same of those whose last renewal failed.
    pub nearest_failing_expiry: Gauge<f64, AtomicU64>,
    /// Whether the signer could sign now: 1 or 0.
    pub signer_ready: Gauge<i64, AtomicI64>,
    /// When the signing CA ends, Unix seconds; 0 where that isn't known.
    pub ca_expiry: Gauge<i64, AtomicI64>,
    /// Changed CA files that could not be used.
    pub ca_reload_failures: Gauge<i64, AtomicI64>,
    /// The CSR signer's.
    pub csr: RequestMetrics,
    /// The agent signer's.
    pub agent: AgentMetrics,
    /// Those of the controller's client.
    pub controller: ControllerMetrics,
    /// The volumes' sockets'.
    pub workload: WorkloadMetrics,
    /// Volumes mounted without `noswap`.
    pub without_noswap: Counter,
    /// Volumes mounted without the SELinux label they should have.
    pub without_rootcontext: Counter,
    /// Mounts of ours found at start without a usable record.
    pub unreadable_records: Counter,
}

/// The labels `result` (`ok`, `error`) and `class` (empty unless it failed).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome(Option<Class>);

/// The label `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// The volume's state.
    pub state: VolumeState,
}

/// The state of a volume as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VolumeState {
    /// Its publish has not been answered with OK.
    Pending,
    /// All is well.
    Live,
    /// The last renewal or rewrite failed; the last good set stands.
    Failing,
    /// Its SVID has ended.
    Expired,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let fast = || {
            Histogram::new([
                0.000_5, 0.001, 0.001_5, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                1.0, 2.5, 5.0, 10.0, 20.0,
            ])
        };
        let mut metrics = Self {
            registry: Registry::with_prefix("svid_csi"),
            publishes: Family::default(),
            publish_seconds: fast(),
            unpublishes: Family::default(),
            unpublish_seconds: fast(),
            sign_seconds: fast(),
            renewals: Family::default(),
            renewal_lag_seconds: Histogram::new([
                0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
            ]),
            bundle_rewrites: Family::default(),
            bundle_refused: Gauge::default(),
            bundle_sequence: Gauge::default(),
            tainted_volumes: Gauge::default(),
            waiting_for_pod_token: Gauge::default(),
            events_dropped: Gauge::default(),
            volumes: Family::default(),
            nearest_expiry: Gauge::default(),
            nearest_failing_expiry: Gauge::default(),
            signer_ready: Gauge::default(),
            ca_expiry: Gauge::default(),
            ca_reload_failures: Gauge::default(),
            csr: RequestMetrics::default(),
            controller: ControllerMetrics::default(),
            agent: AgentMetrics::default(),
            workload: WorkloadMetrics::default(),
            without_noswap: Counter::default(),
            without_rootcontext: Counter::default(),
            unreadable_records: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("publishes", "NodePublishVolume calls", self.publishes.clone());
        r.register_with_unit(
            "publish_duration",
            "Duration of NodePublishVolume calls",
            Unit::Seconds,
            self.publish_seconds.clone(),
        );
        r.register("unpublishes", "NodeUnpublishVolume calls", self.unpublishes.clone());
        r.register_with_unit(
            "unpublish_duration",
            "Duration of NodeUnpublishVolume calls",
            Unit::Seconds,
            self.unpublish_seconds.clone(),
        );
        r.register_with_unit(
            "sign_duration",
            "Duration of requests to the signer",
            Unit::Seconds,
            self.sign_seconds.clone(),
        );
        r.register("renewals", "SVID renewals tried", self.renewals.clone());
        r.register_with_unit(
            "renewal_lag",
            "How long after its time a renewal began",
            Unit::Seconds,
            self.renewal_lag_seconds.clone(),
        );
        let rewrites = self.bundle_rewrites.clone();
        r.register("bundle_rewrites", "Sets rewritten for a changed trust bundle", rewrites);
        let refused = self.bundle_refused.clone();
        r.register("bundle_refused", "Published bundles that could not be used", refused);
        let sequence = self.bundle_sequence.clone();
        r.register("bundle_sequence", "Sequence number of the bundle (0 without one)", sequence);
        r.register(
            "tainted_volumes",
            "Volumes whose SVID is under a CA key that is believed stolen",
            self.tainted_volumes.clone(),
        );
        r.register(
            "volumes_waiting_for_pod_token",
            "Volumes whose renewal waits for kubelet's republish, which brings the pod's token",
            self.waiting_for_pod_token.clone(),
        );
        let dropped = self.events_dropped.clone();
        r.register("events_dropped", "Events on Pods that could not be written", dropped);
        r.register("volumes", "Volumes by state", self.volumes.clone());
        r.register_with_unit(
            "nearest_svid_expiry",
            "Until the first SVID of any volume ends (+Inf without volumes)",
            Unit::Seconds,
            self.nearest_expiry.clone(),
        );
        r.register_with_unit(
            "nearest_failing_svid_expiry",
            "Until the first SVID ends whose renewal fails (+Inf without such)",
            Unit::Seconds,
            self.nearest_failing_expiry.clone(),
        );
        let ready = self.signer_ready.clone();
        r.register("signer_ready", "Whether the signer could sign now: 1 or 0", ready);
        r.register_with_unit(
            "ca_expiry_timestamp",
            "When the signing CA ends, in Unix time (0 without one)",
            Unit::Seconds,
            self.ca_expiry.clone(),
        );
        let failures = self.ca_reload_failures.clone();
        r.register("ca_reload_failures", "Changed CA files that could not be used", failures);
        self.csr.register(r);
        self.controller.register(r);
        self.agent.register(r);
        self.workload.register(r);
        r.register(
            "mounts_without_noswap",
            "Volumes mounted without noswap, which the kernel refused",
            self.without_noswap.clone(),
        );
        r.register(
            "mounts_without_rootcontext",
            "Volumes mounted without an SELinux label, which the kernel refused",
            self.without_rootcontext.clone(),
        );
        r.register(
            "unreadable_records",
            "Mounts found at start whose record could not be used",
            self.unreadable_records.clone(),
        );
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The running build", version);
    }

    /// Where other parts of the node plugin add what they count.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Shows all of it in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut buffer = String::new();
        text::encode(&mut buffer, &self.registry)?;
        Ok(buffer)
    }
}

/// Records how long something took.
pub(super) fn observe(histogram: &Histogram, took: Duration) {
    histogram.observe(took.as_secs_f64());
}

// === impl Outcome ===

impl Outcome {
    /// The labels of this result.
    pub fn of<T, E>(result: &Result<T, E>, class: impl Fn(&E) -> Class) -> Self {
        Self(result.as_ref().err().map(class))
    }
}

impl EncodeLabelSet for Outcome {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let result = if self.0.is_none() { "ok" } else { "error" };
        let class = self.0.map_or("", Class::label);
        ("result", result).encode(encoder.encode_label())?;
        ("class", class).encode(encoder.encode_label())
    }
}

// === impl VolumeState ===

impl VolumeState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Live, Self::Failing, Self::Expired];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Live => "live",
            Self::Failing => "failing",
            Self::Expired => "expired",
        }
    }
}

impl EncodeLabelValue for VolumeState {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.label().encode(encoder)
    }
}
