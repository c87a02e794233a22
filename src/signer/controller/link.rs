//! One connection to one replica.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, Connection, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use svid_csi_proto::issuer::v1::issuer_client::IssuerClient;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Code, Request as Call,
    body::Body,
    metadata::{Ascii, MetadataValue},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::Service;

use crate::{pki::X509Svid, signer::told};

/// How often a quiet connection is asked whether it is still there, and how long it may take to say.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(5);
/// A chain of certificates has a few kilobytes, a JWT-SVID 16 at most.
const MAX_ANSWER: usize = 128 << 10;
const MAX_HEADERS: u32 = 16 << 10;
/// TLS has told who it is; HTTP wants a name.
const ORIGIN: &str = "https://svid-csi-controller";

/// An open connection.
#[derive(Debug)]
pub(super) struct Link {
    /// No two have the same.
    number: u64,
    wire: Wire,
    svid: X509Svid,
    in_flight: AtomicUsize,
    /// A call got no answer in time, and none has since.
    silent: AtomicBool,
    cut: CancellationToken,
}

/// What requests go through.
#[derive(Clone, Debug)]
pub(super) struct Wire(SendRequest<Body>);

/// A call's place on a link.
pub(super) struct Seat(Arc<Link>);

/// What drives a connection; it ends with it.
pub(super) type Driver = Connection<TokioIo<TlsStream<TcpStream>>, Body, Tasks>;

/// Runs what belongs to a connection until it is cut.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

// === impl Link ===

impl Link {
    pub(super) async fn open(
        number: u64,
        stream: TlsStream<TcpStream>,
        svid: X509Svid,
        tracker: TaskTracker,
    ) -> hyper::Result<(Arc<Self>, Driver)> {
        let cut = CancellationToken::new();
        let (sender, driver) = http2::Builder::new(Tasks { tracker, cut: cut.clone() })
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
            .keep_alive_while_idle(true)
            .max_header_list_size(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await?;
        let (in_flight, silent) = (AtomicUsize::new(0), AtomicBool::new(false));
        let link = Self { number, wire: Wire(sender), svid, in_flight, silent, cut };
        Ok((Arc::new(link), driver))
    }

    /// Shows the driver's token, so that the replica keeps a connection on which nothing is asked
    /// yet, and so that it is known whether it takes the token; `Err` says why not.
    pub(super) async fn introduce(&self, bearer: MetadataValue<Ascii>) -> Result<(), String> {
        let mut call = Call::new(HealthCheckRequest::default());
        call.metadata_mut().insert("authorization", bearer);
        let mut client = HealthClient::with_origin(self.wire.clone(), Uri::from_static(ORIGIN))
            .max_decoding_message_size(MAX_ANSWER);
        match client.check(call).await {
            Ok(_) => Ok(()),
            // Whoever knows no such method has looked at the token before.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            Err(status) => {
                let message = told::message(status.message());
                Err(format!("{:?}: {message}", status.code()))
            }
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Who is at the other end.
    pub(super) fn svid(&self) -> &X509Svid {
        &self.svid
    }

    /// The less, the better to call.
    pub(super) fn load(&self) -> (bool, usize) {
        (self.silent.load(Ordering::Relaxed), self.in_flight.load(Ordering::Relaxed))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.wire.0.is_closed()
    }

    /// Ends it, and every call on it.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// The same, for who keeps no link.
    pub(super) fn cutter(&self) -> CancellationToken {
        self.cut.clone()
    }

    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Seat(self.clone())
    }
}

// === impl Seat ===

impl Seat {
    pub(super) fn client(&self) -> IssuerClient<Wire> {
        IssuerClient::with_origin(self.0.wire.clone(), Uri::from_static(ORIGIN))
            .max_decoding_message_size(MAX_ANSWER)
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    /// An answer came in time, or not.
    pub(super) fn answered(&self, in_time: bool) {
        self.0.silent.store(!in_time, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Wire ===

impl Service<Request<Body>> for Wire {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

// === impl Tasks ===

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let cut = self.cut.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = task => {}
            }
        });
    }
}
