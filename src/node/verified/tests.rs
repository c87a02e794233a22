//! What is remembered of a token is looked at each time, and forgotten in time.

use std::{cell::Cell, time::Duration};

use super::*;
use crate::{
    id::TrustDomain,
    jose::{JwtClaims, JwtKey, JwtKeyAlgorithm},
    pki::{Authority, KeyAlgorithm},
};

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn now() -> SystemTime {
    START + Duration::from_secs(1_800_000_000)
}

fn key() -> JwtKey {
    JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap()
}

fn bundles(keys: &[&JwtKey]) -> Arc<TrustBundles> {
    let domain: TrustDomain = "example.org".parse().unwrap();
    let day = Duration::from_secs(86_400);
    let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now()).unwrap();
    let jwt = keys.iter().map(|key| key.authority().clone()).collect();
    Arc::new(TrustBundles::own(ca.bundle().with_jwt_authorities(jwt)))
}

fn token(key: &JwtKey, audience: &str) -> String {
    let claims = JwtClaims {
        id: "spiffe://example.org/ns/shop/sa/cart".parse().unwrap(),
        audience: vec![audience.to_owned(), "both".to_owned()],
        issued_at: now(),
        expires_at: now() + Duration::from_secs(300),
        issuer: None,
        jti: false,
        extra: Default::default(),
    };
    key.sign(&claims).unwrap().token().to_owned()
}

#[test]
fn a_signature_is_checked_once_and_all_else_each_time() {
    let (key, tokens, checks) = (key(), VerifiedTokens::default(), Cell::new(0));
    let (bundles, token) = (bundles(&[&key]), token(&key, "a"));
    let verify = |audience: &str, at| {
        tokens.verify(&token, audience, &bundles, at, || checks.set(checks.get() + 1))
    };
    for audience in ["a", "both", "a"] {
        assert_eq!(verify(audience, now()).unwrap().id.path(), "/ns/shop/sa/cart");
    }
    assert_eq!(checks.get(), 1);
    assert_eq!(verify("b", now()), Err(JwtError::WrongAudience));
    assert_eq!(verify("", now()), Err(JwtError::WrongAudience));
    let end = now() + Duration::from_secs(300);
    assert!(verify("a", end - Duration::from_secs(1)).is_ok());
    assert_eq!(verify("a", end), Err(JwtError::Expired));
    assert_eq!(checks.get(), 1);
    // One more character is another token.
    let changed = format!("{token}A");
    assert!(tokens.verify(&changed, "a", &bundles, now(), || ()).is_err());
}

#[test]
fn a_withdrawn_key_is_believed_no_longer() {
    let (old, new, tokens) = (key(), key(), VerifiedTokens::default());
    let (before, after) = (bundles(&[&old, &new]), bundles(&[&new]));
    let token = token(&old, "a");
    tokens.verify(&token, "a", &before, now(), || ()).unwrap();
    let verified = tokens.verify(&token, "a", &after, now(), || ());
    assert!(matches!(verified, Err(JwtError::UnknownKey { .. })), "{verified:?}");
}

#[test]
fn bad_tokens_are_not_remembered_and_long_ones_not_looked_at() {
    let (key, tokens) = (key(), VerifiedTokens::default());
    let bundles = bundles(&[]);
    let token = token(&key, "a");
    assert!(tokens.verify(&token, "a", &bundles, now(), || ()).is_err());
    assert!(tokens.memory().young.tokens.is_empty());
    let long = "a".repeat(MAX_TOKEN + 1);
    let refused = tokens.verify(&long, "a", &bundles, now(), || panic!("it was looked at"));
    assert_eq!(refused, Err(JwtError::TooLong { length: long.len() }));
}

#[test]
fn memory_is_bounded_and_what_is_used_stays() {
    let bundles = bundles(&[]);
    let jwt = Arc::new(VerifiedJwt {
        id: "spiffe://example.org/a".parse().unwrap(),
        claims: serde_json::Map::new(),
        expires_at: now(),
    });
    let mut memory = Memory::default();
    memory.follow(&bundles);
    let name = |n: usize| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key
    };
    for n in 0..20_000 {
        memory.keep(name(n), 700, jwt.clone(), &bundles);
        assert!(memory.get(&name(0), 700, &bundles).is_some(), "{n}");
        for generation in [&memory.young, &memory.old] {
            assert!(generation.tokens.len() <= MAX_TOKENS && generation.bytes <= MAX_BYTES);
        }
    }
    assert!(memory.get(&name(1), 700, &bundles).is_none());
}
