//! A pod's JWT-SVIDs: one signature for many, in time, its own and no other's.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    class::Class,
    clock::Clock,
    jose::{JwtClaims, JwtError, JwtKey, JwtKeyAlgorithm},
    node::{
        WorkloadFault, WorkloadLimits,
        desk::Desk,
        issuer::Issuer,
        metrics::Metrics,
        volume::{Phase, Svid, Volume, Work},
    },
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey, X509Svid},
    signer::{JwtRequest, SignError, SignRequest, Signer, SignerStatus},
    sys::KubeletDir,
    trust::{BundleStore, TrustBundles},
    volume::PodInfo,
};

const TTL: Duration = Duration::from_secs(300);

/// Goes with tokio's.
struct TestClock(Instant);

struct TestSigner {
    key: JwtKey,
    clock: Arc<TestClock>,
    takes: Duration,
    refusal: Mutex<Option<Class>>,
    asked: AtomicUsize,
}

struct Ground {
    workload: Workload,
    signer: Arc<TestSigner>,
    store: Arc<BundleStore>,
    authority: Authority,
    work: Work,
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

#[async_trait]
impl Signer for TestSigner {
    async fn sign(&self, _: &SignRequest) -> Result<X509Svid, SignError> {
        Err(SignError::new(Class::Internal, "not asked for here"))
    }

    async fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, SignError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        sleep(self.takes).await;
        if let Some(class) = *self.refusal.lock().unwrap() {
            return Err(SignError::new(class, "the key is on holiday"));
        }
        let now = self.clock.now();
        let claims = JwtClaims {
            id: request.id.clone(),
            audience: request.audience.clone(),
            issued_at: now,
            expires_at: now + TTL,
            issuer: None,
            jti: true,
            extra: Default::default(),
        };
        Ok(self.key.sign(&claims).unwrap())
    }

    fn signs_jwt(&self) -> Result<(), SignError> {
        match *self.refusal.lock().unwrap() {
            Some(Class::NotReady) => Err(SignError::new(Class::NotReady, "set a key")),
            _ => Ok(()),
        }
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: Ok(()), ca_not_after: None }
    }
}

impl Ground {
    fn new() -> Self {
        let clock = Arc::new(TestClock(Instant::now()));
        let domain = "example.org".parse().unwrap();
        let id: SpiffeId = "spiffe://example.org/ns/shop/sa/cart".parse().unwrap();
        let day = Duration::from_secs(86_400);
        let authority =
            Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, clock.now()).unwrap();
        let signer = Arc::new(TestSigner {
            key: JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap(),
            clock: clock.clone(),
            takes: Duration::from_millis(100),
            refusal: Mutex::default(),
            asked: AtomicUsize::new(0),
        });
        let bundle = authority.bundle();
        let bundle = bundle.with_jwt_authorities(vec![signer.key.authority().clone()]);
        let store = Arc::new(BundleStore::new(TrustBundles::own(bundle)));
        let metrics = Arc::new(Metrics::default());
        let issuer = Arc::new(Issuer {
            signer: signer.clone(),
            bundles: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            ending: CancellationToken::new(),
        });
        let (desk, _) = Desk::new(issuer, metrics, WorkloadLimits::default());
        let key = Arc::new(PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap());
        let csr = Csr::create(&key, &id).unwrap();
        let x509 = authority.issue(csr.public_key(), &id, &[], day, clock.now()).unwrap();
        let work = Work {
            phase: Phase::Live,
            svid: Some(Svid { x509, key }),
            beside: store.current(),
            ..Work::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let kubelet = KubeletDir::open(directory.path()).unwrap();
        let target = kubelet.parse_relative("pods/u/volumes/kubernetes.io~csi/v/mount").unwrap();
        let volume = Arc::new(Volume::new("csi-1".parse().unwrap(), target));
        volume.show(&work);
        let pod = PodInfo {
            namespace: "shop".to_owned(),
            name: "cart-0".to_owned(),
            uid: "u".to_owned(),
            service_account: "cart".to_owned(),
        };
        let workload = Workload::new(volume, desk, Arc::new(pod), CancellationToken::new());
        Self { workload, signer, store, authority, work }
    }

    async fn jwt(&self, audience: &[&str]) -> Result<Arc<JwtSvid>, WorkloadError> {
        let audience = audience.iter().map(|one| (*one).to_owned()).collect();
        self.workload.jwt_svid(audience, None).await
    }

    fn asked(&self) -> usize {
        self.signer.asked.swap(0, Ordering::SeqCst)
    }

    fn refuse(&self, class: Option<Class>) {
        *self.signer.refusal.lock().unwrap() = class;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_who_ask_at_once_cost_one_signature() {
    let ground = Ground::new();
    let calls = (0..100).map(|n| {
        let audience: &[&str] = if n % 2 == 0 { &["a", "b"] } else { &["b", "a", "b"] };
        ground.jwt(audience)
    });
    let answers = futures_util::future::join_all(calls).await;
    let first = answers[0].clone().unwrap();
    assert!(answers.iter().all(|answer| Arc::ptr_eq(answer.as_ref().unwrap(), &first)));
    assert_eq!(first.audience(), ["a", "b"]);
    assert_eq!(ground.asked(), 1);
    ground.jwt(&["a"]).await.unwrap();
    assert_eq!(ground.asked(), 1, "another set of audiences is another token");
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_stops_nobody_else() {
    let ground = Ground::new();
    let first = tokio::time::timeout(Duration::from_millis(50), ground.jwt(&["a"])).await;
    assert!(first.is_err());
    ground.jwt(&["a"]).await.unwrap();
    assert_eq!(ground.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_is_issued_again_at_half_its_life() {
    let ground = Ground::new();
    let first = ground.jwt(&["a"]).await.unwrap();
    advance(TTL / 2 - Duration::from_secs(2)).await;
    assert!(Arc::ptr_eq(&ground.jwt(&["a"]).await.unwrap(), &first));
    advance(Duration::from_secs(3)).await;
    let second = ground.jwt(&["a"]).await.unwrap();
    assert!(second.expires_at() > first.expires_at());
    assert_eq!(ground.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_valid_one_is_served_while_the_signer_is_away_and_an_expired_one_never() {
    let ground = Ground::new();
    let first = ground.jwt(&["a"]).await.unwrap();
    ground.refuse(Some(Class::Unavailable));
    advance(TTL * 3 / 4).await;
    for _ in 0..50 {
        assert!(Arc::ptr_eq(&ground.jwt(&["a"]).await.unwrap(), &first));
    }
    assert_eq!(ground.asked(), 2, "the signer is not asked for each");
    let new = ground.jwt(&["b"]).await.unwrap_err();
    assert_eq!(new.fault(), WorkloadFault::Unavailable);
    advance(TTL / 4).await;
    let expired = ground.jwt(&["a"]).await.unwrap_err();
    assert_eq!(expired.fault(), WorkloadFault::Unavailable);
    assert!(expired.to_string().contains("on holiday"), "{expired}");
    ground.refuse(None);
    ground.jwt(&["a"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_denial_ends_all_of_it_at_once() {
    let mut ground = Ground::new();
    ground.jwt(&["a"]).await.unwrap();
    ground.refuse(Some(Class::Denied));
    let error = ground.jwt(&["b"]).await.unwrap_err();
    assert_eq!((error.fault(), error.to_string()), denied());
    ground.refuse(None);
    ground.work.denied = true;
    ground.workload.parts().0.show(&ground.work);
    let error = ground.jwt(&["a"]).await.unwrap_err();
    assert_eq!((error.fault(), error.to_string()), denied());
}

fn denied() -> (WorkloadFault, String) {
    (WorkloadFault::PermissionDenied, "no identity issued".to_owned())
}

#[tokio::test(start_paused = true)]
async fn only_its_own_identity_is_a_pods() {
    let ground = Ground::new();
    for (id, ok) in [
        ("spiffe://example.org/ns/shop/sa/cart", true),
        ("spiffe://example.org/ns/shop/sa/other", false),
        ("spiffe://other.example/ns/shop/sa/cart", false),
    ] {
        let id = Some(id.parse().unwrap());
        let answer = ground.workload.jwt_svid(vec!["a".to_owned()], id).await;
        assert_eq!(answer.is_ok(), ok);
        if let Err(error) = answer {
            assert_eq!((error.fault(), error.to_string()), denied());
        }
    }
    // Another identity is assigned: what was issued for the one before is not given away.
    let mut ground = ground;
    let other: SpiffeId = "spiffe://example.org/assigned".parse().unwrap();
    let key = Arc::new(PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap());
    let csr = Csr::create(&key, &other).unwrap();
    let now = ground.workload.clock().now();
    let x509 = ground.authority.issue(csr.public_key(), &other, &[], TTL, now).unwrap();
    ground.work.svid = Some(Svid { x509, key });
    ground.workload.parts().0.show(&ground.work);
    assert_eq!(*ground.jwt(&["a"]).await.unwrap().id(), other);
}

#[tokio::test(start_paused = true)]
async fn bad_audiences_are_refused_and_without_a_key_everything_is() {
    let ground = Ground::new();
    let crowd: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    for audience in [vec![], vec![String::new()], crowd, vec!["a".repeat(100_000)]] {
        let error = ground.workload.jwt_svid(audience, None).await.unwrap_err();
        assert_eq!(error.fault(), WorkloadFault::InvalidArgument, "{error}");
    }
    assert_eq!(ground.asked(), 0);
    ground.refuse(Some(Class::NotReady));
    for audience in [&[][..], &["a"]] {
        let error = ground.jwt(audience).await.unwrap_err();
        assert_eq!(error.fault(), WorkloadFault::Unimplemented);
    }
    let error = ground.workload.validate_jwt("a", "x").unwrap_err();
    assert_eq!(error.fault(), WorkloadFault::Unimplemented);
}

#[tokio::test(start_paused = true)]
async fn signatures_are_rationed_and_cached_ones_are_not() {
    let ground = Ground::new();
    let first = ground.jwt(&["a"]).await.unwrap();
    let mut refused = 0;
    for n in 0..600 {
        match ground.jwt(&[&n.to_string()]).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.fault(), WorkloadFault::Unavailable);
                refused += 1;
            }
        }
    }
    // A tenth of a second each: the rate is above that.
    assert_eq!(refused, 0);
    let names: Vec<String> = (1_000..2_000).map(|n| n.to_string()).collect();
    let calls = names.iter().map(async |name| ground.jwt(&[name]).await);
    let answers = futures_util::future::join_all(calls).await;
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(served, 64, "so many are under way at once");
    // The oldest was pushed out meanwhile; it is one of 64 at most.
    assert!(!Arc::ptr_eq(&ground.jwt(&["a"]).await.unwrap(), &first));
}

#[tokio::test(start_paused = true)]
async fn a_token_under_a_withdrawn_key_is_not_given_away() {
    let ground = Ground::new();
    ground.jwt(&["a"]).await.unwrap();
    ground.store.publish_own(ground.authority.bundle().with_sequence(Some(2)));
    let error = ground.jwt(&["a"]).await.unwrap_err();
    assert_eq!(error.fault(), WorkloadFault::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_issued_validates() {
    let ground = Ground::new();
    let svid = ground.jwt(&["a"]).await.unwrap();
    let verified = ground.workload.validate_jwt("a", svid.token()).unwrap();
    assert_eq!(verified.id, *svid.id());
    let wrong = ground.workload.validate_jwt("b", svid.token()).unwrap_err();
    assert_eq!(wrong, WorkloadError::Token(JwtError::WrongAudience));
    assert_eq!(wrong.fault(), WorkloadFault::InvalidArgument);
    let empty = ground.workload.validate_jwt("", svid.token()).unwrap_err();
    assert_eq!(empty.fault(), WorkloadFault::InvalidArgument);
    assert!(!format!("{wrong:?} {wrong}").contains(svid.token()));
    advance(TTL).await;
    let expired = ground.workload.validate_jwt("a", svid.token()).unwrap_err();
    assert_eq!(expired, WorkloadError::Token(JwtError::Expired));
}
