//! What is known when a decision is made. Approvals rest on what the watches told; before anything is
//! denied, what the denial rests on is read live. While a watch is broken, what it would have told is
//! read live too. What can't be read makes no decision.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    approver::{ApproverSettings, Decision, Fact, IdentityRequest, PolicySet, Question},
    metrics::{CacheLabel, Metrics},
};
use crate::{
    clock::Clock,
    k8s::{
        ApiError, CacheState, Inventory, NamespaceFacts, NodeFacts, ObjectName, PodFacts,
        PolicyFacts, ServiceAccountFacts,
    },
};

/// What is known.
pub struct World {
    inventory: Inventory,
    policies: RwLock<Arc<PolicySet>>,
    settings: ApproverSettings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// A decision, and whom it is about.
#[derive(Debug)]
pub struct Judgement<G> {
    /// What is decided.
    pub decision: Decision<G>,
    /// The pod, if there is one of that name.
    pub pod: Option<Arc<PodFacts>>,
}

/// What one decision is made from.
struct Ground {
    driver_pod: Option<Arc<PodFacts>>,
    driver_service_account: Option<Arc<ServiceAccountFacts>>,
    node: Option<Arc<NodeFacts>>,
    pod: Option<Arc<PodFacts>>,
    service_account: Option<Arc<ServiceAccountFacts>>,
    namespace: Option<Arc<NamespaceFacts>>,
    policies: Arc<PolicySet>,
    /// What was read for this decision.
    live: BTreeSet<Fact>,
}

const FACTS: [Fact; 7] = [
    Fact::DriverPod,
    Fact::DriverServiceAccount,
    Fact::Node,
    Fact::Pod,
    Fact::ServiceAccount,
    Fact::Namespace,
    Fact::Policies,
];

// === impl World ===

impl World {
    /// With nothing told yet.
    pub fn new(
        inventory: Inventory,
        settings: ApproverSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let policies = RwLock::default();
        Self { inventory, policies, settings, clock, metrics }
    }

    /// What the watches told.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// How the controller is set up.
    pub fn settings(&self) -> &ApproverSettings {
        &self.settings
    }

    /// The policies as they were last told.
    pub fn policies(&self) -> Arc<PolicySet> {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads policies whenever they change, until `stop`.
    pub async fn follow_policies(&self, stop: CancellationToken) {
        let mut state = self.inventory.policies.state();
        loop {
            state.borrow_and_update();
            let all = self.inventory.policies.all();
            let compiled = self.compile(all.iter().map(Arc::as_ref));
            *self.policies.write().unwrap_or_else(PoisonError::into_inner) = compiled;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    }

    fn compile<'a>(&self, all: impl Iterator<Item = &'a PolicyFacts>) -> Arc<PolicySet> {
        Arc::new(PolicySet::compile(all, Some(&self.policies())))
    }

    /// Why nothing can be decided yet.
    pub fn ready(&self) -> Result<(), String> {
        let missing: Vec<&str> = self
            .states()
            .into_iter()
            .filter(|(_, state)| !state.synced)
            .map(|(what, _)| what)
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => {
                let why = self.states().into_iter().find_map(|(_, state)| state.problem);
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                Err(format!("not listed yet: {}{why}", missing.join(", ")))
            }
        }
    }

    fn states(&self) -> [(&'static str, CacheState); 5] {
        let inventory = &self.inventory;
        [
            ("pods", inventory.pods.state().borrow().clone()),
            ("nodes", inventory.nodes.state().borrow().clone()),
            ("namespaces", inventory.namespaces.state().borrow().clone()),
            ("serviceaccounts", inventory.service_accounts.state().borrow().clone()),
            ("svidpolicies", inventory.policies.state().borrow().clone()),
        ]
    }

    /// Brings the gauges up to date.
    pub fn refresh_metrics(&self) {
        for (what, state) in self.states() {
            self.metrics.saw_cache(CacheLabel(what), &state);
        }
        let policies = self.policies();
        self.metrics.policies.set(policies.iter().count() as i64);
        let invalid = policies.iter().filter(|policy| policy.problem().is_some()).count();
        self.metrics.policies_invalid.set(invalid as i64);
    }

    /// Decides on a request by this rule. An error says what could not be read: then nothing is
    /// decided.
    pub async fn judge<W, G>(
        &self,
        request: &IdentityRequest<W>,
        decide: fn(&Question<'_, W>) -> Decision<G>,
    ) -> Result<Judgement<G>, ApiError> {
        let mut ground = self.cached(request);
        let broken: Vec<Fact> = FACTS.into_iter().filter(|fact| self.is_broken(*fact)).collect();
        self.read(&mut ground, request, &broken).await?;
        loop {
            let decision = self.ask(&ground, request, decide);
            let unread: Vec<Fact> = match &decision {
                Decision::Approve(_) => Vec::new(),
                Decision::Deny(denial) => {
                    let rests_on = denial.rests_on().iter().copied();
                    rests_on.filter(|fact| !ground.live.contains(fact)).collect()
                }
            };
            if unread.is_empty() {
                return Ok(Judgement { decision, pod: ground.pod });
            }
            self.read(&mut ground, request, &unread).await?;
        }
    }

    fn ask<W, G>(
        &self,
        ground: &Ground,
        request: &IdentityRequest<W>,
        decide: fn(&Question<'_, W>) -> Decision<G>,
    ) -> Decision<G> {
        let began = Instant::now();
        let decision = decide(&Question {
            request,
            driver_pod: ground.driver_pod.as_deref(),
            driver_service_account: ground.driver_service_account.as_deref(),
            node: ground.node.as_deref(),
            pod: ground.pod.as_deref(),
            service_account: ground.service_account.as_deref(),
            namespace: ground.namespace.as_deref(),
            policies: &ground.policies,
            settings: &self.settings,
            now: self.clock.now(),
        });
        self.metrics.decision_seconds.observe(began.elapsed().as_secs_f64());
        decision
    }

    fn cached<W>(&self, request: &IdentityRequest<W>) -> Ground {
        let inventory = &self.inventory;
        let pod = pod(request).and_then(|name| inventory.pods.get(name));
        let driver = &self.settings.driver_service_account;
        Ground {
            driver_pod: driver_pod(request).and_then(|name| inventory.pods.get(name)),
            driver_service_account: inventory.service_accounts.get(driver),
            node: node(request).and_then(|name| inventory.nodes.get(name)),
            service_account: pod
                .as_deref()
                .and_then(|pod| inventory.service_accounts.get(&account(pod))),
            namespace: namespace(request).and_then(|name| inventory.namespaces.get(&name)),
            policies: self.policies(),
            pod,
            live: BTreeSet::new(),
        }
    }

    /// Whether what the watch told of this may be old.
    fn is_broken(&self, fact: Fact) -> bool {
        let inventory = &self.inventory;
        let state = match fact {
            Fact::DriverPod | Fact::Pod => inventory.pods.state(),
            Fact::Node => inventory.nodes.state(),
            Fact::DriverServiceAccount | Fact::ServiceAccount => inventory.service_accounts.state(),
            Fact::Namespace => inventory.namespaces.state(),
            Fact::Policies => inventory.policies.state(),
        };
        let state = state.borrow();
        state.problem.is_some() || !state.synced
    }

    /// Reads these live.
    async fn read<W>(
        &self,
        ground: &mut Ground,
        request: &IdentityRequest<W>,
        facts: &[Fact],
    ) -> Result<(), ApiError> {
        let inventory = &self.inventory;
        // The ServiceAccount after the pod that says which.
        for fact in FACTS.into_iter().filter(|fact| facts.contains(fact)) {
            self.metrics.live_reads.inc();
            match fact {
                Fact::DriverPod => {
                    ground.driver_pod = match driver_pod(request) {
                        Some(name) => inventory.read_pod(name).await?.map(Arc::new),
                        None => None,
                    };
                }
                Fact::DriverServiceAccount => {
                    let name = &self.settings.driver_service_account;
                    ground.driver_service_account =
                        inventory.read_service_account(name).await?.map(Arc::new);
                }
                Fact::Node => {
                    ground.node = match node(request) {
                        Some(name) => inventory.read_node(name).await?.map(Arc::new),
                        None => None,
                    };
                }
                Fact::Pod => {
                    ground.pod = match pod(request) {
                        Some(name) => inventory.read_pod(name).await?.map(Arc::new),
                        None => None,
                    };
                    let name = ground.pod.as_deref().map(account);
                    ground.service_account =
                        name.and_then(|name| inventory.service_accounts.get(&name));
                }
                Fact::ServiceAccount => {
                    ground.service_account = match ground.pod.as_deref().map(account) {
                        Some(name) => inventory.read_service_account(&name).await?.map(Arc::new),
                        None => None,
                    };
                }
                Fact::Namespace => {
                    ground.namespace = match namespace(request) {
                        Some(name) => inventory.read_namespace(&name).await?.map(Arc::new),
                        None => None,
                    };
                }
                Fact::Policies => {
                    let all = inventory.read_policies().await?;
                    ground.policies = self.compile(all.iter());
                }
            }
            ground.live.insert(fact);
        }
        Ok(())
    }
}

fn account(pod: &PodFacts) -> ObjectName {
    ObjectName::new(&pod.namespace, pod.service_account())
}

fn driver_pod<W>(request: &IdentityRequest<W>) -> Option<&ObjectName> {
    Some(&request.requester.as_ref().ok()?.driver_pod.as_ref()?.name)
}

fn node<W>(request: &IdentityRequest<W>) -> Option<&ObjectName> {
    Some(&request.requester.as_ref().ok()?.node)
}

fn pod<W>(request: &IdentityRequest<W>) -> Option<&ObjectName> {
    Some(&request.pod.as_ref().ok()?.name)
}

fn namespace<W>(request: &IdentityRequest<W>) -> Option<ObjectName> {
    pod(request).map(|pod| ObjectName::cluster_wide(pod.namespace.clone()))
}
