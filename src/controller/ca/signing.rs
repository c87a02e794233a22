//! The CA that signs now.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{entry::Entry, moment::Moment};
use crate::{
    class::Class,
    id::SpiffeId,
    pki::{Authority, Certificate, DnsName, IssueError, PublicKey, TrustBundle, X509Svid},
};

/// A CA that may sign now on this replica. Ask for it anew for each signature.
#[derive(Debug)]
pub struct SigningAuthority {
    authority: Arc<Authority>,
    key_id: String,
    max_ttl: Duration,
    /// Nothing that it signs may live at this instant.
    remove_at: Option<Moment>,
}

/// Why nothing can be signed now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotReady {
    /// For the person who can help.
    pub reason: String,
    /// When it passes by itself, where that is known.
    pub until: Option<SystemTime>,
}

// === impl SigningAuthority ===

impl SigningAuthority {
    /// Nothing for a CA whose key is not here.
    pub(super) fn of(entry: &Entry, max_ttl: Duration) -> Option<Self> {
        Some(Self {
            authority: entry.ca.authority.clone()?,
            key_id: entry.ca.key_id.clone(),
            // What was promised when the CA began to sign, and what is allowed now.
            max_ttl: entry.max_ttl.min(max_ttl),
            remove_at: entry.remove_at(),
        })
    }

    /// Signs. The certificate ends after `ttl`, after the longest lifetime that is allowed, when its
    /// root leaves the bundle, or with the first end of the chain above it, whichever comes first.
    pub fn issue(
        &self,
        key: &PublicKey,
        id: &SpiffeId,
        dns_names: &[DnsName],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<X509Svid, IssueError> {
        let left = self.remove_at.map(|at| at.since(Moment::of(now)));
        let ttl = left.map_or(ttl, |left| ttl.min(left)).min(self.max_ttl);
        if ttl.is_zero() {
            return Err(IssueError::Expired);
        }
        self.authority.issue(key, id, dns_names, ttl, now)
    }

    /// The identifier of the key that signs: what the leaf has as authorityKeyIdentifier.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The certificate that signs.
    pub fn certificate(&self) -> &Certificate {
        self.authority.certificate()
    }

    /// The roots that its certificates chain to.
    pub fn bundle(&self) -> TrustBundle {
        self.authority.bundle()
    }

    /// When the first certificate of its chain ends.
    pub fn not_after(&self) -> SystemTime {
        self.authority.not_after()
    }
}

// === impl NotReady ===

impl NotReady {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), until: None }
    }

    pub(super) fn until(self, until: Moment) -> Self {
        Self { until: Some(until.time()), ..self }
    }

    /// Always [`Class::Unavailable`]: it can succeed later.
    pub fn class(&self) -> Class {
        Class::Unavailable
    }
}
