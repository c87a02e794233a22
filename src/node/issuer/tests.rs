//! Invariants 2 and 7: a publish gives its signer time, and says what came of it.

use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

use super::*;
use crate::{
    pki::Authority,
    signer::{SignError, SignerStatus},
    volume::{Limits, VolumeContext},
};

/// A signer that answers like this from that second on.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Error(Class),
    Nothing,
    Svid,
}

struct TestSigner {
    authority: Authority,
    script: Vec<(u64, Answer)>,
    started: Instant,
    /// When it was asked, and for which key.
    asked: Mutex<Vec<(Duration, Vec<u8>)>>,
}

struct TestClock;

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
            Answer::Svid => {
                let now = TestClock.now();
                Ok(self.authority.issue(&request.csr, &request.id, &[], request.ttl, now).unwrap())
            }
        }
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: Ok(()), ca_not_after: None }
    }
}

fn issuer(script: &[(u64, Answer)]) -> (Arc<TestSigner>, Issuer) {
    let domain = "example.org".parse().unwrap();
    let day = Duration::from_secs(86_400);
    let authority =
        Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, TestClock.now()).unwrap();
    let bundles = Arc::new(BundleStore::new(TrustBundles::own(authority.bundle())));
    let signer = Arc::new(TestSigner {
        authority,
        script: script.to_vec(),
        started: Instant::now(),
        asked: Mutex::default(),
    });
    let issuer = Issuer {
        signer: signer.clone(),
        bundles,
        clock: Arc::new(TestClock),
        metrics: Arc::default(),
        ending: CancellationToken::new(),
    };
    (signer, issuer)
}

/// What came of it, and after how many seconds.
async fn issue(issuer: &Issuer, patience: Patience) -> (Result<Svid, NodeError>, f64) {
    let pod = [
        ("csi.storage.k8s.io/pod.name", "cart-1"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "1"),
        ("csi.storage.k8s.io/serviceAccount.name", "cart"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ];
    let pod = pod.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let context = VolumeContext::from(std::collections::HashMap::from(pod));
    let domain = "example.org".parse().unwrap();
    let spec = VolumeSpec::parse(&context, None, &domain, &Limits::default()).unwrap();
    let id = SpiffeId::new(&domain, "/ns/shop/sa/cart").unwrap();
    let started = Instant::now();
    let issued = issuer.issue(&"csi-1".parse().unwrap(), &spec, id, patience).await;
    (issued.map(|(svid, _)| svid), started.elapsed().as_secs_f64())
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
        assert!(matches!(error, NodeError::SignTimeout(20)), "{error}");
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
