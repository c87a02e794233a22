//! Settings of the controller's client.

use std::path::PathBuf;

use clap::Args;

use super::SignerKind;
use crate::{
    cli::UsageError,
    id::{SpiffeId, TrustDomain},
    signer::controller::ControllerConfig,
};

/// Arguments that name the controller, and what it is shown.
#[derive(Debug, Args)]
pub(super) struct ControllerArgs {
    /// Where the controller signs by gRPC: a name that stands for all its replicas, such as
    /// svid-csi-issuer.svid-csi.svc:9443, or several with commas between; needed by --signer
    /// controller, and by every other signer in a cluster for JWT-SVIDs
    #[arg(long, env = "SVID_CSI_CONTROLLER_ADDRESS", value_name = "HOST:PORT")]
    controller_address: Option<String>,

    /// The driver's own token for it, of the audience --token-audience alone: a projected
    /// serviceAccountToken, never the token for the API server
    #[arg(
        long,
        env = "SVID_CSI_CONTROLLER_TOKEN_FILE",
        default_value = "/var/run/secrets/svid.dev/token",
        value_name = "FILE"
    )]
    controller_token_file: PathBuf,

    /// Audience of the tokens that the controller is shown, the driver's and the pods': the CSIDriver
    /// object has it in `tokenRequests`
    #[arg(
        long,
        env = "SVID_CSI_TOKEN_AUDIENCE",
        default_value = "svid.dev",
        value_name = "AUDIENCE"
    )]
    pub(super) token_audience: String,
}

// === impl ControllerArgs ===

impl ControllerArgs {
    pub(super) fn settings(
        self,
        signer: SignerKind,
        trust_domain: &TrustDomain,
    ) -> Result<Option<ControllerConfig>, UsageError> {
        if self.token_audience.is_empty() {
            // The token without one is for the API server.
            return Err(UsageError::new("--token-audience", "must not be empty"));
        }
        // An empty variable of the environment is none.
        let Some(address) = self.controller_address.filter(|address| !address.is_empty()) else {
            return match signer {
                SignerKind::Controller => Err(UsageError::new(
                    "--controller-address",
                    "is needed by --signer controller: name the Service in front of the controller",
                )),
                _ => Ok(None),
            };
        };
        let elsewhere = match signer {
            SignerKind::Csr | SignerKind::Controller | SignerKind::CertManager => None,
            SignerKind::Local => Some("is of no use with --signer local, which signs by itself"),
            SignerKind::Agent => {
                Some("is of no use with --signer agent: SPIRE signs JWT-SVIDs too")
            }
        };
        if let Some(reason) = elsewhere {
            return Err(UsageError::new("--controller-address", reason));
        }
        let address =
            address.parse().map_err(|error| UsageError::new("--controller-address", error))?;
        Ok(Some(ControllerConfig {
            address,
            id: SpiffeId::controller(trust_domain),
            token_file: self.controller_token_file,
            token_audience: self.token_audience,
        }))
    }
}
