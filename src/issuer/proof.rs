//! What every call has to have before anything of its message is read: a driver's token, and room.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{
    Metrics,
    connection::Peer,
    gate::{Share, UnderWay},
    limits::{CALL, CALLS},
    read,
    status::of_token,
};
use crate::controller::{
    approver::ApproverSettings,
    tokens::{TokenClaims, Tokens},
};

/// Who calls: what the driver's token says.
#[derive(Clone, Debug)]
pub(super) struct Driver(pub(super) Arc<TokenClaims>);

/// Wraps the service.
#[derive(Clone)]
pub(super) struct ProofLayer(Arc<Doorkeeper>);

/// A service whose callers have proven who they are.
#[derive(Clone)]
pub(super) struct Proven<S> {
    inner: S,
    doorkeeper: Arc<Doorkeeper>,
}

struct Doorkeeper {
    tokens: Arc<Tokens>,
    settings: ApproverSettings,
    calls: Arc<Share>,
    metrics: Metrics,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

// === impl ProofLayer ===

impl ProofLayer {
    pub(super) fn new(tokens: Arc<Tokens>, settings: ApproverSettings, metrics: Metrics) -> Self {
        let calls = Share::new(CALLS);
        Self(Arc::new(Doorkeeper { tokens, settings, calls, metrics }))
    }
}

impl<S> Layer<S> for ProofLayer {
    type Service = Proven<S>;

    fn layer(&self, inner: S) -> Proven<S> {
        Proven { inner, doorkeeper: self.0.clone() }
    }
}

// === impl Proven ===

impl<S> Service<Request<Body>> for Proven<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let doorkeeper = self.doorkeeper.clone();
        // The one that is ready answers, and a fresh one takes its place.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let began = Instant::now();
            let method = method(request.uri().path());
            let answer = match doorkeeper.admit(&mut request).await {
                Ok(_under_way) => {
                    let answer = match timeout(CALL, inner.call(request)).await {
                        Ok(Ok(answer)) => answer,
                        Err(_elapsed) => {
                            Status::unavailable("the call took too long; try again").into_http()
                        }
                    };
                    doorkeeper.metrics.took(began.elapsed().as_secs_f64());
                    answer
                }
                Err(status) => status.into_http(),
            };
            doorkeeper.metrics.called(method, code(answer.headers()));
            Ok(answer)
        })
    }
}

// === impl Doorkeeper ===

impl Doorkeeper {
    async fn admit(&self, request: &mut Request<Body>) -> Result<[UnderWay; 2], Status> {
        let busy = || Status::resource_exhausted("too many calls at once; try again soon");
        let call = self.calls.begin().ok_or_else(busy)?;
        let claims = {
            let token = bearer(request.headers())
                .ok_or_else(|| Status::unauthenticated("no driver's token in authorization"))?;
            let found = self.tokens.verify(token).await;
            found.map_err(|error| of_token("the driver's token", &error))?
        };
        read::requester(&claims, &self.settings)
            .map_err(|denial| Status::unauthenticated(denial.message))?;
        let Some(Peer(place)) = request.extensions().get::<Peer>() else {
            return Err(Status::internal("the connection is unknown"));
        };
        let share = place.prove(&claims.pod_uid).ok_or_else(|| {
            Status::resource_exhausted("the driver has too many connections; close some")
        })?;
        let own = share.begin().ok_or_else(busy)?;
        request.extensions_mut().insert(Driver(claims));
        Ok([call, own])
    }
}

/// The one token in `authorization` (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The method as a label; who calls chooses the path.
fn method(path: &str) -> &'static str {
    match path {
        "/svid.issuer.v1.Issuer/IssueX509Svid" => "IssueX509Svid",
        "/svid.issuer.v1.Issuer/IssueJwtSvid" => "IssueJwtSvid",
        _ => "other",
    }
}

/// An error is in the headers, as nothing follows them; what succeeds says so later.
fn code(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_alone_and_a_bearers() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            headers
        };
        for (values, token) in [
            (&["Bearer a.b.c"][..], Some("a.b.c")),
            (&["bearer a.b.c"], Some("a.b.c")),
            (&[], None),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["a.b.c"], None),
            (&["Basic a.b.c"], None),
            (&["Bearer a", "Bearer b"], None),
        ] {
            assert_eq!(bearer(&headers(values)), token, "{values:?}");
        }
        let mut other = HeaderMap::new();
        other.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(bearer(&other), None);
    }
}
