//! Which of several replicas leads: a Lease of `coordination.k8s.io/v1`.
//!
//! It is no fence. Two replicas may for a moment both believe that they lead, as when one was
//! stopped and goes on; what must not happen twice is written by resourceVersion.

mod election;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::election::Terms;
use self::election::{Election, Held, Next};
use super::{ApiError, Cluster, call};
use crate::{clock::Clock, jitter::random};

/// A candidate for a Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    clock: Arc<dyn Clock>,
    election: Election,
    /// The Lease as we last wrote it.
    mine: Option<Lease>,
    leads: watch::Sender<bool>,
    /// Says that somebody else leads once, not with every look.
    told: Option<String>,
}

/// How long it may take to let go.
const RELEASE: Duration = Duration::from_secs(3);

// === impl Candidate ===

impl Candidate {
    /// A candidate, and what tells whether it leads. To `identity` something random is added: a
    /// process that starts again is another candidate, for the one before it may still write.
    pub fn new(
        cluster: &Cluster,
        namespace: &str,
        name: String,
        identity: &str,
        clock: Arc<dyn Clock>,
    ) -> (Self, watch::Receiver<bool>) {
        let (leads, follower) = watch::channel(false);
        let identity = format!("{identity}_{:08x}", (random() * f64::from(u32::MAX)) as u32);
        let election = Election::new(identity, Terms::default());
        let api = cluster.namespaced(namespace);
        (Self { api, name, clock, election, mine: None, leads, told: None }, follower)
    }

    /// Stands for election until `stop`, then lets go of the Lease.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let round = async {
                match timeout(self.election.patience(Instant::now()), self.round()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(lease = self.name, %error, "the Lease"),
                    Err(_) => warn!(lease = self.name, "the API server was slow about the Lease"),
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = round => {}
            }
            self.tell();
            let pause = self.election.pause(Instant::now(), random());
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
            self.tell();
        }
        let led = self.election.leads(Instant::now());
        self.leads.send_replace(false);
        if led && let Err(error) = timeout(RELEASE, self.release()).await.unwrap_or(Ok(())) {
            warn!(lease = self.name, %error, "the Lease was not released; it runs out");
        }
    }

    /// One look and, where it is due, one write.
    async fn round(&mut self) -> Result<(), ApiError> {
        let found = match self.mine.take() {
            Some(mine) => Some(mine),
            None => call("read the Lease", self.api.get_opt(&self.name)).await?,
        };
        let held = found.as_ref().map(held);
        let began = Instant::now();
        let next = self.election.next(held.as_ref(), began);
        if let Some(holder) = held.and_then(|held| held.holder) {
            self.tell_holder(holder);
        }
        let written = match (next, found) {
            (Next::Wait, _) => return Ok(()),
            (Next::Take, None) => {
                let metadata =
                    ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(None)) };
                call("create the Lease", self.api.create(&PostParams::default(), &lease)).await
            }
            (Next::Take | Next::Renew, Some(lease)) => {
                let spec = Some(self.spec(lease.spec.as_ref()));
                self.replace(Lease { spec, ..lease }).await
            }
            (Next::Renew, None) => return Ok(()),
        };
        match written {
            Ok(lease) => {
                self.election.wrote(began);
                self.mine = Some(lease);
                Ok(())
            }
            // Somebody else was quicker; who it was shows with the next look.
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, ApiError> {
        call("write the Lease", self.api.replace(&self.name, &PostParams::default(), &lease)).await
    }

    /// The Lease as it is when we hold it, after what it was before.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Timestamp::try_from(self.clock.now()).ok().map(MicroTime);
        let identity = self.election.identity();
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: Some(self.election.terms().seconds()),
            acquire_time: ours.map_or_else(|| now.clone(), |spec| spec.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(transitions.saturating_add(i32::from(ours.is_none()))),
            ..LeaseSpec::default()
        }
    }

    async fn release(&mut self) -> Result<(), ApiError> {
        let Some(lease) = self.mine.take() else { return Ok(()) };
        let spec = lease.spec.clone().map(|spec| LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            ..spec
        });
        self.replace(Lease { spec, ..lease }).await?;
        info!(lease = self.name, "released the Lease");
        Ok(())
    }

    fn tell(&mut self) {
        let leads = self.election.leads(Instant::now());
        let changed = self.leads.send_if_modified(|told| std::mem::replace(told, leads) != leads);
        if changed && leads {
            info!(lease = self.name, identity = self.election.identity(), "this replica leads");
        } else if changed {
            warn!(lease = self.name, "this replica leads no longer");
        }
    }

    fn tell_holder(&mut self, holder: String) {
        if holder != self.election.identity() && self.told.as_ref() != Some(&holder) {
            info!(lease = self.name, %holder, "another replica leads");
        }
        self.told = Some(holder);
    }
}

/// What counts in a Lease.
fn held(lease: &Lease) -> Held {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Held {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: holder.filter(|holder| !holder.is_empty()),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    }
}
