//! Has SVIDs signed through objects that a controller decides about: CertificateSigningRequests, or
//! cert-manager's CertificateRequests.

mod draft;
mod lifetimes;
mod metrics;
mod objects;
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

pub use self::metrics::{ApiCall, ClassLabel, RequestMetrics};
use self::{
    draft::Terms,
    lifetimes::Lifetimes,
    objects::Objects,
    outcome::{Signed, outcome},
    tidy::Tidy,
    waiters::{Waiters, Waiting},
};
use super::{SignError, SignRequest, Signer, SignerStatus, cert_manager::Issuers, told};
use crate::{
    class::Class,
    k8s::{ApiError, ApiErrorKind, Cache, CertificateRequests, Cluster, OwnRequest},
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
pub struct RequestSigner {
    cluster: Cluster,
    objects: Objects,
    node_name: String,
    /// The UID of this Node, or why it isn't known.
    node_uid: watch::Sender<Result<Arc<str>, SignError>>,
    /// Asks again who we are.
    doubt: Notify,
    requests: Cache<OwnRequest>,
    waiters: Arc<Waiters>,
    lifetimes: Lifetimes,
    tidy: Tidy,
    calls: Semaphore,
    metrics: RequestMetrics,
}

// === impl RequestSigner ===

impl RequestSigner {
    /// A signer for this node by CertificateSigningRequests. It signs once [`RequestSigner::run`] has
    /// reached the API server.
    pub fn csr(cluster: Cluster, node_name: String, metrics: RequestMetrics) -> Self {
        Self::new(cluster.clone(), Objects::Csr(cluster), node_name, metrics)
    }

    /// The same by CertificateRequests in this namespace.
    pub fn cert_manager(
        cluster: Cluster,
        namespace: &str,
        issuers: Issuers,
        node_name: String,
        metrics: RequestMetrics,
    ) -> Self {
        let requests = CertificateRequests::new(&cluster, namespace);
        Self::new(cluster, Objects::CertManager(requests, Box::new(issuers)), node_name, metrics)
    }

    fn new(cluster: Cluster, objects: Objects, node_name: String, metrics: RequestMetrics) -> Self {
        let unknown = SignError::new(Class::Unavailable, "the API server has not answered yet");
        Self {
            cluster,
            objects,
            node_name,
            node_uid: watch::Sender::new(Err(unknown)),
            doubt: Notify::new(),
            requests: Cache::default(),
            waiters: Arc::default(),
            lifetimes: Lifetimes::default(),
            tidy: Tidy::default(),
            calls: Semaphore::new(CALLS),
            metrics,
        }
    }

    /// One request, from its making to its end.
    async fn ask(
        &self,
        request: &SignRequest,
        name: &str,
        node_uid: &str,
    ) -> Result<Signed, SignError> {
        let terms = self.objects.terms(request, self.lifetimes.of(&request.volume))?;
        let waiting = self.waiters.wait(name, self.metrics.in_flight.clone());
        let object = self.find_or_create(request, name, node_uid, &terms).await?;
        let ended = match outcome(&object) {
            Some(outcome) => outcome,
            None => self.decided(name, &waiting).await,
        };
        let waits = ended.as_ref().is_err_and(|error| error.class() == Class::Unavailable);
        // What somebody waits for is not deleted.
        drop(waiting);
        if !waits {
            self.tidy.delete(name.to_owned(), object.uid);
        }
        ended
    }

    /// The request under this name: one that was made before, or a new one.
    async fn find_or_create(
        &self,
        request: &SignRequest,
        name: &str,
        node_uid: &str,
        terms: &Terms,
    ) -> Result<OwnRequest, SignError> {
        let key = self.objects.key(name);
        let mut found = self.requests.get(&key).map(|object| (*object).clone());
        for _ in 0..ROUNDS {
            if let Some(object) = found {
                if self.objects.is_for(&object, request, terms) {
                    debug!(name, "resumes a request");
                    return Ok(object);
                }
                let gone = self.call("delete", self.objects.delete(name, &object.uid));
                gone.await.map_err(|error| self.failed(&error))?;
            }
            let new = draft::draft(request, name, node_uid, terms);
            match self.call("create", self.objects.create(&new)).await {
                Err(error) if error.is_already_exists() => {
                    let object = self.call("read", self.objects.read(name)).await;
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
        let key = self.objects.key(name);
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
                return Err(self.undecided(name));
            }
            look = Instant::now() + LOOK;
            if seen && self.requests.state().borrow().problem.is_none() {
                continue;
            }
            match self.call("read", self.objects.read(name)).await {
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

    fn undecided(&self, name: &str) -> SignError {
        let object = self.requests.get(&self.objects.key(name));
        let waits = object.and_then(|object| Some(told::message(object.waits_for.as_deref()?)));
        let waits = waits.map(|why| format!("; its issuer says: {why}")).unwrap_or_default();
        let message = format!(
            "request {name} has not been signed for {} s: {} shows it; {}{waits}",
            DECISION.as_secs(),
            self.objects.show(name),
            self.objects.signers()
        );
        SignError::new(Class::Unavailable, message)
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

fn gone(name: &str) -> SignError {
    let message = format!("request {name} was deleted before it was answered");
    SignError::new(Class::Unavailable, message)
}

#[async_trait]
impl Signer for RequestSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        let node_uid = self.node_uid.borrow().clone()?;
        let name = draft::name(request);
        let mut ended = self.ask(request, &name, &node_uid).await;
        if let Err(error) = &ended
            && let Some(lifetime) = error.lifetime()
            && self.lifetimes.learn(&request.volume, lifetime)
        {
            // Policy gives another lifetime than was supposed, and nothing else is wrong: once more.
            ended = self.ask(request, &name, &node_uid).await;
        }
        let Signed { svid, approval } = ended?;
        let policy = approval.as_ref().map(|approval| approval.policy.as_str());
        debug!(volume = %request.volume, policy, "the controller signed");
        Ok(svid)
    }

    fn status(&self) -> SignerStatus {
        let state = self.requests.state();
        let state = state.borrow();
        let known = self.node_uid.borrow().clone();
        let known = known.and_then(|uid| self.objects.ready().map(|()| uid));
        let ready = match (known, &state.problem) {
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

    fn has_issuers(&self) -> bool {
        self.objects.has_issuers()
    }
}

#[cfg(test)]
mod tests;
