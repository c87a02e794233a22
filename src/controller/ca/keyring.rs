//! The CAs and JWT keys as this replica sees them, and which of them may sign here and now.

mod choose;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    CaSettings, CaState, SigningJwtKey,
    jwt::JwtEntry,
    lifecycle::names,
    moment::Moment,
    settings::SKEW,
    signing::{NotReady, SigningAuthority},
};
use crate::{clock::Clock, pki::TrustBundle};

/// The longest that a replica signs without having heard of the CA Secret: less than the handover
/// from one CA to the next.
pub(super) const FRESH: Duration = Duration::from_secs(60);

/// The CAs and JWT keys as this replica sees them. Shared by `Arc`.
pub struct Keyring {
    pub(super) settings: CaSettings,
    pub(super) clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

/// What this replica has seen.
#[derive(Default)]
struct Seen {
    state: Option<Arc<CaState>>,
    /// When the CA Secret was last read or found missing.
    heard: Option<Instant>,
    bundle: Option<TrustBundle>,
    /// Its roots and JWT keys, by name.
    published: Vec<String>,
    /// When each of them was seen to appear; nothing for those that were there already.
    appeared: BTreeMap<String, Moment>,
    /// CAs and JWT keys that were found good here once.
    good: Vec<String>,
    problems: Vec<String>,
    signing: BTreeMap<String, Arc<SigningAuthority>>,
    signing_jwt: BTreeMap<String, Arc<SigningJwtKey>>,
}

/// How the CAs are.
#[derive(Clone, Debug)]
pub struct KeyringStatus {
    /// Whether something can be signed here now.
    pub ready: Result<(), NotReady>,
    /// What a person has to look at, though signing may go on.
    pub problem: Option<String>,
    /// When the chain of the CA that signs ends.
    pub active_not_after: Option<SystemTime>,
    /// The next step of the CA's life and when it is due.
    pub next_step: Option<(&'static str, SystemTime)>,
    /// For how long that step is overdue; zero if it is not.
    pub overdue: Duration,
    /// How many CAs there are of each state.
    pub authorities: BTreeMap<&'static str, usize>,
    /// How many keys are believed stolen.
    pub tainted: usize,
    /// `spiffe_sequence` of the bundle.
    pub sequence: Option<u64>,
    /// How the JWT keys are.
    pub jwt: JwtKeysStatus,
}

/// How the JWT keys are.
#[derive(Clone, Debug)]
pub struct JwtKeysStatus {
    /// Whether a JWT-SVID can be signed here now.
    pub ready: Result<(), NotReady>,
    /// When the key that signs ends.
    pub active_not_after: Option<SystemTime>,
    /// For how long the next step is overdue; zero if it is not.
    pub overdue: Duration,
    /// How many keys there are of each state.
    pub keys: BTreeMap<&'static str, usize>,
    /// How many are believed stolen.
    pub tainted: usize,
}

// === impl Keyring ===

impl Keyring {
    /// With nothing seen yet: nothing can be signed.
    pub fn new(settings: CaSettings, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { settings, clock, seen: Mutex::default() })
    }

    /// The CA that may sign now on this replica. The certificate that it makes is good wherever a
    /// bundle is that was published for the propagation time.
    pub fn signing(&self, now: SystemTime) -> Result<Arc<SigningAuthority>, NotReady> {
        self.lock().choose(&self.settings, Moment::of(now))
    }

    /// The JWT key that may sign now on this replica. A token under it verifies wherever a bundle is
    /// that was published for the propagation time.
    pub fn signing_jwt(&self, now: SystemTime) -> Result<Arc<SigningJwtKey>, NotReady> {
        self.lock().choose_jwt(&self.settings, Moment::of(now))
    }

    /// The bundle as it was last seen published.
    pub fn bundle(&self) -> Option<TrustBundle> {
        self.lock().bundle.clone()
    }

    /// How the CAs are.
    pub fn status(&self, now: SystemTime) -> KeyringStatus {
        let mut seen = self.lock();
        let moment = Moment::of(now);
        let ready = seen.choose(&self.settings, moment).map(|_authority| ());
        let state = seen.state.clone();
        let active = state.as_deref().and_then(CaState::active);
        let next = state.as_deref().and_then(|state| state.next_step(&self.settings));
        let mut authorities = BTreeMap::new();
        for entry in state.iter().flat_map(|state| &state.entries) {
            *authorities.entry(entry.stage.label()).or_default() += 1;
        }
        let jwt = self.jwt_status(&mut seen, moment);
        let tainted = state.iter().flat_map(|state| &state.entries).filter(|e| e.tainted).count();
        KeyringStatus {
            ready,
            problem: (!seen.problems.is_empty()).then(|| seen.problems.join("; ")),
            active_not_after: active.map(|active| active.end().time()),
            next_step: next.map(|(step, at)| (step, at.time())),
            overdue: next.map_or(Duration::ZERO, |(_, at)| moment.since(at.after(SKEW))),
            authorities,
            tainted,
            sequence: seen.bundle.as_ref().and_then(TrustBundle::sequence),
            jwt,
        }
    }

    fn jwt_status(&self, seen: &mut Seen, now: Moment) -> JwtKeysStatus {
        let ready = seen.choose_jwt(&self.settings, now).map(|_key| ());
        let state = seen.state.as_deref();
        let next = state.and_then(|state| state.next_jwt_step(&self.settings));
        let entries = || state.iter().flat_map(|state| &state.jwt_keys);
        let mut keys = BTreeMap::new();
        for entry in entries() {
            *keys.entry(entry.stage.label()).or_default() += 1;
        }
        JwtKeysStatus {
            ready,
            active_not_after: state.and_then(CaState::active_jwt).map(|key| key.end.time()),
            overdue: next.map_or(Duration::ZERO, |(_, at)| now.since(at.after(SKEW))),
            keys,
            tainted: entries().filter(|entry: &&JwtEntry| entry.tainted).count(),
        }
    }

    /// The state that was last read.
    pub(super) fn state(&self) -> Option<Arc<CaState>> {
        self.lock().state.clone()
    }

    /// The CA Secret was read, or found missing or damaged: then the last good state goes on.
    pub(super) fn heard(&self, state: Option<CaState>, heard: Instant) {
        let mut seen = self.lock();
        seen.heard = Some(heard);
        if let Some(state) = state
            && seen.state.as_deref() != Some(&state)
        {
            seen.signing.clear();
            seen.signing_jwt.clear();
            let before = seen.state.as_ref().and_then(|before| before.restored);
            let restored = before != state.restored;
            let known = |id: &str| state.entry(id).is_some() || state.jwt_key(id).is_some();
            seen.good.retain(|id| !restored && known(id));
            seen.state = Some(Arc::new(state));
        }
    }

    /// The published bundle was read.
    pub(super) fn saw_bundle(&self, bundle: &TrustBundle, now: SystemTime) {
        let mut seen = self.lock();
        let now = Moment::of(now);
        let published = names(bundle);
        if seen.bundle.is_some() {
            let before = std::mem::take(&mut seen.published);
            let new = published.iter().filter(|root| !before.contains(root));
            seen.appeared.extend(new.map(|root| (root.clone(), now)));
        }
        seen.appeared.retain(|root, _| published.contains(root));
        seen.bundle = Some(bundle.clone());
        seen.published = published;
    }

    pub(super) fn say(&self, problems: Vec<String>) {
        self.lock().problems = problems;
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
