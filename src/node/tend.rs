//! What is done to a volume that is due: a new SVID, or the same one beside a new bundle.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::block_in_place;
use tracing::{info, warn};

use super::{
    Node, NodeError, backoff,
    issuer::{Issued, Patience, Wish},
    metrics::{Outcome, observe},
    pending::PendingKey,
    store,
    volume::{Phase, Svid, Volume, Work},
};
use crate::{
    class::Class,
    id::SpiffeId,
    jitter::random,
    signer::Assigned,
    sys::AtomicWriter,
    trust::TrustBundles,
    volume::{RecordState, VolumeId, VolumeSpec},
};

// === impl Node ===

impl Node {
    /// Tends to a volume that was due then; when it is due again.
    pub(super) async fn tend(&self, id: VolumeId, due: SystemTime) -> Option<SystemTime> {
        let volume = self.table.get(&id)?;
        let mut work = volume.lock().await;
        if work.phase != Phase::Live {
            return None;
        }
        self.look_after(&volume, &work);
        // It was rendered before, of the same names.
        let id = self.identity(work.spec.as_ref()?, work.assigned.as_ref()).ok()?;
        let began = self.clock.now();
        let was_failing = work.last_error.is_some();
        let next = match self.tend_locked(&volume, &mut work, &id, due).await {
            Ok(()) => {
                volume.pod_token.wait_no_longer();
                if was_failing && work.last_error.is_none() {
                    self.tell_renewed(&work);
                }
                Some(volume.next_look(&work, began)?)
            }
            Err(error) => Some(self.note_failure(&volume, &mut work, &id, &error)),
        };
        volume.show(&work);
        next
    }

    async fn tend_locked(
        &self,
        volume: &Volume,
        work: &mut Work,
        id: &SpiffeId,
        due: SystemTime,
    ) -> Result<(), NodeError> {
        let failures = work.failures;
        let mut tended = self.tend_svid(volume, work, id, due).await;
        // Whom policy denies its identity gets no new token either.
        if !work.denied {
            tended = tended.and(self.tend_jwts(volume, work).await);
        }
        if tended.is_err() {
            // What succeeded beside it does not make the next try come sooner.
            work.failures = work.failures.max(failures);
        }
        tended
    }

    async fn tend_svid(
        &self,
        volume: &Volume,
        work: &mut Work,
        id: &SpiffeId,
        due: SystemTime,
    ) -> Result<(), NodeError> {
        let now = self.clock.now();
        let news = self.mark_taint(work, now);
        let Some(bundles) = self.issuer.bundles.current() else {
            // Nobody to trust, so nobody signs; the signer says why.
            return self.renew(volume, work).await;
        };
        let bundles = self.seen_by(work, bundles);
        let current = work.bundles.as_ref().is_some_and(|held| *held == bundles);
        let superseded = self.is_superseded(work);
        if !superseded && self.is_given(work) {
            work.denied = false;
        }
        let keep = work.svid.clone().filter(|svid| {
            // A clock that was set back makes an SVID that nobody takes yet.
            let due = superseded || now >= volume.renew_at(&svid.x509, work.pace());
            let fresh = now >= svid.x509.not_before() && !due;
            // A bundle that doesn't know the SVID's CA must not stand beside it (invariant 2).
            fresh && (current || self.verifies(svid, id, &bundles, now))
        });
        match keep {
            Some(_) if current && work.last_error.is_none() && !news => Ok(()),
            // The record lags behind: it could not be written, or the SVID is tainted now.
            Some(_) if current => {
                work.succeeded();
                block_in_place(|| self.note(volume, work, id))
            }
            Some(svid) => self.rewrite(volume, work, svid, bundles, id),
            None => {
                observe(
                    &self.metrics.renewal_lag_seconds,
                    now.duration_since(due).unwrap_or(Duration::ZERO),
                );
                let renewed = self.renew(volume, work).await;
                // The signer's failure must not keep a new root from the volume.
                if renewed.is_err()
                    && !current
                    && let Some(svid) = work.svid.clone()
                    // An expired one, too, is a client's whole trust.
                    && self.verifies(&svid, id, &bundles, now.min(svid.last_second()))
                {
                    self.rewrite(volume, work, svid, bundles, id)?;
                }
                renewed
            }
        }
    }

    async fn renew(&self, volume: &Volume, work: &mut Work) -> Result<(), NodeError> {
        let renewed = self.renew_once(volume, work).await;
        work.denied = renewed.as_ref().is_err_and(|error| error.class() == Class::Denied);
        let outcome = Outcome::of(&renewed, NodeError::class);
        self.metrics.renewals.get_or_create(&outcome).inc();
        renewed
    }

    async fn renew_once(&self, volume: &Volume, work: &mut Work) -> Result<(), NodeError> {
        let spec = work.spec.clone().ok_or(NodeError::Panicked)?;
        // No signature for a volume that can't take it.
        block_in_place(|| self.places.open_ours(&volume.target, work.device))?;
        let issued = self.issue(volume, work, &spec, Patience::TriesOnce).await?;
        let Issued { svid, bundles, assigned } = issued;
        let bundles = self.seen_by(work, bundles);
        let (id, serial) = (svid.x509.id().clone(), svid.x509.serial_hex().to_owned());
        let before = work.assigned.clone();
        work.assigned = assigned.or(before.clone());
        if let Err(error) = block_in_place(|| self.swap(volume, work, svid, bundles, &id)) {
            if work.svid.as_ref().is_none_or(|held| *held.x509.id() != id) {
                work.assigned = before;
            }
            return Err(error);
        }
        if let Some(pending) = self.pending(volume, work) {
            pending.remove();
        }
        info!(volume = %volume.id, pod = %spec.pod, spiffe_id = %id, serial, "renewed");
        Ok(())
    }

    /// Where the volume keeps the key of a request; `None` if none of its requests is kept.
    pub(super) fn pending<'a>(&'a self, volume: &'a Volume, work: &Work) -> Option<PendingKey<'a>> {
        let Work { device, .. } = work;
        let places = &self.places;
        let pending = PendingKey { places, target: &volume.target, device: *device };
        self.issuer.signer.is_remote().then_some(pending)
    }

    /// A set that was swapped in just before a crash is what counts, also for the identity that
    /// policy assigned to it: the record may be older.
    pub(super) fn adopt(&self, work: &mut Work, svid: &Svid) {
        // Nothing but policy assigns, and a record is not policy.
        if !self.issuer.signer.is_remote() {
            work.assigned = None;
            return;
        }
        let Some(spec) = &work.spec else { return };
        let (id, key_algorithm) = (svid.x509.id().clone(), svid.key.algorithm());
        let found = Assigned { id, key_algorithm };
        let known = self.identity(spec, work.assigned.as_ref());
        if known.is_ok_and(|known| known != found.id) && found.is_possible(&self.trust_domain) {
            work.assigned = Some(found);
        }
    }

    /// After a restart nobody may have said yet whom to trust, and what can't be verified would be
    /// issued again.
    pub(super) async fn wait_for_trust(&self, volume: &Volume) -> Result<(), NodeError> {
        tokio::select! {
            trusted = self.issuer.wait_for_trust() => trusted,
            () = volume.closing().cancelled_owned() => {
                Err(NodeError::Unpublishing(volume.id.clone()))
            }
        }
    }

    /// A new SVID, unless an unpublish wants the volume first.
    pub(super) async fn issue(
        &self,
        volume: &Volume,
        work: &Work,
        spec: &VolumeSpec,
        patience: Patience,
    ) -> Result<Issued, NodeError> {
        let key_algorithm = match &work.assigned {
            Some(assigned) if !spec.explicit_key_algorithm => assigned.key_algorithm,
            _ => spec.key_algorithm,
        };
        let id = self.identity(spec, work.assigned.as_ref())?;
        let wish = Wish {
            volume: &volume.id,
            spec,
            pod_token: &volume.pod_token,
            asked: Assigned { id, key_algorithm },
            patience,
            pending: self.pending(volume, work),
            used: work.svid.as_ref().map(|svid| svid.key.spki_der()),
            handout: work.handout.as_ref().zip(self.wanted(work)),
        };
        tokio::select! {
            issued = self.issuer.issue(wish) => issued,
            () = volume.closing().cancelled_owned() => {
                Err(NodeError::Unpublishing(volume.id.clone()))
            }
        }
    }

    fn rewrite(
        &self,
        volume: &Volume,
        work: &mut Work,
        svid: Svid,
        bundles: Arc<TrustBundles>,
        id: &SpiffeId,
    ) -> Result<(), NodeError> {
        let result = block_in_place(|| self.swap(volume, work, svid, bundles, id));
        let outcome = Outcome::of(&result, NodeError::class);
        self.metrics.bundle_rewrites.get_or_create(&outcome).inc();
        result
    }

    /// Swaps a set in, and notes it. The set is what counts: it is swapped before the record is
    /// written, and a restart believes it rather than the record.
    pub(super) fn swap(
        &self,
        volume: &Volume,
        work: &mut Work,
        svid: Svid,
        bundles: Arc<TrustBundles>,
        id: &SpiffeId,
    ) -> Result<(), NodeError> {
        let spec = work.spec.as_ref().ok_or(NodeError::Panicked)?;
        let dir = self.places.open_ours(&volume.target, work.device)?;
        let (files, ownership) = (store::files(spec, &svid, &bundles, &work.jwts), spec.ownership);
        let digests = store::bundle_digests(&files);
        let news = |digest: &&String| !work.vouched.contains(digest);
        let news: Vec<String> = digests.iter().filter(news).cloned().collect();
        if work.phase == Phase::Live && !news.is_empty() {
            // Killed in between, the next start has to know either of them.
            work.vouched.extend(news);
            self.places.write_record(&dir, volume, work, RecordState::Live, id)?;
        }
        AtomicWriter::new(&dir)
            .write(&files, &ownership, self.clock.now())
            .map_err(NodeError::io("write the set of", volume.target.path()))?;
        work.vouched = digests;
        let before = work.svid.replace(svid);
        self.mark_taint_of_next(work, before.as_ref(), self.clock.now());
        work.beside = Some(bundles.clone());
        work.bundles = Some(bundles);
        work.succeeded();
        self.places.write_record(&dir, volume, work, RecordState::Live, id)
    }

    /// Notes what became of a live volume.
    fn note(&self, volume: &Volume, work: &Work, id: &SpiffeId) -> Result<(), NodeError> {
        let dir = self.places.open_ours(&volume.target, work.device)?;
        self.places.write_record(&dir, volume, work, RecordState::Live, id)
    }

    pub(super) fn verifies(
        &self,
        svid: &Svid,
        id: &SpiffeId,
        bundles: &TrustBundles,
        now: SystemTime,
    ) -> bool {
        svid.x509.verify(id, svid.key.spki_der(), &bundles.own, now).is_ok()
    }

    /// Keeps the last good set, says what went wrong wherever someone may look, and tells when
    /// to try again.
    fn note_failure(
        &self,
        volume: &Volume,
        work: &mut Work,
        id: &SpiffeId,
        error: &NodeError,
    ) -> SystemTime {
        let (now, class) = (self.clock.now(), error.class());
        work.failed(now, class, &error.to_string());
        if error.wants_pod_token() {
            volume.pod_token.wait_for_next();
        }
        self.tell_not_renewed(work, error);
        let tokens = work.jwts.values().map(|svid| svid.expires_at());
        let end = work.svid.iter().map(|svid| svid.x509.not_after()).chain(tokens).min();
        let remaining = end.and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
        let wait = error.retry_after();
        let delay = backoff::delay(class, work.failures, remaining, wait, random());
        warn!(
            volume = %volume.id,
            class = class.label(),
            failures = work.failures,
            remaining_s = remaining.as_secs(),
            retry_in_ms = delay.as_millis() as u64,
            %error,
            "renewal failed; the last good set stays"
        );
        if let Err(error) = block_in_place(|| self.note(volume, work, id)) {
            warn!(volume = %volume.id, %error, "the failure could not be recorded");
        }
        now + delay
    }
}
