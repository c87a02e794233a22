//! Versions that come and go under us, and what is written.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Mutex, PoisonError},
};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use kube::Client;
use tokio::task::JoinSet;

use super::*;
use crate::k8s::ObjectName;

const SIGNER: &str = "svid.dev/workload";

/// An API server with PodCertificateRequests in some versions.
#[derive(Default)]
struct Server {
    versions: Vec<&'static str>,
    objects: Vec<Value>,
    /// Method and path of each call, and what it sent.
    calls: Vec<(String, Value)>,
    /// What the next write gets.
    refuses: Option<u16>,
}

type Shared = Arc<Mutex<Server>>;

fn lock(server: &Shared) -> std::sync::MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cluster(server: &Shared) -> Cluster {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let sent = to_bytes(Body::new(body), 1 << 20).await.unwrap();
            let sent = serde_json::from_slice(&sent).unwrap_or_default();
            let query = parts.uri.query().unwrap_or_default();
            let (code, body) = answer(&server, &parts.method, parts.uri.path(), query, sent);
            if code == 0 {
                return pending().await;
            }
            let mut response = Response::new(Body::from(body.to_string()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    Cluster::with_client(Client::new(service, "svid-csi"))
}

fn failure(code: u16) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "status": "Failure", "code": code, "reason": "", "message": "no",
        "metadata": {},
    });
    (code, status)
}

/// Nothing ever comes where the code is 0.
fn answer(server: &Shared, method: &Method, path: &str, query: &str, sent: Value) -> (u16, Value) {
    let mut server = lock(server);
    server.calls.push((format!("{method} {path}"), sent));
    let (version, rest) = path
        .trim_start_matches("/apis/certificates.k8s.io/")
        .split_once('/')
        .unwrap_or((path.rsplit('/').next().unwrap(), ""));
    let served = server.versions.contains(&version);
    match (method, rest) {
        // Every server has the group's v1.
        (&Method::GET, "") if version == "v1" || served => {
            let name = if served { PLURAL } else { "certificatesigningrequests" };
            let resource = json!({"name": name, "kind": "X", "namespaced": true, "verbs": []});
            let list =
                json!({"groupVersion": format!("{GROUP}/{version}"), "resources": [resource]});
            (200, list)
        }
        _ if !served => failure(404),
        // No streaming lists here.
        (&Method::GET, _) if query.contains("sendInitialEvents") => failure(422),
        (&Method::GET, _) if query.contains("watch=true") => (0, Value::Null),
        (&Method::GET, _) => {
            assert!(query.contains("spec.signerName%3Dsvid.dev%2Fworkload"), "{query}");
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": server.objects});
            (200, list)
        }
        (&Method::PATCH, _) => match server.refuses.take() {
            Some(code) => failure(code),
            None => (200, server.objects.first().cloned().unwrap_or_default()),
        },
        _ => failure(405),
    }
}

fn object(spec: Value) -> Value {
    let mut spec = spec;
    for (key, value) in [
        ("signerName", json!(SIGNER)),
        ("podName", json!("web-0")),
        ("podUID", json!("p-1")),
        ("serviceAccountName", json!("web")),
        ("serviceAccountUID", json!("s-1")),
        ("nodeName", json!("a")),
        ("nodeUID", json!("n-1")),
        ("maxExpirationSeconds", json!(86_400)),
    ] {
        if spec[key].is_null() {
            spec[key] = value;
        }
    }
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": KIND,
        "metadata": {
            "namespace": "shop", "name": "req-x", "uid": "u-1", "resourceVersion": "7",
            "creationTimestamp": "2026-11-22T12:00:00Z",
        },
        "spec": spec,
        "status": {},
    })
}

fn facts(object: Value) -> PodCertificateFacts {
    serde_json::from_value::<PodCertificateRequest>(object).unwrap().into()
}

#[test]
fn both_forms_are_read() {
    let new = facts(object(json!({"stubPKCS10Request": "AQI="})));
    assert_eq!(new.key, OfferedKey::StubRequest(vec![1, 2]));
    assert_eq!(new.name, ObjectName::new("shop", "req-x"));
    assert_eq!((new.pod_uid.as_str(), new.service_account_uid.as_str()), ("p-1", "s-1"));
    assert_eq!((new.node_name.as_str(), new.node_uid.as_str()), ("a", "n-1"));
    assert_eq!((new.max_expiration_seconds, new.finished), (Some(86_400), false));
    let old = facts(object(json!({"pkixPublicKey": "AQ==", "proofOfPossession": "Ag=="})));
    assert_eq!(old.key, OfferedKey::Bare { spki: vec![1], proof: vec![2] });
    for neither in [
        json!({}),
        json!({"pkixPublicKey": "AQ=="}),
        json!({"stubPKCS10Request": "AQ==", "pkixPublicKey": "AQ==", "proofOfPossession": "Ag=="}),
        json!({"stubPKCS10Request": "A".repeat(100_000)}),
    ] {
        assert_eq!(facts(object(neither)).key, OfferedKey::Unreadable);
    }
}

/// Invariant 5: whoever owns a node cannot make the controller run out of memory.
#[test]
fn a_huge_request_is_kept_small_and_stays_one_to_deny() {
    let long = "x".repeat(100_000);
    let annotations: serde_json::Map<_, _> =
        (0..1000).map(|n| (format!("example.org/{n}"), json!(long))).collect();
    let facts = facts(object(json!({"unverifiedUserAnnotations": annotations})));
    assert!(format!("{facts:?}").len() < 4_000);
    assert_eq!(facts.user_annotations.len(), 16);
}

#[test]
fn of_a_finished_request_only_the_end_is_kept() {
    for kind in ["Issued", "Denied", "Failed"] {
        let mut object = object(json!({"stubPKCS10Request": "AQI="}));
        object["status"] = json!({"conditions": [{"type": kind, "status": "True"}]});
        let facts = facts(object);
        assert!(facts.finished && facts.pod_name.is_empty(), "{kind}");
        assert_eq!((facts.uid.as_str(), facts.key), ("u-1", OfferedKey::Unreadable));
    }
}

/// Follows until there is one, as the paused clock's time passes.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is() {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn versions_come_and_go_under_us() {
    let server = Shared::default();
    let requests = PodCertificates::new(&cluster(&server), SIGNER);
    let cache = Cache::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(requests.follow(cache.clone(), |_| {}));
    until("it is asked", || requests.served() == Served::No).await;
    assert!(!cache.is_synced() && cache.state().borrow().problem.is_none());

    // The beta is switched on.
    lock(&server).objects = vec![object(json!({}))];
    lock(&server).versions = vec!["v1beta1"];
    until("the beta is found", || cache.is_synced()).await;
    assert_eq!((requests.served(), cache.all().len()), (Served::In("v1beta1"), 1));

    // An upgrade later there is v1 alone: the watch ends with 404.
    lock(&server).objects = vec![object(json!({})), {
        let mut other = object(json!({}));
        other["metadata"]["name"] = json!("req-y");
        other
    }];
    lock(&server).versions = vec!["v1"];
    tasks.abort_all();
    let mut tasks = JoinSet::new();
    tasks.spawn(requests.follow(cache.clone(), |_| {}));
    until("v1 is found", || requests.served() == Served::In("v1") && cache.all().len() == 2).await;
    assert!(cache.state().borrow().problem.is_none());

    // With both, the one that has the older kubelets' keys.
    lock(&server).versions = vec!["v1", "v1beta1"];
    assert_eq!(requests.discover().await.unwrap(), Served::In("v1beta1"));
}

/// A server that is upgraded breaks the watch, and its next answers are 404.
#[tokio::test(start_paused = true)]
async fn a_watch_that_says_404_leads_to_another_version() {
    let server = Shared::default();
    lock(&server).versions = vec!["v1beta1"];
    let requests = PodCertificates::new(&cluster(&server), SIGNER);
    let cache: Cache<PodCertificateFacts> = Cache::default();
    requests.say(Served::In("v1beta1"));
    lock(&server).versions = vec!["v1"];
    lock(&server).objects = vec![object(json!({}))];
    let mut tasks = JoinSet::new();
    let api = Api::all_with(requests.cluster.client().clone(), &resource("v1beta1"));
    let keep = |object: PodCertificateRequest| Some(object.into());
    tasks.spawn(cache.clone().follow(PLURAL, api, Config::default(), keep, |_| {}));
    requests.moved(&cache, "v1beta1").await;
    assert!(cache.state().borrow().problem.as_deref().is_some_and(|it| it.contains("404")));
    tasks.abort_all();
    tasks.spawn(requests.follow(cache.clone(), |_| {}));
    until("v1 is found", || cache.all().len() == 1).await;
    assert_eq!(requests.served(), Served::In("v1"));
    until("all is well", || cache.state().borrow().problem.is_none()).await;
}

#[tokio::test]
async fn what_is_decided_is_written_on_that_very_version() {
    let server = Shared::default();
    lock(&server).objects = vec![object(json!({}))];
    let requests = PodCertificates::new(&cluster(&server), SIGNER);
    let request = facts(object(json!({})));
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800 + seconds);
    let gone = requests.deny(&request, "NoPolicy", "no", at(0)).await.unwrap_err();
    assert!(gone.is_not_found(), "{gone}");

    lock(&server).versions = vec!["v1"];
    requests.say(Served::In("v1"));
    let certificate = PodCertificate {
        chain_pem: "PEM".to_owned(),
        not_before: at(0),
        not_after: at(3600),
        begin_refresh_at: at(1900),
    };
    requests.issue(&request, &certificate, "SvidPolicy", "{}", at(60)).await.unwrap();
    requests.deny(&request, "NoPolicy", &"x".repeat(9000), at(0)).await.unwrap();
    lock(&server).refuses = Some(409);
    let conflict = requests.deny(&request, "NoPolicy", "no", at(0)).await.unwrap_err();
    assert!(conflict.is_conflict());

    let calls = std::mem::take(&mut lock(&server).calls);
    let (call, sent) = &calls[0];
    assert_eq!(
        call,
        "PATCH /apis/certificates.k8s.io/v1/namespaces/shop/podcertificaterequests/req-x/status"
    );
    assert_eq!(sent["metadata"], json!({"uid": "u-1", "resourceVersion": "7"}));
    assert_eq!(
        sent["status"],
        json!({
            "conditions": [{
                "type": "Issued", "status": "True", "reason": "SvidPolicy", "message": "{}",
                "lastTransitionTime": "2026-11-22T12:01:00Z",
            }],
            "certificateChain": "PEM",
            "notBefore": "2026-11-22T12:00:00Z",
            "notAfter": "2026-11-22T13:00:00Z",
            "beginRefreshAt": "2026-11-22T12:31:40Z",
        })
    );
    let denied = &calls[1].1["status"];
    assert_eq!(denied["conditions"][0]["type"], "Denied");
    assert_eq!(denied["conditions"][0]["message"].as_str().unwrap().len(), LONGEST_MESSAGE);
    assert!(denied["certificateChain"].is_null());
}
