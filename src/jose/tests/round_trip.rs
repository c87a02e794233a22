//! What is signed is verified, and nothing else is.

use proptest::prelude::*;

use super::*;

#[test]
fn a_token_of_each_kind_of_key_says_what_it_was_told_and_verifies() {
    for (algorithm, name) in [
        (JwtKeyAlgorithm::Rs256, "RS256"),
        (JwtKeyAlgorithm::Es256, "ES256"),
        (JwtKeyAlgorithm::Es384, "ES384"),
    ] {
        let key = key(algorithm);
        let wished = JwtClaims {
            issued_at: now() + Duration::from_millis(999),
            issuer: Some("https://issuer.example.org".to_owned()),
            jti: true,
            extra: Default::default(),
            ..claims()
        };
        let svid = key.sign(&wished).unwrap();
        assert_eq!(svid.id(), &id());
        assert_eq!(svid.audience(), wished.audience);
        assert_eq!(svid.issued_at(), now(), "whole seconds");
        assert_eq!(svid.expires_at(), wished.expires_at);

        let (header, said) = parts(svid.token());
        let kid = key.authority().key_id();
        assert_eq!(header, json!({"alg": name, "kid": kid, "typ": "JWT"}));
        assert_eq!(said["sub"], id().as_str());
        assert_eq!(said["aud"], json!([AUDIENCE, "other"]), "a list always");
        assert_eq!(said["iss"], "https://issuer.example.org");
        assert_eq!(said["iat"].to_string(), "1800000000", "an integer: AWS takes no other");
        assert_eq!(said["exp"].to_string(), "1800000300");
        assert_eq!(said["jti"].as_str().unwrap().len(), 22, "128 bits");
        assert_eq!(said.as_object().unwrap().len(), 6);

        let good = check(svid.token(), &bundle(&[&key])).unwrap();
        assert_eq!((&good.id, good.expires_at), (&id(), svid.expires_at()));
        assert_eq!(Value::Object(good.claims), said);

        let back = JwtSvid::parse(&format!("{}\n", svid.token())).unwrap();
        assert_eq!(back.token(), svid.token());
        assert_eq!((back.id(), back.audience()), (svid.id(), svid.audience()));
        assert_eq!((back.issued_at(), back.expires_at()), (svid.issued_at(), svid.expires_at()));
    }
}

#[test]
fn two_tokens_with_jti_differ_and_without_have_none() {
    let key = key(JwtKeyAlgorithm::Rs256);
    let sign = |jti| key.sign(&JwtClaims { jti, ..claims() }).unwrap().token().to_owned();
    assert_ne!(sign(true), sign(true));
    // RSASSA-PKCS1-v1_5 has no randomness of its own.
    assert_eq!(sign(false), sign(false));
    assert!(parts(&sign(false)).1.get("jti").is_none());
}

#[test]
fn a_key_survives_pem_and_keeps_its_name() {
    for algorithm in JwtKeyAlgorithm::ALL {
        let key = key(algorithm);
        let pem = key.to_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS#8");
        let back = JwtKey::from_pem(&pem).unwrap();
        assert_eq!(back.algorithm(), algorithm);
        assert_eq!(back.authority(), key.authority());
        let token = back.sign(&claims()).unwrap();
        check(token.token(), &bundle(&[&key])).unwrap();
    }
}

#[test]
fn an_authority_survives_its_jwk() {
    for algorithm in JwtKeyAlgorithm::ALL {
        let key = key(algorithm);
        let jwk = Value::Object(key.authority().to_jwk(Some("jwt-svid")));
        assert_eq!(jwk["use"], "jwt-svid");
        assert_eq!(&JwtAuthority::from_jwk(&jwk).unwrap(), key.authority());
        assert_eq!(key.authority().key_id().len(), 43, "SHA-256");
        assert!(jwk.get("d").is_none() && jwk.get("p").is_none(), "nothing private");
    }
}

/// DESIGN.md §2, invariant 1.
#[test]
fn debug_shows_no_secret() {
    let key = key(JwtKeyAlgorithm::Es256);
    let svid = key.sign(&claims()).unwrap();
    let good = check(svid.token(), &bundle(&[&key])).unwrap();
    let signature = svid.token().rsplit('.').next().unwrap().to_owned();
    let pem = key.to_pem().unwrap();
    let secret = pem.lines().nth(1).unwrap();
    for shown in [format!("{svid:?}"), format!("{key:?}"), format!("{good:?}")] {
        assert!(!shown.contains(&signature) && !shown.contains("eyJ") && !shown.contains(secret));
        assert!(!shown.contains("sub"), "{shown}");
    }
}

#[test]
fn what_nobody_would_accept_is_not_signed() {
    let key = key(JwtKeyAlgorithm::Es256);
    let sign = |claims| key.sign(&claims).map(|svid| svid.token().len());
    assert_eq!(sign(JwtClaims { audience: vec![], ..claims() }), Err(JwtError::NoAudience));
    let empty = vec!["a".to_owned(), String::new()];
    assert_eq!(sign(JwtClaims { audience: empty, ..claims() }), Err(JwtError::NoAudience));
    assert_eq!(sign(JwtClaims { expires_at: now(), ..claims() }), Err(JwtError::Lifetime));
    let long = vec!["x".repeat(MAX_TOKEN)];
    assert!(matches!(
        sign(JwtClaims { audience: long, ..claims() }),
        Err(JwtError::TooLong { length }) if length > MAX_TOKEN
    ));
}

#[test]
fn every_flipped_bit_is_seen() {
    for algorithm in JwtKeyAlgorithm::ALL {
        let key = key(algorithm);
        let authorities = bundle(&[&key]);
        let svid = key.sign(&claims()).unwrap();
        let good = svid.token().as_bytes();
        check(svid.token(), &authorities).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                // A token is a string of UTF-8 in every protocol that carries it.
                if let Ok(bad) = String::from_utf8(bad) {
                    assert!(check(&bad, &authorities).is_err(), "bit {bit} of byte {at}");
                }
            }
        }
        for end in 0..good.len() {
            assert!(check(&svid.token()[..end], &authorities).is_err(), "cut at {end}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_signed_is_read_back(
        audience in proptest::collection::vec("\\PC{1,40}", 1..5),
        path in "(/[a-zA-Z0-9._-]{1,10}x){1,4}",
        issuer in proptest::option::of("https://[a-z]{1,20}"),
        life in 1_u64..100_000,
        jti: bool,
    ) {
        let key = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
        let domain: TrustDomain = "example.org".parse().unwrap();
        let wished = JwtClaims {
            id: SpiffeId::new(&domain, &path).unwrap(),
            audience,
            issued_at: now(),
            expires_at: now() + Duration::from_secs(life),
            issuer,
            jti,
            extra: Default::default(),
        };
        let svid = key.sign(&wished).unwrap();
        let authorities = bundle(&[&key]);
        for audience in &wished.audience {
            let good = verify(svid.token(), audience, |_| Some(authorities.clone()), now()).unwrap();
            prop_assert_eq!(&good.id, &wished.id);
            prop_assert_eq!(good.expires_at, wished.expires_at);
        }
    }

    #[test]
    fn hostile_text_is_refused(
        token in "([A-Za-z0-9_.=-]|eyJhbGciOiJFUzI1NiJ9|\\.|e30|é){0,40}",
    ) {
        let key = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
        prop_assert!(check(&token, &bundle(&[&key])).is_err());
    }
}
