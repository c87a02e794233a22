//! What the agent signer counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{class::Class, signer::requests::ClassLabel};

/// Metrics of the agent signer. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct AgentMetrics {
    /// Volumes whose SVIDs are followed.
    pub subscriptions: Gauge,
    /// Changes of an SVID that the agent told of, the first ones included.
    pub pushes: Counter,
    /// Calls to the agent that failed.
    pub errors: Family<AgentCall, Counter>,
}

/// The labels of a failed call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AgentCall {
    /// What was asked for.
    pub call: &'static str,
    /// What its failure means.
    pub class: ClassLabel,
}

// === impl AgentMetrics ===

impl AgentMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let subscriptions = self.subscriptions.clone();
        let help = "Volumes whose SVIDs are followed at the SPIRE agent";
        registry.register("agent_subscriptions", help, subscriptions);
        let pushes = self.pushes.clone();
        registry.register("agent_pushes", "SVIDs that the SPIRE agent handed out", pushes);
        let errors = self.errors.clone();
        registry.register("agent_errors", "Failed calls to the SPIRE agent", errors);
    }

    pub(super) fn failed(&self, call: &'static str, class: Class) {
        self.errors.get_or_create(&AgentCall { call, class: ClassLabel(class) }).inc();
    }
}
