//! An API server of a few lines, for the faults that a real one doesn't show when asked: lists,
//! watches, resourceVersions, merge patches, and answers that a test prescribes.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// The collection of requests.
pub const REQUESTS: &str = "apis/certificates.k8s.io/v1/certificatesigningrequests";

const TOKEN_REVIEWS: &str = "apis/authentication.k8s.io/v1/tokenreviews";

/// The server; ends when it is dropped.
pub struct ApiServer {
    pub url: String,
    pub store: Arc<Store>,
    _serving: JoinSet<()>,
}

/// What it holds.
#[derive(Default)]
pub struct Store {
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// By collection, as `apis/certificates.k8s.io/v1/certificatesigningrequests`, namespace and
    /// name.
    objects: BTreeMap<(String, String, String), Value>,
    /// What happened: version, collection, kind of event, object.
    events: Vec<(u64, String, &'static str, Value)>,
    version: u64,
    /// Watches that began at this version or before are told that they are too old.
    forgotten: u64,
    faults: Vec<Fault>,
    /// Method and path of each call that wrote.
    writes: Vec<(Method, String)>,
    reads: Vec<String>,
    /// Method and path of every call but watches.
    calls: Vec<String>,
}

/// What happens to the store before an answer.
pub type Before = Box<dyn FnOnce(&Store) + Send>;

/// An answer to the next call of this method whose path ends so.
pub struct Fault {
    pub method: Method,
    pub suffix: &'static str,
    pub status: StatusCode,
    pub retry_after: u32,
    /// What happens to the store just before.
    pub before: Option<Before>,
}

struct Path {
    collection: String,
    namespace: String,
    name: String,
}

// === impl ApiServer ===

impl ApiServer {
    pub async fn start() -> Self {
        Self::beside(Router::new()).await
    }

    /// With answers of its own at these paths, whatever the store holds.
    pub async fn beside(routes: Router<Arc<Store>>) -> Self {
        let store = Arc::new(Store::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = routes.fallback(answer).with_state(store.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum_serve(listener, router).await });
        Self { url, store, _serving: serving }
    }

    /// From now on nobody answers.
    pub fn stop(&mut self) {
        self._serving.abort_all();
    }

    /// The content of a kubeconfig for it.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": "test"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        })
        .to_string()
    }
}

async fn axum_serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
        });
    }
}

// === impl Store ===

impl Store {
    /// Puts an object there and tells every watch.
    pub fn put(&self, collection: &str, object: Value) -> Value {
        let mut inner = self.inner.lock().unwrap();
        let put = inner.put(collection, object, true);
        self.version.send_replace(inner.version);
        put
    }

    /// Puts an object there that no watch hears of.
    pub fn put_silently(&self, collection: &str, object: Value) {
        self.inner.lock().unwrap().put(collection, object, false);
    }

    pub fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let mut inner = self.inner.lock().unwrap();
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        if let Some(mut gone) = inner.objects.remove(&key) {
            inner.version += 1;
            let version = inner.version;
            gone["metadata"]["resourceVersion"] = json!(version.to_string());
            inner.events.push((version, collection.to_owned(), "DELETED", gone));
            self.version.send_replace(version);
        }
    }

    pub fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        self.inner.lock().unwrap().objects.get(&key).cloned()
    }

    /// Every object of a collection.
    pub fn all(&self, collection: &str) -> Vec<Value> {
        let inner = self.inner.lock().unwrap();
        let of = inner.objects.iter().filter(|((of, ..), _)| of == collection);
        of.map(|(_, object)| object.clone()).collect()
    }

    pub fn fault(&self, fault: Fault) {
        self.inner.lock().unwrap().faults.push(fault);
    }

    /// Every watch is told that its version is too old (410).
    pub fn forget(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        inner.forgotten = inner.version;
        self.version.send_replace(inner.version);
    }

    /// Every write to a path that contains this, as `PATCH …`.
    pub fn writes(&self, part: &str) -> Vec<String> {
        let inner = self.inner.lock().unwrap();
        let of = inner.writes.iter().filter(|(_, path)| path.contains(part));
        of.map(|(method, path)| format!("{method} {path}")).collect()
    }

    /// Every object that was read alone, from a path that contains this.
    pub fn reads(&self, part: &str) -> usize {
        self.inner.lock().unwrap().reads.iter().filter(|path| path.contains(part)).count()
    }

    /// Every call but watches, as `GET /api/v1/…`.
    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// Waits for something to be so.
    pub async fn until<T>(&self, what: &str, mut so: impl FnMut(&Self) -> Option<T>) -> T {
        let waited = self.wait(&mut so);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), waited).await;
        waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// The same, for as long as it takes.
    pub async fn wait<T>(&self, mut so: impl FnMut(&Self) -> Option<T>) -> T {
        let mut version = self.version.subscribe();
        loop {
            version.borrow_and_update();
            if let Some(found) = so(self) {
                return found;
            }
            version.changed().await.unwrap();
        }
    }
}

impl Inner {
    fn put(&mut self, collection: &str, mut object: Value, tell: bool) -> Value {
        self.version += 1;
        let version = self.version;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{version}"));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let key = (collection.to_owned(), text("namespace"), text("name"));
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key, object.clone());
        if tell {
            self.events.push((version, collection.to_owned(), kind, object.clone()));
        }
        object
    }
}

async fn answer(
    State(store): State<Arc<Store>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let fault = {
        let mut inner = store.inner.lock().unwrap();
        let found = inner
            .faults
            .iter()
            .position(|fault| fault.method == method && uri.path().ends_with(fault.suffix));
        found.map(|index| inner.faults.remove(index))
    };
    if let Some(fault) = fault {
        if let Some(before) = fault.before {
            before(&store);
        }
        if fault.status != StatusCode::CONTINUE {
            return failure(fault.status, fault.retry_after);
        }
    }
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| {
            (key.to_owned(), value.replace("%3D", "=").replace("%2F", "/").replace("%21", "!"))
        })
        .collect();
    let path = Path::of(uri.path());
    if path.collection == "apis/authentication.k8s.io/v1/selfsubjectreviews" {
        return json_answer(&json!({"metadata": {}, "status": {"userInfo": the_driver()}}));
    }
    let selector = query.get("fieldSelector").cloned().unwrap_or_default();
    if method == Method::GET && query.get("watch").is_some_and(|watch| watch == "true") {
        if query.contains_key("sendInitialEvents") {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, 0);
        }
        let from = query.get("resourceVersion").and_then(|from| from.parse().ok()).unwrap_or(0);
        return watching(store, path.collection, selector, from);
    }
    let mut inner = store.inner.lock().unwrap();
    inner.calls.push(format!("{method} {}", uri.path()));
    // What is no object: `openid`, by path, and the status of every TokenReview.
    let by_path = |kind: &str, name: &str| (kind.to_owned(), String::new(), name.to_owned());
    if let Some(published) = inner.objects.get(&by_path("openid", uri.path())) {
        return json_answer(published);
    }
    if path.collection == TOKEN_REVIEWS {
        return match inner.objects.get(&by_path(TOKEN_REVIEWS, "verdict")) {
            Some(verdict) => json_answer(&json!({"metadata": {}, "spec": {}, "status": verdict})),
            None => failure(StatusCode::FORBIDDEN, 0),
        };
    }
    if method == Method::GET && path.name.is_empty() {
        let items: Vec<_> = inner
            .objects
            .iter()
            .filter(|((collection, ..), object)| {
                *collection == path.collection && selects(&selector, object)
            })
            .map(|(_, object)| object.clone())
            .collect();
        let metadata = json!({"resourceVersion": inner.version.to_string()});
        return json_answer(&json!({"kind": "List", "metadata": metadata, "items": items}));
    }
    if method == Method::GET {
        inner.reads.push(uri.path().to_owned());
        let key = (path.collection, path.namespace, path.name);
        return match inner.objects.get(&key) {
            Some(object) => json_answer(object),
            None => failure(StatusCode::NOT_FOUND, 0),
        };
    }
    inner.writes.push((method.clone(), uri.path().to_owned()));
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = match path.name.as_str() {
        "" => sent["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        name => name.to_owned(),
    };
    let key = (path.collection.clone(), path.namespace.clone(), name);
    let before = inner.objects.get(&key).cloned();
    let object = match (method, before) {
        (Method::DELETE, Some(_)) => {
            drop(inner);
            store.delete(&key.0, &key.1, &key.2);
            return json_answer(&json!({"kind": "Status", "status": "Success"}));
        }
        (Method::POST, Some(_)) => return failure(StatusCode::CONFLICT, u32::MAX),
        (Method::POST, None) => {
            let mut sent = sent;
            if !path.namespace.is_empty() {
                sent["metadata"]["namespace"] = json!(path.namespace);
            }
            sent
        }
        (_, None) => return failure(StatusCode::NOT_FOUND, 0),
        (method, Some(before)) => {
            for field in ["resourceVersion", "uid"] {
                let named = &sent["metadata"][field];
                if !named.is_null() && *named != before["metadata"][field] {
                    return failure(StatusCode::CONFLICT, 0);
                }
            }
            if method == Method::PUT {
                sent
            } else {
                let mut patched = before;
                merge(&mut patched, &sent);
                patched
            }
        }
    };
    let put = inner.put(&path.collection, object, true);
    store.version.send_replace(inner.version);
    json_answer(&put)
}

/// Everybody is the driver of `node-1`.
fn the_driver() -> Value {
    let key = |name: &str| format!("authentication.kubernetes.io/{name}");
    let extra = json!({
        key("node-name"): ["node-1"], key("node-uid"): ["n1"],
        key("pod-name"): ["driver-1"], key("pod-uid"): ["p1"],
    });
    json!({"username": "system:serviceaccount:svid-csi:svid-csi", "extra": extra})
}

/// Tells what happened after this version, and goes on.
fn watching(store: Arc<Store>, collection: String, selector: String, from: u64) -> Response {
    let version = store.version.subscribe();
    let events = stream::unfold(
        (store, collection, selector, from, version, false),
        |(store, collection, selector, mut from, mut version, ended)| async move {
            if ended {
                return None;
            }
            loop {
                version.borrow_and_update();
                let mut lines = String::new();
                let mut ended = false;
                {
                    let inner = store.inner.lock().unwrap();
                    if from < inner.forgotten {
                        let status = status_of(StatusCode::GONE, 0);
                        lines = json!({"type": "ERROR", "object": status}).to_string() + "\n";
                        ended = true;
                    } else {
                        for (at, of, kind, object) in &inner.events {
                            if *at > from && *of == collection && selects(&selector, object) {
                                lines += &json!({"type": kind, "object": object}).to_string();
                                lines += "\n";
                            }
                        }
                        from = inner.version;
                    }
                }
                if !lines.is_empty() {
                    let next = (store, collection, selector, from, version, ended);
                    return Some((Ok::<_, Infallible>(lines), next));
                }
                version.changed().await.ok()?;
            }
        },
    );
    Response::new(Body::from_stream(events))
}

fn selects(selector: &str, object: &Value) -> bool {
    let Some((field, value)) = selector.split_once('=') else { return true };
    let pointer = format!("/{}", field.replace('.', "/"));
    object.pointer(&pointer).and_then(Value::as_str) == Some(value)
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => merge(&mut object[name], value),
        }
    }
}

fn json_answer(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}

fn failure(code: StatusCode, retry_after: u32) -> Response {
    (code, [("content-type", "application/json")], status_of(code, retry_after).to_string())
        .into_response()
}

fn status_of(code: StatusCode, retry_after: u32) -> Value {
    let reason = match (code, retry_after) {
        (StatusCode::CONFLICT, u32::MAX) => "AlreadyExists",
        (StatusCode::CONFLICT, _) => "Conflict",
        (StatusCode::NOT_FOUND, _) => "NotFound",
        (StatusCode::GONE, _) => "Expired",
        (StatusCode::TOO_MANY_REQUESTS, _) => "TooManyRequests",
        _ => "",
    };
    let seconds = if retry_after == u32::MAX { 0 } else { retry_after };
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": "as the test has it", "metadata": {},
        "details": {"retryAfterSeconds": seconds},
    })
}

// === impl Path ===

impl Path {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let prefix = if parts[0] == "api" { 2 } else { 3 };
        let (group, mut rest) = parts.split_at(prefix.min(parts.len()));
        let mut namespace = String::new();
        if let ["namespaces", of, _, ..] = rest {
            namespace = (*of).to_owned();
            rest = &rest[2..];
        }
        let part = |index: usize| rest.get(index).copied().unwrap_or_default();
        Self {
            collection: format!("{}/{}", group.join("/"), part(0)),
            namespace,
            name: part(1).to_owned(),
        }
    }
}
