//! Verifying a JWT-SVID (JWT-SVID §4).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value};

use super::{Jws, JwtAlgorithm, JwtAuthority, JwtError, Unproven, claims::Claims};
use crate::id::{SpiffeId, TrustDomain};

/// How far the clocks of issuer and verifier may differ, for `nbf` and `iat` alone: what has
/// expired is refused to the second.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

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

/// A JWT-SVID taken apart; nothing about it is proven.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) jws: Jws<'a>,
    pub(super) claims: Claims,
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
    let Parsed { jws, claims: Claims { id, expires_at, .. } } = parsed;
    Ok(VerifiedJwt { id, claims: jws.into_claims(), expires_at })
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
        let Parsed { jws, claims } = Parsed::new(token)?;
        Ok(Self {
            algorithm: jws.algorithm(),
            key_id: jws.key_id().map(str::to_owned),
            id: claims.id,
            audience: claims.audience,
            expires_at: claims.expires_at,
            not_before: claims.not_before,
            issued_at: claims.issued_at,
            claims: jws.into_claims(),
        })
    }
}

// === impl Parsed ===

impl<'a> Parsed<'a> {
    pub(super) fn new(token: &'a str) -> Result<Self, JwtError> {
        let jws = Jws::parse(token)?;
        let claims = Claims::new(&jws)?;
        Ok(Self { jws, claims })
    }

    fn verify(&self, authorities: &[JwtAuthority]) -> Result<(), JwtError> {
        self.jws.verify(authorities).map_err(|unproven| match unproven {
            Unproven::UnknownKey => {
                let trust_domain = self.claims.id.trust_domain().to_string();
                JwtError::UnknownKey { trust_domain }
            }
            Unproven::KeyMismatch => JwtError::KeyMismatch { algorithm: self.jws.algorithm() },
            Unproven::Signature => JwtError::Signature,
        })
    }
}
