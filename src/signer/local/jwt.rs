//! The JWT key of a local signer: found, followed, and signed with.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{
    directory::{CaDirectory, CaError},
    jwt_rollover::JwtRollover,
    rollover::Offer,
};
use crate::{
    class::Class,
    jose::{JwtAuthority, JwtClaims, JwtKey, JwtKeyAlgorithm},
    pki::TrustBundle,
    signer::{JwtRequest, SignError},
};

/// What a JWT-SVID of a local signer is like.
#[derive(Clone, Debug)]
pub struct LocalJwtConfig {
    /// Of the key that is made, where one is.
    pub key_algorithm: JwtKeyAlgorithm,
    /// For how long a JWT-SVID lives: [`Self::MIN_TTL`] to [`Self::MAX_TTL`].
    pub ttl: Duration,
    /// `iss`, if JWT-SVIDs have one.
    pub issuer: Option<String>,
    /// Whether they have a `jti`.
    pub jti: bool,
}

/// The JWT side of the signer's state.
pub(super) struct JwtSigning {
    config: LocalJwtConfig,
    rollover: JwtRollover,
    /// What was last taken from the directory.
    file: Option<Zeroizing<String>>,
    /// Why the file on disk now can't be used.
    broken: Option<String>,
    failures: u64,
}

// === impl LocalJwtConfig ===

impl LocalJwtConfig {
    /// The shortest life that leaves time to use a token.
    pub const MIN_TTL: Duration = Duration::from_secs(10);
    /// Nobody can take a bearer token back, and after each restart a replaced key is trusted for
    /// as long as a token of it might live.
    pub const MAX_TTL: Duration = Duration::from_secs(3_600);
}

impl Default for LocalJwtConfig {
    fn default() -> Self {
        let ttl = Duration::from_secs(300);
        Self { key_algorithm: JwtKeyAlgorithm::default(), ttl, issuer: None, jti: false }
    }
}

// === impl JwtSigning ===

impl JwtSigning {
    /// With the authorities that live volumes hold.
    pub(super) fn new(
        config: LocalJwtConfig,
        live: Vec<JwtAuthority>,
        propagation: Duration,
        now: SystemTime,
    ) -> Self {
        let rollover = JwtRollover::new(live, now + LocalJwtConfig::MAX_TTL, propagation);
        Self { config, rollover, file: None, broken: None, failures: 0 }
    }

    /// The algorithm of a key that is to be made, if there is none.
    pub(super) fn wants(&self) -> Option<JwtKeyAlgorithm> {
        (!self.rollover.has_key()).then_some(self.config.key_algorithm)
    }

    /// Takes what the directory holds now. The key in memory goes on whatever it is.
    pub(super) fn take(
        &mut self,
        directory: &CaDirectory,
        found: Result<Option<Zeroizing<String>>, CaError>,
        now: SystemTime,
    ) {
        let found = found.and_then(|file| match file {
            None if self.rollover.has_key() => Err(CaError::JwtKeyGone(directory.jwt_key_path())),
            None => Ok(None),
            Some(file) if self.file.as_ref() == Some(&file) => Ok(None),
            Some(file) => Ok(Some((directory.load_jwt_key(&file)?, file))),
        });
        match found {
            Ok(found) => {
                self.broken = None;
                if let Some((key, file)) = found {
                    self.file = Some(file);
                    let key_id = key.authority().key_id().to_owned();
                    match self.rollover.offer(key, now) {
                        Offer::Published => {
                            info!(key_id, "a new JWT key is published, signs later")
                        }
                        Offer::Activated => info!(key_id, "a JWT key signs now"),
                        Offer::Known => {}
                    }
                }
            }
            Err(error) => {
                let reason = error.to_string();
                if self.broken.as_ref() != Some(&reason) {
                    self.failures += 1;
                    match self.rollover.has_key() {
                        true => {
                            warn!(reason, "the JWT key on disk can't be used; the last goes on")
                        }
                        false => {
                            warn!(reason, "no usable JWT key: no JWT-SVIDs until there is one")
                        }
                    }
                    self.broken = Some(reason);
                }
            }
        }
        if self.rollover.advance(now) {
            let key_id = self.rollover.signing().map(|key| key.authority().key_id().to_owned());
            info!(key_id, "the JWT key or its predecessors changed");
        }
    }

    /// Whether someone waits for a key to sign.
    pub(super) fn is_settling(&self) -> bool {
        self.rollover.has_key() && self.rollover.signing().is_none()
    }

    /// How often the file could not be used.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Every authority to be trusted.
    pub(super) fn authorities(&self) -> Vec<JwtAuthority> {
        self.rollover.authorities()
    }

    /// Whether there is a key at all, be it one that signs in a moment.
    pub(super) fn check(&self, directory: &CaDirectory) -> Result<(), SignError> {
        if self.rollover.has_key() {
            return Ok(());
        }
        let path = directory.jwt_key_path();
        let path = path.display();
        let reason = match &self.broken {
            Some(reason) => format!("no JWT-SVIDs: {reason}"),
            None => format!(
                "no JWT-SVIDs: {path} does not exist: put a private key there (PKCS#8 PEM, mode \
                 0600, RSA-2048 or ECDSA), or pass --ca-create to make one"
            ),
        };
        Err(SignError::new(Class::NotReady, reason))
    }

    /// The key and the claims of a token that may be signed now; it counts as signed.
    pub(super) fn prepare(
        &mut self,
        request: &JwtRequest,
        directory: &CaDirectory,
        published: Option<&TrustBundle>,
        now: SystemTime,
    ) -> Result<(Arc<JwtKey>, JwtClaims), SignError> {
        self.check(directory)?;
        let Some(key) = self.rollover.signing().cloned() else {
            let wait = self.rollover.next_signs_at().and_then(|at| at.duration_since(now).ok());
            let wait = wait.unwrap_or_default();
            let reason = format!(
                "the JWT key is new: it is published first and signs in {} s",
                wait.as_secs()
            );
            return Err(SignError::new(Class::Unavailable, reason).with_retry_after(wait));
        };
        let known = |bundle: &TrustBundle| bundle.jwt_authorities().contains(key.authority());
        if !published.is_some_and(known) {
            return Err(SignError::new(
                Class::Unavailable,
                "the JWT key is in no bundle yet, because there is no usable CA",
            ));
        }
        let expires_at = now + self.config.ttl.min(request.ttl);
        self.rollover.note_signature(expires_at);
        let claims = JwtClaims {
            id: request.id.clone(),
            audience: request.audience.clone(),
            issued_at: now,
            expires_at,
            issuer: self.config.issuer.clone(),
            jti: self.config.jti,
            extra: BTreeMap::new(),
        };
        Ok((key, claims))
    }
}
