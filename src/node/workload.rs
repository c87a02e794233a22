//! A volume as its pod sees it through the socket in it. The accepting socket is the identity:
//! kubelet put it into that pod and no other.

use std::{fmt, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CallPermit, Refused, desk::Desk, jwt_cache::JwtCache, offer::Offer, volume::Volume};
use crate::{
    clock::Clock,
    trust::TrustBundles,
    volume::{PodInfo, VolumeId},
};

/// One volume and what is needed to serve it. Cheap to clone.
#[derive(Clone)]
pub struct Workload {
    volume: Arc<Volume>,
    desk: Arc<Desk>,
    pod: Arc<PodInfo>,
    closing: CancellationToken,
}

// === impl Workload ===

impl Workload {
    pub(super) fn new(
        volume: Arc<Volume>,
        desk: Arc<Desk>,
        pod: Arc<PodInfo>,
        closing: CancellationToken,
    ) -> Self {
        Self { volume, desk, pod, closing }
    }

    pub(super) fn parts(&self) -> (&Arc<Volume>, &Arc<Desk>) {
        (&self.volume, &self.desk)
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(super) fn pod(&self) -> &PodInfo {
        &self.pod
    }

    pub(super) fn jwts(&self) -> &JwtCache {
        &self.volume.jwts
    }

    pub(super) fn current_offer(&self) -> Arc<Offer> {
        self.volume.current_offer()
    }

    /// Which volume it is.
    pub fn volume(&self) -> &VolumeId {
        &self.volume.id
    }

    /// What the pod is entitled to now, and each change of it.
    pub fn offer(&self) -> watch::Receiver<Arc<Offer>> {
        self.volume.offer()
    }

    /// Everybody's bundles, as a pod with this offer may see them.
    pub fn seen_by(&self, offer: &Offer, bundles: Arc<TrustBundles>) -> Arc<TrustBundles> {
        match &offer.federates_with {
            Some(domains) => self.desk.issuer.bundles.view(&bundles, domains),
            None => bundles,
        }
    }

    /// Everybody's bundles, and each change of them. Before the first there are none. What the pod
    /// may see of them is [`Self::seen_by`] its offer.
    pub fn bundles(&self) -> watch::Receiver<Option<Arc<TrustBundles>>> {
        self.desk.issuer.bundles.subscribe()
    }

    /// The clock by which SVIDs expire.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.desk.issuer.clock
    }

    /// Cancelled once the volume is no longer served at this socket: streams end as Unavailable.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Admits a call, of any service on the socket. To be kept until the call has ended.
    pub fn admit(&self) -> Result<CallPermit, Refused> {
        self.desk.call(&self.volume)
    }

    /// Admits one more message of a call that was admitted, where a client may send several.
    pub fn admit_message(&self) -> Result<(), Refused> {
        self.desk.message(&self.volume)
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Workload").field(&self.volume.id).finish()
    }
}
