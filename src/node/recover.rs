//! After a restart: every volume goes on with no help from pod or kubelet (invariant 4).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::block_in_place;
use tracing::{info, warn};

use super::{
    Node, NodeError, NodeGround, store,
    volume::{Phase, Svid, Volume, VolumeRequest, Work},
};
use crate::{
    id::{SpiffeId, TrustDomain},
    jose::distinct,
    pki::{RenewalPolicy, TrustBundle},
    signer::Assigned,
    sys::{AtomicWriter, CurrentSet, TargetPath, VolumeDir},
    trust::{LiveRoot, RecoveredTrust, TrustBundles},
    volume::{LastError, RecordState, VolumeRecord, VolumeSpec},
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
    pub fn look_around(&self, now: SystemTime) -> Result<Recovered, NodeError> {
        let mounts = self.places.mounter.mounts().map_err(NodeError::io("read", "mountinfo"))?;
        let mut recovered = Recovered::default();
        // Mounts may be stacked.
        let mut targets: BTreeSet<TargetPath> = BTreeSet::new();
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
            match self.recover_one(&target, now) {
                Ok(Some((volume, found))) => {
                    recovered.note(found);
                    recovered.volumes.push(volume);
                }
                Ok(None) => {}
                Err(reason) => {
                    self.metrics.unreadable_records.inc();
                    // Whoever has it still verifies its peers by it, for as long as can be.
                    let until = now + self.limits.max_ttl;
                    let bundle = self.vouched_bundle(&target);
                    recovered.note(Found { bundle, until, federated: BTreeMap::new() });
                    let target = target.path().display();
                    warn!(%target, reason, "a volume can't be recovered; it waits for kubelet");
                }
            }
        }
        Ok(recovered)
    }

    /// The volume at a target, and what it tells of the trust bundle; `None` if there was nothing
    /// to keep; `Err` says why it can't be recovered.
    fn recover_one(
        &self,
        target: &TargetPath,
        now: SystemTime,
    ) -> Result<Option<(Volume, Found)>, String> {
        let text = |error: NodeError| error.to_string();
        let dir = self.places.open(target).map_err(text)?;
        let writer = AtomicWriter::new(&dir);
        let set = writer.current().map_err(|error| format!("its set: {error}"))?;
        let (record, mut work) = match (self.resume(&dir, target), &set) {
            (Ok(resumed), _) => resumed,
            (Err(reason), None) => {
                // Its publish never answered OK: without a set there is nothing to lose.
                drop(dir);
                let covered = self.places.remove_top(target).map_err(text)?;
                info!(target = %target.path().display(), reason, "an unfinished mount is removed");
                // What it covered may be live (invariant 3).
                return if covered { self.recover_one(target, now) } else { Ok(None) };
            }
            (Err(reason), Some(_)) => return Err(reason),
        };
        if let Err(error) = writer.sweep() {
            warn!(target = %target.path().display(), %error, "leftovers stay for now");
        }
        work.device = Some(dir.device().map_err(|error| format!("its device: {error}"))?);
        let (bundle, until) = (None, SystemTime::UNIX_EPOCH);
        let mut found = Found { bundle, until, federated: BTreeMap::new() };
        if let (Some(set), Some(spec)) = (&set, &work.spec)
            && let Some(svid) = store::read_svid(set, &spec.files)
        {
            found.bundle = self.bundle_of(set, Some(&record.spiffe_id), &record.bundles);
            found.federated = store::read_federated(set, &record.bundles);
            let domains = found.federated.keys().cloned().collect();
            work.federates_with = Some(Arc::new(domains));
            found.until = svid.x509.not_after().min(now + self.limits.max_ttl);
            let bundle = found.bundle.as_ref();
            work.jwts = store::read_jwts(set, spec);
            // Policy may have assigned another identity just before a crash. What no CA of ours
            // signed was not put there by the driver, and is replaced.
            if *svid.x509.id() == record.spiffe_id
                || bundle.is_some_and(|bundle| svid.x509.verify_chain(bundle, now).is_ok())
            {
                // Of the SVID that it was written beside, and not of the next.
                work.taint = record.taint.filter(|_| serial_of(&record) == svid.x509.serial_hex());
                work.beside = bundle
                    .cloned()
                    .map(|own| Arc::new(TrustBundles { own, federated: found.federated.clone() }));
                work.svid = Some(svid);
            }
        }
        // Live without a set is an unpublish that was interrupted.
        if record.state == RecordState::Live && set.is_some() {
            work.phase = Phase::Live;
        }
        let volume = Volume::with_work(record.volume_id, target.clone(), work);
        if let Some(work) = volume.try_lock()
            && work.phase == Phase::Live
            && record.serial.as_deref() != work.svid.as_ref().map(|svid| svid.x509.serial_hex())
        {
            // Killed between the swap of a set and its record: the set is what counts.
            let (state, id) = (RecordState::Live, &record.spiffe_id);
            if let Err(error) = self.places.write_record(&dir, &volume, &work, state, id) {
                warn!(volume = %volume.id, %error, "its record stays behind its set for now");
            }
        }
        Ok(Some((volume, found)))
    }

    /// The bundle of a volume that can't be recovered.
    fn vouched_bundle(&self, target: &TargetPath) -> Option<TrustBundle> {
        let dir = self.places.open(target).ok()?;
        let set = AtomicWriter::new(&dir).current().ok()??;
        self.bundle_of(&set, None, &self.places.read_vouched(&dir))
    }

    /// The bundle in a volume's set. Another trust domain's, after the setting changed, must never
    /// mix with ours, and no bundle says whose it is: the record or its CAs do.
    fn bundle_of(
        &self,
        set: &CurrentSet,
        id: Option<&SpiffeId>,
        vouched: &[String],
    ) -> Option<TrustBundle> {
        let bundle = store::read_bundle(set, &self.trust_domain, vouched)?;
        let own = self.trust_domain.id();
        let ours = match id {
            Some(id) => *id.trust_domain() == self.trust_domain,
            None => bundle
                .x509_authorities()
                .iter()
                .all(|root| root.uri_sans().iter().all(|uri| uri == own.as_str())),
        };
        ours.then_some(bundle)
    }

    /// A volume's work as its record tells it. Settings may have changed since: that breaks no
    /// running pod.
    fn resume(&self, dir: &VolumeDir, target: &TargetPath) -> Result<(VolumeRecord, Work), String> {
        let record = self.places.read_record(dir)?;
        if record.target != target.relative() || record.pod.uid != target.pod_uid {
            return Err("its record belongs to another path".to_owned());
        }
        let group = record.mount_group.as_deref();
        let spec =
            VolumeSpec::parse_lenient(&record.context, group, &self.trust_domain, &self.limits)
                .map_err(|error| error.to_string())?;
        if spec.pod != record.pod {
            return Err("its record contradicts itself".to_owned());
        }
        let assigned = record.assigned_id.clone().map(|id| {
            let key_algorithm = record.assigned_key_algorithm.unwrap_or(spec.key_algorithm);
            Assigned { id, key_algorithm }
        });
        let work = Work {
            phase: Phase::Pending,
            assigned: assigned.filter(|assigned| assigned.is_possible(&self.trust_domain)),
            request: Some(VolumeRequest {
                context: record.context.clone(),
                mount_group: record.mount_group.clone(),
            }),
            spec: Some(spec),
            noswap: record.noswap,
            vouched: record.bundles.clone(),
            last_error: record.last_error.clone(),
            denied: record.last_error.as_ref().is_some_and(LastError::is_denied),
            ..Work::default()
        };
        Ok((record, work))
    }
}

fn serial_of(record: &VolumeRecord) -> &str {
    record.serial.as_deref().unwrap_or_default()
}

/// What one volume tells of the trust bundle.
struct Found {
    bundle: Option<TrustBundle>,
    federated: BTreeMap<TrustDomain, TrustBundle>,
    /// The end of what its pod may still use of it.
    until: SystemTime,
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
        let Found { bundle: Some(bundle), until, mut federated } = found else {
            return;
        };
        // All of them: the SVIDs before this one may still be in use, and end before it.
        for root in bundle.x509_authorities() {
            let known = &mut self.trust.roots;
            match known.iter_mut().find(|known| known.certificate == *root) {
                Some(known) => known.until = known.until.max(until),
                None => {
                    let certificate = root.clone();
                    known.push(LiveRoot { certificate, until });
                }
            }
        }
        let newest = self.trust.bundle.as_ref().and_then(TrustBundle::sequence);
        let is_newest = self.trust.bundle.is_none() || bundle.sequence() > newest;
        // Those of the newest come first, as it has them: so no volume is rewritten for the order.
        let known = std::mem::take(&mut self.trust.jwt_authorities);
        let found = bundle.jwt_authorities().to_vec();
        let (first, then) = if is_newest { (found, known) } else { (known, found) };
        self.trust.jwt_authorities = distinct(first.into_iter().chain(then)).to_vec();
        if is_newest {
            std::mem::swap(&mut self.trust.federated, &mut federated);
        }
        for (domain, bundle) in federated {
            self.trust.federated.entry(domain).or_insert(bundle);
        }
        if is_newest {
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
            self.subscribe(&volume, &mut work);
            match work.svid.clone() {
                Some(svid) => {
                    self.adopt(&mut work, &svid);
                    if let Some(pending) = self.pending(&volume, &work) {
                        pending.remove_if_used(svid.key.spki_der());
                    }
                }
                None if !self.issuer.signer.is_remote() => work.assigned = None,
                None => {}
            }
            if work.phase == Phase::Live {
                live += 1;
                rewritten += usize::from(self.refresh(&volume, &mut work));
                if work.bundles.is_none() {
                    self.check_beside(&mut work, now);
                }
                // A set that did not get the current bundle is tried again at once.
                let at = match &work.svid {
                    Some(svid) if work.bundles.is_some() => {
                        self.resume_at(&volume, &work, svid, now)
                    }
                    _ => now,
                };
                self.rotator.schedule(volume.id.clone(), at);
            } else {
                pending += 1;
            }
            volume.show(&work);
            if work.phase == Phase::Live {
                self.serve_again(&volume, &work);
            }
            drop(work);
            if !self.table.insert(volume.clone()) {
                warn!(volume = %volume.id, "two mounts have this volume's id; one is ignored");
            }
        }
        info!(live, pending, rewritten, "volumes recovered");
    }

    /// What is beside an SVID on the volume is offered with it until it is known to be current, so
    /// that the socket answers at once (invariant 4), unless the SVID does not verify by it.
    fn check_beside(&self, work: &mut Work, now: SystemTime) {
        let Some((svid, beside)) = work.svid.as_ref().zip(work.beside.as_ref()) else { return };
        let at = now.min(svid.last_second());
        if svid.x509.verify_chain(&beside.own, at).is_err() {
            work.beside = None;
        }
    }

    /// Gives the set the current bundle if it has another. True if it was rewritten.
    fn refresh(&self, volume: &Volume, work: &mut Work) -> bool {
        let Some(bundles) = self.issuer.bundles.current() else {
            return false;
        };
        let bundles = self.seen_by(work, bundles);
        let (Some(spec), Some(svid)) = (&work.spec, work.svid.clone()) else {
            return false;
        };
        let Ok(id) = self.identity(spec, work.assigned.as_ref()) else {
            return false;
        };
        let expected = store::files(spec, &svid, &bundles, &work.jwts);
        let holds = |dir: &VolumeDir| {
            let set = AtomicWriter::new(dir).current();
            matches!(set, Ok(Some(set)) if store::holds(&set, &expected))
        };
        if self.places.open(&volume.target).is_ok_and(|dir| holds(&dir)) {
            work.beside = Some(bundles.clone());
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

    /// Serves a live volume that nobody serves. Without its socket it is no worse than before.
    pub(super) fn serve_again(&self, volume: &Arc<Volume>, work: &Work) {
        let bound = self.places.open_ours(&volume.target, work.device);
        match bound.and_then(|dir| self.desk.bind(&dir, volume, work)) {
            Ok(socket) => self.desk.open(volume, socket),
            Err(error) => warn!(volume = %volume.id, %error, "its socket is not served"),
        }
    }

    /// Binds a live volume's socket again if it is gone: a pod may be able to remove it.
    pub(super) fn look_after(&self, volume: &Arc<Volume>, work: &Work) {
        if work.spec.as_ref().is_none_or(|spec| spec.socket.is_none()) {
            return;
        }
        block_in_place(|| match self.places.open_ours(&volume.target, work.device) {
            Ok(dir) => self.desk.look_after(&dir, volume, work),
            Err(error) => warn!(volume = %volume.id, %error, "its socket can't be looked at"),
        });
    }

    fn resume_at(&self, volume: &Volume, work: &Work, svid: &Svid, now: SystemTime) -> SystemTime {
        let jwts = volume.jwts_due(work);
        let at = volume.renew_at(&svid.x509, work.pace());
        let at = jwts.map_or(at, |jwts| at.min(jwts));
        if now < svid.x509.not_before() {
            return now;
        }
        if at > now {
            return at;
        }
        let ends = work.jwts.values().map(|svid| svid.expires_at());
        let end = ends.chain([svid.x509.not_after()]).min().unwrap_or(now);
        let left = end.duration_since(now).unwrap_or_default();
        let seed = volume.id.renewal_seed(svid.x509.serial_hex());
        now + SPREAD.min(left / 4).mul_f64(RenewalPolicy::fraction(&seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        jose::{JwtAuthority, JwtKey, JwtKeyAlgorithm},
        pki::{Authority, KeyAlgorithm},
    };

    /// Invariant 6, over a restart: a JWT authority that any volume holds comes back, in the order
    /// that the newest bundle has.
    #[test]
    fn the_jwt_authorities_of_every_volume_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let domain = "example.org".parse().unwrap();
        let day = Duration::from_secs(86_400);
        let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
        let key = || JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap().authority().clone();
        let [old, both, new]: [JwtAuthority; 3] = [key(), key(), key()];
        let bundle = |sequence, keys: &[&JwtAuthority]| {
            let keys = keys.iter().map(|key| (*key).clone()).collect();
            ca.bundle().with_sequence(Some(sequence)).with_jwt_authorities(keys)
        };
        let volumes = [bundle(2, &[&both, &old]), bundle(3, &[&new, &both]), bundle(1, &[&old])];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut recovered = Recovered::default();
            for volume in order {
                let bundle = Some(volumes[volume].clone());
                recovered.note(Found { bundle, until: now, federated: BTreeMap::new() });
            }
            recovered.note(Found { bundle: None, until: now, federated: BTreeMap::new() });
            assert_eq!(recovered.trust.jwt_authorities, [new.clone(), both.clone(), old.clone()]);
            assert_eq!(recovered.trust.bundle.as_ref().and_then(TrustBundle::sequence), Some(3));
        }
    }
}
