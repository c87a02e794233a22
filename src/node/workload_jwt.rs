//! A pod's JWT-SVIDs: those it is given, and those of others that it has checked.

use std::sync::Arc;

use super::{
    Limit, Refused, Workload, WorkloadError,
    jwt_cache::{Found, Pilot, still_good},
    jwt_issuer::{JwtWish, check},
};
use crate::{
    id::SpiffeId,
    jose::{JwtSvid, VerifiedJwt},
    volume::AudienceSet,
};

// === impl Workload ===

impl Workload {
    /// Whether this driver has the JWT profile; `Err` says what to set.
    pub fn serves_jwt(&self) -> Result<(), WorkloadError> {
        let signer = &self.desk().issuer.signer;
        signer.signs_jwt().map_err(|error| WorkloadError::NoJwt(error.to_string()))
    }

    /// A JWT-SVID of this pod for all of these audiences. `id` is the identity that it asks for,
    /// where it names one. The same one is given for half its life, and for all of it while the
    /// signer is away, but none once policy denies the pod its identity.
    pub async fn jwt_svid(
        &self,
        audience: Vec<String>,
        id: Option<SpiffeId>,
    ) -> Result<Arc<JwtSvid>, WorkloadError> {
        let offer = self.current_offer();
        let supported = self.serves_jwt();
        let audience = match (AudienceSet::new(audience), &supported) {
            (Ok(audience), _) => audience,
            (Err(error), Ok(())) => return Err(error.into()),
            (Err(_), Err(unsupported)) => return Err(unsupported.clone()),
        };
        if offer.denied {
            return Err(WorkloadError::NoIdentity);
        }
        let Some(own) = offer.svid.as_ref().map(|svid| svid.x509.id()) else {
            return supported.and(Err(WorkloadError::NotYet));
        };
        if id.is_some_and(|id| id != *own) {
            return Err(WorkloadError::NoIdentity);
        }
        let held = match self.cached(&audience, own) {
            Found::Fresh(svid) => return Ok(svid),
            Found::Due(svid) => Some(svid),
            Found::Nothing => None,
        };
        let renewed = match supported {
            Ok(()) => self.issued(audience, own).await,
            Err(unsupported) => Err(unsupported),
        };
        match (renewed, held) {
            (Ok(svid), _) => Ok(svid),
            (Err(WorkloadError::NoIdentity), _) => Err(WorkloadError::NoIdentity),
            (Err(_), Some(held)) if held.expires_at() > self.clock().now() => Ok(held),
            (Err(error), _) => Err(error),
        }
    }

    /// Verifies a JWT-SVID for this audience by the newest bundles.
    pub fn validate_jwt(
        &self,
        audience: &str,
        token: &str,
    ) -> Result<Arc<VerifiedJwt>, WorkloadError> {
        self.serves_jwt()?;
        let desk = self.desk();
        // Nothing is for nobody, whatever a token says.
        AudienceSet::new(vec![audience.to_owned()])?;
        let bundles = desk.issuer.bundles.current().ok_or(WorkloadError::NoBundle)?;
        let bundles = self.seen_by(&self.current_offer(), bundles);
        let now = desk.issuer.clock.now();
        let checked = || {
            desk.metrics.workload.jwt_verified.inc();
        };
        Ok(desk.verified.verify(token, audience, &bundles, now, checked)?)
    }

    fn cached(&self, audience: &AudienceSet, id: &SpiffeId) -> Found {
        let issuer = &self.desk().issuer;
        let now = issuer.clock.now();
        let bundles = issuer.bundles.current();
        let wish = self.wish(audience, id);
        self.jwts().get(audience, now, |issued| {
            let verify = |svid: &JwtSvid, bundles: &_| check(svid, wish, bundles, now).is_ok();
            still_good(issued, id, bundles, verify)
        })
    }

    /// Asks the signer, or waits with those who ask it for the same. Whoever stops waiting stops
    /// nobody else.
    async fn issued(
        &self,
        audience: AudienceSet,
        id: &SpiffeId,
    ) -> Result<Arc<JwtSvid>, WorkloadError> {
        let (volume, desk) = self.parts();
        let refuse = |refused| WorkloadError::from(desk.refuse(volume, refused));
        let (mut flight, pilot) = self.jwts().board(
            &audience,
            || volume.usage.may_sign(&desk.limits).map_err(refuse),
            || refuse(Refused(Limit::Signatures)),
        )?;
        if let Some(pilot) = pilot {
            desk.spawn(self.clone().fly(audience, id.clone(), pilot));
        }
        match flight.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            _ => Err(WorkloadError::Closing),
        }
    }

    async fn fly(self, audience: AudienceSet, id: SpiffeId, pilot: Pilot) {
        let issuer = &self.desk().issuer;
        let answer = tokio::select! {
            issued = issuer.issue_jwt(self.wish(&audience, &id)) => {
                issued.map_err(|error| WorkloadError::unsigned(&error))
            }
            () = self.closing().cancelled() => Err(WorkloadError::Closing),
        };
        self.jwts().land(audience, answer, pilot);
    }

    fn wish<'a>(&'a self, audience: &'a AudienceSet, id: &'a SpiffeId) -> JwtWish<'a> {
        let (volume, _) = self.parts();
        JwtWish {
            volume: self.volume(),
            pod: self.pod(),
            id,
            audience,
            pod_token: &volume.pod_token,
        }
    }
}

#[cfg(test)]
mod tests;
