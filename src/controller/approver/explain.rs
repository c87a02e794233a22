//! What would be decided for a pod, and by which policy and rule: for people who write policies.
//!
//! It asks as a node asks, and is answered by the same [`decide`].

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::PodSpec;

use super::{
    ApproverSettings, Decision, Denial, PolicySet, Question, ReasonCode, Verdict, decide, grant,
    what::Wish, whom::Subject,
};
use crate::{
    id::{IdTemplate, SpiffeId, TemplateInput, TrustDomain},
    k8s::{
        NamespaceFacts, NodeFacts, ObjectName, PodFacts, RequestFacts, ServiceAccountFacts,
        names::{self, annotation, extra},
    },
    pki::{Csr, CsrError, DnsName, KeyAlgorithm, PrivateKey},
    volume::duration,
};

/// A pod, what stands around it, and what it asks for.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The pod. It is taken to be bound to `node`.
    pub pod: &'a PodFacts,
    /// Its ServiceAccount, if there is one.
    pub service_account: Option<&'a ServiceAccountFacts>,
    /// Its namespace.
    pub namespace: &'a NamespaceFacts,
    /// Its node.
    pub node: &'a NodeFacts,
    /// The policies.
    pub policies: &'a PolicySet,
    /// How the controller is set up.
    pub settings: &'a ApproverSettings,
    /// The lifetime that the volume asks for.
    pub ttl: Option<Duration>,
    /// The key algorithm that the volume asks for.
    pub key_algorithm: Option<KeyAlgorithm>,
    /// The DNS names that the volume asks for.
    pub dns_names: &'a [DnsName],
    /// The time.
    pub now: SystemTime,
}

/// What would be decided, and how it came about.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The policy that applies.
    pub applies: Option<String>,
    /// What each of its rules says; empty if it never came to that.
    pub rules: Vec<RuleVerdict>,
    /// Whether the node had to ask a second time, as policy gives another ID or key algorithm than
    /// it supposed.
    pub asked_twice: bool,
    /// What is decided.
    pub decision: Decision,
}

/// What one rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleVerdict {
    /// Its name.
    pub name: String,
    /// What it says.
    pub verdict: Verdict,
    /// What its author wants people to know if it is not met.
    pub message: String,
}

const DRIVER_POD: &str = "driver";

/// Asks, and once more if the answer is that the pod may have something else.
pub fn explain(case: &Case<'_>) -> Explanation {
    let applies = case.policies.applying(case.pod, case.namespace);
    let subject = case.service_account.map(|service_account| Subject {
        pod: case.pod,
        service_account,
        namespace: case.namespace,
        node: case.node,
    });
    let applies = applies.map(|policy| policy.name().to_owned());
    let first = match first_wish(case) {
        Ok(wish) => wish,
        Err(denial) => {
            let decision = Decision::Deny(denial);
            return Explanation { applies, rules: Vec::new(), asked_twice: false, decision };
        }
    };
    let mut decision = ask(case, &first.csr);
    let mut wish = first;
    let mut asked_twice = false;
    if let Decision::Deny(denial) = &decision
        && let Some(identity) = &denial.identity_is
        && let Ok(again) = make(case, identity.id.clone(), identity.key_algorithm)
    {
        asked_twice = true;
        decision = ask(case, &again.csr);
        wish = again;
    }
    let rules = subject.map_or_else(Vec::new, |subject| {
        with_question(case, &wish.csr, |question| grant::rules(question, &subject, &wish))
    });
    Explanation { applies, rules, asked_twice, decision }
}

/// What a node asks for that knows no policy.
fn first_wish(case: &Case<'_>) -> Result<Wish, Denial> {
    let input = TemplateInput {
        namespace: &case.pod.namespace,
        service_account: case.pod.service_account(),
        pod_name: &case.pod.name,
        namespace_labels: &case.namespace.labels,
    };
    let id = IdTemplate::default()
        .render(&case.settings.trust_domain, &input)
        .map_err(|error| Denial::new(ReasonCode::NoIdentity, error.to_string()))?;
    make(case, id, case.key_algorithm.unwrap_or_default())
}

fn make(case: &Case<'_>, id: SpiffeId, key: KeyAlgorithm) -> Result<Wish, Denial> {
    let csr = PrivateKey::generate(key)
        .map_err(CsrError::from)
        .and_then(|key| Csr::create(&key, &id))
        .map_err(|error| Denial::new(ReasonCode::MalformedCsr, error.to_string()))?;
    Ok(Wish {
        csr,
        key,
        ttl: case.ttl,
        explicit_key: case.key_algorithm.is_some(),
        dns_names: case.dns_names.to_vec(),
    })
}

fn ask(case: &Case<'_>, csr: &Csr) -> Decision {
    with_question(case, csr, decide)
}

/// The request that the driver on the pod's node would make.
fn with_question<T>(case: &Case<'_>, csr: &Csr, answer: impl FnOnce(&Question<'_>) -> T) -> T {
    let account = &case.settings.driver_service_account;
    let pod = case.pod;
    let driver_spec = PodSpec {
        node_name: Some(case.node.name.clone()),
        service_account_name: Some(account.name.clone()),
        ..PodSpec::default()
    };
    let driver_pod = PodFacts {
        namespace: account.namespace.clone(),
        name: DRIVER_POD.to_owned(),
        uid: DRIVER_POD.to_owned(),
        spec: driver_spec.into(),
        ..PodFacts::default()
    };
    let mut annotations = vec![
        (annotation::POD_NAMESPACE, pod.namespace.clone()),
        (annotation::POD_NAME, pod.name.clone()),
        (annotation::POD_UID, pod.uid.clone()),
    ];
    annotations.extend(case.ttl.map(|ttl| (annotation::TTL, duration::format(ttl))));
    let key = case.key_algorithm.map(|key| (annotation::KEY_ALGORITHM, key.to_string()));
    annotations.extend(key);
    if !case.dns_names.is_empty() {
        let names: Vec<_> = case.dns_names.iter().map(DnsName::as_str).collect();
        annotations.push((annotation::DNS_NAMES, names.join(",")));
    }
    let ttl = case.ttl.map_or(names::MIN_EXPIRATION_SECONDS, |ttl| ttl.as_secs());
    let bound = [
        (extra::NODE_NAME, &case.node.name),
        (extra::NODE_UID, &case.node.uid),
        (extra::POD_NAME, &driver_pod.name),
        (extra::POD_UID, &driver_pod.uid),
    ];
    let request = RequestFacts {
        username: format!("system:serviceaccount:{}:{}", account.namespace, account.name),
        extra: bound.map(|(key, value)| (key.to_owned(), vec![value.clone()])).into(),
        signer_name: names::SIGNER.to_owned(),
        request: csr.to_pem().into_bytes(),
        usages: names::USAGES.map(str::to_owned).into(),
        expiration_seconds: i32::try_from(ttl.max(names::MIN_EXPIRATION_SECONDS)).ok(),
        labels: [(names::NODE_UID_LABEL.to_owned(), case.node.uid.clone())].into(),
        annotations: annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        ..RequestFacts::default()
    };
    answer(&Question {
        request: &request,
        driver_pod: Some(&driver_pod),
        driver_node: Some(case.node),
        pod: Some(pod),
        service_account: case.service_account,
        namespace: Some(case.namespace),
        policies: case.policies,
        settings: case.settings,
        now: case.now,
    })
}

// === impl ApproverSettings ===

impl ApproverSettings {
    /// For trying policies out, where no driver is at hand.
    pub fn for_trial(trust_domain: TrustDomain, driver_name: String) -> Self {
        let driver_service_account = ObjectName::new("driver", "driver");
        Self { trust_domain, driver_name, driver_service_account }
    }
}
