//! A trust domain's name (SPIFFE-ID §2.1).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{IdError, SpiffeId};

/// A trust domain's name, as in `example.org`: 1 to 255 bytes of `[a-z0-9.-_]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

// === impl TrustDomain ===

impl TrustDomain {
    /// Most bytes of a name (SPIFFE-ID §2.3).
    pub const MAX_LENGTH: usize = 255;

    /// The bare name, without `spiffe://`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own ID, `spiffe://example.org`, without a trailing slash.
    pub fn id(&self) -> SpiffeId {
        SpiffeId::of_trust_domain(self)
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Self, IdError> {
        if name.is_empty() {
            return Err(IdError::EmptyTrustDomain);
        }
        if let Some(found) =
            name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'))
        {
            return Err(IdError::TrustDomainCharacter { found });
        }
        if name.len() > Self::MAX_LENGTH {
            return Err(IdError::TrustDomainTooLong { length: name.len() });
        }
        Ok(Self(name.into()))
    }
}

impl TryFrom<&str> for TrustDomain {
    type Error = IdError;

    fn try_from(name: &str) -> Result<Self, IdError> {
        name.parse()
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdError;

    fn try_from(name: String) -> Result<Self, IdError> {
        name.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(trust_domain: TrustDomain) -> Self {
        trust_domain.as_str().to_owned()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_02_trust_domain_is_a_lowercase_name_of_255_bytes_at_most() {
        let longest = "a".repeat(255);
        for good in ["example.org", "a", "1", "-", "_", ".", "a-b_c.d", &longest] {
            let parsed: TrustDomain = good.parse().unwrap();
            assert_eq!(parsed.as_str(), good);
            assert_eq!(parsed.id().as_str(), format!("spiffe://{good}"));
        }
        let too_long = "a".repeat(256);
        assert_eq!("".parse::<TrustDomain>(), Err(IdError::EmptyTrustDomain));
        assert_eq!(
            too_long.parse::<TrustDomain>(),
            Err(IdError::TrustDomainTooLong { length: 256 })
        );
        for (bad, found) in [
            ("Example.org", 'E'),
            ("user@example.org", '@'),
            ("example.org:443", ':'),
            ("ex%61mple.org", '%'),
            ("example.org/", '/'),
            ("spiffe://example.org", ':'),
            ("exämple.org", 'ä'),
            ("a b", ' '),
            ("a\0", '\0'),
            ("a\n", '\n'),
            ("[::1]", '['),
        ] {
            assert_eq!(
                bad.parse::<TrustDomain>(),
                Err(IdError::TrustDomainCharacter { found }),
                "{bad}"
            );
        }
    }

    #[test]
    fn serde_validates() {
        let parsed: TrustDomain = serde_json::from_str("\"example.org\"").unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), "\"example.org\"");
        assert!(serde_json::from_str::<TrustDomain>("\"Example.org\"").is_err());
    }
}
