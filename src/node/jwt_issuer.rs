//! From a volume's wish to a verified JWT-SVID.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    NodeError,
    issuer::{Issuer, LAG, SIGN_TIMEOUT},
    metrics::Outcome,
    pod_token::PodTokenCell,
};
use crate::{
    id::SpiffeId,
    jose::{self, JwtError, JwtSvid},
    signer::JwtRequest,
    trust::TrustBundles,
    volume::{AudienceSet, PodInfo, VolumeId},
};

/// The longest lifetime that is asked for; the signer's own setting is what counts.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is to be issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct JwtWish<'a> {
    pub(super) volume: &'a VolumeId,
    pub(super) pod: &'a PodInfo,
    pub(super) id: &'a SpiffeId,
    pub(super) audience: &'a AudienceSet,
    pub(super) pod_token: &'a PodTokenCell,
}

/// A new JWT-SVID, and what it was verified against.
#[derive(Clone, Debug)]
pub(super) struct IssuedJwt {
    pub(super) svid: Arc<JwtSvid>,
    pub(super) bundles: Arc<TrustBundles>,
}

// === impl Issuer ===

impl Issuer {
    /// A new JWT-SVID, asked for once.
    pub(super) async fn issue_jwt(&self, wish: JwtWish<'_>) -> Result<IssuedJwt, NodeError> {
        let issued = self.issue_jwt_once(wish).await;
        let outcome = Outcome::of(&issued, NodeError::class);
        self.metrics.workload.jwt_signed.get_or_create(&outcome).inc();
        issued
    }

    async fn issue_jwt_once(&self, wish: JwtWish<'_>) -> Result<IssuedJwt, NodeError> {
        self.signer.signs_jwt()?;
        let pod_token = wish.pod_token.current(self.clock.now());
        let request = JwtRequest {
            volume: wish.volume.clone(),
            pod: wish.pod.clone(),
            id: wish.id.clone(),
            audience: wish.audience.as_slice().to_vec(),
            ttl: LONGEST,
            pod_token: pod_token.as_ref().ok().cloned(),
        };
        let answer = tokio::select! {
            answer = timeout(SIGN_TIMEOUT, self.signer.sign_jwt(&request)) => answer,
            () = self.ending.cancelled() => return Err(NodeError::ShuttingDown),
        };
        let Ok(answer) = answer else {
            return Err(NodeError::SignTimeout(SIGN_TIMEOUT.as_secs()));
        };
        let unsigned = |error| NodeError::Sign(error).with_reason(pod_token.map(drop));
        let svid = Arc::new(answer.map_err(unsigned)?);
        let bundles = self.trusted_jwt(&svid, wish).await?;
        Ok(IssuedJwt { svid, bundles })
    }

    /// The bundles, once the token verifies by them: a node may hear of a new key a moment after
    /// the signer uses it.
    async fn trusted_jwt(
        &self,
        svid: &JwtSvid,
        wish: JwtWish<'_>,
    ) -> Result<Arc<TrustBundles>, NodeError> {
        let lag = if self.signer.is_remote() { LAG } else { Duration::ZERO };
        let deadline = Instant::now() + lag;
        let mut changes = self.bundles.subscribe();
        loop {
            let current = changes.borrow_and_update().clone();
            let error = match current.map(|it| (check(svid, wish, &it, self.clock.now()), it)) {
                Some((Ok(()), bundles)) => return Ok(bundles),
                Some((Err(error @ JwtError::UnknownKey { .. }), _)) => error.into(),
                Some((Err(error), _)) => return Err(error.into()),
                None => NodeError::NoBundle,
            };
            tokio::select! {
                changed = timeout_at(deadline, changes.changed()) => match changed {
                    Ok(Ok(())) => {}
                    _ => return Err(error),
                },
                () = self.ending.cancelled() => return Err(NodeError::ShuttingDown),
            }
        }
    }
}

/// Whether a token is what was wished for, and good now.
pub(super) fn check(
    svid: &JwtSvid,
    wish: JwtWish<'_>,
    bundles: &TrustBundles,
    now: SystemTime,
) -> Result<(), JwtError> {
    let wished = wish.audience.as_slice();
    let mut audience: Vec<&str> = svid.audience().iter().map(String::as_str).collect();
    audience.sort_unstable();
    if audience != wished {
        return Err(JwtError::WrongAudience);
    }
    let first = wished.first().ok_or(JwtError::NoAudience)?;
    let of = |domain: &_| bundles.of(domain).map(|bundle| bundle.jwt_authorities().clone());
    let verified = jose::verify(svid.token(), first, of, now)?;
    if verified.id != *wish.id || verified.expires_at != svid.expires_at() {
        return Err(JwtError::Subject);
    }
    Ok(())
}
