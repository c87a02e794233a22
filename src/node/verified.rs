//! JWT-SVIDs that were verified, so that a token that comes with every request of a client costs one
//! signature.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use crate::{
    jose::{self, JwtError, MAX_TOKEN, VerifiedJwt},
    trust::TrustBundles,
};

/// The most tokens of one generation, and their bytes. There are two generations.
const MAX_TOKENS: usize = 2048;
const MAX_BYTES: usize = 2 << 20;

/// Verified tokens of all volumes, by their SHA-256, until the bundles change. Who may ask what of a
/// token is looked at each time.
#[derive(Debug, Default)]
pub(super) struct VerifiedTokens(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// What they were verified by.
    bundles: Option<Arc<TrustBundles>>,
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    tokens: HashMap<[u8; 32], Arc<VerifiedJwt>>,
    bytes: usize,
}

// === impl VerifiedTokens ===

impl VerifiedTokens {
    /// Verifies a token for an audience. `checked` is called where its signature had to be.
    pub(super) fn verify(
        &self,
        token: &str,
        audience: &str,
        bundles: &Arc<TrustBundles>,
        now: SystemTime,
        checked: impl FnOnce(),
    ) -> Result<Arc<VerifiedJwt>, JwtError> {
        // Before anything is done with it.
        if token.len() > MAX_TOKEN {
            return Err(JwtError::TooLong { length: token.len() });
        }
        let key = sha256(token);
        if let Some(known) = self.memory().get(&key, token.len(), bundles) {
            if !is_for(&known, audience) {
                return Err(JwtError::WrongAudience);
            }
            if known.expires_at <= now {
                return Err(JwtError::Expired);
            }
            return Ok(known);
        }
        checked();
        let of = |domain: &_| bundles.of(domain).map(|bundle| bundle.jwt_authorities().clone());
        let verified = Arc::new(jose::verify(token, audience, of, now)?);
        self.memory().keep(key, token.len(), verified.clone(), bundles);
        Ok(verified)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Memory ===

impl Memory {
    fn get(
        &mut self,
        key: &[u8; 32],
        length: usize,
        bundles: &Arc<TrustBundles>,
    ) -> Option<Arc<VerifiedJwt>> {
        self.follow(bundles);
        if let Some(known) = self.young.tokens.get(key) {
            return Some(known.clone());
        }
        let known = self.old.tokens.get(key)?.clone();
        self.insert(*key, length, known.clone());
        Some(known)
    }

    fn keep(
        &mut self,
        key: [u8; 32],
        length: usize,
        verified: Arc<VerifiedJwt>,
        bundles: &Arc<TrustBundles>,
    ) {
        // They may have changed since; whoever saw newer ones forgot these.
        if self.bundles.as_ref().is_some_and(|held| Arc::ptr_eq(held, bundles)) {
            self.insert(key, length, verified);
        }
    }

    fn insert(&mut self, key: [u8; 32], length: usize, verified: Arc<VerifiedJwt>) {
        let young = &self.young;
        if young.tokens.len() >= MAX_TOKENS || young.bytes + length > MAX_BYTES {
            self.old = mem::take(&mut self.young);
        }
        if self.young.tokens.insert(key, verified).is_none() {
            self.young.bytes += length;
        }
    }

    /// Forgets everything once the bundles are others: a key may be gone from them.
    fn follow(&mut self, bundles: &Arc<TrustBundles>) {
        if !self.bundles.as_ref().is_some_and(|held| Arc::ptr_eq(held, bundles)) {
            *self = Self { bundles: Some(bundles.clone()), ..Self::default() };
        }
    }
}

fn sha256(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// JWT-SVID §3.2: `aud` is a string or a list of them.
fn is_for(jwt: &VerifiedJwt, audience: &str) -> bool {
    match jwt.claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(all)) => all.iter().any(|one| one == audience),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
