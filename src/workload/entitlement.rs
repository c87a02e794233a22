//! What a pod is told now, and what makes that change.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, stream};
use tokio::{sync::watch, time::sleep};
use tonic::Status;

use crate::{
    clock::Clock,
    node::{Offer, OfferedBundles, OfferedSvid, Workload},
    trust::TrustBundles,
};

/// A wait for the end of an SVID is looked at again after this: the clock may have been set.
const LOOK: Duration = Duration::from_secs(600);

/// What a pod is entitled to at one moment.
#[derive(Clone, Debug)]
pub(super) struct Entitlement {
    offer: Arc<Offer>,
    newest: Option<Arc<TrustBundles>>,
    now: SystemTime,
}

/// An SVID that is valid now and bundles by which it verifies.
pub(super) struct Pair<'a> {
    pub(super) svid: &'a OfferedSvid,
    pub(super) bundles: &'a Arc<TrustBundles>,
}

/// Follows what a pod is entitled to.
pub(super) struct Follow {
    workload: Workload,
    offer: watch::Receiver<Arc<Offer>>,
    bundles: watch::Receiver<Option<Arc<TrustBundles>>>,
    clock: Arc<dyn Clock>,
    /// When what was last seen ends by itself.
    until: Option<SystemTime>,
}

/// Where a stream of values stands.
struct Updates<T, R> {
    follow: Follow,
    render: R,
    last: Option<T>,
}

// === impl Entitlement ===

impl Entitlement {
    /// What this pod is entitled to now.
    pub(super) fn of(workload: &Workload) -> Self {
        let (offer, newest) = (workload.offer().borrow().clone(), workload.bundles());
        let newest = newest.borrow().clone().map(|newest| workload.seen_by(&offer, newest));
        Self { offer, newest, now: workload.clock().now() }
    }

    /// The pod's SVID with bundles, never an expired one. PermissionDenied where policy has
    /// refused it, else Unavailable.
    pub(super) fn pair(&self) -> Result<Pair<'_>, Status> {
        let Some(svid) = &self.offer.svid else {
            return Err(self.without_svid("the volume has no SVID yet"));
        };
        if self.now >= svid.x509.not_after() {
            return Err(self.without_svid("the SVID has expired and could not be renewed yet"));
        }
        let untrusted = || Status::unavailable("there is no trust bundle for the SVID yet");
        Ok(Pair { svid, bundles: self.bundles_of(svid).ok_or_else(untrusted)? })
    }

    /// The newest bundles, by which the pod verifies others. Whoever has a volume may have them,
    /// with or without an identity of its own (Workload API §5.2.2, §6.2.2).
    pub(super) fn bundles(&self) -> Result<&Arc<TrustBundles>, Status> {
        let offered = self.offer.bundles.as_ref().map(|OfferedBundles(bundles)| bundles);
        let unknown = || Status::unavailable("there is no trust bundle yet");
        self.newest.as_ref().or(offered).ok_or_else(unknown)
    }

    /// The newest bundles if the SVID verifies by them: that is certain where they have every
    /// root that it was put into the volume with. Else those.
    fn bundles_of(&self, svid: &OfferedSvid) -> Option<&Arc<TrustBundles>> {
        let offered = self.offer.bundles.as_ref().map(|OfferedBundles(bundles)| bundles);
        match (&self.newest, offered) {
            (Some(newest), Some(offered)) => {
                let roots = offered.own.x509_authorities();
                let all = Arc::ptr_eq(newest, offered)
                    || roots.iter().all(|root| newest.own.contains(root));
                Some(if all { newest } else { offered })
            }
            // After a restart, what the volume holds may not be known to be current.
            (Some(newest), None) => {
                svid.x509.verify_chain(&newest.own, self.now).ok().map(|()| newest)
            }
            (None, offered) => offered,
        }
    }

    /// When the SVID ends, unless it has.
    fn until(&self) -> Option<SystemTime> {
        let end = self.offer.svid.as_ref()?.x509.not_after();
        (end > self.now).then_some(end)
    }

    /// Clients match the text of the denial (reference: SPIRE's).
    fn without_svid(&self, reason: &str) -> Status {
        match self.offer.denied {
            true => Status::permission_denied("no identity issued"),
            false => Status::unavailable(reason),
        }
    }
}

// === impl Follow ===

impl Follow {
    pub(super) fn new(workload: &Workload) -> Self {
        let (offer, bundles) = (workload.offer(), workload.bundles());
        let (workload, clock) = (workload.clone(), workload.clock().clone());
        Self { workload, offer, bundles, clock, until: None }
    }

    /// What holds now.
    pub(super) fn current(&mut self) -> Entitlement {
        let offer = self.offer.borrow_and_update().clone();
        let newest = self.bundles.borrow_and_update().clone();
        let newest = newest.map(|newest| self.workload.seen_by(&offer, newest));
        let current = Entitlement { offer, newest, now: self.clock.now() };
        self.until = current.until();
        current
    }

    /// Waits until something else may hold than [`Follow::current`] said. Nothing is missed when
    /// it is cancelled. An error is the end: whose volume it was is gone.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        let Self { offer, bundles, clock, until, .. } = self;
        tokio::select! {
            changed = offer.changed() => changed,
            changed = bundles.changed() => changed,
            () = passed(clock.as_ref(), *until) => Ok(()),
        }
    }
}

/// Waits until the clock says so.
async fn passed(clock: &dyn Clock, at: Option<SystemTime>) {
    let Some(at) = at else { return std::future::pending().await };
    loop {
        match at.duration_since(clock.now()) {
            // A delay of less would be no wait at all.
            Ok(left) if !left.is_zero() => sleep(left.clamp(Duration::from_millis(1), LOOK)).await,
            _ => return,
        }
    }
}

/// Streams what `render` makes of each entitlement: the first at once, then each that differs from
/// the one before, the newest only. The first failure is the last item.
pub(super) fn updates<T, R>(
    workload: &Workload,
    render: R,
) -> impl Stream<Item = Result<T, Status>> + Send + use<T, R>
where
    T: Clone + PartialEq + Send,
    R: FnMut(&Entitlement) -> Result<T, Status> + Send,
{
    let begin = Updates { follow: Follow::new(workload), render, last: None };
    stream::unfold(Some(begin), |updates| async move {
        let mut updates = updates?;
        match updates.next().await {
            Ok(value) => Some((Ok(value), Some(updates))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

// === impl Updates ===

impl<T, R> Updates<T, R>
where
    T: Clone + PartialEq,
    R: FnMut(&Entitlement) -> Result<T, Status>,
{
    async fn next(&mut self) -> Result<T, Status> {
        loop {
            if self.last.is_some() && self.follow.changed().await.is_err() {
                return Err(Status::unavailable("the volume is gone"));
            }
            let value = (self.render)(&self.follow.current())?;
            if self.last.as_ref() != Some(&value) {
                self.last = Some(value.clone());
                return Ok(value);
            }
        }
    }
}
