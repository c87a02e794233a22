//! An API server in this process that keeps objects by path, for what two writers do to each other.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use kube::Client;
use serde_json::{Value, json};

use super::Cluster;

/// Keeps objects by path and version.
#[derive(Default)]
pub(crate) struct FakeStore(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Calls that begin so get this status, so many times.
    faults: Vec<(String, u16, usize)>,
}

// === impl FakeStore ===

impl FakeStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Access to it.
    pub(crate) fn cluster(self: &Arc<Self>) -> Cluster {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Cluster { client: Client::new(service, "svid-csi"), namespace: "svid-csi".to_owned() }
    }

    /// The next calls that begin so, as in `PUT secrets/x`, get this status.
    pub(crate) fn fail(&self, call: &str, status: u16, times: usize) {
        self.state().faults.push((call.to_owned(), status, times));
    }

    /// As in `secrets/x`.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(path.to_owned(), object.clone());
        object
    }

    /// Another object, though perhaps of a name that was there.
    pub(crate) fn create(&self, path: &str, mut object: Value) -> Value {
        object["metadata"]["uid"] = json!(format!("uid-{}", self.state().version));
        self.put(path, object)
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        self.state().objects.remove(path)
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
        if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
            return pending().await;
        }
        let path = parts.uri.path().trim_start_matches("/api/v1/namespaces/svid-csi/").to_owned();
        let call = format!("{} {path}", parts.method);
        if let Some(status) = self.fault(&call) {
            return failure(status, "Other");
        }
        let sent = || serde_json::from_slice::<Value>(&body).unwrap();
        match parts.method {
            Method::GET if path.contains('/') => {
                self.get(&path).map_or_else(|| failure(404, "NotFound"), ok)
            }
            // What is watched is listed first: nothing, so that only the ticks wake.
            Method::GET => ok(json!({ "metadata": { "resourceVersion": "1" }, "items": [] })),
            Method::POST => {
                let object = sent();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                match self.get(&path) {
                    Some(_) => failure(409, "AlreadyExists"),
                    None => ok(self.create(&path, object)),
                }
            }
            Method::PUT => {
                let object = sent();
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                match self.get(&path) {
                    None => failure(404, "NotFound"),
                    Some(there) if version(&there) != version(&object) => failure(409, "Conflict"),
                    Some(_) => ok(self.put(&path, object)),
                }
            }
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn fault(&self, call: &str) -> Option<u16> {
        let mut state = self.state();
        let (_, status, left) = state
            .faults
            .iter_mut()
            .find(|(which, _, left)| *left > 0 && call.starts_with(which))?;
        *left -= 1;
        Some(*status)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ok(object: Value) -> Response<Body> {
    Response::new(Body::from(object.to_string()))
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let mut answer = ok(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": format!("the server says {code}"),
    }));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}
