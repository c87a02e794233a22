//! Has SVIDs signed through CertificateSigningRequest objects that a controller decides about.

mod draft;
mod metrics;
mod outcome;
mod standing;
mod tidy;
mod upkeep;
mod waiters;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;

pub use self::metrics::{ApiCall, ClassLabel, CsrMetrics};
use self::{
    outcome::{Signed, outcome},
    tidy::Tidy,
    waiters::{Waiters, Waiting},
};
use super::{SignError, SignRequest, Signer, SignerStatus};
use crate::{
    class::Class,
    k8s::{ApiError, ApiErrorKind, Cache, Cluster, ObjectName, OwnRequest},
    pki::X509Svid,
};

/// How many calls to the API server run at once.
const CALLS: usize = 32;
/// How often an object that is in the way is deleted before a call gives up.
const ROUNDS: usize = 2;
/// How long a decision is waited for. The request stays, and the next try finds it.
const DECISION: Duration = Duration::from_secs(15);
/// When to look at a request that the watch has not shown.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// And again, while the watch is behind.
const LOOK: Duration = Duration::from_secs(5);

/// Signs by asking the controller. Holds no key; what it asks for is the controller's to check.
pub struct CsrSigner {
    cluster: Cluster,
    node_name: String,
    /// The UID of this Node, or why it isn't known.
    node_uid: watch::Sender<Result<Arc<str>, SignError>>,
    /// Asks again who we are.
    doubt: Notify,
    requests: Cache<OwnRequest>,
    waiters: Arc<Waiters>,
    tidy: Tidy,
    calls: Semaphore,
    metrics: CsrMetrics,
}

// === impl CsrSigner ===

impl CsrSigner {
    /// A signer for this node. It signs once [`CsrSigner::run`] has reached the API server.
    pub fn new(cluster: Cluster, node_name: String, metrics: CsrMetrics) -> Self {
        let unknown = SignError::new(Class::Unavailable, "the API server has not answered yet");
        Self {
            cluster,
            node_name,
            node_uid: watch::Sender::new(Err(unknown)),
            doubt: Notify::new(),
            requests: Cache::default(),
            waiters: Arc::default(),
            tidy: Tidy::default(),
            calls: Semaphore::new(CALLS),
            metrics,
        }
    }

    /// The request under this name: one that was made before, or a new one.
    async fn find_or_create(
        &self,
        request: &SignRequest,
        name: &str,
        node_uid: &str,
    ) -> Result<OwnRequest, SignError> {
        let key = ObjectName::cluster_wide(name);
        let mut found = self.requests.get(&key).map(|object| (*object).clone());
        for _ in 0..ROUNDS {
            if let Some(object) = found {
                if draft::asks_for(&object, request) {
                    debug!(name, "resumes a request");
                    return Ok(object);
                }
                let gone = self.call("delete", self.cluster.delete_request(name, &object.uid));
                gone.await.map_err(|error| self.failed(&error))?;
            }
            let new = draft::draft(request, name, node_uid);
            match self.call("create", self.cluster.create_request(&new)).await {
                Err(error) if error.is_already_exists() => {
                    let object = self.call("read", self.cluster.read_request(name)).await;
                    found = Some(object.map_err(|error| self.failed(&error))?);
                }
                created => return created.map_err(|error| self.failed(&error)),
            }
        }
        let message = format!("request {name} asks for something else and can't be deleted");
        Err(SignError::new(Class::Unavailable, message))
    }

    /// Waits for the end of a request.
    async fn decided(&self, name: &str, waiting: &Waiting) -> Result<Signed, SignError> {
        let key = ObjectName::cluster_wide(name);
        let deadline = Instant::now() + DECISION;
        let mut look = Instant::now() + FIRST_LOOK;
        let mut seen = false;
        loop {
            match self.requests.get(&key) {
                Some(object) => {
                    seen = true;
                    if let Some(outcome) = outcome(&object) {
                        return outcome;
                    }
                }
                None if seen => return Err(gone(name)),
                None => {}
            }
            tokio::select! {
                () = waiting.changed() => continue,
                () = sleep_until(look.min(deadline)) => {}
            }
            if Instant::now() >= deadline {
                return Err(undecided(name));
            }
            look = Instant::now() + LOOK;
            if seen && self.requests.state().borrow().problem.is_none() {
                continue;
            }
            match self.call("read", self.cluster.read_request(name)).await {
                Ok(object) => {
                    if let Some(outcome) = outcome(&object) {
                        return outcome;
                    }
                }
                Err(error) if error.is_not_found() => return Err(gone(name)),
                Err(error) => debug!(name, %error, "could not look at a request"),
            }
        }
    }

    /// Makes one call, when its turn has come, and counts what went wrong.
    async fn call<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        // The semaphore is never closed.
        let _turn = self.calls.acquire().await;
        let answer = call.await;
        if let Err(error) = &answer
            && !error.is_already_exists()
        {
            self.metrics.failed(what, error.class());
        }
        answer
    }

    /// What a failed call means to a volume.
    fn failed(&self, error: &ApiError) -> SignError {
        let (class, hint) = match error.kind() {
            ApiErrorKind::Forbidden => {
                // Our Node may have another UID by now.
                self.doubt.notify_one();
                (error.class(), "; the chart's RBAC and admission policies let the driver do this")
            }
            // It was there a moment ago.
            ApiErrorKind::NotFound => (Class::Unavailable, ""),
            _ => (error.class(), ""),
        };
        let failed = SignError::new(class, format!("{error}{hint}"));
        match error.retry_after() {
            Some(wait) => failed.with_retry_after(wait),
            None => failed,
        }
    }
}

fn undecided(name: &str) -> SignError {
    let message = format!(
        "request {name} has not been signed for {} s: `kubectl get csr {name}` shows it; does the \
         svid-csi controller run?",
        DECISION.as_secs()
    );
    SignError::new(Class::Unavailable, message)
}

fn gone(name: &str) -> SignError {
    let message = format!("request {name} was deleted before it was answered");
    SignError::new(Class::Unavailable, message)
}

#[async_trait]
impl Signer for CsrSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        let node_uid = self.node_uid.borrow().clone()?;
        let name = draft::name(request);
        let waiting = self.waiters.wait(&name, self.metrics.in_flight.clone());
        let object = self.find_or_create(request, &name, &node_uid).await?;
        let ended = match outcome(&object) {
            Some(outcome) => outcome,
            None => self.decided(&name, &waiting).await,
        };
        let waits = ended.as_ref().is_err_and(|error| error.class() == Class::Unavailable);
        // What somebody waits for is not deleted.
        drop(waiting);
        if !waits {
            self.tidy.delete(name, object.uid);
        }
        let Signed { svid, approval } = ended?;
        let policy = approval.as_ref().map(|approval| approval.policy.as_str());
        debug!(volume = %request.volume, policy, "the controller signed");
        Ok(svid)
    }

    fn status(&self) -> SignerStatus {
        let state = self.requests.state();
        let state = state.borrow();
        let ready = match (self.node_uid.borrow().clone(), &state.problem) {
            (Err(error), _) => Err(error),
            (Ok(_), Some(problem)) => Err(SignError::new(
                Class::Unavailable,
                format!("the API server can't be followed: {problem}; volumes keep what they have"),
            )),
            (Ok(_), None) if !state.synced => {
                Err(SignError::new(Class::Unavailable, "the API server has not answered yet"))
            }
            (Ok(_), None) => Ok(()),
        };
        SignerStatus { ready, ca_not_after: None }
    }

    fn is_remote(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
