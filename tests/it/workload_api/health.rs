//! gRPC health at a volume's socket: whether its pod has an identity.

use svid_csi::class::Class;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Ground, message};
use crate::plugin::{Pod, connect, on_a_node};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[test]
fn a_pod_is_healthy_for_as_long_as_its_svid_lives() {
    on_a_node(async || {
        let ground = Ground::new();
        let pod = Pod::new(1).with("ttl", "10s");
        ground.publish(&pod).await;
        let mut health = HealthClient::new(connect(&ground.socket(&pod)).await.unwrap());
        for service in ["", "SpiffeWorkloadAPI", "envoy.service.secret.v3.SecretDiscoveryService"] {
            let status = health.check(of(service)).await.unwrap().into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{service}");
        }
        let mut watch = health.watch(of("")).await.unwrap().into_inner();
        assert_eq!(message(&mut watch).await.status(), ServingStatus::Serving);
        ground.signer.refuse(Some(Class::Unavailable));
        assert_eq!(message(&mut watch).await.status(), ServingStatus::NotServing);
        let status = health.check(of("")).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing);
        ground.signer.refuse(None);
        assert_eq!(message(&mut watch).await.status(), ServingStatus::Serving);
    });
}

#[test]
fn a_service_that_is_not_served_is_not_found() {
    on_a_node(async || {
        let ground = Ground::new();
        let (pod, _) = ground.pod(1).await;
        let mut health = HealthClient::new(connect(&ground.socket(&pod)).await.unwrap());
        let status = health.check(of("elsewhere")).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        // The protocol's own way to say it on a stream, which goes on.
        let mut watch = health.watch(of("elsewhere")).await.unwrap().into_inner();
        assert_eq!(message(&mut watch).await.status(), ServingStatus::ServiceUnknown);
    });
}
