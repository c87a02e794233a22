//! What an operator sets about PodCertificateRequests, as arguments.

use clap::{Args, builder::FalseyValueParser};

use super::is_name;
use crate::{cli::UsageError, k8s::names::SIGNER};

/// The part about PodCertificateRequests of the arguments of `svid-csi controller`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pod certificates")]
pub(super) struct PodCertificateArgs {
    /// Sign PodCertificateRequests too, where the API server has them
    #[arg(long, env = "SVID_CSI_POD_CERTIFICATES", value_parser = FalseyValueParser::new())]
    pod_certificates: bool,

    /// Signer name of those that are signed
    #[arg(
        long, env = "SVID_CSI_POD_CERTIFICATE_SIGNER", value_name = "DOMAIN/NAME",
        default_value = SIGNER
    )]
    pod_certificate_signer: String,

    /// ValidatingAdmissionPolicy, and binding of that name, that lets only kubelets ask for them;
    /// while it isn't in force none are signed
    #[arg(
        long,
        env = "SVID_CSI_POD_CERTIFICATE_FENCE",
        value_name = "NAME",
        default_value = "svid-csi-pod-certificates"
    )]
    pod_certificate_fence: String,
}

/// That they are signed, and by which names.
pub(super) struct Signing {
    pub(super) signer: String,
    pub(super) fence: String,
}

// === impl PodCertificateArgs ===

impl PodCertificateArgs {
    pub(super) fn settings(self) -> Result<Option<Signing>, UsageError> {
        let signer = self.pod_certificate_signer;
        let (domain, name) = signer.split_once('/').unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !is_name(domain) || name.is_empty() || !name.bytes().all(allowed) || signer.len() > 253 {
            let problem = "must be a domain, a slash and a name, such as svid.dev/workload";
            return Err(UsageError::new("--pod-certificate-signer", problem));
        }
        if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
            let problem = "must not be of the domain kubernetes.io, which is Kubernetes' own";
            return Err(UsageError::new("--pod-certificate-signer", problem));
        }
        if !is_name(&self.pod_certificate_fence) {
            let problem = "must be the name of a Kubernetes object";
            return Err(UsageError::new("--pod-certificate-fence", problem));
        }
        let fence = self.pod_certificate_fence;
        Ok(self.pod_certificates.then_some(Signing { signer, fence }))
    }
}
