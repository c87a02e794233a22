//! Each rule of JWT-SVID.md, and what breaks it.

use aws_lc_rs::hmac;

use super::*;

/// A token with this header and these claims, well signed by the key.
fn forge(key: &JwtKey, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    format!("{message}.{}", key.signature(message.as_bytes()))
}

fn header(key: &JwtKey) -> Value {
    let algorithm = key.algorithm().jwt_algorithm();
    json!({"alg": algorithm.as_str(), "kid": key.authority().key_id(), "typ": "JWT"})
}

fn body() -> Value {
    json!({"sub": id().as_str(), "aud": [AUDIENCE], "exp": 1_800_000_300_u64, "iat": 1_800_000_000_u64})
}

/// The object with these members changed; `null` takes one away.
fn with(object: &Value, changes: &Value) -> Value {
    let mut object = object.clone();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

// JWT-SVID §2.
#[test]
fn the_header_has_alg_kid_and_typ_and_no_other() {
    let key = key(JwtKeyAlgorithm::Es256);
    let authorities = bundle(&[&key]);
    let attempt = |changes: Value| {
        check(&forge(&key, &with(&header(&key), &changes), &body()), &authorities).map(drop)
    };
    for good in [json!({}), json!({"typ": "JOSE"}), json!({"typ": null}), json!({"kid": null})] {
        assert_eq!(attempt(good.clone()), Ok(()), "{good}");
    }
    for (bad, error) in [
        (json!({"alg": "none"}), JwtError::Algorithm),
        (json!({"alg": "None"}), JwtError::Algorithm),
        (json!({"alg": "HS256"}), JwtError::Algorithm),
        (json!({"alg": "EdDSA"}), JwtError::Algorithm),
        (json!({"alg": "Ed25519"}), JwtError::Algorithm),
        (json!({"alg": "ES256K"}), JwtError::Algorithm),
        (json!({"alg": "es256"}), JwtError::Algorithm),
        (json!({"alg": ["ES256"]}), JwtError::Algorithm),
        (json!({"alg": null}), JwtError::Algorithm),
        (json!({"alg": "ES384"}), JwtError::KeyMismatch { algorithm: JwtAlgorithm::Es384 }),
        (json!({"alg": "RS256"}), JwtError::KeyMismatch { algorithm: JwtAlgorithm::Rs256 }),
        (json!({"kid": ""}), JwtError::KeyId),
        (json!({"kid": 1}), JwtError::KeyId),
        (json!({"kid": "x"}), JwtError::UnknownKey { trust_domain: "example.org".to_owned() }),
        (json!({"typ": "jwt"}), JwtError::Type),
        (json!({"typ": "wit+jwt"}), JwtError::Type),
        (json!({"typ": 1}), JwtError::Type),
        (json!({"crit": ["exp"]}), JwtError::Header),
        (json!({"b64": false}), JwtError::Header),
        (json!({"jku": "https://evil.example"}), JwtError::Header),
        (json!({"jwk": key.authority().to_jwk(None)}), JwtError::Header),
        (json!({"cty": "JWT"}), JwtError::Header),
    ] {
        assert_eq!(attempt(bad.clone()), Err(error), "{bad}");
    }
}

// JWT-SVID §3.
#[test]
fn claims_follow_the_standard() {
    let key = key(JwtKeyAlgorithm::Es256);
    let authorities = bundle(&[&key]);
    let attempt = |changes: Value| {
        check(&forge(&key, &header(&key), &with(&body(), &changes)), &authorities).map(drop)
    };
    for good in [
        json!({}),
        json!({"aud": AUDIENCE}),
        json!({"aud": ["x", AUDIENCE]}),
        json!({"iat": null}),
        json!({"exp": 1_800_000_000.5}),
        json!({"exp": 1_800_000_001}),
        json!({"exp": 253_402_300_799_u64}),
        json!({"exp": 1.9e9}),
        json!({"nbf": 1_800_000_060}),
        json!({"iat": 1_800_000_060}),
        json!({"scope": {"a": [1, 2.5, null, {"b": true}]}}),
    ] {
        assert_eq!(attempt(good.clone()), Ok(()), "{good}");
    }
    let time = |claim| JwtError::Time { claim };
    for (bad, error) in [
        (json!({"sub": null}), JwtError::Subject),
        (json!({"sub": 1}), JwtError::Subject),
        (json!({"sub": "me"}), JwtError::Subject),
        (json!({"sub": "https://example.org/a"}), JwtError::Subject),
        (json!({"sub": "spiffe://example.org/a/../b"}), JwtError::Subject),
        (json!({"aud": null}), JwtError::Audience),
        (json!({"aud": []}), JwtError::Audience),
        (json!({"aud": [AUDIENCE, 1]}), JwtError::Audience),
        (json!({"aud": {AUDIENCE: 1}}), JwtError::Audience),
        (json!({"aud": "other"}), JwtError::WrongAudience),
        (json!({"aud": [AUDIENCE.to_uppercase()]}), JwtError::WrongAudience),
        (json!({"exp": null}), JwtError::NoExpiry),
        (json!({"exp": "1800000300"}), time("exp")),
        (json!({"exp": true}), time("exp")),
        (json!({"exp": -1}), time("exp")),
        (json!({"exp": 253_402_300_800_u64}), time("exp")),
        (json!({"exp": u64::MAX}), time("exp")),
        (json!({"exp": 1e300}), time("exp")),
        (json!({"exp": 0}), JwtError::Expired),
        (json!({"exp": 1_800_000_000}), JwtError::Expired),
        (json!({"exp": 1_799_999_999.999}), JwtError::Expired),
        (json!({"nbf": 1_800_000_061}), JwtError::NotYet),
        (json!({"nbf": "now"}), time("nbf")),
        (json!({"iat": 1_800_000_061}), JwtError::IssuedInFuture),
        (json!({"iat": []}), time("iat")),
    ] {
        assert_eq!(attempt(bad.clone()), Err(error), "{bad}");
    }
}

#[test]
fn a_kind_of_key_is_never_taken_for_another() {
    let keys = JwtKeyAlgorithm::ALL.map(key);
    let authorities = bundle(&keys.each_ref());
    for signing in &keys {
        for named in &keys {
            for algorithm in JwtAlgorithm::ALL {
                let kid = named.authority().key_id();
                let header = json!({"alg": algorithm.as_str(), "kid": kid});
                let found = check(&forge(signing, &header, &body()), &authorities);
                let same = std::ptr::eq(signing, named);
                let right = same && signing.algorithm().jwt_algorithm() == algorithm;
                assert_eq!(found.is_ok(), right, "{signing:?} as {named:?} with {algorithm}");
            }
        }
    }
    // The oldest trick: the public key as the secret of an HMAC.
    for key in &keys {
        let public = json!(key.authority().to_jwk(None)).to_string();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
        for alg in ["HS256", "RS256", "ES256"] {
            let header = json!({"alg": alg, "kid": key.authority().key_id()});
            let message = format!("{}.{}", encode(&header), encode(&body()));
            let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, message.as_bytes()));
            assert!(check(&format!("{message}.{tag}"), &authorities).is_err(), "{alg}");
        }
        let none = json!({"alg": "none"});
        let unsigned = format!("{}.{}.", encode(&none), encode(&body()));
        assert_eq!(check(&unsigned, &authorities), Err(JwtError::Algorithm));
        let unsigned = format!("{}.{}.", encode(&header(key)), encode(&body()));
        assert_eq!(check(&unsigned, &authorities), Err(JwtError::Signature));
    }
}

#[test]
fn a_key_that_names_its_algorithm_verifies_nothing_else() {
    let key = key(JwtKeyAlgorithm::Rs256);
    let token = key.sign(&claims()).unwrap();
    let mut jwk = Value::Object(key.authority().to_jwk(None));
    for (alg, taken) in [("RS256", true), ("RS384", false), ("PS256", false)] {
        jwk["alg"] = json!(alg);
        let authority = JwtAuthority::from_jwk(&jwk).unwrap();
        assert_eq!(Value::Object(authority.to_jwk(None)), jwk, "it is kept");
        assert_eq!(check(token.token(), &vec![authority].into()).is_ok(), taken, "{alg}");
    }
    for bad in ["ES256", "none", "EdDSA", "RSA-OAEP"] {
        jwk["alg"] = json!(bad);
        assert_eq!(JwtAuthority::from_jwk(&jwk), Err(JwkError::Unsupported), "{bad}");
    }
}

#[test]
fn without_a_kid_every_fitting_key_is_tried_up_to_a_bound() {
    let signing = key(JwtKeyAlgorithm::Es256);
    let others: Vec<JwtKey> = (0..8).map(|_| key(JwtKeyAlgorithm::Es256)).collect();
    let rsa = key(JwtKeyAlgorithm::Rs256);
    let token = forge(&signing, &json!({"alg": "ES256"}), &body());
    let attempt = |count: usize| {
        let mut keys = vec![&rsa];
        keys.extend(others.iter().take(count));
        keys.push(&signing);
        check(&token, &bundle(&keys)).map(drop)
    };
    assert_eq!(attempt(0), Ok(()));
    assert_eq!(attempt(7), Ok(()));
    assert_eq!(attempt(8), Err(JwtError::Signature), "eight were tried");
    assert_eq!(
        check(&token, &bundle(&[&rsa])).map(drop),
        Err(JwtError::KeyMismatch { algorithm: JwtAlgorithm::Es256 })
    );
}

// Workload API §6.3, Federation §4.2.
#[test]
fn only_the_subjects_own_trust_domain_vouches_for_it() {
    let (own, foreign) = (key(JwtKeyAlgorithm::Es256), key(JwtKeyAlgorithm::Es256));
    let of = |domain: &TrustDomain| match domain.as_str() {
        "example.org" => Some(bundle(&[&own])),
        "partner.org" => Some(bundle(&[&foreign])),
        _ => None,
    };
    let attempt = |key: &JwtKey, sub: &str| {
        let claims = with(&body(), &json!({ "sub": sub }));
        verify(&forge(key, &header(key), &claims), AUDIENCE, of, now()).map(|good| good.id)
    };
    let partner = "spiffe://partner.org/a";
    assert_eq!(attempt(&foreign, partner), Ok(partner.parse().unwrap()));
    let unknown = |trust_domain: &str| JwtError::UnknownKey { trust_domain: trust_domain.into() };
    assert_eq!(attempt(&foreign, id().as_str()), Err(unknown("example.org")));
    assert_eq!(attempt(&own, partner), Err(unknown("partner.org")));
    assert_eq!(
        attempt(&own, "spiffe://elsewhere.org/a"),
        Err(JwtError::NoBundle { trust_domain: "elsewhere.org".into() })
    );
}

#[test]
fn other_forms_are_refused_before_any_work() {
    let key = key(JwtKeyAlgorithm::Es256);
    let authorities = bundle(&[&key]);
    let good = forge(&key, &header(&key), &body());
    let [h, c, s]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let base64 = |part| JwtError::Base64 { part };
    let json_error = |part, problem| JwtError::Json { part, problem };
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","alg":"none"}"#);
    let subjects = URL_SAFE_NO_PAD.encode(r#"{"sub":"spiffe://example.org/a","sub":"b"}"#);
    let deep = URL_SAFE_NO_PAD.encode(format!("{{\"a\":{}", "[".repeat(5_000)));
    for (bad, error) in [
        (String::new(), JwtError::NotCompact),
        ("..".to_owned(), json_error("header", "it is no JSON")),
        (format!("{h}.{c}"), JwtError::NotCompact),
        (format!("{good}."), JwtError::NotCompact),
        (format!("{h}.{c}.{s}.{s}"), JwtError::NotCompact),
        (format!("{h}.{c}.{s}="), base64("signature")),
        (format!("{h}.{c}.{s} "), base64("signature")),
        (format!(" {good}"), base64("header")),
        (format!("{h}.{c}\n.{s}"), base64("claims")),
        (format!("{h}.{}.{s}", c.replace(char::is_alphabetic, "+")), base64("claims")),
        (format!("{twice}.{c}.{s}"), json_error("header", "a member is there twice")),
        (format!("{h}.{subjects}.{s}"), json_error("claims", "a member is there twice")),
        (format!("{h}.{deep}.{s}"), json_error("claims", "it is nested too deeply")),
        (format!("{h}.{}.{s}", encode(&json!([]))), json_error("claims", "it is no object")),
        ("x".repeat(MAX_TOKEN + 1), JwtError::TooLong { length: MAX_TOKEN + 1 }),
        ("x.".repeat(50_000_000), JwtError::TooLong { length: 100_000_000 }),
    ] {
        assert_eq!(check(&bad, &authorities), Err(error), "{}", &bad[..bad.len().min(80)]);
    }
    // JWS JSON serialization (JWT-SVID §5.1).
    let flat = json!({"protected": h, "payload": c, "signature": s}).to_string();
    assert!(check(&flat, &authorities).is_err());
}

// DESIGN.md §2, invariant 1: a token is a secret.
#[test]
fn no_error_quotes_the_token() {
    let key = key(JwtKeyAlgorithm::Es256);
    let authorities = bundle(&[]);
    let mark = "Zm9vYmFyYmF6";
    let good = key.sign(&claims()).unwrap().token().to_owned();
    let changed = [
        json!({"alg": mark}),
        json!({"kid": mark}),
        json!({"typ": mark}),
        json!({mark: 1}),
        json!({"kid": {mark: 1}}),
    ];
    let mut tokens: Vec<String> =
        changed.iter().map(|c| forge(&key, &with(&header(&key), c), &body())).collect();
    for claims in [json!({"sub": mark}), json!({"aud": mark}), json!({"exp": mark})] {
        tokens.push(forge(&key, &header(&key), &with(&body(), &claims)));
    }
    tokens.extend([mark.to_owned(), format!("{mark}.{mark}.{mark}"), good.replace('.', "!")]);
    for token in tokens {
        let error = check(&token, &authorities).unwrap_err();
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains(mark) && !shown.contains("eyJ"), "{shown}");
        }
    }
}

#[test]
fn keys_that_are_none_are_refused() {
    let jwk = |algorithm| Value::Object(key(algorithm).authority().to_jwk(None));
    let (ec, rsa) = (jwk(JwtKeyAlgorithm::Es256), jwk(JwtKeyAlgorithm::Rs256));
    let read = |jwk: &Value| JwtAuthority::from_jwk(jwk).map(drop);
    let member = |member| Err(JwkError::Member { member });
    let number = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
    let off_curve = number(&[1; 32]);
    for (base, changes, expected) in [
        (&ec, json!({"kid": null}), Err(JwkError::NoKeyId)),
        (&ec, json!({"kid": ""}), Err(JwkError::NoKeyId)),
        (&ec, json!({"kid": 5}), Err(JwkError::NoKeyId)),
        (&ec, json!({"kid": "k".repeat(1025)}), member("kid")),
        (&ec, json!({"kty": "OKP", "crv": "Ed25519"}), Err(JwkError::Unsupported)),
        (&ec, json!({"kty": "oct", "k": "AAAA"}), Err(JwkError::Unsupported)),
        (&ec, json!({"kty": null}), Err(JwkError::Unsupported)),
        (&ec, json!({"crv": "secp256k1"}), Err(JwkError::Unsupported)),
        (&ec, json!({"crv": "P-384"}), member("point")),
        (&ec, json!({"x": off_curve}), member("point")),
        (&ec, json!({"x": "AA=="}), member("x")),
        (&ec, json!({"y": null}), member("y")),
        (&rsa, json!({"n": null}), member("n")),
        (&rsa, json!({"e": "!"}), member("e")),
        (&rsa, json!({"n": number(&[0xff; 128])}), Err(JwkError::Unsupported)),
        (&rsa, json!({"n": number(&[0xff; 1025])}), Err(JwkError::Unsupported)),
        (&rsa, json!({"n": number(&[0xfe; 256])}), Err(JwkError::Unsupported)),
        (&rsa, json!({"e": number(&[1])}), Err(JwkError::Unsupported)),
        (&rsa, json!({"e": number(&[0xff; 200])}), Err(JwkError::Unsupported)),
        (&rsa, json!({"d": number(&[7]), "x5c": 1, "key_ops": "x"}), Ok(())),
    ] {
        assert_eq!(read(&with(base, &changes)), expected, "{changes}");
    }
    for other in [json!(null), json!([]), json!("RSA")] {
        assert_eq!(read(&other), Err(JwkError::Unsupported));
    }
    // Some writers put a zero before the modulus; the key is the same.
    let n = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
    let padded = with(&rsa, &json!({"n": number(&[&[0], &n[..]].concat())}));
    assert_eq!(JwtAuthority::from_jwk(&padded), JwtAuthority::from_jwk(&rsa));
}

#[test]
fn private_keys_of_other_kinds_are_refused() {
    let pem = |key: &JwtKey| key.to_pem().unwrap().to_string();
    let good = pem(&key(JwtKeyAlgorithm::Es256));
    let sec1 = good.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let encrypted = good.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let ed25519 = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let ed25519 = ed25519.to_pkcs8v1().unwrap();
    let ed25519 = crate::encoding::pem::write("PRIVATE KEY", ed25519.as_ref()).to_string();
    for (text, error) in [
        (String::new(), JwtKeyError::NoKey),
        ("garbage".to_owned(), JwtKeyError::NoKey),
        (good.repeat(2), JwtKeyError::SeveralKeys),
        (sec1, JwtKeyError::Unusable),
        (encrypted, JwtKeyError::Unusable),
        (ed25519, JwtKeyError::Unusable),
        (good.replace("MI", "MA"), JwtKeyError::Unusable),
    ] {
        assert_eq!(JwtKey::from_pem(&text).map(drop), Err(error), "{text:.40}");
    }
    assert!(matches!(JwtKey::from_pem(&good[..100]).map(drop), Err(JwtKeyError::Pem(_))));
}
