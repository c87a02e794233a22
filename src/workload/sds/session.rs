//! One stream of secrets, from its first request to its end.

use futures_util::{Stream, stream::unfold};
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::{
    super::{entitlement::Follow, metrics::Metrics},
    Protocol,
    protocol::Rejection,
    secrets::Secrets,
};
use crate::node::Workload;

/// A stream's two directions. What is to be sent is made when it can be sent, and the next request
/// is read after that: whoever reads slowly gets the newest, and makes nothing pile up.
struct Session<P: Protocol> {
    workload: Workload,
    metrics: Metrics,
    follow: Follow,
    requests: Streaming<P::Request>,
    protocol: P,
    rejected: bool,
}

/// What a stream does next.
enum Step<R> {
    Send(R),
    End,
}

/// What the client is to be told, as long as it listens.
pub(super) fn serve<P: Protocol>(
    workload: &Workload,
    metrics: Metrics,
    requests: Streaming<P::Request>,
) -> impl Stream<Item = Result<P::Response, Status>> + Send + use<P> {
    let session = Session {
        follow: Follow::new(workload),
        workload: workload.clone(),
        metrics,
        requests,
        protocol: P::default(),
        rejected: false,
    };
    unfold(Some(session), |session| async {
        let mut session = session?;
        match session.step().await {
            Ok(Step::Send(response)) => Some((Ok(response), Some(session))),
            Ok(Step::End) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
}

// === impl Session ===

impl<P: Protocol> Session<P> {
    async fn step(&mut self) -> Result<Step<P::Response>, Status> {
        loop {
            let secrets = Secrets::of(&self.follow.current())?;
            if let Some(response) = self.protocol.answer(&secrets)? {
                return Ok(Step::Send(response));
            }
            tokio::select! {
                changed = self.follow.changed() => if changed.is_err() {
                    return Err(Status::unavailable("the volume is gone"));
                },
                request = self.requests.message() => {
                    let Some(request) = request? else { return Ok(Step::End) };
                    if let Some(rejection) = self.protocol.take(request)? {
                        self.rejected(&rejection);
                    }
                }
            }
        }
    }

    /// Says the first time in a stream what its client cannot use; what it has, stays.
    fn rejected(&mut self, rejection: &Rejection) {
        self.metrics.rejected_secrets.inc();
        let (volume, reason) = (self.workload.volume(), &*rejection.reason);
        if std::mem::replace(&mut self.rejected, true) {
            debug!(%volume, reason, "an Envoy refused secrets again");
        } else {
            warn!(%volume, reason, "an Envoy refused the secrets that it was sent");
        }
    }
}
