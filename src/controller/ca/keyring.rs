//! The CAs as this replica sees them, and which of them may sign here and now.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    CaSettings, CaState,
    entry::{Entry, Stage},
    moment::Moment,
    settings::SKEW,
    signing::{NotReady, SigningAuthority},
};
use crate::{clock::Clock, pki::TrustBundle};

/// The longest that a replica signs without having heard of the CA Secret: less than the handover
/// from one CA to the next.
pub(super) const FRESH: Duration = Duration::from_secs(60);

/// The CAs as this replica sees them. Shared by `Arc`.
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
    /// Its roots, by fingerprint.
    published: Vec<String>,
    /// When each root of it was seen to appear; nothing for those that were there already.
    appeared: BTreeMap<String, Moment>,
    /// CAs that were found good here once.
    good: Vec<String>,
    problems: Vec<String>,
    signing: BTreeMap<String, Arc<SigningAuthority>>,
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
            let before = seen.state.as_ref().and_then(|before| before.restored);
            let restored = before != state.restored;
            seen.good.retain(|id| !restored && state.entry(id).is_some());
            seen.state = Some(Arc::new(state));
        }
    }

    /// The published bundle was read.
    pub(super) fn saw_bundle(&self, bundle: &TrustBundle, now: SystemTime) {
        let mut seen = self.lock();
        let now = Moment::of(now);
        let published: Vec<String> =
            bundle.x509_authorities().iter().map(|root| root.sha256()).collect();
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

// === impl Seen ===

impl Seen {
    fn choose(
        &mut self,
        settings: &CaSettings,
        now: Moment,
    ) -> Result<Arc<SigningAuthority>, NotReady> {
        let Some(state) = self.state.clone() else {
            return Err(NotReady::new(match self.problems.first() {
                Some(problem) => problem.clone(),
                None => format!("the CA Secret {} has not been read yet", settings.secret),
            }));
        };
        if self.heard.is_none_or(|heard| heard.elapsed() > FRESH) {
            return Err(NotReady::new(format!(
                "nothing was heard of the CA Secret {} for {} s: another CA may sign by now",
                settings.secret,
                FRESH.as_secs()
            )));
        }
        let mut obstacle = None;
        // The active CA first; the one before it while the active may not sign here yet.
        let active = state.entries.iter().filter(|entry| entry.is_active());
        let retired = state.entries.iter().rev().filter(|entry| !entry.is_active());
        for entry in active.chain(retired) {
            match self.judge(entry, &state, settings, now) {
                Ok(authority) => return Ok(authority),
                Err(reason) if obstacle.is_none() => obstacle = reason,
                Err(_) => {}
            }
        }
        Err(obstacle.or_else(|| state.obstacle(settings)).unwrap_or_else(|| {
            NotReady::new(match self.problems.first() {
                Some(problem) => problem.clone(),
                None => "there is no CA that may sign".to_owned(),
            })
        }))
    }

    /// Why this CA does not sign here now; no reason where it is not its turn.
    fn judge(
        &mut self,
        entry: &Entry,
        state: &CaState,
        settings: &CaSettings,
        now: Moment,
    ) -> Result<Arc<SigningAuthority>, Option<NotReady>> {
        let Some((from, until)) = entry.signs() else { return Err(None) };
        let authority = match self.signing.get(&entry.ca.id) {
            Some(authority) => authority.clone(),
            None => Arc::new(SigningAuthority::of(entry, settings.max_ttl).ok_or(None)?),
        };
        if now >= until {
            let ended = entry.is_active().then(|| {
                NotReady::new(format!("the CA {} ended at {until}; replace it", entry.ca.key_id))
            });
            return Err(ended);
        }
        if now < from {
            let reason = format!("the CA {} signs from {from}", entry.ca.key_id);
            return Err(Some(NotReady::new(reason).until(from)));
        }
        let anchors = &entry.ca.anchors;
        if !self.published.iter().any(|root| anchors.contains(root)) {
            return Err(Some(NotReady::new(format!(
                "the root of the CA {} is not in the published ConfigMap {}",
                entry.ca.key_id, settings.config_map
            ))));
        }
        if !self.good.contains(&entry.ca.id) {
            let key = &entry.ca.key_id;
            let Some(at) = self.ready_at(entry, state, settings) else {
                let reason = format!("the root of the CA {key} was published a moment ago");
                return Err(Some(NotReady::new(reason)));
            };
            if now < at {
                let reason =
                    format!("the root of the CA {key} is published; it signs here from {at}");
                return Err(Some(NotReady::new(reason).until(at)));
            }
            self.good.push(entry.ca.id.clone());
        }
        self.signing.insert(entry.ca.id.clone(), authority.clone());
        Ok(authority)
    }

    /// From when a published CA may sign here: the propagation time after this replica saw its root
    /// appear. One that came later believes the leader, whose clock may be behind.
    fn ready_at(&self, entry: &Entry, state: &CaState, settings: &CaSettings) -> Option<Moment> {
        if matches!(entry.stage, Stage::Active { first: true, .. }) {
            return Some(Moment::default());
        }
        let ready = |root: &String| match (self.appeared.get(root), state.published.get(root)) {
            (Some(seen), _) => Some(seen.after(settings.propagation)),
            (None, Some(since)) => Some(since.after(settings.propagation + SKEW)),
            (None, None) => None,
        };
        let anchors = entry.ca.anchors.iter().filter(|root| self.published.contains(root));
        // Before the leader has noted its publication it signs nowhere.
        anchors.filter_map(ready).min()
    }
}
