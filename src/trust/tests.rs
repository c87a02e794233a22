use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::{
    id::{SpiffeId, TrustDomain},
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey, X509Svid},
};

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn authority() -> Authority {
    let day = Duration::from_secs(86_400);
    Authority::create(&domain(), KeyAlgorithm::EcdsaP256, day, now()).unwrap()
}

fn svid(authority: &Authority) -> X509Svid {
    let id = SpiffeId::new(&domain(), "/ns/shop/sa/cart").unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    authority.issue(csr.public_key(), &id, &[], Duration::from_secs(3_600), now()).unwrap()
}

fn bundle(authorities: &[&Authority], sequence: u64) -> TrustBundle {
    let roots = authorities.iter().map(|authority| authority.roots()[0].clone()).collect();
    TrustBundle::new(domain(), roots).unwrap().with_sequence(Some(sequence))
}

fn published(authorities: &[&Authority], sequence: u64, tainted: &str) -> PublishedTrust {
    let json = bundle(authorities, sequence).to_jwks();
    PublishedTrust::parse(&domain(), Some(&json), Some(tainted)).unwrap()
}

fn held(store: &BundleStore) -> TrustBundle {
    store.current().unwrap().own.clone()
}

#[test]
fn what_is_published_is_read_as_it_was_written() {
    let ca = authority();
    let key = svid(&ca).leaf().authority_key_id_hex().unwrap();
    let read = published(&[&ca], 7, &format!("\n {} \r\n", key.to_uppercase()));
    assert_eq!(read.bundle, bundle(&[&ca], 7));
    assert!(read.tainted.cover(&svid(&ca)) && !read.tainted.cover(&svid(&authority())));
    assert!(published(&[&ca], 7, "").tainted.is_empty());
}

#[test]
fn what_is_malformed_is_refused_and_says_why() {
    let good = bundle(&[&authority()], 7).to_jwks();
    let unnumbered = bundle(&[&authority()], 7).with_sequence(None).to_jwks();
    let large = format!("{good}{}", " ".repeat(1 << 20));
    let endless = good.replace("sequence\": 7", "sequence\": 18446744073709551615");
    let many: String = (0..65).map(|key| format!("{key:04x}\n")).collect();
    let cases: [(Option<&str>, &str, &str); 11] = [
        (Some(&endless), "", "too large"),
        (None, "", "no bundle.json"),
        (Some(""), "", "bundle.json: "),
        (Some("{"), "", "not a JWK Set"),
        (Some("{}"), "", "no \"keys\""),
        (Some(r#"{"keys":[],"spiffe_sequence":9}"#), "", "never taken"),
        (Some(&unnumbered), "", "no spiffe_sequence"),
        (Some(&large), "", "more than a ConfigMap"),
        (Some(&good), "abc", "not a key identifier"),
        (Some(&good), "key=\u{1b}[31m", "not a key identifier"),
        (Some(&good), &many, "more than 64 keys"),
    ];
    for (bundle, tainted, reason) in cases {
        let error = PublishedTrust::parse(&domain(), bundle, Some(tainted)).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.to_string().contains('\u{1b}'), "it goes to a log");
    }
}

/// Invariant 3: the last good one stands, whatever comes after it.
#[test]
fn an_older_bundle_is_refused_and_an_equal_one_wakes_nobody() {
    let (one, two) = (authority(), authority());
    let store = BundleStore::default();
    store.publish_shared(published(&[&one, &two], 7, "")).unwrap();
    let mut changes = store.subscribe();
    changes.borrow_and_update();

    let older = store.publish_shared(published(&[&one], 6, "00ff"));
    assert_eq!(older, Err(PublishedError::Older { found: 6, held: 7 }));
    let other = store.publish_shared(published(&[&one], 7, "00ff"));
    assert_eq!(other, Err(PublishedError::SameSequence(7)));
    assert!(store.tainted().unwrap().is_empty(), "refused as a whole");
    store.publish_shared(published(&[&one, &two], 7, "")).unwrap();
    assert!(!changes.has_changed().unwrap());
    assert_eq!(held(&store), bundle(&[&one, &two], 7));

    store.publish_shared(published(&[&two], 8, "00ff")).unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(store.tainted().unwrap().len(), 1);
}

/// Only one list changes: no set is written again for the other's sake.
#[test]
fn a_key_that_becomes_tainted_changes_no_bundle() {
    let ca = authority();
    let store = BundleStore::default();
    assert!(store.tainted().is_none(), "nobody said yet");
    store.publish_shared(published(&[&ca], 7, "")).unwrap();
    let (mut bundles, mut tainted) = (store.subscribe(), store.subscribe_tainted());
    bundles.borrow_and_update();
    tainted.borrow_and_update();
    store.publish_shared(published(&[&ca], 7, "00ff")).unwrap();
    assert!(!bundles.has_changed().unwrap() && tainted.has_changed().unwrap());
}

/// After a restart, before the API server answers.
#[test]
fn what_the_volumes_tell_stands_until_a_source_says_more() {
    assert!(BundleStore::recovered(None).current().is_none());
    let (old, new) = (authority(), authority());
    let store = BundleStore::recovered(Some(bundle(&[&old], 5)));
    assert_eq!(held(&store), bundle(&[&old], 5));
    store.publish_shared(published(&[&old, &new], 6, "")).unwrap();
    assert_eq!(held(&store), bundle(&[&old, &new], 6));
}

/// Invariant 6, while a cluster leaves `local`: each node trusts its own CA and the controller's.
#[test]
fn the_local_ca_and_the_controller_are_both_trusted() {
    let (own, shared) = (authority(), authority());
    let store = BundleStore::default();
    store.publish_own(bundle(&[&own], 7));
    store.publish_shared(published(&[&shared], 5, "")).unwrap();
    let both = held(&store);
    assert!(both.contains(&own.roots()[0]) && both.contains(&shared.roots()[0]));
    assert_eq!(both.sequence(), Some(8));
    let last = BundleStore::recovered(Some(bundle(&[&own], u64::MAX)));
    last.publish_shared(published(&[&shared], 5, "")).unwrap();
    assert_eq!(held(&last).sequence(), Some(u64::MAX), "it stands still rather than begin anew");
    let next = authority();
    store.publish_own(bundle(&[&next, &own], 8));
    assert_eq!(held(&store).x509_authorities().len(), 3);
}

proptest! {
    #[test]
    fn anything_may_stand_in_the_configmap(bundle in ".{0,200}", tainted in ".{0,200}") {
        let read = PublishedTrust::parse(&domain(), Some(&bundle), Some(&tainted));
        prop_assert!(read.is_err(), "there is no bundle among them");
    }
}
