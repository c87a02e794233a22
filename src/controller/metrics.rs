//! What the controller counts. Every name begins with `svid_csi_controller_`.

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::{audit::Outcome, ca::KeyringStatus};
use crate::{
    class::Class,
    k8s::{ApiError, CacheState},
};

/// Every metric of the controller, and the registry they are shown from.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Decisions that the API server has taken, by outcome and reason.
    pub decisions: Family<DecisionLabel, Counter>,
    /// How long a decision takes, without what is read live.
    pub decision_seconds: Histogram,
    /// From a request's creation to its certificate, by the clocks of API server and controller.
    pub issuance_seconds: Histogram,
    /// Decisions for which something had to be read from the API server first.
    pub live_reads: Counter,
    /// Requests without a decision, or approved and without a certificate.
    pub waiting: Family<CacheLabel, Gauge<i64, AtomicI64>>,
    /// How long the oldest of them has waited.
    pub oldest_waiting: Family<CacheLabel, Gauge<f64, AtomicU64>>,
    /// Calls to the API server that failed, by class.
    pub api_errors: Family<ClassLabel, Counter>,
    /// Audit lines that could not be written.
    pub audit_failures: Counter,
    /// What signing PodCertificateRequests needs, and whether it is there: 1 or 0.
    pub pod_certificates: Family<ConditionLabel, Gauge<i64, AtomicI64>>,
    /// Whether this replica leads: 1 or 0.
    pub leader: Gauge<i64, AtomicI64>,
    /// Whether a kind of object has been listed: 1 or 0.
    pub cache_synced: Family<CacheLabel, Gauge<i64, AtomicI64>>,
    /// Whether its watch fails now: 1 or 0.
    pub cache_failing: Family<CacheLabel, Gauge<i64, AtomicI64>>,
    /// SvidPolicies.
    pub policies: Gauge<i64, AtomicI64>,
    /// Those of them that deny what they select.
    pub policies_invalid: Gauge<i64, AtomicI64>,
    /// Whether this replica could sign now: 1 or 0.
    pub ca_ready: Gauge<i64, AtomicI64>,
    /// When the signing CA ends, Unix seconds; 0 where that isn't known.
    pub ca_expiry: Gauge<i64, AtomicI64>,
    /// How long a step of the CA's life is overdue.
    pub ca_step_overdue: Gauge<f64, AtomicU64>,
    /// How many CA keys are believed stolen.
    pub ca_tainted: Gauge<i64, AtomicI64>,
    /// Whether this replica could sign a JWT-SVID now: 1 or 0.
    pub jwt_ready: Gauge<i64, AtomicI64>,
    /// When the signing JWT key ends, Unix seconds; 0 where that isn't known.
    pub jwt_key_expiry: Gauge<i64, AtomicI64>,
    /// How long a step of the JWT keys' life is overdue.
    pub jwt_step_overdue: Gauge<f64, AtomicU64>,
    /// How many JWT keys there are, by state.
    pub jwt_keys: Family<StateLabel, Gauge<i64, AtomicI64>>,
    /// How many JWT keys are believed stolen.
    pub jwt_tainted: Gauge<i64, AtomicI64>,
    /// Whether something about the CA needs a person: 1 or 0.
    pub ca_problem: Gauge<i64, AtomicI64>,
}

/// The labels `decision` and `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DecisionLabel {
    /// What was decided.
    pub decision: Outcome,
    /// Why, as a code: one of a fixed set.
    pub reason: &'static str,
}

/// The label `class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassLabel(pub Class);

/// The label `state`: where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateLabel(pub &'static str);

/// The label `condition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConditionLabel(pub &'static str);

/// The label `resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheLabel(pub &'static str);

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("svid_csi_controller"),
            decisions: Family::default(),
            decision_seconds: Histogram::new([
                0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05,
            ]),
            issuance_seconds: Histogram::new([
                0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 300.0,
            ]),
            live_reads: Counter::default(),
            waiting: Family::default(),
            oldest_waiting: Family::default(),
            api_errors: Family::default(),
            audit_failures: Counter::default(),
            pod_certificates: Family::default(),
            leader: Gauge::default(),
            cache_synced: Family::default(),
            cache_failing: Family::default(),
            policies: Gauge::default(),
            policies_invalid: Gauge::default(),
            ca_ready: Gauge::default(),
            ca_expiry: Gauge::default(),
            ca_step_overdue: Gauge::default(),
            ca_tainted: Gauge::default(),
            jwt_ready: Gauge::default(),
            jwt_key_expiry: Gauge::default(),
            jwt_step_overdue: Gauge::default(),
            jwt_keys: Family::default(),
            jwt_tainted: Gauge::default(),
            ca_problem: Gauge::default(),
        };
        metrics.register_requests();
        metrics.register_ground();
        metrics.register_jwt_keys();
        metrics
    }
}

impl Metrics {
    /// With others in the same registry.
    pub fn with(register: impl FnOnce(&mut Registry)) -> Self {
        let mut metrics = Self::default();
        register(&mut metrics.registry);
        metrics
    }

    fn register_requests(&mut self) {
        let r = &mut self.registry;
        r.register("decisions", "Decisions on requests", self.decisions.clone());
        r.register_with_unit(
            "decision_duration",
            "Duration of a decision, without what is read live",
            Unit::Seconds,
            self.decision_seconds.clone(),
        );
        r.register_with_unit(
            "issuance_duration",
            "From a request's creation to its certificate",
            Unit::Seconds,
            self.issuance_seconds.clone(),
        );
        let reads = self.live_reads.clone();
        r.register("live_reads", "Objects read live before a denial", reads);
        let waiting = self.waiting.clone();
        r.register("requests_waiting", "Requests without decision or certificate", waiting);
        r.register_with_unit(
            "oldest_request_waiting",
            "How long the oldest of them has waited (0 without any)",
            Unit::Seconds,
            self.oldest_waiting.clone(),
        );
        let failures = self.audit_failures.clone();
        r.register("audit_failures", "Audit lines that could not be written", failures);
    }

    fn register_ground(&mut self) {
        let r = &mut self.registry;
        r.register("api_errors", "Calls to the API server that failed", self.api_errors.clone());
        r.register(
            "pod_certificates",
            "Whether PodCertificateRequests are served and their fence stands: 1 or 0",
            self.pod_certificates.clone(),
        );
        r.register("leader", "Whether this replica leads: 1 or 0", self.leader.clone());
        let synced = self.cache_synced.clone();
        r.register("cache_synced", "Whether these objects have been listed: 1 or 0", synced);
        let failing = self.cache_failing.clone();
        r.register(
            "cache_failing",
            "Whether the watch of these objects fails now: 1 or 0",
            failing,
        );
        r.register("policies", "SvidPolicies", self.policies.clone());
        let invalid = self.policies_invalid.clone();
        r.register("policies_invalid", "SvidPolicies that deny what they select", invalid);
        r.register(
            "ca_ready",
            "Whether this replica could sign now: 1 or 0",
            self.ca_ready.clone(),
        );
        r.register_with_unit(
            "ca_expiry_timestamp",
            "When the signing CA ends, in Unix time (0 without one)",
            Unit::Seconds,
            self.ca_expiry.clone(),
        );
        r.register_with_unit(
            "ca_step_overdue",
            "How long a step of the CA's life is overdue (0 if none is)",
            Unit::Seconds,
            self.ca_step_overdue.clone(),
        );
        let tainted = self.ca_tainted.clone();
        r.register("ca_tainted_keys", "CA keys that are believed stolen", tainted);
        let problem = self.ca_problem.clone();
        r.register("ca_problem", "Whether something about the CA needs a person: 1 or 0", problem);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The running build", version);
    }

    fn register_jwt_keys(&mut self) {
        let r = &mut self.registry;
        let ready = self.jwt_ready.clone();
        r.register("jwt_ready", "Whether this replica could sign a JWT-SVID now: 1 or 0", ready);
        r.register_with_unit(
            "jwt_key_expiry_timestamp",
            "When the signing JWT key ends, in Unix time (0 without one)",
            Unit::Seconds,
            self.jwt_key_expiry.clone(),
        );
        r.register_with_unit(
            "jwt_step_overdue",
            "How long a step of the JWT keys' life is overdue (0 if none is)",
            Unit::Seconds,
            self.jwt_step_overdue.clone(),
        );
        r.register("jwt_keys", "JWT keys, by state", self.jwt_keys.clone());
        let tainted = self.jwt_tainted.clone();
        r.register("jwt_tainted_keys", "JWT keys that are believed stolen", tainted);
    }

    /// Counts a decision.
    pub fn decided(&self, decision: Outcome, reason: &'static str) {
        self.decisions.get_or_create(&DecisionLabel { decision, reason }).inc();
    }

    /// Shows how a cache is doing.
    pub fn saw_cache(&self, cache: CacheLabel, state: &CacheState) {
        self.cache_synced.get_or_create(&cache).set(state.synced.into());
        self.cache_failing.get_or_create(&cache).set(state.problem.is_some().into());
    }

    /// Shows how many requests of a kind wait, and how long the oldest has.
    pub fn saw_waiting(&self, kind: CacheLabel, count: i64, oldest: Duration) {
        self.waiting.get_or_create(&kind).set(count);
        self.oldest_waiting.get_or_create(&kind).set(oldest.as_secs_f64());
    }

    /// Shows how the CA is doing.
    pub fn saw_keyring(&self, status: &KeyringStatus) {
        self.ca_ready.set(status.ready.is_ok().into());
        self.ca_expiry.set(unix(status.active_not_after));
        self.ca_step_overdue.set(status.overdue.as_secs_f64());
        self.ca_problem.set(status.problem.is_some().into());
        self.ca_tainted.set(status.tainted as i64);
        let jwt = &status.jwt;
        self.jwt_ready.set(jwt.ready.is_ok().into());
        self.jwt_key_expiry.set(unix(jwt.active_not_after));
        self.jwt_step_overdue.set(jwt.overdue.as_secs_f64());
        self.jwt_tainted.set(jwt.tainted as i64);
        for state in ["prepared", "active", "retired", "foreign"] {
            let count = jwt.keys.get(state).copied().unwrap_or_default();
            self.jwt_keys.get_or_create(&StateLabel(state)).set(count as i64);
        }
    }

    /// Counts a failed call.
    pub fn api_failed(&self, error: &ApiError) {
        self.api_errors.get_or_create(&ClassLabel(error.class())).inc();
    }

    /// Shows all of it in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut buffer = String::new();
        text::encode(&mut buffer, &self.registry)?;
        Ok(buffer)
    }
}

/// Unix seconds; 0 where it isn't known.
fn unix(time: Option<SystemTime>) -> i64 {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

// === impl DecisionLabel ===

impl EncodeLabelSet for DecisionLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        ("decision", self.decision.label()).encode(encoder.encode_label())?;
        ("reason", self.reason).encode(encoder.encode_label())
    }
}

// === impl ClassLabel ===

impl EncodeLabelSet for ClassLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        ("class", self.0.label()).encode(encoder.encode_label())
    }
}

// === impl StateLabel ===

impl EncodeLabelSet for StateLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        ("state", self.0).encode(encoder.encode_label())
    }
}

// === impl ConditionLabel ===

impl EncodeLabelSet for ConditionLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        ("condition", self.0).encode(encoder.encode_label())
    }
}

// === impl CacheLabel ===

impl EncodeLabelSet for CacheLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        ("resource", self.0).encode(encoder.encode_label())
    }
}
