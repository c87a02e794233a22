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
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{HeaderMap, Request, Response},
};
use tower::{Layer, Service};
use tracing::debug;

use super::{
    method::{Kind, Method},
    metrics::{self, CallLabels, MethodLabel, Metrics},
};
use crate::{node::Workload, volume::VolumeId};

/// How long a call may take until its answer begins. Whoever sends no request is cut off.
const PATIENCE: Duration = Duration::from_secs(20);
/// Compressed flag and length, before each message.
const PREFIX: usize = 5;

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
    messages: Messages,
    code: Option<Code>,
}

/// Counts messages in a body. Frames end where messages do, but may hold several.
#[derive(Default)]
struct Messages(u64);

/// What is sent to the client.
struct CallBody {
    inner: Body,
    call: Call,
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
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
        let call = Call::begin(workload.volume().clone(), method, self.metrics.clone());
        let closing = workload.closing().clone();
        if closing.is_cancelled() {
            return Box::pin(async { Ok(call.refuse(closed())) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = tokio::select! {
                answer = timeout(PATIENCE, answer) => answer,
                () = closing.cancelled() => return Ok(call.refuse(closed())),
            };
            match answer {
                Ok(Ok(response)) => {
                    let stream = method.kind() == Kind::Stream;
                    let closing = stream.then(|| Box::pin(closing.cancelled_owned()));
                    Ok(call.answer(response, closing))
                }
                Ok(Err(never)) => match never {},
                Err(_) => Ok(call.refuse(Status::unavailable("it took too long"))),
            }
        })
    }
}

fn closed() -> Status {
    Status::unavailable("the volume is served here no longer; connect again")
}

// === impl Call ===

impl Call {
    fn begin(volume: VolumeId, method: Method, metrics: Metrics) -> Self {
        metrics.open.get_or_create(&MethodLabel(method)).inc();
        let (began, messages) = (Instant::now(), Messages::default());
        Self { volume, method, metrics, began, messages, code: None }
    }

    fn refuse(mut self, status: Status) -> Response<Body> {
        self.code = Some(status.code());
        status.into_http()
    }

    fn answer(
        mut self,
        response: Response<Body>,
        closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ) -> Response<Body> {
        self.code = code(response.headers());
        response.map(|inner| match inner.is_end_stream() {
            true => inner,
            false => Body::new(CallBody { inner, call: self, closing, ended: false }),
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
            messages = self.messages.0,
            took_us = self.began.elapsed().as_micros() as u64,
            "call"
        );
    }
}

/// The status among these headers or trailers.
fn code(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()))
}

// === impl Messages ===

impl Messages {
    /// Counts those in a frame.
    fn count(&mut self, mut frame: &[u8]) -> u64 {
        let before = self.0;
        while let Some((&[_, a, b, c, d], rest)) = frame.split_first_chunk::<PREFIX>() {
            self.0 += 1;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            frame = rest.get(length..).unwrap_or_default();
        }
        self.0 - before
    }
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
        let closing = me.closing.as_mut();
        if closing.is_some_and(|closing| closing.as_mut().poll(context).is_ready()) {
            me.ended = true;
            me.inner = Body::empty();
            me.call.code = Some(Code::Unavailable);
            let mut trailers = HeaderMap::new();
            closed().add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let polled = Pin::new(&mut me.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let sent = me.call.messages.count(data);
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
