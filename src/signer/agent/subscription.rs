//! What one volume's pod is given, followed for as long as the volume is there.

use std::{sync::Arc, time::Duration};

use svid_csi_proto::spire::api::agent::delegatedidentity::v1::{
    SubscribeToX509sviDsRequest, SubscribeToX509sviDsResponse,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, info};

use super::{Agent, denied, read, retry::Retry, selectors, silence};
use crate::{
    class::Class,
    jitter::random,
    signer::{Given, SignError},
    volume::{PodInfo, VolumeId},
};

/// How long the first answer may take. An agent that has no certificate for an entry yet waits for
/// its server and says nothing.
const FIRST: Duration = Duration::from_secs(30);
/// How long a pod without an entry is not yet denied: an entry that was made for it, or that an
/// agent has not read again since its start, comes with the agent's next look at its server, 5 s
/// apart.
const GRACE: Duration = Duration::from_secs(10);

/// Follows one pod's SVIDs, whatever becomes of the agent.
pub(super) struct Subscription {
    pub(super) agent: Arc<Agent>,
    pub(super) volume: VolumeId,
    pub(super) pod: PodInfo,
    pub(super) given: watch::Sender<Given>,
}

type Stream = Streaming<SubscribeToX509sviDsResponse>;

// === impl Subscription ===

impl Subscription {
    /// Runs until `end`.
    pub(super) async fn run(self, end: CancellationToken) {
        self.agent.metrics.subscriptions.inc();
        tokio::select! {
            () = end.cancelled() => {}
            () = self.follow() => {}
        }
        self.agent.metrics.subscriptions.dec();
    }

    async fn follow(&self) {
        let mut retry = Retry::default();
        loop {
            let status = self.listen(&mut retry).await;
            let error = self.agent.failed("svids", &status);
            debug!(volume = %self.volume, %error, "the subscription ended; it begins again");
            self.lost(error);
            sleep(retry.failed(random())).await;
        }
    }

    /// Takes what comes until the stream ends; why it did.
    async fn listen(&self, retry: &mut Retry) -> Status {
        let (mut stream, mut next) = match self.open().await {
            Ok(opened) => opened,
            Err(status) => return status,
        };
        let grace = Instant::now() + GRACE;
        retry.succeeded();
        loop {
            let Some(response) = next else { return Status::unavailable("it ended the stream") };
            let nothing = self.take(response);
            let message = async { stream.message().await };
            let answer = tokio::select! {
                answer = message => answer,
                () = sleep_until(grace), if nothing => {
                    self.give(Err(denied(&self.pod)));
                    stream.message().await
                }
            };
            next = match answer {
                Ok(next) => next,
                Err(status) => return status,
            };
        }
    }

    /// The stream and its first message, when its turn has come.
    async fn open(&self) -> Result<(Stream, Option<SubscribeToX509sviDsResponse>), Status> {
        // The semaphore is never closed.
        let _turn = self.agent.openings.acquire().await;
        let mut client = self.agent.client.clone();
        let request = SubscribeToX509sviDsRequest { selectors: selectors(&self.pod) };
        let open = async {
            let mut stream = client.subscribe_to_x509svi_ds(request).await?.into_inner();
            let first = stream.message().await?;
            Ok((stream, first))
        };
        timeout(FIRST, open).await.unwrap_or_else(|_| Err(silence(FIRST)))
    }
    /// Takes a message; whether the pod is given nothing by it.
    fn take(&self, response: SubscribeToX509sviDsResponse) -> bool {
        match read::handed_out(response) {
            Ok(Some(handed_out)) => self.give(Ok(Arc::new(handed_out))),
            Ok(None) => return true,
            Err(error) => self.lost(error),
        }
        false
    }

    fn give(&self, next: Given) {
        let news = self.given.send_if_modified(|given| {
            let news = match (&next, &given) {
                (Ok(next), Ok(given)) => next != given,
                // Once is enough: what the volume does about it, it repeats by itself.
                (Err(next), Err(given)) => next.class() != given.class(),
                _ => true,
            };
            if news {
                *given = next.clone();
            }
            news
        });
        if news && next.is_ok() {
            self.agent.metrics.pushes.inc();
        }
        if news && let Err(error) = next {
            info!(volume = %self.volume, %error, "the SPIRE agent gives the pod nothing");
        }
    }

    /// Nothing is known: what was given last stands, and so does a denial.
    fn lost(&self, error: SignError) {
        self.given.send_if_modified(|given| {
            let stands =
                given.as_ref().map_or_else(|error| error.class() == Class::Denied, |_| true);
            if !stands {
                *given = Err(error);
            }
            !stands
        });
    }
}
