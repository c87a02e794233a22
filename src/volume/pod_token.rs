//! The pod's own token, as kubelet hands it to a driver whose CSIDriver object has `tokenRequests`.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::timestamp;
use crate::class::Class;

/// Kubernetes' key for the pod's tokens, in `secrets` or in `volume_context`.
pub const TOKENS_KEY: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// The most bytes of all tokens of one pod; one has about 1,200.
const MAX_JSON: usize = 256 << 10;
/// The most bytes of one token.
const MAX_TOKEN: usize = 16 << 10;
/// A token that ends sooner may be over when it is looked at.
const MARGIN: Duration = Duration::from_secs(5);

/// A token that the API server bound to one pod, for our audience and no other: with it the pod's
/// identity can be asked for. Wiped when dropped, never printed, never written anywhere.
#[derive(PartialEq, Eq)]
pub struct PodToken {
    token: Zeroizing<String>,
    expires_at: SystemTime,
}

/// Why a volume has no token of its pod; the message says what to do. It holds no part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodTokenError {
    /// The process is younger than kubelet's last visit.
    #[error(
        "the pod's token is not known since the driver's restart; it waits for kubelet's republish, \
         which comes within two minutes (`requiresRepublish: true` in the CSIDriver object)"
    )]
    NotYet,
    /// The last one that kubelet brought is over.
    #[error(
        "the pod's token has expired; it waits for kubelet's republish, which brings a new one \
         (`requiresRepublish: true` in the CSIDriver object)"
    )]
    Expired,
    /// kubelet brings none.
    #[error(
        "kubelet gave no token of the pod: set `tokenRequests` with the audience {audience:?} and \
         `requiresRepublish: true` in the CSIDriver object"
    )]
    Missing {
        /// Whose token it must be.
        audience: String,
    },
    /// kubelet brings those for others.
    #[error(
        "none of the {count} tokens that kubelet gave is for the audience {audience:?}: add it to \
         `tokenRequests` of the CSIDriver object"
    )]
    OtherAudience {
        /// Whose token it must be.
        audience: String,
        /// How many there are.
        count: usize,
    },
    /// What kubelet brings can't be read.
    #[error(
        "the tokens that kubelet gave can't be read ({reason}): update the driver, or kubelet, \
         whichever is older"
    )]
    Malformed {
        /// What is wrong, and where.
        reason: String,
    },
}

/// One entry of kubelet's JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(with = "timestamp::required")]
    expiration_timestamp: SystemTime,
}

// === impl PodToken ===

impl PodToken {
    /// The token for this audience among those that kubelet gave, `{"<audience>":{"token":…,
    /// "expirationTimestamp":…}}`; the others are not kept.
    pub fn from_json(json: Option<&str>, audience: &str) -> Result<Self, PodTokenError> {
        let missing = || PodTokenError::Missing { audience: audience.to_owned() };
        let json = json.filter(|json| !json.is_empty()).ok_or_else(missing)?;
        let malformed = |reason: &str| PodTokenError::Malformed { reason: reason.to_owned() };
        if json.len() > MAX_JSON {
            return Err(malformed("too long"));
        }
        // The parser's own words may quote a token.
        let read = serde_json::from_str::<BTreeMap<String, Entry<'_>>>(json).map_err(|error| {
            let kind = match error.classify() {
                serde_json::error::Category::Data => "not of the form that Kubernetes has",
                _ => "not JSON",
            };
            malformed(&format!("{kind}, at byte {} of line {}", error.column(), error.line()))
        })?;
        let Some(Entry { token, expiration_timestamp }) = read.get(audience) else {
            let (audience, count) = (audience.to_owned(), read.len());
            return Err(if count == 0 {
                missing()
            } else {
                PodTokenError::OtherAudience { audience, count }
            });
        };
        Self::new(token, *expiration_timestamp)
    }

    /// A token that is good until then.
    pub fn new(token: &str, expires_at: SystemTime) -> Result<Self, PodTokenError> {
        let malformed = |reason: &str| PodTokenError::Malformed { reason: reason.to_owned() };
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(malformed("a token is empty or too long"));
        }
        let part_of_jws = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !token.bytes().all(part_of_jws) {
            return Err(malformed("a token is no JWS"));
        }
        Ok(Self { token: Zeroizing::new(token.to_owned()), expires_at })
    }

    /// The token itself: for the signer and nobody else.
    pub fn secret(&self) -> &str {
        &self.token
    }

    /// Whether it can still be shown to somebody.
    pub fn is_good_at(&self, now: SystemTime) -> bool {
        now + MARGIN < self.expires_at
    }
}

impl fmt::Debug for PodToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

// === impl PodTokenError ===

impl PodTokenError {
    /// What passes with kubelet's next visit, or what someone has to set.
    pub fn class(&self) -> Class {
        match self {
            Self::NotYet | Self::Expired => Class::Unavailable,
            Self::Missing { .. } | Self::OtherAudience { .. } | Self::Malformed { .. } => {
                Class::NotReady
            }
        }
    }

    /// Whether it passes by itself.
    pub fn waits_for_republish(&self) -> bool {
        matches!(self, Self::NotYet | Self::Expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIENCE: &str = "svid.dev";

    fn read(json: &str) -> Result<PodToken, PodTokenError> {
        PodToken::from_json(Some(json), AUDIENCE)
    }

    fn json(audience: &str, token: &str, expires: &str) -> String {
        serde_json::json!({
            "": { "token": "for-the-API-server", "expirationTimestamp": "2026-11-22T19:00:00Z" },
            audience: { "token": token, "expirationTimestamp": expires },
        })
        .to_string()
    }

    #[test]
    fn only_the_token_for_our_audience_is_taken() {
        let token = read(&json(AUDIENCE, "a.b-c.d_e", "2026-11-22T18:00:00Z")).unwrap();
        assert_eq!(token.secret(), "a.b-c.d_e");
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_370_400);
        assert!(token.is_good_at(end - Duration::from_secs(6)));
        assert!(!token.is_good_at(end - Duration::from_secs(5)));
        for (json, audience) in [("{}", AUDIENCE), ("", AUDIENCE)] {
            let error = PodToken::from_json(Some(json), audience).unwrap_err();
            assert_eq!(error, PodTokenError::Missing { audience: AUDIENCE.to_owned() });
        }
        assert!(matches!(PodToken::from_json(None, AUDIENCE), Err(PodTokenError::Missing { .. })));
        // Not the API server's own, whatever it is called.
        let error = read(&json("other", "a.b.c", "2026-11-22T18:00:00Z")).unwrap_err();
        assert_eq!(error, PodTokenError::OtherAudience { audience: AUDIENCE.to_owned(), count: 2 });
        assert!(error.to_string().contains("tokenRequests"), "{error}");
    }

    /// Invariant 1, for what is as good as a key.
    #[test]
    fn no_error_and_no_debug_has_a_part_of_a_token() {
        let good = json(AUDIENCE, "c2VjcmV0.c2VjcmV0.c2VjcmV0", "2026-11-22T18:00:00Z");
        let shown = format!("{:?}", read(&good).unwrap());
        assert!(!shown.contains("c2Vj"), "{shown}");
        let long = format!("c2VjcmV0{}", "x".repeat(MAX_TOKEN));
        for bad in [
            r#""c2VjcmV0""#.to_owned(),
            r#"["c2VjcmV0"]"#.to_owned(),
            r#"{"svid.dev":"c2VjcmV0"}"#.to_owned(),
            r#"{"svid.dev":{"token":"c2VjcmV0"}}"#.to_owned(),
            r#"{"svid.dev":{"token":"c2VjcmV0","expirationTimestamp":"c2VjcmV0"}}"#.to_owned(),
            r#"{"svid.dev":{"token":7,"expirationTimestamp":"c2VjcmV0"}}"#.to_owned(),
            r#"{"svid.dev":{"token":"c2VjcmV0"#.to_owned(),
            r#"{"c2VjcmV0":{}}"#.to_owned(),
            "c2VjcmV0".to_owned(),
            json(AUDIENCE, "c2VjcmV0 c2VjcmV0", "2026-11-22T18:00:00Z"),
            json(AUDIENCE, "c2VjcmV0\n", "2026-11-22T18:00:00Z"),
            json(AUDIENCE, "", "2026-11-22T18:00:00Z"),
            json(AUDIENCE, &long, "2026-11-22T18:00:00Z"),
            json(AUDIENCE, "c2VjcmV0", &format!("2026{}", " ".repeat(MAX_JSON))),
        ] {
            let error = read(&bad).unwrap_err();
            assert!(matches!(error, PodTokenError::Malformed { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("c2Vj"), "{error:?}");
            assert_eq!(error.class(), Class::NotReady);
        }
    }

    #[test]
    fn an_escaped_token_is_the_same_token() {
        let json = r#"{"svid.dev":{"token":"a\u002eb.c","expirationTimestamp":"2026-11-22T18:00:00+01:00","x":1}}"#;
        assert_eq!(read(json).unwrap().secret(), "a.b.c");
    }
}
