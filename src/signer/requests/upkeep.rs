//! What the signer does all the time: it knows who it is, follows its requests, and deletes
//! those that are done with.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{RequestSigner, standing, tidy::Orphans};
use crate::{
    class::Class,
    jitter::random,
    k8s::{ApiError, Change},
    signer::SignError,
};

/// How often it is asked who we are, once that is known. A Node can be made anew under its name.
const RECHECK: Duration = Duration::from_secs(600);
/// The longest pause before it is asked again after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The shortest pause, whoever doubts.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// How often to look for requests that nobody waits for.
const SWEEP: Duration = Duration::from_secs(60);
/// How many are deleted at once.
const DELETIONS: usize = 8;
/// How long the last deletions may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

// === impl RequestSigner ===

impl RequestSigner {
    /// Keeps the signer going until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_standing() => {}
            () = self.sweep() => {}
            () = self.delete_all() => {}
            () = self.objects.keep_up() => {}
        }
        let farewell = async { while self.delete_some().await {} };
        // The API server's own clean-up has the rest.
        let _ = timeout(FAREWELL, farewell).await;
    }

    /// Asks who we are until it is known, and follows the requests of that Node.
    async fn keep_standing(self: &Arc<Self>) {
        let mut following = JoinSet::new();
        let mut followed: Option<Arc<str>> = None;
        let mut failures = 0;
        loop {
            let pause = match self.ask_who_we_are().await {
                Ok(uid) if followed.as_ref() == Some(&uid) => RECHECK,
                Ok(uid) => {
                    info!(node = self.node_name, node_uid = %uid, "requests are this node's");
                    following.shutdown().await;
                    let waiters = self.waiters.clone();
                    let wake = move |change| match change {
                        Change::Set(name, _) | Change::Gone(name, _) => waiters.wake(&name.name),
                        Change::Complete => {}
                    };
                    following.spawn(self.objects.follow(self.requests.clone(), &uid, wake));
                    followed = Some(uid);
                    failures = 0;
                    RECHECK
                }
                Err(()) => {
                    failures += 1;
                    let longest = SHORTEST_PAUSE * (1 << failures.min(5));
                    longest.min(LONGEST_PAUSE).mul_f64(random())
                }
            };
            sleep(SHORTEST_PAUSE).await;
            tokio::select! {
                () = sleep(pause) => {}
                () = self.doubt.notified() => {}
                Some(_) = following.join_next() => {
                    error!("the watch of requests ended by itself");
                    return;
                }
            }
        }
    }

    /// The UID of this Node, if the API server says it. Silence changes nothing.
    async fn ask_who_we_are(&self) -> Result<Arc<str>, ()> {
        let told = match self.call("whoami", self.cluster.who_am_i()).await {
            Ok(me) => standing::node_uid(&me, &self.node_name),
            Err(error) if self.node_uid.borrow().is_ok() => {
                debug!(%error, "could not ask who we are");
                return Err(());
            }
            Err(error) => Err(unknown(&error)),
        };
        self.node_uid.send_if_modified(|known| {
            let news = match (&*known, &told) {
                (Ok(known), Ok(told)) => known != told,
                (Err(known), Err(told)) => known.to_string() != told.to_string(),
                _ => true,
            };
            if news {
                if let Err(error) = &told {
                    warn!(%error, "nothing can be signed until this is mended");
                }
                known.clone_from(&told);
            }
            news
        });
        told.map_err(|_error| ())
    }

    /// Deletes what a process before us left, or a volume that is gone.
    async fn sweep(&self) {
        let mut orphans = Orphans::default();
        let mut tick = interval(SWEEP);
        loop {
            tick.tick().await;
            let all = self.requests.all().into_iter().map(|request| request.name.clone());
            let unattended = all.filter(|name| !self.waiters.has(name)).collect();
            for name in orphans.look(unattended, Instant::now()) {
                if let Some(request) = self.requests.get(&self.objects.key(&name)) {
                    self.tidy.delete(name, request.uid.clone());
                }
            }
        }
    }

    async fn delete_all(self: &Arc<Self>) {
        loop {
            while self.delete_some().await {}
            self.tidy.more().await;
        }
    }

    /// Deletes a few; false if there were none.
    async fn delete_some(self: &Arc<Self>) -> bool {
        let names = self.tidy.take(DELETIONS);
        let some = !names.is_empty();
        let mut calls = JoinSet::new();
        // A retry may have taken its request up again; it is deleted once that is answered.
        for (name, uid) in names.into_iter().filter(|(name, _)| !self.waiters.has(name)) {
            let signer = self.clone();
            calls.spawn(async move { (signer.objects.delete(&name, &uid).await, name) });
        }
        while let Some(done) = calls.join_next().await {
            if let Ok((Err(error), name)) = done {
                self.metrics.failed("delete", error.class());
                debug!(name, %error, "a request that is done with stays for now");
            }
        }
        some
    }
}

fn unknown(error: &ApiError) -> SignError {
    let class = match error.class() {
        // Whoever may not ask who he is has the wrong token, for now or for good.
        Class::NotReady => Class::NotReady,
        _ => Class::Unavailable,
    };
    SignError::new(class, error.to_string())
}
