//! Follows the CA Secret and the bundle's ConfigMap on every replica, and on the one that leads
//! does what is due. Everything is decided on what was just read; the watches only wake it.

mod lead;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    CaState, DocumentError, Keyring, document, moment::Moment, publish, restore::is_restored,
    state::Home,
};
use crate::{
    jose::JwtKey,
    k8s::{ApiError, BundleMap, BundlePublisher, CaSecret, CacheState, Cluster, StoredSecret},
    pki::TrustBundle,
};

/// How often it looks though nothing was heard: less than [`FRESH`](super::keyring::FRESH).
const TICK: Duration = Duration::from_secs(15);
/// Several changes at once are one look; and two that fight over an object stay slow.
const PAUSE: Duration = Duration::from_millis(100);
/// How soon it looks again after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Steps that follow from each other in one look.
const ROUNDS: usize = 8;

/// What is followed.
struct Follower {
    keyring: Arc<Keyring>,
    secret: CaSecret,
    map: BundlePublisher,
    upstream: Option<CaSecret>,
    /// What is published elsewhere, by the leader only.
    elsewhere: watch::Sender<Option<TrustBundle>>,
    elsewhere_problems: watch::Receiver<Vec<String>>,
    /// The last Secret that could be read, by version.
    decoded: Option<(String, CaState)>,
    said: Vec<String>,
    /// A JWT key that was made for the next step.
    jwt_key: Option<Arc<JwtKey>>,
}

/// What there is of the CA.
enum Found {
    /// Its Secret.
    There(Box<CaState>, Box<StoredSecret>),
    /// A Secret that can't be used.
    Damaged(String),
    /// A Secret of a later version: what it says about the CAs that we know is not known.
    Unknown(String),
    /// No Secret, and there was one.
    Lost,
    /// Nothing, and there never was.
    Nothing,
}

/// What a round led to.
enum Round {
    /// Something was written: look again.
    Again,
    /// Nothing more is to be done now.
    Settled(Vec<String>),
}

// === impl Keyring ===

impl Keyring {
    /// Follows the CA until `stop`, and leads it while `leads` says so.
    pub async fn run(
        self: Arc<Self>,
        cluster: Cluster,
        mut leads: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let settings = &self.settings;
        let named = |name: &String| CaSecret::new(&cluster, &settings.namespace, name);
        let (problems, elsewhere_problems) = watch::channel(Vec::new());
        let mut follower = Follower {
            secret: named(&settings.secret),
            map: BundlePublisher::new(&cluster, &settings.namespace, &settings.config_map),
            upstream: settings.upstream.as_ref().map(named),
            elsewhere: watch::Sender::new(None),
            elsewhere_problems,
            decoded: None,
            said: Vec::new(),
            jwt_key: None,
            keyring: self.clone(),
        };
        let mut watches = JoinSet::new();
        let targets = publish::targets(&cluster, settings);
        watches.spawn(targets.run(follower.elsewhere.subscribe(), problems));
        let mut wakes = Vec::new();
        let (state, follow) = follower.map.follow();
        watches.spawn(follow);
        wakes.push(state);
        for secret in [Some(&follower.secret), follower.upstream.as_ref()].into_iter().flatten() {
            let (state, follow) = secret.follow();
            watches.spawn(follow);
            wakes.push(state);
        }
        let (wake, mut woken) = watch::channel(());
        for state in wakes {
            watches.spawn(forward(state, wake.clone()));
        }
        loop {
            woken.mark_unchanged();
            let leading = *leads.borrow_and_update();
            let wait = match follower.look(leading).await {
                Ok(wait) => wait,
                Err(error) => {
                    follower.failed(&error);
                    error.retry_after().unwrap_or(RETRY)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
                Ok(()) = woken.changed() => {}
                Ok(()) = leads.changed() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }
}

async fn forward(mut state: watch::Receiver<CacheState>, wake: watch::Sender<()>) {
    while state.changed().await.is_ok() {
        state.mark_unchanged();
        wake.send_replace(());
    }
}

// === impl Follower ===

impl Follower {
    /// Looks, and does what is due; returns how long nothing will be.
    async fn look(&mut self, leads: bool) -> Result<Duration, ApiError> {
        let mut problems = Vec::new();
        for _ in 0..ROUNDS {
            match self.round(leads).await {
                Ok(Round::Again) => continue,
                Ok(Round::Settled(found)) => {
                    problems = found;
                    break;
                }
                // Someone else wrote: what was decided may be wrong.
                Err(error) if error.is_conflict() || error.is_already_exists() => continue,
                Err(error) => return Err(error),
            }
        }
        let elsewhere = self.keyring.bundle().filter(|_| leads);
        self.elsewhere.send_if_modified(|bundle| {
            let news = *bundle != elsewhere;
            *bundle = elsewhere;
            news
        });
        problems.extend(self.elsewhere_problems.borrow().iter().cloned());
        self.say(problems);
        Ok(self.wait())
    }

    /// Until the next step is due, and not for long.
    fn wait(&self) -> Duration {
        let now = Moment::of(self.keyring.clock.now());
        let settings = &self.keyring.settings;
        let steps = self.keyring.state().into_iter().flat_map(|state| {
            [state.next_step(settings), state.next_jwt_step(settings)].into_iter().flatten()
        });
        let left = steps.map(|(_, at)| at.since(now));
        // What is overdue waits for something else.
        left.filter(|left| !left.is_zero()).min().unwrap_or(TICK).min(TICK)
    }

    async fn round(&mut self, leads: bool) -> Result<Round, ApiError> {
        let stored = self.secret.read().await?;
        let heard = Instant::now();
        let map = self.map.read().await?;
        let wall = self.keyring.clock.now();
        let now = Moment::of(wall);
        let mut problems = Vec::new();
        let found = self.judge(stored, map.as_ref(), now);
        let (state, home) = match &found {
            Found::There(state, stored) => (Some(&**state), home(stored, map.as_ref())),
            _ => (None, Home::default()),
        };
        let memory = self.keyring.state();
        let published = map.as_ref().and_then(|map| {
            let state = state.or(memory.as_deref());
            publish::read(map, &self.keyring.settings, state, &mut problems)
        });
        // What the leader has not taken over yet may be far too old to sign with.
        let state = state.filter(|state| !is_restored(state, &home, published.as_ref()));
        if !matches!(found, Found::Unknown(_)) {
            self.keyring.heard(state.cloned(), heard);
        }
        if let Some(published) = &published {
            self.keyring.saw_bundle(&published.bundle, wall);
        }
        if !leads {
            let standing = map.as_ref().and_then(publish::status);
            problems.extend(self.trouble(&found));
            problems.extend(standing.and_then(|status| status.problem));
            return Ok(Round::Settled(problems));
        }
        let mut world = self.world(published, map.as_ref(), now, &mut problems).await;
        world.home = home;
        world.jwt_key = self.jwt_key.take();
        self.lead(found, map, &world, now, problems).await
    }

    fn judge(
        &mut self,
        stored: Option<StoredSecret>,
        map: Option<&BundleMap>,
        now: Moment,
    ) -> Found {
        let Some(stored) = stored else {
            let was = self.keyring.state().is_some()
                || map.is_some_and(|map| map.status().is_some() || map.bundle().is_some());
            return if was { Found::Lost } else { Found::Nothing };
        };
        if let Some((version, state)) = &self.decoded
            && version == stored.version()
        {
            return Found::There(Box::new(state.clone()), Box::new(stored));
        }
        match document::decode(stored.data(), &self.keyring.settings.trust_domain, now) {
            Ok(state) => {
                self.decoded = Some((stored.version().to_owned(), state.clone()));
                Found::There(Box::new(state), Box::new(stored))
            }
            Err(error @ DocumentError::Version(_)) => Found::Unknown(error.to_string()),
            Err(error) => Found::Damaged(error.to_string()),
        }
    }

    /// What a person has to know about this.
    fn trouble(&self, found: &Found) -> Option<String> {
        let name = self.secret.name();
        let going_on = match self.keyring.state().is_some() {
            true => "this replica signs with what it has in memory until it restarts",
            false => "nothing can be signed",
        };
        match found {
            Found::There(..) => None,
            Found::Damaged(reason) => Some(format!(
                "the CA Secret {name} can't be used: {reason}; {going_on}; restore it from its backup"
            )),
            Found::Unknown(reason) => Some(format!(
                "the CA Secret {name} can't be used: {reason}; this replica stops signing; update it"
            )),
            Found::Lost => Some(format!(
                "the CA Secret {name} has vanished; {going_on}; restore it from its backup, or make a new CA with svid-csi ca replace-lost"
            )),
            Found::Nothing => Some("there is no CA yet; the leader makes it".to_owned()),
        }
    }

    /// Each problem is logged when it comes and when it goes.
    fn say(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.said.contains(problem)) {
            warn!(problem, "the CA needs a look");
        }
        if problems.is_empty() && !self.said.is_empty() {
            info!("the CA is fine again");
        }
        self.said.clone_from(&problems);
        self.keyring.say(problems);
    }

    fn failed(&mut self, error: &ApiError) {
        let problem = error.to_string();
        if !self.said.contains(&problem) {
            error!(problem, "the CA can't be followed; what is known goes on for a minute");
        }
        self.said = vec![problem.clone()];
        self.keyring.say(vec![problem]);
    }
}

fn home(secret: &StoredSecret, map: Option<&BundleMap>) -> Home {
    let known = |uid: &str| (!uid.is_empty()).then(|| uid.to_owned());
    Home { secret: known(secret.uid()), map: map.and_then(|map| known(map.uid())) }
}
