//! kubelet's plugin registration, in the process: no sidecar.

use std::{path::PathBuf, sync::Arc};

use svid_csi_proto::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
    registration_server::Registration,
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

pub(super) struct RegistrationService {
    pub(super) driver_name: String,
    /// Where kubelet finds csi.sock, as the host sees it.
    pub(super) endpoint: PathBuf,
    /// Told when kubelet refused: the socket has to be made anew for another try.
    pub(super) refused: Arc<Notify>,
}

// === impl RegistrationService ===

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = status.into_inner();
        if status.plugin_registered {
            info!("registered with kubelet");
        } else {
            warn!(error = status.error, "kubelet refused the registration; trying again");
            self.refused.notify_one();
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
