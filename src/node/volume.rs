//! One volume: what it was asked for, what it holds, and who may work on it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    desk::Door, jwt_cache::JwtCache, jwt_files::JwtFiles, limits, metrics::VolumeState,
    offer::Offer, pod_token::PodTokenCell,
};
use crate::{
    class::Class,
    id::TrustDomain,
    pki::{PrivateKey, RenewalPolicy, X509Svid},
    signer::{Assigned, Handout},
    sys::TargetPath,
    trust::TrustBundles,
    volume::{LastError, Taint, VolumeContext, VolumeId, VolumeSpec},
};

/// No volume is renewed again sooner than this.
pub(super) const SOONEST: Duration = Duration::from_secs(4);

/// A published volume, or one that is about to be. Its target never changes.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) id: VolumeId,
    pub(super) target: TargetPath,
    /// Held for a whole operation: publish, renewal and unpublish never overlap.
    work: tokio::sync::Mutex<Work>,
    /// For metrics and stats, which don't wait for an operation to end.
    status: Mutex<Status>,
    /// Cancelled by an unpublish, so that a publish that waits for its signer gives way.
    closing: Mutex<CancellationToken>,
    /// What its socket offers.
    offer: watch::Sender<Arc<Offer>>,
    /// The socket that it is served at.
    door: Mutex<Option<Door>>,
    /// What its pod has of the driver now.
    pub(super) usage: limits::Usage,
    /// The JWT-SVIDs that its pod asked for.
    pub(super) jwts: JwtCache,
    /// The pod's own token.
    pub(super) pod_token: PodTokenCell,
}

/// What belongs to whoever holds the volume's lock.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) phase: Phase,
    pub(super) request: Option<VolumeRequest>,
    pub(super) spec: Option<VolumeSpec>,
    /// The device number of our tmpfs, to tell it from another mount without reading mountinfo.
    pub(super) device: Option<u64>,
    pub(super) noswap: bool,
    /// What is mounted may have been live before: no failure takes it away (invariant 3).
    pub(super) protected: bool,
    /// What policy assigned to it, where that is not the default.
    pub(super) assigned: Option<Assigned>,
    pub(super) svid: Option<Svid>,
    /// What the set on the volume trusts; `None` where that isn't known to be current.
    pub(super) bundles: Option<Arc<TrustBundles>>,
    /// What stands beside the SVID on the volume, current or not: it verifies by this.
    pub(super) beside: Option<Arc<TrustBundles>>,
    /// The tokens on the volume.
    pub(super) jwts: JwtFiles,
    /// SHA-256 of each `bundle.json` that the record on the volume vouches for.
    pub(super) vouched: Vec<String>,
    /// Set while the SVID is under a CA key that is believed stolen.
    pub(super) taint: Option<Taint>,
    /// Failed renewals in a row.
    pub(super) failures: u32,
    pub(super) last_error: Option<LastError>,
    /// Policy refused the last renewal of the SVID.
    pub(super) denied: bool,
    /// What its pod is given, where SVIDs come with their keys.
    pub(super) handout: Option<Handout>,
    /// The federated trust domains that its pod was last to know; `None` is all of them.
    pub(super) federates_with: Option<Arc<BTreeSet<TrustDomain>>>,
}

/// Who sees to it that an SVID is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// The volume, earlier where the SVID is tainted.
    Own(Option<Taint>),
    /// Whoever hands it out; the volume notices what is overdue.
    HandedOut,
}

/// How far a volume has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of it is on the node yet.
    New,
    /// Mounted, but its publish has not been answered with OK.
    Pending,
    /// Its publish was answered with OK: from now on it is never worse (invariant 3).
    Live,
    /// Unpublished: whoever waited for the lock has to look the volume up again.
    Gone,
}

/// The parts of a publish that must be the same when it is repeated. Secrets are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeRequest {
    pub(super) context: VolumeContext,
    pub(super) mount_group: Option<String>,
}

/// An X.509-SVID with its key.
#[derive(Clone, Debug)]
pub(super) struct Svid {
    pub(super) x509: X509Svid,
    pub(super) key: Arc<PrivateKey>,
}

/// A volume at a glance.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) live: bool,
    pub(super) not_after: Option<SystemTime>,
    pub(super) last_error: Option<LastError>,
    pub(super) tainted: bool,
}

// === impl Volume ===

impl Volume {
    pub(super) fn new(id: VolumeId, target: TargetPath) -> Self {
        Self::with_work(id, target, Work::default())
    }

    pub(super) fn with_work(id: VolumeId, target: TargetPath, work: Work) -> Self {
        let status = Mutex::new(work.status());
        let offer = watch::Sender::new(Arc::new(Offer::of(&work)));
        let (work, closing) = (tokio::sync::Mutex::new(work), Mutex::default());
        let (door, usage) = (Mutex::default(), limits::Usage::default());
        let (jwts, pod_token) = (JwtCache::default(), PodTokenCell::default());
        Self { id, target, work, status, closing, offer, door, usage, jwts, pod_token }
    }

    pub(super) async fn lock(&self) -> tokio::sync::MutexGuard<'_, Work> {
        self.work.lock().await
    }

    /// Ends when an unpublish wants the lock.
    pub(super) fn closing(&self) -> CancellationToken {
        self.closing_cell().clone()
    }

    /// Tells whoever waits for a signer to let go of the lock.
    pub(super) fn give_way(&self) {
        self.closing_cell().cancel();
    }

    /// The unpublish came to nothing.
    pub(super) fn go_on(&self) {
        *self.closing_cell() = CancellationToken::new();
    }

    fn closing_cell(&self) -> MutexGuard<'_, CancellationToken> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if nobody holds it.
    pub(super) fn try_lock(&self) -> Option<tokio::sync::MutexGuard<'_, Work>> {
        self.work.try_lock().ok()
    }

    pub(super) fn status(&self) -> Status {
        self.status_cell().clone()
    }

    /// Shows others what the operation that holds the lock came to.
    pub(super) fn show(&self, work: &Work) {
        *self.status_cell() = work.status();
        self.offer.send_if_modified(|current| {
            let next = Offer::of(work);
            let news = **current != next;
            if news {
                *current = Arc::new(next);
            }
            news
        });
    }

    /// What its socket offers, and each change of it.
    pub(super) fn offer(&self) -> watch::Receiver<Arc<Offer>> {
        self.offer.subscribe()
    }

    pub(super) fn current_offer(&self) -> Arc<Offer> {
        self.offer.borrow().clone()
    }

    /// The socket that it is served at.
    pub(super) fn door(&self) -> MutexGuard<'_, Option<Door>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves nobody any longer: streams end.
    pub(super) fn shut(&self) {
        if let Some(door) = self.door().take() {
            door.shut();
        }
    }

    fn status_cell(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this SVID in this volume is to be renewed: the same after every restart (invariant 9).
    pub(super) fn renew_at(&self, svid: &X509Svid, pace: Pace) -> SystemTime {
        let seed = self.id.renewal_seed(svid.serial_hex());
        let (start, end) = (svid.not_before(), svid.not_after());
        match pace {
            Pace::Own(Some(Taint { since, round })) => {
                RenewalPolicy::tainted_at(since, round, start, end, &seed)
            }
            Pace::Own(None) => RenewalPolicy::renew_at(start, end, &seed),
            Pace::HandedOut => RenewalPolicy::overdue_at(start, end, &seed),
        }
    }

    /// When to look at this SVID again that was put in place by work that began then. An
    /// issuer that is about to end gives ever shorter lives: without a floor, their renewals would
    /// never stop.
    pub(super) fn next_look_at_svid(
        &self,
        svid: &X509Svid,
        pace: Pace,
        began: SystemTime,
    ) -> SystemTime {
        let at = self.renew_at(svid, pace);
        // One that is not due yet never waits for the floor: it may be its last seconds.
        if at > began { at } else { began + SOONEST }
    }
}

// === impl Svid ===

impl Svid {
    /// The last moment at which it is valid, to the second.
    pub(super) fn last_second(&self) -> SystemTime {
        self.x509.not_after() - Duration::from_secs(1)
    }
}

// === impl Work ===

impl Default for Work {
    fn default() -> Self {
        Self {
            phase: Phase::New,
            request: None,
            spec: None,
            device: None,
            noswap: true,
            protected: false,
            assigned: None,
            svid: None,
            bundles: None,
            beside: None,
            jwts: JwtFiles::new(),
            vouched: Vec::new(),
            taint: None,
            failures: 0,
            last_error: None,
            denied: false,
            handout: None,
            federates_with: None,
        }
    }
}

impl Work {
    fn status(&self) -> Status {
        Status {
            live: self.phase == Phase::Live,
            not_after: self.svid.as_ref().map(|svid| svid.x509.not_after()),
            last_error: self.last_error.clone(),
            tainted: self.taint.is_some(),
        }
    }

    pub(super) fn pace(&self) -> Pace {
        match &self.handout {
            Some(_) => Pace::HandedOut,
            None => Pace::Own(self.taint),
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.last_error = None;
    }

    pub(super) fn failed(&mut self, at: SystemTime, class: Class, message: &str) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(LastError::new(at, class, message));
    }
}

// === impl Status ===

impl Status {
    pub(super) fn state(&self, now: SystemTime) -> VolumeState {
        match (self.live, self.not_after) {
            (false, _) => VolumeState::Pending,
            (true, Some(end)) if end > now && self.last_error.is_none() => VolumeState::Live,
            (true, Some(end)) if end > now => VolumeState::Failing,
            (true, _) => VolumeState::Expired,
        }
    }

    pub(super) fn remaining(&self, now: SystemTime) -> Option<Duration> {
        Some(self.not_after?.duration_since(now).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::SpiffeId,
        pki::{Authority, Csr, KeyAlgorithm},
        sys::KubeletDir,
    };

    #[test]
    fn a_late_look_does_not_push_a_renewal_behind_the_end() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let domain = "example.org".parse().unwrap();
        let id = SpiffeId::new(&domain, "/ns/shop/sa/cart").unwrap();
        let day = Duration::from_secs(86_400);
        let authority =
            Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, start - day / 2).unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let csr = Csr::create(&key, &id).unwrap();
        let issue = |ttl| authority.issue(csr.public_key(), &id, &[], ttl, start).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let kubelet = KubeletDir::open(directory.path()).unwrap();
        let target = kubelet.parse_relative("pods/u/volumes/kubernetes.io~csi/v/mount");
        let volume = Volume::new("csi-1".parse().unwrap(), target.unwrap());

        let svid = issue(Duration::from_secs(10));
        let pace = Pace::Own(None);
        let renew_at = volume.renew_at(&svid, pace);
        let late = renew_at - Duration::from_millis(1);
        assert_eq!(volume.next_look_at_svid(&svid, pace, start), renew_at);
        assert_eq!(volume.next_look_at_svid(&svid, pace, late), renew_at);
        // As from an issuer about to end: due as soon as it was made.
        assert_eq!(volume.next_look_at_svid(&svid, pace, renew_at), renew_at + SOONEST);
    }
}
