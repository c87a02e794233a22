//! Invariants 2 and 7: a publish gives its signer time, and says what came of it.

use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

use super::*;
use crate::{
    id::SpiffeId,
    pki::{Authority, DnsName, KeyAlgorithm, SvidError},
    signer::SignerStatus,
    volume::{Limits, VolumeContext},
};

/// A signer that answers like this from that second on.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Error(Class),
    Nothing,
    Svid,
    /// Only as `/assigned` with a P-384 key, and says so.
    Assigns,
    /// Another ID each time.
    Wavers,
    /// A foreign ID.
    AssignsForeign,
    /// With a DNS name.
    Names,
    /// By a clock that is so many seconds ahead.
    Ahead(u64),
}

struct TestSigner {
    authority: Authority,
    script: Vec<(u64, Answer)>,
    remote: bool,
    started: Instant,
    /// When it was asked, and for which key.
    asked: Mutex<Vec<(Duration, Vec<u8>)>>,
}

struct TestClock;

/// The same, and it goes with tokio's.
struct Ticking(Instant);

impl Clock for Ticking {
    fn now(&self) -> SystemTime {
        TestClock.now() + self.0.elapsed()
    }
}

// === impl TestClock ===

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }
}

// === impl TestSigner ===

#[async_trait]
impl Signer for TestSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        let elapsed = self.started.elapsed();
        self.asked.lock().unwrap().push((elapsed, request.csr.spki_der().to_vec()));
        let at = self.script.iter().rev().find(|(from, _)| elapsed >= Duration::from_secs(*from));
        match at.unwrap().1 {
            Answer::Error(class) => Err(SignError::new(class, "the CA is on holiday")),
            Answer::Nothing => std::future::pending().await,
            Answer::Assigns if request.csr.key_algorithm() != Some(KeyAlgorithm::EcdsaP384) => {
                Err(identity_is("spiffe://example.org/assigned"))
            }
            Answer::Wavers if request.id.path() == "/one" => {
                Err(identity_is("spiffe://example.org/two"))
            }
            Answer::Wavers => Err(identity_is("spiffe://example.org/one")),
            Answer::AssignsForeign => Err(identity_is("spiffe://other.example/one")),
            Answer::Svid | Answer::Assigns => Ok(self.issue(request, &[])),
            Answer::Ahead(seconds) => {
                let (csr, id, ttl) = (&request.csr, &request.id, request.ttl);
                let now = TestClock.now() + Duration::from_secs(seconds);
                Ok(self.authority.issue(csr.public_key(), id, &[], ttl, now).unwrap())
            }
            Answer::Names => Ok(self.issue(request, &["a.example".parse().unwrap()])),
        }
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: Ok(()), ca_not_after: None }
    }

    fn is_remote(&self) -> bool {
        self.remote
    }
}

impl TestSigner {
    fn issue(&self, request: &SignRequest, names: &[DnsName]) -> X509Svid {
        let (csr, id, ttl) = (&request.csr, &request.id, request.ttl);
        self.authority.issue(csr.public_key(), id, names, ttl, TestClock.now()).unwrap()
    }
}

fn identity_is(id: &str) -> SignError {
    let key_algorithm = KeyAlgorithm::EcdsaP384;
    SignError::identity_is(Assigned { id: id.parse().unwrap(), key_algorithm })
}

fn issuer(script: &[(u64, Answer)]) -> (Arc<TestSigner>, Issuer) {
    let authority = authority();
    let bundles = Arc::new(BundleStore::new(TrustBundles::own(authority.bundle())));
    issuer_of(script, authority, bundles, false)
}

/// A signer elsewhere, and a node that follows its bundle.
fn remote(bundles: BundleStore) -> (Arc<TestSigner>, Issuer) {
    issuer_of(&[(0, Answer::Svid)], authority(), Arc::new(bundles), true)
}

fn authority() -> Authority {
    let day = Duration::from_secs(86_400);
    let domain = "example.org".parse().unwrap();
    Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, TestClock.now()).unwrap()
}

fn issuer_of(
    script: &[(u64, Answer)],
    authority: Authority,
    bundles: Arc<BundleStore>,
    remote: bool,
) -> (Arc<TestSigner>, Issuer) {
    let signer = Arc::new(TestSigner {
        authority,
        script: script.to_vec(),
        remote,
        started: Instant::now(),
        asked: Mutex::default(),
    });
    let issuer = Issuer {
        signer: signer.clone(),
        bundles,
        clock: Arc::new(Ticking(Instant::now())),
        metrics: Arc::default(),
        ending: CancellationToken::new(),
    };
    (signer, issuer)
}

/// What came of it, and after how many seconds.
async fn issue(issuer: &Issuer, patience: Patience) -> (Result<Svid, NodeError>, f64) {
    let (issued, took) = issue_with(issuer, patience, &[]).await;
    (issued.map(|issued| issued.svid), took)
}

async fn issue_with(
    issuer: &Issuer,
    patience: Patience,
    attributes: &[(&str, &str)],
) -> (Result<Issued, NodeError>, f64) {
    let pod = [
        ("csi.storage.k8s.io/pod.name", "cart-1"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "1"),
        ("csi.storage.k8s.io/serviceAccount.name", "cart"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ];
    let pairs = pod.iter().chain(attributes);
    let pairs = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let context = VolumeContext::from(pairs.collect::<std::collections::HashMap<_, _>>());
    let domain = "example.org".parse().unwrap();
    let spec = VolumeSpec::parse(&context, None, &domain, &Limits::default()).unwrap();
    let id = SpiffeId::new(&domain, "/ns/shop/sa/cart").unwrap();
    let started = Instant::now();
    let pod_token = PodTokenCell::default();
    let wish = Wish {
        pod_token: &pod_token,
        volume: &"csi-1".parse().unwrap(),
        spec: &spec,
        asked: Assigned { id, key_algorithm: spec.key_algorithm },
        patience,
        pending: None,
        used: None,
        handout: None,
    };
    let issued = issuer.issue(wish).await;
    (issued, started.elapsed().as_secs_f64())
}

const AWAY: Answer = Answer::Error(Class::Unavailable);

#[tokio::test(start_paused = true)]
async fn a_publish_waits_for_a_signer_that_comes_back() {
    let (signer, issuer) = issuer(&[(0, AWAY), (12, Answer::Svid)]);
    let (issued, took) = issue(&issuer, Patience::Waits).await;
    let svid = issued.unwrap();
    assert!((12.0..16.0).contains(&took), "{took}");
    let asked = signer.asked.lock().unwrap();
    assert!((4..=26).contains(&asked.len()), "{asked:?}");
    // One key for one SVID, however often it is asked for.
    assert!(asked.iter().all(|(_, key)| key == svid.x509.leaf().spki_der()));
}

#[tokio::test(start_paused = true)]
async fn after_twenty_seconds_it_answers_what_the_signer_said() {
    let (signer, issuer) = issuer(&[(0, AWAY)]);
    let (issued, took) = issue(&issuer, Patience::Waits).await;
    let error = issued.unwrap_err();
    assert!((19.0..=20.0).contains(&took), "{took}");
    assert_eq!(error.class(), Class::Unavailable, "kubelet comes again");
    assert_eq!(error.to_string(), "no SVID: the CA is on holiday (tried for 20 s)");
    // Invariant 9.
    let asked = signer.asked.lock().unwrap();
    let pauses = asked.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(pauses.min().unwrap() >= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_does_not_wait() {
    let (signer, issuer) = issuer(&[(0, AWAY), (1, Answer::Svid)]);
    let (issued, took) = issue(&issuer, Patience::TriesOnce).await;
    assert_eq!(issued.unwrap_err().to_string(), "no SVID: the CA is on holiday");
    assert!(took < 0.1 && signer.asked.lock().unwrap().len() == 1);
}

#[tokio::test(start_paused = true)]
async fn what_time_does_not_mend_is_answered_at_once() {
    for class in [Class::Invalid, Class::Denied, Class::NotReady, Class::Internal] {
        let (_, issuer) = issuer(&[(0, Answer::Error(class)), (1, Answer::Svid)]);
        let (issued, took) = issue(&issuer, Patience::Waits).await;
        assert_eq!(issued.unwrap_err().class(), class);
        assert!(took < 0.1, "{took}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_hangs_gets_no_more_than_twenty_seconds_in_all() {
    for script in [&[(0, Answer::Nothing)][..], &[(0, AWAY), (5, Answer::Nothing)]] {
        let (_, issuer) = issuer(script);
        let (issued, took) = issue(&issuer, Patience::Waits).await;
        let error = issued.unwrap_err();
        match script.len() {
            1 => assert!(matches!(error, NodeError::SignTimeout(20)), "{error}"),
            // What it said before it fell silent says more.
            _ => assert!(matches!(error, NodeError::SignerAway { seconds: 20, .. }), "{error}"),
        }
        assert!((19.9..20.1).contains(&took), "{took}");
    }
}

/// What is about to be answered still is; nobody waits for more.
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_wait() {
    for (answer, at_most) in [(AWAY, 10.1), (Answer::Nothing, 12.1)] {
        let (_, issuer) = issuer(&[(0, answer)]);
        let ending = issuer.ending.clone();
        let shut_down = async {
            sleep(Duration::from_secs(10)).await;
            ending.cancel();
        };
        let ((issued, took), ()) = tokio::join!(issue(&issuer, Patience::Waits), shut_down);
        assert!(matches!(issued.unwrap_err(), NodeError::ShuttingDown));
        assert!((10.0..at_most).contains(&took), "{took}");
    }
}

/// DESIGN.md §5: a node cannot read policy, so it asks for the default first.
#[tokio::test(start_paused = true)]
async fn an_assigned_identity_is_asked_for_with_a_new_key() {
    for patience in [Patience::Waits, Patience::TriesOnce] {
        let (signer, issuer) = issuer(&[(0, Answer::Assigns)]);
        let issued = issue_with(&issuer, patience, &[]).await.0.unwrap();
        let assigned = issued.assigned.unwrap();
        assert_eq!(assigned.id.path(), "/assigned");
        assert_eq!(assigned.key_algorithm, KeyAlgorithm::EcdsaP384);
        assert_eq!(*issued.svid.x509.id(), assigned.id);
        assert_eq!(issued.svid.key.algorithm(), KeyAlgorithm::EcdsaP384);
        let asked = signer.asked.lock().unwrap();
        assert!(asked.len() == 2 && asked[0].1 != asked[1].1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_assigned_identity_is_asked_for_once() {
    let (signer, issuer) = issuer(&[(0, Answer::Wavers)]);
    let error = issue(&issuer, Patience::Waits).await.0.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("spiffe://example.org/two"), "{error}");
    assert_eq!(signer.asked.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_identity_here_is_never_asked_for() {
    let (signer, issuer) = issuer(&[(0, Answer::AssignsForeign)]);
    let error = issue(&issuer, Patience::Waits).await.0.unwrap_err();
    assert_eq!(error.class(), Class::Internal);
    assert_eq!(signer.asked.lock().unwrap().len(), 1);
}

/// The pod's own word about its key stands; policy then says yes or no to it.
#[tokio::test(start_paused = true)]
async fn an_explicit_key_algorithm_stays() {
    let (signer, issuer) = issuer(&[(0, Answer::Assigns)]);
    let attributes = [("csi.svid.dev/key-algorithm", "ed25519")];
    issue_with(&issuer, Patience::Waits, &attributes).await.0.unwrap_err();
    assert_eq!(signer.asked.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dns_name_that_was_not_asked_for_is_refused() {
    let (_, issuer) = issuer(&[(0, Answer::Names)]);
    let error = issue(&issuer, Patience::Waits).await.0.unwrap_err();
    assert!(matches!(error, NodeError::Refused(SvidError::DnsName { .. })), "{error}");
    let attributes = [("csi.svid.dev/dns-names", "a.example,b.example")];
    let issued = issue_with(&issuer, Patience::Waits, &attributes).await.0.unwrap();
    assert_eq!(issued.svid.x509.leaf().dns_sans(), ["a.example"]);
}

/// Invariant 6: who signs elsewhere may be a moment ahead of the bundle that this node has.
#[tokio::test(start_paused = true)]
async fn a_root_that_comes_a_moment_after_its_first_signature_is_waited_for() {
    let (signer, issuer) = remote(BundleStore::new(TrustBundles::own(authority().bundle())));
    let later = async {
        sleep(Duration::from_secs(2)).await;
        issuer.bundles.publish_own(signer.authority.bundle());
    };
    let ((issued, took), ()) = tokio::join!(issue(&issuer, Patience::Waits), later);
    issued.unwrap();
    assert!((2.0..3.0).contains(&took), "{took}");

    let (_, issuer) = remote(BundleStore::new(TrustBundles::own(authority().bundle())));
    let (issued, took) = issue(&issuer, Patience::Waits).await;
    let error = issued.unwrap_err();
    assert_eq!((error.class(), took), (Class::Unavailable, LAG.as_secs_f64()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_before_anybody_is_trusted() {
    let (signer, issuer) = remote(BundleStore::default());
    let (issued, took) = issue(&issuer, Patience::Waits).await;
    assert!(matches!(issued, Err(NodeError::NoBundle)) && took >= 19.0, "{took}");
    assert!(signer.asked.lock().unwrap().is_empty());

    let later = async {
        sleep(Duration::from_secs(2)).await;
        issuer.bundles.publish_own(signer.authority.bundle());
    };
    let ((issued, _), ()) = tokio::join!(issue(&issuer, Patience::Waits), later);
    issued.unwrap();
}

/// Invariant 7: node and signer are two machines with two clocks.
#[tokio::test(start_paused = true)]
async fn a_signer_whose_clock_is_ahead_is_asked_once() {
    for (ahead, waits) in [(5, true), (45, true), (200, false), (86_000, false)] {
        let (signer, issuer) = issuer(&[(0, Answer::Ahead(ahead))]);
        let (issued, took) = issue(&issuer, Patience::TriesOnce).await;
        match issued {
            Ok(svid) => {
                assert!(waits && svid.x509.not_before() <= issuer.clock.now());
                assert!(took <= ahead as f64, "{took}");
            }
            Err(error) => {
                assert!(!waits && took < 1.0, "{error}");
                assert_eq!(error.class(), Class::Unavailable);
                assert!(error.to_string().contains("clocks"), "{error}");
            }
        }
        assert_eq!(signer.asked.lock().unwrap().len(), 1);
    }
}

/// As after a restore from a backup: whoever reads the pod's Event can act on it.
#[tokio::test(start_paused = true)]
async fn an_answer_under_a_bundle_that_is_not_taken_says_what_to_do() {
    let bundles = BundleStore::default();
    let publish = |sequence| {
        let bundle = authority().bundle().with_sequence(Some(sequence)).to_jwks();
        let domain = "example.org".parse().unwrap();
        bundles.take_text(&domain, Some(&bundle), None)
    };
    publish(7).unwrap();
    publish(6).unwrap_err();
    let (_, issuer) = remote(bundles);
    let error = issue(&issuer, Patience::TriesOnce).await.0.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    for part in ["6", "7 was seen before", "svid-csi ca rotate"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
