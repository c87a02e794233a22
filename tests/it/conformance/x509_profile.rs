//! SPIFFE_Workload_API.md §5, the X.509-SVID profile.

use svid_csi::{
    class::Class,
    clock::{Clock, SystemClock},
    pki::{Certificate, PrivateKey, TrustBundle, X509Svid},
};
use svid_csi_proto::workload::{X509BundlesRequest, X509svidRequest};
use tonic::Code;

use super::requirements;
use crate::{
    plugin::{Pod, TRUST_DOMAIN},
    workload_api::{Ground, ended, message},
};

requirements! {
    WorkloadApi "5.2.1" Must
    "An X509SVIDResponse has at least one SVID, with all its mandatory fields, which belong together."
    async fn workload_api_5_2_1_the_response_has_a_whole_svid() {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let [svid] = message(&mut svids).await.svids.try_into().unwrap();
        assert_eq!(svid.spiffe_id, pod.id());
        let chain = vec![Certificate::from_der(&svid.x509_svid).unwrap()];
        let x509 = X509Svid::from_chain(chain).unwrap();
        let key = PrivateKey::from_pkcs8_der(&svid.x509_svid_key).unwrap();
        let root = Certificate::from_der(&svid.bundle).unwrap();
        let bundle = TrustBundle::new(TRUST_DOMAIN.parse().unwrap(), vec![root]).unwrap();
        let id = pod.id().parse().unwrap();
        x509.verify(&id, key.spki_der(), &bundle, SystemClock.now()).unwrap();
    }

    WorkloadApi "5.2.1" Must
    "Hints that are set are unique among the SVIDs of a response: none is set."
    async fn workload_api_5_2_1_no_hint_is_there_twice() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let svids = message(&mut svids).await.svids;
        assert!(svids.iter().all(|svid| svid.hint.is_empty()));
    }

    WorkloadApi "5.2.1" Should
    "A client that is entitled to no SVID, or no longer, is answered PermissionDenied, in the midst of a stream too."
    async fn workload_api_5_2_1_a_lost_identity_ends_the_stream() {
        let ground = Ground::new();
        let pod = Pod::new(1).with("ttl", "10s");
        ground.publish(&pod).await;
        let mut api = ground.api(&pod).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        message(&mut svids).await;
        ground.signer.refuse(Some(Class::Denied));
        assert_eq!(ended(&mut svids).await.code(), Code::PermissionDenied);
        let mut again = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        assert_eq!(ended(&mut again).await.code(), Code::PermissionDenied);
    }

    WorkloadApi "5.2.2" Must
    "An X509BundlesResponse has the bundle of the server's own trust domain, under its SPIFFE ID."
    async fn workload_api_5_2_2_the_own_bundle_is_there() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
        let bundles = message(&mut bundles).await.bundles;
        assert_eq!(bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
        let root = ground.signer.authority().certificate().der().to_vec();
        assert_eq!(bundles["spiffe://example.org"], root);
    }
}
