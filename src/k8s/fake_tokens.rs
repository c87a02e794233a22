//! An API server in this process that knows ServiceAccount tokens and nothing else.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode},
};
use kube::Client;
use serde_json::{Value, json};

use super::Cluster;

/// Publishes keys and reviews tokens, as it is told.
#[derive(Default)]
pub(crate) struct FakeTokens(Mutex<State>);

#[derive(Default)]
struct State {
    issuer: String,
    /// JWKs; nothing where they are not published.
    keys: Option<Vec<Value>>,
    /// The status of the next TokenReviews; nothing where nobody may create them.
    verdict: Option<Value>,
    /// Reviews get no answer.
    silent: bool,
    reads: usize,
    reviews: usize,
}

// === impl FakeTokens ===

impl FakeTokens {
    pub(crate) fn new() -> (Cluster, Arc<Self>) {
        let api = Arc::new(Self::default());
        let server = api.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let client = Client::new(service, "svid-csi");
        (Cluster { client, namespace: "svid-csi".to_owned() }, api)
    }

    pub(crate) fn publish(&self, issuer: &str, keys: Option<Vec<Value>>) {
        let mut state = self.state();
        state.issuer = issuer.to_owned();
        state.keys = keys;
    }

    pub(crate) fn review(&self, verdict: Option<Value>) {
        self.state().verdict = verdict;
    }

    pub(crate) fn be_silent(&self) {
        self.state().silent = true;
    }

    /// How often the keys were read.
    pub(crate) fn reads(&self) -> usize {
        self.state().reads
    }

    /// How many tokens were reviewed.
    pub(crate) fn reviews(&self) -> usize {
        self.state().reviews
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let answer = match parts.uri.path() {
            "/.well-known/openid-configuration" => {
                let state = self.state();
                state.keys.as_ref().map(|_| json!({ "issuer": state.issuer }))
            }
            "/openid/v1/jwks" => {
                let mut state = self.state();
                state.reads += 1;
                state.keys.as_ref().map(|keys| json!({ "keys": keys }))
            }
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
                let sent: Value = serde_json::from_slice(&body).unwrap();
                assert!(sent["spec"]["token"].is_string() && sent["spec"]["audiences"].is_array());
                let (verdict, silent) = {
                    let mut state = self.state();
                    state.reviews += 1;
                    (state.verdict.clone(), state.silent)
                };
                if silent {
                    return pending().await;
                }
                verdict.map(|status| json!({ "metadata": {}, "spec": {}, "status": status }))
            }
            other => panic!("{other}"),
        };
        match answer {
            Some(answer) => Response::new(Body::from(answer.to_string())),
            None => {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "code": 403, "reason": "Forbidden", "message": "you may not",
                });
                let mut answer = Response::new(Body::from(status.to_string()));
                *answer.status_mut() = StatusCode::FORBIDDEN;
                answer
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
