//! The controller as a signer of PodCertificateRequests (KEP-4317): a plain `podCertificate` volume
//! gets the identity that policy gives its pod.

mod judge;
mod read;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::judge::Judge;
pub use self::read::read;
use super::{
    metrics::ConditionLabel,
    reconcile::{Ground, Kind, Look, Reconciler, State},
};
use crate::k8s::{Cluster, Fence, PodCertificateFacts, PodCertificates, Served};

/// Signs all PodCertificateRequests for one signer name, while the fence stands that says who asks.
pub struct PodCertificateSigner {
    ground: Ground,
    requests: PodCertificates,
    fence: Fence,
    reconciler: Reconciler<PodCertificateFacts>,
}

/// How soon it is said that the fence fell or stands.
const LOOK: Duration = Duration::from_secs(5);

// === impl PodCertificateSigner ===

impl PodCertificateSigner {
    /// For this signer name, with the fence of this name.
    pub fn new(ground: Ground, cluster: &Cluster, signer: &str, fence: &str) -> Self {
        let requests = PodCertificates::new(cluster, signer);
        let fence = Fence::new(cluster, fence, signer);
        let judge =
            Judge { ground: ground.clone(), requests: requests.clone(), fence: fence.clone() };
        let reconciler = Reconciler::new(kind(Arc::new(judge)), ground.clone());
        Self { ground, requests, fence, reconciler }
    }

    /// Works until `stop`, then finishes what is under way. Where the API server has no such requests
    /// it waits until it has.
    pub async fn run(&self, stop: CancellationToken) {
        let mut watching = JoinSet::new();
        for (_what, follow) in self.fence.follow() {
            watching.spawn(follow);
        }
        tokio::select! {
            () = self.reconciler.run(stop) => {}
            () = self.watch_fence() => {}
        }
    }

    /// Says when the fence falls and when it stands; never ends.
    async fn watch_fence(&self) {
        let mut stood = None;
        loop {
            sleep(LOOK).await;
            let stands = self.fence.stands_since().map(drop);
            if stood.replace(stands.is_ok()) == Some(stands.is_ok()) {
                continue;
            }
            match stands {
                Ok(()) => info!("the fence around podcertificaterequests stands"),
                Err(problem) => warn!(
                    problem,
                    "no podcertificaterequests are signed: nobody keeps others than kubelets from asking"
                ),
            }
        }
    }

    /// Whether the loop still turns.
    pub fn alive(&self) -> Result<(), String> {
        self.reconciler.alive()
    }

    /// Brings the gauges up to date.
    pub fn refresh_metrics(&self, now: SystemTime) {
        self.reconciler.refresh_metrics(now);
        let conditions = &self.ground.issuance.metrics.pod_certificates;
        let show = |condition, is: bool| {
            conditions.get_or_create(&ConditionLabel(condition)).set(is.into());
        };
        show("served", matches!(self.requests.served(), Served::In(_)));
        show("fenced", self.fence.stands_since().is_ok());
    }
}

fn kind(judge: Arc<Judge>) -> Kind<PodCertificateFacts> {
    let requests = judge.requests.clone();
    Kind {
        resource: "podcertificaterequests",
        look,
        follow: Box::new(move |cache, changes| {
            Box::pin(requests.follow(cache, move |change| drop(changes.send(change))))
        }),
        handle: Box::new(move |request| {
            let judge = judge.clone();
            Box::pin(async move { judge.handle(&request).await })
        }),
    }
}

fn look(request: &PodCertificateFacts) -> Look<'_> {
    let state = match request.finished {
        true => State::Finished,
        false => State::New,
    };
    Look { uid: &request.uid, created: request.created, state }
}
