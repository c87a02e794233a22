//! A volume's JWT-SVIDs as files: part of the set, issued again at about half their life.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{
    Node, NodeError, backoff,
    issuer::{Patience, SIGN_TIMEOUT},
    jwt_issuer::{JwtWish, check},
    volume::{SOONEST, Volume, Work},
};
use crate::{
    class::Class,
    id::SpiffeId,
    jitter::random,
    jose::JwtSvid,
    pki::RenewalPolicy,
    volume::{JwtFile, VolumeSpec},
};

/// The tokens of a set, by file.
pub(super) type JwtFiles = BTreeMap<String, Arc<JwtSvid>>;

// === impl Volume ===

impl Volume {
    /// When its JWT-SVIDs are due, all at once: one swap for them all. At once if one is missing;
    /// `None` if it has no such files.
    pub(super) fn jwts_due(&self, work: &Work) -> Option<SystemTime> {
        let files = &work.spec.as_ref()?.jwt_files;
        let due = |file: &JwtFile| {
            work.jwts.get(&file.name).map_or(SystemTime::UNIX_EPOCH, |svid| self.jwt_due(svid))
        };
        files.iter().map(due).min()
    }

    /// Spread by the volume and the time of issue (invariant 9), so that a restart comes to the
    /// same.
    fn jwt_due(&self, svid: &JwtSvid) -> SystemTime {
        let (start, end) = (svid.issued_at(), svid.expires_at());
        let issued = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = self.id.renewal_seed(&format!("jwt {}", issued.as_secs()));
        RenewalPolicy::renew_at(start, end, &seed)
    }

    /// When to look at the volume after work that began then.
    pub(super) fn next_look(&self, work: &Work, began: SystemTime) -> Option<SystemTime> {
        let svid = self.next_look_at_svid(&work.svid.as_ref()?.x509, work.pace(), began);
        let Some(jwts) = self.jwts_due(work) else { return Some(svid) };
        // As for certificates: tokens that are due at once must not keep the node busy.
        let jwts = if jwts > began { jwts } else { began + SOONEST };
        Some(svid.min(jwts))
    }
}

// === impl Node ===

impl Node {
    /// Refuses a volume that asks for JWT-SVIDs where none are to be had, before anything is done
    /// for it.
    pub(super) fn has_jwt(&self, spec: &VolumeSpec) -> Result<(), NodeError> {
        if spec.jwt_files.is_empty() {
            return Ok(());
        }
        self.issuer.signer.signs_jwt().map_err(NodeError::NoJwt)
    }

    /// Puts the tokens of a publish beside its SVID. Those that an interrupted one left are kept
    /// while they are good.
    pub(super) async fn provide_jwts(
        &self,
        volume: &Volume,
        work: &mut Work,
        id: &SpiffeId,
    ) -> Result<(), NodeError> {
        match self.renewed_jwts(volume, work, id, Patience::Waits).await {
            Ok(Some(jwts)) => work.jwts = jwts,
            Ok(None) => {}
            // The pod runs already, with what it has.
            Err(error) if work.protected => {
                warn!(volume = %volume.id, %error, "a volume's JWT-SVIDs stay as they are");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Issues a live volume's tokens again where they are due, and swaps them in beside the same
    /// certificate.
    pub(super) async fn tend_jwts(
        &self,
        volume: &Volume,
        work: &mut Work,
    ) -> Result<(), NodeError> {
        let Some((svid, bundles)) = work.svid.clone().zip(work.beside.clone()) else {
            return Ok(());
        };
        let id = svid.x509.id().clone();
        let renewed = self.renewed_jwts(volume, work, &id, Patience::TriesOnce).await?;
        let Some(jwts) = renewed else { return Ok(()) };
        let before = std::mem::replace(&mut work.jwts, jwts);
        if let Err(error) = block_in_place(|| self.swap(volume, work, svid, bundles, &id)) {
            work.jwts = before;
            return Err(error);
        }
        info!(volume = %volume.id, files = work.jwts.len(), "JWT-SVIDs renewed");
        Ok(())
    }

    /// New tokens for every file; `None` if those that are there are good.
    async fn renewed_jwts(
        &self,
        volume: &Volume,
        work: &Work,
        id: &SpiffeId,
        patience: Patience,
    ) -> Result<Option<JwtFiles>, NodeError> {
        let Some(spec) = work.spec.as_ref().filter(|spec| !spec.jwt_files.is_empty()) else {
            return Ok(None);
        };
        let (now, bundles) = (self.clock.now(), self.issuer.bundles.current());
        let good = |file: &JwtFile| {
            let svid: &Arc<JwtSvid> = work.jwts.get(&file.name)?;
            let fresh = now < volume.jwt_due(svid);
            // A key that was withdrawn from the bundle signed nothing that counts.
            (fresh && check(svid, wish(volume, spec, id, file), bundles.as_deref()?, now).is_ok())
                .then_some(())
        };
        if spec.jwt_files.iter().all(|file| good(file).is_some()) {
            return Ok(None);
        }
        self.has_jwt(spec)?;
        let issue = async {
            let deadline = Instant::now() + SIGN_TIMEOUT;
            let mut jwts = JwtFiles::new();
            for file in &spec.jwt_files {
                let svid =
                    self.issue_in_time(wish(volume, spec, id, file), patience, deadline).await?;
                jwts.insert(file.name.clone(), svid);
            }
            Ok(Some(jwts))
        };
        tokio::select! {
            issued = issue => issued,
            () = volume.closing().cancelled_owned() => {
                Err(NodeError::Unpublishing(volume.id.clone()))
            }
        }
    }

    async fn issue_in_time(
        &self,
        wish: JwtWish<'_>,
        patience: Patience,
        deadline: Instant,
    ) -> Result<Arc<JwtSvid>, NodeError> {
        let mut failures = 0;
        loop {
            let error = match self.issuer.issue_jwt(wish).await {
                Ok(issued) => return Ok(issued.svid),
                Err(NodeError::ShuttingDown) => return Err(NodeError::ShuttingDown),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            failures += 1;
            let class = error.class();
            let delay = backoff::delay(class, failures, left, error.retry_after(), random());
            if patience == Patience::TriesOnce || class != Class::Unavailable || delay >= left {
                return Err(error);
            }
            sleep(delay.max(Duration::from_millis(1))).await;
        }
    }
}

fn wish<'a>(
    volume: &'a Volume,
    spec: &'a VolumeSpec,
    id: &'a SpiffeId,
    file: &'a JwtFile,
) -> JwtWish<'a> {
    let (audience, pod_token) = (&file.audience, &volume.pod_token);
    JwtWish { volume: &volume.id, pod: &spec.pod, id, audience, pod_token }
}
