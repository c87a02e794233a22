//! What the controller publishes for every node, as it is read.

use super::TaintedKeys;
use crate::{
    id::TrustDomain,
    pki::{BundleError, TrustBundle},
};

/// The API server has this limit for a whole ConfigMap.
const MAX_SIZE: usize = 1 << 20;
/// What every reader of JSON can hold. Nothing could be newer than a number without end.
const MAX_SEQUENCE: u64 = (1 << 53) - 1;

/// The trust that the controller publishes, all of it good.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedTrust {
    /// Has a sequence number.
    pub bundle: TrustBundle,
    /// The CA keys that are believed stolen.
    pub tainted: TaintedKeys,
}

/// Why what is published is not taken; what was taken before stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishedError {
    /// It isn't there.
    #[error("it has no bundle.json")]
    NoBundle,
    /// It is longer than a ConfigMap.
    #[error("it has {0} bytes, more than a ConfigMap can have")]
    TooLarge(usize),
    /// The bundle is no bundle.
    #[error("bundle.json: {0}")]
    Bundle(#[from] BundleError),
    /// Nobody could tell whether it is newer.
    #[error("bundle.json has no spiffe_sequence, so that nobody can tell whether it is newer")]
    NoSequence,
    /// Nothing could follow it.
    #[error("bundle.json has the spiffe_sequence {0}, which is too large to be one")]
    SequenceTooLarge(u64),
    /// A line is no key identifier.
    #[error("tainted: {0:?} is not a key identifier in hexadecimal")]
    KeyId(String),
    /// A list that grew by accident.
    #[error("tainted: more than {0} keys")]
    TooManyKeys(usize),
    /// It was replaced by what was there before.
    #[error(
        "its spiffe_sequence is {found}, and {held} was seen before: an older one was put back, as \
         from a backup; `svid-csi ca rotate` publishes a newer one"
    )]
    Older {
        /// What it has.
        found: u64,
        /// What was seen.
        held: u64,
    },
    /// It changed, and doesn't say so.
    #[error("its keys are others than before, under the same spiffe_sequence {0}")]
    SameSequence(u64),
}

// === impl PublishedTrust ===

impl PublishedTrust {
    /// Reads what may be anything.
    pub fn parse(
        trust_domain: &TrustDomain,
        bundle: Option<&str>,
        tainted: Option<&str>,
    ) -> Result<Self, PublishedError> {
        let (bundle, tainted) = (bundle.ok_or(PublishedError::NoBundle)?, tainted.unwrap_or(""));
        let size = bundle.len() + tainted.len();
        if size > MAX_SIZE {
            return Err(PublishedError::TooLarge(size));
        }
        let bundle = TrustBundle::from_jwks(trust_domain.clone(), bundle.as_bytes())?;
        match bundle.sequence() {
            None => return Err(PublishedError::NoSequence),
            Some(sequence) if sequence > MAX_SEQUENCE => {
                return Err(PublishedError::SequenceTooLarge(sequence));
            }
            Some(_) => {}
        }
        Ok(Self { bundle, tainted: TaintedKeys::parse(tainted)? })
    }

    /// Whether it may take the place of `held`, from the same source.
    pub(super) fn check_against(&self, held: &TrustBundle) -> Result<(), PublishedError> {
        let (found, before) = (self.bundle.sequence(), held.sequence());
        let (found, before) = (found.unwrap_or_default(), before.unwrap_or_default());
        if found < before {
            return Err(PublishedError::Older { found, held: before });
        }
        if found == before && !self.bundle.same_authorities(held) {
            return Err(PublishedError::SameSequence(found));
        }
        Ok(())
    }
}
