//! Calls of the controller, at whichever replica answers.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use svid_csi_proto::issuer::v1::issuer_client::IssuerClient;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status};
use tracing::debug;

use super::{
    ControllerAddress, ControllerMetrics, keeper::Keeper, link::Wire, replicas::Replicas, tls::Tls,
    token::DriverToken,
};
use crate::{
    class::Class,
    clock::Clock,
    id::SpiffeId,
    signer::{SignError, told},
    trust::BundleStore,
};

/// How many calls run at once; more wait for their turn.
const CALLS: u32 = 128;
/// How often one call is made, each time on another connection.
const TRIES: usize = 3;
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a call waits for a connection where there is none.
const CONNECTION: Duration = Duration::from_secs(5);
/// How long calls under way may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often the driver's token is looked at while nobody calls.
const TOKEN_LOOK: Duration = Duration::from_secs(30);

/// Where the controller is, and how it and the driver prove who they are.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Its replicas.
    pub address: ControllerAddress,
    /// Its identity.
    pub id: SpiffeId,
    /// The file with the driver's own token.
    pub token_file: PathBuf,
    /// The sole audience of that token.
    pub token_audience: String,
}

/// A client of `svid.issuer.v1`: knows every replica, and calls the one that has the least to do.
pub struct ControllerClient {
    replicas: Arc<Replicas>,
    keeper: Arc<Keeper>,
    token: Arc<DriverToken>,
    calls: Semaphore,
    metrics: ControllerMetrics,
}

/// How one method is called.
pub(super) type Method<Q, A> = fn(IssuerClient<Wire>, Request<Q>) -> Answer<A>;

type Answer<A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

/// What to do about a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The answer stands.
    Nothing,
    /// Another replica may do better.
    Elsewhere,
    /// The replica is gone: another, or the next connection.
    Reconnect,
    /// The driver's token may be outdated.
    OtherToken,
}

// === impl ControllerClient ===

impl ControllerClient {
    /// A client that reaches for nothing before [`ControllerClient::run`].
    pub fn new(
        config: ControllerConfig,
        bundles: Arc<BundleStore>,
        clock: Arc<dyn Clock>,
        metrics: ControllerMetrics,
    ) -> Result<Self, rustls::Error> {
        let ControllerConfig { address, id, token_file, token_audience } = config;
        let tls = Tls::new(id, bundles.clone(), clock.clone())?;
        let (tracker, numbers) = (TaskTracker::new(), AtomicU64::new(0));
        let token = Arc::new(DriverToken::new(token_file, token_audience, clock.clone()));
        Ok(Self {
            replicas: Arc::new(Replicas::new(address, metrics.clone())),
            keeper: Arc::new(Keeper {
                tls,
                token: token.clone(),
                bundles,
                clock,
                tracker,
                numbers,
            }),
            token,
            calls: Semaphore::new(CALLS as usize),
            metrics,
        })
    }

    /// Keeps a connection to each replica until `stop`, and a moment longer for calls under way.
    pub async fn run(&self, stop: CancellationToken) {
        let look_at_token = async {
            loop {
                // What it comes to is told by the status.
                let _ = self.token.bearer().await;
                tokio::time::sleep(TOKEN_LOOK).await;
            }
        };
        let end = async {
            stop.cancelled().await;
            let _ = timeout(FAREWELL, self.calls.acquire_many(CALLS)).await;
        };
        tokio::select! {
            () = self.replicas.run(self.keeper.clone()) => {}
            () = look_at_token => {}
            () = end => {}
        }
    }

    /// Whether a call could be made now; `Err` says why not.
    pub fn ready(&self) -> Result<(), SignError> {
        if let Some(problem) = self.token.problem() {
            return Err(problem);
        }
        match self.replicas.count() {
            (_, 0) => Err(self.unreachable()),
            _ => Ok(()),
        }
    }

    /// Makes one call: at another replica, if one is away or has too much to do. Whoever asks twice
    /// is answered twice, and only one answer is used.
    pub(super) async fn call<Q: Clone, A>(
        &self,
        name: &'static str,
        message: Q,
        method: Method<Q, A>,
    ) -> Result<A, SignError> {
        // The semaphore is never closed.
        let _turn = self.calls.acquire().await;
        let _in_flight = InFlight::new(self.metrics.in_flight().clone());
        let answer = self.call_anyone(message, method).await;
        self.metrics.called(name, &answer);
        answer
    }

    async fn call_anyone<Q: Clone, A>(
        &self,
        message: Q,
        method: Method<Q, A>,
    ) -> Result<A, SignError> {
        let deadline = Instant::now() + CONNECTION;
        let mut tried = Vec::with_capacity(TRIES);
        let mut bearer = self.token.bearer().await?;
        let (mut last, mut next, mut reread) = (None, Next::Reconnect, false);
        while tried.len() < TRIES {
            let picked = match next {
                Next::Reconnect => self.replicas.wait(&tried, deadline).await,
                _ => self.replicas.pick(&tried),
            };
            let Some((address, seat)) = picked else { break };
            if last.is_some() {
                self.metrics.retried();
            }
            let mut request = Request::new(message.clone());
            request.metadata_mut().insert("authorization", bearer.clone());
            request.set_timeout(PATIENCE);
            let answer = timeout(PATIENCE, method(seat.client(), request)).await;
            seat.answered(answer.is_ok());
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => {
                    next = Next::after(&status);
                    debug!(replica = %address, code = ?status.code(), ?next, "a call failed");
                    refused(address, &status)
                }
                Err(_) => {
                    next = Next::Elsewhere;
                    let message = format!(
                        "the controller's replica {address} gave no answer within {PATIENCE:?}"
                    );
                    SignError::new(Class::Unavailable, message)
                }
            };
            match next {
                Next::Nothing => return Err(error),
                // Once: kubelet may have written a new one a moment ago.
                Next::OtherToken if reread || !self.token.changed().await => return Err(error),
                Next::OtherToken => {
                    reread = true;
                    bearer = self.token.bearer().await?;
                }
                Next::Elsewhere | Next::Reconnect => tried.push(seat.number()),
            }
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| self.unreachable()))
    }

    fn unreachable(&self) -> SignError {
        let message = format!(
            "no replica of the controller can be reached ({}): does the svid-csi controller run, \
             with --issuer-listen, and may this node reach it?",
            self.replicas.trouble()
        );
        SignError::new(Class::Unavailable, message)
    }
}

// === impl Next ===

impl Next {
    fn after(status: &Status) -> Self {
        match status.code() {
            // Only what comes from the transport has a cause.
            _ if std::error::Error::source(status).is_some() => Self::Reconnect,
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unknown => Self::Elsewhere,
            Code::Unauthenticated => Self::OtherToken,
            _ => Self::Nothing,
        }
    }
}

/// What a failed call means to a volume.
fn refused(address: SocketAddr, status: &Status) -> SignError {
    let transport = std::error::Error::source(status).is_some();
    let message = told::message(status.message());
    let (class, hint) = match status.code() {
        _ if transport => (Class::Unavailable, "the connection was lost"),
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unknown => (Class::Unavailable, "it can't answer now"),
        Code::Unauthenticated => (Class::NotReady, "it does not take a proof"),
        Code::Unimplemented => (
            Class::NotReady,
            "it does not have this; driver and controller should be of one version",
        ),
        Code::PermissionDenied => (Class::NotReady, "it lets nobody in"),
        _ => (Class::Internal, "it does not understand; both should be of one version"),
    };
    let message = match transport {
        true => format!("the controller's replica {address}: {hint}"),
        false => format!("the controller's replica {address}: {hint}: {message}"),
    };
    let error = SignError::new(class, message);
    match status.code() {
        // Nobody but the controller knows which proof it is; another one of the pod's may do.
        Code::Unauthenticated => error.with_wish_for_token(),
        _ => error,
    }
}

/// Counts for as long as it lives.
struct InFlight(Gauge);

impl InFlight {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
