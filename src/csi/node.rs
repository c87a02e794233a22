//! The CSI Node service.

use std::sync::Arc;

use svid_csi_proto::csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeCapability, VolumeCondition,
    VolumeUsage, node_server,
    node_service_capability::{Rpc, Type, rpc},
    volume_capability::{AccessType, MountVolume},
    volume_usage::Unit,
};
use tonic::{Request, Response, Status};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    node::{Node, PublishRequest, Usage, VolumeStats},
    volume::{PodToken, PodTokenError, TOKENS_KEY, VolumeContext, VolumeId},
};

const CAPABILITIES: [rpc::Type; 3] =
    [rpc::Type::VolumeMountGroup, rpc::Type::GetVolumeStats, rpc::Type::VolumeCondition];

pub(super) struct NodeService {
    pub(super) node_name: String,
    pub(super) node: Arc<Node>,
    pub(super) token_audience: String,
}

// === impl NodeService ===

#[tonic::async_trait]
impl node_server::Node for NodeService {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = publish_request(request.into_inner(), &self.token_audience)?;
        self.node.publish(request).await?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = volume_id(&request.volume_id)?;
        require("target_path", &request.target_path)?;
        self.node.unpublish(volume, request.target_path).await?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume = volume_id(&request.volume_id)?;
        require("volume_path", &request.volume_path)?;
        let VolumeStats { bytes, inodes, abnormal } =
            self.node.stats(&volume, &request.volume_path)?;
        let message = abnormal.clone().unwrap_or_else(|| "the SVID is in place".to_owned());
        Ok(Response::new(NodeGetVolumeStatsResponse {
            usage: vec![usage(bytes, Unit::Bytes), usage(inodes, Unit::Inodes)],
            volume_condition: Some(VolumeCondition { abnormal: abnormal.is_some(), message }),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |r#type: rpc::Type| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: r#type.into() })),
        };
        let capabilities = CAPABILITIES.into_iter().map(capability).collect();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_name.clone(),
            max_volumes_per_node: 0,
            accessible_topology: None,
        }))
    }

    async fn node_stage_volume(
        &self,
        _: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        Err(unimplemented("NodeStageVolume"))
    }

    async fn node_unstage_volume(
        &self,
        _: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        Err(unimplemented("NodeUnstageVolume"))
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(unimplemented("NodeExpandVolume"))
    }
}

/// Checks what CSI asks of every driver, and leaves secrets behind but for one token.
fn publish_request(
    mut request: NodePublishVolumeRequest,
    audience: &str,
) -> Result<PublishRequest, Status> {
    let pod_token = pod_token(&mut request, audience);
    let volume = volume_id(&request.volume_id)?;
    require("target_path", &request.target_path)?;
    let mount = mount_volume(request.volume_capability)?;
    if !request.readonly {
        return Err(Status::invalid_argument(
            "the volume must be read-only: set `readOnly: true` beside `csi.driver` in the pod",
        ));
    }
    let group = Some(mount.volume_mount_group).filter(|group| !group.is_empty());
    Ok(PublishRequest {
        volume,
        target: request.target_path,
        context: VolumeContext::from(request.volume_context),
        mount_group: group,
        pod_token,
    })
}

/// The pod's token for this audience. kubelet puts all of them into `secrets` where the CSIDriver
/// object says so, or else among the attributes.
fn pod_token(
    request: &mut NodePublishVolumeRequest,
    audience: &str,
) -> Result<PodToken, PodTokenError> {
    let in_secrets = request.secrets.remove(TOKENS_KEY).map(Zeroizing::new);
    let in_context = request.volume_context.remove(TOKENS_KEY).map(Zeroizing::new);
    request.secrets.values_mut().for_each(Zeroize::zeroize);
    let json = in_secrets.or(in_context);
    PodToken::from_json(json.as_deref().map(String::as_str), audience)
}

fn mount_volume(capability: Option<VolumeCapability>) -> Result<MountVolume, Status> {
    let capability =
        capability.ok_or_else(|| Status::invalid_argument("volume_capability is missing"))?;
    let mount = match capability.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            return Err(Status::invalid_argument("block volumes hold no files; mount the volume"));
        }
        None => {
            return Err(Status::invalid_argument("volume_capability has no access type"));
        }
    };
    if !matches!(mount.fs_type.as_str(), "" | "tmpfs") {
        return Err(Status::invalid_argument(format!(
            "the volume is always a tmpfs: remove `fsType: {}`",
            mount.fs_type
        )));
    }
    if !mount.mount_flags.is_empty() {
        return Err(Status::invalid_argument("mount flags can't be chosen: remove them"));
    }
    Ok(mount)
}

fn volume_id(id: &str) -> Result<VolumeId, Status> {
    require("volume_id", id)?;
    id.parse().map_err(|error| Status::invalid_argument(format!("volume_id: {error}")))
}

fn require(field: &str, value: &str) -> Result<(), Status> {
    if value.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is missing")));
    }
    Ok(())
}

fn usage(usage: Usage, unit: Unit) -> VolumeUsage {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    VolumeUsage {
        total: number(usage.total),
        used: number(usage.used),
        available: number(usage.available),
        unit: unit.into(),
    }
}

fn unimplemented(method: &str) -> Status {
    Status::unimplemented(format!("{method}: volumes are ephemeral and need no staging"))
}
