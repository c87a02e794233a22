//! SPIFFE_Workload_API.md §8.

use svid_csi_proto::workload::{JwtsvidRequest, X509svidRequest};

use super::requirements;
use crate::workload_api::{Ground, message};

requirements! {
    WorkloadApi "8" Must
    "The first SVID of a response is the default identity: the pod's one."
    async fn workload_api_8_the_first_svid_is_the_pods_identity() {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        assert_eq!(message(&mut svids).await.svids[0].spiffe_id, pod.id());
        let request = JwtsvidRequest { audience: vec!["a".into()], ..Default::default() };
        let svids = api.fetch_jwtsvid(request).await.unwrap().into_inner().svids;
        assert_eq!(svids[0].spiffe_id, pod.id());
    }

    WorkloadApi "8" Should
    "A hint has 1,024 bytes at most."
    async fn workload_api_8_hints_are_short() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        assert!(message(&mut svids).await.svids.iter().all(|svid| svid.hint.len() <= 1024));
    }
}
