//! The last step of every way to an identity: what was granted is signed, and written down before it
//! leaves, so that nothing leaves without its line.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    approver::{Denial, Grant, JwtGrant},
    audit::{Audit, Entry, Outcome},
    ca::{Keyring, NotReady},
    metrics::Metrics,
};
use crate::{
    clock::Clock,
    id::SpiffeId,
    jose::{JwtError, JwtSvid},
    k8s::names::APPROVED_REASON,
    pki::{IssueError, PublicKey, X509Svid},
};

/// Signs, and keeps account. Shared by `Arc`.
pub struct Issuance {
    /// Who signs.
    pub keyring: Arc<Keyring>,
    /// Where it is written down.
    pub audit: Arc<Audit>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why nothing was signed or decided.
#[derive(Debug, thiserror::Error)]
pub enum IssuanceError {
    /// There is nothing that may sign now.
    #[error("nothing can be signed: {0}")]
    NotReady(#[from] NotReady),
    /// The CA did not sign.
    #[error("cannot sign: {0}")]
    Issue(#[from] IssueError),
    /// The JWT key did not sign.
    #[error("cannot sign: {0}")]
    Jwt(#[from] JwtError),
    /// It cannot be accounted for.
    #[error("cannot write the audit line: {0}; nothing is decided without it")]
    Audit(#[from] io::Error),
}

/// Why the controller's own SVID has this reason: nobody asked for it.
const OWN: &str = "ControllerCertificate";

// === impl Issuance ===

impl Issuance {
    /// Signs what was granted; `asked` says who asked for whom.
    pub fn sign(&self, grant: &Grant, asked: &Entry<'_>) -> Result<X509Svid, IssuanceError> {
        let now = self.clock.now();
        let authority = self.keyring.signing(now)?;
        let svid =
            authority.issue(&grant.public_key, &grant.id, &grant.dns_names, grant.ttl, now)?;
        self.record(&Entry {
            serial: svid.serial_hex(),
            ca_key_id: authority.key_id(),
            ttl_seconds: lifetime(&svid, now),
            ..granted(Outcome::Sign, grant, asked)
        })?;
        Ok(svid)
    }

    /// Signs the JWT-SVID that was granted; `asked` says who asked for whom.
    pub fn sign_jwt(&self, grant: &JwtGrant, asked: &Entry<'_>) -> Result<JwtSvid, IssuanceError> {
        let now = self.clock.now();
        let key = self.keyring.signing_jwt(now)?;
        let svid = key.sign(&grant.id, &grant.audience, grant.ttl, &grant.claims, now)?;
        self.record(&Entry {
            decision: Outcome::Sign,
            reason: APPROVED_REASON,
            spiffe_id: grant.id.as_str(),
            policy: &grant.policy,
            ttl_seconds: svid
                .expires_at()
                .duration_since(svid.issued_at())
                .ok()
                .map(|d| d.as_secs()),
            audience: &grant.audience,
            jwt_key_id: key.key_id(),
            expires: Some(svid.expires_at()),
            ..asked.clone()
        })?;
        Ok(svid)
    }

    /// Signs for the controller itself. The CA's key identifier comes with it.
    pub fn sign_own(
        &self,
        key: &PublicKey,
        id: &SpiffeId,
        ttl: Duration,
    ) -> Result<(X509Svid, String), IssuanceError> {
        let now = self.clock.now();
        let authority = self.keyring.signing(now)?;
        let svid = authority.issue(key, id, &[], ttl, now)?;
        self.record(&Entry {
            decision: Outcome::Sign,
            reason: OWN,
            spiffe_id: id.as_str(),
            key_algorithm: key.algorithm().map_or("", |algorithm| algorithm.as_str()),
            serial: svid.serial_hex(),
            ca_key_id: authority.key_id(),
            ttl_seconds: lifetime(&svid, now),
            ..Entry::default()
        })?;
        Ok((svid, authority.key_id().to_owned()))
    }

    /// Writes down that this will be signed.
    pub fn approve(&self, grant: &Grant, asked: &Entry<'_>) -> Result<(), IssuanceError> {
        // Nothing is approved that another replica may be able to sign and this is not.
        self.keyring.signing(self.clock.now())?;
        self.record(&granted(Outcome::Approve, grant, asked))
    }

    /// Writes down that somebody else will sign this.
    pub fn admit(&self, grant: &Grant, asked: &Entry<'_>) -> Result<(), IssuanceError> {
        self.record(&granted(Outcome::Approve, grant, asked))
    }

    /// Writes a refusal down.
    pub fn refuse(
        &self,
        outcome: Outcome,
        denial: &Denial,
        asked: &Entry<'_>,
    ) -> Result<(), IssuanceError> {
        let reason = denial.reason.as_str();
        self.record(&Entry { decision: outcome, reason, message: &denial.message, ..asked.clone() })
    }

    fn record(&self, entry: &Entry<'_>) -> Result<(), IssuanceError> {
        self.audit.record(entry).map_err(|error| {
            self.metrics.audit_failures.inc();
            error.into()
        })
    }
}

fn granted<'a>(outcome: Outcome, grant: &'a Grant, asked: &Entry<'a>) -> Entry<'a> {
    Entry {
        decision: outcome,
        reason: APPROVED_REASON,
        spiffe_id: grant.id.as_str(),
        policy: &grant.policy,
        ttl_seconds: Some(grant.ttl.as_secs()),
        dns_names: &grant.dns_names,
        key_algorithm: grant.public_key.algorithm().map_or("", |algorithm| algorithm.as_str()),
        ..asked.clone()
    }
}

/// What is left of a certificate's life when it leaves.
fn lifetime(svid: &X509Svid, now: SystemTime) -> Option<u64> {
    // Certificates end on whole seconds, and began on one.
    svid.not_after().duration_since(now).ok().map(|left| left.as_secs_f64().ceil() as u64)
}
