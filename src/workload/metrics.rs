//! What is counted at the volumes' sockets.

use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tonic::Code;

use super::method::Method;

/// Calls at all sockets. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) calls: Family<CallLabels, Counter>,
    pub(super) open: Family<MethodLabel, Gauge>,
    pub(super) messages: Family<MethodLabel, Counter>,
    pub(super) rejected_secrets: Counter,
}

/// The labels `method` and `code`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallLabels(pub(super) Method, pub(super) Code);

/// The label `method`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct MethodLabel(pub(super) Method);

// === impl Metrics ===

impl Metrics {
    /// Metrics that this registry shows.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { calls, open, messages, rejected_secrets } = &metrics;
        registry.register(
            "workload_calls",
            "Calls at the volumes' sockets that have ended, by method and gRPC code",
            calls.clone(),
        );
        registry.register(
            "workload_open_calls",
            "Calls at the volumes' sockets that are under way, by method",
            open.clone(),
        );
        registry.register(
            "workload_messages",
            "Messages sent at the volumes' sockets, by method",
            messages.clone(),
        );
        registry.register(
            "workload_rejected_secrets",
            "Messages of secrets that an Envoy at a volume's socket refused",
            rejected_secrets.clone(),
        );
        metrics.touch();
        metrics
    }

    /// Shows every family from the start.
    fn touch(&self) {
        let method = Method::of("/SpiffeWorkloadAPI/FetchX509SVID");
        drop(self.calls.get_or_create(&CallLabels(method, Code::Ok)));
        drop(self.open.get_or_create(&MethodLabel(method)));
        drop(self.messages.get_or_create(&MethodLabel(method)));
    }
}

// === impl CallLabels ===

impl EncodeLabelSet for CallLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let Self(method, code) = self;
        [("method", method.name()), ("code", name(*code))].encode(encoder)
    }
}

// === impl MethodLabel ===

impl EncodeLabelSet for MethodLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        [("method", self.0.name())].encode(encoder)
    }
}

/// As gRPC names it.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
