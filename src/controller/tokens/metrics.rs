//! What is counted about tokens.

use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::fmt;

use crate::class::Class;

/// Counters and gauges about tokens. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    verifications: Family<VerificationLabel, Counter>,
    reads: Family<ReadLabel, Counter>,
    keys: Gauge,
    remembered: Gauge,
}

/// How it was found out whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// It had been found good before.
    Memory,
    /// By what it says, or by a published key.
    Keys,
    /// By TokenReview: a call to the API server.
    Review,
}

/// The labels `way` and `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct VerificationLabel {
    way: Way,
    result: &'static str,
}

/// The label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ReadLabel(&'static str);

// === impl Metrics ===

impl Metrics {
    /// Shows them in this registry.
    pub fn register(&self, registry: &mut Registry) {
        let verifications = self.verifications.clone();
        let help = "ServiceAccount tokens looked at, by the way and what came of it";
        registry.register("token_verifications", help, verifications);
        let help = "Attempts to read the keys of ServiceAccount tokens";
        registry.register("token_key_reads", help, self.reads.clone());
        let help = "Published keys that ServiceAccount tokens are verified with; 0 where they cannot \
                    be had and TokenReview is asked";
        registry.register("token_keys", help, self.keys.clone());
        let help = "ServiceAccount tokens that are known to be good";
        registry.register("tokens_remembered", help, self.remembered.clone());
    }

    pub(super) fn verified(&self, way: Way, result: Result<(), Class>) {
        let result = match result {
            Ok(()) => "good",
            Err(Class::Unavailable) => "unavailable",
            Err(_) => "refused",
        };
        self.verifications.get_or_create(&VerificationLabel { way, result }).inc();
    }

    pub(super) fn read_keys(&self, good: bool) {
        self.reads.get_or_create(&ReadLabel(if good { "good" } else { "failed" })).inc();
    }

    pub(super) fn refresh(&self, keys: usize, remembered: usize) {
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.remembered.set(i64::try_from(remembered).unwrap_or(i64::MAX));
    }

    #[cfg(test)]
    pub(super) fn count(&self, way: Way, result: &'static str) -> u64 {
        self.verifications.get_or_create(&VerificationLabel { way, result }).get()
    }
}

// === impl VerificationLabel ===

impl EncodeLabelSet for VerificationLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let way = match self.way {
            Way::Memory => "memory",
            Way::Keys => "keys",
            Way::Review => "review",
        };
        encode(encoder, "way", way)?;
        encode(encoder, "result", self.result)
    }
}

impl EncodeLabelSet for ReadLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        encode(encoder, "result", self.0)
    }
}

fn encode(
    encoder: &mut LabelSetEncoder<'_>,
    name: &'static str,
    value: &'static str,
) -> Result<(), fmt::Error> {
    use prometheus_client::encoding::EncodeLabel;
    (name, value).encode(encoder.encode_label())
}
