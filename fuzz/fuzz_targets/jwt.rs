//! JWT-SVIDs from a hostile sender, and JWKs from a hostile bundle.
//!
//! The input is a token; what follows its first line is a JWK that may be the authority.

#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libfuzzer_sys::fuzz_target;
use svid_csi::jose::{JwtAuthority, JwtClaims, JwtKey, JwtSvid, MAX_TOKEN, verify};

const PEM: &str = include_str!("../seeds/jwt.pem");
const AUDIENCE: &str = "reports";
const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

static KEY: LazyLock<JwtKey> = LazyLock::new(|| JwtKey::from_pem(PEM).expect("a key"));
/// Seeds that the key did sign. Whatever else verifies is a forgery.
const SIGNED: [&str; 4] = [
    include_str!("../seeds/jwt/good"),
    include_str!("../seeds/jwt/good-without-kid"),
    include_str!("../seeds/jwt/audience-string"),
    include_str!("../seeds/jwt/exp-with-exponent"),
];

/// A token that is signed here and now.
static GOOD: LazyLock<JwtSvid> = LazyLock::new(|| {
    let claims = JwtClaims {
        id: ID.parse().expect("an ID"),
        audience: vec![AUDIENCE.to_owned()],
        issued_at: now(),
        expires_at: now() + Duration::from_secs(300),
        issuer: None,
        jti: false,
        extra: Default::default(),
    };
    KEY.sign(&claims).expect("a signature")
});

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (token, rest) = text.split_once('\n').unwrap_or((text, ""));

    let own: Arc<[JwtAuthority]> = vec![KEY.authority().clone()].into();
    match verify(token, AUDIENCE, |_| Some(own.clone()), now()) {
        // RSASSA-PKCS1-v1_5 has one signature for each message.
        Ok(good) => {
            let signed = |seed: &&str| seed.lines().next() == Some(token);
            assert!(token == GOOD.token() || SIGNED.iter().any(signed));
            assert_eq!(good.id.as_str(), ID);
        }
        Err(error) => {
            let shown = format!("{error} {error:?}");
            let signature = token.rsplit('.').next().unwrap_or_default();
            assert!(signature.len() < 24 || !shown.contains(signature), "it quotes the token");
        }
    }
    if let Ok(parsed) = JwtSvid::parse(token) {
        assert!(token.len() <= MAX_TOKEN + 4096);
        assert!(parsed.audience().iter().all(|one| token.len() > one.len()));
        assert!(!format!("{parsed:?}").contains(parsed.token()));
    }

    if let Ok(jwk) = serde_json::from_str(rest)
        && let Ok(authority) = JwtAuthority::from_jwk(&jwk)
    {
        let written = serde_json::Value::Object(authority.to_jwk(Some("jwt-svid")));
        assert!(JwtAuthority::from_jwk(&written).expect("its own form") == authority);
        let foreign: Arc<[JwtAuthority]> = vec![authority].into();
        if let Ok(good) = verify(token, AUDIENCE, |_| Some(foreign.clone()), now()) {
            assert!(good.expires_at > now());
        }
    }
});
