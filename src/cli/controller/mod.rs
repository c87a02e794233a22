//! `svid-csi controller`: from arguments to a running controller.

mod ca;
mod cert_manager;
mod certificates;
mod issuer;
mod jwt;
mod pod_certificates;
mod serve;

use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, builder::FalseyValueParser};

use super::{
    UsageError,
    telemetry::{self, LogFormat, LogLevel},
};
use crate::{
    controller::approver::ApproverSettings,
    id::TrustDomain,
    k8s::{ObjectName, names},
    sys::process::forbid_core_dumps,
};

const EXAMPLES: &str = "\
Examples:
  In a Deployment, with settings from the environment:
    SVID_CSI_TRUST_DOMAIN=example.org POD_NAME=svid-csi-controller-0 \\
      svid-csi controller --driver-service-account svid-csi/svid-csi --http-listen 0.0.0.0:9810

  Outside the cluster, as the person of the current kubeconfig:
    svid-csi controller --kubeconfig --namespace svid-csi --trust-domain example.org \\
      --driver-service-account svid-csi/svid-csi

Decisions are written to standard output, one line of JSON each; the log goes to standard error.
Exit status: 0 after SIGTERM or SIGINT, 64 for a setting that can't be used, 1 for anything else.";

/// Arguments of `svid-csi controller`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(super) struct ControllerArgs {
    /// SPIFFE trust domain of every identity, such as example.org
    #[arg(long, env = "SVID_CSI_TRUST_DOMAIN")]
    trust_domain: String,

    /// Name of the CSI driver that pods' volumes must name
    #[arg(long, env = "SVID_CSI_DRIVER_NAME", default_value = "csi.svid.dev")]
    driver_name: String,

    /// ServiceAccount of the node plugin, the only one that may ask
    #[arg(long, env = "SVID_CSI_DRIVER_SERVICE_ACCOUNT", value_name = "NAMESPACE/NAME")]
    driver_service_account: String,

    /// Where the CA Secret, the bundle's ConfigMap and the Lease are [default: the own namespace]
    #[arg(long, env = "SVID_CSI_NAMESPACE")]
    namespace: Option<String>,

    /// Name of this replica [default: POD_NAME, else the host's name]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    replica: Option<String>,

    /// ConfigMap of the trust bundle
    #[arg(
        long, env = "SVID_CSI_BUNDLE_CONFIG_MAP", value_name = "NAME",
        default_value = names::bundle_map::DEFAULT_NAME
    )]
    bundle_config_map: String,

    /// Lease that says which replica leads
    #[arg(
        long,
        env = "SVID_CSI_LEASE",
        value_name = "NAME",
        default_value = "svid-csi-controller"
    )]
    lease: String,

    /// Use KUBECONFIG or ~/.kube/config instead of the pod's ServiceAccount
    #[arg(long, env = "SVID_CSI_KUBECONFIG", value_parser = FalseyValueParser::new())]
    kubeconfig: bool,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, requires = "kubeconfig")]
    context: Option<String>,

    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "SVID_CSI_HTTP_LISTEN", default_value = "127.0.0.1:9810")]
    http_listen: String,

    #[command(flatten)]
    ca: ca::CaArgs,

    #[command(flatten)]
    issuer: issuer::IssuerArgs,

    #[command(flatten)]
    pod_certificates: pod_certificates::PodCertificateArgs,

    #[command(flatten)]
    cert_manager: cert_manager::CertManagerArgs,

    /// How log lines look
    #[arg(long, env = "SVID_CSI_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,

    /// How much is logged
    #[arg(long, env = "SVID_CSI_LOG_LEVEL", value_enum, default_value = "info")]
    log_level: LogLevel,
}

/// Arguments after every check that needs no API server.
struct Settings {
    approver: ApproverSettings,
    ca: ca::CaChoice,
    pod_certificates: Option<pod_certificates::Signing>,
    cert_manager: Option<cert_manager::CertManagerSettings>,
    access: Access,
    namespace: Option<String>,
    replica: String,
    lease: String,
    http_listen: SocketAddr,
    issuer: Option<issuer::IssuerChoice>,
}

/// Whose access to the API server is used.
enum Access {
    /// The pod's.
    Pod,
    /// A person's, with this context.
    Kubeconfig(Option<String>),
}

// === impl ControllerArgs ===

impl ControllerArgs {
    fn settings(self) -> Result<Settings, UsageError> {
        let trust_domain: TrustDomain =
            self.trust_domain.parse().map_err(|error| UsageError::new("--trust-domain", error))?;
        if self.driver_name.is_empty() || self.driver_name.len() > 63 {
            return Err(UsageError::new("--driver-name", "must have 1 to 63 characters"));
        }
        let driver_service_account = match self.driver_service_account.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                ObjectName::new(namespace, name)
            }
            _ => {
                return Err(UsageError::new(
                    "--driver-service-account",
                    "must be NAMESPACE/NAME of the node plugin's ServiceAccount",
                ));
            }
        };
        for (setting, name) in [
            ("--namespace", self.namespace.as_ref()),
            ("--replica", self.replica.as_ref()),
            ("--bundle-config-map", Some(&self.bundle_config_map)),
            ("--lease", Some(&self.lease)),
        ] {
            if name.is_some_and(|name| !is_name(name)) {
                return Err(UsageError::new(setting, "must be the name of a Kubernetes object"));
            }
        }
        let http_listen = self
            .http_listen
            .parse()
            .map_err(|error| UsageError::new("--http-listen", format!("{error}; give IP:PORT")))?;
        let access = match self.kubeconfig {
            true => Access::Kubeconfig(self.context),
            false => Access::Pod,
        };
        let pod_certificates = self.pod_certificates.settings()?;
        Ok(Settings {
            cert_manager: self.cert_manager.settings()?,
            ca: self.ca.settings(trust_domain.clone(), self.bundle_config_map)?,
            approver: ApproverSettings {
                trust_domain,
                driver_name: self.driver_name,
                driver_service_account,
                pod_certificate_signer: pod_certificates.as_ref().map(|it| it.signer.clone()),
            },
            pod_certificates,
            access,
            namespace: self.namespace,
            replica: self.replica.unwrap_or_else(host_name),
            lease: self.lease,
            http_listen,
            issuer: self.issuer.settings()?,
        })
    }
}

/// What the API server takes as a name, roughly: it has the last word.
fn is_name(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "controller".to_owned())
}

/// Runs the controller until a signal ends it.
pub(super) fn run(args: ControllerArgs) -> Result<ExitCode> {
    let (format, level) = (args.log_format, args.log_level);
    let settings = args.settings()?;
    telemetry::start(format, level);
    forbid_core_dumps().context("forbid core dumps")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve::serve(settings));
    runtime.shutdown_background();
    ended?;
    Ok(ExitCode::SUCCESS)
}
