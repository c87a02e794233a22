//! Everything that a message can have wrong, and what is taken of it.

use std::time::{Duration, SystemTime};

use svid_csi_proto::spire::api::types::X509svid as SvidMessage;

use super::*;
use crate::{
    jose::{JwtKey, JwtKeyAlgorithm},
    pki::{Authority, Csr, KeyAlgorithm},
};

const DAY: Duration = Duration::from_secs(86_400);
const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

fn authority(name: &str) -> Authority {
    let now = SystemTime::UNIX_EPOCH + DAY;
    Authority::create(&domain(name), KeyAlgorithm::EcdsaP256, DAY, now).unwrap()
}

fn svid(authority: &Authority) -> X509svidWithKey {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let id = ID.parse().unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    let now = SystemTime::UNIX_EPOCH + DAY;
    let svid = authority.issue(csr.public_key(), &id, &[], DAY / 24, now).unwrap();
    let cert_chain = svid.chain().iter().map(|one| one.der().to_vec()).collect();
    X509svidWithKey {
        x509_svid: Some(SvidMessage { cert_chain, ..Default::default() }),
        x509_svid_key: key.pkcs8_der().to_vec(),
    }
}

fn message(x509_svids: Vec<X509svidWithKey>) -> SubscribeToX509sviDsResponse {
    SubscribeToX509sviDsResponse { x509_svids, federates_with: Vec::new() }
}

#[test]
fn what_is_given_comes_in_its_order_and_nothing_is_no_svid() {
    let ca = authority("example.org");
    let (one, two) = (svid(&ca), svid(&ca));
    let keys: Vec<Vec<u8>> = [&one, &two].map(|svid| svid.x509_svid_key.clone()).into();
    let federates_with = ["spiffe://a.example", "spiffe://b.example/path", "no ID"];
    let federates_with = federates_with.map(ToOwned::to_owned).into();
    let response = SubscribeToX509sviDsResponse { federates_with, ..message(vec![one, two]) };
    let given = handed_out(response).unwrap().unwrap();
    let found: Vec<&[u8]> = given.svids.iter().map(|svid| svid.key.pkcs8_der()).collect();
    assert_eq!(found, keys);
    assert_eq!(given.federates_with, [domain("a.example")].into());
    assert_eq!(given.svids[0].x509.id().as_str(), ID);
    assert!(handed_out(message(Vec::new())).unwrap().is_none());
}

#[test]
fn an_svid_that_cannot_be_used_is_left_out_and_alone_an_error_without_its_key() {
    let ca = authority("example.org");
    let secret = svid(&ca).x509_svid_key;
    let bad: [(&str, X509svidWithKey); 5] = [
        ("no SVID", X509svidWithKey { x509_svid: None, ..svid(&ca) }),
        ("no key", X509svidWithKey { x509_svid_key: Vec::new(), ..svid(&ca) }),
        (
            "no certificate",
            X509svidWithKey {
                x509_svid: Some(SvidMessage {
                    cert_chain: vec![secret.clone()],
                    ..Default::default()
                }),
                x509_svid_key: secret.clone(),
            },
        ),
        ("a chain without end", {
            let leaf = svid(&ca).x509_svid.unwrap().cert_chain;
            let cert_chain = leaf.iter().cycle().take(MAX_CHAIN + 1).cloned().collect();
            let x509_svid = Some(SvidMessage { cert_chain, ..Default::default() });
            X509svidWithKey { x509_svid, ..svid(&ca) }
        }),
        ("a CA", {
            let cert_chain = vec![ca.roots()[0].der().to_vec()];
            let x509_svid = Some(SvidMessage { cert_chain, ..Default::default() });
            X509svidWithKey { x509_svid, ..svid(&ca) }
        }),
    ];
    for (what, bad) in bad {
        let error = handed_out(message(vec![bad.clone()])).unwrap_err();
        assert_eq!(error.class(), Class::Internal, "{what}");
        let given = handed_out(message(vec![bad, svid(&ca)])).unwrap().unwrap();
        assert_eq!(given.svids.len(), 1, "{what}");
    }
    let many = vec![svid(&ca); MAX_SVIDS + 1];
    assert_eq!(handed_out(message(many)).unwrap_err().class(), Class::Internal);
}

#[test]
fn the_own_bundle_must_be_good_and_a_bad_federated_one_is_left_out() {
    let own = domain("example.org");
    let der = |name| authority(name).roots()[0].der().to_vec();
    let good = [
        ("spiffe://example.org".to_owned(), der("example.org")),
        ("spiffe://a.example".to_owned(), der("a.example")),
        ("spiffe://bad.example".to_owned(), b"no DER".to_vec()),
        ("spiffe://a.example/path".to_owned(), der("a.example")),
        ("neither".to_owned(), der("a.example")),
    ];
    let bundles = x509_bundles(good.clone().into(), &own).unwrap();
    let found: Vec<&str> = bundles.keys().map(TrustDomain::as_str).collect();
    assert_eq!(found, ["a.example", "example.org"]);

    let mut bad = HashMap::from(good);
    bad.insert("spiffe://example.org".to_owned(), Vec::new());
    assert_eq!(x509_bundles(bad.clone(), &own).unwrap_err().class(), Class::Internal);
    bad.remove("spiffe://example.org");
    let error = x509_bundles(bad.clone(), &own).unwrap_err();
    assert_eq!(error.class(), Class::NotReady);
    assert!(error.to_string().contains("only of: a.example"), "{error}");
    for n in 0..=MAX_FEDERATED {
        bad.insert(format!("spiffe://{n}.example"), Vec::new());
    }
    assert_eq!(x509_bundles(bad, &own).unwrap_err().class(), Class::Internal);
}

#[test]
fn jwt_keys_come_in_the_order_of_their_names_whatever_order_they_are_given_in() {
    let keys: Vec<JwtAuthority> = (0..4)
        .map(|_| JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap().authority().clone())
        .collect();
    let set = |keys: Vec<Value>| {
        let json = serde_json::json!({ "keys": keys }).to_string().into_bytes();
        HashMap::from([("spiffe://example.org".to_owned(), json)])
    };
    let jwks = |keys: &[JwtAuthority]| -> Vec<Value> {
        keys.iter().map(|key| Value::Object(key.to_jwk(None))).collect()
    };
    let mut backwards = jwks(&keys);
    backwards.reverse();
    // Of a kind that nobody here verifies.
    backwards.push(serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": "", "kid": "a" }));
    let one = jwt_bundles(set(jwks(&keys))).unwrap();
    assert_eq!(one, jwt_bundles(set(backwards)).unwrap());
    assert_eq!(one[&domain("example.org")].len(), 4);

    let mut nameless = jwks(&keys);
    nameless[0].as_object_mut().unwrap().remove("kid");
    for bad in [set(nameless), [("spiffe://a.example".to_owned(), b"{}".to_vec())].into()] {
        assert_eq!(jwt_bundles(bad).unwrap_err().class(), Class::Internal);
    }
}
