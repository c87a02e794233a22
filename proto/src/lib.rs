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
}
