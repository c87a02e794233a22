//! Certificates and keys from a SPIRE agent on this node, by its Delegated Identity API: for each
//! volume those of the pod that kubelet named. Who may be given what is SPIRE's to decide.

mod bundles;
mod channel;
mod metrics;
mod read;
mod retry;
mod subscription;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use svid_csi_proto::spire::api::{
    agent::delegatedidentity::v1::FetchJwtsviDsRequest, types::Selector,
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;
use zeroize::Zeroizing;

pub use self::{
    bundles::AgentBundles,
    metrics::{AgentCall, AgentMetrics},
};
use self::{channel::Client, subscription::Subscription};
use super::{Handout, JwtRequest, SignError, SignRequest, Signer, SignerStatus};
use crate::{
    class::Class,
    id::TrustDomain,
    jose::JwtSvid,
    pki::X509Svid,
    trust::BundleStore,
    volume::{PodInfo, VolumeId},
};

/// How many volumes begin to be followed at once.
const OPENINGS: usize = 32;
/// How long a JWT-SVID may take: the agent may have to ask its server.
const JWT: Duration = Duration::from_secs(15);

/// Has everything from a SPIRE agent. Holds no CA and no key but those it is handed.
pub struct AgentSigner {
    agent: Arc<Agent>,
    /// The volumes' subscriptions.
    tasks: TaskTracker,
    ending: CancellationToken,
}

/// The agent, as every part of the signer reaches it.
struct Agent {
    client: Client,
    socket: PathBuf,
    metrics: AgentMetrics,
    /// Whether it answers: `Err` says why not.
    standing: Mutex<Result<(), SignError>>,
    openings: Semaphore,
}

// === impl AgentSigner ===

impl AgentSigner {
    /// A signer that reaches the agent at this admin socket, and what follows its bundles. Call it
    /// inside a tokio runtime. Nothing is asked for yet.
    pub fn new(
        socket: PathBuf,
        trust_domain: TrustDomain,
        store: Arc<BundleStore>,
        clock: Arc<dyn crate::clock::Clock>,
        metrics: AgentMetrics,
    ) -> (Self, AgentBundles) {
        let agent = Arc::new(Agent {
            client: channel::client(socket.clone()),
            socket,
            metrics,
            standing: Mutex::new(Err(unanswered())),
            openings: Semaphore::new(OPENINGS),
        });
        let bundles = AgentBundles::new(agent.clone(), trust_domain, store, clock);
        let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
        (Self { agent, tasks, ending }, bundles)
    }

    /// Ends every subscription. What the volumes have stays.
    pub async fn end(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[async_trait]
impl Signer for AgentSigner {
    async fn sign(&self, _request: &SignRequest) -> Result<X509Svid, SignError> {
        let message = "a SPIRE agent hands out certificates with their keys and signs no other";
        Err(SignError::new(Class::Internal, message))
    }

    fn hand_out(&self, volume: &VolumeId, pod: &PodInfo) -> Option<Handout> {
        let end = self.ending.child_token();
        let given = watch::Sender::new(Err(unanswered()));
        let handout = Handout::new(given.subscribe(), end.clone());
        let (agent, volume, pod) = (self.agent.clone(), volume.clone(), pod.clone());
        self.tasks.spawn(Subscription { agent, volume, pod, given }.run(end));
        Some(handout)
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: self.agent.standing(), ca_not_after: None }
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, SignError> {
        let (audience, selectors) = (request.audience.clone(), selectors(&request.pod));
        let mut client = self.agent.client.clone();
        let call = client.fetch_jwtsvi_ds(FetchJwtsviDsRequest { audience, selectors });
        let answer = timeout(JWT, call).await.unwrap_or_else(|_| Err(silence(JWT)));
        // The same code says that the driver is no delegate; a stream of its own tells that.
        let answer = answer.map_err(|status| match status.message() {
            NO_IDENTITY if self.agent.standing().is_ok() => denied(&request.pod),
            _ => self.agent.failed("jwt", &status),
        })?;
        let tokens = answer.into_inner().svids.into_iter().map(|svid| Zeroizing::new(svid.token));
        let mut parsed = tokens.filter_map(|token| JwtSvid::parse(&token).ok());
        parsed.find(|svid| *svid.id() == request.id).ok_or_else(|| {
            let message = format!("SPIRE gives this pod no JWT-SVID of {}", request.id);
            SignError::new(Class::Denied, message)
        })
    }

    fn signs_jwt(&self) -> Result<(), SignError> {
        Ok(())
    }
}

/// What SPIRE says where no registration entry matches.
const NO_IDENTITY: &str = "no identity issued";

/// What the agent would find out about the pod itself, as far as kubelet tells it.
fn selectors(pod: &PodInfo) -> Vec<Selector> {
    let selector = |value: String| Selector { r#type: "k8s".to_owned(), value };
    vec![
        selector(format!("ns:{}", pod.namespace)),
        selector(format!("sa:{}", pod.service_account)),
        selector(format!("pod-uid:{}", pod.uid)),
    ]
}

fn denied(pod: &PodInfo) -> SignError {
    let PodInfo { namespace, service_account, uid, .. } = pod;
    let message = format!(
        "SPIRE has no registration entry on this node for a pod with the selectors \
         k8s:ns:{namespace}, k8s:sa:{service_account} and k8s:pod-uid:{uid}: entries with other \
         selectors, and those of another agent, don't count"
    );
    SignError::new(Class::Denied, message)
}

fn unanswered() -> SignError {
    SignError::new(Class::Unavailable, "the SPIRE agent has not answered yet")
}

/// An agent that says nothing.
fn silence(after: Duration) -> Status {
    Status::deadline_exceeded(format!("it has not answered for {} s", after.as_secs()))
}

// === impl Agent ===

impl Agent {
    fn standing(&self) -> Result<(), SignError> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stands(&self, standing: Result<(), SignError>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Counts a failed call; what it means.
    fn failed(&self, call: &'static str, status: &Status) -> SignError {
        let error = channel::failed(&self.socket, status);
        self.metrics.failed(call, error.class());
        error
    }
}
