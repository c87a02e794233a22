//! What each policy's status says: which pods it applies to and what is wrong with it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{approver::PolicySet, ca::Moment, metrics::Metrics, world::World};
use crate::{
    clock::Clock,
    k8s::{
        Cache, MatchedPods, NamespaceFacts, ObjectName, PodFacts, PolicyCondition, PolicyFacts,
        SvidPolicyStatus,
    },
};

/// Pods come and go; a status that is this old is good enough.
const PAUSE: Duration = Duration::from_secs(10);
/// How many pods are named.
const EXAMPLES: usize = 10;
const READY: &str = "Ready";

/// Keeps the statuses of all policies, while this replica leads, until `stop`.
pub async fn keep(
    world: Arc<World>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    leads: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(PAUSE) => {}
        }
        if !*leads.borrow() || world.ready().is_err() {
            continue;
        }
        let inventory = world.inventory();
        let changes = changes(
            &world.policies(),
            &inventory.policies.all(),
            &inventory.pods.all(),
            &inventory.namespaces,
            |pod| world.settings().concerns(pod),
            clock.now(),
        );
        for (name, status) in changes {
            if let Err(error) = inventory.write_policy_status(&name, &status).await {
                metrics.api_failed(&error);
                warn!(policy = name, %error, "its status stays as it was");
            }
        }
    }
}

/// The statuses that are to be written, of those policies whose status says something else now.
pub(super) fn changes(
    policies: &PolicySet,
    known: &[Arc<PolicyFacts>],
    pods: &[Arc<PodFacts>],
    namespaces: &Cache<NamespaceFacts>,
    concerns: impl Fn(&PodFacts) -> bool,
    now: SystemTime,
) -> Vec<(String, SvidPolicyStatus)> {
    let matched = matched(policies, pods, namespaces, concerns);
    let mut changes = Vec::new();
    for facts in known {
        let mut read = policies.iter();
        // What was read of another version would be said of this one.
        let Some(policy) = read
            .find(|policy| policy.name() == facts.name && policy.generation() == facts.generation)
        else {
            continue;
        };
        let (status, reason, message) = match policy.problem() {
            None => ("True", "Valid", String::new()),
            Some(problem) => ("False", problem.reason(), problem.to_string()),
        };
        let before = facts.status.conditions.iter().find(|condition| condition.kind == READY);
        let since = match before {
            Some(before) if before.status == status && !before.last_transition_time.is_empty() => {
                before.last_transition_time.clone()
            }
            _ => Moment::of(now).to_string(),
        };
        let condition = PolicyCondition {
            kind: READY.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since,
            observed_generation: Some(facts.generation),
        };
        let status = SvidPolicyStatus {
            observed_generation: Some(facts.generation),
            matched: Some(matched.get(policy.name()).cloned().unwrap_or_default()),
            conditions: vec![condition],
        };
        if status != facts.status {
            changes.push((facts.name.clone(), status));
        }
    }
    changes
}

/// The pods that each policy applies to.
fn matched<'a>(
    policies: &'a PolicySet,
    pods: &[Arc<PodFacts>],
    namespaces: &Cache<NamespaceFacts>,
    concerns: impl Fn(&PodFacts) -> bool,
) -> HashMap<&'a str, MatchedPods> {
    let mut matched: HashMap<&str, MatchedPods> = HashMap::new();
    let mut pods: Vec<_> = pods.iter().filter(|pod| concerns(pod) && !pod.is_finished()).collect();
    // The same examples each time.
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for pod in pods {
        let namespace = namespaces.get(&ObjectName::cluster_wide(&pod.namespace));
        let Some(namespace) = namespace else { continue };
        if let Some(policy) = policies.applying(pod, &namespace) {
            let entry = matched.entry(policy.name()).or_default();
            entry.count += 1;
            if entry.examples.len() < EXAMPLES {
                entry.examples.push(pod.object_name().to_string());
            }
        }
    }
    matched
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{CSIVolumeSource, PodSpec, Volume};

    use super::*;
    use crate::k8s::SvidPolicySpec;

    const DRIVER: &str = "csi.svid.dev";

    fn pod(namespace: &str, name: &str, driver: &str) -> Arc<PodFacts> {
        let csi = CSIVolumeSource { driver: driver.to_owned(), ..CSIVolumeSource::default() };
        let volume = Volume { csi: Some(csi), ..Volume::default() };
        let spec = PodSpec { volumes: Some(vec![volume]), ..PodSpec::default() };
        Arc::new(PodFacts {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            spec: spec.into(),
            ..PodFacts::default()
        })
    }

    fn policy(name: &str, change: impl FnOnce(&mut SvidPolicySpec)) -> PolicyFacts {
        let mut spec = SvidPolicySpec::default();
        change(&mut spec);
        PolicyFacts {
            name: name.to_owned(),
            uid: name.to_owned(),
            generation: 1,
            spec,
            status: SvidPolicyStatus::default(),
        }
    }

    fn namespaces() -> Cache<NamespaceFacts> {
        let cache = Cache::default();
        let name = "shop".to_owned();
        let facts = NamespaceFacts { name, ..NamespaceFacts::default() };
        cache.set(ObjectName::cluster_wide("shop"), facts);
        cache
    }

    fn told(
        policies: &[PolicyFacts],
        pods: &[Arc<PodFacts>],
        now: u64,
    ) -> Vec<(String, SvidPolicyStatus)> {
        let set = PolicySet::compile(policies, None);
        let known: Vec<_> = policies.iter().cloned().map(Arc::new).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        changes(&set, &known, pods, &namespaces(), |pod| pod.uses_driver(DRIVER), now)
    }

    #[test]
    fn each_pod_counts_where_its_policy_applies() {
        let high = policy("high", |spec| {
            spec.priority = 10;
            spec.selector.service_accounts = vec!["shop/default".to_owned()];
        });
        let mut pods: Vec<_> =
            (0..12).map(|n| pod("shop", &format!("cart-{n:02}"), DRIVER)).collect();
        pods.push(pod("shop", "other", "another.driver"));
        pods.push(pod("gone", "x", DRIVER));
        let told = told(&[policy("default", |_| {}), high], &pods, 0);
        let counts: Vec<_> = told
            .iter()
            .map(|(name, status)| (name.as_str(), status.matched.clone().unwrap()))
            .map(|(name, matched)| (name, matched.count, matched.examples.len()))
            .collect();
        assert_eq!(counts, [("default", 0, 0), ("high", 12, 10)]);
        let examples = told[1].1.matched.clone().unwrap().examples;
        assert_eq!(examples[0], "shop/cart-00");
    }

    #[test]
    fn a_broken_policy_says_what_is_wrong_and_since_when() {
        let mut broken = policy("broken", |spec| spec.id = "/{nonsense}".to_owned());
        let (_, status) = told(std::slice::from_ref(&broken), &[], 60).remove(0);
        let condition = &status.conditions[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "InvalidID"));
        assert!(condition.message.contains("nonsense"), "{}", condition.message);
        assert_eq!(condition.last_transition_time, "1970-01-01T00:01:00Z");
        // Nothing new: nothing to write, whatever the time.
        broken.status = status;
        assert!(told(std::slice::from_ref(&broken), &[], 120).is_empty());
        // Another reason doesn't change since when it has been broken.
        broken.generation = 2;
        broken.uid = "again".to_owned();
        broken.spec.id = "/svid.dev/x".to_owned();
        let (_, status) = told(&[broken], &[], 180).remove(0);
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!(status.conditions[0].last_transition_time, "1970-01-01T00:01:00Z");
    }
}
