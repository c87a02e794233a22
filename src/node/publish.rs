//! NodePublishVolume: OK only when the whole set is in place (invariant 2).

use std::sync::Arc;

use tokio::{sync::MutexGuard, task::block_in_place, time::Instant};
use tracing::{info, warn};

use super::{
    Node, NodeError,
    issuer::Patience,
    metrics::{Outcome, observe},
    store,
    volume::{Pace, Phase, Svid, Volume, VolumeRequest, Work},
};
use crate::{
    id::SpiffeId,
    sys::{AtomicWriter, TargetPath},
    trust::TrustBundles,
    volume::{PodToken, PodTokenError, RecordState, VolumeContext, VolumeId, VolumeSpec},
};

/// A publish as the CSI service understood it.
#[derive(Debug)]
pub struct PublishRequest {
    /// Whose volume, chosen by kubelet.
    pub volume: VolumeId,
    /// Where to mount it.
    pub target: String,
    /// Pod info and attributes, without tokens.
    pub context: VolumeContext,
    /// The pod's fsGroup.
    pub mount_group: Option<String>,
    /// The pod's own token, which differs each time and is never part of what is asked for.
    pub pod_token: Result<PodToken, PodTokenError>,
}

// === impl Node ===

impl Node {
    /// Publishes a volume. Can be repeated and raced; dropping the future stops nothing: a
    /// repeated call waits for the first and shares its result.
    pub async fn publish(self: &Arc<Self>, request: PublishRequest) -> Result<(), NodeError> {
        let node = self.clone();
        self.track(async move {
            let started = Instant::now();
            let result = node.publish_task(request).await;
            observe(&node.metrics.publish_seconds, started.elapsed());
            let outcome = Outcome::of(&result, NodeError::class);
            node.metrics.publishes.get_or_create(&outcome).inc();
            result
        })
        .await
    }

    async fn publish_task(&self, publish: PublishRequest) -> Result<(), NodeError> {
        let target = self.places.kubelet.parse_target(&publish.target)?;
        let PublishRequest { volume: id, context, mount_group, pod_token, .. } = publish;
        let request = VolumeRequest { context, mount_group };
        loop {
            let volume = self.table.claim(&id, &target)?;
            let work = volume.lock().await;
            if work.phase != Phase::Gone {
                return self.publish_locked(&volume, work, request, pod_token).await;
            }
        }
    }

    async fn publish_locked(
        &self,
        volume: &Arc<Volume>,
        mut work: MutexGuard<'_, Work>,
        request: VolumeRequest,
        pod_token: Result<PodToken, PodTokenError>,
    ) -> Result<(), NodeError> {
        if work.phase == Phase::Live {
            // The same request on a live volume is never an error, whatever its state.
            let mounted = self.places.holds(&volume.target, work.device);
            if mounted.unwrap_or_else(|error| {
                warn!(volume = %volume.id, %error, "could not look at a live volume");
                true
            }) {
                if work.request.as_ref() == Some(&request) {
                    self.look_after(volume, &work);
                    if volume.pod_token.take(pod_token, self.clock.now()) {
                        self.rotator.schedule(volume.id.clone(), self.clock.now());
                    }
                    return Ok(());
                }
                if !self.is_for_another_pod(&work, &request) {
                    return Err(NodeError::Changed(volume.id.clone()));
                }
                warn!(volume = %volume.id, "kubelet says that the volume is another pod's; so it is");
                *work = Work { protected: true, ..Work::default() };
                volume.pod_token.forget();
            } else {
                warn!(volume = %volume.id, "a live volume is no longer mounted; it is made anew");
                *work = Work::default();
            }
        }
        volume.pod_token.take(pod_token, self.clock.now());
        let Err(error) = self.establish(volume, &mut work, request).await else {
            return Ok(());
        };
        warn!(volume = %volume.id, class = error.class().label(), %error, "publish failed");
        self.tell_refused(&work, &error);
        let error = match error.is_final() {
            true => self.undo(volume, &mut work, error),
            false => error,
        };
        if work.phase != Phase::Gone {
            work.failed(self.clock.now(), error.class(), &error.to_string());
            volume.show(&work);
        }
        Err(error)
    }

    /// Whether kubelet names another pod than we believe in. A pod's names never change, so we
    /// believed something wrong.
    fn is_for_another_pod(&self, work: &Work, request: &VolumeRequest) -> bool {
        let group = request.mount_group.as_deref();
        let asked =
            VolumeSpec::parse_lenient(&request.context, group, &self.trust_domain, &self.limits);
        asked.is_ok_and(|asked| work.spec.as_ref().is_none_or(|held| held.pod != asked.pod))
    }

    /// Everything between a request and a live volume.
    async fn establish(
        &self,
        volume: &Arc<Volume>,
        work: &mut Work,
        request: VolumeRequest,
    ) -> Result<(), NodeError> {
        let group = request.mount_group.as_deref();
        let (domain, limits) = (&self.trust_domain, &self.limits);
        let spec = VolumeSpec::parse(&request.context, group, domain, limits).or_else(|error| {
            // A pod that runs already is not refused for a setting that changed since.
            if self.holds_a_set(&volume.target) {
                VolumeSpec::parse_lenient(&request.context, group, domain, limits)
            } else {
                Err(error)
            }
        })?;
        if !self.holds_a_set(&volume.target) {
            self.has_jwt(&spec)?;
        }
        if spec.pod.uid != volume.target.pod_uid {
            let target = volume.target.path().to_owned();
            return Err(NodeError::OtherPod { target, uid: spec.pod.uid });
        }
        let id = self.identity(&spec, work.assigned.as_ref())?;
        work.request = Some(request);

        let found = block_in_place(|| self.break_ground(volume, work, &spec, &id))?;
        self.subscribe(volume, work);
        let kept = match found {
            Some(svid) => {
                self.wait_for_trust(volume).await?;
                self.still_good(volume, work, svid)
            }
            None => None,
        };
        let (svid, bundles) = match kept {
            Some(kept) => kept,
            None => {
                let issued = self.issue(volume, work, &spec, Patience::Waits).await?;
                work.assigned = issued.assigned.or(work.assigned.take());
                (issued.svid, issued.bundles)
            }
        };
        let bundles = self.seen_by(work, bundles);
        let id = svid.x509.id().clone();
        self.provide_jwts(volume, work, &id).await?;
        block_in_place(|| self.put_in_place(volume, work, svid, bundles, &id))?;
        if let Some(pending) = self.pending(volume, work) {
            pending.remove();
        }
        Ok(())
    }

    fn holds_a_set(&self, target: &TargetPath) -> bool {
        self.places
            .open(target)
            .is_ok_and(|dir| AtomicWriter::new(&dir).has_current().unwrap_or(false))
    }

    /// Mounts, or finds what is mounted, and records that a publish is under way. Returns the
    /// SVID that an interrupted publish left.
    fn break_ground(
        &self,
        volume: &Volume,
        work: &mut Work,
        spec: &VolumeSpec,
        id: &SpiffeId,
    ) -> Result<Option<Svid>, NodeError> {
        let io = |doing| NodeError::io(doing, volume.target.path());
        let mounted = self.places.mount(&volume.target, &spec.ownership)?;
        work.phase = Phase::Pending;
        work.spec = Some(spec.clone());
        work.device = Some(mounted.device);
        work.jwts.clear();
        let mut svid = None;
        if mounted.fresh {
            work.noswap = mounted.noswap;
            self.count_mount(&mounted);
        } else {
            let writer = AtomicWriter::new(&mounted.dir);
            if let Some(set) = writer.current().map_err(io("read the set of"))? {
                // Without a pending record it may have been live: whatever fails now, it stays.
                let record = self.places.read_record(&mounted.dir);
                work.protected =
                    record.as_ref().map_or(true, |record| record.state == RecordState::Live);
                svid = store::read_svid(&set, &spec.files);
                work.jwts = store::read_jwts(&set, spec);
                if let (Ok(record), Some(svid)) = (record, &svid)
                    && record.pod == spec.pod
                {
                    self.adopt(work, svid);
                }
            }
            writer.sweep().map_err(io("sweep"))?;
        }
        if !work.protected {
            self.places.write_record(&mounted.dir, volume, work, RecordState::Pending, id)?;
        }
        Ok(svid)
    }

    /// A set that an interrupted publish left, if it needs no renewal yet.
    fn still_good(
        &self,
        volume: &Volume,
        work: &Work,
        svid: Svid,
    ) -> Option<(Svid, Arc<TrustBundles>)> {
        let id = self.identity(work.spec.as_ref()?, work.assigned.as_ref()).ok()?;
        let (now, bundles) = (self.clock.now(), self.issuer.bundles.current()?);
        let pace = match work.pace() {
            Pace::Own(_) => Pace::Own(None),
            Pace::HandedOut => Pace::HandedOut,
        };
        let good =
            self.verifies(&svid, &id, &bundles, now) && now < volume.renew_at(&svid.x509, pace);
        if !good && let Some(pending) = self.pending(volume, work) {
            // It may be this one's key, which is not used twice.
            pending.remove();
        }
        good.then_some((svid, bundles))
    }

    /// Writes the set, makes the volume live and schedules its renewal.
    fn put_in_place(
        &self,
        volume: &Arc<Volume>,
        work: &mut Work,
        svid: Svid,
        bundles: Arc<TrustBundles>,
        id: &SpiffeId,
    ) -> Result<(), NodeError> {
        let began = self.clock.now();
        let dir = self.places.open_ours(&volume.target, work.device)?;
        let socket = self.desk.bind(&dir, volume, work)?;
        self.swap(volume, work, svid, bundles, id)?;
        work.phase = Phase::Live;
        volume.show(work);
        self.desk.open(volume, socket);
        if let Some(next_look) = volume.next_look(work, began) {
            self.rotator.schedule(volume.id.clone(), next_look);
        }
        // A bundle that was published meanwhile made only those due that were scheduled by then.
        // The same goes for what its pod is given.
        let newest = self.issuer.bundles.current().map(|newest| self.seen_by(work, newest));
        if work.bundles != newest || self.is_superseded(work) {
            self.rotator.schedule(volume.id.clone(), self.clock.now());
        }
        if let (Some(spec), Some(svid)) = (&work.spec, &work.svid) {
            let (pod, serial) = (&spec.pod, svid.x509.serial_hex());
            info!(volume = %volume.id, %pod, spiffe_id = %id, serial, "published");
        }
        Ok(())
    }

    /// After a final error kubelet may never call again: nothing is left behind. Where that
    /// fails, the answer is one after which kubelet unpublishes.
    fn undo(&self, volume: &Arc<Volume>, work: &mut Work, error: NodeError) -> NodeError {
        if work.phase == Phase::Pending && !work.protected {
            let removed = block_in_place(|| self.places.remove(&volume.target, work.device));
            if let Err(left) = removed {
                return NodeError::LeftBehind { error: Box::new(error), left: Box::new(left) };
            }
        }
        work.phase = Phase::Gone;
        volume.pod_token.forget();
        work.handout = None;
        self.table.remove(volume);
        error
    }
}
