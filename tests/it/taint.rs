//! A CA key that is believed stolen: everything under it is renewed at once, and spread (invariant
//! 9); what can't be renewed stays (invariant 3).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use svid_csi::{
    clock::{Clock, SystemClock},
    pki::{Authority, X509Svid},
    signer::{SignError, SignRequest, Signer, SignerStatus},
    trust::{BundleStore, PublishedTrust},
};
use tokio::time::sleep;

use crate::{
    in_process::{Machine, TestClock, authority},
    plugin::{Pod, TRUST_DOMAIN, eventually, on_a_node},
};

const PODS: usize = 20;

/// Signs with the CA of now.
struct Rotated {
    authority: Mutex<Arc<Authority>>,
    clock: Arc<TestClock>,
    signed: AtomicUsize,
}

/// Two CAs that everybody trusts, of which one signs.
struct Scene {
    machine: Machine,
    signer: Arc<Rotated>,
    store: Arc<BundleStore>,
    old: Arc<Authority>,
    new: Arc<Authority>,
}

// === impl Rotated ===

#[async_trait]
impl Signer for Rotated {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        self.signed.fetch_add(1, Ordering::SeqCst);
        let authority = self.authority.lock().unwrap().clone();
        let (csr, id) = (&request.csr, &request.id);
        let issued = authority.issue(csr.public_key(), id, &[], request.ttl, self.clock.now());
        issued.map_err(|error| SignError::new(error.class(), error.to_string()))
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: Ok(()), ca_not_after: None }
    }
}

// === impl Scene ===

impl Scene {
    fn set() -> Self {
        let machine = Machine::new();
        let [old, new] = [(); 2].map(|()| Arc::new(authority(SystemClock.now())));
        let signer = Arc::new(Rotated {
            authority: Mutex::new(old.clone()),
            clock: machine.clock.clone(),
            signed: AtomicUsize::new(0),
        });
        let scene = Self { machine, signer, store: Arc::default(), old, new };
        scene.taint(&scene.store, "");
        scene
    }

    fn taint(&self, store: &BundleStore, keys: &str) {
        let bundle = self.old.bundle().merged(&self.new.bundle()).with_sequence(Some(7));
        let domain = TRUST_DOMAIN.parse().unwrap();
        let trust = PublishedTrust::parse(&domain, Some(&bundle.to_jwks()), Some(keys));
        store.publish_shared(trust.unwrap()).unwrap();
    }

    fn stolen(&self, pod: &Pod) -> String {
        self.machine.set(pod).svid.leaf().authority_key_id_hex().unwrap()
    }

    fn signed(&self) -> usize {
        self.signer.signed.load(Ordering::SeqCst)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        let now = self.machine.clock.now();
        self.machine.set(pod).svid.verify_chain(&self.new.bundle(), now).is_ok()
    }
}

#[test]
fn what_a_stolen_key_signed_is_renewed_once_and_spread_over_a_tenth_of_its_life() {
    on_a_node(async || {
        let scene = Scene::set();
        let plugin = scene.machine.start(scene.signer.clone(), scene.store.clone());
        // A tenth of it are 5 s.
        let pods: Vec<_> = (0..PODS).map(|n| Pod::new(n).with("ttl", "50s")).collect();
        for pod in &pods {
            scene.machine.publish(&plugin, pod).await;
        }
        *scene.signer.authority.lock().unwrap() = scene.new.clone();
        scene.taint(&scene.store, &scene.stolen(&pods[0]));
        sleep(Duration::from_millis(1_500)).await;
        let early = scene.signed() - PODS;
        assert!((1..PODS - 4).contains(&early), "{early} of {PODS} in the first 1.5 of 5 s");
        eventually("all are renewed", async || {
            pods.iter().all(|pod| scene.is_new(pod)).then_some(())
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.signed(), 2 * PODS, "once each");
    });
}

/// The driver stops in between, and the API server is away when it starts: the record knows.
#[test]
fn a_restart_does_not_forget_that_a_key_is_stolen() {
    on_a_node(async || {
        let scene = Scene::set();
        let plugin = scene.machine.start(scene.signer.clone(), scene.store.clone());
        let pod = Pod::new(1);
        scene.machine.publish(&plugin, &pod).await;
        scene.taint(&scene.store, &scene.stolen(&pod));
        let record = scene.machine.target(&pod).join(".svid/record.json");
        eventually("it is noted", async || {
            std::fs::read_to_string(&record).ok()?.contains("\"taint\"").then_some(())
        })
        .await;
        drop(plugin);
        *scene.signer.authority.lock().unwrap() = scene.new.clone();
        // Less than half of its life, but all of the tenth.
        scene.machine.clock.set_ahead(Duration::from_secs(361));
        let bundle = scene.store.current().unwrap().own.clone();
        let store = Arc::new(BundleStore::recovered(Some(bundle)));
        let _plugin = scene.machine.start(scene.signer.clone(), store);
        // Overdue ones have a minute, as after any restart.
        scene.machine.clock.set_ahead(Duration::from_secs(361 + 60));
        eventually("it is renewed", async || scene.is_new(&pod).then_some(())).await;
        let text = std::fs::read_to_string(&record).unwrap();
        assert!(!text.contains("\"taint\""), "{text}");
    });
}

/// A replica that has not heard of it signs on with the old key.
#[test]
fn a_renewal_that_does_not_help_is_not_repeated_in_a_loop() {
    on_a_node(async || {
        let scene = Scene::set();
        let plugin = scene.machine.start(scene.signer.clone(), scene.store.clone());
        let pods: Vec<_> = (0..PODS).map(|n| Pod::new(n).with("ttl", "20s")).collect();
        for pod in &pods {
            scene.machine.publish(&plugin, pod).await;
        }
        scene.taint(&scene.store, &scene.stolen(&pods[0]));
        sleep(Duration::from_secs(5)).await;
        // The first within 2 s, the second 2 to 4 s later, the third 6 to 8 s after that.
        let renewals = scene.signed() - PODS;
        assert!((PODS..=2 * PODS).contains(&renewals), "{renewals} renewals of {PODS} in 5 s");
        for pod in &pods {
            scene.machine.set(pod).check(&pod.id()).unwrap();
        }
    });
}

/// Invariant 3.
#[test]
fn a_key_that_is_not_stolen_after_all_changes_nothing() {
    on_a_node(async || {
        let scene = Scene::set();
        let plugin = scene.machine.start(scene.signer.clone(), scene.store.clone());
        let pod = Pod::new(1);
        scene.machine.publish(&plugin, &pod).await;
        let stolen = scene.stolen(&pod);
        let record = scene.machine.target(&pod).join(".svid/record.json");
        let noted = || std::fs::read_to_string(&record).unwrap().contains("\"taint\"");
        scene.taint(&scene.store, &stolen);
        eventually("it is noted", async || noted().then_some(())).await;
        scene.taint(&scene.store, "");
        eventually("it is forgotten", async || (!noted()).then_some(())).await;
        assert_eq!(scene.signed(), 1);
    });
}
