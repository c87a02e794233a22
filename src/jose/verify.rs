//! Verifying a JWT-SVID (JWT-SVID §4, RFC 7515 §5.2).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{JwtAlgorithm, JwtAuthority, JwtError, MAX_TOKEN, claims::Claims, json};
use crate::id::{SpiffeId, TrustDomain};

/// How far the clocks of issuer and verifier may differ, for `nbf` and `iat` alone: what has
/// expired is refused to the second.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Keys that are tried for a token without a `kid`, or with one that several have.
const MAX_TRIES: usize = 8;

/// A token that was found good.
#[derive(Clone, PartialEq)]
pub struct VerifiedJwt {
    /// `sub`.
    pub id: SpiffeId,
    /// All claims.
    pub claims: Map<String, Value>,
    /// `exp`.
    pub expires_at: SystemTime,
}

/// What a token says of itself: nothing about it is proven, not even that it is of now. For people.
pub struct UnverifiedJwt {
    /// The header's `alg`.
    pub algorithm: JwtAlgorithm,
    /// The header's `kid`.
    pub key_id: Option<String>,
    /// `sub`.
    pub id: SpiffeId,
    /// `aud`.
    pub audience: Vec<String>,
    /// `exp`.
    pub expires_at: SystemTime,
    /// `nbf`.
    pub not_before: Option<SystemTime>,
    /// `iat`.
    pub issued_at: Option<SystemTime>,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// A token taken apart; nothing about it is proven.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) header: Header,
    pub(super) claims: Claims,
    /// What is signed: the first two parts with the dot.
    message: &'a [u8],
    signature: Vec<u8>,
}

/// The JOSE header (JWT-SVID §2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) algorithm: JwtAlgorithm,
    pub(super) key_id: Option<String>,
}

/// Verifies a JWT-SVID for one of its audiences, with the JWT authorities of its subject's trust
/// domain. Form and claims are looked at first: a signature is the dearest.
pub fn verify(
    token: &str,
    audience: &str,
    authorities_of: impl Fn(&TrustDomain) -> Option<Arc<[JwtAuthority]>>,
    now: SystemTime,
) -> Result<VerifiedJwt, JwtError> {
    let parsed = Parsed::new(token)?;
    let claims = &parsed.claims;
    if !claims.audience.iter().any(|one| one == audience) {
        return Err(JwtError::WrongAudience);
    }
    if claims.expires_at <= now {
        return Err(JwtError::Expired);
    }
    let latest = now + CLOCK_SKEW;
    if claims.not_before.is_some_and(|begin| begin > latest) {
        return Err(JwtError::NotYet);
    }
    if claims.issued_at.is_some_and(|issued| issued > latest) {
        return Err(JwtError::IssuedInFuture);
    }
    let domain = claims.id.trust_domain();
    let authorities = authorities_of(domain)
        .ok_or_else(|| JwtError::NoBundle { trust_domain: domain.to_string() })?;
    parsed.verify(&authorities)?;
    let Claims { id, all, expires_at, .. } = parsed.claims;
    Ok(VerifiedJwt { id, claims: all, expires_at })
}

// === impl VerifiedJwt ===

impl fmt::Debug for VerifiedJwt {
    /// Claims are the application's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedJwt")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

// === impl UnverifiedJwt ===

impl UnverifiedJwt {
    /// Reads a token that has the form of a JWT-SVID.
    pub fn read(token: &str) -> Result<Self, JwtError> {
        let Parsed { header, claims, .. } = Parsed::new(token)?;
        Ok(Self {
            algorithm: header.algorithm,
            key_id: header.key_id,
            id: claims.id,
            audience: claims.audience,
            expires_at: claims.expires_at,
            not_before: claims.not_before,
            issued_at: claims.issued_at,
            claims: claims.all,
        })
    }
}

// === impl Parsed ===

impl<'a> Parsed<'a> {
    pub(super) fn new(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN {
            return Err(JwtError::TooLong { length: token.len() });
        }
        let (message, signature) = token.rsplit_once('.').ok_or(JwtError::NotCompact)?;
        let (header, claims) = message.split_once('.').ok_or(JwtError::NotCompact)?;
        if claims.contains('.') {
            return Err(JwtError::NotCompact);
        }
        let header = Header::new(&object("header", header)?)?;
        let claims = Claims::new(object("claims", claims)?)?;
        let signature = decode("signature", signature)?;
        Ok(Self { header, claims, message: message.as_bytes(), signature })
    }

    fn verify(&self, authorities: &[JwtAuthority]) -> Result<(), JwtError> {
        let algorithm = self.header.algorithm;
        let named = |authority: &&JwtAuthority| {
            self.header.key_id.as_deref().is_none_or(|key_id| key_id == authority.key_id())
        };
        let mut candidates = authorities.iter().filter(named).peekable();
        if candidates.peek().is_none() {
            let trust_domain = self.claims.id.trust_domain().to_string();
            return Err(JwtError::UnknownKey { trust_domain });
        }
        let mut fitting =
            candidates.filter(|authority| authority.fits(algorithm)).take(MAX_TRIES).peekable();
        if fitting.peek().is_none() {
            return Err(JwtError::KeyMismatch { algorithm });
        }
        match fitting.any(|key| key.verifies(algorithm, self.message, &self.signature)) {
            true => Ok(()),
            false => Err(JwtError::Signature),
        }
    }
}

// === impl Header ===

impl Header {
    /// JWT-SVID §2: these members and no other, so that `crit`, `jwk`, `jku` and `x5u` never say
    /// anything here.
    fn new(header: &Map<String, Value>) -> Result<Self, JwtError> {
        if header.keys().any(|name| !["alg", "kid", "typ"].contains(&name.as_str())) {
            return Err(JwtError::Header);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(JwtAlgorithm::named);
        let algorithm = algorithm.ok_or(JwtError::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(key_id)) if !key_id.is_empty() => Some(key_id.clone()),
            Some(_) => return Err(JwtError::KeyId),
        };
        match header.get("typ") {
            None => {}
            Some(Value::String(kind)) if kind == "JWT" || kind == "JOSE" => {}
            Some(_) => return Err(JwtError::Type),
        }
        Ok(Self { algorithm, key_id })
    }
}

fn object(part: &'static str, text: &str) -> Result<Map<String, Value>, JwtError> {
    let bytes = decode(part, text)?;
    json::object(&bytes).map_err(|problem| JwtError::Json { part, problem })
}

/// One form only: no padding, no bits after the last byte.
fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_quoted| JwtError::Base64 { part })
}
