//! Generated gRPC code of the interfaces that svid-csi speaks, committed so that a build needs no
//! protoc. `tests/generated.rs` proves it current; `UPDATE=1 cargo test -p svid-csi-proto`
//! rewrites it.

use std::fmt;

/// The Container Storage Interface.
pub mod csi {
    /// CSI 1.12, package `csi.v1`.
    #[allow(
        missing_docs,
        unreachable_pub,
        rustdoc::all,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    pub mod v1 {
        include!("csi.v1.rs");
    }
}

/// Kubelet's plugin registration, package `pluginregistration`.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod pluginregistration {
    include!("pluginregistration.rs");
}

/// The SPIFFE Workload API, which has no package.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod workload {
    include!("workload.rs");

    /// A serialized `FileDescriptorSet` of all that a workload's socket serves, for server
    /// reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!("workload_api.binpb");
}

/// The parts of Envoy's v3 API that secret discovery (SDS) needs.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("envoy.config.core.v3.rs");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    include!("envoy.extensions.transport_sockets.tls.v3.rs");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                include!("envoy.service.discovery.v3.rs");
            }
        }
        pub mod secret {
            pub mod v3 {
                include!("envoy.service.secret.v3.rs");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            include!("envoy.type.v3.rs");
        }
    }
}

/// How a node has identities signed by the controller, package `svid.issuer.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod issuer {
    pub mod v1 {
        include!("svid.issuer.v1.rs");
    }
}

/// The part of `google.rpc` that secret discovery needs.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod google {
    pub mod rpc {
        include!("google.rpc.rs");
    }
}

/// The parts of SPIRE's API that a delegate of its agent needs.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod spire {
    pub mod api {
        pub mod agent {
            pub mod delegatedidentity {
                pub mod v1 {
                    include!("spire.api.agent.delegatedidentity.v1.rs");
                }
            }
        }
        pub mod types {
            include!("spire.api.types.rs");
        }
    }
}

// `secrets` and `volume_context` carry tokens: neither is ever shown.

impl fmt::Debug for csi::v1::NodePublishVolumeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePublishVolumeRequest")
            .field("volume_id", &self.volume_id)
            .field("target_path", &self.target_path)
            .field("readonly", &self.readonly)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for csi::v1::NodeStageVolumeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeStageVolumeRequest")
            .field("volume_id", &self.volume_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for csi::v1::NodeExpandVolumeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeExpandVolumeRequest")
            .field("volume_id", &self.volume_id)
            .finish_non_exhaustive()
    }
}

// Private keys and tokens are never shown.

impl fmt::Debug for workload::X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509SVID")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for workload::Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JWTSVID")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for issuer::v1::IssueX509SvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueX509SvidRequest")
            .field("pod", &self.pod)
            .field("volume_id", &self.volume_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for issuer::v1::IssueJwtSvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueJwtSvidRequest")
            .field("pod", &self.pod)
            .field("spiffe_id", &self.spiffe_id)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for issuer::v1::JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid").field("decision", &self.decision).finish_non_exhaustive()
    }
}

impl fmt::Debug for workload::Witsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WITSVID").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for workload::ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateJWTSVIDRequest")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for envoy::config::core::v3::DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSource").finish_non_exhaustive()
    }
}

impl fmt::Debug for envoy::config::core::v3::data_source::Specifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Specifier").finish_non_exhaustive()
    }
}

impl fmt::Debug for envoy::service::discovery::v3::DiscoveryResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryResponse")
            .field("version_info", &self.version_info)
            .field("resources", &self.resources.len())
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for envoy::service::discovery::v3::Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for spire::api::agent::delegatedidentity::v1::X509svidWithKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509SVIDWithKey")
            .field("x509_svid", &self.x509_svid)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for spire::api::types::Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JWTSVID")
            .field("id", &self.id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::csi::v1::NodePublishVolumeRequest;

    /// Invariant 1, as far as it reaches here: a request's tokens are not in its `Debug`.
    #[test]
    fn debug_of_a_publish_request_hides_tokens() {
        let tokens = ("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), "ey-token".to_owned());
        let request = NodePublishVolumeRequest {
            volume_id: "csi-1".into(),
            secrets: [tokens.clone()].into(),
            volume_context: [tokens].into(),
            ..Default::default()
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("csi-1") && !shown.contains("ey-token"), "{shown}");
    }
    /// Invariant 1: no key and no token of a workload is in the `Debug` of what carries it.
    #[test]
    fn debug_of_what_a_workload_gets_hides_keys_and_tokens() {
        use super::{
            envoy::config::core::v3 as envoy,
            issuer::v1 as issuer,
            spire::api::{agent::delegatedidentity::v1 as delegated, types},
            workload,
        };
        let secret = "secret-bytes";
        let svid = workload::X509svid { x509_svid_key: secret.into(), ..Default::default() };
        let token = workload::Jwtsvid { svid: secret.into(), ..Default::default() };
        let asked = workload::ValidateJwtsvidRequest { svid: secret.into(), ..Default::default() };
        let handed =
            delegated::X509svidWithKey { x509_svid_key: secret.into(), ..Default::default() };
        let fetched = types::Jwtsvid { token: secret.into(), ..Default::default() };
        let specifier = Some(envoy::data_source::Specifier::InlineBytes(secret.into()));
        let (x509, jwt) = (
            issuer::IssueX509SvidRequest { pod_token: secret.into(), ..Default::default() },
            issuer::IssueJwtSvidRequest { pod_token: secret.into(), ..Default::default() },
        );
        let issued = issuer::JwtSvid { token: secret.into(), decision: None };
        let shown = [
            format!("{x509:?} {jwt:?} {issued:?}"),
            format!("{:?}", workload::X509svidResponse { svids: vec![svid], ..Default::default() }),
            format!("{:?}", workload::JwtsvidResponse { svids: vec![token] }),
            format!("{asked:?} {handed:?} {fetched:?}"),
            format!("{:?} {specifier:?}", envoy::DataSource { specifier: specifier.clone() }),
        ];
        for shown in shown {
            let bytes = format!("{:?}", secret.as_bytes());
            assert!(!shown.contains(secret) && !shown.contains(&bytes), "{shown}");
        }
    }
}
