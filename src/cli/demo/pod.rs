//! The demo's pods, and what kubelet would send for them.

use std::path::{Path, PathBuf};

use svid_csi_proto::csi::v1::{
    NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability,
    volume_capability::{AccessMode, AccessType, MountVolume, access_mode},
};

use super::TRUST_DOMAIN;
use crate::volume::PREFIX;

/// A pod with one volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod {
    pub(super) name: &'static str,
    pub(super) namespace: &'static str,
    pub(super) service_account: &'static str,
    pub(super) key_algorithm: &'static str,
    pub(super) ttl: &'static str,
    uid: &'static str,
}

/// Two are replicas, of one ServiceAccount. The first is a client of the last.
pub(super) const PODS: [Pod; 5] = [
    Pod {
        name: "web-1",
        namespace: "shop",
        service_account: "web",
        key_algorithm: "ecdsa-p256",
        ttl: "12s",
        uid: "0d9c1c5e-7a51-4c0b-9f0e-3f7f6c1e2a01",
    },
    Pod {
        name: "web-2",
        namespace: "shop",
        service_account: "web",
        key_algorithm: "ecdsa-p256",
        ttl: "12s",
        uid: "0d9c1c5e-7a51-4c0b-9f0e-3f7f6c1e2a02",
    },
    Pod {
        name: "cart-1",
        namespace: "shop",
        service_account: "cart",
        key_algorithm: "ed25519",
        ttl: "10s",
        uid: "0d9c1c5e-7a51-4c0b-9f0e-3f7f6c1e2a03",
    },
    Pod {
        name: "probe-1",
        namespace: "lab",
        service_account: "probe",
        key_algorithm: "rsa-2048",
        ttl: "11s",
        uid: "0d9c1c5e-7a51-4c0b-9f0e-3f7f6c1e2a04",
    },
    Pod {
        name: "ledger-1",
        namespace: "bank",
        service_account: "ledger",
        key_algorithm: "ecdsa-p384",
        ttl: "12s",
        uid: "0d9c1c5e-7a51-4c0b-9f0e-3f7f6c1e2a05",
    },
];

// === impl Pod ===

impl Pod {
    /// The SPIFFE ID that it must get.
    pub(super) fn spiffe_id(&self) -> String {
        let Self { namespace, service_account, .. } = self;
        format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{service_account}")
    }

    pub(super) fn volume_id(&self) -> String {
        format!("csi-{}", self.uid)
    }

    /// kubelet's directory of the pod.
    pub(super) fn directory(&self, kubelet: &Path) -> PathBuf {
        kubelet.join("pods").join(self.uid)
    }

    /// Where its volume is mounted.
    pub(super) fn target(&self, kubelet: &Path) -> PathBuf {
        self.directory(kubelet).join("volumes/kubernetes.io~csi/svid/mount")
    }

    /// The call by which kubelet asks for the volume.
    pub(super) fn publish(&self, kubelet: &Path) -> NodePublishVolumeRequest {
        let context = [
            ("csi.storage.k8s.io/ephemeral".to_owned(), "true"),
            ("csi.storage.k8s.io/pod.name".to_owned(), self.name),
            ("csi.storage.k8s.io/pod.namespace".to_owned(), self.namespace),
            ("csi.storage.k8s.io/pod.uid".to_owned(), self.uid),
            ("csi.storage.k8s.io/serviceAccount.name".to_owned(), self.service_account),
            (format!("{PREFIX}key-algorithm"), self.key_algorithm),
            (format!("{PREFIX}ttl"), self.ttl),
        ];
        NodePublishVolumeRequest {
            volume_id: self.volume_id(),
            target_path: self.target(kubelet).display().to_string(),
            readonly: true,
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume::default())),
                access_mode: Some(AccessMode { mode: access_mode::Mode::SingleNodeWriter.into() }),
            }),
            volume_context: context
                .map(|(key, value)| (key, value.to_owned()))
                .into_iter()
                .collect(),
            ..NodePublishVolumeRequest::default()
        }
    }

    /// The call by which kubelet gives the volume back.
    pub(super) fn unpublish(&self, kubelet: &Path) -> NodeUnpublishVolumeRequest {
        NodeUnpublishVolumeRequest {
            volume_id: self.volume_id(),
            target_path: self.target(kubelet).display().to_string(),
        }
    }
}
