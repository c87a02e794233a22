//! After a restart: every volume goes on with no help from pod or kubelet (invariant 4).

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::block_in_place;
use tracing::{info, warn};

use super::{
    Node, NodeError, NodeGround,
    place::Places,
    store,
    volume::{Phase, Svid, Volume, VolumeRequest, Work},
};
use crate::{
    pki::{RenewalPolicy, TrustBundle},
    sys::{AtomicWriter, TargetPath, VolumeDir},
    trust::{LiveRoot, RecoveredTrust},
    volume::{RecordState, VolumeRecord, VolumeSpec},
};

/// Overdue renewals are spread over this much, or a quarter of what is left if that is less.
const SPREAD: Duration = Duration::from_secs(60);

/// What an earlier process left on the node.
#[derive(Default)]
pub struct Recovered {
    volumes: Vec<Volume>,
    /// What the volumes tell of the trust bundle.
    pub trust: RecoveredTrust,
}

// === impl NodeGround ===

impl NodeGround {
    /// Reads every mount of ours. Changes nothing but leftovers of interrupted work.
    pub fn look_around(&self) -> Result<Recovered, NodeError> {
        let mounts = self
            .places
            .mounter
            .mounts()
            .map_err(NodeError::io("read", "mountinfo"))?;
        let mut recovered = Recovered::default();
        // Mounts may be stacked.
        let mut targets: HashSet<TargetPath> = HashSet::new();
        for mount in mounts.iter().filter(|mount| self.places.made(mount)) {
            let Some(path) = mount.mount_point.to_str() else {
                continue;
            };
            // A mount of our name elsewhere, such as another mount of kubelet's directory.
            let Ok(target) = self.places.kubelet.parse_target(path) else {
                continue;
            };
            targets.insert(target);
        }
        for target in targets {
            match self.recover_one(&target) {
                Ok(Some((volume, found))) => {
                    recovered.note(found);
                    recovered.volumes.push(volume);
                }
                Ok(None) => {}
                Err(error) => {
                    self.metrics.unreadable_records.inc();
                    let target = target.path().display();
                    warn!(%target, %error, "a volume can't be recovered; it stays as it is");
                }
            }
        }
        Ok(recovered)
    }

    fn recover_one(&self, target: &TargetPath) -> Result<Option<(Volume, Found)>, NodeError> {
        let io = |doing| NodeError::io(doing, target.path());
        let dir = self.places.open(target)?;
        let writer = AtomicWriter::new(&dir);
        let record = store::read_record(&dir);
        let record = record.and_then(|record| {
            let matches = record.target == target.relative() && record.pod.uid == target.pod_uid;
            if matches {
                Ok(record)
            } else {
                Err("its record belongs to another path".to_owned())
            }
        });
        let set = writer.current().map_err(io("read the set of"))?;
        let record = match (record, &set) {
            (Ok(record), _) => record,
            (Err(reason), None) => {
                // Its publish never answered OK: without a set there is nothing to lose.
                drop(dir);
                let covered = self.places.remove_top(target)?;
                info!(target = %target.path().display(), reason, "an unfinished mount is removed");
                // What it covered may be live (invariant 3).
                return if covered {
                    self.recover_one(target)
                } else {
                    Ok(None)
                };
            }
            (Err(reason), Some(_)) => {
                self.metrics.unreadable_records.inc();
                let target = target.path().display();
                warn!(%target, reason, "a volume without a usable record waits for kubelet");
                return Ok(None);
            }
        };
        writer.sweep().map_err(io("sweep"))?;
        let mut found = Found::default();
        let mut work = self.resume(&record).map_err(NodeError::from)?;
        work.device = Some(self.places.device(target)?);
        if let (Some(set), Some(spec)) = (&set, &work.spec) {
            work.svid = store::read_svid(set, &spec.files);
            // Another trust domain's, after the setting changed, must never mix with ours.
            found.bundle = store::read_bundle(set, &record.spiffe_id)
                .filter(|bundle| *bundle.trust_domain() == self.trust_domain);
            found.svid = work.svid.clone();
        }
        // Live without a set is an unpublish that was interrupted.
        if record.state == RecordState::Live && set.is_some() {
            work.phase = Phase::Live;
        }
        Ok(Some((
            Volume::with_work(record.volume_id, target.clone(), work),
            found,
        )))
    }

    /// A volume's work as its record tells it. Settings may have changed since: that breaks no
    /// running pod.
    fn resume(&self, record: &VolumeRecord) -> Result<Work, crate::volume::SpecError> {
        let group = record.mount_group.as_deref();
        let spec =
            VolumeSpec::parse_lenient(&record.context, group, &self.trust_domain, &self.limits)?;
        let request = VolumeRequest {
            context: record.context.clone(),
            mount_group: record.mount_group.clone(),
        };
        Ok(Work {
            phase: Phase::Pending,
            request: Some(request),
            spec: Some(spec),
            noswap: record.noswap,
            last_error: record.last_error.clone(),
            ..Work::default()
        })
    }
}

/// What one volume tells of the trust bundle.
#[derive(Default)]
struct Found {
    bundle: Option<TrustBundle>,
    svid: Option<Svid>,
}

// === impl Recovered ===

impl Recovered {
    /// How many volumes were found.
    pub fn len(&self) -> usize {
        self.volumes.len()
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    fn note(&mut self, found: Found) {
        let Found {
            bundle: Some(bundle),
            svid,
        } = found
        else {
            return;
        };
        if let Some(Svid { x509, .. }) = svid {
            // All of them: the SVIDs before this one may still be in use, and end before it.
            for root in bundle.x509_authorities() {
                let until = x509.not_after();
                match self
                    .trust
                    .roots
                    .iter_mut()
                    .find(|known| known.certificate == *root)
                {
                    Some(known) => known.until = known.until.max(until),
                    None => {
                        let certificate = root.clone();
                        self.trust.roots.push(LiveRoot { certificate, until });
                    }
                }
            }
        }
        let newest = self.trust.bundle.as_ref().and_then(TrustBundle::sequence);
        if self.trust.bundle.is_none() || bundle.sequence() > newest {
            self.trust.bundle = Some(bundle);
        }
    }
}

// === impl Node ===

impl Node {
    /// Takes the recovered volumes over: every set gets the current bundle, and every volume its
    /// time. Call it before anything can sign, so that a new CA is trusted before it is used.
    pub fn take_over(&self, recovered: Recovered) {
        let now = self.clock.now();
        let (mut live, mut pending, mut rewritten) = (0, 0, 0);
        for volume in recovered.volumes {
            let volume = Arc::new(volume);
            let Some(mut work) = volume.try_lock() else {
                continue;
            };
            if work.phase == Phase::Live {
                live += 1;
                rewritten += usize::from(self.refresh(&volume, &mut work));
                // A set that did not get the current bundle is tried again at once.
                let at = match &work.svid {
                    Some(svid) if work.bundles.is_some() => self.resume_at(&volume, svid, now),
                    _ => now,
                };
                self.rotator.schedule(volume.id.clone(), at);
            } else {
                pending += 1;
            }
            volume.show(&work);
            drop(work);
            if !self.table.insert(volume.clone()) {
                warn!(volume = %volume.id, "two mounts have this volume's id; one is ignored");
            }
        }
        info!(live, pending, rewritten, "volumes recovered");
    }

    /// Gives the set the current bundle if it has another. True if it was rewritten.
    fn refresh(&self, volume: &Volume, work: &mut Work) -> bool {
        let (Some(spec), Some(svid)) = (&work.spec, work.svid.clone()) else {
            return false;
        };
        let Ok(id) = self.identity(spec) else {
            return false;
        };
        let bundles = self.issuer.bundles.current();
        let expected = store::files(spec, &svid, &bundles);
        let holds = |dir: &VolumeDir| {
            let set = AtomicWriter::new(dir).current();
            matches!(set, Ok(Some(set)) if store::holds(&set, &expected))
        };
        if self
            .places
            .open(&volume.target)
            .is_ok_and(|dir| holds(&dir))
        {
            work.bundles = Some(bundles);
            return false;
        }
        // Otherwise it is renewed under a bundle that knows its CA, and both change together.
        if !self.verifies(&svid, &id, &bundles, self.clock.now()) {
            return false;
        }
        match block_in_place(|| self.swap(volume, work, svid, bundles, &id)) {
            Ok(()) => true,
            Err(error) => {
                warn!(volume = %volume.id, %error, "the bundle could not be renewed; tried again");
                false
            }
        }
    }

    fn resume_at(&self, volume: &Volume, svid: &Svid, now: SystemTime) -> SystemTime {
        let at = volume.renew_at(&svid.x509);
        if now < svid.x509.not_before() {
            return now;
        }
        if at > now {
            return at;
        }
        let left = svid
            .x509
            .not_after()
            .duration_since(now)
            .unwrap_or_default();
        let seed = format!("{} {}", volume.id, svid.x509.serial_hex());
        now + SPREAD
            .min(left / 4)
            .mul_f64(RenewalPolicy::fraction(seed.as_bytes()))
    }
}

// === impl Places ===

impl Places {
    fn device(&self, target: &TargetPath) -> Result<u64, NodeError> {
        let io = || NodeError::io("look at", target.path());
        self.kubelet
            .open_parent(target)
            .and_then(|place| place.device())
            .map_err(io())
    }
}
