//! SPIFFE_Workload_API.md §1 to §4: profiles, streams, defaults.

use std::time::{Duration, Instant};

use svid_csi::clock::{Clock, SystemClock};
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest,
};
use tonic::{Code, Request};

use super::requirements;
use crate::{
    in_process::authority,
    plugin::connect,
    workload_api::{Ground, message},
};

fn for_audience(audience: &[&str]) -> JwtsvidRequest {
    let audience = audience.iter().map(ToString::to_string).collect();
    JwtsvidRequest { audience, ..Default::default() }
}

requirements! {
    WorkloadApi "1" Must
    "The X.509-SVID and JWT-SVID profiles are supported."
    async fn workload_api_1_both_profiles_are_served() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        message(&mut api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner()).await;
        let bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap();
        message(&mut bundles.into_inner()).await;
        let svids = api.fetch_jwtsvid(for_audience(&["a"])).await.unwrap().into_inner().svids;
        let bundles = api.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap();
        message(&mut bundles.into_inner()).await;
        let request = ValidateJwtsvidRequest { audience: "a".into(), svid: svids[0].svid.clone() };
        api.validate_jwtsvid(request).await.unwrap();
    }

    WorkloadApi "1" Must
    "A profile that the operator disabled answers Unimplemented, and the others are served: here JWT without a JWT key."
    async fn workload_api_1_without_a_jwt_key_its_calls_are_unimplemented() {
        let ground = Ground::without_jwt();
        let (_pod, mut api) = ground.pod(1).await;
        let validate = ValidateJwtsvidRequest { audience: "a".into(), svid: "b".into() };
        let statuses = [
            api.fetch_jwtsvid(for_audience(&["a"])).await.unwrap_err(),
            api.fetch_jwtsvid(for_audience(&[])).await.unwrap_err(),
            api.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap_err(),
            api.validate_jwtsvid(validate).await.unwrap_err(),
        ];
        for status in statuses {
            assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
            assert!(status.message().contains("set a JWT key"), "it says what to do: {status:?}");
        }
        message(&mut api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner()).await;
    }

    WorkloadApi "2" Must
    "The Workload API is not extended: under its name nothing else is answered."
    async fn workload_api_2_other_methods_are_unimplemented() {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let channel = connect(&ground.socket(&pod)).await.unwrap();
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
        let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidRequest>::default();
        let path = "/SpiffeWorkloadAPI/FetchEverything".parse().unwrap();
        let status = grpc.unary(request, path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }

    WorkloadApi "4.3" Must
    "Each message of a stream has the full state, not only what changed."
    async fn workload_api_4_3_each_message_is_the_full_state() {
        let ground = Ground::new();
        let (pod, mut api) = ground.pod(1).await;
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        message(&mut svids).await;
        let old = ground.signer.authority();
        ground.trust(&[&old, &authority(SystemClock.now())], 2);
        // Only the bundle changed; the SVID and its key are there all the same.
        let [svid] = message(&mut svids).await.svids.try_into().unwrap();
        assert_eq!(svid.spiffe_id, pod.id());
        assert!(!svid.x509_svid.is_empty() && !svid.x509_svid_key.is_empty());
        assert!(svid.bundle.len() > old.certificate().der().len());
    }

    WorkloadApi "4.3" Must
    "The first message of each stream comes at once, though nothing has changed."
    async fn workload_api_4_3_the_first_message_comes_at_once() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        for _ in 0..3 {
            let began = Instant::now();
            message(&mut api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner()).await;
            let bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap();
            message(&mut bundles.into_inner()).await;
            let bundles = api.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap();
            message(&mut bundles.into_inner()).await;
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }

    WorkloadApi "4.3" Should
    "Messages are sent for events that change them: a rotation, a new authority."
    async fn workload_api_4_3_a_change_is_told_at_once() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let mut bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
        message(&mut bundles).await;
        let next = authority(SystemClock.now());
        let began = Instant::now();
        ground.trust(&[&ground.signer.authority(), &next], 2);
        message(&mut bundles).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }

    WorkloadApi "4.4" Should
    "What a message lacks is withdrawn: a removed authority is in the next message no longer."
    async fn workload_api_4_4_what_is_withdrawn_is_absent() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let (own, second) = (ground.signer.authority(), authority(SystemClock.now()));
        ground.trust(&[&own, &second], 2);
        let mut bundles = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
        let both = [own.certificate().der(), second.certificate().der()].concat();
        assert_eq!(message(&mut bundles).await.bundles["spiffe://example.org"], both);
        ground.trust(&[&own], 3);
        let left = message(&mut bundles).await.bundles;
        assert_eq!(left["spiffe://example.org"], own.certificate().der());
    }

    WorkloadApi "4.5" Should
    "A mandatory field with its default value is answered InvalidArgument."
    async fn workload_api_4_5_mandatory_fields_are_asked_for() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let svid = api.fetch_jwtsvid(for_audience(&["a"])).await.unwrap().into_inner();
        let token = svid.svids[0].svid.clone();
        let validate =
            |audience: &str, svid: &str| ValidateJwtsvidRequest {
                audience: audience.to_owned(),
                svid: svid.to_owned(),
            };
        let statuses = [
            api.fetch_jwtsvid(for_audience(&[])).await.unwrap_err(),
            api.fetch_jwtsvid(for_audience(&[""])).await.unwrap_err(),
            api.fetch_jwtsvid(for_audience(&["a", ""])).await.unwrap_err(),
            api.validate_jwtsvid(validate("", &token)).await.unwrap_err(),
            api.validate_jwtsvid(validate("a", "")).await.unwrap_err(),
        ];
        for status in statuses {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
    }

    WorkloadApi "7" Must
    "Where the WIT-SVID profile is not supported, its calls answer Unimplemented."
    async fn workload_api_7_wit_calls_are_unimplemented() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        let statuses = [
            api.fetch_witsvid(WitsvidRequest::default()).await.unwrap_err(),
            api.fetch_wit_bundles(WitBundlesRequest {}).await.unwrap_err(),
        ];
        for status in statuses {
            assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        }
    }
}
