//! Each reason: everything is in order but for one thing.

use std::collections::BTreeSet;

use rcgen::{
    Attribute, CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType,
};

use super::*;

type Change = fn(&mut World);

/// A request by somebody else's tool.
fn foreign(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    change(&mut params);
    let made = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    pem(made.der())
}

fn pem(der: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let head = "CERTIFICATE REQUEST";
    format!("-----BEGIN {head}-----\n{body}\n-----END {head}-----\n").into_bytes()
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let mut command = std::process::Command::new("openssl");
    command.args(["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/"]);
    let uri = format!("subjectAltName=URI:{ID}");
    let made = command.args(["-addext", &uri]).args(arguments).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

fn edit_pod(world: &mut World, change: impl FnOnce(&mut PodSpec)) {
    edit(world.pod.as_mut().unwrap(), change);
}

fn edit_driver(world: &mut World, change: impl FnOnce(&mut PodSpec)) {
    edit(world.driver_pod.as_mut().unwrap(), change);
}

fn edit(pod: &mut PodFacts, change: impl FnOnce(&mut PodSpec)) {
    let mut spec = serde_json::from_value(pod.spec.to_json()).unwrap();
    change(&mut spec);
    pod.spec = spec.into();
}

fn driver_token(request: &mut IdentityRequest, service_account_uid: &str) {
    let requester = request.requester.as_mut().unwrap();
    let pod = requester.driver_pod.as_mut().unwrap();
    pod.service_account_uid = Some(service_account_uid.to_owned());
}

fn rule(world: &mut World, expression: &str) {
    world.policies = vec![policy("p", |spec| {
        spec.rules = vec![PolicyRule {
            name: "the-rule".to_owned(),
            expression: expression.to_owned(),
            message: "ask the platform team".to_owned(),
        }];
    })];
}

pub(super) const CASES: &[(ReasonCode, &str, Change)] = &[
    (ReasonCode::WrongSigner, "svid.dev/workload", |w| {
        w.request.signer_name = "kubernetes.io/kube-apiserver-client".to_owned();
    }),
    (ReasonCode::NotTheDriver, "svid-system:svid-csi", |w| {
        w.request.username = "system:serviceaccount:svid-system:svid-csi-controller".to_owned();
    }),
    (ReasonCode::NotTheDriver, "system:node:a", |w| {
        w.request.username = "system:node:a".to_owned();
    }),
    (ReasonCode::UnboundToken, "node-name", |w| {
        w.request.extra.remove(extra::NODE_NAME);
    }),
    (ReasonCode::UnboundToken, "node-uid", |w| {
        w.request.extra.remove(extra::NODE_UID);
    }),
    (ReasonCode::UnboundToken, "pod-name", |w| {
        w.request.extra.insert(extra::POD_NAME.to_owned(), vec![]);
    }),
    (ReasonCode::UnboundToken, "pod-uid", |w| {
        let two = vec!["svid-csi-x-uid".to_owned(), "web-0-uid".to_owned()];
        w.request.extra.insert(extra::POD_UID.to_owned(), two);
    }),
    (ReasonCode::NodeLabelMismatch, "a-uid", |w| w.request.labels.clear()),
    (ReasonCode::NodeLabelMismatch, "a-uid", |w| {
        w.request.labels.insert(NODE_UID_LABEL.to_owned(), "b-uid".to_owned());
    }),
    (ReasonCode::DriverPodMissing, "svid-csi-x does not exist", |w| w.driver_pod = None),
    (ReasonCode::DriverPodReplaced, "another", |w| {
        w.driver_pod.as_mut().unwrap().uid = "another".to_owned();
    }),
    (ReasonCode::DriverPodServiceAccount, "runs as default", |w| {
        edit_driver(w, |spec| spec.service_account_name = None);
    }),
    (ReasonCode::DriverPodElsewhere, "on node \"b\"", |w| {
        edit_driver(w, |spec| spec.node_name = Some("b".to_owned()));
    }),
    (ReasonCode::DriverPodFinished, "Failed", |w| {
        w.driver_pod.as_mut().unwrap().phase = "Failed".to_owned();
    }),
    (ReasonCode::DriverPodDeleted, "more than a minute", |w| {
        w.driver_pod.as_mut().unwrap().deletion_timestamp = Some(w.now - Duration::from_secs(61));
    }),
    (ReasonCode::DriverServiceAccountReplaced, "now it has UID svid-csi-uid", |w| {
        w.tokens.push(|request| driver_token(request, "an-earlier-one"));
    }),
    (ReasonCode::DriverServiceAccountReplaced, "there is none now", |w| {
        w.tokens.push(|request| driver_token(request, "svid-csi-uid"));
        w.driver_service_account = None;
    }),
    (ReasonCode::NodeMissing, "node a does not exist", |w| w.driver_node = None),
    (ReasonCode::NodeReplaced, "another", |w| {
        w.driver_node.as_mut().unwrap().uid = "another".to_owned();
    }),
    (ReasonCode::UnknownAnnotation, "csi.svid.dev/id", |w| {
        w.annotate("csi.svid.dev/id", "spiffe://example.org/ns/kube-system/sa/admin");
    }),
    (ReasonCode::PodNotNamed, "must name the pod", |w| {
        w.request.annotations.remove(annotation::POD_NAME);
    }),
    (ReasonCode::PodNotNamed, "must name the pod", |w| w.annotate(annotation::POD_UID, "")),
    (ReasonCode::PodMissing, "shop/web-0 does not exist", |w| w.pod = None),
    (ReasonCode::PodReplaced, "another", |w| {
        w.pod.as_mut().unwrap().uid = "another".to_owned();
    }),
    (ReasonCode::PodElsewhere, "identities of its own pods only", |w| {
        edit_pod(w, |spec| spec.node_name = Some("b".to_owned()));
    }),
    (ReasonCode::PodElsewhere, "on node \"\"", |w| edit_pod(w, |spec| spec.node_name = None)),
    (ReasonCode::MirrorPod, "mirror pod", |w| w.pod.as_mut().unwrap().mirror = true),
    (ReasonCode::PodWithoutVolume, "csi.svid.dev", |w| edit_pod(w, |spec| spec.volumes = None)),
    (ReasonCode::PodWithoutVolume, "csi.svid.dev", |w| {
        edit_pod(w, |spec| {
            let csi = spec.volumes.as_mut().unwrap()[0].csi.as_mut().unwrap();
            csi.driver = "csi.spiffe.io".to_owned();
        });
    }),
    (ReasonCode::PodWithoutProjection, "svid.dev/workload", |w| {
        w.tokens.push(|request| request.uses = Uses::PodCertificate);
    }),
    (ReasonCode::PodFinished, "Succeeded", |w| {
        w.pod.as_mut().unwrap().phase = "Succeeded".to_owned();
    }),
    (ReasonCode::PodDeleted, "more than a minute", |w| {
        w.pod.as_mut().unwrap().deletion_timestamp = Some(w.now - Duration::from_secs(61));
    }),
    (ReasonCode::ServiceAccountMissing, "shop/web does not exist", |w| w.service_account = None),
    (ReasonCode::ServiceAccountMissing, "shop/web does not exist", |w| {
        w.service_account.as_mut().unwrap().name = "other".to_owned();
    }),
    (ReasonCode::ServiceAccountReplaced, "has UID web-uid", |w| {
        w.tokens.push(|request| {
            let pod = request.pod.as_mut().unwrap();
            pod.service_account_uid = Some("an-earlier-one".to_owned());
        });
    }),
    (ReasonCode::NamespaceMissing, "shop does not exist", |w| w.namespace = None),
    (ReasonCode::MalformedCsr, "PEM", |w| w.request.request = b"hello".to_vec()),
    (ReasonCode::MalformedCsr, "PEM", |w| {
        let twice = w.request.request.repeat(2);
        w.request.request = twice;
    }),
    (ReasonCode::MalformedCsr, "PKCS#10", |w| w.request.request = pem(b"\x30\x03abc")),
    (ReasonCode::BadSignature, "signature is wrong", |w| {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let mut der = Csr::create(&key, &ID.parse().unwrap()).unwrap().der().to_vec();
        *der.last_mut().unwrap() ^= 1;
        w.request.request = pem(&der);
    }),
    (ReasonCode::BadSignature, "RSA of 2048", |w| {
        w.request.request = openssl(&["-newkey", "rsa:1024"]);
    }),
    (ReasonCode::SubjectNotEmpty, "subject", |w| {
        w.request.request = foreign(|params| {
            params.distinguished_name.push(DnType::CommonName, "admin");
        });
    }),
    (ReasonCode::SubjectNotEmpty, "subject", |w| {
        w.request.request = foreign(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        });
    }),
    (ReasonCode::ForbiddenAttribute, "exactly one attribute", |w| {
        w.request.request = {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
            let challenge = Attribute {
                oid: &[1, 2, 840, 113_549, 1, 9, 7],
                values: vec![0x31, 3, 0x0c, 1, b'x'],
            };
            let key = KeyPair::generate().unwrap();
            let made = params.serialize_request_with_attributes(&key, vec![challenge]).unwrap();
            pem(made.der())
        };
    }),
    (ReasonCode::ForbiddenExtension, "exactly one extension", |w| {
        w.request.request = foreign(|params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        });
    }),
    (ReasonCode::ForbiddenExtension, "exactly one extension", |w| {
        w.request.request = foreign(|params| {
            let foreign = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            params.custom_extensions.push(foreign);
        });
    }),
    (ReasonCode::ForbiddenName, "exactly one name", |w| {
        w.request.request = foreign(|params| {
            params
                .subject_alt_names
                .push(SanType::DnsName("kubernetes.default".try_into().unwrap()));
        });
    }),
    (ReasonCode::ForbiddenName, "exactly one name", |w| {
        w.request.request = foreign(|params| {
            let second = "spiffe://example.org/ns/kube-system/sa/admin";
            params.subject_alt_names.push(SanType::URI(second.try_into().unwrap()));
        });
    }),
    (ReasonCode::ForbiddenName, "exactly one name", |w| {
        w.request.request = foreign(|params| {
            params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        });
    }),
    (ReasonCode::ForbiddenName, "exactly one name", |w| {
        w.request.request = foreign(|params| {
            params.subject_alt_names = vec![SanType::Rfc822Name("a@b.c".try_into().unwrap())];
        });
    }),
    (ReasonCode::NotASpiffeId, "not a SPIFFE ID", |w| {
        w.request.request = foreign(|params| {
            params.subject_alt_names = vec![SanType::URI("https://x/y".try_into().unwrap())];
        });
    }),
    (ReasonCode::ForeignTrustDomain, "signs for example.org", |w| {
        w.request.request = csr("spiffe://other.org/ns/shop/sa/web", KeyAlgorithm::EcdsaP256);
    }),
    (ReasonCode::ReservedId, "reserved", |w| {
        w.request.request =
            csr("spiffe://example.org/svid.dev/controller", KeyAlgorithm::EcdsaP256);
    }),
    (ReasonCode::WeakKey, "unsupported kind or size", |w| {
        w.request.request = openssl(&["-newkey", "rsa:3072"]);
    }),
    (ReasonCode::WrongUsages, "exactly", |w| w.request.usages.push("cert sign".to_owned())),
    (ReasonCode::WrongUsages, "exactly", |w| w.request.usages[0] = "any".to_owned()),
    (ReasonCode::WrongUsages, "exactly", |w| {
        w.request.usages.pop();
    }),
    (ReasonCode::WrongUsages, "exactly", |w| {
        w.request.usages[2] = w.request.usages[1].clone();
    }),
    (ReasonCode::WrongExpiration, "absent", |w| w.request.expiration_seconds = None),
    (ReasonCode::WrongExpiration, "600 to 86400", |w| w.request.expiration_seconds = Some(86_401)),
    (ReasonCode::WrongExpiration, "600 to 86400", |w| w.request.expiration_seconds = Some(-1)),
    (ReasonCode::WrongExpiration, "must be 1800", |w| w.annotate(annotation::TTL, "30m")),
    (ReasonCode::WrongExpiration, "must be 600", |w| w.annotate(annotation::TTL, "1m")),
    (ReasonCode::MalformedTtl, "not a duration", |w| w.annotate(annotation::TTL, "long")),
    (ReasonCode::WrongKeyAlgorithm, "asks for a key of rsa-2048", |w| {
        w.annotate(annotation::KEY_ALGORITHM, "rsa-2048");
    }),
    (ReasonCode::WrongKeyAlgorithm, "rsa-512", |w| {
        w.annotate(annotation::KEY_ALGORITHM, "rsa-512");
    }),
    (ReasonCode::MalformedDnsNames, "wildcards", |w| {
        w.annotate(annotation::DNS_NAMES, "*.example.org");
    }),
    (ReasonCode::MalformedDnsNames, "twice", |w| w.annotate(annotation::DNS_NAMES, "a.b,a.b")),
    (ReasonCode::MalformedDnsNames, "1 to 253", |w| w.annotate(annotation::DNS_NAMES, "")),
    (ReasonCode::NoPolicy, "no SvidPolicy matches the pod shop/web-0", |w| w.policies.clear()),
    (ReasonCode::NoPolicy, "no SvidPolicy matches the pod shop/web-0", |w| {
        w.policies[0].spec.selector.service_accounts = vec!["other/web".to_owned()];
    }),
    (ReasonCode::PolicyInvalid, "id: ", |w| w.policies[0].spec.id = "relative".to_owned()),
    (ReasonCode::PolicyInvalid, "id: ", |w| w.policies[0].spec.id = "/svid.dev/x".to_owned()),
    (ReasonCode::PolicyInvalid, "x509.maxTTL", |w| {
        w.policies[0].spec.x509.max_ttl = "25h".to_owned();
    }),
    (ReasonCode::PolicyInvalid, "x509.keyAlgorithms", |w| {
        w.policies[0].spec.x509.key_algorithms.clear();
    }),
    (ReasonCode::PolicyInvalid, "dnsNames", |w| {
        w.policies[0].spec.dns_names = vec!["*.{namespace}".to_owned()];
    }),
    (ReasonCode::PolicyInvalid, "federatesWith", |w| {
        w.policies[0].spec.federates_with = vec!["Other".to_owned()];
    }),
    (ReasonCode::PolicyInvalid, "the rule the-rule", |w| rule(w, "pod.annotations.x == 'y'")),
    (ReasonCode::PolicyTooExpensive, "steps", |w| {
        let names = (0..400).map(|n| (format!("k{n}"), String::new()));
        Arc::make_mut(&mut w.pod.as_mut().unwrap().labels).extend(names);
        rule(w, "pod.labels.all(a, pod.labels.all(b, a != 'x' || b != 'x'))");
    }),
    (ReasonCode::NoIdentity, "has no label", |w| {
        w.policies[0].spec.id = "/{namespace-label:absent}".to_owned();
    }),
    (ReasonCode::NoIdentity, "reserved", |w| {
        w.policies[0].spec.id = "/{namespace-label:team}/x".to_owned();
        w.namespace.as_mut().unwrap().labels = strings([("team", "svid.dev")]);
    }),
    (ReasonCode::TtlNotAllowed, "allows 10s to 30m", |w| {
        w.annotate(annotation::TTL, "1h");
        w.policies[0].spec.x509.max_ttl = "30m".to_owned();
    }),
    (ReasonCode::KeyAlgorithmNotAllowed, "allows ed25519", |w| {
        w.annotate(annotation::KEY_ALGORITHM, "ecdsa-p256");
        w.policies[0].spec.x509.key_algorithms = vec!["ed25519".to_owned()];
    }),
    (ReasonCode::DnsNameNotAllowed, "allows it none", |w| {
        w.annotate(annotation::DNS_NAMES, "kubernetes.default.svc");
    }),
    (ReasonCode::IdentityIs, "gives spiffe://example.org/ns/shop/sa/web", |w| {
        w.request.request = csr("spiffe://example.org/ns/shop/sa/other", KeyAlgorithm::EcdsaP256);
    }),
    (ReasonCode::IdentityIs, "a key of ecdsa-p256", |w| {
        w.request.request = csr(ID, KeyAlgorithm::EcdsaP384);
    }),
    (ReasonCode::RuleNotMet, "its rule the-rule is not met: ask the platform team", |w| {
        rule(w, "request.ttl < 60");
    }),
    (ReasonCode::RuleFailed, "its rule the-rule can't be evaluated", |w| {
        rule(w, "pod.labels.absent == 'x'");
    }),
];

#[test]
fn each_check_alone_is_enough_to_deny() {
    for (number, (reason, text, change)) in CASES.iter().enumerate() {
        let denial = World::of(change).denied();
        assert_eq!(denial.reason, *reason, "case {number}: {}", denial.message);
        assert!(denial.message.contains(text), "case {number}: {}", denial.message);
        assert!(denial.message.len() < 400, "case {number}: {}", denial.message);
    }
}

/// Those that a call's two tokens are refused for, before there is a question: `issuer` has their table.
const OF_TOKENS: [ReasonCode; 3] =
    [ReasonCode::PodTokenRefused, ReasonCode::PodTokenMismatch, ReasonCode::PodTokenElsewhere];

/// What only a CertificateRequest can be refused for while it is read: `certificate_requests` has the case.
const OF_READING: [ReasonCode; 1] = [ReasonCode::CaRequested];

#[test]
fn every_reason_has_a_case() {
    let certificate = super::certificate::CASES.iter().map(|(reason, ..)| reason);
    let others = super::jwt::CASES.iter().map(|(reason, ..)| reason).chain(&OF_TOKENS);
    let others = others.chain(certificate).chain(&OF_READING);
    let shown: BTreeSet<_> = CASES.iter().map(|(reason, ..)| reason).chain(others).collect();
    let missing: Vec<_> = ReasonCode::ALL.iter().filter(|reason| !shown.contains(reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_only_the_api_server_can_know_is_read_again_before_a_denial() {
    // A denial for the want of an object rests on that object.
    for (reason, _, change) in CASES {
        let mut before = World::new();
        let wanted = objects(&before);
        change(&mut before);
        let missing = objects(&before).into_iter().zip(wanted).filter(|(now, then)| now != then);
        for ((fact, _), _) in missing {
            assert!(reason.rests_on().contains(&fact), "{reason:?} rests on {fact:?}");
        }
    }
}

fn objects(world: &World) -> [(Fact, bool); 6] {
    [
        (Fact::DriverPod, world.driver_pod.is_some()),
        (Fact::DriverServiceAccount, world.driver_service_account.is_some()),
        (Fact::Node, world.driver_node.is_some()),
        (Fact::Pod, world.pod.is_some()),
        (Fact::ServiceAccount, world.service_account.is_some()),
        (Fact::Namespace, world.namespace.is_some()),
    ]
}

#[test]
fn a_pod_may_outlive_its_deletion_for_a_minute() {
    for at in [-60i64, 0, 30] {
        let world = World::of(|world| {
            let pod = world.pod.as_mut().unwrap();
            pod.deletion_timestamp = Some(match u64::try_from(at) {
                Ok(ahead) => world.now + Duration::from_secs(ahead),
                Err(_) => world.now - Duration::from_secs(at.unsigned_abs()),
            });
        });
        world.granted();
    }
}
