//! What becomes of each of cert-manager's CertificateRequests in our namespace: approved or denied by
//! the same checks as any other request, and signed by cert-manager.

mod fence;
mod judge;
mod read;
mod sweep;

use std::sync::Arc;

use self::judge::Judge;
pub use self::{fence::Fence, read::read, sweep::sweep};
use super::reconcile::{Ground, Kind, Look, Reconciler, State};
use crate::{
    k8s::{CertificateRequestDecisions, CertificateRequestFacts},
    signer::cert_manager::Issuers,
};

/// Handles all CertificateRequests of the namespace.
pub fn reconciler(
    ground: Ground,
    decisions: CertificateRequestDecisions,
    issuers: Arc<Issuers>,
    fence: Arc<Fence>,
) -> Reconciler<CertificateRequestFacts> {
    let judge = Judge { ground: ground.clone(), decisions: decisions.clone(), issuers, fence };
    let judge = Arc::new(judge);
    let kind = Kind {
        resource: "certificaterequests",
        look,
        follow: Box::new(move |cache, changes| {
            Box::pin(decisions.follow(cache, move |change| drop(changes.send(change))))
        }),
        handle: Box::new(move |request| {
            let judge = judge.clone();
            Box::pin(async move { judge.handle(&request).await })
        }),
    };
    Reconciler::new(kind, ground)
}

fn look(request: &CertificateRequestFacts) -> Look<'_> {
    let state = match request.is_decided() {
        true => State::Finished,
        false => State::New,
    };
    Look { uid: &request.uid, created: request.created, state }
}

#[cfg(test)]
mod tests;
