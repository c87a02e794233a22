//! The controller's process in front of an API server that behaves as badly as a test says.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use svid_csi::{
    k8s::names::{NODE_UID_LABEL, SIGNER, USAGES, annotation, extra},
    pki::{Csr, KeyAlgorithm, PrivateKey, TrustBundle, X509Svid},
};

use crate::api_server::{ApiServer, Fault, Store};

const REQUESTS: &str = "apis/certificates.k8s.io/v1/certificatesigningrequests";
const PODS: &str = "api/v1/pods";
const POLICIES: &str = "apis/svid.dev/v1alpha1/svidpolicies";
const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

/// A controller's process. Killed when it is dropped.
pub struct Replica {
    child: Child,
    pub audit: Arc<Mutex<Vec<Value>>>,
    pub log: Arc<Mutex<String>>,
    _config: tempfile::TempDir,
}

// === impl Replica ===

impl Replica {
    fn start(server: &ApiServer, name: &str) -> Self {
        Self::start_with(server, name, &[])
    }

    /// With more arguments.
    pub fn start_with(server: &ApiServer, name: &str, more: &[&str]) -> Self {
        let config = tempfile::tempdir().unwrap();
        let path = config.path().join("config");
        std::fs::write(&path, server.kubeconfig("svid-csi")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_svid-csi"))
            .args(["controller", "--kubeconfig", "--trust-domain", "example.org"])
            .args(["--driver-service-account", "svid-csi/svid-csi", "--replica", name])
            .args(["--http-listen", "127.0.0.1:0", "--log-level", "debug"])
            .args(more)
            .env("KUBECONFIG", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (audit, log) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let (lines, page) = (BufReader::new(child.stdout.take().unwrap()), audit.clone());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                page.lock().unwrap().push(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        let (lines, page) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                page.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, audit, log, _config: config }
    }

    /// What was written down about a request, as `decision reason`. All lines of a decision that
    /// shows in the API are there but for the last, which may be on its way.
    fn decisions(&self, request: &str) -> Vec<String> {
        let audit = self.audit.lock().unwrap();
        let about = audit.iter().filter(|line| line["request"] == request);
        about
            .map(|line| {
                format!(
                    "{} {}",
                    line["decision"].as_str().unwrap(),
                    line["reason"].as_str().unwrap()
                )
            })
            .collect()
    }

    /// Ends it as kubelet does; everything it wrote is there then.
    pub fn stop(&mut self) -> i32 {
        self.terminate();
        self.wait()
    }

    /// Tells it to end.
    pub fn terminate(&self) {
        svid_csi::sys::process::terminate(self.child.id()).unwrap();
    }

    pub fn wait(&mut self) -> i32 {
        self.child.wait().unwrap().code().expect("an exit status")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("{}", self.log.lock().unwrap());
        }
    }
}

pub fn pod(namespace: &str, name: &str, uid: &str, account: &str, driver: Option<&str>) -> Value {
    let volumes =
        driver.map(|driver| json!([{"name": "svid", "csi": {"driver": driver, "readOnly": true}}]));
    json!({
        "metadata": {"namespace": namespace, "name": name, "uid": uid},
        "spec": {"nodeName": "node-1", "serviceAccountName": account, "containers": [], "volumes": volumes},
        "status": {"phase": "Running"},
    })
}

/// A server with a driver on one node and one pod that uses it.
pub async fn cluster() -> ApiServer {
    let server = ApiServer::start().await;
    let store = &server.store;
    store.put("api/v1/nodes", json!({"metadata": {"name": "node-1", "uid": "n-1"}}));
    for namespace in ["shop", "svid-csi"] {
        store.put("api/v1/namespaces", json!({"metadata": {"name": namespace}}));
    }
    let account = json!({"metadata": {"namespace": "shop", "name": "cart"}});
    store.put("api/v1/serviceaccounts", account);
    store.put(PODS, pod("svid-csi", "driver-1", "d-1", "svid-csi", None));
    store.put(PODS, pod("shop", "cart-0", "p-1", "cart", Some("csi.svid.dev")));
    store.put(POLICIES, json!({"metadata": {"name": "default", "generation": 1}, "spec": {}}));
    server
}

/// What the driver on node-1 asks for the pod `cart-0`.
fn request(name: &str) -> (Value, PrivateKey) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let csr = Csr::create(&key, &ID.parse().unwrap()).unwrap();
    let pem = csr.to_pem();
    let request = json!({
        "metadata": {
            "name": name,
            "labels": {NODE_UID_LABEL: "n-1"},
            "annotations": {
                annotation::POD_NAMESPACE: "shop",
                annotation::POD_NAME: "cart-0",
                annotation::POD_UID: "p-1",
            },
        },
        "spec": {
            "signerName": SIGNER,
            "request": base64(pem.as_bytes()),
            "expirationSeconds": 3600,
            "usages": USAGES,
            "username": "system:serviceaccount:svid-csi:svid-csi",
            "extra": {
                extra::NODE_NAME: ["node-1"], extra::NODE_UID: ["n-1"],
                extra::POD_NAME: ["driver-1"], extra::POD_UID: ["d-1"],
            },
        },
    });
    (request, key)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The certificate of a request, once it has one.
async fn certificate(store: &Store, name: &str) -> X509Svid {
    let encoded = store
        .until("a certificate", |store| {
            store
                .get(REQUESTS, "", name)?
                .pointer("/status/certificate")?
                .as_str()
                .map(str::to_owned)
        })
        .await;
    use base64::Engine as _;
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    X509Svid::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap()
}

/// The condition of this type, once the request has one: reason and message.
async fn condition(store: &Store, name: &str, kind: &str) -> (String, String) {
    store
        .until(kind, |store| {
            let request = store.get(REQUESTS, "", name)?;
            let all = request.pointer("/status/conditions")?.as_array()?.clone();
            let found = all.into_iter().find(|condition| condition["type"] == kind)?;
            let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
            Some((text("reason"), text("message")))
        })
        .await
}

pub fn bundle(store: &Store) -> TrustBundle {
    let map = store.get("api/v1/configmaps", "svid-csi", "svid-csi-bundle").expect("the bundle");
    let jwks = map["data"]["bundle.json"].as_str().unwrap();
    TrustBundle::from_jwks("example.org".parse().unwrap(), jwks.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_approved_and_signed_with_two_writes() {
    let server = cluster().await;
    let mut replica = Replica::start(&server, "a");
    let (request, key) = request("svid-1");
    server.store.put(REQUESTS, request);
    let svid = certificate(&server.store, "svid-1").await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH + now;
    svid.verify(&ID.parse().unwrap(), key.spki_der(), &bundle(&server.store), now).unwrap();
    let (reason, message) = condition(&server.store, "svid-1", "Approved").await;
    let message: Value = serde_json::from_str(&message).unwrap();
    assert_eq!((reason.as_str(), &message["policy"]), ("SvidPolicy", &json!("default")));
    assert_eq!(server.store.writes("/svid-1").len(), 2, "{:?}", server.store.writes("/svid-1"));
    assert_eq!(replica.stop(), 0);
    assert_eq!(replica.decisions("svid-1"), ["approve SvidPolicy", "sign SvidPolicy"]);
    let lease =
        server.store.get("apis/coordination.k8s.io/v1/leases", "svid-csi", "svid-csi-controller");
    assert!(lease.unwrap()["spec"]["holderIdentity"].is_null(), "the Lease was not released");
}

/// DESIGN §5: what the caches miss is read live before it is a reason to deny.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_no_watch_told_of_is_read_and_one_that_is_not_there_is_denied() {
    let server = cluster().await;
    let store = &server.store;
    store.delete(PODS, "shop", "cart-0");
    let replica = Replica::start(&server, "a");
    let (first, _) = request("svid-1");
    store.put(REQUESTS, first);
    let (reason, message) = condition(store, "svid-1", "Denied").await;
    assert_eq!(reason, "PodMissing", "{message}");
    assert!(store.reads("/pods/cart-0") > 0);

    store.put_silently(PODS, pod("shop", "cart-0", "p-1", "cart", Some("csi.svid.dev")));
    let (second, _) = request("svid-2");
    store.put(REQUESTS, second);
    certificate(store, "svid-2").await;

    // A name that would lead elsewhere is nobody's.
    let before = store.reads("");
    let (mut third, _) = request("svid-3");
    third["metadata"]["annotations"][annotation::POD_NAME] = json!("../../../api/v1/nodes/node-1");
    store.put(REQUESTS, third);
    assert_eq!(condition(store, "svid-3", "Denied").await.0, "PodMissing");
    assert_eq!(store.reads(""), before);
    drop(replica);
}

/// DESIGN §5: an approval by anyone else is never sufficient.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_approved_is_decided_anew() {
    let server = cluster().await;
    let replica = Replica::start(&server, "a");
    let approved = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Other", "message": "by another"}]});
    let (mut bad, _) = request("svid-1");
    bad["status"] = approved.clone();
    bad["metadata"]["annotations"][annotation::POD_UID] = json!("another");
    server.store.put(REQUESTS, bad);
    let (reason, _) = condition(&server.store, "svid-1", "Failed").await;
    assert_eq!(reason, "PodReplaced");
    let (mut good, _) = request("svid-2");
    good["status"] = approved;
    server.store.put(REQUESTS, good);
    certificate(&server.store, "svid-2").await;
    assert_eq!(server.store.writes("/svid-2").len(), 1);
    drop(replica);
}

/// DESIGN §5: the signer evaluates it all again on the very object that it signs.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_swapped_between_approval_and_signing_is_not_signed() {
    let server = cluster().await;
    let mut replica = Replica::start(&server, "a");
    let swap = |store: &Store| {
        let mut request = store.get(REQUESTS, "", "svid-1").unwrap();
        request["metadata"]["annotations"][annotation::POD_NAME] = json!("another");
        store.put(REQUESTS, request);
    };
    server.store.fault(Fault {
        method: Method::PATCH,
        suffix: "/svid-1/status",
        status: StatusCode::CONTINUE,
        retry_after: 0,
        before: Some(Box::new(swap)),
    });
    server.store.put(REQUESTS, request("svid-1").0);
    let (reason, _) = condition(&server.store, "svid-1", "Failed").await;
    assert_eq!(reason, "PodMissing");
    let request = server.store.get(REQUESTS, "", "svid-1").unwrap();
    assert!(request.pointer("/status/certificate").is_none());
    replica.stop();
    // The certificate that was made has its line; nobody has the certificate. It may be tried once
    // more before the watch tells of the change.
    let mut lines = replica.decisions("svid-1");
    lines.dedup();
    assert_eq!(lines, ["approve SvidPolicy", "sign SvidPolicy", "fail PodMissing"]);
}

/// 429, 503, 409 and 410: each is waited for or started over, and nothing is lost or done twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_now_and_then_is_asked_again() {
    let server = cluster().await;
    let store = &server.store;
    let replica = Replica::start(&server, "a");
    store.put(REQUESTS, request("svid-0").0);
    certificate(store, "svid-0").await;
    let fault = |suffix, status, retry_after| Fault {
        method: Method::PATCH,
        suffix,
        status,
        retry_after,
        before: None,
    };
    store.fault(fault("/svid-1/approval", StatusCode::TOO_MANY_REQUESTS, 1));
    store.fault(fault("/svid-1/approval", StatusCode::SERVICE_UNAVAILABLE, 0));
    store.fault(fault("/svid-1/status", StatusCode::INTERNAL_SERVER_ERROR, 0));
    store.put(REQUESTS, request("svid-1").0);
    certificate(store, "svid-1").await;

    // A conflict that comes with a change: the watch tells it, and it is done anew.
    let touch = |store: &Store| {
        let mut request = store.get(REQUESTS, "", "svid-2").unwrap();
        request["metadata"]["generateName"] = json!("x");
        store.put(REQUESTS, request);
    };
    store.fault(Fault {
        before: Some(Box::new(touch)),
        ..fault("/svid-2/approval", StatusCode::CONTINUE, 0)
    });
    store.put(REQUESTS, request("svid-2").0);
    certificate(store, "svid-2").await;

    // What happened while no watch listened.
    store.put_silently(REQUESTS, request("svid-3").0);
    store.forget();
    certificate(store, "svid-3").await;
    drop(replica);
}

/// What can't be asked is no reason to deny, nor to approve.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_while_the_server_cannot_be_asked() {
    let server = cluster().await;
    let store = &server.store;
    let mut replica = Replica::start(&server, "a");
    store.put(REQUESTS, request("svid-0").0);
    certificate(store, "svid-0").await;
    store.delete(PODS, "shop", "cart-0");
    store.put_silently(PODS, pod("shop", "cart-0", "p-1", "cart", Some("csi.svid.dev")));
    for _ in 0..2 {
        store.fault(Fault {
            method: Method::GET,
            suffix: "/pods/cart-0",
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: 0,
            before: None,
        });
    }
    store.put(REQUESTS, request("svid-1").0);
    certificate(store, "svid-1").await;
    replica.stop();
    assert_eq!(replica.decisions("svid-1"), ["approve SvidPolicy", "sign SvidPolicy"]);
}

/// Two replicas: harmless, and one is enough.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_sign_each_request_once_and_one_goes_on_alone() {
    let server = cluster().await;
    let store = &server.store;
    let mut replicas = [Replica::start(&server, "a"), Replica::start(&server, "b")];
    for index in 0..20 {
        store.put(REQUESTS, request(&format!("svid-{index}")).0);
    }
    for index in 0..20 {
        let name = format!("svid-{index}");
        certificate(store, &name).await;
    }
    let lease = || {
        let lease =
            store.get("apis/coordination.k8s.io/v1/leases", "svid-csi", "svid-csi-controller");
        lease.unwrap()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    let leader = usize::from(lease().starts_with('b'));
    // The leader dies without a word; the other doesn't wait for the Lease.
    replicas[leader].child.kill().unwrap();
    replicas[leader].child.wait().unwrap();
    store.put(REQUESTS, request("svid-last").0);
    let began = std::time::Instant::now();
    certificate(store, "svid-last").await;
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    let other = &mut replicas[1 - leader];
    other.stop();
    assert_eq!(other.decisions("svid-last"), ["approve SvidPolicy", "sign SvidPolicy"]);
    let mut serials = std::collections::BTreeSet::new();
    for index in 0..20 {
        let name = format!("svid-{index}");
        assert!(serials.insert(certificate(store, &name).await.serial_hex().to_owned()));
        assert!(store.writes(&format!("/{name}/")).len() <= 4, "{:?}", store.writes(&name));
    }
}
