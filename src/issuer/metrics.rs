//! What is counted about direct issuing.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tonic::Code;

/// Counters and gauges about direct issuing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    connections: Family<ConnectionLabel, Counter>,
    open: Gauge,
    strangers: Gauge,
    calls: Family<CallLabel, Counter>,
    call_seconds: Histogram,
}

/// The label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ConnectionLabel(&'static str);

/// The labels `method` and `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CallLabel {
    method: &'static str,
    code: Code,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections: Family::default(),
            open: Gauge::default(),
            strangers: Gauge::default(),
            calls: Family::default(),
            call_seconds: Histogram::new([
                0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
            ]),
        }
    }
}

impl Metrics {
    /// Shows them in this registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Connections to the issuer's port, by what became of them";
        registry.register("issuer_connections", help, self.connections.clone());
        let help = "Connections to the issuer's port that are open";
        registry.register("issuer_connections_open", help, self.open.clone());
        let help = "Those of them over which no driver's token came yet";
        registry.register("issuer_connections_unproven", help, self.strangers.clone());
        let help = "Calls of the issuer, by method and gRPC code; a refusal is an answer: OK";
        registry.register("issuer_calls", help, self.calls.clone());
        // From the start, so that a rate has a beginning.
        for method in ["IssueX509Svid", "IssueJwtSvid"] {
            let _ = self.calls.get_or_create(&CallLabel { method, code: Code::Ok });
        }
        let help = "Duration of a call of the issuer whose driver was proven";
        let seconds = self.call_seconds.clone();
        registry.register_with_unit("issuer_call_duration", help, Unit::Seconds, seconds);
    }

    pub(super) fn connection(&self, result: &'static str) {
        self.connections.get_or_create(&ConnectionLabel(result)).inc();
    }

    pub(super) fn called(&self, method: &'static str, code: Code) {
        self.calls.get_or_create(&CallLabel { method, code }).inc();
    }

    pub(super) fn took(&self, seconds: f64) {
        self.call_seconds.observe(seconds);
    }

    pub(super) fn connected(&self, open: usize, strangers: usize) {
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.strangers.set(i64::try_from(strangers).unwrap_or(i64::MAX));
    }
}

// === impl ConnectionLabel ===

impl EncodeLabelSet for ConnectionLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("result", self.0).encode(encoder.encode_label())
    }
}

// === impl CallLabel ===

impl EncodeLabelSet for CallLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("method", self.method).encode(encoder.encode_label())?;
        ("code", format!("{:?}", self.code)).encode(encoder.encode_label())
    }
}
