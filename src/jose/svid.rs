//! A JWT-SVID of ours: what it says, and the token.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    JwtError,
    claims::{Claims, is_reserved},
    verify::Parsed,
};
use crate::id::SpiffeId;

/// What a JWT-SVID is to say (JWT-SVID §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtClaims {
    /// `sub`.
    pub id: SpiffeId,
    /// `aud`: at least one, none empty.
    pub audience: Vec<String>,
    /// `iat`; whole seconds count.
    pub issued_at: SystemTime,
    /// `exp`; whole seconds count.
    pub expires_at: SystemTime,
    /// `iss`, for those who look for an OIDC issuer.
    pub issuer: Option<String>,
    /// Whether it has a `jti`, 128 random bits.
    pub jti: bool,
    /// Other claims, texts all. What a JWT-SVID says of itself is never taken from here.
    pub extra: BTreeMap<String, String>,
}

/// A JWT-SVID that this trust domain issued. The token is a bearer's secret: wiped when dropped,
/// never printed.
pub struct JwtSvid {
    token: Zeroizing<String>,
    id: SpiffeId,
    audience: Vec<String>,
    issued_at: SystemTime,
    expires_at: SystemTime,
}

// === impl JwtClaims ===

impl JwtClaims {
    /// The claims as JSON. Times are integers: AWS refuses any other form.
    pub(super) fn to_json(&self, jti: Option<String>) -> Result<String, JwtError> {
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return Err(JwtError::NoAudience);
        }
        let (issued_at, expires_at) = (seconds(self.issued_at)?, seconds(self.expires_at)?);
        if expires_at <= issued_at {
            return Err(JwtError::Lifetime);
        }
        let extra = self.extra.iter().filter(|(name, _)| !is_reserved(name));
        let mut claims: Map<_, _> =
            extra.map(|(name, value)| (name.clone(), json!(value))).collect();
        claims.insert("sub".to_owned(), json!(self.id.as_str()));
        claims.insert("aud".to_owned(), json!(self.audience));
        claims.insert("iat".to_owned(), json!(issued_at));
        claims.insert("exp".to_owned(), json!(expires_at));
        if let Some(issuer) = &self.issuer {
            claims.insert("iss".to_owned(), json!(issuer));
        }
        if let Some(jti) = jti {
            claims.insert("jti".to_owned(), json!(jti));
        }
        Ok(Value::Object(claims).to_string())
    }
}

fn seconds(time: SystemTime) -> Result<u64, JwtError> {
    let since = time.duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|_before| JwtError::Lifetime)
}

// === impl JwtSvid ===

impl JwtSvid {
    pub(super) fn new(token: Zeroizing<String>, claims: &JwtClaims) -> Result<Self, JwtError> {
        let whole = |time| Ok(UNIX_EPOCH + Duration::from_secs(seconds(time)?));
        Ok(Self {
            token,
            id: claims.id.clone(),
            audience: claims.audience.clone(),
            issued_at: whole(claims.issued_at)?,
            expires_at: whole(claims.expires_at)?,
        })
    }

    /// Reads a token as it was read back from a file of our own. It is **not** verified; its form
    /// and its claims are looked at, its signature and its time are not.
    pub fn parse(token: &str) -> Result<Self, JwtError> {
        let token = token.trim_ascii_end();
        let Claims { id, audience, issued_at, expires_at, .. } = Parsed::new(token)?.claims;
        Ok(Self {
            token: Zeroizing::new(token.to_owned()),
            id,
            audience,
            issued_at: issued_at.ok_or(JwtError::Time { claim: "iat" })?,
            expires_at,
        })
    }

    /// The token in compact serialization. Secret.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// For whom it is.
    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    /// When it was issued.
    pub fn issued_at(&self) -> SystemTime {
        self.issued_at
    }

    /// When it ends.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("id", &self.id)
            .field("audience", &self.audience)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
