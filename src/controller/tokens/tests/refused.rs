//! Each thing that makes a token no good.

use aws_lc_rs::hmac;

use super::*;

async fn table(bench: &Bench, cases: &[(Value, &str)]) {
    for (changes, problem) in cases {
        let found = bench.verify(&bench.token(changes.clone())).await;
        match *problem {
            "" => assert_eq!(found, Ok(()), "{changes}"),
            problem => {
                let found = found.expect_err(&changes.to_string());
                assert!(found.contains(problem), "{changes}: {found}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_for_us_alone() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let other = "must be for the audience svid.dev and for no other";
    table(
        &bench,
        &[
            (json!({"aud": ["svid.dev"]}), ""),
            (json!({"aud": "svid.dev"}), ""),
            (json!({"aud": [ISSUER]}), other),
            (json!({"aud": "vault"}), other),
            (json!({"aud": ["svid.dev", "vault"]}), other),
            (json!({"aud": ["vault", "svid.dev"]}), other),
            (json!({"aud": ["svid.dev", "svid.dev"]}), other),
            (json!({"aud": "SVID.DEV"}), other),
            (json!({"aud": ""}), other),
            (json!({"aud": null}), "the token's aud"),
            (json!({"aud": []}), "the token's aud"),
            (json!({"aud": ["svid.dev", 1]}), "the token's aud"),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_of_now() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    table(
        &bench,
        &[
            (json!({"exp": NOW + 1}), ""),
            (json!({"exp": NOW}), "has expired"),
            (json!({"exp": NOW - 3_600}), "has expired"),
            (json!({"exp": null}), "has no exp"),
            (json!({"exp": "never"}), "the token's exp is not a time"),
            (json!({"nbf": NOW + 60}), ""),
            (json!({"nbf": NOW + 61}), "not valid yet"),
            (json!({"iat": NOW + 61}), "not valid yet"),
            (json!({"nbf": "now"}), "the token's nbf is not a time"),
            (json!({"nbf": null, "iat": null}), ""),
        ],
    )
    .await;
}

// DESIGN.md invariant 5: only what is bound to a pod on a node says whose node may ask.
#[tokio::test(start_paused = true)]
async fn a_token_is_bound_to_a_pod_on_a_node() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let (account, pod, node) =
        ("is no bound ServiceAccount token", "bound to no pod", "bound to no node");
    let long = "x".repeat(254);
    table(
        &bench,
        &[
            (json!({"kubernetes.io": null}), account),
            (json!({"kubernetes.io": "shop"}), account),
            (json!({"/kubernetes.io/namespace": null}), account),
            (json!({"/kubernetes.io/namespace": ""}), account),
            (json!({"/kubernetes.io/serviceaccount": null}), account),
            (json!({"/kubernetes.io/serviceaccount": {"name": "cart"}}), account),
            (json!({"/kubernetes.io/pod": null}), pod),
            (json!({"/kubernetes.io/pod": {"name": "cart-0"}}), pod),
            (json!({"/kubernetes.io/pod": {"name": "cart-0", "uid": ""}}), pod),
            (json!({"/kubernetes.io/pod": {"name": long, "uid": "p-1"}}), pod),
            // As a token for a Secret is.
            (json!({"/kubernetes.io/pod": null, "/kubernetes.io/secret": {"name": "s", "uid": "u"}}), pod),
            (json!({"/kubernetes.io/node": null}), node),
            (json!({"/kubernetes.io/node": {"uid": "n-1"}}), node),
            (json!({"sub": null}), account),
            (json!({"sub": "system:serviceaccount:shop:other"}), account),
            (json!({"sub": "spiffe://example.org/ns/shop/sa/cart"}), account),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_is_never_taken_for_another_kind() {
    for algorithm in JwtKeyAlgorithm::ALL {
        let bench = Bench::new(algorithm).await;
        let alg = algorithm.jwt_algorithm().as_str();
        let key = &bench.key;
        for (changes, problem) in [
            (json!({"alg": "none"}), "the token's alg is not one of"),
            (json!({"alg": "HS256"}), "the token's alg is not one of"),
            (json!({"alg": "EdDSA"}), "the token's alg is not one of"),
            (json!({"kid": null}), "names no key"),
            (json!({"kid": ""}), "the token's kid"),
            (json!({"jwk": jwk(key)}), "a member other than alg, kid and typ"),
            (json!({"jku": "https://evil.example"}), "a member other than alg, kid and typ"),
            (json!({"crit": ["exp"]}), "a member other than alg, kid and typ"),
        ] {
            let forged = sign(key, &with(&header(key), &changes), &body());
            let found = bench.verify(&forged).await.unwrap_err();
            assert!(found.contains(problem), "{changes}: {found}");
        }
        for other in ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512"] {
            let forged = sign(key, &with(&header(key), &json!({"alg": other})), &body());
            assert_eq!(bench.verify(&forged).await.is_ok(), other == alg, "{other} for {alg}");
        }
        // The public key as the secret of an HMAC.
        let secret = hmac::Key::new(hmac::HMAC_SHA256, jwk(key).to_string().as_bytes());
        for alg in ["HS256", alg] {
            let header = with(&header(key), &json!({"alg": alg}));
            let message = format!("{}.{}", encode(&header), encode(&body()));
            let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, message.as_bytes()));
            assert!(bench.verify(&format!("{message}.{tag}")).await.is_err(), "{alg}");
            assert!(bench.verify(&format!("{message}.")).await.is_err(), "{alg} and no signature");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_changes_a_token_breaks_it() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let token = bench.token(json!({}));
    let other = bench.token(json!({"/kubernetes.io/pod": {"name": "cart-1", "uid": "p-2"}}));
    let parts: Vec<_> = token.split('.').collect();
    let claims = other.split('.').nth(1).unwrap();
    let swapped = format!("{}.{claims}.{}", parts[0], parts[2]);
    assert_eq!(bench.verify(&swapped).await, Err("the token's signature is wrong".to_owned()));
    let stranger = JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap();
    let forged = sign(&stranger, &header(&bench.key), &body());
    assert_eq!(bench.verify(&forged).await, Err("the token's signature is wrong".to_owned()));
    assert_eq!(bench.verify(&token).await, Ok(()), "the good one is good");
    for broken in ["", ".", "..", "...", "a.b", "a.b.c", &token[1..], &format!("{token}.x")] {
        assert!(bench.verify(broken).await.is_err(), "{broken}");
    }
    assert_eq!(bench.count(Way::Keys, "good"), 1);
    assert_eq!(bench.api.reviews(), 0, "none of it was the API server's to see");
}

#[tokio::test(start_paused = true)]
async fn a_long_token_is_not_looked_at() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let long = bench.token(json!({"padding": "x".repeat(MAX_TOKEN)}));
    let found = bench.verify(&long).await.unwrap_err();
    assert!(found.starts_with("the token has") && !found.contains("xxx"), "{found}");
    let found = bench.verify(&"x".repeat(1 << 20)).await.unwrap_err();
    assert!(found.starts_with("the token has 1048576 bytes"), "{found}");
    let close = bench.token(json!({"padding": "x".repeat(MAX_TOKEN / 2)}));
    assert_eq!(bench.verify(&close).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_good_ends_all_the_same() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let token = bench.token(json!({"exp": NOW + 600}));
    assert_eq!(bench.verify(&token).await, Ok(()));
    bench.set(NOW + 599);
    assert_eq!(bench.verify(&token).await, Ok(()));
    bench.set(NOW + 600);
    assert_eq!(bench.verify(&token).await, Err("the token has expired".to_owned()));
}
