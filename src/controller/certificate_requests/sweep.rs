//! CertificateRequests that nobody deletes: Kubernetes clears up CertificateSigningRequests by itself,
//! and these are left when their node is gone.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use super::look;
use crate::{
    controller::reconcile::{Ground, Reconciler},
    k8s::{CertificateRequestDecisions, CertificateRequestFacts},
};

/// As long as the API server keeps a CertificateSigningRequest that is done with.
const OLD: Duration = Duration::from_secs(3600);
const ROUND: Duration = Duration::from_secs(300);
/// How many are deleted in one round.
const MOST: usize = 200;

/// Deletes what is old, for ever, while this replica leads.
pub async fn sweep(
    requests: &Reconciler<CertificateRequestFacts>,
    decisions: &CertificateRequestDecisions,
    ground: &Ground,
) {
    loop {
        sleep(ROUND).await;
        if !*ground.leads.borrow() {
            continue;
        }
        let now = ground.issuance.clock.now();
        let all = requests.cache().all();
        let old: Vec<_> = all.iter().filter(|request| look(request).age(now) > OLD).collect();
        for request in old.iter().take(MOST) {
            if let Err(error) = decisions.delete(request).await {
                debug!(request = request.name, %error, "an old CertificateRequest stays for now");
            }
        }
        if !old.is_empty() {
            info!(count = old.len(), "CertificateRequests that nobody deleted");
        }
    }
}
