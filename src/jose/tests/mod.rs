//! JWT-SVIDs made, read and refused.

mod refused;
mod round_trip;
mod vectors;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::id::{SpiffeId, TrustDomain};

const AUDIENCE: &str = "spiffe://example.org/reports";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id() -> SpiffeId {
    "spiffe://example.org/ns/a/sa/b".parse().unwrap()
}

fn claims() -> JwtClaims {
    JwtClaims {
        id: id(),
        audience: vec![AUDIENCE.to_owned(), "other".to_owned()],
        issued_at: now(),
        expires_at: now() + Duration::from_secs(300),
        issuer: None,
        jti: false,
        extra: Default::default(),
    }
}

fn key(algorithm: JwtKeyAlgorithm) -> JwtKey {
    JwtKey::generate(algorithm).unwrap()
}

fn bundle(keys: &[&JwtKey]) -> Arc<[JwtAuthority]> {
    keys.iter().map(|key| key.authority().clone()).collect()
}

/// Verifies with the authorities of example.org.
fn check(token: &str, authorities: &Arc<[JwtAuthority]>) -> Result<VerifiedJwt, JwtError> {
    let of = |domain: &TrustDomain| (domain.as_str() == "example.org").then(|| authorities.clone());
    verify(token, AUDIENCE, of, now())
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Header and claims of a token.
fn parts(token: &str) -> (Value, Value) {
    let mut parts = token.split('.');
    (decoded(parts.next().unwrap()), decoded(parts.next().unwrap()))
}
