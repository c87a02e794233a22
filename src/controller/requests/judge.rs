//! One request, from where it is to its end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::{debug, error, info, warn};

use super::{age, read, step::Step};
use crate::{
    clock::Clock,
    controller::{
        approver::{Decision, Denial, Grant, decide},
        audit::{Audit, Entry, Outcome},
        ca::{Keyring, NotReady},
        metrics::Metrics,
        world::{Judgement, World},
    },
    k8s::{
        ApiError, PodFacts, RequestDecisions, RequestFacts,
        names::{APPROVED_REASON, annotation, extra},
    },
    pki::{Csr, IssueError, X509Svid},
};

/// What one request is handled with.
pub(super) struct Judge {
    pub(super) world: Arc<World>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) audit: Arc<Audit>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) decisions: RequestDecisions,
    pub(super) clock: Arc<dyn Clock>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handled {
    /// It has its certificate or its refusal.
    Finished,
    /// There is another version of it, which the watch will tell, or it is gone.
    Outdated,
    /// Not now; after this wait, where one was named.
    Again(Option<Duration>),
}

/// Why a request could not be handled.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("nothing can be signed: {0}")]
    NotReady(#[from] NotReady),
    #[error("cannot sign: {0}")]
    Issue(#[from] IssueError),
    #[error("cannot write the audit line: {0}; nothing is decided without it")]
    Audit(#[from] std::io::Error),
}

// === impl Judge ===

impl Judge {
    /// Does what this version of a request needs. Each decision is written down before it leaves, so
    /// that there is none without its line.
    pub(super) async fn handle(&self, request: &RequestFacts) -> Handled {
        let result = match Step::of(request) {
            Step::Leave => Ok(()),
            Step::Decide => self.decide(request).await,
            Step::Sign => self.sign(request).await,
        };
        match result {
            Ok(()) => Handled::Finished,
            Err(obstacle) => self.explain(&request.name, &obstacle),
        }
    }

    fn explain(&self, request: &str, obstacle: &Obstacle) -> Handled {
        match obstacle {
            // Another replica was quicker, or somebody changed it: start over with what there is.
            Obstacle::Api(error) if error.is_conflict() || error.is_not_found() => {
                debug!(request, %error, "the request has changed");
                Handled::Outdated
            }
            Obstacle::Api(error) => {
                self.metrics.api_failed(error);
                warn!(request, %error, "the request waits");
                Handled::Again(error.retry_after())
            }
            Obstacle::NotReady(reason) => {
                debug!(request, %reason, "the request waits");
                Handled::Again(None)
            }
            Obstacle::Issue(error) => {
                error!(request, %error, "the request waits");
                Handled::Again(None)
            }
            Obstacle::Audit(error) => {
                self.metrics.audit_failures.inc();
                error!(request, %error, "the audit stream");
                Handled::Again(None)
            }
        }
    }

    async fn judge(&self, request: &RequestFacts) -> Result<Judgement<Grant>, ApiError> {
        self.world.judge(&read(request, self.world.settings()), decide).await
    }

    async fn decide(&self, request: &RequestFacts) -> Result<(), Obstacle> {
        let Judgement { decision, pod } = self.judge(request).await?;
        match decision {
            Decision::Approve(grant) => {
                // Nothing is approved that another replica may be able to sign and this is not.
                self.keyring.signing(self.clock.now())?;
                self.audit.record(&granted(Outcome::Approve, request, &grant, pod.as_deref()))?;
                let message = grant.message().to_json();
                let approved = self.decisions.approve(request, APPROVED_REASON, &message).await?;
                self.metrics.decided(Outcome::Approve, APPROVED_REASON);
                self.sign(&approved).await
            }
            Decision::Deny(denial) => {
                self.refuse(Outcome::Deny, request, &denial, pod.as_deref()).await
            }
        }
    }

    /// Decides once more, on the version that is signed: annotations may have changed since, and
    /// others may approve.
    async fn sign(&self, request: &RequestFacts) -> Result<(), Obstacle> {
        let Judgement { decision, pod } = self.judge(request).await?;
        let grant = match decision {
            Decision::Approve(grant) => grant,
            Decision::Deny(denial) => {
                return self.refuse(Outcome::Fail, request, &denial, pod.as_deref()).await;
            }
        };
        let now = self.clock.now();
        let authority = self.keyring.signing(now)?;
        let svid =
            authority.issue(&grant.public_key, &grant.id, &grant.dns_names, grant.ttl, now)?;
        let entry = Entry {
            serial: svid.serial_hex(),
            ca_key_id: authority.key_id(),
            ttl_seconds: lifetime(&svid, now),
            ..granted(Outcome::Sign, request, &grant, pod.as_deref())
        };
        self.audit.record(&entry)?;
        self.decisions.certify(request, svid.chain_pem()).await?;
        self.metrics.decided(Outcome::Sign, APPROVED_REASON);
        let took = age(request, self.clock.now());
        self.metrics.issuance_seconds.observe(took.as_secs_f64());
        info!(
            request = request.name, id = %grant.id, serial = svid.serial_hex(),
            took_ms = took.as_millis() as u64, "signed"
        );
        Ok(())
    }

    async fn refuse(
        &self,
        outcome: Outcome,
        request: &RequestFacts,
        denial: &Denial,
        pod: Option<&PodFacts>,
    ) -> Result<(), Obstacle> {
        let (reason, message) = (denial.reason.as_str(), denial.condition_message());
        let asked = asked_for(request);
        self.audit.record(&Entry {
            message: &denial.message,
            spiffe_id: asked.as_deref().unwrap_or_default(),
            ..entry(outcome, reason, request, pod)
        })?;
        match outcome {
            Outcome::Fail => self.decisions.fail(request, reason, &message).await?,
            _ => self.decisions.deny(request, reason, &message).await?,
        };
        self.metrics.decided(outcome, reason);
        info!(request = request.name, reason, why = denial.message, "refused");
        Ok(())
    }
}

fn granted<'a>(
    outcome: Outcome,
    request: &'a RequestFacts,
    grant: &'a Grant,
    pod: Option<&'a PodFacts>,
) -> Entry<'a> {
    Entry {
        spiffe_id: grant.id.as_str(),
        policy: &grant.policy,
        ttl_seconds: Some(grant.ttl.as_secs()),
        dns_names: &grant.dns_names,
        key_algorithm: grant.public_key.algorithm().map_or("", |algorithm| algorithm.as_str()),
        ..entry(outcome, APPROVED_REASON, request, pod)
    }
}

fn entry<'a>(
    decision: Outcome,
    reason: &'a str,
    request: &'a RequestFacts,
    pod: Option<&'a PodFacts>,
) -> Entry<'a> {
    let said = |key: &str| request.annotations.get(key).map_or("", String::as_str);
    Entry {
        decision,
        reason,
        message: "",
        request: &request.name,
        request_uid: &request.uid,
        requester: &request.username,
        node: request.extra(extra::NODE_NAME).unwrap_or_default(),
        node_uid: request.extra(extra::NODE_UID).unwrap_or_default(),
        driver_pod: request.extra(extra::POD_NAME).unwrap_or_default(),
        pod_namespace: said(annotation::POD_NAMESPACE),
        pod: said(annotation::POD_NAME),
        pod_uid: said(annotation::POD_UID),
        service_account: pod.map_or("", PodFacts::service_account),
        spiffe_id: "",
        policy: "",
        ttl_seconds: None,
        dns_names: &[],
        key_algorithm: "",
        serial: "",
        ca_key_id: "",
    }
}

/// The ID that a refused request asked for, if it is one.
fn asked_for(request: &RequestFacts) -> Option<String> {
    let pem = std::str::from_utf8(&request.request).ok()?;
    Some(Csr::from_pem(pem).ok()?.id().as_str().to_owned())
}

/// What is left of a certificate's life when it leaves.
fn lifetime(svid: &X509Svid, now: SystemTime) -> Option<u64> {
    // Certificates end on whole seconds, and began on one.
    svid.not_after().duration_since(now).ok().map(|left| left.as_secs_f64().ceil() as u64)
}
