//! A JWS in compact serialization, taken apart (RFC 7515 §3.1).

use std::{fmt, time::SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{JwtAlgorithm, JwtAuthority, JwtError, MAX_TOKEN, claims, json};

/// Keys that are tried for a token without a `kid`, or with one that several have.
const MAX_TRIES: usize = 8;

/// A token taken apart; nothing about it is proven. Its claims may be anything: [`super::verify`] is
/// for those of a JWT-SVID.
pub struct Jws<'a> {
    header: Header,
    claims: Map<String, Value>,
    /// What is signed: the first two parts with the dot.
    message: &'a [u8],
    signature: Vec<u8>,
}

/// The JOSE header (JWT-SVID §2).
#[derive(Debug, PartialEq, Eq)]
struct Header {
    algorithm: JwtAlgorithm,
    key_id: Option<String>,
}

/// Why no key was found to have signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// None has its `kid`.
    UnknownKey,
    /// The key of its `kid` is of another kind than its `alg`.
    KeyMismatch,
    /// It was changed, or signed by somebody else.
    Signature,
}

// === impl Jws ===

impl<'a> Jws<'a> {
    /// Takes a token apart. No header but `alg`, `kid` and `typ`, so that `crit`, `jwk`, `jku` and
    /// `x5u` never say anything here.
    pub fn parse(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN {
            return Err(JwtError::TooLong { length: token.len() });
        }
        let (message, signature) = token.rsplit_once('.').ok_or(JwtError::NotCompact)?;
        let (header, claims) = message.split_once('.').ok_or(JwtError::NotCompact)?;
        if claims.contains('.') {
            return Err(JwtError::NotCompact);
        }
        let header = Header::new(&object("header", header)?)?;
        let claims = object("claims", claims)?;
        let signature = decode("signature", signature)?;
        Ok(Self { header, claims, message: message.as_bytes(), signature })
    }

    /// The header's `alg`.
    pub fn algorithm(&self) -> JwtAlgorithm {
        self.header.algorithm
    }

    /// The header's `kid`.
    pub fn key_id(&self) -> Option<&str> {
        self.header.key_id.as_deref()
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The claim `aud`: a string, or a list of them (RFC 7519 §4.1.3).
    pub fn audience(&self) -> Result<Vec<String>, JwtError> {
        claims::audience(self.claims.get("aud")).ok_or(JwtError::Audience)
    }

    /// A claim that is a time (RFC 7519 §2).
    pub fn time(&self, claim: &'static str) -> Result<Option<SystemTime>, JwtError> {
        claims::time(&self.claims, claim)
    }

    /// Whether one of these keys signed it: one of its `kid`, where it names one.
    pub fn verify(&self, authorities: &[JwtAuthority]) -> Result<(), Unproven> {
        let algorithm = self.header.algorithm;
        let named = |authority: &&JwtAuthority| {
            self.key_id().is_none_or(|key_id| key_id == authority.key_id())
        };
        let mut candidates = authorities.iter().filter(named).peekable();
        if candidates.peek().is_none() {
            return Err(Unproven::UnknownKey);
        }
        let mut fitting =
            candidates.filter(|authority| authority.fits(algorithm)).take(MAX_TRIES).peekable();
        if fitting.peek().is_none() {
            return Err(Unproven::KeyMismatch);
        }
        match fitting.any(|key| key.verifies(algorithm, self.message, &self.signature)) {
            true => Ok(()),
            false => Err(Unproven::Signature),
        }
    }

    pub(super) fn into_claims(self) -> Map<String, Value> {
        self.claims
    }
}

impl fmt::Debug for Jws<'_> {
    /// Claims are somebody's secrets, and the rest of it is the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws").field("header", &self.header).finish_non_exhaustive()
    }
}

// === impl Header ===

impl Header {
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
