//! What an operator sets about JWT-SVIDs and their keys.

use std::time::Duration;

use crate::jose::JwtKeyAlgorithm;

/// The settings of the JWT keys and of what they sign.
#[derive(Clone, Debug)]
pub struct JwtKeySettings {
    /// Of the keys that are made from now on.
    pub key_algorithm: JwtKeyAlgorithm,
    /// How long a key lives.
    pub lifetime: Duration,
    /// The longest life of a JWT-SVID.
    pub max_ttl: Duration,
    /// `iss`, if JWT-SVIDs have one.
    pub issuer: Option<String>,
    /// Whether they have a `jti`.
    pub jti: bool,
}

// === impl JwtKeySettings ===

impl JwtKeySettings {
    /// How long a key lives. It is in the bundle for a sixth of that, five days, before it signs:
    /// verifiers that look at the keys once a day, as clouds do, have it by then.
    pub const LIFETIME: Duration = Duration::from_secs(30 * 86_400);
    /// Nobody can take a bearer token back.
    pub const MAX_TTL: Duration = Duration::from_secs(3_600);

    /// Says why these settings can't work together: as for a CA, the last third of a key's life
    /// must have room for the next one's publication.
    pub fn check(&self, propagation: Duration) -> Result<(), String> {
        if self.lifetime / 6 < propagation {
            return Err(format!(
                "a JWT key that lives {} s is too short for a propagation time of {} s; it must live six times as long",
                self.lifetime.as_secs(),
                propagation.as_secs()
            ));
        }
        Ok(())
    }
}

impl Default for JwtKeySettings {
    fn default() -> Self {
        Self {
            key_algorithm: JwtKeyAlgorithm::default(),
            lifetime: Self::LIFETIME,
            max_ttl: Self::MAX_TTL,
            issuer: None,
            jti: false,
        }
    }
}
