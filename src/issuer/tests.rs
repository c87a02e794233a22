//! What two tokens and a message make, and what is wrong with them.

use std::time::{Duration, UNIX_EPOCH};

use svid_csi_proto::issuer::v1::{IssueJwtSvidRequest, IssueX509SvidRequest, Pod};

use super::read;
use crate::{
    controller::{
        approver::{ApproverSettings, Denial, ReasonCode, Uses},
        tokens::TokenClaims,
    },
    k8s::ObjectName,
    pki::{Csr, KeyAlgorithm, PrivateKey},
};

const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

fn settings() -> ApproverSettings {
    ApproverSettings {
        trust_domain: "example.org".parse().unwrap(),
        driver_name: "csi.svid.dev".to_owned(),
        driver_service_account: ObjectName::new("svid-csi", "svid-csi"),
        pod_certificate_signer: None,
    }
}

fn claims(namespace: &str, account: &str, pod: &str) -> TokenClaims {
    TokenClaims {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        service_account_uid: format!("uid-of-{account}"),
        pod_name: pod.to_owned(),
        pod_uid: format!("uid-of-{pod}"),
        node_name: "node-1".to_owned(),
        node_uid: "n-1".to_owned(),
        expires_at: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
    }
}

fn driver() -> TokenClaims {
    claims("svid-csi", "svid-csi", "driver-1")
}

fn pod() -> TokenClaims {
    claims("shop", "cart", "cart-0")
}

fn named() -> Pod {
    Pod { namespace: "shop".to_owned(), name: "cart-0".to_owned(), uid: "uid-of-cart-0".to_owned() }
}

fn csr(id: &str, algorithm: KeyAlgorithm) -> Vec<u8> {
    let key = PrivateKey::generate(algorithm).unwrap();
    Csr::create(&key, &id.parse().unwrap()).unwrap().der().to_vec()
}

fn x509() -> IssueX509SvidRequest {
    IssueX509SvidRequest {
        pod: Some(named()),
        csr: csr(ID, KeyAlgorithm::EcdsaP256).into(),
        ..Default::default()
    }
}

fn code<T>(read: Result<T, Denial>) -> Result<(), ReasonCode> {
    read.map(drop).map_err(|denial| denial.reason)
}

#[test]
fn a_good_call_says_what_its_tokens_prove_and_what_it_wishes() {
    let request = read::x509(&driver(), &pod(), &x509(), &settings());
    let requester = request.requester.unwrap();
    assert_eq!(
        (requester.node.to_string(), requester.node_uid.as_str()),
        ("node-1".to_owned(), "n-1")
    );
    let driver_pod = requester.driver_pod.unwrap();
    assert_eq!(driver_pod.name, ObjectName::new("svid-csi", "driver-1"));
    assert_eq!(driver_pod.uid, "uid-of-driver-1");
    // What TokenReview would look up, the approver does by these.
    assert_eq!(driver_pod.service_account_uid.as_deref(), Some("uid-of-svid-csi"));
    let named = request.pod.unwrap();
    assert_eq!(
        (named.name.to_string(), named.uid.as_str()),
        ("shop/cart-0".to_owned(), "uid-of-cart-0")
    );
    assert_eq!(named.service_account_uid.as_deref(), Some("uid-of-cart"));
    assert_eq!(request.uses, Uses::Volume);
    let wish = request.wish.unwrap();
    assert_eq!(wish.id.unwrap().as_str(), ID);
    assert_eq!((wish.ttl, wish.explicit_key, wish.dns_names.len()), (None, false, 0));

    let message = IssueX509SvidRequest {
        ttl_seconds: 600,
        key_algorithm: "ecdsa-p256".to_owned(),
        dns_names: vec!["cart.shop.svc".to_owned()],
        ..x509()
    };
    let wish = read::x509(&driver(), &pod(), &message, &settings()).wish.unwrap();
    assert_eq!(wish.ttl, Some(Duration::from_secs(600)));
    assert_eq!((wish.explicit_key, wish.dns_names.len()), (true, 1));
}

// DESIGN.md invariant 5.
#[test]
fn only_the_driver_asks() {
    let good = || read::requester(&driver(), &settings());
    assert_eq!(code(good()), Ok(()));
    for other in [
        pod(),
        claims("svid-csi", "svid-csi-controller", "driver-1"),
        claims("shop", "svid-csi", "driver-1"),
        claims("svid-csi", "", "driver-1"),
    ] {
        let denied = code(read::requester(&other, &settings()));
        assert_eq!(denied, Err(ReasonCode::NotTheDriver), "{other:?}");
        let request = read::x509(&other, &pod(), &x509(), &settings());
        assert_eq!(code(request.requester), Err(ReasonCode::NotTheDriver));
    }
}

// DESIGN.md invariant 5: a stolen token is of no use elsewhere, nor for another pod.
#[test]
fn the_pods_token_is_the_pods_and_of_the_drivers_node() {
    let with = |change: fn(&mut Pod)| {
        let mut pod = named();
        change(&mut pod);
        Some(pod)
    };
    let elsewhere = TokenClaims { node_name: "node-2".to_owned(), ..pod() };
    let before = TokenClaims { node_uid: "n-0".to_owned(), ..pod() };
    let mismatch = Err(ReasonCode::PodTokenMismatch);
    let unnamed = Err(ReasonCode::PodNotNamed);
    for (token, named, expected) in [
        (pod(), with(|_| ()), Ok(())),
        (pod(), None, unnamed),
        (pod(), with(|pod| pod.uid.clear()), unnamed),
        (pod(), with(|pod| pod.name.clear()), unnamed),
        (pod(), with(|pod| pod.namespace.clear()), unnamed),
        (pod(), with(|pod| pod.uid.push('x')), mismatch),
        (pod(), with(|pod| pod.name.push('x')), mismatch),
        (pod(), with(|pod| pod.namespace.push('x')), mismatch),
        (claims("shop", "cart", "cart-1"), with(|_| ()), mismatch),
        (claims("other", "cart", "cart-0"), with(|_| ()), mismatch),
        (driver(), with(|_| ()), mismatch),
        (elsewhere, with(|_| ()), Err(ReasonCode::PodTokenElsewhere)),
        (before, with(|_| ()), Err(ReasonCode::PodTokenElsewhere)),
    ] {
        let message = IssueX509SvidRequest { pod: named.clone(), ..x509() };
        let found = read::x509(&driver(), &token, &message, &settings()).pod;
        assert_eq!(code(found), expected, "{token:?} for {named:?}");
        let message = IssueJwtSvidRequest { pod: named.clone(), ..Default::default() };
        let found = read::jwt(&driver(), &token, &message, &settings()).pod;
        assert_eq!(code(found), expected, "{token:?} for {named:?}");
    }
}

#[test]
fn what_no_policy_could_allow_is_refused() {
    let settings = settings();
    let p256 = |id| csr(id, KeyAlgorithm::EcdsaP256);
    let broken = {
        let mut csr = p256(ID);
        *csr.last_mut().unwrap() ^= 1;
        csr
    };
    let names = |count: usize| (0..count).map(|number| format!("a{number}.shop.svc")).collect();
    let base = x509();
    for (message, expected) in [
        (IssueX509SvidRequest { csr: broken.into(), ..base.clone() }, ReasonCode::BadSignature),
        (IssueX509SvidRequest { csr: vec![].into(), ..base.clone() }, ReasonCode::MalformedCsr),
        (
            IssueX509SvidRequest { csr: p256("spiffe://example.com/a").into(), ..base.clone() },
            ReasonCode::ForeignTrustDomain,
        ),
        (
            IssueX509SvidRequest {
                csr: p256("spiffe://example.org/svid.dev/controller").into(),
                ..base.clone()
            },
            ReasonCode::ReservedId,
        ),
        (
            IssueX509SvidRequest { key_algorithm: "ed25519".to_owned(), ..base.clone() },
            ReasonCode::WrongKeyAlgorithm,
        ),
        (
            IssueX509SvidRequest { key_algorithm: "dsa".to_owned(), ..base.clone() },
            ReasonCode::WrongKeyAlgorithm,
        ),
        (
            IssueX509SvidRequest { dns_names: names(17), ..base.clone() },
            ReasonCode::MalformedDnsNames,
        ),
    ] {
        let found = read::x509(&driver(), &pod(), &message, &settings).wish;
        assert_eq!(code(found), Err(expected), "{message:?}");
    }
    let jwt = |id: &str, audience: &[&str]| IssueJwtSvidRequest {
        pod: Some(named()),
        spiffe_id: id.to_owned(),
        audience: audience.iter().map(|one| (*one).to_owned()).collect(),
        ..Default::default()
    };
    for (message, expected) in [
        (jwt(ID, &["vault"]), Ok(())),
        (jwt("cart", &["vault"]), Err(ReasonCode::NotASpiffeId)),
        (jwt("spiffe://example.com/a", &["vault"]), Err(ReasonCode::ForeignTrustDomain)),
        (jwt("spiffe://example.org/svid.dev/x", &["vault"]), Err(ReasonCode::ReservedId)),
        (jwt(ID, &[]), Err(ReasonCode::MalformedAudience)),
        (jwt(ID, &[""]), Err(ReasonCode::MalformedAudience)),
        (jwt(ID, &["x"; 33]), Err(ReasonCode::MalformedAudience)),
    ] {
        let found = read::jwt(&driver(), &pod(), &message, &settings).wish;
        assert_eq!(code(found), expected, "{message:?}");
    }
}
