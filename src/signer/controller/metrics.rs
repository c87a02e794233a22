//! What the controller's client counts.

use std::net::SocketAddr;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{class::Class, signer::SignError};

/// Metrics of the controller's client. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct ControllerMetrics {
    calls: Family<CallLabels, Counter>,
    retries: Counter,
    in_flight: Gauge,
    replicas: Family<ReplicaLabel, Gauge>,
    handshakes: Family<HandshakeLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    /// `x509` or `jwt`.
    call: &'static str,
    /// `ok`, or the class of the error.
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabel {
    replica: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabel {
    result: Handshake,
}

/// What became of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handshake {
    /// The other end is the controller.
    Ok,
    /// It is somebody else.
    Refused,
    /// It came to nothing.
    Failed,
}

// === impl ControllerMetrics ===

impl ControllerMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let calls = self.calls.clone();
        registry.register(
            "controller_calls",
            "Calls of the controller, by what came of them",
            calls,
        );
        let retries = self.retries.clone();
        let help = "Calls that were made again at another replica, or after a replica was lost";
        registry.register("controller_retries", help, retries);
        let in_flight = self.in_flight.clone();
        registry.register("controller_in_flight", "Calls of the controller under way", in_flight);
        let replicas = self.replicas.clone();
        let help = "Whether this replica of the controller is connected: 1 or 0";
        registry.register("controller_replica_connected", help, replicas);
        let handshakes = self.handshakes.clone();
        let help = "TLS handshakes with the controller; refused: the other end was somebody else";
        registry.register("controller_handshakes", help, handshakes);
    }

    pub(super) fn called<T>(&self, call: &'static str, answer: &Result<T, SignError>) {
        let result = answer.as_ref().err().map_or("ok", |error| Class::label(error.class()));
        self.calls.get_or_create(&CallLabels { call, result }).inc();
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    pub(super) fn connected(&self, replica: SocketAddr, connected: bool) {
        let label = ReplicaLabel { replica: replica.to_string() };
        self.replicas.get_or_create(&label).set(i64::from(connected));
    }

    pub(super) fn forget(&self, replica: SocketAddr) {
        self.replicas.remove(&ReplicaLabel { replica: replica.to_string() });
    }

    pub(super) fn handshake(&self, result: Handshake) {
        self.handshakes.get_or_create(&HandshakeLabel { result }).inc();
    }
}

impl EncodeLabelValue for Handshake {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let label = match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        };
        label.encode(encoder)
    }
}
