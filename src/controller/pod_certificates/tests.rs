//! Times, as the API server takes them, and who is let wait.

use std::time::{Duration, SystemTime};

use super::{judge::*, *};
use crate::{
    controller::approver::ReasonCode,
    pki::{Authority, KeyAlgorithm, PrivateKey, PublicKey, X509Svid},
};

const HOUR: Duration = Duration::from_secs(3600);
const TEN_MINUTES: Duration = Duration::from_secs(600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_348_800_750)
}

fn request(max_expiration: Duration) -> PodCertificateFacts {
    PodCertificateFacts {
        pod_uid: "p-1".to_owned(),
        max_expiration_seconds: Some(max_expiration.as_secs()),
        ..Default::default()
    }
}

/// Signed for so long by a CA that began and ends so long before and after.
fn signed(ttl: Duration, began: Duration, ends: Duration) -> X509Svid {
    let domain = "example.org".parse().unwrap();
    let ca =
        Authority::create(&domain, KeyAlgorithm::EcdsaP256, began + ends, now() - began).unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let key = PublicKey::from_spki_der(key.spki_der()).unwrap();
    let id = "spiffe://example.org/ns/shop/sa/web".parse().unwrap();
    ca.issue(&key, &id, &[], ttl, now()).unwrap()
}

/// What the API server checks of an issued certificate: at least an hour and at most what was asked
/// for, begun within five minutes, refreshed ten minutes from either end at the closest.
#[test]
fn every_certificate_is_one_that_the_api_server_takes() {
    for max in [HOUR, HOUR + Duration::from_secs(1), HOUR * 2, HOUR * 24, HOUR * 24 * 91] {
        for ttl in [HOUR, HOUR * 2, HOUR * 24] {
            let request = request(max);
            let svid = signed(lasting(ttl, &request), HOUR, HOUR * 1000);
            let made = certificate(&request, &svid).unwrap();
            let lives = made.not_after.duration_since(made.not_before).unwrap();
            assert!(lives >= HOUR && lives <= max, "{ttl:?} of {max:?}: {lives:?}");
            assert!(now().duration_since(made.not_before).unwrap() < Duration::from_secs(300));
            assert!(made.begin_refresh_at >= made.not_before + TEN_MINUTES);
            assert!(made.begin_refresh_at + TEN_MINUTES <= made.not_after);
            // Our schedule: between a half and two thirds.
            let at = made.begin_refresh_at.duration_since(made.not_before).unwrap();
            let part = at.as_secs_f64() / lives.as_secs_f64();
            assert!((0.5..0.667).contains(&part), "{part}");
            assert_eq!(made.chain_pem.matches("BEGIN CERTIFICATE").count(), 1, "no root");
        }
    }
}

#[test]
fn a_lifetime_that_the_api_would_take_longer_is_the_policys() {
    assert_eq!(lasting(HOUR, &request(HOUR * 24)), HOUR);
    assert_eq!(lasting(HOUR * 24, &request(HOUR * 2)), HOUR * 2 - Duration::from_secs(60));
}

/// A CA that ends sooner signs nothing that the API server would refuse for ever; the next one does.
#[test]
fn less_than_an_hour_is_not_offered() {
    let request = request(HOUR * 24);
    let svid = signed(HOUR, HOUR, HOUR - Duration::from_secs(120));
    assert!(certificate(&request, &svid).is_none());
}

/// The fence is who asks (invariant 5): what was made while it did not stand may be anybody's.
#[test]
fn a_request_older_than_the_fence_waits() {
    let since = now();
    let created = |after: u64| Some(since + Duration::from_secs(after));
    assert_eq!(fenced(Ok(since), created(10)), Ok(()));
    for created in [created(9), created(0), Some(since - HOUR), None] {
        let problem = fenced(Ok(since), created).unwrap_err();
        assert!(problem.contains("older than the fence"), "{problem}");
    }
    let problem = fenced(Err("there is no policy x".to_owned()), created(100)).unwrap_err();
    assert!(problem.contains("kubelets") && problem.contains("no policy x"), "{problem}");
}

#[test]
fn the_api_has_a_reason_of_its_own_for_keys() {
    for reason in ReasonCode::ALL {
        let unsupported =
            matches!(reason, ReasonCode::WeakKey | ReasonCode::KeyAlgorithmNotAllowed);
        let expected = if unsupported { "UnsupportedKeyType" } else { reason.as_str() };
        assert_eq!(condition_reason(*reason), expected);
    }
}
