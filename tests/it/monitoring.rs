//! What the chart's alerts and dashboard ask for is what the node plugin and the controller show.

use std::{collections::BTreeSet, time::Duration};

use svid_csi::{
    class::Class,
    controller::{
        audit,
        metrics::{CacheLabel, ClassLabel, Metrics as ControllerMetrics},
        tokens,
    },
    issuer,
    node::{
        Limit, LimitLabel,
        metrics::{Metrics, Outcome, StateLabel, VolumeState},
    },
    workload,
};

const ALERTS: &str = include_str!("../../deploy/charts/svid-csi/monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/charts/svid-csi/monitoring/dashboard.json");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// Every family of the node plugin and the names of its samples.
fn samples() -> Vec<(String, Vec<String>)> {
    let mut metrics = Metrics::default();
    workload::Metrics::new(metrics.registry());
    // A family without a member is not shown.
    let ok = Outcome::of(&Ok(()), |(): &()| Class::Internal);
    for family in
        [&metrics.publishes, &metrics.unpublishes, &metrics.renewals, &metrics.bundle_rewrites]
    {
        family.get_or_create(&ok).inc();
    }
    metrics.volumes.get_or_create(&StateLabel { state: VolumeState::Live }).set(1);
    metrics.workload.refused.get_or_create(&LimitLabel { limit: Limit::Calls }).inc();
    metrics.workload.jwt_signed.get_or_create(&ok).inc();
    families(&metrics.encode().unwrap())
}

/// The same of the controller.
fn controller_samples() -> Vec<(String, Vec<String>)> {
    let (issuer, tokens) = (issuer::Metrics::default(), tokens::Metrics::default());
    let controller = ControllerMetrics::with(|registry| {
        issuer.register(registry);
        tokens.register(registry);
    });
    controller.decided(audit::Outcome::Sign, "SvidPolicy");
    controller.api_errors.get_or_create(&ClassLabel(Class::Internal)).inc();
    for family in [&controller.cache_synced, &controller.cache_failing] {
        family.get_or_create(&CacheLabel("pods")).set(1);
    }
    controller.saw_waiting(CacheLabel("pods"), 1, Duration::ZERO);
    families(&controller.encode().unwrap())
}

fn families(exposition: &str) -> Vec<(String, Vec<String>)> {
    let families = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    families
        .map(|family| {
            let (name, kind) = family.split_once(' ').unwrap();
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                "info" => &["_info"],
                _ => &[""],
            };
            (name.to_owned(), suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect())
        })
        .collect()
}

/// Every word of a text that is a metric of ours.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("svid_csi_"))
        .collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let families = samples().into_iter().chain(controller_samples());
    let known: BTreeSet<String> = families.flat_map(|(_, names)| names).collect();
    for (file, text) in [("alerts.yaml", ALERTS), ("dashboard.json", DASHBOARD)] {
        let named = named(text);
        assert!(named.len() > 5, "{file} names {} metrics", named.len());
        for name in named {
            assert!(known.contains(name), "{file}: there is no metric {name}");
        }
    }
}

#[test]
fn operations_documents_every_metric() {
    let documented = named(OPERATIONS);
    for (family, names) in samples().into_iter().chain(controller_samples()) {
        let found = std::iter::once(&family).chain(&names).any(|n| documented.contains(n.as_str()));
        assert!(found, "docs/operations.md does not say what {family} is");
    }
}
