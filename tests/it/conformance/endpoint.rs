//! SPIFFE_Workload_Endpoint.md.

use std::{collections::BTreeSet, os::unix::fs::FileTypeExt, process::Command};

use prost::Message;
use prost_types::FileDescriptorProto;
use svid_csi::class::Class;
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest,
};
use tonic::{Code, Request, Status, metadata::MetadataMap};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::requirements;
use crate::{
    plugin::{Node, Pod, connect},
    workload_api::{Bare, Ground, ended, message},
};

/// Calls every method with these headers.
async fn call_all(api: &mut Bare, headers: &MetadataMap) -> Vec<(&'static str, Status)> {
    macro_rules! calls {
        ($($method:ident($request:expr)),*) => {
            vec![$({
                let mut request = Request::new($request);
                *request.metadata_mut() = headers.clone();
                let status = api.$method(request).await.expect_err(stringify!($method));
                (stringify!($method), status)
            }),*]
        };
    }
    calls!(
        fetch_x509svid(X509svidRequest {}),
        fetch_x509_bundles(X509BundlesRequest {}),
        fetch_jwtsvid(JwtsvidRequest { audience: vec!["a".into()], ..Default::default() }),
        fetch_jwt_bundles(JwtBundlesRequest {}),
        validate_jwtsvid(ValidateJwtsvidRequest { audience: "a".into(), svid: "b".into() }),
        fetch_witsvid(WitsvidRequest::default()),
        fetch_wit_bundles(WitBundlesRequest {})
    )
}

async fn reflect(ground: &Ground, pod: &Pod, ask: MessageRequest) -> MessageResponse {
    let channel = connect(&ground.socket(pod)).await.unwrap();
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = ServerReflectionClient::new(channel);
    let asked = client.server_reflection_info(tokio_stream::iter([ask])).await;
    message(&mut asked.unwrap().into_inner()).await.message_response.unwrap()
}

requirements! {
    WorkloadEndpoint "2" Should
    "The endpoint is local, and one instance serves one host: here, one pod."
    async fn workload_endpoint_2_each_volume_has_a_socket_of_its_own() {
        let ground = Ground::new();
        let mut identities = BTreeSet::new();
        for n in 1..=3 {
            let mut pod = Pod::new(n);
            pod.service_account = format!("cart-{n}");
            ground.publish(&pod).await;
            let file = std::fs::metadata(ground.socket(&pod)).unwrap();
            assert!(file.file_type().is_socket());
            let mut api = ground.api(&pod).await;
            let svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap();
            let svid = message(&mut svids.into_inner()).await.svids.remove(0);
            assert_eq!(svid.spiffe_id, pod.id());
            identities.insert(svid.spiffe_id);
        }
        assert_eq!(identities.len(), 3);
    }

    WorkloadEndpoint "3" Must
    "The endpoint is served over gRPC, preferably on a Unix domain socket."
    async fn workload_endpoint_3_grpc_on_a_unix_socket() {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let socket = node.target(&pod).join("spiffe.sock");
        let mut api = crate::workload_api::with_header(&socket).await;
        let svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap();
        assert_eq!(message(&mut svids.into_inner()).await.svids[0].spiffe_id, pod.id());
        node.kill().await;
    }

    WorkloadEndpoint "3" Must
    "Requests without `workload.spiffe.io: true`, to the letter, are rejected, whatever they ask for."
    async fn workload_endpoint_3_nothing_is_answered_without_the_header() {
        let ground = Ground::new();
        let pod = Pod::new(1);
        ground.publish(&pod).await;
        let mut api = ground.bare(&pod).await;
        let values: [&[&str]; 8] =
            [&[], &[""], &["True"], &["TRUE"], &["1"], &["false"], &["true,true"], &["true", "true"]];
        for values in values {
            let mut headers = MetadataMap::new();
            for value in values {
                headers.append("workload.spiffe.io", value.parse().unwrap());
            }
            for (method, status) in call_all(&mut api, &headers).await {
                assert_eq!(status.code(), Code::InvalidArgument, "{values:?} {method}: {status:?}");
                assert_eq!(status.message(), "security header missing from request");
            }
        }
    }

    WorkloadEndpoint "3.1" Must
    "TLS is not required."
    async fn workload_endpoint_3_1_plain_http2_is_answered() {
        let ground = Ground::new();
        // The client of `Ground` speaks no TLS, and gives nothing but the header.
        let (pod, mut api) = ground.pod(1).await;
        let svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap();
        assert_eq!(message(&mut svids.into_inner()).await.svids[0].spiffe_id, pod.id());
    }

    WorkloadEndpoint "4" Must
    "A client that is told no address takes `SPIFFE_ENDPOINT_SOCKET`, a `unix` URI (`svid-csi fetch` is one)."
    async fn workload_endpoint_4_our_client_falls_back_to_the_environment() {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let fetch = |address: String| {
            let mut fetch = Command::new(env!("CARGO_BIN_EXE_svid-csi"));
            fetch.args(["fetch", "x509"]).env("SPIFFE_ENDPOINT_SOCKET", address);
            move || fetch.output().unwrap()
        };
        let path = ground.socket(&pod).display().to_string();
        let run = fetch(format!("unix://{path}"));
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(&pod.id()), "{output:?}");
        for wrong in [format!("unix://host{path}"), format!("unix://{path}?x"), "unix:".to_owned()] {
            let output = tokio::task::spawn_blocking(fetch(wrong.clone())).await.unwrap();
            assert!(!output.status.success(), "{wrong}: {output:?}");
        }
    }

    WorkloadEndpoint "5" Must
    "No direct authentication of clients is required; who calls is found out otherwise: by the socket that an orchestrator placed into a container."
    async fn workload_endpoint_5_whoever_reaches_the_socket_is_the_pod() {
        let ground = Ground::new();
        let (one, mut first) = ground.pod(1).await;
        let mut second = Pod::new(2);
        second.namespace = "bank".to_owned();
        ground.publish(&second).await;
        let mut other = ground.api(&second).await;
        // The same process asks at both: what it is told depends on the socket alone.
        for (api, id) in [(&mut first, one.id()), (&mut other, second.id())] {
            let svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap();
            assert_eq!(message(&mut svids.into_inner()).await.svids[0].spiffe_id, id);
        }
    }

    WorkloadEndpoint "6" Must
    "A request without the security header is answered InvalidArgument."
    async fn workload_endpoint_6_no_header_is_an_invalid_argument() {
        let ground = Ground::without_jwt();
        let pod = Pod::new(1);
        ground.publish(&pod).await;
        // Also where the answer would be Unimplemented or Unavailable.
        ground.machine.clock.set_ahead(std::time::Duration::from_secs(7_200));
        ground.signer.refuse(Some(Class::Unavailable));
        let mut api = ground.bare(&pod).await;
        for (method, status) in call_all(&mut api, &MetadataMap::new()).await {
            assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status:?}");
        }
    }

    WorkloadEndpoint "6" Should
    "Unavailable while there is nothing to give yet, or load is shed."
    async fn workload_endpoint_6_an_absent_signer_is_unavailable() {
        let ground = Ground::new();
        let (_pod, mut api) = ground.pod(1).await;
        ground.signer.refuse(Some(Class::Unavailable));
        let audience = vec!["a".to_owned()];
        let request = JwtsvidRequest { audience, ..Default::default() };
        let status = api.fetch_jwtsvid(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        ground.machine.clock.set_ahead(std::time::Duration::from_secs(3_700));
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let status = ended(&mut svids).await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }

    WorkloadEndpoint "6" Should
    "PermissionDenied where no identity is defined for the caller."
    async fn workload_endpoint_6_no_identity_is_permission_denied() {
        let ground = Ground::new();
        let pod = Pod::new(1).with("ttl", "10s");
        ground.publish(&pod).await;
        let mut api = ground.api(&pod).await;
        ground.signer.refuse(Some(Class::Denied));
        let mut svids = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        let status = ended(&mut svids).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert_eq!(status.message(), "no identity issued", "clients match the text");
        let audience = vec!["a".to_owned()];
        let request = JwtsvidRequest { audience, ..Default::default() };
        let status = api.fetch_jwtsvid(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert_eq!(status.message(), "no identity issued", "clients match the text");
    }

    WorkloadEndpoint "7" Must
    "The Workload API is exposed, and not extended: its service has the standard's methods and no others."
    async fn workload_endpoint_7_the_service_is_the_standards_and_no_more() {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let ask = MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI".into());
        let MessageResponse::FileDescriptorResponse(files) = reflect(&ground, &pod, ask).await
        else {
            panic!("no descriptor")
        };
        let file = FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
        assert_eq!(file.package, None);
        let methods: Vec<_> = file.service[0].method.iter().map(|one| one.name()).collect();
        let standard = [
            "FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles",
            "ValidateJWTSVID", "FetchWITSVID", "FetchWITBundles",
        ];
        assert_eq!(methods, standard);
    }

    WorkloadEndpoint "7" Should
    "gRPC server reflection tells what is served, here without the security header."
    async fn workload_endpoint_7_reflection_names_every_service() {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let ask = MessageRequest::ListServices(String::new());
        let MessageResponse::ListServicesResponse(list) = reflect(&ground, &pod, ask).await else {
            panic!("no list")
        };
        let names: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
        let expected = [
            "SpiffeWorkloadAPI",
            "envoy.service.secret.v3.SecretDiscoveryService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        assert_eq!(names, expected.map(ToOwned::to_owned).into());
        let channel = connect(&ground.socket(&pod)).await.unwrap();
        let check = HealthCheckRequest { service: "SpiffeWorkloadAPI".into() };
        let health = HealthClient::new(channel).check(check).await.unwrap();
        assert_eq!(health.into_inner().status().as_str_name(), "SERVING");
    }
}
