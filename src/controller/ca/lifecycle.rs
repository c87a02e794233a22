//! From one CA to the next (DESIGN.md invariant 6): prepare, publish, activate, retire, remove.
//! Rules over what is known, what is seen and the time; nothing here waits or writes.

use std::{sync::Arc, time::Duration};

use super::{
    CaSettings, CaState,
    entry::{Entry, Origin},
    moment::Moment,
    request::{Answer, Outcome, Request},
    restore::{Stolen, is_restored},
    settings::{HANDOVER, RETIRING, SKEW},
    stage::Stage,
    state::{Home, Refused},
    status::LastRequest,
};
use crate::{
    jose::{JwtAuthority, JwtKey},
    pki::{Authority, AuthorityError, Certificate, TrustBundle, sha256_hex},
};

/// What the leader sees around it.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// The bundle in the ConfigMap, if there is a readable one.
    pub(super) published: Option<Published>,
    /// The certificates of a local CA that is being left.
    pub(super) retiring: Vec<Certificate>,
    /// What is in the upstream Secret.
    pub(super) upstream: Upstream,
    /// What a person wants.
    pub(super) request: Option<Request>,
    /// What a person was told last, as the ConfigMap has it.
    pub(super) answered: Option<LastRequest>,
    /// The Secret and the ConfigMap as they are now.
    pub(super) home: Home,
    /// Keys that the ConfigMap calls stolen.
    pub(super) stolen: Vec<Stolen>,
    /// A new JWT key, made because the last step said that it needs one.
    pub(super) jwt_key: Option<Arc<JwtKey>>,
}

/// The bundle in the ConfigMap.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) bundle: TrustBundle,
    /// Whether it has our seal.
    pub(super) ours: bool,
}

/// What is in the upstream Secret.
#[derive(Clone, Debug, Default)]
pub(super) enum Upstream {
    /// We make our own CA.
    #[default]
    NotUsed,
    /// Nothing of use; what we copied before goes on.
    Unusable(String),
    /// A CA that would sign.
    Offered(Arc<Authority>),
}

/// The state after a step, and what a person has to look at.
#[derive(Debug)]
pub(super) struct Advanced {
    pub(super) state: CaState,
    pub(super) problems: Vec<String>,
}

/// Why there is no next state.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfinished {
    /// No CA could be made.
    #[error("the next CA can't be made: {0}")]
    Authority(#[from] AuthorityError),
    /// A new JWT key is needed. An RSA key takes long, so it is not made here.
    #[error("a new JWT key is needed")]
    NeedsJwtKey,
}

/// More CAs, or JWT keys, than this are made by rule or by hand only once old ones are gone: the Secret has a
/// limit of 1 MiB.
pub(super) const MAX_ENTRIES: usize = 24;
const DAY: Duration = Duration::from_secs(86_400);

/// The state that follows from `state` and the world. Calling it again changes nothing more.
pub(super) fn advance(
    state: &CaState,
    world: &World,
    settings: &CaSettings,
    now: Moment,
) -> Result<Advanced, Unfinished> {
    let mut step = Step::new(state.clone(), world, settings, now);
    if is_restored(state, &world.home, world.published.as_ref()) {
        step.take_over(world);
    }
    step.settle_in(&world.home);
    if let Some(published) = &world.published {
        step.note_publication(published);
    }
    step.follow_retiring(&world.retiring);
    if let Some(request) = &world.request {
        step.answer(request, world.answered.as_ref())?;
    }
    match &world.upstream {
        Upstream::NotUsed => step.prepare_own()?,
        Upstream::Unusable(reason) => step.problems.push(reason.clone()),
        Upstream::Offered(authority) => step.follow_upstream(authority),
    }
    step.prepare_next_jwt()?;
    step.activate();
    step.activate_jwt();
    step.end_what_is_over();
    step.end_jwt_keys_that_are_over();
    step.forget_what_is_gone();
    step.finish_answer();
    step.number_bundle(world.published.as_ref());
    Ok(Advanced { state: step.state, problems: step.problems })
}

/// The first state: there is neither a CA nor a bundle yet. Where nobody trusts anyone, nobody has
/// to learn of the first CA before it signs.
pub(super) fn begin(
    world: &World,
    settings: &CaSettings,
    now: Moment,
) -> Result<Advanced, Unfinished> {
    let empty = CaState::empty(settings.trust_domain.clone()).map_err(AuthorityError::Crypto)?;
    let mut begun = advance(&empty, world, settings, now)?;
    // Nodes with a local CA trust someone, though its certificate can't be read just now.
    let first =
        world.published.is_none() && world.retiring.is_empty() && settings.retiring_dir.is_none();
    let stages = begun.state.entries.iter_mut().map(|entry| &mut entry.stage);
    for stage in stages.chain(begun.state.jwt_keys.iter_mut().map(|entry| &mut entry.stage)) {
        stage.set_first(first);
    }
    Ok(begun)
}

/// The state after the CA Secret was lost for good: a new CA, and every root that was published
/// until what was signed under it has ended.
pub(super) fn begin_again(
    last: Option<&CaState>,
    world: &World,
    settings: &CaSettings,
    now: Moment,
) -> Result<Advanced, Unfinished> {
    let mut state =
        CaState::empty(settings.trust_domain.clone()).map_err(AuthorityError::Crypto)?;
    if let Some(last) = last {
        state.refused = last.refused.clone();
        state.sequence = last.sequence;
    }
    let mut step = Step::new(state, world, settings, now);
    // Other replicas may sign with what they have in memory until they hear of this.
    let until = now.after(HANDOVER + settings.max_ttl + SKEW);
    for root in world.published.iter().flat_map(|p| p.bundle.x509_authorities()) {
        step.add_foreign(root, until);
    }
    for root in last.iter().flat_map(|last| last.roots()) {
        step.add_foreign(&root, until);
    }
    let published = world.published.iter().map(|there| there.bundle.jwt_authorities().to_vec());
    let known = last.iter().map(|last| last.jwt_authorities());
    for authority in published.chain(known).flatten() {
        step.add_foreign_jwt(&authority);
    }
    let mut begun = advance(&step.state, &World { request: None, ..world.clone() }, settings, now)?;
    if let Some(request) = &world.request {
        let next = begun.state.next();
        begun.state.answer = Some(Answer {
            uid: request.uid.clone(),
            action: request.action,
            outcome: Outcome::Accepted,
            message: "a new CA is published and signs once that was for long enough".to_owned(),
            at: now,
            waits_for: next.map(|next| next.ca.id.clone()),
        });
    }
    Ok(begun)
}

/// One pass over the rules.
pub(super) struct Step<'a> {
    pub(super) state: CaState,
    pub(super) settings: &'a CaSettings,
    pub(super) now: Moment,
    pub(super) problems: Vec<String>,
    pub(super) jwt_key: Option<Arc<JwtKey>>,
}

// === impl Step ===

impl<'a> Step<'a> {
    fn new(state: CaState, world: &World, settings: &'a CaSettings, now: Moment) -> Self {
        Self { state, settings, now, problems: Vec::new(), jwt_key: world.jwt_key.clone() }
    }
}

impl Step<'_> {
    fn note_publication(&mut self, published: &Published) {
        let now = self.now;
        let there = names(&published.bundle);
        for name in self.state.trusted() {
            if there.contains(&name) {
                self.state.published.entry(name).or_insert(now);
            } else if !self.relied_on(&name) {
                self.state.published.remove(&name);
            }
        }
        // A clock that was set back must not keep a CA waiting for as long.
        for since in self.state.published.values_mut() {
            *since = (*since).min(now);
        }
        self.take_back(published);
        self.take_back_jwt_keys(published);
    }

    /// Whether a CA that signs or has signed hangs from this root, or it is such a JWT key.
    fn relied_on(&self, name: &String) -> bool {
        let signed = |entry: &&Entry| entry.signs().is_some();
        self.state.entries.iter().filter(signed).any(|entry| entry.ca.anchors.contains(name))
            || self.state.jwt_key(name).is_some_and(|key| key.life().signs().is_some())
    }

    /// Roots that we published and know nothing of: the CA Secret is an older copy. What was signed
    /// under them still lives.
    fn take_back(&mut self, published: &Published) {
        let known = self.state.roots();
        let dropped: Vec<String> = self
            .state
            .entries
            .iter()
            .filter(|entry| !entry.is_published())
            .flat_map(|entry| entry.ca.anchors.clone())
            .collect();
        for root in published.bundle.x509_authorities() {
            if known.contains(root) || dropped.contains(&root.sha256()) {
                continue;
            }
            if !published.ours {
                self.problems.push(format!(
                    "the ConfigMap {} had a root that is not ours ({}, SHA-256 {}); it is taken out: does another controller write it?",
                    self.settings.config_map,
                    root.subject(),
                    root.sha256()
                ));
            } else if published.bundle.sequence() > Some(self.state.sequence) {
                let until = self.now.after(HANDOVER + self.settings.max_ttl + SKEW);
                self.add_foreign(root, until);
            }
        }
    }

    /// Trusts a root of which there is no key until then.
    pub(super) fn add_foreign(&mut self, root: &Certificate, remove_at: Moment) {
        let entry = Entry::foreign(root.clone(), remove_at);
        match self.state.entries.iter_mut().find(|known| known.ca.id == entry.ca.id) {
            Some(known) => {
                // What was taken out by force stays out as long as it is shown.
                if let Stage::Foreign { remove_at: at }
                | Stage::Retired { sign_from: None, remove_at: at, .. } = &mut known.stage
                {
                    *at = remove_at.max(*at);
                }
            }
            None => self.state.entries.push(entry),
        }
    }

    /// A local CA that is being left is trusted as long as its certificate is shown to us, and until
    /// its last SVID has ended. Its key never signs here: nodes had it.
    fn follow_retiring(&mut self, retiring: &[Certificate]) {
        let until = self.now.after(RETIRING);
        for certificate in retiring {
            let key = sha256_hex(certificate.spki_der());
            let own = |entry: &&Entry| {
                entry.origin != Origin::Root && entry.ca.public_keys().any(|own| own == key)
            };
            if let Some(own) = self.state.entries.iter().find(own) {
                self.problems.push(format!(
                    "the key of the CA {} is also that of the local CA which is being left, so nodes have it: rotate, then retire it",
                    own.ca.key_id
                ));
            }
            self.state.refused.insert(key, Refused::WasOnNodes);
            if !certificate.is_self_signed() {
                continue;
            }
            // Once an hour, not each time.
            let id = Entry::foreign(certificate.clone(), until).ca.id;
            let fresh = self.state.entry(&id).is_some_and(|entry| {
                entry.remove_at().is_none_or(|at| at > self.now.after(RETIRING - SKEW * 60))
            });
            if !fresh {
                self.add_foreign(certificate, until);
            }
        }
    }

    /// Makes the next CA when its time has come.
    fn prepare_own(&mut self) -> Result<(), AuthorityError> {
        if self.state.next().is_some() {
            return Ok(());
        }
        let active = self.state.active();
        match active.is_none_or(|active| active.life().wants_a_next(self.now)) {
            true => self.prepare(false),
            false => Ok(()),
        }
    }

    /// Makes a CA of our own that signs later.
    pub(super) fn prepare(&mut self, hurry: bool) -> Result<(), AuthorityError> {
        let settings = self.settings;
        let authority = Authority::create(
            &settings.trust_domain,
            settings.key_algorithm,
            settings.lifetime,
            self.now.time(),
        )?;
        let mut entry = Entry::prepared(Arc::new(authority), Origin::Own, settings.max_ttl);
        entry.stage = Stage::Prepared { hurry, first: false };
        self.state.entries.push(entry);
        Ok(())
    }

    /// Copies what the upstream Secret has.
    fn follow_upstream(&mut self, authority: &Arc<Authority>) {
        let entry = Entry::prepared(authority.clone(), Origin::Upstream, self.settings.max_ttl);
        let refused = entry.ca.public_keys().find_map(|key| self.state.refused.get(&key).copied());
        if let Some(why) = refused {
            self.problems.push(match why {
                Refused::WasOnNodes => "the upstream CA's key, or its root's, was on nodes as a local CA: anyone who had a node can sign with it; put a new CA into the upstream Secret".to_owned(),
                Refused::Tainted => "the upstream CA's key was tainted: put a CA with a new key into the upstream Secret".to_owned(),
            });
            return;
        }
        let id = entry.ca.id.clone();
        if self.state.entry(&id).is_none() && self.state.entries.len() >= MAX_ENTRIES {
            self.problems.push(format!(
                "the upstream CA changes too often: {} of its CAs are still trusted; the newest is taken when the oldest is gone",
                self.state.entries.len()
            ));
            return;
        }
        // What was offered before and never signed needs no trust.
        self.state.entries.retain(|known| !known.is_prepared() || known.ca.id == id);
        let usable = self.state.usable_at(&entry, self.settings).is_some_and(|at| self.now >= at);
        match self.state.entries.iter_mut().find(|known| known.ca.id == id) {
            None => self.state.entries.push(entry),
            Some(known) => match known.stage {
                Stage::Active { .. } | Stage::Prepared { .. } => {}
                // Put back: what it signed before is trusted still.
                Stage::Retired { dropped: false, .. } if usable => {
                    known.ca = entry.ca;
                    known.stage = entry.stage;
                }
                Stage::Retired { .. } | Stage::Foreign { .. } => {
                    self.problems.push(
                        "the upstream Secret has a CA again that was retired; put a new one there"
                            .to_owned(),
                    );
                }
            },
        }
    }

    /// Lets the next CA sign if it is its turn, and stops the one before.
    fn activate(&mut self) {
        let now = self.now;
        let Some(next) = self.state.next() else { return };
        if !next.is_alive(now) {
            return;
        }
        // An active CA that has ended waits for nothing but the next one's publication.
        let ended = self.state.active().is_none_or(|active| !active.is_alive(now));
        let at = match ended {
            true => self.state.usable_at(next, self.settings),
            false => self.state.activate_at(next, self.settings),
        };
        if at.is_none_or(|at| now < at) {
            return;
        }
        let id = next.ca.id.clone();
        let first = next.stage.is_first();
        for entry in &mut self.state.entries {
            if entry.ca.id == id {
                entry.stage = Stage::Active { sign_from: now, first };
            } else {
                entry.retire(now);
            }
        }
    }

    fn end_what_is_over(&mut self) {
        let (now, max_ttl) = (self.now, self.settings.max_ttl);
        for entry in &mut self.state.entries {
            if entry.is_active() || entry.is_prepared() {
                entry.max_ttl = entry.max_ttl.max(max_ttl);
            }
            // A key that nobody may use any more need not exist.
            if entry.life().signed_its_last(now) {
                entry.ca.authority = None;
            }
        }
        let over = |entry: &Entry| entry.life().is_over(now);
        // Never an empty bundle (invariant 6).
        if self.state.entries.iter().any(|entry| entry.is_published() && !over(entry)) {
            self.state.entries.retain(|entry| !over(entry));
        }
    }

    fn forget_what_is_gone(&mut self) {
        let trusted = self.state.trusted();
        self.state.published.retain(|name, _| trusted.contains(name));
    }

    /// A bundle with other roots or JWT keys, or one that someone else numbered higher, needs a new number.
    fn number_bundle(&mut self, published: Option<&Published>) {
        let trusted = self.state.trusted();
        // A number far ahead that someone else wrote would be the last that there is.
        let limit = self.now.after(DAY).seconds();
        let floor = published
            .filter(|there| there.ours || there.bundle.sequence() < Some(limit))
            .and_then(|there| there.bundle.sequence())
            .unwrap_or(0);
        if trusted != self.state.bundle || floor > self.state.sequence {
            let last = self.state.sequence.max(floor);
            self.state.sequence = last.saturating_add(1).max(self.now.seconds());
            self.state.bundle = trusted;
        }
    }
}

/// The name of everything in a bundle, as [`CaState::trusted`] has it.
pub(super) fn names(bundle: &TrustBundle) -> Vec<String> {
    let roots = bundle.x509_authorities().iter().map(Certificate::sha256);
    roots.chain(bundle.jwt_authorities().iter().map(JwtAuthority::thumbprint)).collect()
}
