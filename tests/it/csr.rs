//! `--signer csr`: the node plugin's process in front of an API server and a controller that the
//! test holds.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use svid_csi::{
    clock::{Clock, SystemClock},
    pki::{Authority, Csr, KeyAlgorithm},
};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    api_server::{ApiServer, REQUESTS, Store},
    plugin::{Node, Pod, TRUST_DOMAIN, assert_status, eventually, on_a_node},
    process::get,
    steps::{Steps, Stop, Then},
    volume::{Set, checked},
};

/// What policy gives instead of the default, where it does.
const ASSIGNED: &str = "spiffe://example.org/assigned";

/// A cluster with one node.
struct Cluster {
    server: ApiServer,
    node: Node,
    controller: Arc<Controller>,
    _tasks: JoinSet<()>,
}

/// A controller that admits everything, unless it is told otherwise.
#[derive(Default)]
struct Controller {
    /// Pod UID and name of every request that it ever saw.
    seen: Mutex<BTreeSet<(String, String)>>,
    /// Whether policy gives pods another identity and key.
    assigns: AtomicBool,
    denies: AtomicBool,
}

// === impl Cluster ===

impl Cluster {
    async fn start() -> Self {
        let server = ApiServer::start().await;
        let domain = TRUST_DOMAIN.parse().unwrap();
        let now = SystemClock.now();
        let day = Duration::from_secs(86_400);
        let authority = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
        let bundle = authority.bundle().with_sequence(Some(1)).to_jwks();
        server.store.put(
            "api/v1/configmaps",
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "namespace": "svid-csi", "name": "svid-csi-bundle" },
                "data": { "bundle.json": bundle },
            }),
        );
        let controller = Arc::new(Controller::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(control(server.store.clone(), authority, controller.clone()));
        let mut node = Node::without_ca();
        node.set_extra(&["--signer", "csr", "--kubeconfig"]);
        fs::write(node.path("kubeconfig"), server.kubeconfig("svid-csi")).unwrap();
        node.start().await;
        Self { server, node, controller, _tasks: tasks }
    }

    async fn restart(&mut self) {
        self.node.kill().await;
        self.node.start().await;
    }

    fn has_pending_key(&self, pod: &Pod) -> bool {
        self.node.target(pod).join(".svid/pending.key").exists()
    }
}

// === impl Controller ===

impl Controller {
    /// How many requests were made for a pod in all.
    fn requests(&self, pod: &Pod) -> usize {
        self.seen.lock().unwrap().iter().filter(|(uid, _)| *uid == pod.uid).count()
    }

    fn decide(&self, authority: &Authority, object: &Value, now: SystemTime) -> Value {
        let condition = |kind: &str, reason: &str, message: Value| json!([{ "type": kind, "status": "True", "reason": reason, "message": message }]);
        let pem = STANDARD.decode(object["spec"]["request"].as_str().unwrap()).unwrap();
        let csr = Csr::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
        if self.denies.load(Ordering::SeqCst) {
            let conditions = condition("Denied", "NoPolicy", json!("no policy matches the pod"));
            return json!({ "conditions": conditions });
        }
        if self.assigns.load(Ordering::SeqCst) && csr.id().as_str() != ASSIGNED {
            let message = json!({ "id": ASSIGNED, "keyAlgorithm": "ecdsa-p384" }).to_string();
            let conditions = condition("Denied", "IdentityIs", json!(message));
            return json!({ "conditions": conditions });
        }
        let ttl = object["metadata"]["annotations"]["csi.svid.dev/ttl"].as_str();
        let ttl = Duration::from_secs(if ttl == Some("10s") { 10 } else { 3600 });
        let svid = authority.issue(csr.public_key(), csr.id(), &[], ttl, now).unwrap();
        let conditions = condition("Approved", "SvidPolicy", json!("{}"));
        json!({ "conditions": conditions, "certificate": STANDARD.encode(svid.chain_pem()) })
    }
}

/// Decides about every request, once.
async fn control(store: Arc<Store>, authority: Authority, controller: Arc<Controller>) {
    loop {
        let undecided = |store: &Store| {
            let mut all = store.all(REQUESTS).into_iter();
            all.find(|object| object["status"]["conditions"].is_null())
        };
        let mut object = store.wait(undecided).await;
        let text = |pointer: &str| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let uid = text("/metadata/annotations/csi.svid.dev~1pod-uid");
        controller.seen.lock().unwrap().insert((uid, text("/metadata/name")));
        object["status"] = controller.decide(&authority, &object, SystemClock.now());
        store.put(REQUESTS, object);
    }
}

/// Invariant 4: a restart resumes the request, and asks for nothing twice.
#[test]
fn a_publish_that_is_killed_at_any_step_makes_one_request() {
    on_a_node(async || {
        let mut cluster = Cluster::start().await;
        let (mut n, mut published, mut with_key) = (1, false, 0);
        while !published {
            let pod = Pod::new(1_000 + n);
            cluster.node.prepare(&pod);
            let dir = cluster.node.kubelet().join("pods").join(&pod.uid);
            let pid = cluster.node.pid();
            let mut steps = Steps::watch(pid, &dir, Stop::Before(n), Then::Kill).await;
            published = cluster.node.publish(&pod).await.is_ok();
            let seen = if published {
                steps.release().await
            } else {
                assert!(steps.stopped().await, "{:?}", steps.seen);
                with_key += usize::from(cluster.has_pending_key(&pod));
                cluster.restart().await;
                cluster.node.publish(&pod).await.unwrap();
                steps.seen
            };
            checked(&cluster.node, &pod);
            assert_eq!(cluster.controller.requests(&pod), 1, "after {seen:#?}");
            assert!(!cluster.has_pending_key(&pod), "after {seen:#?}");
            cluster.node.unpublish(&pod).await.unwrap();
            n += 1;
        }
        assert!(n > 15 && with_key > 5, "{n} steps, {with_key} with a request");
    });
}

/// DESIGN.md §5: the node asks once more for what policy gives, and remembers it.
#[test]
fn an_assigned_identity_is_the_volumes_from_then_on() {
    on_a_node(async || {
        let mut cluster = Cluster::start().await;
        cluster.controller.assigns.store(true, Ordering::SeqCst);
        let pod = Pod::new(1).with("ttl", "10s");
        cluster.node.publish(&pod).await.unwrap();
        let is_assigned = |cluster: &Cluster| {
            let set = Set::read(&cluster.node.target(&pod)).unwrap();
            set.check(ASSIGNED).unwrap();
            assert_eq!(set.key.algorithm(), KeyAlgorithm::EcdsaP384);
            let record = cluster.node.record(&pod).unwrap();
            assert_eq!(record["spiffeId"], ASSIGNED);
            assert_eq!(record["assignedId"], ASSIGNED);
            assert_eq!(record["assignedKeyAlgorithm"], "ecdsa-p384");
            set.svid.serial_hex().to_owned()
        };
        let first = is_assigned(&cluster);
        assert_eq!(cluster.controller.requests(&pod), 2, "the default, then what policy gives");
        cluster.restart().await;
        eventually("it is renewed", async || (is_assigned(&cluster) != first).then_some(())).await;
        let (requests, serial) = (cluster.controller.requests(&pod), is_assigned(&cluster));
        eventually("and again", async || (is_assigned(&cluster) != serial).then_some(())).await;
        assert!(cluster.controller.requests(&pod) - requests <= 2, "renewals ask for it at once");
        cluster.node.unpublish(&pod).await.unwrap();
    });
}

/// Invariant 7.
#[test]
fn a_denied_publish_says_why_and_leaves_nothing() {
    on_a_node(async || {
        let cluster = Cluster::start().await;
        cluster.controller.denies.store(true, Ordering::SeqCst);
        let pod = Pod::new(1);
        let parts = ["NoPolicy", "no policy matches the pod"];
        assert_status(cluster.node.publish(&pod).await, Code::PermissionDenied, &parts);
        assert!(!cluster.node.target(&pod).exists() && cluster.node.mounts().is_empty());
        cluster.controller.denies.store(false, Ordering::SeqCst);
        cluster.node.publish(&pod).await.unwrap();
        checked(&cluster.node, &pod);
        cluster.node.unpublish(&pod).await.unwrap();
    });
}

/// Invariants 3 and 4: without an API server a restart brings every volume back.
#[test]
fn without_an_api_server_volumes_live_on() {
    on_a_node(async || {
        let mut cluster = Cluster::start().await;
        let pod = Pod::new(1);
        cluster.node.publish(&pod).await.unwrap();
        let serial = checked(&cluster.node, &pod).svid.serial_hex().to_owned();
        eventually("it is ready", async || {
            (get(&cluster.node, "/readyz").await.0 == 200).then_some(())
        })
        .await;
        cluster.server.stop();
        cluster.restart().await;
        let (status, reason) = eventually("it was tried", async || {
            let answer = get(&cluster.node, "/readyz").await;
            answer.1.contains("ask who we are").then_some(answer)
        })
        .await;
        assert_eq!(status, 503, "{reason}");
        assert_eq!(checked(&cluster.node, &pod).svid.serial_hex(), serial);
        assert!(get(&cluster.node, "/metrics").await.1.contains("svid_csi_signer_ready 0"));
        // The same request again is no error.
        cluster.node.publish(&pod).await.unwrap();
        let parts = ["no SVID", "tried for 20 s"];
        assert_status(cluster.node.publish(&Pod::new(2)).await, Code::Unavailable, &parts);
        cluster.node.unpublish(&pod).await.unwrap();
        cluster.node.unpublish(&Pod::new(2)).await.unwrap();
    });
}
