//! What is counted at the volumes' sockets. No label names a volume or a pod: there may be ten
//! thousand, and come and go.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Limit, metrics::Outcome};

/// The metrics of every volume's socket.
#[derive(Debug, Default)]
pub struct WorkloadMetrics {
    /// Open connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// What went beyond a volume's limits.
    pub refused: Family<LimitLabel, Counter>,
    /// JWT-SVIDs that the signer was asked for, for calls and files.
    pub jwt_signed: Family<Outcome, Counter>,
    /// JWT-SVIDs that were verified for pods and not remembered.
    pub jwt_verified: Counter,
    /// Sockets that were bound again because their name was gone or led elsewhere.
    pub rebound: Counter,
}

/// The label `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabel {
    /// Which limit.
    pub limit: Limit,
}

// === impl WorkloadMetrics ===

impl WorkloadMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        let connections = self.connections.clone();
        r.register("workload_connections", "Open connections to volumes' sockets", connections);
        let refused = self.refused.clone();
        r.register("workload_refused", "What went beyond a volume's limits", refused);
        let signed = self.jwt_signed.clone();
        r.register("workload_jwt_signed", "JWT-SVIDs that the signer was asked for", signed);
        let verified = self.jwt_verified.clone();
        r.register("workload_jwt_verified", "Signatures of JWT-SVIDs checked for pods", verified);
        let rebound = self.rebound.clone();
        r.register("workload_sockets_rebound", "Sockets bound again that were gone", rebound);
    }

    pub(super) fn refused(&self, limit: Limit) {
        self.refused.get_or_create(&LimitLabel { limit }).inc();
    }
}

impl EncodeLabelValue for Limit {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.label().encode(encoder)
    }
}
