//! What becomes of each CertificateSigningRequest: decided, and if admitted, decided once more on the
//! very version that is signed.

mod judge;
mod read;
mod step;

use std::sync::Arc;

pub use self::read::read;
use self::{judge::Judge, step::Step};
use super::reconcile::{Ground, Kind, Look, Reconciler, State};
use crate::k8s::{RequestDecisions, RequestFacts};

/// Handles all CertificateSigningRequests for our signer.
pub fn reconciler(ground: Ground, decisions: RequestDecisions) -> Reconciler<RequestFacts> {
    let judge = Arc::new(Judge { ground: ground.clone(), decisions: decisions.clone() });
    let kind = Kind {
        resource: "certificatesigningrequests",
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

fn look(request: &RequestFacts) -> Look<'_> {
    let state = match Step::of(request) {
        Step::Decide => State::New,
        Step::Sign => State::Begun,
        Step::Leave => State::Finished,
    };
    Look { uid: &request.uid, created: request.created, state }
}
