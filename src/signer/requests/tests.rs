//! The signer against an API server in this process that fails in every way.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    id::SpiffeId,
    k8s::{
        ObjectName,
        fake::{FakeApi, Fault},
    },
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey},
    volume::PodInfo,
};

mod cert_manager;

/// A request of the n-th volume, with a new key.
pub(super) fn request(n: usize) -> SignRequest {
    let id: SpiffeId = "spiffe://example.org/ns/shop/sa/cart".parse().unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    SignRequest {
        volume: format!("csi-{n}").parse().unwrap(),
        pod: PodInfo {
            namespace: "shop".to_owned(),
            name: format!("cart-{n}"),
            uid: n.to_string(),
            service_account: "cart".to_owned(),
        },
        csr: Csr::create(&key, &id).unwrap(),
        id,
        ttl: Duration::from_secs(3600),
        explicit_ttl: None,
        explicit_key_algorithm: None,
        dns_names: Vec::new(),
        pod_token: None,
        issuer: None,
    }
}

/// A cluster with one node and, while it is switched on, a controller.
struct Rig {
    api: Arc<FakeApi>,
    cluster: Cluster,
    controller: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

// === impl Rig ===

impl Rig {
    fn new() -> Self {
        let (cluster, api) = FakeApi::new("worker-1", "n1");
        let controller = Arc::new(AtomicBool::new(true));
        let mut tasks = JoinSet::new();
        tasks.spawn(control(api.clone(), controller.clone()));
        Self { api, cluster, controller, tasks }
    }

    /// The signer of a driver that was started now.
    fn start(&mut self) -> Arc<RequestSigner> {
        let name = "worker-1".to_owned();
        let signer =
            Arc::new(RequestSigner::csr(self.cluster.clone(), name, RequestMetrics::default()));
        self.tasks.spawn(signer.clone().run(CancellationToken::new()));
        signer
    }

    async fn ready(&mut self) -> Arc<RequestSigner> {
        let signer = self.start();
        until("the signer is ready", || signer.status().ready.is_ok()).await;
        signer
    }

    fn switch_controller(&self, on: bool) {
        self.controller.store(on, Ordering::SeqCst);
    }
}

/// Waits on tokio's paused clock.
async fn until(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if check() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("never came true: {what}");
}

/// Signs what nobody has decided about.
async fn control(api: Arc<FakeApi>, on: Arc<AtomicBool>) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let domain = "example.org".parse().unwrap();
    let day = Duration::from_secs(86_400);
    let authority = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
    loop {
        sleep(Duration::from_millis(20)).await;
        for name in api.names() {
            let Some(object) = api.object(&name) else { continue };
            if !on.load(Ordering::SeqCst) || !object["status"].is_null() {
                continue;
            }
            let pem = STANDARD.decode(object["spec"]["request"].as_str().unwrap()).unwrap();
            let csr = Csr::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
            let svid = authority
                .issue(csr.public_key(), csr.id(), &[], Duration::from_secs(600), now)
                .unwrap();
            let approved = json!([{ "type": "Approved", "status": "True", "reason": "SvidPolicy", "message": "{}" }]);
            let certificate = STANDARD.encode(svid.chain_pem());
            api.decide(&name, json!({ "conditions": approved, "certificate": certificate }));
        }
    }
}

fn denied(reason: &str, message: &str) -> serde_json::Value {
    json!({ "conditions": [{ "type": "Denied", "status": "True", "reason": reason, "message": message }] })
}

#[tokio::test(start_paused = true)]
async fn a_request_is_made_followed_read_and_deleted() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    let requests: Vec<_> = (0..100).map(request).collect();
    let signed = futures_util::future::join_all(requests.iter().map(|it| signer.sign(it))).await;
    for (request, svid) in requests.iter().zip(signed) {
        assert_eq!(svid.unwrap().leaf().spki_der(), request.csr.spki_der());
    }
    assert_eq!(signer.metrics.in_flight.get(), 0);
    until("all are deleted", || rig.api.names().is_empty()).await;
    // One watch, of this node; no request is read besides.
    assert_eq!(rig.api.count("POST"), 100);
    assert_eq!(rig.api.count("DELETE"), 100);
    assert_eq!((rig.api.count("WATCH"), rig.api.count("GET")), (2, 0), "the first was refused");
}

/// Invariant 4: the same key makes the same name, so nothing is asked for twice.
#[tokio::test(start_paused = true)]
async fn a_driver_that_was_killed_goes_on_with_its_request() {
    let mut rig = Rig::new();
    rig.switch_controller(false);
    let wish = request(1);
    let killed = rig.ready().await;
    let mut first = Box::pin(killed.sign(&wish));
    tokio::select! {
        _ = &mut first => panic!("nobody signs"),
        () = until("it is made", || rig.api.count("POST") == 1) => {}
    }
    drop(first);
    let signer = rig.ready().await;
    rig.switch_controller(true);
    signer.sign(&wish).await.unwrap();
    assert_eq!(rig.api.count("POST"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_found() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    for at_the_watch in [true, false] {
        let wish = request(1);
        rig.api.fail("POST", Fault::DoneInSilence);
        let error = signer.sign(&wish).await.unwrap_err();
        assert_eq!(error.class(), Class::Unavailable, "{error}");
        // A new process has not seen it yet.
        let signer = if at_the_watch { signer.clone() } else { rig.start() };
        until("it knows its node", || signer.node_uid.borrow().is_ok()).await;
        signer.sign(&wish).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_failure_of_the_api_server_has_its_class() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    for (fault, class, retry_after) in [
        (Fault::Status(503, 0), Class::Unavailable, None),
        (Fault::Status(500, 3), Class::Unavailable, Some(3)),
        (Fault::Status(429, 7), Class::Unavailable, Some(7)),
        (Fault::Status(409, 0), Class::Unavailable, None),
        (Fault::Silence, Class::Unavailable, None),
        (Fault::Status(403, 0), Class::NotReady, None),
        (Fault::Status(422, 0), Class::Internal, None),
    ] {
        rig.api.fail("POST", fault);
        let error = signer.sign(&request(1)).await.unwrap_err();
        assert_eq!(error.class(), class, "{fault:?}: {error}");
        assert_eq!(error.retry_after(), retry_after.map(Duration::from_secs), "{fault:?}");
        assert!(error.to_string().contains("create a CertificateSigningRequest"), "{error}");
    }
    let class = ClassLabel(Class::Unavailable);
    let failed = signer.metrics.api_errors.get_or_create(&ApiCall { call: "create", class }).get();
    assert_eq!(failed, 5);
    signer.sign(&request(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_watch_costs_no_answer() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    rig.api.expire_watches();
    rig.switch_controller(false);
    let wish = request(1);
    let decide = async {
        until("it is made", || rig.api.count("POST") == 1).await;
        rig.api.expire_watches();
        rig.switch_controller(true);
    };
    let (signed, ()) = tokio::join!(signer.sign(&wish), decide);
    signed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_silent_is_not_waited_for() {
    let mut rig = Rig::new();
    rig.api.fail("LIST", Fault::Silence);
    let signer = rig.start();
    until("it knows its node", || signer.node_uid.borrow().is_ok()).await;
    signer.sign(&request(1)).await.unwrap();
    assert_eq!(rig.api.count("GET"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_undecided_request_stays_for_the_next_try() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    rig.switch_controller(false);
    let wish = request(1);
    let error = signer.sign(&wish).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("kubectl get csr svid-"), "{error}");
    assert_eq!(rig.api.names().len(), 1);
    rig.switch_controller(true);
    signer.sign(&wish).await.unwrap();
    assert_eq!(rig.api.count("POST"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_denied_request_says_why_and_is_deleted() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    rig.switch_controller(false);
    let wish = request(1);
    let deny = async {
        until("it is made", || rig.api.count("POST") == 1).await;
        rig.api.decide(&rig.api.names()[0], denied("PodNotFound", "there is no pod shop/cart-1"));
    };
    let (signed, ()) = tokio::join!(signer.sign(&wish), deny);
    let error = signed.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("PodNotFound: there is no pod shop/cart-1"), "{error}");
    until("it is deleted", || rig.api.names().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_somebody_deletes_is_made_again_by_the_next_try() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    rig.switch_controller(false);
    let wish = request(1);
    let delete = async {
        let key = ObjectName::cluster_wide(draft::name(&wish));
        until("it is seen", || signer.requests.get(&key).is_some()).await;
        sleep(Duration::from_millis(100)).await;
        rig.api.delete(&key.name);
    };
    let (signed, ()) = tokio::join!(signer.sign(&wish), delete);
    assert!(signed.unwrap_err().to_string().contains("was deleted"));
    rig.switch_controller(true);
    signer.sign(&wish).await.unwrap();
    assert_eq!(rig.api.count("POST"), 2);
}

/// After a restart the node may know another identity than it asked for before.
#[tokio::test(start_paused = true)]
async fn a_request_for_another_identity_is_replaced() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    rig.switch_controller(false);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let mut wish = request(1);
    for path in ["/one", "/two"] {
        wish.id = SpiffeId::new(&"example.org".parse().unwrap(), path).unwrap();
        wish.csr = Csr::create(&key, &wish.id).unwrap();
        rig.switch_controller(path == "/two");
        let signed = signer.sign(&wish).await;
        assert_eq!(signed.is_ok(), path == "/two");
        if let Ok(svid) = signed {
            assert_eq!(svid.id().path(), "/two");
        }
    }
    assert_eq!(rig.api.count("POST"), 2);
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_it_starts_and_says_why_it_signs_nothing() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.api.fail("REVIEW", Fault::Status(503, 0));
    }
    let signer = rig.start();
    until("it was tried", || rig.api.count("REVIEW") == 1).await;
    sleep(Duration::from_millis(1)).await;
    for error in [signer.sign(&request(1)).await.unwrap_err(), signer.status().ready.unwrap_err()] {
        assert_eq!(error.class(), Class::Unavailable);
        assert!(error.to_string().contains("ask who we are"), "{error}");
    }
    until("the API server is back", || signer.status().ready.is_ok()).await;
    signer.sign(&request(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_bound_to_nothing_is_for_a_person_to_mend() {
    let mut rig = Rig::new();
    rig.api.forget_extra();
    let signer = rig.start();
    until("it was told", || {
        signer.status().ready.is_err_and(|error| error.class() == Class::NotReady)
    })
    .await;
    let error = signer.sign(&request(1)).await.unwrap_err();
    assert!(error.to_string().contains("Kubernetes 1.30"), "{error}");
    assert_eq!(rig.api.count("POST"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_deleted_after_three_minutes() {
    let mut rig = Rig::new();
    rig.switch_controller(false);
    let orphan = draft::draft(
        &request(1),
        "svid-orphan",
        "n1",
        &Terms { lifetime: Duration::from_secs(3600), issuer: None },
    );
    rig.cluster.create_request(&orphan).await.unwrap();
    let signer = rig.ready().await;
    sleep(tidy::UNATTENDED - Duration::from_secs(10)).await;
    assert_eq!(rig.api.names(), ["svid-orphan"]);
    until("it is deleted", || rig.api.names().is_empty()).await;
    assert!(signer.status().ready.is_ok());
}

/// Somebody's finalizer may hold an object of our name.
#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_deleted_is_not_fought_over() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    rig.switch_controller(false);
    let (mut wish, other) = (request(1), request(1));
    signer.sign(&wish).await.unwrap_err();
    rig.api.hold_deletions();
    wish.id = "spiffe://example.org/other".parse().unwrap();
    let error = signer.sign(&wish).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("can't be deleted"), "{error}");
    assert!(rig.api.count("DELETE") <= 2);
    rig.switch_controller(true);
    signer.sign(&other).await.unwrap();
}

/// A retry takes up a request that is about to be deleted.
#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_is_not_deleted() {
    let mut rig = Rig::new();
    let signer = rig.ready().await;
    rig.switch_controller(false);
    let wish = request(1);
    let name = draft::name(&wish);
    let meanwhile = async {
        until("it is made", || rig.api.count("POST") == 1).await;
        signer.tidy.delete(name.clone(), format!("uid-{name}"));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(rig.api.names(), std::slice::from_ref(&name));
        rig.switch_controller(true);
    };
    let (signed, ()) = tokio::join!(signer.sign(&wish), meanwhile);
    signed.unwrap();
    until("it is deleted", || rig.api.names().is_empty()).await;
}
