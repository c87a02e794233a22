//! One call at a socket, from its admission to its status: what every service has in common.
//!
//! A call of a volume that is served no longer ends as Unavailable with proper trailers, whatever
//! service it is of: to clients a stream that is reset means that they gave it up themselves
//! (Canceled), and some then never come back.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{HeaderMap, Request, Response},
};
use tower::{Layer, Service};
use tracing::debug;

use super::{
    messages::{AdmittedBody, Messages, Refusal},
    method::{Kind, Method},
    metrics::{self, CallLabels, MethodLabel, Metrics},
    status,
};
use crate::{
    node::{CallPermit, Refused, Workload, WorkloadError},
    volume::VolumeId,
};

/// How long a call may take until its answer begins. Whoever sends no request is cut off.
const PATIENCE: Duration = Duration::from_secs(20);

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Wraps every service at the sockets.
#[derive(Clone, Debug)]
pub(super) struct CallLayer {
    pub(super) metrics: Metrics,
}

/// A service whose calls are admitted, counted and ended.
#[derive(Clone, Debug)]
pub(super) struct Calls<S> {
    inner: S,
    metrics: Metrics,
}

/// A call under way. Counted as cancelled by its client if nobody ends it before it is dropped.
struct Call {
    volume: VolumeId,
    method: Method,
    metrics: Metrics,
    began: Instant,
    sent: u64,
    code: Option<Code>,
    permit: Option<CallPermit>,
}

/// What is sent to the client.
struct CallBody {
    inner: Body,
    call: Call,
    messages: Messages,
    end: Option<End>,
    ended: bool,
}

/// What ends a stream besides its service.
struct End {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    refusal: Option<Refusal>,
}

// === impl CallLayer ===

impl<S> Layer<S> for CallLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, metrics: self.metrics.clone() }
    }
}

// === impl Calls ===

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let Some(workload) = request.extensions().get::<Workload>().cloned() else {
            let status = Status::internal("the connection belongs to no volume");
            return Box::pin(async { Ok(status.into_http()) });
        };
        let method = Method::of(request.uri().path());
        let mut call = Call::begin(workload.volume().clone(), method, self.metrics.clone());
        let closing = workload.closing().clone();
        if closing.is_cancelled() {
            return Box::pin(async { Ok(call.refuse(closed())) });
        }
        match workload.admit() {
            Ok(permit) => call.permit = Some(permit),
            Err(refused) => {
                return Box::pin(async move { Ok(call.refuse(shed(refused))) });
            }
        }
        let (answer, refusal) = match method.kind() {
            Kind::Unary | Kind::Stream => (self.inner.call(request), None),
            Kind::Conversation => {
                let refusal = Refusal::new(&closing);
                let admitted = |body| AdmittedBody::new(body, workload, refusal.clone());
                let request = request.map(|body| Body::new(admitted(body)));
                (self.inner.call(request), Some(refusal))
            }
        };
        Box::pin(async move {
            let answer = tokio::select! {
                answer = timeout(PATIENCE, answer) => answer,
                () = closing.cancelled() => return Ok(call.refuse(closed())),
            };
            match answer {
                Ok(Ok(response)) => {
                    let stream = method.kind() != Kind::Unary;
                    Ok(call.answer(response, stream.then(|| End::new(closing, refusal))))
                }
                Ok(Err(never)) => match never {},
                Err(_) => Ok(call.refuse(Status::unavailable("it took too long"))),
            }
        })
    }
}

fn shed(refused: Refused) -> Status {
    status::of(WorkloadError::Refused(refused))
}

fn closed() -> Status {
    Status::unavailable("the volume is served here no longer; connect again")
}

// === impl Call ===

impl Call {
    fn begin(volume: VolumeId, method: Method, metrics: Metrics) -> Self {
        metrics.open.get_or_create(&MethodLabel(method)).inc();
        let began = Instant::now();
        Self { volume, method, metrics, began, sent: 0, code: None, permit: None }
    }

    fn refuse(mut self, status: Status) -> Response<Body> {
        self.code = Some(status.code());
        status.into_http()
    }

    fn answer(mut self, response: Response<Body>, end: Option<End>) -> Response<Body> {
        self.code = code(response.headers());
        let messages = Messages::default();
        response.map(|inner| match inner.is_end_stream() {
            true => inner,
            false => Body::new(CallBody { inner, call: self, messages, end, ended: false }),
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (method, code) = (self.method, self.code.unwrap_or(Code::Cancelled));
        self.metrics.open.get_or_create(&MethodLabel(method)).dec();
        self.metrics.calls.get_or_create(&CallLabels(method, code)).inc();
        debug!(
            volume = %self.volume,
            method = method.name(),
            code = metrics::name(code),
            messages = self.sent,
            took_us = self.began.elapsed().as_micros() as u64,
            "call"
        );
    }
}

/// The status among these headers or trailers.
fn code(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()))
}

// === impl CallBody ===

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let me = &mut *self;
        if me.ended {
            return Poll::Ready(None);
        }
        if let Some(Poll::Ready(status)) = me.end.as_mut().map(|end| end.poll(context)) {
            me.ended = true;
            me.inner = Body::empty();
            me.call.code = Some(status.code());
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let polled = Pin::new(&mut me.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let sent = me.messages.count(data);
                    me.call.sent += sent;
                    let label = MethodLabel(me.call.method);
                    me.call.metrics.messages.get_or_create(&label).inc_by(sent);
                } else if let Some(trailers) = frame.trailers_ref() {
                    me.call.code = code(trailers);
                }
            }
            Poll::Ready(_) => me.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl End ===

impl End {
    fn new(closing: CancellationToken, refusal: Option<Refusal>) -> Self {
        let token = refusal.as_ref().map_or(closing, |refusal| refusal.end().clone());
        Self { cancelled: Box::pin(token.cancelled_owned()), refusal }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let cancelled = self.cancelled.as_mut().poll(context);
        let reason = || self.refusal.as_ref().and_then(Refusal::reason);
        cancelled.map(|()| reason().map_or_else(closed, shed))
    }
}
