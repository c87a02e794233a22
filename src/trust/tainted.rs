//! CA keys that are believed stolen.

use std::collections::BTreeSet;

use super::published::PublishedError;
use crate::pki::X509Svid;

/// More stolen keys than any trust domain has keys.
const MOST: usize = 64;

/// Identifiers of CA keys that are believed stolen: what they signed is renewed at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaintedKeys(BTreeSet<String>);

// === impl TaintedKeys ===

impl TaintedKeys {
    /// Reads key identifiers in hexadecimal, a line each.
    pub fn parse(text: &str) -> Result<Self, PublishedError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut keys = BTreeSet::new();
        for line in lines {
            let legal = line.len() % 2 == 0
                && line.len() <= 128
                && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !legal {
                return Err(PublishedError::KeyId(line.chars().take(40).collect()));
            }
            keys.insert(line.to_ascii_lowercase());
            if keys.len() > MOST {
                return Err(PublishedError::TooManyKeys(MOST));
            }
        }
        Ok(Self(keys))
    }

    /// Whether one of these keys signed the SVID or an intermediate above it.
    pub fn cover(&self, svid: &X509Svid) -> bool {
        let mut signers = svid.chain().iter().filter_map(|one| one.authority_key_id_hex());
        !self.0.is_empty() && signers.any(|signer| self.0.contains(&signer))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
