//! What would be decided for a pod, and by which policy and rule: for people who write policies.
//!
//! It asks as a node asks, and is answered by the same [`decide`].

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::PodSpec;

use super::{
    ApproverSettings, Decision, Denial, IdentityRequest, JwtGrant, JwtWish, NamedPod, PolicySet,
    Question, ReasonCode, Requester, Uses, Verdict, Wish, decide, decide_jwt, grant, whom::Subject,
};
use crate::{
    id::{IdTemplate, SpiffeId, TemplateInput, TrustDomain},
    k8s::{NamespaceFacts, NodeFacts, ObjectName, PodFacts, ServiceAccountFacts},
    pki::{CsrError, DnsName, KeyAlgorithm, PrivateKey, PublicKey},
    volume::AudienceSet,
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
    /// For whom a JWT-SVID is asked for, if one is.
    pub audience: Option<&'a AudienceSet>,
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
    /// What is decided on a JWT-SVID of the same identity; nothing if none is asked for or there is
    /// no such identity.
    pub jwt: Option<Decision<JwtGrant>>,
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
            return Explanation {
                applies,
                rules: Vec::new(),
                asked_twice: false,
                decision,
                jwt: None,
            };
        }
    };
    let mut decision = with_question(case, &first, decide);
    let mut wish = first;
    let mut asked_twice = false;
    if let Decision::Deny(denial) = &decision
        && let Some(identity) = &denial.identity_is
        && let Ok(again) = make(case, identity.id.clone(), identity.key_algorithm)
    {
        asked_twice = true;
        decision = with_question(case, &again, decide);
        wish = again;
    }
    let rules = subject.map_or_else(Vec::new, |subject| {
        with_question(case, &wish, |question| grant::rules(question, &subject, &wish))
    });
    let jwt = jwt(case, &decision);
    Explanation { applies, rules, asked_twice, decision, jwt }
}

/// What a node asks for that has the pod's X.509-SVID.
fn jwt(case: &Case<'_>, decision: &Decision) -> Option<Decision<JwtGrant>> {
    let (Decision::Approve(grant), Some(audience)) = (decision, case.audience) else { return None };
    let wish = JwtWish { audience: audience.clone(), id: grant.id.clone(), ttl: None };
    Some(with_question(case, &wish, decide_jwt))
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
    let public_key = PrivateKey::generate(key)
        .map_err(CsrError::from)
        .and_then(|key| PublicKey::from_spki_der(key.spki_der()).ok_or(CsrError::Malformed))
        .map_err(|error| Denial::new(ReasonCode::MalformedCsr, error.to_string()))?;
    Ok(Wish {
        explicit_key: case.key_algorithm.is_some(),
        id: Some(id),
        ttl: case.ttl,
        dns_names: case.dns_names.to_vec(),
        ..Wish::of_key(public_key)?
    })
}

/// The request that the driver on the pod's node would make.
fn with_question<W: Clone, T>(
    case: &Case<'_>,
    wish: &W,
    answer: impl FnOnce(&Question<'_, W>) -> T,
) -> T {
    let account = &case.settings.driver_service_account;
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
    let named = |pod: &PodFacts| NamedPod {
        name: pod.object_name(),
        uid: pod.uid.clone(),
        service_account_name: None,
        service_account_uid: None,
    };
    let request = IdentityRequest {
        requester: Ok(Requester {
            node: ObjectName::cluster_wide(&case.node.name),
            node_uid: case.node.uid.clone(),
            driver_pod: Some(named(&driver_pod)),
        }),
        pod: Ok(named(case.pod)),
        uses: Uses::Volume,
        wish: Ok(wish.clone()),
    };
    answer(&Question {
        request: &request,
        driver_pod: Some(&driver_pod),
        driver_service_account: None,
        node: Some(case.node),
        pod: Some(case.pod),
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
        Self { trust_domain, driver_name, driver_service_account, pod_certificate_signer: None }
    }
}
