//! JWT-SVIDs (JWT-SVID.md) and the keys that sign them: the part of JOSE that SPIFFE allows.
//!
//! Compact serialisation only; no header but `alg`, `kid` and `typ`; no algorithm but the nine of
//! JWT-SVID §2.1; the kind of key decides what it can verify, never the token alone.

mod algorithm;
mod authority;
mod claims;
mod error;
mod json;
mod jws;
mod key;
mod public_key;
mod svid;
#[cfg(test)]
mod tests;
mod verify;

pub use self::{
    algorithm::{JwtAlgorithm, JwtKeyAlgorithm},
    authority::{JwtAuthority, distinct},
    claims::is_reserved,
    error::{JwkError, JwtError, JwtKeyError},
    jws::{Jws, Unproven},
    key::JwtKey,
    svid::{JwtClaims, JwtSvid},
    verify::{CLOCK_SKEW, UnverifiedJwt, VerifiedJwt, verify},
};

/// Longer tokens are refused before anything is done with them: 16 KiB.
pub const MAX_TOKEN: usize = 16 * 1024;
