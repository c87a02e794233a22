//! What each part of a CertificateRequest is read as.

use std::time::Duration;

use serde_json::{Value, json};

use super::read;
use crate::{
    controller::approver::{ApproverSettings, ReasonCode},
    id::SpiffeId,
    k8s::{CertificateRequest, CertificateRequestFacts, ObjectName},
    pki::{Csr, KeyAlgorithm, PrivateKey},
};

const DRIVER: &str = "system:serviceaccount:svid-csi:svid-csi";

fn settings() -> ApproverSettings {
    ApproverSettings {
        trust_domain: "example.org".parse().unwrap(),
        driver_name: "csi.svid.dev".to_owned(),
        driver_service_account: ObjectName::new("svid-csi", "svid-csi"),
        pod_certificate_signer: None,
    }
}

fn pem(names: &[&str]) -> String {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let id: SpiffeId = "spiffe://example.org/ns/shop/sa/cart".parse().unwrap();
    let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
    let csr = Csr::create_with_dns_names(&key, &id, &names).unwrap();
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, csr.to_pem())
}

fn honest() -> Value {
    let extra = |key: &str| format!("authentication.kubernetes.io/{key}");
    json!({
        "metadata": {
            "name": "svid-1", "uid": "r1",
            "labels": {"csi.svid.dev/node-uid": "n1"},
            "annotations": {
                "csi.svid.dev/pod-namespace": "shop", "csi.svid.dev/pod-name": "cart-0",
                "csi.svid.dev/pod-uid": "p1",
            },
        },
        "spec": {
            "request": pem(&[]), "duration": "1h0m0s", "isCA": false,
            "usages": ["client auth", "digital signature", "server auth"],
            "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "a"},
            "username": DRIVER, "uid": "sa1",
            "extra": {
                extra("node-name"): ["worker-1"], extra("node-uid"): ["n1"],
                extra("pod-name"): ["driver-1"], extra("pod-uid"): ["d1"],
            },
        },
    })
}

fn facts(object: Value) -> CertificateRequestFacts {
    serde_json::from_value::<CertificateRequest>(object).unwrap().into()
}

#[test]
fn the_drivers_own_request_is_read_whole() {
    let request = read(&facts(honest()), true, &settings());
    let requester = request.requester.unwrap();
    assert_eq!((requester.node.name.as_str(), requester.node_uid.as_str()), ("worker-1", "n1"));
    let driver = requester.driver_pod.unwrap();
    assert_eq!(driver.name.to_string(), "svid-csi/driver-1");
    assert_eq!(driver.service_account_uid.as_deref(), Some("sa1"));
    assert_eq!(request.pod.unwrap().name.to_string(), "shop/cart-0");
    let asked = request.wish.unwrap();
    assert_eq!(asked.lifetime, Duration::from_secs(3600));
    assert!(asked.is_default && asked.wish.ttl.is_none() && asked.wish.dns_names.is_empty());
    assert_eq!(asked.issuer.to_string(), "ClusterIssuer/a");
    assert_eq!(asked.wish.id.unwrap().path(), "/ns/shop/sa/cart");
}

/// Invariant 5: what nobody but the webhook writes says who asks.
#[test]
fn who_did_not_make_it_is_denied() {
    let extra = "authentication.kubernetes.io/node-uid";
    for (pointer, value, reason) in [
        ("/spec/username", json!("system:serviceaccount:shop:cart"), ReasonCode::NotTheDriver),
        ("/spec/username", json!(""), ReasonCode::NotTheDriver),
        ("/spec/extra", json!({}), ReasonCode::UnboundToken),
        ("/spec/extra", json!({extra: ["n1", "n2"]}), ReasonCode::UnboundToken),
        ("/metadata/labels", json!({"csi.svid.dev/node-uid": "n2"}), ReasonCode::NodeLabelMismatch),
        ("/metadata/labels", json!({}), ReasonCode::NodeLabelMismatch),
    ] {
        let mut object = honest();
        *object.pointer_mut(pointer).unwrap() = value;
        let denial = read(&facts(object), true, &settings()).requester.unwrap_err();
        assert_eq!(denial.reason, reason, "{pointer}: {}", denial.message);
    }
}

/// What cert-manager would sign, and no policy could give.
#[test]
fn what_is_no_svid_is_denied() {
    let annotations = |key: &str, value: &str| {
        let mut all = honest()["metadata"]["annotations"].clone();
        all[key] = value.into();
        all
    };
    for (pointer, value, reason) in [
        ("/spec/isCA", json!(true), ReasonCode::CaRequested),
        ("/spec/usages", json!(["digital signature"]), ReasonCode::WrongUsages),
        (
            "/spec/usages",
            json!(["digital signature", "server auth", "client auth", "cert sign"]),
            ReasonCode::WrongUsages,
        ),
        (
            "/spec/usages",
            json!(["server auth", "server auth", "client auth"]),
            ReasonCode::WrongUsages,
        ),
        ("/spec/duration", Value::Null, ReasonCode::WrongExpiration),
        ("/spec/duration", json!("1s"), ReasonCode::WrongExpiration),
        ("/spec/duration", json!("8760h"), ReasonCode::WrongExpiration),
        ("/spec/duration", json!("soon"), ReasonCode::WrongExpiration),
        ("/spec/request", json!("eA=="), ReasonCode::MalformedCsr),
        ("/spec/request", json!(pem(&["a.example"])), ReasonCode::MalformedDnsNames),
        (
            "/metadata/annotations",
            annotations("csi.svid.dev/dns-names", "a.example"),
            ReasonCode::MalformedDnsNames,
        ),
        (
            "/metadata/annotations",
            annotations("cert-manager.io/private-key-secret-name", "x"),
            ReasonCode::UnknownAnnotation,
        ),
        (
            "/metadata/annotations",
            annotations("csi.svid.dev/other", "x"),
            ReasonCode::UnknownAnnotation,
        ),
        ("/metadata/annotations", annotations("csi.svid.dev/ttl", "x"), ReasonCode::MalformedTtl),
        (
            "/metadata/annotations",
            annotations("csi.svid.dev/key-algorithm", "rsa-2048"),
            ReasonCode::WrongKeyAlgorithm,
        ),
    ] {
        let mut object = honest();
        *object.pointer_mut(pointer).unwrap() = value.clone();
        let denial = read(&facts(object), true, &settings()).wish.unwrap_err();
        assert_eq!(denial.reason, reason, "{pointer} {value}: {}", denial.message);
    }
}

#[test]
fn dns_names_are_the_csrs() {
    let mut object = honest();
    object["spec"]["request"] = json!(pem(&["a.example", "b.example"]));
    object["metadata"]["annotations"]["csi.svid.dev/dns-names"] = json!("a.example,b.example");
    let asked = read(&facts(object), false, &settings()).wish.unwrap();
    assert_eq!(asked.wish.dns_names.len(), 2);
    assert!(!asked.is_default);
}
