//! Trust bundles in PEM and JWKS.

use serde_json::{Value, json};

use super::*;

fn bundle() -> TrustBundle {
    let roots = KeyAlgorithm::ALL
        .into_iter()
        .map(|algorithm| {
            Authority::create(&td(), algorithm, DAY, now()).unwrap().certificate().clone()
        })
        .collect();
    TrustBundle::new(td(), roots).unwrap()
}

fn read(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_jwks(td(), document.to_string().as_bytes())
}

fn document(bundle: &TrustBundle) -> Value {
    serde_json::from_str(&bundle.to_jwks()).unwrap()
}

#[test]
fn jwks_and_pem_round_trip() {
    let plain = bundle();
    assert_eq!(TrustBundle::from_jwks(td(), plain.to_jwks().as_bytes()).unwrap(), plain);
    assert_eq!(TrustBundle::from_pem(td(), &plain.to_pem()).unwrap(), plain);

    let dated = plain
        .clone()
        .with_sequence(Some(u64::MAX))
        .with_refresh_hint(Some(Duration::from_secs(300)));
    assert_ne!(dated, plain);
    let back = TrustBundle::from_jwks(td(), dated.to_jwks().as_bytes()).unwrap();
    assert_eq!(back, dated);
    assert_eq!(back.sequence(), Some(u64::MAX));
    assert_eq!(back.refresh_hint(), Some(Duration::from_secs(300)));
}

// X509-SVID §6.1, RFC 7518 §6.
#[test]
fn written_keys_have_the_members_of_the_standard_and_no_kid() {
    let document = document(&bundle());
    let keys = document["keys"].as_array().unwrap();
    let expected = [
        ("EC", Some("P-256"), 43),
        ("EC", Some("P-384"), 64),
        ("OKP", Some("Ed25519"), 43),
        ("RSA", None, 342),
        ("RSA", None, 683),
    ];
    assert_eq!(keys.len(), expected.len());
    for (key, (kty, crv, length)) in keys.iter().zip(expected) {
        assert_eq!(key["kty"], kty);
        assert_eq!(key["use"], "x509-svid");
        assert_eq!(key.get("crv").and_then(Value::as_str), crv);
        assert!(key.get("kid").is_none());
        assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
        let number = if kty == "RSA" { "n" } else { "x" };
        assert_eq!(key[number].as_str().unwrap().len(), length, "{kty} {crv:?}");
        assert_eq!(key.get("y").is_some(), kty == "EC");
        assert_eq!(key.get("e").is_some(), kty == "RSA");
    }
    assert_eq!(keys[3]["e"], "AQAB");
    assert!(document.get("spiffe_sequence").is_none());
    assert!(document.get("spiffe_refresh_hint").is_none());
}

// Bundle §4.2.
#[test]
fn unknown_types_and_uses_are_ignored() {
    let one = authority().bundle();
    let mut document = document(&one);
    let good = document["keys"][0].clone();
    let keys = document["keys"].as_array_mut().unwrap();
    for (member, value) in [
        ("kty", json!("AKP")),
        ("kty", json!(7)),
        ("kty", Value::Null),
        ("use", json!("wit-svid")),
        ("use", json!("sig")),
        ("use", Value::Null),
    ] {
        let mut other = good.clone();
        other[member] = value;
        other["x5c"] = json!("nonsense");
        keys.push(other);
    }
    keys.extend([json!(1), json!("x"), Value::Null, json!([]), json!({})]);
    document["spiffe_future"] = json!({"a": 1});
    assert_eq!(read(&document).unwrap(), one);
}

// Bundle §4.1.3; DESIGN.md §2, invariant 6: never empty by accident.
#[test]
fn missing_and_empty_keys_are_refused() {
    assert_eq!(read(&json!({})), Err(BundleError::NoKeys));
    assert_eq!(read(&json!({"keys": null})), Err(BundleError::NoKeys));
    let empty = BundleError::Empty { trust_domain: td() };
    assert_eq!(read(&json!({"keys": []})), Err(empty.clone()));
    assert_eq!(read(&json!({"keys": [{"kty": "EC", "use": "jwt-svid"}]})), Err(empty.clone()));
    assert_eq!(TrustBundle::new(td(), Vec::new()), Err(empty.clone()));
    assert_eq!(TrustBundle::from_pem(td(), "\n"), Err(empty.clone()));
    assert_eq!(TrustBundle::from_pem(td(), &key().to_pem()), Err(empty));
}

#[test]
fn other_shapes_are_refused() {
    for bad in [
        json!([]),
        json!({"keys": {}}),
        json!({"keys": "x"}),
        json!({"keys": [], "spiffe_sequence": -1}),
        json!({"keys": [], "spiffe_sequence": 1.5}),
        json!({"keys": [], "spiffe_refresh_hint": "300"}),
    ] {
        assert!(matches!(read(&bad), Err(BundleError::Json { .. })), "{bad}");
    }
    for bad in [&b""[..], b"{", b"\xff\xfe", &[b'['; 100_000]] {
        assert!(matches!(TrustBundle::from_jwks(td(), bad), Err(BundleError::Json { .. })));
    }
}

// X509-SVID §6.1.
#[test]
fn x5c_has_exactly_one_certificate() {
    let document = document(&authority().bundle());
    let x5c = document["keys"][0]["x5c"][0].clone();
    for bad in [Value::Null, json!([]), json!([x5c, x5c]), json!(x5c), json!([1])] {
        let mut document = document.clone();
        document["keys"][0]["x5c"] = bad;
        assert_eq!(read(&document), Err(BundleError::X5c { index: 1 }));
    }
    for bad in ["", "!", "AQID"] {
        let mut document = document.clone();
        document["keys"][0]["x5c"] = json!([bad]);
        assert!(matches!(read(&document), Err(BundleError::Pki(_))), "{bad}");
    }
}

#[test]
fn leaves_are_no_authorities() {
    let authority = authority();
    let leaf = issue(&authority, &key()).leaf().clone();
    assert!(matches!(
        TrustBundle::new(td(), vec![authority.certificate().clone(), leaf]),
        Err(BundleError::NotCa { index: 2, .. })
    ));
}

#[test]
fn a_cut_off_pem_file_is_no_smaller_bundle() {
    let text = bundle().to_pem();
    for end in 0..text.len() - 1 {
        let Some(cut) = text.get(..end) else { continue };
        if let Ok(smaller) = TrustBundle::from_pem(td(), cut) {
            // Only a cut between two blocks reads.
            assert!(cut.trim_end().ends_with("-----END CERTIFICATE-----"));
            assert!(smaller.x509_authorities().len() < 5);
        }
    }
}

#[test]
fn authorities_are_ordered_and_none_is_there_twice() {
    let (a, b) = (authority().certificate().clone(), authority().certificate().clone());
    let bundle = TrustBundle::new(td(), vec![a.clone(), b.clone(), a.clone()]).unwrap();
    assert_eq!(bundle.x509_authorities(), [a.clone(), b.clone()]);
    let swapped = TrustBundle::new(td(), vec![b.clone(), a.clone()]).unwrap();
    assert_ne!(bundle, swapped);
    assert!(bundle.contains(&a));
    assert!(!bundle.contains(authority().certificate()));
}

#[test]
fn merging_adds_what_is_missing_but_never_another_trust_domain() {
    let one = authority().bundle().with_sequence(Some(3));
    let two = authority().bundle().with_sequence(Some(2));
    let both = one.merged(&two).merged(&two);
    assert_eq!(both.x509_authorities(), [one.x509_authorities(), two.x509_authorities()].concat());
    assert_eq!(both.sequence(), Some(3));
    let foreign =
        TrustBundle::new("other.org".parse().unwrap(), two.x509_authorities().to_vec()).unwrap();
    assert_eq!(one.merged(&foreign), one);
}
