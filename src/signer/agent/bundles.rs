//! Every trust domain's bundle, as the agent has it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use svid_csi_proto::spire::api::agent::delegatedidentity::v1::{
    SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, Streaming};
use tracing::{info, warn};

use super::{
    Agent,
    read::{self, JwtBundles, X509Bundles},
    retry::Retry,
    silence,
};
use crate::{
    clock::Clock,
    id::TrustDomain,
    jitter::random,
    signer::SignError,
    trust::{BundleSource, BundleStore, TrustBundles},
};

/// How long the first answer may take: the agent has its bundles before it answers at all.
const FIRST: Duration = Duration::from_secs(10);

/// Follows the agent's bundles: the own trust domain's and those that it federates with.
pub struct AgentBundles {
    agent: Arc<Agent>,
    trust_domain: TrustDomain,
    store: Arc<BundleStore>,
    clock: Arc<dyn Clock>,
    halves: Mutex<Halves>,
    refused: AtomicU64,
}

/// X.509 and JWT authorities come apart. Nothing is published before both are there: a bundle
/// without its JWT keys would take them away from every volume (invariant 6).
#[derive(Default)]
struct Halves {
    x509: Option<X509Bundles>,
    jwt: Option<JwtBundles>,
    /// What was last wrong.
    problem: Option<String>,
}

// === impl AgentBundles ===

impl AgentBundles {
    pub(super) fn new(
        agent: Arc<Agent>,
        trust_domain: TrustDomain,
        store: Arc<BundleStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (halves, refused) = (Mutex::default(), AtomicU64::new(0));
        Self { agent, trust_domain, store, clock, halves, refused }
    }

    async fn follow_x509(&self) {
        let mut retry = Retry::default();
        loop {
            let mut client = self.agent.client.clone();
            let stream = client.subscribe_to_x509_bundles(SubscribeToX509BundlesRequest {});
            let status = self
                .listen(stream, &mut retry, |message| {
                    let read = read::x509_bundles(message.ca_certificates, &self.trust_domain);
                    self.agent.stands(read.as_ref().map(drop).map_err(Clone::clone));
                    self.take(read, |halves, bundles| halves.x509 = Some(bundles));
                })
                .await;
            let error = self.agent.failed("x509_bundles", &status);
            if self.agent.standing().is_ok() {
                warn!(%error, "the SPIRE agent is gone; every volume keeps what it has");
            }
            self.agent.stands(Err(error));
            sleep(retry.failed(random())).await;
        }
    }

    async fn follow_jwt(&self) {
        let mut retry = Retry::default();
        loop {
            let mut client = self.agent.client.clone();
            let stream = client.subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest {});
            let status = self
                .listen(stream, &mut retry, |message| {
                    let read = read::jwt_bundles(message.bundles);
                    self.take(read, |halves, bundles| halves.jwt = Some(bundles));
                })
                .await;
            if status.code() == Code::Unimplemented && self.agent.standing().is_ok() {
                // An agent without JWT keys has none to be taken away.
                self.take(Ok(JwtBundles::new()), |halves, bundles| halves.jwt = Some(bundles));
            }
            self.agent.failed("jwt_bundles", &status);
            sleep(retry.failed(random())).await;
        }
    }

    /// Takes what comes until the stream ends; why it did.
    async fn listen<T>(
        &self,
        stream: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
        retry: &mut Retry,
        take: impl Fn(T),
    ) -> Status {
        let open = async {
            let mut stream = stream.await?.into_inner();
            let first = stream.message().await?;
            Ok((stream, first))
        };
        let opened = timeout(FIRST, open).await.unwrap_or_else(|_| Err(silence(FIRST)));
        let (mut stream, mut next) = match opened {
            Ok(opened) => opened,
            Err(status) => return status,
        };
        loop {
            let Some(message) = next else { return Status::unavailable("it ended the stream") };
            take(message);
            retry.succeeded();
            next = match stream.message().await {
                Ok(next) => next,
                Err(status) => return status,
            };
        }
    }

    /// Takes one half and publishes both, if both are there. The last good half stands otherwise.
    fn take<T>(&self, read: Result<T, SignError>, put: impl FnOnce(&mut Halves, T)) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(half) => put(&mut halves, half),
            Err(error) => {
                let problem = Some(error.to_string());
                if halves.problem != problem {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    warn!(%error, "the SPIRE agent's bundles can't be used; the last good ones stand");
                    halves.problem = problem;
                }
                return;
            }
        }
        if halves.problem.take().is_some() {
            info!("the SPIRE agent's bundles are good again");
        }
        if let Some(bundles) = self.whole(&halves) {
            let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.store.publish_all(bundles, now.as_secs());
        }
    }

    fn whole(&self, halves: &Halves) -> Option<TrustBundles> {
        let (x509, jwt) = (halves.x509.as_ref()?, halves.jwt.as_ref()?);
        let mut all: BTreeMap<_, _> = x509
            .iter()
            .map(|(domain, bundle)| {
                let keys = jwt.get(domain).cloned().unwrap_or_default();
                (domain.clone(), bundle.clone().with_jwt_authorities(keys))
            })
            .collect();
        let own = all.remove(&self.trust_domain)?;
        Some(TrustBundles { own, federated: all })
    }
}

#[async_trait]
impl BundleSource for AgentBundles {
    async fn follow(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_x509() => {}
            () = self.follow_jwt() => {}
        }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
