//! The keys that the API server signs tokens with, as it last published them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Metrics;
use crate::{
    jose::JwtAuthority,
    k8s::{ApiError, Cluster, PublishedTokenKeys},
};

/// How often they are read anew, so that a key that was taken back counts no longer.
const EVERY: Duration = Duration::from_secs(60);
/// How soon at the earliest they are read again because a token names an unknown one: whoever makes
/// such tokens up causes no more calls than this.
const NOT_BEFORE: Duration = Duration::from_secs(5);
/// How long a caller waits for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long they count though they could not be read anew.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// More are none that an API server would have.
const MAX_KEYS: usize = 64;

/// The keys, kept up to date by [`Keys::follow`].
pub(super) struct Keys {
    state: watch::Sender<State>,
    wanted: Notify,
}

/// A set of keys that was published at one time.
#[derive(Debug)]
pub(super) struct KeySet {
    /// Another one for each change.
    pub(super) version: u64,
    /// The `iss` of tokens that they sign.
    pub(super) issuer: String,
    pub(super) authorities: Vec<JwtAuthority>,
}

#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// When the set was last read.
    read: Option<Instant>,
    /// When the API server was last asked.
    asked: Option<Instant>,
    /// Whether its answer is still to come.
    asking: bool,
    /// How often it has answered, with keys or without.
    answers: u64,
    /// Why there are no keys, or only old ones.
    problem: Option<String>,
    /// Why TokenReview cannot be had either; nothing while it can, or is not needed.
    review_problem: Option<String>,
}

// === impl Keys ===

impl Keys {
    pub(super) fn new() -> Self {
        Self { state: watch::Sender::default(), wanted: Notify::new() }
    }

    /// The keys that count now, and how many answers there have been. At the very beginning it waits
    /// for the first.
    pub(super) async fn current(&self) -> (Option<Arc<KeySet>>, u64) {
        if self.state.borrow().answers == 0 {
            self.wait_for(0).await;
        }
        let state = self.state.borrow();
        (state.current(), state.answers)
    }

    /// The keys that count now, without waiting.
    pub(super) fn version(&self) -> Option<u64> {
        self.state.borrow().current().map(|set| set.version)
    }

    /// The keys as they are after another answer than that many; nothing if the API server was asked
    /// too short a time ago, or does not answer in time.
    pub(super) async fn newer(&self, answers: u64) -> Option<Arc<KeySet>> {
        {
            let state = self.state.borrow();
            let recent = state.asked.is_some_and(|asked| asked.elapsed() < NOT_BEFORE);
            if state.answers == answers && recent && !state.asking {
                return None;
            }
        }
        self.wanted.notify_one();
        self.wait_for(answers).await.then(|| self.state.borrow().current()).flatten()
    }

    async fn wait_for(&self, answers: u64) -> bool {
        let mut state = self.state.subscribe();
        let newer = timeout(PATIENCE, state.wait_for(|state| state.answers > answers)).await;
        newer.is_ok_and(|newer| newer.is_ok())
    }

    /// Why no token can be verified; with or without published keys, TokenReview will do.
    pub(super) fn ready(&self) -> Result<(), String> {
        let state = self.state.borrow();
        if state.current().is_some() {
            return Ok(());
        }
        let problem = state.problem.as_deref().unwrap_or("they have not been read yet");
        match (&state.review_problem, state.answers) {
            (None, 1..) => Ok(()),
            (None, 0) => Err(format!("the keys of ServiceAccount tokens: {problem}")),
            (Some(review), _) => {
                let why = "no ServiceAccount token can be verified: its keys";
                Err(format!("{why}: {problem}; TokenReview: {review}"))
            }
        }
    }

    /// How many keys count now.
    pub(super) fn count(&self) -> usize {
        self.state.borrow().current().map_or(0, |set| set.authorities.len())
    }

    /// Reads them again and again until `stop`.
    pub(super) async fn follow(
        &self,
        cluster: &Cluster,
        audience: &str,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) {
        loop {
            let round = async {
                self.state.send_modify(|state| {
                    state.asked = Some(Instant::now());
                    state.asking = true;
                });
                let published = cluster.token_keys().await.map_err(|error| error.to_string());
                let read = published.and_then(KeySet::read);
                let review_problem = match &read {
                    Ok(_) => None,
                    // No token at all: what counts is whether the question is allowed.
                    Err(_) => cluster.review_token("probe", audience).await.err(),
                };
                metrics.read_keys(read.is_ok());
                self.take(read, review_problem);
                sleep(NOT_BEFORE).await;
                let _woken = timeout(EVERY - NOT_BEFORE, self.wanted.notified()).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = round => {}
            }
        }
    }

    fn take(&self, read: Result<KeySet, String>, review_problem: Option<ApiError>) {
        self.state.send_modify(|state| {
            state.answers += 1;
            state.asking = false;
            state.review_problem = review_problem.map(|error| error.to_string());
            match read {
                Ok(set) => {
                    state.read = Some(Instant::now());
                    state.problem = None;
                    if state.set.as_ref().is_none_or(|before| !before.is(&set)) {
                        let keys = set.authorities.len();
                        info!(issuer = set.issuer, keys, "keys of ServiceAccount tokens");
                        state.set = Some(Arc::new(KeySet { version: state.answers, ..set }));
                    }
                }
                Err(problem) => {
                    if state.problem.is_none() {
                        warn!(problem, "the keys of ServiceAccount tokens cannot be had");
                    }
                    state.problem = Some(problem);
                }
            }
        });
    }
}

// === impl State ===

impl State {
    fn current(&self) -> Option<Arc<KeySet>> {
        let fresh = self.read.is_some_and(|read| read.elapsed() < FRESH);
        self.set.clone().filter(|_| fresh)
    }
}

// === impl KeySet ===

impl KeySet {
    /// Keys of kinds that tokens are not signed with are left out.
    fn read(published: PublishedTokenKeys) -> Result<Self, String> {
        let PublishedTokenKeys { issuer, keys } = published;
        let usable = keys.iter().take(MAX_KEYS);
        let authorities: Vec<_> =
            usable.filter_map(|jwk| JwtAuthority::from_jwk(jwk).ok()).collect();
        match (issuer.is_empty(), authorities.is_empty()) {
            (true, _) => Err("the API server names no issuer".to_owned()),
            (_, true) => Err("the API server publishes no key that can be used".to_owned()),
            _ => Ok(Self { version: 0, issuer, authorities }),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.authorities == other.authorities
    }
}
