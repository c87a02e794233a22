//! What a pod is given is chosen, checked and believed no more than a signature.

use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{super::pod_token::PodTokenCell, *};
use crate::{
    clock::Clock,
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey, SvidError, X509Svid},
    signer::{SignRequest, Signer, SignerStatus},
    trust::BundleStore,
    volume::{Limits, VolumeContext, VolumeSpec},
};

const OWN: &str = "spiffe://example.org/ns/shop/sa/cart";

struct Still;

impl Clock for Still {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }
}

struct Agent;

#[async_trait]
impl Signer for Agent {
    async fn sign(&self, _request: &SignRequest) -> Result<X509Svid, SignError> {
        Err(SignError::new(Class::Internal, "nobody asks for a signature"))
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: Ok(()), ca_not_after: None }
    }

    fn is_remote(&self) -> bool {
        true
    }
}

fn authority() -> Authority {
    let (domain, day) = ("example.org".parse().unwrap(), Duration::from_secs(86_400));
    Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, Still.now()).unwrap()
}

fn svid(authority: &Authority, id: &str) -> KeyedSvid {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let id = id.parse().unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    let hour = Duration::from_secs(3_600);
    let x509 = authority.issue(csr.public_key(), &id, &[], hour, Still.now()).unwrap();
    KeyedSvid { x509, key: Arc::new(key) }
}

fn gift(svids: Vec<KeyedSvid>) -> Given {
    Ok(Arc::new(HandedOut { svids, federates_with: BTreeSet::new() }))
}

fn away() -> Given {
    Err(SignError::new(Class::Unavailable, "the agent is away"))
}

/// What becomes of a gift, for a volume that asks for nothing.
async fn take(
    authority: &Authority,
    given: watch::Receiver<Given>,
    patience: Patience,
    used: Option<&[u8]>,
) -> Result<Issued, NodeError> {
    let issuer = Issuer {
        signer: Arc::new(Agent),
        bundles: Arc::new(BundleStore::new(TrustBundles::own(authority.bundle()))),
        clock: Arc::new(Still),
        metrics: Arc::default(),
        ending: CancellationToken::new(),
    };
    let pod = [
        ("csi.storage.k8s.io/pod.name", "cart-1"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "1"),
        ("csi.storage.k8s.io/serviceAccount.name", "cart"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ];
    let pairs = pod.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let context = VolumeContext::from(std::collections::HashMap::from(pairs));
    let domain = "example.org".parse().unwrap();
    let spec = VolumeSpec::parse(&context, None, &domain, &Limits::default()).unwrap();
    let wanted: SpiffeId = OWN.parse().unwrap();
    let handout = Handout::new(given, CancellationToken::new());
    let pod_token = PodTokenCell::default();
    let wish = Wish {
        pod_token: &pod_token,
        volume: &"csi-1".parse().unwrap(),
        spec: &spec,
        asked: Assigned { id: wanted.clone(), key_algorithm: spec.key_algorithm },
        patience,
        pending: None,
        used,
        handout: Some((&handout, wanted)),
    };
    issuer.issue(wish).await
}

fn receiver(given: Given) -> watch::Receiver<Given> {
    watch::Sender::new(given).subscribe()
}

#[test]
fn the_default_identity_is_chosen_else_the_one_that_is_held_else_the_first() {
    let ca = authority();
    let [first, second] = ["spiffe://example.org/first", "spiffe://example.org/second"];
    let given = |ids: &[&str]| gift(ids.iter().map(|id| svid(&ca, id)).collect()).unwrap();
    let own: SpiffeId = OWN.parse().unwrap();
    let second_id: SpiffeId = second.parse().unwrap();
    let chosen =
        |ids: &[&str], holds| given(ids).choose(&own, holds).unwrap().x509.id().as_str().to_owned();
    assert_eq!(chosen(&[first, second, OWN], Some(&second_id)), OWN);
    assert_eq!(chosen(&[first, second], Some(&second_id)), second);
    assert_eq!(chosen(&[first, second], None), first);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_is_verified_like_whatever_is_signed() {
    let (ca, other) = (authority(), authority());
    let good = svid(&ca, OWN);
    let issued = take(&ca, receiver(gift(vec![good.clone()])), Patience::TriesOnce, None).await;
    let issued = issued.unwrap();
    assert!(issued.assigned.is_none() && issued.svid.x509 == good.x509);
    let assigned = svid(&ca, "spiffe://example.org/else");
    let issued = take(&ca, receiver(gift(vec![assigned])), Patience::TriesOnce, None).await;
    assert_eq!(issued.unwrap().assigned.unwrap().id.as_str(), "spiffe://example.org/else");

    let swapped = KeyedSvid { key: svid(&ca, OWN).key, ..good.clone() };
    let refused = |error: NodeError| match error {
        NodeError::Refused(error) => error,
        other => panic!("{other}"),
    };
    let taken = take(&ca, receiver(gift(vec![swapped])), Patience::TriesOnce, None).await;
    assert_eq!(refused(taken.unwrap_err()), SvidError::WrongKey);
    let foreign = svid(&other, OWN);
    let taken = take(&ca, receiver(gift(vec![foreign])), Patience::TriesOnce, None).await;
    assert!(matches!(taken.unwrap_err().class(), Class::Unavailable | Class::Internal));
    let reserved = svid(&ca, "spiffe://example.org/svid.dev/controller");
    let taken = take(&ca, receiver(gift(vec![reserved])), Patience::TriesOnce, None).await;
    assert_eq!(taken.unwrap_err().class(), Class::Internal);
    // The same again is no renewal.
    let used = good.key.spki_der().to_vec();
    let taken = take(&ca, receiver(gift(vec![good])), Patience::TriesOnce, Some(&used)).await;
    let error = taken.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("does it reach its server"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_publish_waits_for_what_passes_and_for_nothing_else() {
    let ca = authority();
    let given = watch::Sender::new(away());
    let started = Instant::now();
    let comes = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        let _before = given.send_replace(gift(vec![svid(&ca, OWN)]));
    };
    let (taken, ()) = tokio::join!(take(&ca, given.subscribe(), Patience::Waits, None), comes);
    taken.unwrap();
    assert_eq!(started.elapsed().as_secs(), 7);

    let taken = take(&ca, receiver(away()), Patience::TriesOnce, None).await;
    assert_eq!(taken.unwrap_err().class(), Class::Unavailable);
    let given = watch::Sender::new(away());
    let started = Instant::now();
    let error = take(&ca, given.subscribe(), Patience::Waits, None).await.unwrap_err();
    assert!(matches!(error, NodeError::SignerAway { .. }), "{error}");
    assert_eq!(started.elapsed(), SIGN_TIMEOUT);
    let denied = Err(SignError::new(Class::Denied, "no entry"));
    let started = Instant::now();
    let error = take(&ca, receiver(denied), Patience::Waits, None).await.unwrap_err();
    assert_eq!((error.class(), started.elapsed()), (Class::Denied, Duration::ZERO));
}
