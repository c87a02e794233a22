//! The SPIFFE bundle format: a JWK Set (RFC 7517, Trust_Domain_and_Bundle.md §4, X509-SVID §6.1).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spki::KeyMaterial;
use super::{BundleError, Certificate, PkiError, TrustBundle};
use crate::jose::{JwkError, JwtAuthority};

/// What a reader takes from a bundle.
pub(super) struct Read {
    pub(super) x509_authorities: Vec<Certificate>,
    pub(super) jwt_authorities: Vec<JwtAuthority>,
    pub(super) sequence: Option<u64>,
    pub(super) refresh_hint: Option<Duration>,
}

#[derive(Deserialize)]
struct Document {
    keys: Option<Vec<Value>>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Serialize)]
struct Written<'a> {
    keys: Vec<AnyJwk<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

/// The keys of the two uses.
#[derive(Serialize)]
#[serde(untagged)]
enum AnyJwk<'a> {
    X509(Jwk<'a>),
    Jwt(Map<String, Value>),
}

/// A key without `kid`: X509-SVID §6.1 forbids it.
#[derive(Serialize)]
struct Jwk<'a> {
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(flatten)]
    key: Key<'a>,
    x5c: [String; 1],
}

/// The key itself (RFC 7518 §6, RFC 8037).
#[derive(Serialize)]
#[serde(tag = "kty")]
enum Key<'a> {
    #[serde(rename = "EC")]
    Ec { crv: &'a str, x: String, y: String },
    #[serde(rename = "OKP")]
    Okp { crv: &'a str, x: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

const X509_SVID: &str = "x509-svid";
const JWT_SVID: &str = "jwt-svid";
const KEY_TYPES: [&str; 3] = ["EC", "OKP", "RSA"];

/// Reads a SPIFFE bundle; it may turn out empty.
pub(super) fn read(json: &[u8]) -> Result<Read, BundleError> {
    let document: Document = serde_json::from_slice(json)
        .map_err(|error| BundleError::Json { reason: error.to_string() })?;
    let keys = document.keys.ok_or(BundleError::NoKeys)?;
    let (mut x509_authorities, mut jwt_authorities) = (Vec::new(), Vec::new());
    for (index, key) in keys.iter().enumerate() {
        let index = index + 1;
        // Bundle §4.2: what a reader doesn't know it ignores.
        let text = |name| key.get(name).and_then(Value::as_str);
        match text("use") {
            Some(X509_SVID) if text("kty").is_some_and(|kty| KEY_TYPES.contains(&kty)) => {
                x509_authorities.push(certificate(index, key)?);
            }
            Some(JWT_SVID) => match JwtAuthority::from_jwk(key) {
                Ok(authority) => jwt_authorities.push(authority),
                Err(JwkError::Unsupported) => {}
                Err(source) => return Err(BundleError::Jwk { index, source }),
            },
            _ => {}
        }
    }
    Ok(Read {
        x509_authorities,
        jwt_authorities,
        sequence: document.spiffe_sequence,
        refresh_hint: document.spiffe_refresh_hint.map(Duration::from_secs),
    })
}

fn certificate(index: usize, key: &Value) -> Result<Certificate, BundleError> {
    let x5c = key.get("x5c").and_then(Value::as_array).map(Vec::as_slice);
    let Some([Value::String(encoded)]) = x5c else {
        return Err(BundleError::X5c { index });
    };
    let in_file = |source| PkiError::InFile { index, source: Box::new(source) };
    let der = STANDARD
        .decode(encoded)
        .map_err(|_cause| PkiError::Certificate { problem: "x5c is not base64" })
        .map_err(in_file)?;
    Ok(Certificate::from_der(&der).map_err(in_file)?)
}

/// Whether a JWK can hold this certificate's key.
pub(super) fn can_hold(certificate: &Certificate) -> bool {
    Jwk::new(certificate).is_some()
}

/// Writes a SPIFFE bundle.
pub(super) fn write(bundle: &TrustBundle) -> String {
    // A bundle holds only certificates that `can_hold` accepts.
    let x509 = bundle.x509_authorities().iter().filter_map(Jwk::new).map(AnyJwk::X509);
    let jwt = bundle.jwt_authorities().iter().map(|key| AnyJwk::Jwt(key.to_jwk(Some(JWT_SVID))));
    let document = Written {
        keys: x509.chain(jwt).collect(),
        spiffe_sequence: bundle.sequence(),
        spiffe_refresh_hint: bundle.refresh_hint().map(|hint| hint.as_secs()),
    };
    pretty(&document)
}

/// Writes a JWK Set of JWT authorities alone, as every JWT library reads one.
pub(super) fn write_jwt(authorities: &[JwtAuthority]) -> String {
    let keys = authorities.iter().map(|key| AnyJwk::Jwt(key.to_jwk(None))).collect();
    pretty(&Written { keys, spiffe_sequence: None, spiffe_refresh_hint: None })
}

fn pretty(document: &Written<'_>) -> String {
    // Strings and numbers always serialize.
    let mut json = serde_json::to_string_pretty(document).unwrap_or_default();
    json.push('\n');
    json
}

// === impl Jwk ===

impl<'a> Jwk<'a> {
    fn new(certificate: &'a Certificate) -> Option<Self> {
        let spki = certificate.spki()?;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = match spki.key {
            KeyMaterial::Ec { curve, x, y } => Key::Ec { crv: curve, x: encode(x), y: encode(y) },
            KeyMaterial::Ed25519 => Key::Okp { crv: "Ed25519", x: encode(spki.bits) },
            KeyMaterial::Rsa { modulus, exponent } => {
                Key::Rsa { n: encode(modulus), e: encode(exponent) }
            }
            KeyMaterial::Other => return None,
        };
        Some(Self { usage: X509_SVID, key, x5c: [STANDARD.encode(certificate.der())] })
    }
}
