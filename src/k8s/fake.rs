//! An API server in this process, for the faults that a real one shows too seldom.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use futures_util::{StreamExt, stream};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::Cluster;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// cert-manager's.
const CERTIFICATE_REQUESTS: &str =
    "/apis/cert-manager.io/v1/namespaces/svid-csi/certificaterequests";

/// Keeps CertificateSigningRequests, or cert-manager's CertificateRequests, and fails as it is told to.
pub(crate) struct FakeApi {
    state: Mutex<State>,
    events: broadcast::Sender<Value>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Every call, as in `POST` or `GET svid-1`.
    calls: Vec<String>,
    /// What the next calls that begin so come to.
    faults: Vec<(String, Fault)>,
    extra: Value,
    /// Objects stay, whoever deletes them.
    holds: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// This status, and the seconds of Retry-After.
    Status(u16, u32),
    /// Done, but the answer never comes.
    DoneInSilence,
    /// Nothing at all.
    Silence,
}

// === impl FakeApi ===

impl FakeApi {
    /// A server for which everybody is the driver of this node, and access to it.
    pub(crate) fn new(node_name: &str, node_uid: &str) -> (Cluster, Arc<Self>) {
        let key = |name: &str| format!("authentication.kubernetes.io/{name}");
        let extra = json!({
            key("node-name"): [node_name], key("node-uid"): [node_uid],
            key("pod-name"): ["driver-1"], key("pod-uid"): ["p1"],
        });
        let state = Mutex::new(State { extra, ..State::default() });
        let api = Arc::new(Self { state, events: broadcast::Sender::new(256) });
        let server = api.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let client = Client::new(service, "svid-csi");
        (Cluster { client, namespace: "svid-csi".to_owned() }, api)
    }

    pub(crate) fn fail(&self, call: &str, fault: Fault) {
        self.state().faults.push((call.to_owned(), fault));
    }

    /// From now on tokens are bound to nothing.
    pub(crate) fn forget_extra(&self) {
        self.state().extra = json!({});
    }

    /// From now on every object has somebody's finalizer.
    pub(crate) fn hold_deletions(&self) {
        self.state().holds = true;
    }

    /// How often a call that begins so was made.
    pub(crate) fn count(&self, call: &str) -> usize {
        self.state().calls.iter().filter(|made| made.starts_with(call)).count()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    pub(crate) fn object(&self, name: &str) -> Option<Value> {
        self.state().objects.get(name).cloned()
    }

    pub(crate) fn create(&self, mut object: Value) {
        let mut state = self.state();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["uid"] = json!(format!("uid-{name}"));
        self.put(&mut state, name, object, "ADDED");
    }

    /// Writes the status of an object.
    pub(crate) fn decide(&self, name: &str, status: Value) {
        let mut state = self.state();
        let mut object = state.objects[name].clone();
        object["status"] = status;
        self.put(&mut state, name.to_owned(), object, "MODIFIED");
    }

    pub(crate) fn delete(&self, name: &str) -> bool {
        let mut state = self.state();
        let Some(object) = state.objects.remove(name) else { return false };
        let _ = self.events.send(json!({ "type": "DELETED", "object": object }));
        true
    }

    /// Every watch is told that it is too old, and ends.
    pub(crate) fn expire_watches(&self) {
        let status = json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version", "metadata": {} });
        let _ = self.events.send(json!({ "type": "ERROR", "object": status }));
    }

    fn put(&self, state: &mut State, name: String, mut object: Value, what: &str) {
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        if object["spec"]["issuerRef"].is_null() {
            object["apiVersion"] = json!("certificates.k8s.io/v1");
            object["kind"] = json!("CertificateSigningRequest");
        } else {
            object["metadata"]["namespace"] = json!("svid-csi");
        }
        state.objects.insert(name, object.clone());
        let _ = self.events.send(json!({ "type": what, "object": object }));
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let kept = [REQUESTS, CERTIFICATE_REQUESTS].iter().find_map(|it| path.strip_prefix(it));
        let name = kept.unwrap_or_default().trim_start_matches('/');
        let watches = query.contains("watch=true");
        let call = match (&parts.method, kept.is_some()) {
            (_, false) => "REVIEW".to_owned(),
            (&Method::GET, _) if watches => "WATCH".to_owned(),
            (&Method::GET, _) if name.is_empty() => "LIST".to_owned(),
            (method, _) => format!("{method} {name}").trim_end().to_owned(),
        };
        let fault = self.fault_of(&call);
        match fault {
            Some(Fault::Status(code, after)) => return failure(code, "Other", after),
            Some(Fault::Silence) => return pending().await,
            _ => {}
        }
        let answer = match call.split(' ').next().unwrap_or_default() {
            "REVIEW" => {
                let user = json!({ "username": "system:serviceaccount:svid-csi:driver", "extra": self.state().extra });
                ok(json!({ "metadata": {}, "status": { "userInfo": user } }))
            }
            // As a server without streaming lists does.
            "WATCH" if query.contains("sendInitialEvents") => failure(422, "Invalid", 0),
            "WATCH" => self.watch(),
            "LIST" => {
                let state = self.state();
                let items: Vec<_> = state.objects.values().cloned().collect();
                let version = json!({ "resourceVersion": state.version.to_string() });
                ok(json!({ "metadata": version, "items": items }))
            }
            "POST" => {
                let object: Value = serde_json::from_slice(&body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if self.object(&name).is_some() {
                    failure(409, "AlreadyExists", 0)
                } else {
                    self.create(object);
                    ok(self.object(&name).unwrap())
                }
            }
            "GET" => self.object(name).map_or_else(|| failure(404, "NotFound", 0), ok),
            "DELETE" if self.state().holds => ok(json!({ "kind": "Status", "status": "Success" })),
            "DELETE" if self.delete(name) => ok(json!({ "kind": "Status", "status": "Success" })),
            "DELETE" => failure(404, "NotFound", 0),
            other => panic!("{other}"),
        };
        match fault {
            Some(Fault::DoneInSilence) => pending().await,
            _ => answer,
        }
    }

    fn fault_of(&self, call: &str) -> Option<Fault> {
        let mut state = self.state();
        state.calls.push(call.to_owned());
        let at = state.faults.iter().position(|(which, _)| call.starts_with(which.as_str()))?;
        Some(state.faults.remove(at).1)
    }

    fn watch(&self) -> Response<Body> {
        let events = BroadcastStream::new(self.events.subscribe());
        // An error is the last thing that a watch says.
        let mut over = false;
        let lines = events.take_while(move |event| {
            let go_on = !over;
            over = event.as_ref().is_ok_and(|event| event["type"] == "ERROR");
            std::future::ready(go_on)
        });
        let lines = lines.map(|event| {
            Ok::<_, Infallible>(Bytes::from(format!("{}\n", event.unwrap_or_default())))
        });
        Response::new(Body::from_stream(stream::StreamExt::boxed(lines)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ok(object: Value) -> Response<Body> {
    Response::new(Body::from(object.to_string()))
}

fn failure(code: u16, reason: &str, retry_after: u32) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": format!("the server says {code}"),
        "details": { "retryAfterSeconds": retry_after },
    });
    let mut answer = ok(status);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}
