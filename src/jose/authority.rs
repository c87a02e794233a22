//! A JWT authority: the public half of a key that signs JWT-SVIDs, as a JWK (RFC 7517).

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    JwkError, JwtAlgorithm,
    public_key::{Curve, EcPublicKey, PublicKey, RsaPublicKey},
};

/// A public key that JWT-SVIDs are verified with, and its name. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct JwtAuthority(Arc<Inner>);

#[derive(PartialEq)]
struct Inner {
    key_id: String,
    /// The JWK's own `alg`: the key then verifies nothing else (RFC 7517 §4.4).
    algorithm: Option<JwtAlgorithm>,
    key: PublicKey,
}

// === impl JwtAuthority ===

impl JwtAuthority {
    /// Most bytes of a `kid`.
    pub const MAX_KEY_ID: usize = 1024;

    /// Names the key by its thumbprint (RFC 7638, SHA-256).
    pub(super) fn of_key(key: PublicKey) -> Self {
        let key_id = thumbprint(&key);
        Self(Arc::new(Inner { key_id, algorithm: None, key }))
    }

    /// Reads a JWK (RFC 7517, RFC 7518 §6). Its `use` is the caller's business; members that are
    /// not known are ignored, and so are those of a private key.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        let text = |name| jwk.get(name).and_then(Value::as_str);
        let bytes = |member| {
            let decoded = text(member).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            decoded.ok_or(JwkError::Member { member })
        };
        let key = match text("kty") {
            Some("RSA") => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                PublicKey::Rsa(RsaPublicKey::new(&n, &e).ok_or(JwkError::Unsupported)?)
            }
            Some("EC") => {
                let curve = text("crv").and_then(Curve::named).ok_or(JwkError::Unsupported)?;
                let point = EcPublicKey::new(curve, &bytes("x")?, &bytes("y")?);
                PublicKey::Ec(point.ok_or(JwkError::Member { member: "point" })?)
            }
            _ => return Err(JwkError::Unsupported),
        };
        let algorithm = match jwk.get("alg") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let named = value.as_str().and_then(JwtAlgorithm::named);
                let fitting = named.filter(|algorithm| key.fits(*algorithm));
                Some(fitting.ok_or(JwkError::Unsupported)?)
            }
        };
        match text("kid") {
            None | Some("") => Err(JwkError::NoKeyId),
            Some(key_id) if key_id.len() > Self::MAX_KEY_ID => {
                Err(JwkError::Member { member: "kid" })
            }
            Some(key_id) => Ok(Self(Arc::new(Inner { key_id: key_id.to_owned(), algorithm, key }))),
        }
    }

    /// The JWK, with the `use` that is given.
    pub fn to_jwk(&self, usage: Option<&str>) -> Map<String, Value> {
        let mut jwk = members(&self.0.key);
        if let Some(usage) = usage {
            jwk.insert("use".to_owned(), json!(usage));
        }
        jwk.insert("kid".to_owned(), json!(self.0.key_id));
        if let Some(algorithm) = self.0.algorithm {
            jwk.insert("alg".to_owned(), json!(algorithm.as_str()));
        }
        jwk
    }

    /// The `kid`.
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }

    /// RFC 7638, SHA-256: the name that a key of ours has.
    pub fn thumbprint(&self) -> String {
        thumbprint(&self.0.key)
    }

    /// For people: `rsa-2048`, `ecdsa-p256`.
    pub fn describe(&self) -> String {
        self.0.key.describe()
    }

    /// Whether a token of that algorithm can be this key's: the kinds agree, and the JWK's own
    /// `alg`, if it has one.
    pub(super) fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        self.0.algorithm.is_none_or(|own| own == algorithm) && self.0.key.fits(algorithm)
    }

    pub(super) fn verifies(
        &self,
        algorithm: JwtAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        self.fits(algorithm) && self.0.key.verifies(algorithm, message, signature)
    }
}

impl Eq for JwtAuthority {}

impl fmt::Debug for JwtAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtAuthority({}, {})", self.0.key_id, self.describe())
    }
}

/// Without repetitions, in order.
pub fn distinct(authorities: impl IntoIterator<Item = JwtAuthority>) -> Arc<[JwtAuthority]> {
    let mut kept: Vec<JwtAuthority> = Vec::new();
    for authority in authorities {
        if !kept.contains(&authority) {
            kept.push(authority);
        }
    }
    kept.into()
}

/// What RFC 7518 §6 requires: the same that RFC 7638 §3.2 hashes.
fn members(key: &PublicKey) -> Map<String, Value> {
    let encode = |bytes: &[u8]| Value::String(URL_SAFE_NO_PAD.encode(bytes));
    let pairs = match key {
        PublicKey::Rsa(key) => {
            vec![("e", encode(&key.exponent)), ("kty", json!("RSA")), ("n", encode(&key.modulus))]
        }
        PublicKey::Ec(key) => vec![
            ("crv", json!(key.curve.as_str())),
            ("kty", json!("EC")),
            ("x", encode(&key.x)),
            ("y", encode(&key.y)),
        ],
    };
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// RFC 7638: the members in the order of their names, no spaces.
fn thumbprint(key: &PublicKey) -> String {
    let mut members: Vec<_> = members(key).into_iter().collect();
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    let text: Vec<_> =
        members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    let hash = digest(&SHA256, format!("{{{}}}", text.join(",")).as_bytes());
    URL_SAFE_NO_PAD.encode(hash.as_ref())
}
