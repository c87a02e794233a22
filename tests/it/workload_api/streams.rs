//! What becomes of open streams while certificates, bundles, volumes and processes come and go.

use std::{sync::atomic::Ordering, time::Duration};

use svid_csi::{
    class::Class,
    clock::{Clock, SystemClock},
    pki::certificates_to_pem,
    trust::TrustBundles,
};
use svid_csi_proto::workload::{
    JwtBundlesRequest, X509BundlesRequest, X509svidRequest, X509svidResponse,
};
use tokio::time::timeout;
use tonic::Code;

use super::{Ground, ended, message};
use crate::{
    in_process::authority,
    plugin::{Pod, on_a_node},
    volume::Set,
};

/// Long enough for a message that must not come.
const SILENCE: Duration = Duration::from_millis(500);

fn roots(response: &X509svidResponse) -> &[u8] {
    &response.svids[0].bundle
}

/// DESIGN.md §2, invariant 2: what is told over a socket is what lies in its volume.
#[test]
fn a_stream_tells_the_pair_that_is_in_the_volume_and_each_that_replaces_it() {
    on_a_node(async || {
        let ground = Ground::new();
        let pod = Pod::new(1).with("ttl", "10s");
        ground.publish(&pod).await;
        let mut api = ground.api(&pod).await;
        let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let mut serials = Vec::new();
        for _ in 0..3 {
            let [svid] = message(&mut stream).await.svids.try_into().unwrap();
            let set = ground.machine.set(&pod);
            let chain: Vec<u8> = set.svid.chain().iter().flat_map(|c| c.der().to_vec()).collect();
            assert_eq!(svid.x509_svid, chain);
            assert_eq!(&svid.x509_svid_key[..], set.key.pkcs8_der());
            assert_eq!(svid.spiffe_id, pod.id());
            serials.push(set.svid.serial_hex().to_owned());
        }
        serials.dedup();
        assert_eq!(serials.len(), 3, "each rotation was told once");
    });
}

/// Invariant 6: a root that is added is in every bundle at once, beside the SVID that it has not
/// signed.
#[test]
fn an_added_root_is_told_beside_the_same_svid_and_once() {
    on_a_node(async || {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let mut bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
        let before = message(&mut svids).await;
        message(&mut bundles).await;
        let (old, new) = (ground.signer.authority(), authority(SystemClock.now()));
        ground.trust(&[&old, &new], 2);
        let after = message(&mut svids).await;
        assert_eq!(after.svids[0].x509_svid, before.svids[0].x509_svid);
        let both = [old.certificate().der(), new.certificate().der()].concat();
        assert_eq!(roots(&after), both);
        assert_eq!(message(&mut bundles).await.bundles["spiffe://example.org"], both);
        // The files follow, which changes nothing of what was told.
        assert!(timeout(SILENCE, svids.message()).await.is_err());
        assert!(timeout(SILENCE, bundles.message()).await.is_err());
        assert_eq!(ground.signer.signed.load(Ordering::SeqCst), 1);
    });
}

/// A bundle that would not verify the SVID beside it is not told with it: the volume is renewed
/// first. Those who only verify others hear of it at once.
#[test]
fn a_removed_root_is_told_with_the_first_svid_that_does_without() {
    on_a_node(async || {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let mut bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
        let before = message(&mut svids).await;
        message(&mut bundles).await;
        let new = ground.signer.switch(authority(SystemClock.now()));
        ground.trust(&[&new], 2);
        let der = new.certificate().der();
        assert_eq!(message(&mut bundles).await.bundles["spiffe://example.org"], der);
        let after = message(&mut svids).await;
        assert_eq!(roots(&after), der);
        assert_ne!(after.svids[0].x509_svid, before.svids[0].x509_svid);
        let set: Set = ground.machine.set(&pod);
        assert_eq!(certificates_to_pem(set.svid.chain()), {
            let chain = after.svids[0].x509_svid.as_ref();
            certificates_to_pem(&[svid_csi::pki::Certificate::from_der(chain).unwrap()])
        });
    });
}

/// Equal messages are suppressed: a sequence number is no part of an X.509 bundle.
#[test]
fn what_changes_nothing_for_a_client_is_not_told() {
    on_a_node(async || {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let mut jwt = api.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap().into_inner();
        message(&mut svids).await;
        message(&mut jwt).await;
        ground.trust(&[&ground.signer.authority()], 2);
        assert!(timeout(SILENCE, svids.message()).await.is_err());
        assert!(timeout(SILENCE, jwt.message()).await.is_err());
    });
}

/// A client that is away for a while gets the newest, and what it missed is kept for it only as
/// far as HTTP/2's window goes.
#[test]
fn a_slow_reader_gets_the_newest() {
    on_a_node(async || {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let mut slow = super::client::with_window(&ground.socket(&pod), 65_535).await;
        let slow = slow.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap();
        let (mut slow, request) = (slow.into_inner(), X509BundlesRequest {});
        let mut quick = api.fetch_x509_bundles(request).await.unwrap().into_inner();
        message(&mut quick).await;
        let own = ground.signer.authority();
        let mut newest = Vec::new();
        for sequence in 2..202 {
            let next = authority(SystemClock.now());
            ground.trust(&[&own, &next], sequence);
            newest = [own.certificate().der(), next.certificate().der()].concat();
            // Each is really sent to whoever reads.
            assert_eq!(message(&mut quick).await.bundles["spiffe://example.org"], newest);
        }
        let (mut bytes, mut messages) = (0, 0);
        loop {
            let bundle = message(&mut slow).await.bundles.remove("spiffe://example.org").unwrap();
            (bytes, messages) = (bytes + bundle.len(), messages + 1);
            if bundle == newest {
                break;
            }
        }
        assert!(bytes < 65_535 + 2 * newest.len(), "{messages} messages of {bytes} bytes");
        assert!(messages < 200, "{messages} messages");
    });
}

/// Whatever is federated, each trust domain has its own entry (SPIFFE Federation §4.2).
#[test]
fn federated_bundles_are_told_each_by_itself() {
    on_a_node(async || {
        let mut ground = Ground::new();
        let domain = "partner.example".parse().unwrap();
        let partner = svid_csi::pki::Authority::create(
            &domain,
            svid_csi::pki::KeyAlgorithm::EcdsaP256,
            Duration::from_secs(86_400),
            SystemClock.now(),
        );
        let partner = partner.unwrap().bundle();
        let der = partner.x509_authorities()[0].der().to_vec();
        ground.terminate().await;
        let own = ground.signer.bundle(1);
        let federated = [(domain, partner)].into();
        ground.store =
            std::sync::Arc::new(svid_csi::trust::BundleStore::new(TrustBundles { own, federated }));
        ground.start();
        let (_pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let told = message(&mut svids).await;
        let own = ground.signer.authority();
        assert_eq!(roots(&told), own.certificate().der());
        assert_eq!(told.federated_bundles["spiffe://partner.example"], der);
        assert_eq!(told.federated_bundles.len(), 1);
        let mut bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
        let told = message(&mut bundles).await.bundles;
        assert_eq!(told["spiffe://partner.example"], der);
        assert_eq!(told["spiffe://example.org"], own.certificate().der());
        assert_eq!(told.len(), 2);
        // It has no JWT keys, so it is told nothing of (JWT-SVID §6.2).
        let mut jwt = api.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap().into_inner();
        let told = message(&mut jwt).await.bundles;
        assert_eq!(told.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    });
}

/// Nobody is told an expired SVID, and a stream that told one ends with it, not when its client
/// finds out. What the signer says decides on the status.
#[test]
fn a_stream_ends_with_its_svid() {
    on_a_node(async || {
        for (class, code, text) in [
            (Class::Denied, Code::PermissionDenied, "no identity issued"),
            (Class::Unavailable, Code::Unavailable, "expired"),
        ] {
            let ground = Ground::new();
            let pod = Pod::new(1).with("ttl", "10s");
            ground.publish(&pod).await;
            let mut api = ground.api(&pod).await;
            let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
            ground.signer.refuse(Some(class));
            message(&mut stream).await;
            let end = ground.machine.set(&pod).svid.not_after();
            let status = ended(&mut stream).await;
            let late = SystemClock.now().duration_since(end).expect("not before its end");
            assert!(late < Duration::from_secs(2), "{late:?}");
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(text), "{status:?}");
            let again = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
            let status = ended(&mut { again }).await;
            assert_eq!(status.code(), code, "{status:?}");
            // Others are verified all the same.
            let bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap();
            message(&mut bundles.into_inner()).await;
        }
    });
}
