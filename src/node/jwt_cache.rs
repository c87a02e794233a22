//! The JWT-SVIDs that a volume's pod asked for at its socket: one for each set of audiences, issued
//! again at half its life, and served for as long as it is valid while the signer is away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

use super::{WorkloadError, jwt_issuer::IssuedJwt};
use crate::{id::SpiffeId, jose::JwtSvid, trust::TrustBundles, volume::AudienceSet};

/// The most sets of audiences that are remembered for a volume; the one that was asked for the
/// longest ago goes first.
const MAX_ENTRIES: usize = 64;

/// The most that are being issued for a volume at one time.
const MAX_FLIGHTS: usize = 64;

/// While the signer is away and there is a valid one, it is asked this seldom.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// One volume's. Most never ask, and those cost nothing.
#[derive(Debug, Default)]
pub(super) struct JwtCache(Mutex<Option<Box<Entries>>>);

#[derive(Debug, Default)]
struct Entries {
    known: HashMap<AudienceSet, Entry>,
    flights: HashMap<AudienceSet, Flight>,
    /// Counts the lookups, to know which entry is the oldest.
    lookups: u64,
}

#[derive(Debug)]
struct Entry {
    issued: IssuedJwt,
    looked_up: u64,
    /// Not before this is the signer asked again, after it failed.
    ask_at: Option<Instant>,
}

/// What becomes of asking the signer, for everyone who waits for it.
pub(super) type Flight = watch::Receiver<Option<Result<Arc<JwtSvid>, WorkloadError>>>;

/// The other end: whoever asks.
pub(super) type Pilot = watch::Sender<Option<Result<Arc<JwtSvid>, WorkloadError>>>;

/// What is there for a set of audiences.
#[derive(Debug)]
pub(super) enum Found {
    /// One in the first half of its life, or whose signer was away just now.
    Fresh(Arc<JwtSvid>),
    /// One that is valid, but due.
    Due(Arc<JwtSvid>),
    /// None.
    Nothing,
}

// === impl JwtCache ===

impl JwtCache {
    /// Looks for one of this identity that verifies by these bundles.
    pub(super) fn get(
        &self,
        audience: &AudienceSet,
        now: SystemTime,
        good: impl FnOnce(&mut IssuedJwt) -> bool,
    ) -> Found {
        let mut cell = self.lock();
        let Some(entries) = cell.as_deref_mut() else { return Found::Nothing };
        entries.lookups += 1;
        let Some(entry) = entries.known.get_mut(audience) else { return Found::Nothing };
        if entry.issued.svid.expires_at() <= now || !good(&mut entry.issued) {
            entries.known.remove(audience);
            return Found::Nothing;
        }
        entry.looked_up = entries.lookups;
        let svid = entry.issued.svid.clone();
        let waits = entry.ask_at.is_some_and(|at| Instant::now() < at);
        if waits || now < half_life(&svid) { Found::Fresh(svid) } else { Found::Due(svid) }
    }

    /// Joins whoever asks the signer for these audiences already; with a [`Pilot`], nobody does,
    /// and the caller has to. `may_sign` is asked only then.
    pub(super) fn board(
        &self,
        audience: &AudienceSet,
        may_sign: impl FnOnce() -> Result<(), WorkloadError>,
        too_many: impl FnOnce() -> WorkloadError,
    ) -> Result<(Flight, Option<Pilot>), WorkloadError> {
        let mut cell = self.lock();
        let entries = cell.get_or_insert_default();
        // One whose pilot is gone has crashed.
        entries.flights.retain(|_, flight| flight.has_changed().is_ok());
        if let Some(flight) = entries.flights.get(audience) {
            return Ok((flight.clone(), None));
        }
        if entries.flights.len() >= MAX_FLIGHTS {
            return Err(too_many());
        }
        may_sign()?;
        let (pilot, flight) = watch::channel(None);
        entries.flights.insert(audience.clone(), flight.clone());
        Ok((flight, Some(pilot)))
    }

    /// Keeps what the signer answered, and ends the flight.
    pub(super) fn land(
        &self,
        audience: AudienceSet,
        answer: Result<IssuedJwt, WorkloadError>,
        pilot: Pilot,
    ) {
        let told = answer.as_ref().map(|issued| issued.svid.clone()).map_err(Clone::clone);
        {
            let mut cell = self.lock();
            let entries = cell.get_or_insert_default();
            entries.flights.remove(&audience);
            match answer {
                Ok(issued) => entries.keep(audience, issued),
                Err(_) => {
                    if let Some(entry) = entries.known.get_mut(&audience) {
                        entry.ask_at = Some(Instant::now() + ASK_AGAIN);
                    }
                }
            }
        }
        pilot.send_replace(Some(told));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Entries>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entries ===

impl Entries {
    fn keep(&mut self, audience: AudienceSet, issued: IssuedJwt) {
        if self.known.len() >= MAX_ENTRIES && !self.known.contains_key(&audience) {
            let oldest = self.known.iter().min_by_key(|(_, entry)| entry.looked_up);
            if let Some(oldest) = oldest.map(|(audience, _)| audience.clone()) {
                self.known.remove(&oldest);
            }
        }
        let looked_up = self.lookups;
        self.known.insert(audience, Entry { issued, looked_up, ask_at: None });
    }
}

/// When a JWT-SVID is due to be issued again.
fn half_life(svid: &JwtSvid) -> SystemTime {
    let life = svid.expires_at().duration_since(svid.issued_at()).unwrap_or_default();
    svid.issued_at() + life / 2
}

/// Whether one is still this pod's, and verifies. Looked at again whenever the bundles changed: a
/// key that was withdrawn signs for nobody any more.
pub(super) fn still_good(
    issued: &mut IssuedJwt,
    id: &SpiffeId,
    bundles: Option<Arc<TrustBundles>>,
    verify: impl FnOnce(&JwtSvid, &TrustBundles) -> bool,
) -> bool {
    if issued.svid.id() != id {
        return false;
    }
    match bundles {
        Some(bundles) if !Arc::ptr_eq(&bundles, &issued.bundles) => {
            let good = verify(&issued.svid, &bundles);
            issued.bundles = bundles;
            good
        }
        _ => true,
    }
}
