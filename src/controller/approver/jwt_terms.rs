//! What a policy says about JWT-SVIDs.

use std::time::Duration;

use super::{
    PolicyProblem,
    policy::{each, ttl},
};
use crate::{id::ClaimTemplate, jose, k8s::JwtPolicy};

/// Which JWT-SVIDs a policy grants.
#[derive(Clone, Debug)]
pub(super) struct JwtTerms {
    pub(super) audiences: Audiences,
    pub(super) max_ttl: Duration,
    /// By the claims' names.
    pub(super) claims: Vec<(String, ClaimTemplate)>,
}

/// For whom JWT-SVIDs may be.
#[derive(Clone, Debug)]
pub(super) enum Audiences {
    Any,
    /// These, to the letter; none if there are none.
    Only(Vec<String>),
}

/// The one entry that means every audience.
const ANY: &str = "*";
/// Nobody can take a bearer token back: whatever a policy says, none lives longer.
const MAX_TTL: Duration = Duration::from_secs(3600);
/// A token's receiver refuses long ones.
const MAX_CLAIMS: usize = 16;
const MAX_CLAIM_NAME: usize = 128;

// === impl JwtTerms ===

impl JwtTerms {
    pub(super) fn read(spec: &JwtPolicy) -> Result<Self, PolicyProblem> {
        let max_ttl = ttl("jwt.maxTTL", &spec.max_ttl)?.min(MAX_TTL);
        let invalid = |problem: String| Err(PolicyProblem::new("InvalidClaim", problem));
        if spec.claims.len() > MAX_CLAIMS {
            return invalid(format!("jwt.claims: more than {MAX_CLAIMS} claims"));
        }
        for name in spec.claims.keys() {
            if let Err(problem) = check_name(name) {
                let shown: String = name.chars().take(64).collect();
                return invalid(format!("jwt.claims: {shown:?} {problem}"));
            }
        }
        let templates = each("InvalidClaim", "jwt.claims", spec.claims.values())?;
        Ok(Self {
            audiences: Audiences::read(&spec.audiences)?,
            max_ttl,
            claims: spec.claims.keys().cloned().zip(templates).collect(),
        })
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    if name.is_empty() || name.len() > MAX_CLAIM_NAME || !name.bytes().all(legal) {
        return Err("is no name for a claim: 1 to 128 of a-z, A-Z, 0-9, '.', '_', '-', ':', '/'");
    }
    match jose::is_reserved(name) {
        true => Err("is not a policy's to set: it says what the token is or proves"),
        false => Ok(()),
    }
}

// === impl Audiences ===

impl Audiences {
    fn read(audiences: &[String]) -> Result<Self, PolicyProblem> {
        let invalid = |problem| Err(PolicyProblem::new("InvalidAudience", problem));
        match audiences {
            [only] if only == ANY => Ok(Self::Any),
            some if some.iter().any(String::is_empty) => {
                invalid("jwt.audiences: an audience is empty")
            }
            some if some.iter().any(|one| one == ANY) => {
                invalid("jwt.audiences: \"*\" means any audience and stands alone")
            }
            some => Ok(Self::Only(some.to_vec())),
        }
    }

    /// The list that lacks one of these audiences, and which.
    pub(super) fn lack<'a>(&'a self, audience: &'a [String]) -> Option<(&'a [String], &'a str)> {
        let Self::Only(some) = self else { return None };
        let missing = audience.iter().find(|one| !some.contains(one))?;
        Some((some, missing))
    }
}
