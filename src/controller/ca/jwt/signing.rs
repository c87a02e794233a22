//! The JWT key that signs now.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{super::moment::Moment, entry::JwtEntry, settings::JwtKeySettings};
use crate::{
    id::SpiffeId,
    jose::{JwtAuthority, JwtClaims, JwtError, JwtKey, JwtSvid},
};

/// A JWT key that may sign now on this replica. Ask for it anew for each signature.
#[derive(Debug)]
pub struct SigningJwtKey {
    key: Arc<JwtKey>,
    max_ttl: Duration,
    /// Nothing that it signs may live at this instant.
    over: Moment,
    issuer: Option<String>,
    jti: bool,
}

// === impl SigningJwtKey ===

impl SigningJwtKey {
    /// Nothing for a key whose private half is not here.
    pub(in super::super) fn of(entry: &JwtEntry, settings: &JwtKeySettings) -> Option<Self> {
        let over = entry.stage.remove_at().map_or(entry.end, |at| at.min(entry.end));
        Some(Self {
            key: entry.key.private.clone()?,
            // What was promised when the key began to sign, and what is allowed now.
            max_ttl: entry.max_ttl.min(settings.max_ttl),
            over,
            issuer: settings.issuer.clone(),
            jti: settings.jti,
        })
    }

    /// Signs. The token ends after `ttl`, after the longest lifetime that is allowed, when the key
    /// leaves the bundle or with the key's own end, whichever comes first. `claims` are texts beside
    /// those of the JWT-SVID, which none of them can replace.
    pub fn sign(
        &self,
        id: &SpiffeId,
        audience: &[String],
        ttl: Duration,
        claims: &BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<JwtSvid, JwtError> {
        let left = self.over.since(Moment::of(now));
        let issued_at = Moment::of(now);
        self.key.sign(&JwtClaims {
            id: id.clone(),
            audience: audience.to_vec(),
            issued_at: issued_at.time(),
            expires_at: issued_at.after(ttl.min(self.max_ttl).min(left)).time(),
            issuer: self.issuer.clone(),
            jti: self.jti,
            extra: claims.clone(),
        })
    }

    /// The `kid` of what it signs.
    pub fn key_id(&self) -> &str {
        self.key.authority().key_id()
    }

    /// Its public half.
    pub fn authority(&self) -> &JwtAuthority {
        self.key.authority()
    }
}
