//! What is counted of requests.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::class::Class;

/// Metrics of requests. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct RequestMetrics {
    /// Requests that somebody waits for.
    pub in_flight: Gauge,
    /// Calls to the API server that failed.
    pub api_errors: Family<ApiCall, Counter>,
}

/// The labels of a failed call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiCall {
    /// What was tried.
    pub call: &'static str,
    /// What its failure means.
    pub class: ClassLabel,
}

/// A class as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassLabel(pub Class);

// === impl RequestMetrics ===

impl RequestMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let in_flight = self.in_flight.clone();
        registry.register("csr_in_flight", "Requests that a volume waits for", in_flight);
        let errors = self.api_errors.clone();
        registry.register("csr_api_errors", "Failed calls of the CSR signer", errors);
    }

    pub(super) fn failed(&self, call: &'static str, class: Class) {
        self.api_errors.get_or_create(&ApiCall { call, class: ClassLabel(class) }).inc();
    }
}

impl EncodeLabelValue for ClassLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.label().encode(encoder)
    }
}
