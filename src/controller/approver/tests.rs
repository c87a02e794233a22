//! The decision: each reason alone, and what must never be approved.

mod certificate;
mod hostile;
mod jwt;
mod pod_certificates;
mod reasons;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{CSIVolumeSource, PodSpec, Volume};

use super::*;
use crate::{
    controller::requests::read,
    k8s::{
        ConditionFacts, PolicyFacts, PolicyRule, RequestFacts, SvidPolicySpec, TaintFacts,
        names::{NODE_UID_LABEL, SIGNER, USAGES, annotation, extra},
    },
    pki::{Csr, KeyAlgorithm, PrivateKey},
};

/// Everything in order: a driver on node `a` asks for the pod `shop/web-0` there.
pub(super) struct World {
    pub(super) request: RequestFacts,
    pub(super) driver_pod: Option<PodFacts>,
    pub(super) driver_service_account: Option<ServiceAccountFacts>,
    pub(super) driver_node: Option<NodeFacts>,
    pub(super) pod: Option<PodFacts>,
    pub(super) service_account: Option<ServiceAccountFacts>,
    pub(super) namespace: Option<NamespaceFacts>,
    pub(super) policies: Vec<PolicyFacts>,
    pub(super) now: SystemTime,
    /// What ways say that carry tokens, which a CSR does not.
    pub(super) tokens: Vec<fn(&mut IdentityRequest)>,
}

const ID: &str = "spiffe://example.org/ns/shop/sa/web";

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

pub(super) fn csr(id: &str, algorithm: KeyAlgorithm) -> Vec<u8> {
    let key = PrivateKey::generate(algorithm).unwrap();
    Csr::create(&key, &id.parse().unwrap()).unwrap().to_pem().into_bytes()
}

fn pod(namespace: &str, name: &str, node: &str, account: &str) -> PodFacts {
    let csi = CSIVolumeSource { driver: "csi.svid.dev".to_owned(), ..Default::default() };
    let volume = Volume { name: "svid".to_owned(), csi: Some(csi), ..Default::default() };
    PodFacts {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("{name}-uid"),
        labels: Arc::new(strings([("app", "web")])),
        spec: PodSpec {
            node_name: Some(node.to_owned()),
            service_account_name: Some(account.to_owned()),
            volumes: Some(vec![volume]),
            ..Default::default()
        }
        .into(),
        phase: "Running".to_owned(),
        ..Default::default()
    }
}

fn account(namespace: &str, name: &str) -> ServiceAccountFacts {
    ServiceAccountFacts {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("{name}-uid"),
        labels: BTreeMap::new(),
    }
}

pub(super) fn policy(name: &str, change: impl FnOnce(&mut SvidPolicySpec)) -> PolicyFacts {
    let mut spec = SvidPolicySpec::default();
    change(&mut spec);
    PolicyFacts { name: name.to_owned(), spec, ..Default::default() }
}

impl World {
    fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let bound = [
            (extra::NODE_NAME, "a"),
            (extra::NODE_UID, "a-uid"),
            (extra::POD_NAME, "svid-csi-x"),
            (extra::POD_UID, "svid-csi-x-uid"),
        ];
        let request = RequestFacts {
            name: "svid-0".to_owned(),
            uid: "request-uid".to_owned(),
            username: "system:serviceaccount:svid-system:svid-csi".to_owned(),
            extra: bound.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into(),
            signer_name: SIGNER.to_owned(),
            request: csr(ID, KeyAlgorithm::EcdsaP256),
            usages: USAGES.map(str::to_owned).into(),
            expiration_seconds: Some(3600),
            labels: strings([(NODE_UID_LABEL, "a-uid")]),
            annotations: strings([
                (annotation::POD_NAMESPACE, "shop"),
                (annotation::POD_NAME, "web-0"),
                (annotation::POD_UID, "web-0-uid"),
                ("example.com/other", "is none of our business"),
            ]),
            ..Default::default()
        };
        Self {
            request,
            driver_pod: Some(pod("svid-system", "svid-csi-x", "a", "svid-csi")),
            driver_service_account: Some(account("svid-system", "svid-csi")),
            driver_node: Some(NodeFacts {
                name: "a".to_owned(),
                uid: "a-uid".to_owned(),
                labels: BTreeMap::new(),
                taints: vec![TaintFacts {
                    key: "dedicated".to_owned(),
                    value: "shop".to_owned(),
                    effect: "NoSchedule".to_owned(),
                }],
            }),
            pod: Some(pod("shop", "web-0", "a", "web")),
            service_account: Some(account("shop", "web")),
            namespace: Some(NamespaceFacts {
                name: "shop".to_owned(),
                uid: "shop-uid".to_owned(),
                labels: strings([("team", "red")]),
            }),
            policies: vec![policy("default", |_| {})],
            now,
            tokens: Vec::new(),
        }
    }

    fn of(change: impl FnOnce(&mut Self)) -> Self {
        let mut world = Self::new();
        change(&mut world);
        world
    }

    fn settings() -> ApproverSettings {
        ApproverSettings {
            trust_domain: "example.org".parse().unwrap(),
            driver_name: "csi.svid.dev".to_owned(),
            driver_service_account: ObjectName::new("svid-system", "svid-csi"),
            pod_certificate_signer: Some("svid.dev/workload".to_owned()),
        }
    }

    fn read(&self) -> IdentityRequest {
        let mut request = read(&self.request, &Self::settings());
        for change in &self.tokens {
            change(&mut request);
        }
        request
    }

    fn decide(&self) -> Decision {
        self.ask(&self.read(), decide)
    }

    fn ask<W, T>(
        &self,
        request: &IdentityRequest<W>,
        decide: impl FnOnce(&Question<'_, W>) -> T,
    ) -> T {
        let policies = PolicySet::compile(&self.policies, None);
        let settings = Self::settings();
        decide(&Question {
            request,
            driver_pod: self.driver_pod.as_ref(),
            driver_service_account: self.driver_service_account.as_ref(),
            node: self.driver_node.as_ref(),
            pod: self.pod.as_ref(),
            service_account: self.service_account.as_ref(),
            namespace: self.namespace.as_ref(),
            policies: &policies,
            settings: &settings,
            now: self.now,
        })
    }

    fn granted(&self) -> Grant {
        match self.decide() {
            Decision::Approve(grant) => *grant,
            Decision::Deny(denial) => panic!("{denial:?}"),
        }
    }

    fn denied(&self) -> Denial {
        match self.decide() {
            Decision::Approve(grant) => panic!("{grant:?}"),
            Decision::Deny(denial) => denial,
        }
    }

    fn annotate(&mut self, key: &str, value: &str) {
        self.request.annotations.insert(key.to_owned(), value.to_owned());
    }
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

#[test]
fn what_is_in_order_is_approved() {
    let grant = World::new().granted();
    assert_eq!(grant.policy, "default");
    assert_eq!(grant.id.as_str(), ID);
    assert_eq!(grant.ttl, Duration::from_secs(3600));
    assert_eq!((grant.dns_names.len(), grant.federates_with.len()), (0, 0));
    let json = grant.message().to_json();
    assert_eq!(
        json,
        format!(
            r#"{{"policy":"default","id":"{ID}","ttlSeconds":3600,"dnsNames":[],"federatesWith":[]}}"#
        )
    );
}

#[test]
fn what_is_asked_for_is_given_within_the_policy() {
    let grant = World::of(|world| {
        world.annotate(annotation::TTL, "30m");
        world.annotate(annotation::KEY_ALGORITHM, "ecdsa-p384");
        world.annotate(annotation::DNS_NAMES, "web.shop.svc, red.example.org");
        world.request.expiration_seconds = Some(1800);
        world.request.request = csr(ID, KeyAlgorithm::EcdsaP384);
        world.policies = vec![policy("p", |spec| {
            spec.dns_names = vec![
                "{service-account}.{namespace}.svc".to_owned(),
                "{namespace-label:absent}.svc".to_owned(),
                "{namespace-label:team}.{trust-domain}".to_owned(),
            ];
            spec.federates_with = vec!["other.org".to_owned()];
            spec.rules = vec![PolicyRule {
                name: "as-asked".to_owned(),
                expression: "request.ttl == 1800 && request.keyAlgorithm == 'ecdsa-p384' && \
                    request.dnsNames == ['web.shop.svc', 'red.example.org'] && \
                    node.taints[0].value == pod.namespace && \
                    pod.spec.volumes[0].csi.driver == 'csi.svid.dev'"
                    .to_owned(),
                message: String::new(),
            }];
        })];
    })
    .granted();
    assert_eq!(grant.ttl, Duration::from_secs(1800));
    assert_eq!(grant.public_key.algorithm(), Some(KeyAlgorithm::EcdsaP384));
    let names: Vec<_> = grant.dns_names.iter().map(DnsName::as_str).collect();
    assert_eq!(names, ["web.shop.svc", "red.example.org"]);
    assert_eq!(grant.federates_with, ["other.org".parse().unwrap()]);
}

#[test]
fn a_lifetime_is_the_policys_default_unless_asked_for() {
    for (default, max, asked, given) in [
        ("1h", "24h", None, Ok(3600)),
        // A default above the limit is lowered.
        ("12h", "2h", None, Ok(7200)),
        ("1h", "2h", Some("2h"), Ok(7200)),
        ("1h", "2h", Some("10s"), Ok(10)),
        ("1h", "2h", Some("2h1s"), Err(ReasonCode::TtlNotAllowed)),
        ("1h", "2h", Some("9s"), Err(ReasonCode::TtlNotAllowed)),
        ("1h", "24h", Some("24h"), Ok(86_400)),
    ] {
        let decision = World::of(|world| {
            if let Some(asked) = asked {
                world.annotate(annotation::TTL, asked);
                let seconds = crate::volume::duration::parse(asked).unwrap().as_secs().max(600);
                world.request.expiration_seconds = Some(i32::try_from(seconds).unwrap());
            }
            world.policies = vec![policy("p", |spec| {
                spec.x509.default_ttl = default.to_owned();
                spec.x509.max_ttl = max.to_owned();
            })];
        })
        .decide();
        let decided = match decision {
            Decision::Approve(grant) => Ok(grant.ttl.as_secs()),
            Decision::Deny(denial) => Err(denial.reason),
        };
        assert_eq!(decided, given, "{default} {max} {asked:?}");
    }
}

#[test]
fn the_node_is_told_what_it_could_not_know() {
    let team = |world: &mut World| {
        world.policies = vec![policy("p", |spec| {
            spec.id = "/team/{namespace-label:team}/{service-account}".to_owned();
            spec.x509.key_algorithms = vec!["ecdsa-p384".to_owned(), "ecdsa-p256".to_owned()];
        })];
    };
    let denial = World::of(team).denied();
    assert_eq!(denial.reason, ReasonCode::IdentityIs);
    assert_eq!(
        denial.condition_message(),
        r#"{"id":"spiffe://example.org/team/red/web","keyAlgorithm":"ecdsa-p384"}"#
    );
    // It asks once more, as it was told to.
    let identity = denial.identity_is.unwrap();
    let again = World::of(|world| {
        team(world);
        world.request.request = csr(identity.id.as_str(), identity.key_algorithm);
    });
    assert_eq!(again.granted().id, identity.id);
    // An algorithm that the pod asked for stays.
    let explicit = World::of(|world| {
        team(world);
        world.annotate(annotation::KEY_ALGORITHM, "ecdsa-p256");
    });
    let identity = explicit.denied().identity_is.unwrap();
    assert_eq!(identity.key_algorithm, KeyAlgorithm::EcdsaP256);
}

#[test]
fn exactly_one_policy_applies() {
    let named = |name: &str, priority| {
        policy(name, |spec| {
            spec.priority = priority;
            spec.id = format!("/{name}");
        })
    };
    let applying = |policies: Vec<PolicyFacts>| {
        World::of(|world| {
            world.policies = policies;
            world.request.request = csr("spiffe://example.org/b", KeyAlgorithm::EcdsaP256);
        })
        .decide()
    };
    let all = vec![named("a", 0), named("c", 5), named("b", 5), named("z", -1)];
    assert!(matches!(applying(all), Decision::Approve(grant) if grant.policy == "b"));
    // One that is broken is not passed over.
    let mut broken = named("a", 9);
    broken.spec.x509.max_ttl = "for ever".to_owned();
    let decision = applying(vec![named("b", 5), broken]);
    assert!(matches!(decision, Decision::Deny(d) if d.reason == ReasonCode::PolicyInvalid));
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let facts = |generation, id: &str| PolicyFacts {
        uid: "u".to_owned(),
        generation,
        ..policy("p", |spec| spec.id = id.to_owned())
    };
    let first = PolicySet::compile(&[facts(1, "/a")], None);
    let same = PolicySet::compile(&[facts(1, "/a")], Some(&first));
    assert!(std::ptr::eq(first.iter().next().unwrap(), same.iter().next().unwrap()));
    let next = PolicySet::compile(&[facts(2, "/b")], Some(&same));
    assert!(!std::ptr::eq(same.iter().next().unwrap(), next.iter().next().unwrap()));
}

#[test]
fn conditions_are_no_proof() {
    // The signer evaluates again what somebody approved: the same question, the same answer.
    let world = World::of(|world| {
        world.pod = None;
        world.request.conditions = vec![ConditionFacts {
            kind: "Approved".to_owned(),
            reason: "SvidPolicy".to_owned(),
            message: String::new(),
        }];
    });
    assert_eq!(world.denied().reason, ReasonCode::PodMissing);
}
