//! A start without a good CA: it says why, keeps what the volumes trust, and waits.

use super::*;
use crate::trust::LiveRoot;

fn live(authority: &Authority, until: SystemTime) -> LiveRoot {
    LiveRoot { certificate: authority.roots()[0].clone(), until }
}

/// What volumes hold that were signed by these, newest first.
fn recovered(authorities: &[&Authority], clock: &TestClock) -> RecoveredTrust {
    let newest: Vec<_> = authorities.iter().map(|authority| authority.roots()[0].clone()).collect();
    let bundle = TrustBundle::new(domain(), newest).unwrap().with_sequence(Some(7));
    let until = clock.now() + Duration::from_secs(1_000);
    // As one finds them: in any order.
    let roots = authorities.iter().rev().map(|authority| live(authority, until)).collect();
    RecoveredTrust { roots, bundle: Some(bundle), ..RecoveredTrust::default() }
}

fn start(directory: &Path, trust: RecoveredTrust, clock: &Arc<TestClock>) -> LocalSigner {
    LocalSigner::open(config(directory, false), trust, clock.clone())
}

async fn obstacle(signer: &LocalSigner) -> String {
    let (request, _) = request();
    let error = signer.sign(&request).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert_eq!(signer.status().ready.unwrap_err().to_string(), error.to_string());
    error.to_string()
}

#[tokio::test]
async fn a_ca_that_comes_later_signs_as_soon_as_it_is_good() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let ca = new_ca(&clock);
    let signer = start(root.path(), RecoveredTrust::default(), &clock);
    assert_eq!(signer.status().ca_not_after, None);
    assert!(obstacle(&signer).await.contains("holds no CA"));
    fs::write(root.path().join("tls.crt"), ca.certificate_pem()).unwrap();
    signer.poll();
    signer.poll();
    assert!(obstacle(&signer).await.contains("tls.key is missing"));
    put(root.path(), &new_ca(&clock));
    fs::write(root.path().join("tls.crt"), ca.certificate_pem()).unwrap();
    signer.poll();
    assert!(obstacle(&signer).await.contains("tls.key does not belong"));
    assert_eq!(signer.refused(), 3, "each reason once");
    assert!(signer.bundles().current().is_none());

    put(root.path(), &ca);
    signer.poll();
    assert_eq!(signed_by(&signer, &clock).await, ca.roots()[0]);
    assert_eq!(roots(&signer), [ca.roots()[0].clone()]);
}

/// Invariants 3 and 6: the bundle is what the volumes hold, to the sequence number.
#[tokio::test]
async fn without_a_ca_the_volumes_keep_the_bundle_that_they_have() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (new, old) = (new_ca(&clock), new_ca(&clock));
    let signer = start(root.path(), recovered(&[&new, &old], &clock), &clock);
    let held = [new.roots()[0].clone(), old.roots()[0].clone()];
    for _ in 0..2 {
        assert_eq!(roots(&signer), held);
        assert_eq!(bundle_of(&signer).sequence(), Some(7));
        // Also when the last SVID has ended.
        clock.forward(2_000);
        signer.poll();
    }
    put(root.path(), &new);
    signer.poll();
    assert_eq!(signed_by(&signer, &clock).await, new.roots()[0], "they trust it already");
    assert_eq!(roots(&signer), [new.roots()[0].clone()], "nothing under the old one lives");
}

/// Invariant 6: in every bundle before its first signature.
#[tokio::test]
async fn an_unrelated_ca_that_comes_later_is_published_first() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    let signer = start(root.path(), recovered(&[&old], &clock), &clock);
    put(root.path(), &new);
    signer.poll();
    assert_eq!(roots(&signer), [new.roots()[0].clone(), old.roots()[0].clone()]);
    assert!(obstacle(&signer).await.contains("signs in 5 s"));
    // A pod's publish waits for 20 s.
    clock.forward(5);
    signer.poll();
    assert_eq!(signed_by(&signer, &clock).await, new.roots()[0]);
    assert_eq!(roots(&signer).len(), 2);
    clock.forward(1_100);
    signer.poll();
    assert_eq!(roots(&signer), [new.roots()[0].clone()]);
}

#[tokio::test]
async fn a_ca_that_could_not_be_made_is_made_later() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let directory = root.path().join("ca");
    fs::write(&directory, "in its way").unwrap();
    let signer = open(&directory, true, &clock);
    assert!(obstacle(&signer).await.contains("create"));
    fs::remove_file(&directory).unwrap();
    signer.poll();
    let made = signed_by(&signer, &clock).await;
    // One that was there is never replaced by itself.
    fs::remove_dir_all(&directory).unwrap();
    signer.poll();
    assert!(!directory.exists());
    assert_eq!(signed_by(&signer, &clock).await, made);
}
