//! JWT-SVIDs: what they say, and whether they are good. The signature is never shown.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    judge::Against,
    moment::Moment,
    report::{Code, Inspected},
};
use crate::{
    id::TrustDomain,
    jose::{JwtAuthority, JwtError, UnverifiedJwt, verify},
};

/// A JWT-SVID.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Token {
    /// Its file in the volume; absent where the path itself is the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    pub(super) spiffe_id: String,
    pub(super) audience: Vec<String>,
    /// The header's `alg`.
    pub(super) algorithm: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issued_at: Option<Moment>,
    pub(super) expires_at: Moment,
    /// Negative once it has expired.
    pub(super) expires_in_seconds: i64,
    /// All of them, those above too.
    pub(super) claims: Map<String, Value>,
    /// Whether the signature is one of the bundle's authorities'; absent without a bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verified: Option<bool>,
    /// The bundle's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<String>,
}

/// Shows and judges a token. `text` is the token itself; of the bundle the JWT authorities count.
pub(super) fn judge(
    result: &mut Inspected,
    file: Option<&str>,
    text: &str,
    against: Option<&Against>,
    now: SystemTime,
) {
    let name = file.unwrap_or("the token");
    let unverified = match UnverifiedJwt::read(text) {
        Ok(unverified) => unverified,
        Err(error) => {
            result.error(Code::Damaged, format!("{name}: {error}"), "fetch it anew");
            return;
        }
    };
    let expires_at = Moment(unverified.expires_at);
    let mut token = Token {
        file: file.map(ToOwned::to_owned),
        spiffe_id: unverified.id.to_string(),
        algorithm: unverified.algorithm.as_str(),
        key_id: unverified.key_id,
        issued_at: unverified.issued_at.map(Moment),
        expires_at,
        expires_in_seconds: expires_at.seconds_from(now),
        claims: unverified.claims,
        verified: None,
        against: None,
        audience: unverified.audience,
    };
    if unverified.expires_at <= now {
        let message = format!("{name} expired {}", expires_at.relative(now));
        result.error(Code::Expired, message, "fetch a new one: JWT-SVIDs live for minutes");
    }
    if let Some(Against { authorities, name: bundle }) = against {
        let own = authorities.trust_domain();
        let keys: Arc<[JwtAuthority]> = authorities.jwt_authorities.clone().into();
        let of = |domain: &TrustDomain| {
            own.as_ref().is_none_or(|own| own == domain).then(|| keys.clone())
        };
        // That it has expired was said above: its signature is judged as of its end.
        let last = unverified.expires_at.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let moment = now.min(last);
        let audience = token.audience.first().map(String::as_str).unwrap_or_default();
        let found = verify(text, audience, of, moment);
        token.verified = Some(found.is_ok());
        token.against = Some(bundle.clone());
        match found {
            Ok(_) => {}
            Err(error @ (JwtError::NotYet | JwtError::IssuedInFuture)) => {
                let action = "check the clocks of this machine and of the issuer";
                result.error(Code::NotYetValid, format!("{name}: {error}"), action);
            }
            Err(error) => {
                let action =
                    "look whether the bundle is the token's trust domain's, and up to date";
                result.error(Code::NotChained, format!("{name}: {error} ({bundle})"), action);
            }
        }
    }
    result.tokens.push(token);
}
