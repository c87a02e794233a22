//! ServiceAccount tokens, verified without a call: by the keys that the API server publishes. What
//! TokenReview would look up beside that, the approver knows from its watches. Where the keys cannot
//! be had, TokenReview is asked.

mod claims;
mod error;
mod keys;
mod memory;
mod metrics;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{
    claims::TokenClaims,
    error::{TokenError, Unbound},
    metrics::Metrics,
};
use self::{
    keys::Keys,
    memory::{Memory, Proof},
    metrics::Way,
};
use crate::{
    clock::Clock,
    jose::{Jws, JwtError, Unproven},
    k8s::Cluster,
};

/// Verifies tokens. Shared by `Arc`.
pub struct Tokens {
    cluster: Cluster,
    audience: String,
    keys: Keys,
    memory: Mutex<Memory>,
    reviews: Semaphore,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// The longest token that is looked at, in bytes; with RSA-4096 and the longest names it has 4 KiB.
pub const MAX_TOKEN: usize = 8 << 10;
/// How many tokens the API server is asked about at once.
const REVIEWS: usize = 16;
/// How long its verdict is believed, as API servers believe their own webhooks.
const BELIEF: Duration = Duration::from_secs(120);

// === impl Tokens ===

impl Tokens {
    /// The audience of both tokens that a node sends.
    pub const AUDIENCE: &str = "svid.dev";

    /// For tokens of this audience alone. Nothing is read before [`Tokens::follow`].
    pub fn new(
        cluster: Cluster,
        audience: String,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            audience,
            keys: Keys::new(),
            memory: Mutex::default(),
            reviews: Semaphore::new(REVIEWS),
            clock,
            metrics,
        })
    }

    /// Follows the published keys until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        self.keys.follow(&self.cluster, &self.audience, &self.metrics, &stop).await;
    }

    /// Why no token can be verified.
    pub fn ready(&self) -> Result<(), String> {
        self.keys.ready()
    }

    /// Brings the gauges up to date.
    pub fn refresh_metrics(&self) {
        self.metrics.refresh(self.keys.count(), self.memory().len());
    }

    /// Verifies a token: that the API server made it, for this audience alone, that its time is now,
    /// and that it is bound to a pod on a node. Whether those still exist is not looked at.
    pub async fn verify(&self, token: &str) -> Result<Arc<TokenClaims>, TokenError> {
        if token.len() > MAX_TOKEN {
            let error = JwtError::TooLong { length: token.len() };
            return self.counted(Way::Keys, Err(error.into()));
        }
        let hash = memory::hash(token);
        let known = self.memory().get(&hash, self.keys.version(), self.clock.now());
        if let Some(known) = known {
            self.metrics.verified(Way::Memory, Ok(()));
            return Ok(known);
        }
        let (way, found) = self.prove(token).await;
        let (claims, proof) = self.counted(way, found)?;
        let claims = Arc::new(claims);
        self.memory().put(hash, claims.clone(), proof);
        Ok(claims)
    }

    fn counted<T>(&self, way: Way, found: Result<T, TokenError>) -> Result<T, TokenError> {
        self.metrics.verified(way, found.as_ref().map(drop).map_err(TokenError::class));
        found
    }

    async fn prove(&self, token: &str) -> (Way, Result<(TokenClaims, Proof), TokenError>) {
        let (jws, claims) = match self.read(token) {
            Ok(read) => read,
            Err(error) => return (Way::Keys, Err(error)),
        };
        let issuer = jws.claims().get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default();
        let (set, answers) = self.keys.current().await;
        // The API server takes tokens of other issuers too, while it moves from one to the next, and
        // publishes nothing about them.
        let Some(mut set) = set.filter(|set| set.issuer == issuer) else {
            let reviewed = self.review(token, &claims).await;
            return (Way::Review, reviewed.map(|proof| (claims, proof)));
        };
        let mut verdict = jws.verify(&set.authorities);
        if verdict == Err(Unproven::UnknownKey) {
            match self.keys.newer(answers).await {
                Some(newer) if newer.issuer == issuer => set = newer,
                _ => return (Way::Keys, Err(TokenError::KeyNotSeenYet)),
            }
            verdict = jws.verify(&set.authorities);
        }
        let proven = verdict.map_err(|unproven| match unproven {
            Unproven::UnknownKey => TokenError::UnknownKey,
            Unproven::KeyMismatch => TokenError::KeyMismatch,
            Unproven::Signature => TokenError::Signature,
        });
        (Way::Keys, proven.map(|()| (claims, Proof::Keys(set.version))))
    }

    /// What a token says, if that could be true.
    fn read<'a>(&self, token: &'a str) -> Result<(Jws<'a>, TokenClaims), TokenError> {
        let jws = Jws::parse(token)?;
        if jws.key_id().is_none() {
            return Err(TokenError::NoKeyId);
        }
        let claims = TokenClaims::read(&jws, &self.audience, self.clock.now())?;
        Ok((jws, claims))
    }

    /// Asks the API server, but not about more than so many at once: who waits holds a place that
    /// others need.
    async fn review(&self, token: &str, claims: &TokenClaims) -> Result<Proof, TokenError> {
        let _place = self.reviews.try_acquire().map_err(|_full| TokenError::Busy)?;
        let verdict = self.cluster.review_token(token, &self.audience).await?;
        let until = Instant::now() + BELIEF;
        match verdict {
            // Its reason may quote what the token says.
            Err(_reason) => Err(TokenError::Refused),
            Ok(reviewed) if claims.agrees(&reviewed, &self.audience) => Ok(Proof::Review(until)),
            Ok(_other) => Err(TokenError::Contradiction),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
