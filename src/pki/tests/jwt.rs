//! JWT authorities in a bundle.

use serde_json::{Value, json};

use super::*;
use crate::jose::{JwkError, JwtAuthority, JwtKey, JwtKeyAlgorithm};

fn authorities() -> Vec<JwtAuthority> {
    JwtKeyAlgorithm::ALL
        .map(|algorithm| JwtKey::generate(algorithm).unwrap().authority().clone())
        .to_vec()
}

fn bundle() -> TrustBundle {
    authority().bundle().with_jwt_authorities(authorities())
}

fn document(bundle: &TrustBundle) -> Value {
    serde_json::from_str(&bundle.to_jwks()).unwrap()
}

fn read(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_jwks(td(), document.to_string().as_bytes())
}

// JWT-SVID §6.1, Bundle §4.2.
#[test]
fn keys_of_both_uses_round_trip_and_count_as_content() {
    let both = bundle();
    let back = TrustBundle::from_jwks(td(), both.to_jwks().as_bytes()).unwrap();
    assert_eq!(back, both);
    assert_eq!(back.jwt_authorities(), both.jwt_authorities());
    let without = both.clone().with_jwt_authorities(vec![]);
    assert_ne!(without, both);
    assert!(!without.same_authorities(&both));
    let reversed = both.jwt_authorities().iter().rev().cloned().collect();
    assert_ne!(both.clone().with_jwt_authorities(reversed), both, "the order counts");

    let document = document(&both);
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 4);
    for key in &keys[1..] {
        assert_eq!(key["use"], "jwt-svid");
        assert_eq!(key["kid"].as_str().unwrap().len(), 43);
        assert!(key.get("x5c").is_none() && key.get("d").is_none());
    }
}

// Workload API §6.2.2: the keys of no other use.
#[test]
fn the_jwk_set_for_jwt_has_jwt_keys_alone() {
    let both = bundle();
    let set: Value = serde_json::from_str(&both.jwt_jwks()).unwrap();
    assert_eq!(set.as_object().unwrap().len(), 1, "no SPIFFE parameters");
    let keys = set["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3);
    for (key, authority) in keys.iter().zip(both.jwt_authorities().iter()) {
        assert_eq!(key["kid"], authority.key_id());
        assert!(key.get("use").is_none() && key.get("x5c").is_none());
        assert_eq!(&JwtAuthority::from_jwk(key).unwrap(), authority);
    }
    let none: Value = serde_json::from_str(&authority().bundle().jwt_jwks()).unwrap();
    assert_eq!(none, json!({"keys": []}));
}

// Bundle §4.2, WIT-SVID §6.1.
#[test]
fn keys_that_jwt_svids_are_not_signed_with_are_ignored() {
    let both = bundle();
    let mut document = document(&both);
    let good = document["keys"][1].clone();
    let keys = document["keys"].as_array_mut().unwrap();
    for (member, value) in [
        ("use", json!("wit-svid")),
        ("use", json!("sig")),
        ("use", Value::Null),
        ("kty", json!("oct")),
        ("kty", json!("OKP")),
        ("kty", Value::Null),
        ("alg", json!("EdDSA")),
        ("alg", json!("ES384")),
        // RSA of 1024 bits.
        ("n", json!("g".repeat(171))),
    ] {
        let mut other = good.clone();
        other[member] = value;
        keys.push(other);
    }
    assert_eq!(read(&document).unwrap(), both);
}

// JWT-SVID §6.1: a bundle is taken as a whole or not at all.
#[test]
fn damaged_jwt_keys_make_a_bad_bundle() {
    let whole = document(&bundle());
    for (index, member, value, expected) in [
        (1, "kid", Value::Null, JwkError::NoKeyId),
        (2, "kid", json!(""), JwkError::NoKeyId),
        (1, "n", json!("!"), JwkError::Member { member: "n" }),
        (1, "e", Value::Null, JwkError::Member { member: "e" }),
        (2, "x", json!("AAAA"), JwkError::Member { member: "point" }),
        (3, "crv", json!("P-256"), JwkError::Member { member: "point" }),
    ] {
        let mut document = whole.clone();
        document["keys"][index][member] = value;
        let source = expected;
        assert_eq!(read(&document), Err(BundleError::Jwk { index: index + 1, source }));
    }
}

// DESIGN.md §2, invariant 6: JWT keys alone are no bundle.
#[test]
fn jwt_keys_do_not_make_up_for_missing_roots() {
    let mut document = document(&bundle());
    document["keys"].as_array_mut().unwrap().remove(0);
    assert_eq!(read(&document), Err(BundleError::Empty { trust_domain: td() }));
}

#[test]
fn merging_keeps_the_keys_of_both() {
    let (one, other) = (bundle(), bundle());
    let both = one.merged(&other).merged(&one);
    let expected = [one.jwt_authorities().to_vec(), other.jwt_authorities().to_vec()].concat();
    assert_eq!(both.jwt_authorities().to_vec(), expected);
    let foreign = TrustBundle::new("other.org".parse().unwrap(), one.x509_authorities().to_vec());
    let foreign = foreign.unwrap().with_jwt_authorities(authorities());
    assert_eq!(one.merged(&foreign), one);
}
