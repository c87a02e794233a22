//! Reading claims (JWT-SVID §3, RFC 7519 §4.1).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::{Jws, JwtError};
use crate::id::SpiffeId;

/// The claims that mean something to us.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) id: SpiffeId,
    pub(super) audience: Vec<String>,
    pub(super) expires_at: SystemTime,
    pub(super) not_before: Option<SystemTime>,
    pub(super) issued_at: Option<SystemTime>,
}

/// Claims that say what a token is or proves (RFC 7519 §4.1, RFC 7800 §3.1, RFC 8693 §4.1 and §4.4).
const RESERVED: [&str; 10] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf", "act", "may_act"];

/// Whether nobody may choose the value of this claim. Some readers of JSON don't tell `Sub` from
/// `sub`; and what begins with `spiffe` is SPIFFE's to give a meaning.
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&name.as_str()) || name.starts_with("spiffe")
}

/// The end of the year 9999: no time is later.
const LAST_SECOND: u64 = 253_402_300_799;

// === impl Claims ===

impl Claims {
    pub(super) fn new(jws: &Jws<'_>) -> Result<Self, JwtError> {
        let id = jws.claims().get("sub").and_then(Value::as_str).and_then(|id| id.parse().ok());
        Ok(Self {
            id: id.ok_or(JwtError::Subject)?,
            audience: jws.audience()?,
            expires_at: jws.time("exp")?.ok_or(JwtError::NoExpiry)?,
            not_before: jws.time("nbf")?,
            issued_at: jws.time("iat")?,
        })
    }
}

/// RFC 7519 §4.1.3: a string, or a list of them.
pub(super) fn audience(claim: Option<&Value>) -> Option<Vec<String>> {
    let audience = match claim? {
        Value::String(one) => vec![one.clone()],
        Value::Array(several) => {
            let strings = several.iter().map(|one| one.as_str().map(str::to_owned));
            strings.collect::<Option<Vec<String>>>()?
        }
        _ => return None,
    };
    (!audience.is_empty()).then_some(audience)
}

/// RFC 7519 §2: a number of seconds, possibly with a fraction.
pub(super) fn time(
    all: &Map<String, Value>,
    claim: &'static str,
) -> Result<Option<SystemTime>, JwtError> {
    let Some(value) = all.get(claim) else {
        return Ok(None);
    };
    let since = match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) if seconds <= LAST_SECOND => Some(Duration::from_secs(seconds)),
        (None, Some(seconds)) if (0.0..=LAST_SECOND as f64).contains(&seconds) => {
            Some(Duration::from_secs_f64(seconds))
        }
        _ => None,
    };
    since.map(|since| Some(UNIX_EPOCH + since)).ok_or(JwtError::Time { claim })
}
